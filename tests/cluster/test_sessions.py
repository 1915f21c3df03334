"""Heartbeats, measurements, silence, and what of them the ledger is told."""

from __future__ import annotations

import asyncio
import base64
from math import ceil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vcp_cluster.cluster.door import assignments as assignments_module
from vcp_cluster.cluster.door.assignments import AssignmentWatch
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.reports import is_report_due
from vcp_cluster.cluster.door.session_files import SessionFiles, SessionRecord
from vcp_cluster.cluster.door.sessions import PROBE_BYTES, SILENCE_S, Sessions
from vcp_cluster.cluster.errors import InvalidTransaction, UnknownOutcome
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import SignedTelemetry
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import public_key
from vcp_cluster.ledger.operations import NodeReport
from vcp_cluster.ledger.records import AssignmentOutcome, TaskStatus

from .fake_ledger import (
    MEMBER_SEEDS,
    NODE,
    NODE_SEED,
    START_MS,
    Clock,
    FakeChain,
    FakeLedger,
    asynchronous,
    make_genesis,
    until,
)

OTHER_SEED = b"other node".ljust(32, b"\0")


class Member:
    """The sessions of one member, and a worker that talks to it. Time passes in one place."""

    def __init__(self, chain: FakeChain, name: str = "a", path: Path | None = None, **kw: Any):
        self.chain = chain
        self.ledger: FakeLedger = chain.member(name)
        self.clock = Clock()
        self.sessions = Sessions(
            self.ledger, path, clock=self.clock, now_ms=lambda: chain.time_ms, **kw
        )

    def body(self, seed: bytes = NODE_SEED, **changes: Any) -> dict[str, Any]:
        telemetry = changes.pop("telemetry", None) or self.chain.telemetry(seed)
        text = base64.b64encode(encode(telemetry)).decode()
        return {"telemetry": text, "running": [], "wait_ms": 0, "echo": None, **changes}

    async def beat(self, seed: bytes = NODE_SEED, **changes: Any) -> dict[str, Any]:
        """A heartbeat; what the member wants to report is in the ledger afterwards."""
        answer = await self.sessions.heartbeat(public_key(seed), self.body(seed, **changes))
        await self.sessions.reporter.submit_pending()
        return answer

    async def greet(self, seed: bytes = NODE_SEED) -> None:
        """Probe, heartbeat, echo, heartbeat: what brings a new node online."""
        node = public_key(seed)
        await self.sessions.probe(node, PROBE_BYTES, 0.01)
        token = (await self.beat(seed))["echo"]
        self.clock.now_s += 0.005
        await self.sessions.echo(node, token)
        await self.beat(seed)

    def pass_time(self, seconds: float) -> None:
        self.clock.now_s += seconds
        self.chain.time_ms += int(seconds * 1000)

    def pass_checked(self, seconds: float) -> None:
        """Let time pass in a member that looks for silence every second, but not at the end."""
        start_s = self.clock.now_s
        for second in range(1, ceil(seconds)):
            self.clock.now_s = start_s + second
            self.sessions.report_silent()
        self.clock.now_s = start_s
        self.pass_time(seconds)

    async def notice_silence(self) -> None:
        self.sessions.report_silent()
        await self.sessions.reporter.submit_pending()

    @property
    def reports(self) -> list[NodeReport]:
        return [one for operations in self.ledger.submitted for one in operations]  # type: ignore


def make_member(**parameters: int) -> Member:
    chain = FakeChain(make_genesis(**parameters))
    chain.register()
    return Member(chain)


# --- a node comes online -----------------------------------------------------------------------


@asynchronous
async def test_a_node_is_reported_once_both_measurements_are_there() -> None:
    member = make_member()
    answer = await member.sessions.probe(NODE, PROBE_BYTES, 0.01)
    assert answer == {"schema": "vcp/probe/v1", "bandwidth_kbps": 209_715}
    first = await member.beat()
    assert first["schema"] == "vcp/heartbeat/v1"
    assert first["is_online"] is False
    assert member.reports == []
    member.clock.now_s += 0.005
    await member.sessions.echo(NODE, first["echo"])
    await member.beat()
    (report,) = member.reports
    assert report.is_online
    assert report.measured_bandwidth_kbps == 209_715
    assert report.measured_latency_us == pytest.approx(5_000, abs=1)
    node = member.chain.node()
    # Declared are 800 Mbit/s and 2 ms: what was measured is worse, and counts.
    assert node.bandwidth_kbps == 209_715
    assert node.latency_us == report.measured_latency_us
    answer = await member.beat()
    assert answer["is_online"] is True
    assert answer["height"] == member.chain.height
    assert answer["time"] == "2027-01-15T08:00:00.000Z"


@asynchronous
async def test_measurements_are_medians_of_the_last_few() -> None:
    member = make_member()
    for seconds in (1.0, 0.01, 0.01):
        answer = await member.sessions.probe(NODE, PROBE_BYTES, seconds)
    assert answer["bandwidth_kbps"] == 209_715
    for milliseconds in [4] * 5 + [200] * 3:
        token = (await member.beat())["echo"]
        member.clock.now_s += milliseconds / 1000
        await member.sessions.echo(NODE, token)
    member.pass_time(60)
    await member.beat()
    assert member.reports[-1].measured_latency_us == pytest.approx(4_000, abs=1)


@asynchronous
async def test_an_echo_counts_once_and_only_the_newest() -> None:
    member = make_member()
    old = (await member.beat())["echo"]
    new = (await member.beat())["echo"]
    for token in (old, "", "é", "\ud800", "x" * 1_000):
        with pytest.raises(Problem) as caught:
            await member.sessions.echo(NODE, token)
        assert caught.value.status == 404
    await member.sessions.echo(NODE, new)
    with pytest.raises(Problem):
        await member.sessions.echo(NODE, new)
    with pytest.raises(Problem):
        await member.sessions.echo(public_key(OTHER_SEED), new)


@asynchronous
async def test_a_heartbeat_may_carry_the_echo_itself() -> None:
    member = make_member()
    await member.sessions.probe(NODE, PROBE_BYTES, 0.01)
    token = (await member.beat())["echo"]
    member.clock.now_s += 0.02
    await member.beat(echo=token)
    assert member.reports[0].measured_latency_us == pytest.approx(20_000, abs=1)


@asynchronous
async def test_probes_of_another_size_or_of_strangers_are_refused() -> None:
    member = make_member()
    for size in (0, PROBE_BYTES - 1, PROBE_BYTES + 1):
        with pytest.raises(Problem) as caught:
            await member.sessions.probe(NODE, size, 0.01)
        assert caught.value.status == 400
    with pytest.raises(Problem) as caught:
        await member.sessions.probe(public_key(OTHER_SEED), PROBE_BYTES, 0.01)
    assert caught.value.status == 404
    answer = await member.sessions.probe(NODE, PROBE_BYTES, 0.0)
    assert answer["bandwidth_kbps"] == 100_000_000


# --- what is refused ---------------------------------------------------------------------------


def _other_chain(chain: FakeChain) -> SignedTelemetry:
    return FakeChain(make_genesis(attempts_max=1)).telemetry(time_ms=chain.time_ms)


@pytest.mark.parametrize(
    ("telemetry", "status"),
    [
        (_other_chain, 401),
        (lambda chain: chain.telemetry(OTHER_SEED), 401),
        (lambda chain: chain.telemetry(time_ms=START_MS - 60_001), 401),
        (lambda chain: chain.telemetry(time_ms=START_MS + 60_001), 401),
        (lambda chain: msgspec.structs.replace(chain.telemetry(), signature=bytes(64)), 401),
    ],
)
def test_telemetry_that_the_node_did_not_sign_for_now_is_401(telemetry: Any, status: int) -> None:
    @asynchronous
    async def play() -> None:
        member = make_member()
        with pytest.raises(Problem) as caught:
            await member.beat(telemetry=telemetry(member.chain))
        assert (caught.value.status, caught.value.code) == (status, "unauthorised")

    play()


@pytest.mark.parametrize(
    "changes",
    [
        {"telemetry_text": "not base64!"},
        {"telemetry_text": "AAAA"},
        {"telemetry_text": 7},
        {"telemetry_text": "A" * 10_000},
        {"running": ["xyz"]},
        {"running": [NODE.hex().upper()]},
        {"running": [NODE.hex()] * 65},
        {"running": None},
        {"wait_ms": -1},
        {"wait_ms": "1"},
        {"wait_ms": 10**9},
        {"echo": "x" * 65},
    ],
)
def test_a_malformed_heartbeat_is_400(changes: dict[str, Any]) -> None:
    @asynchronous
    async def play() -> None:
        member = make_member()
        text = changes.pop("telemetry_text", None)
        body = member.body(**changes)
        if text is not None:
            body["telemetry"] = text
        with pytest.raises(Problem) as caught:
            await member.sessions.heartbeat(NODE, body)
        assert (caught.value.status, caught.value.code) == (400, "bad_request")

    play()


@asynchronous
async def test_an_empty_body_is_400_and_an_unregistered_node_404() -> None:
    member = make_member()
    with pytest.raises(Problem) as caught:
        await member.sessions.heartbeat(NODE, {})
    assert caught.value.status == 400
    with pytest.raises(Problem) as caught:
        await member.beat(OTHER_SEED)
    assert caught.value.status == 404


@asynchronous
async def test_an_older_telemetry_is_a_replay_and_the_same_is_a_retry() -> None:
    member = make_member()
    old = member.chain.telemetry()
    member.pass_time(1)
    new = member.chain.telemetry()
    await member.beat(telemetry=new)
    await member.beat(telemetry=new)
    with pytest.raises(Problem) as caught:
        await member.beat(telemetry=old)
    assert caught.value.status == 401


@asynchronous
async def test_the_number_of_sessions_is_bounded() -> None:
    chain = FakeChain()
    chain.register()
    chain.register(OTHER_SEED)
    member = Member(chain, sessions_max=1)
    await member.beat()
    with pytest.raises(Problem) as caught:
        await member.beat(OTHER_SEED)
    assert (caught.value.status, caught.value.code) == (429, "busy")
    member.pass_checked(SILENCE_S)
    await member.notice_silence()
    await member.beat(OTHER_SEED)


# --- when the ledger is told -------------------------------------------------------------------


@asynchronous
async def test_a_steady_node_is_reported_once_a_minute() -> None:
    member = make_member()
    await member.greet()
    for _ in range(24):
        member.pass_time(5)
        await member.beat()
    assert len(member.reports) == 3


@asynchronous
async def test_a_health_that_leaves_its_bucket_is_reported_and_one_that_trembles_is_not() -> None:
    member = make_member()
    await member.greet()
    health = member.chain.node().health
    assert health in (5_188, 5_189)
    # Efficiency is 20 % of health: 100 MFLOPS/W are 20 basis points.
    for efficiency, reports in ((4_600, 1), (4_050, 1), (3_900, 2), (0, 2)):
        member.pass_time(5)
        await member.beat(telemetry=member.chain.telemetry(efficiency_mflops_w=efficiency))
        assert len(member.reports) == reports
    assert member.chain.node().health == health - 220


def test_the_edge_of_a_bucket_has_hysteresis() -> None:
    chain = FakeChain()
    chain.bring_online()
    node, key = chain.node(), public_key(MEMBER_SEEDS["a"])
    parameters = chain.genesis.parameters
    wanted = {}
    for efficiency in range(0, 10_001, 50):
        telemetry = chain.telemetry(efficiency_mflops_w=efficiency)
        report = NodeReport(NODE, True, 800_000, 2_000, telemetry)
        health = node.health + (efficiency - 5_000) // 5
        wanted[health] = is_report_due(node, report, parameters, reporter=key, since_last_s=5.0)
    assert any(wanted.values())
    for health, is_due in wanted.items():
        is_other = health // 1_000 != node.health // 1_000
        assert is_due == (is_other and abs(health - node.health) >= 200), health


@pytest.mark.parametrize(
    ("changes", "is_due"),
    [
        ({}, False),
        ({"is_online": False}, True),
        ({"reporter": public_key(MEMBER_SEEDS["b"])}, True),
        ({"is_safe_mode": True}, True),
    ],
)
def test_what_the_ledger_has_wrong_is_reported(changes: dict[str, Any], is_due: bool) -> None:
    chain = FakeChain()
    chain.bring_online()
    node = msgspec.structs.replace(chain.node(), **changes)
    report = NodeReport(NODE, True, 800_000, 2_000, chain.telemetry())
    key = public_key(MEMBER_SEEDS["a"])
    parameters = chain.genesis.parameters
    assert is_report_due(node, report, parameters, reporter=key, since_last_s=5.0) is is_due


@asynchronous
async def test_reports_of_a_node_are_two_seconds_apart_whatever_it_does() -> None:
    member = make_member()
    await member.greet()
    for temperature in (90_000, 50_000, 90_000):
        member.pass_time(0.5)
        await member.beat(telemetry=member.chain.telemetry(temperature_mc=temperature))
    assert len(member.reports) == 1
    member.pass_time(0.5)
    await member.beat(telemetry=member.chain.telemetry(temperature_mc=90_000))
    assert len(member.reports) == 2
    assert member.chain.node().is_safe_mode


@asynchronous
async def test_safe_mode_ends_after_three_good_reports_two_seconds_apart() -> None:
    member = make_member()
    await member.greet()
    member.pass_time(2)
    await member.beat(telemetry=member.chain.telemetry(temperature_mc=90_000))
    assert member.chain.node().is_safe_mode
    member.pass_time(2)
    await member.beat(telemetry=member.chain.telemetry(temperature_mc=90_000))
    assert len(member.reports) == 2  # still hot, which is known
    for good in (1, 2):
        member.pass_time(2)
        await member.beat()
        await member.beat()
        assert member.chain.node().good_reports == good
    member.pass_time(2)
    await member.beat()
    assert not member.chain.node().is_safe_mode
    assert len(member.reports) == 5


@asynchronous
async def test_a_node_that_comes_from_another_member_is_taken_over_at_once() -> None:
    chain = FakeChain()
    chain.bring_online(reporter="b")
    member = Member(chain)
    # Nothing is measured here yet: what b reported stands in for it.
    await member.beat()
    assert chain.node().reporter == member.ledger.member.key
    assert member.reports[0].measured_bandwidth_kbps == 800_000


# --- silence -----------------------------------------------------------------------------------


@asynchronous
async def test_a_silent_node_loses_its_tasks_and_comes_back_with_the_next_heartbeat() -> None:
    member = make_member()
    await member.greet()
    task = member.chain.submit_task()
    assert member.chain.task(task).status == TaskStatus.ASSIGNED
    member.pass_checked(SILENCE_S - 0.1)
    await member.notice_silence()
    assert member.chain.node().is_online
    member.pass_checked(0.1)
    await member.notice_silence()
    assert not member.chain.node().is_online
    assert member.chain.task(task).assignments[0].outcome == AssignmentOutcome.RELEASED
    count = len(member.reports)
    await member.notice_silence()
    assert len(member.reports) == count
    await member.beat()
    assert member.chain.node().is_online


@asynchronous
async def test_a_member_that_stood_still_takes_nobody_for_silent() -> None:
    member = make_member()
    await member.greet()
    task = member.chain.submit_task()
    await member.notice_silence()
    member.pass_time(SILENCE_S + 1)  # stopped, or starved by a flood of requests
    await member.notice_silence()
    assert member.chain.node().is_online
    member.pass_checked(SILENCE_S - 1)
    await member.notice_silence()
    assert member.chain.task(task).status == TaskStatus.ASSIGNED
    member.pass_checked(1)
    await member.notice_silence()
    assert not member.chain.node().is_online


@asynchronous
async def test_only_the_silent_ones_are_reported() -> None:
    chain = FakeChain()
    chain.register()
    chain.register(OTHER_SEED)
    member = Member(chain)
    await member.greet()
    await member.greet(OTHER_SEED)
    member.pass_checked(SILENCE_S - 1)
    await member.beat()
    member.pass_checked(1)
    await member.notice_silence()
    assert chain.node().is_online
    assert not chain.node(public_key(OTHER_SEED)).is_online


@asynchronous
async def test_a_node_that_another_member_took_over_is_left_alone() -> None:
    member = make_member()
    await member.greet()
    other = Member(member.chain, "b")
    other.clock = member.clock
    await other.beat()
    member.pass_checked(SILENCE_S)
    await member.notice_silence()  # REPORTER_MISMATCH, and nothing more is made of it
    assert member.chain.node().is_online
    assert member.sessions.reporter._queue == {}


@asynchronous
async def test_a_node_that_was_never_reported_is_forgotten_silently() -> None:
    member = make_member()
    await member.beat()
    member.pass_checked(SILENCE_S)
    await member.notice_silence()
    assert member.reports == []


@asynchronous
async def test_a_restarted_member_still_notices_who_died_meanwhile(tmp_path: Path) -> None:
    chain = FakeChain()
    for seed in (NODE_SEED, OTHER_SEED):
        chain.register(seed)
    before = Member(chain, path=tmp_path / "sessions")
    await before.greet()
    await before.greet(OTHER_SEED)
    (tmp_path / "sessions" / "torn").write_bytes(b"half a rec")

    after = Member(chain, path=tmp_path / "sessions")
    await after.sessions.restore()
    assert not (tmp_path / "sessions" / "torn").exists()
    after.pass_checked(SILENCE_S - 1)
    await after.beat(OTHER_SEED)
    after.pass_checked(1)
    await after.notice_silence()
    assert not chain.node().is_online
    assert chain.node(public_key(OTHER_SEED)).is_online
    # Who is offline need not be remembered.
    files = [path.name for path in (tmp_path / "sessions").iterdir()]
    assert files == [public_key(OTHER_SEED).hex()]


@asynchronous
async def test_what_was_taken_over_or_silenced_is_not_restored(tmp_path: Path) -> None:
    chain = FakeChain()
    chain.register()
    before = Member(chain, path=tmp_path)
    await before.greet()
    other = Member(chain, "b")
    await other.beat()
    after = Member(chain, path=tmp_path)
    await after.sessions.restore()
    after.pass_checked(SILENCE_S)
    await after.notice_silence()
    assert after.reports == []


def test_session_files_keep_one_record_for_each_node(tmp_path: Path) -> None:
    chain = FakeChain()
    files = SessionFiles(tmp_path)
    first = SessionRecord(1, chain.telemetry(), 1, 2)
    second = SessionRecord(1, chain.telemetry(OTHER_SEED), 3, 4)
    for record in (first, first, second):
        files.save(record)
    assert {record.bandwidth_kbps for record in files.load(10)} == {1, 3}
    assert len(files.load(1)) == 1
    (tmp_path / NODE.hex()).write_bytes(encode(second))  # under another node's name
    assert files.load(10) == [second]
    files.remove(NODE)
    files.remove(public_key(OTHER_SEED))
    assert list(tmp_path.iterdir()) == []


# --- the queue of reports ----------------------------------------------------------------------


@asynchronous
async def test_one_bad_report_does_not_spoil_the_others() -> None:
    chain = FakeChain()
    seeds = [(b"node %d" % number).ljust(32, b"\0") for number in range(70)]
    for seed in seeds:
        chain.register(seed)
    member = Member(chain)
    reporter = member.sessions.reporter
    stranger = public_key(OTHER_SEED)
    reporter.enter(NodeReport(stranger, True, 1, 1, chain.telemetry(OTHER_SEED)))
    for seed in seeds:
        report = NodeReport(public_key(seed), True, 800_000, 2_000, chain.telemetry(seed))
        reporter.enter(report)
    await reporter.submit_pending()
    assert all(chain.node(public_key(seed)).is_online for seed in seeds)
    sizes = [len(operations) for operations in member.ledger.submitted]
    assert sizes == [64] + [1] * 64 + [7]


@asynchronous
async def test_reports_wait_while_there_is_no_leader_and_the_newest_counts() -> None:
    member = make_member()
    reporter = member.sessions.reporter
    reporter.enter(NodeReport(NODE, True, 1, 2_000, member.chain.telemetry()))
    member.ledger.failures = [Problem(503, "no_leader", "test")]
    with pytest.raises(Problem):
        await reporter.submit_pending()
    reporter.enter(NodeReport(NODE, True, 2, 2_000, member.chain.telemetry()))
    await reporter.submit_pending()
    assert member.chain.node().bandwidth_kbps == 2
    assert len(member.reports) == 1


@asynchronous
async def test_it_all_runs_by_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.door.sessions.SILENCE_CHECK_S", 0.001)
    monkeypatch.setattr("vcp_cluster.cluster.door.reports.RETRY_PAUSE_S", 0.001)
    monkeypatch.setattr("vcp_cluster.cluster.door.sessions.CHECK_LATE_S", SILENCE_S)
    chain = FakeChain()
    chain.register()
    member = Member(chain, path=tmp_path)
    member.ledger.failures = [Problem(503, "no_leader", "test")]
    running = asyncio.create_task(member.sessions.run())
    await member.sessions.probe(NODE, PROBE_BYTES, 0.01)
    answer = await member.sessions.heartbeat(NODE, member.body())
    await member.sessions.echo(NODE, answer["echo"])
    waiting = asyncio.create_task(member.sessions.heartbeat(NODE, member.body(wait_ms=5_000)))
    await until(lambda: chain.node().is_online)
    task = chain.submit_task()
    (assignment,) = (await waiting)["assignments"]
    assert assignment["task"] == task.hex()
    member.pass_time(SILENCE_S)
    await until(lambda: not chain.node().is_online)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@asynchronous
async def test_a_report_that_comes_while_an_older_one_fails_is_the_one_that_stays() -> None:
    member = make_member()
    reporter = member.sessions.reporter
    reporter.enter(NodeReport(NODE, True, 1, 2_000, member.chain.telemetry()))
    submit = member.ledger.submit

    async def fail(_operations: Any) -> Any:
        member.ledger.submit = submit
        reporter.enter(NodeReport(NODE, True, 2, 2_000, member.chain.telemetry()))
        raise Problem(503, "no_leader", "test")

    member.ledger.submit = fail
    with pytest.raises(Problem):
        await reporter.submit_pending()
    await reporter.submit_pending()
    assert member.chain.node().bandwidth_kbps == 2


@pytest.mark.parametrize(
    "failure",
    [
        Problem(503, "no_leader", "test"),
        Problem(422, "expired", "test"),
        InvalidTransaction(Code.EXPIRED, tx_id=bytes(32)),
        UnknownOutcome(bytes(32), "test"),
    ],
)
def test_a_report_of_which_nothing_is_known_is_sent_again(failure: Exception) -> None:
    @asynchronous
    async def play() -> None:
        member = make_member()
        member.sessions.reporter.enter(
            NodeReport(NODE, True, 800_000, 2_000, member.chain.telemetry())
        )
        member.ledger.failures = [failure]
        with pytest.raises(type(failure)):
            await member.sessions.reporter.submit_pending()
        await member.sessions.reporter.submit_pending()
        assert member.chain.node().is_online

    play()


@pytest.mark.parametrize(
    "failure",
    [
        Problem(422, "inner_signature_invalid", "test"),
        InvalidTransaction(Code.REPORT_STALE, tx_id=bytes(32)),
    ],
)
def test_a_rejected_report_is_not_sent_again(failure: Exception) -> None:
    @asynchronous
    async def play() -> None:
        member = make_member()
        member.sessions.reporter.enter(
            NodeReport(NODE, True, 800_000, 2_000, member.chain.telemetry())
        )
        member.ledger.failures = [failure]
        await member.sessions.reporter.submit_pending()
        await member.sessions.reporter.submit_pending()
        assert member.ledger.submitted == []

    play()


# --- assignments -------------------------------------------------------------------------------


@asynchronous
async def test_an_assignment_says_all_that_a_worker_needs() -> None:
    member = make_member()
    await member.greet()
    identity = member.chain.submit_task()
    member.chain.advance(1_500)
    task = member.chain.task(identity)
    (document,) = (await member.beat())["assignments"]
    assert document == {
        "task": identity.hex(),
        "attempt": 0,
        "module_hash": task.module_hash.hex(),
        "module_size": task.module_size,
        "entry_point": "vcp_run",
        "input_hash": task.input_hash.hex(),
        "input_size": task.input_size,
        "gas_limit": task.gas_limit,
        "memory_bytes_max": task.memory_bytes_max,
        "run_ms_max": task.run_ms_max,
        "output_bytes_max": task.output_bytes_max,
        "reward": "1000000",
        "deadline_left_ms": 28_500,
    }


@asynchronous
async def test_a_heartbeat_is_answered_at_once_when_the_assignments_are_other_ones() -> None:
    member = make_member()
    await member.greet()
    # Nothing wakes a waiter here: an answer shows that there was no wait.
    answer = await member.beat(running=["ab" * 32], wait_ms=5_000)
    assert answer["assignments"] == []
    task = member.chain.submit_task()
    answer = await member.beat(wait_ms=5_000)
    assert [one["task"] for one in answer["assignments"]] == [task.hex()]


@asynchronous
async def test_a_waiting_worker_is_woken_by_what_concerns_it_alone() -> None:
    chain = FakeChain()
    chain.bring_online()
    member = Member(chain)
    watch = member.sessions.watch
    watching = asyncio.create_task(watch.run())
    first = chain.submit_task()
    waiting = asyncio.create_task(member.beat(running=[first.hex()], wait_ms=5_000))
    await until(lambda: bool(watch._waiters))
    for _ in range(3):
        chain.advance(10)
        await until(lambda: watch._height == chain.height)
        assert not waiting.done()
    second = chain.submit_task()
    answer = await waiting
    assert {one["task"] for one in answer["assignments"]} == {first.hex(), second.hex()}
    waiting = asyncio.create_task(member.beat(running=[first.hex(), second.hex()], wait_ms=5_000))
    await until(lambda: bool(watch._waiters))
    chain.submit_proof(first)
    answer = await waiting
    assert [one["task"] for one in answer["assignments"]] == [second.hex()]
    watching.cancel()


@asynchronous
async def test_many_waiting_workers_are_one_read_for_each_height(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(assignments_module, "PAGE", 4)
    monkeypatch.setattr(assignments_module, "READ_GAP_S", 0.0)
    chain = FakeChain()
    ledger = chain.member("a")
    watch = AssignmentWatch(ledger, clock=Clock())
    nodes = [chain.bring_online((b"node %d" % number).ljust(32, b"\0")) for number in range(20)]
    tasks = [chain.submit_task() for _ in range(6)]
    assert len(tasks) == 6
    watching = asyncio.create_task(watch.run())
    known: dict[bytes, set[bytes]] = {}
    for task in tasks:
        known.setdefault(chain.task(task).assignments[0].node, set()).add(task)
    waits = {
        node: asyncio.create_task(
            watch.wait(node, frozenset(known.get(node, ())), since=chain.height, timeout_s=5)
        )
        for node in nodes
    }
    await until(lambda: watch._height == chain.height)
    assert ledger.scans == 2  # six rows, in pages of four
    assert not any(wait.done() for wait in waits.values())
    chosen = chain.task(chain.submit_task()).assignments[0].node
    await waits[chosen]
    assert ledger.scans == 4
    assert [node for node, wait in waits.items() if wait.done()] == [chosen]
    for wait in (*waits.values(), watching):
        wait.cancel()
    await asyncio.gather(*waits.values(), watching, return_exceptions=True)
    assert watch._waiters == {}


@asynchronous
async def test_what_changed_before_the_wait_began_is_not_missed() -> None:
    chain = FakeChain()
    chain.bring_online()
    ledger = chain.member("a")
    watch = AssignmentWatch(ledger)
    since = chain.height
    chain.submit_task()
    watching = asyncio.create_task(watch.run())
    await watch.wait(NODE, frozenset(), since=since, timeout_s=5)
    # Nor when the index was read after the caller looked; no further height comes.
    await watch.wait(NODE, frozenset(), since=since, timeout_s=3_600)
    watching.cancel()


@asynchronous
async def test_a_wait_ends_with_its_time_and_with_another_of_the_same_node() -> None:
    watch = AssignmentWatch(FakeChain().member("a"))
    await watch.wait(NODE, frozenset(), since=0, timeout_s=0.001)
    first = asyncio.create_task(watch.wait(NODE, frozenset(), since=0, timeout_s=5))
    await until(lambda: bool(watch._waiters))
    second = asyncio.create_task(watch.wait(NODE, frozenset(), since=0, timeout_s=0.01))
    await first
    await second
    assert watch._waiters == {}


@asynchronous
async def test_a_watch_that_cannot_read_tries_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assignments_module, "RETRY_PAUSE_S", 0.001)
    chain = FakeChain()
    chain.bring_online()
    ledger = chain.member("a")
    scan = ledger.scan

    async def fail(*_args: Any, **_kwargs: Any) -> Any:
        ledger.scan = scan
        raise Problem(503, "unavailable", "test")

    ledger.scan = fail
    watch = AssignmentWatch(ledger)
    watching = asyncio.create_task(watch.run())
    since = chain.height
    chain.submit_task()
    await watch.wait(NODE, frozenset(), since=since, timeout_s=5)
    watching.cancel()
