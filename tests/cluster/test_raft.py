"""Members as real processes on loopback: agreement, kills, refusals."""

import asyncio
import hashlib
import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pysyncobj import syncobj

from vcp_cluster.cluster import link as link_module
from vcp_cluster.cluster.link import (
    Busy,
    LinkClosed,
    LinkError,
    LinkTimeout,
    NotLeader,
    RaftLink,
    Refusal,
    Unknown,
)
from vcp_cluster.cluster.raft import engine
from vcp_cluster.cluster.raft.frames import FRAME_BYTES_MAX, FrameReader, encode_frame
from vcp_cluster.cluster.raft.pending import PENDING_TRANSACTIONS_MAX, TRANSACTION_BYTES_MAX
from vcp_cluster.cluster.raft.service import GET_KEYS_MAX, READ_BYTES_MAX, SCAN_ROWS_MAX

from .raft_cluster import Cluster, running_cluster, transaction_key, until

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three members for the tests that harm nobody."""
    with running_cluster(tmp_path_factory.mktemp("three")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """One member, which leads, for the tests of the socket."""
    with running_cluster(tmp_path_factory.mktemp("alone"), "a") as cluster:
        yield cluster


# Agreement


def test_a_thousand_transactions_reach_all_members_once(three: Cluster) -> None:
    async def scenario() -> None:
        transactions = [b"thousand %d" % each for each in range(1_000)]
        async with three.link(await three.leader()) as link:
            halves = [transactions[:500], transactions[500:]]
            receipts = await asyncio.gather(*(link.submit(half, 10) for half in halves))
            assert [len(each) for each in receipts] == [500, 500]
            assert all(len(receipt) == 8 for half in receipts for receipt in half)
        await three.same_state()
        for name in three.members:
            assert await three.applied(name, transactions) == [1] * 1_000

    asyncio.run(scenario())


def test_status_names_the_leader_and_the_peers_everywhere(three: Cluster) -> None:
    async def scenario() -> None:
        leader = await three.leader()
        for name, address in three.members.items():
            async with three.link(name) as link:

                async def connected(link: RaftLink = link) -> bool | None:
                    peers = (await link.status())["peers"]
                    return all(peer["connected"] for peer in peers) or None

                await until(connected)
                status = await link.status()
            assert (status["name"], status["leader"]) == (name, leader)
            assert status["role"] == ("leader" if name == leader else "follower")
            assert status["term"] >= 1
            assert status["commit_index"] >= status["raft_index"] >= status["height"]
            assert {peer["name"]: peer["address"] for peer in status["peers"]} == {
                other: three.members[other] for other in three.members if other != name
            }
            assert address not in {peer["address"] for peer in status["peers"]}

    asyncio.run(scenario())


def test_a_follower_takes_nothing_and_names_the_leader(three: Cluster) -> None:
    async def scenario() -> None:
        leader = await three.leader()
        follower = next(name for name in three.members if name != leader)
        async with three.link(follower) as link:
            with pytest.raises(NotLeader) as refused:
                await link.submit([b"to a follower"], 5)
        assert refused.value.leader == leader
        async with three.link(leader) as link:
            await link.submit([b"to the leader"], 5)
        await three.same_state()
        assert await three.applied(follower, [b"to a follower", b"to the leader"]) == [0, 1]

    asyncio.run(scenario())


def test_two_submissions_of_the_same_bytes_are_both_answered(three: Cluster) -> None:
    async def scenario() -> None:
        async with three.link(await three.leader()) as one, three.link(await three.leader()) as two:
            answers = await asyncio.gather(
                *(link.submit([b"twin"], 5) for link in (one, two) for _ in range(3))
            )
        assert all(len(answer) == 1 for answer in answers)

    asyncio.run(scenario())


def test_followers_push_what_they_applied(three: Cluster) -> None:
    async def scenario() -> None:
        leader = await three.leader()
        follower = next(name for name in three.members if name != leader)
        async with three.link(leader) as link, three.link(follower) as watching:
            before = (await link.status())["height"]
            assert not await watching.wait_height(before + 1_000, 0.05)
            await link.submit([b"watched"], 5)
            assert await watching.wait_height(before + 1, 5)
            assert len(watching.heights["root"]) == 32
            assert abs(watching.heights["time_ms"] - time.time() * 1000) < 60_000

    asyncio.run(scenario())


def test_a_large_submission_goes_through(three: Cluster) -> None:
    async def scenario() -> None:
        transactions = [os.urandom(TRANSACTION_BYTES_MAX) for _ in range(9)]
        async with three.link(await three.leader()) as link:
            assert len(await link.submit(transactions, 20)) == 9
        await three.same_state()

    asyncio.run(scenario())


# Kills


def test_a_late_third_member_catches_up(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        transactions = [b"%d" % each for each in range(300)]
        large = [os.urandom(TRANSACTION_BYTES_MAX) for _ in range(16)]
        async with cluster.link(await cluster.leader()) as link:
            await asyncio.gather(*(link.submit([each], 20) for each in transactions))
            await link.submit(large, 20)
            term = (await link.status())["term"]
        cluster.start("c")
        await cluster.same_state()
        assert await cluster.applied("c", transactions + large) == [1] * 316
        async with cluster.link("c") as link:
            assert (await link.status())["term"] == term

    with running_cluster(tmp_path, start="ab") as cluster:
        asyncio.run(scenario(cluster))


def test_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    """The leader, a follower and all at once are killed while eight clients write."""
    acknowledged: list[bytes] = []
    unsure: list[bytes] = []
    done = asyncio.Event()
    rng = random.Random(20)

    async def write(cluster: Cluster, client: int) -> None:
        sent = 0
        while not done.is_set():
            try:
                async with cluster.link(await cluster.leader()) as link:
                    while not done.is_set():
                        sent += 1
                        size = rng.choice([10, 300, 30_000])
                        transaction = b"%d %d " % (client, sent) + rng.randbytes(size)
                        try:
                            await link.submit([transaction], 3)
                            acknowledged.append(transaction)
                        except Unknown:
                            unsure.append(transaction)
                            raise
            except LinkError:
                continue

    async def progress(cluster: Cluster) -> None:
        """Wait until writes that came after now are acknowledged."""
        target = len(acknowledged) + 50

        async def look() -> bool | None:
            return len(acknowledged) >= target or None

        await until(look)

    async def scenario(cluster: Cluster) -> None:
        clients = [asyncio.create_task(write(cluster, client)) for client in range(8)]
        await progress(cluster)
        for victim in ("leader", "all", "leader", "follower", "all", "leader"):
            leader = await cluster.leader()
            names = {
                "leader": [leader],
                "follower": [name for name in cluster.members if name != leader][:1],
                "all": list(cluster.members),
            }[victim]
            cluster.kill(*names)
            if victim == "leader":
                await progress(cluster)
            cluster.start(*names)
            await progress(cluster)
        done.set()
        await asyncio.gather(*clients)
        state = await cluster.same_state()
        for name in cluster.members:
            assert await cluster.applied(name, acknowledged) == [1] * len(acknowledged)
            assert set(await cluster.applied(name, unsure)) <= {0, 1}
        cluster.kill()
        cluster.start()
        assert await cluster.same_state() == state

    with running_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))
        assert all("stopped:" not in cluster.log(name) for name in cluster.members)


def test_without_a_majority_a_submission_is_unknown(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.link(leader) as link:
            await link.submit([b"with"], 5)
            cluster.kill(*(name for name in cluster.members if name != leader))
            with pytest.raises(Unknown):
                await link.submit([b"without"], 0.3)

            async def refused() -> bool | None:
                try:
                    await link.submit([b"later"], 0.3)
                except NotLeader:
                    return True
                except Unknown:
                    return None
                raise AssertionError("a minority committed")

            await until(refused)

    with running_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))


def test_a_killed_member_ends_its_links(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        await cluster.leader()
        async with cluster.link("a") as link:
            waiting = asyncio.create_task(link.wait_height(1_000_000, 10))
            await link.status()
            cluster.kill("a")
            with pytest.raises(LinkClosed):
                await waiting
            assert link.is_closed
            with pytest.raises(LinkClosed):
                await link.submit([b"too late"], 1)
        with pytest.raises(LinkClosed, match="no Raft process answers"):
            await RaftLink.connect(cluster.socket_path("a"), 1)

    with running_cluster(tmp_path, "a") as cluster:
        asyncio.run(scenario(cluster))


# One member: its socket and its time


def test_what_falls_due_is_entered_once_and_on_time(alone: Cluster) -> None:
    async def scenario() -> None:
        await alone.leader()
        async with alone.link("a") as link:
            due_ms = time.time_ns() // 1_000_000 + 400
            await link.submit([b"due:%d" % due_ms], 5)
            height = (await link.status())["height"]
            assert await link.wait_height(height + 1, 5)
            assert due_ms <= link.heights["time_ms"] < due_ms + 2_000
            assert not await link.wait_height(height + 2, 0.5)

    asyncio.run(scenario())


def test_too_large_takes_nothing(alone: Cluster) -> None:
    async def scenario() -> None:
        await alone.leader()
        async with alone.link("a") as link:
            for transactions in (
                [b"small", bytes(TRANSACTION_BYTES_MAX + 1)],
                [b"small"] * (PENDING_TRANSACTIONS_MAX + 1),
            ):
                with pytest.raises(Refusal) as refused:
                    await link.submit(transactions, 5)
                assert refused.value.kind == "too_large"
        assert await alone.applied("a", [b"small"]) == [0]

    asyncio.run(scenario())


def test_a_full_queue_is_busy_and_takes_nothing(alone: Cluster) -> None:
    """Two submissions in one write: nothing can be applied between them."""

    async def scenario() -> None:
        await alone.leader()
        full = [b"full %d" % each for each in range(PENDING_TRANSACTIONS_MAX)]
        reader, writer = await asyncio.open_unix_connection(alone.socket_path("a"))
        writer.write(
            encode_frame([1, "submit", [full, 20_000]])
            + encode_frame([2, "submit", [[b"above"], 20_000]])
        )
        frames, answers = FrameReader(), []
        async with asyncio.timeout(20):
            while len(answers) < 2:
                data = await reader.read(1 << 20)
                answers += [msgspec.msgpack.decode(body) for body in frames.feed(data)]
        writer.close()
        await writer.wait_closed()
        (busy_id, outcome, busy), (full_id, other_outcome, receipts) = answers
        assert (busy_id, outcome, busy["kind"]) == (2, "error", "busy")
        assert busy["retry_after_ms"] > 0
        assert (full_id, other_outcome, len(receipts)) == (1, "ok", len(full))
        assert await alone.applied("a", [*full, b"above"]) == [*[1] * len(full), 0]
        async with alone.link("a") as link:
            assert len(await link.submit([b"above"], 5)) == 1

    asyncio.run(scenario())


def test_the_link_raises_busy_with_the_time_to_wait() -> None:
    error = link_module._error("busy", "later", {"retry_after_ms": 7})
    assert isinstance(error, Busy)
    assert error.retry_after_ms == 7


def test_get_and_scan_read_the_state(alone: Cluster) -> None:
    async def scenario() -> None:
        await alone.leader()
        async with alone.link("a") as link:
            transactions = [b"keep:R%d" % each for each in range(20)]
            await link.submit(transactions, 5)
            keys = [transaction_key(each) for each in transactions]
            height, values = await link.get([*keys, b"no such key"])
            assert height == link.heights["height"]
            assert values[-1] is None and None not in values[:-1]
            _, everything = await link.scan(b"keep:R")
            rows = zip(keys, transactions, strict=True)
            assert everything == sorted((b"keep:R" + key, value) for key, value in rows)
            _, page = await link.scan(b"keep:R", start=everything[3][0], limit=5)
            assert page == everything[3:8]
            _, page = await link.scan(b"keep:R", start=everything[3][0], limit=5, reverse=True)
            assert page == everything[3::-1]

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("method", "params"),
    [
        ("submit", []),
        ("submit", [[], 100]),
        ("submit", [[b"x"], 0]),
        ("submit", [[b"x"], 10**9]),
        ("submit", [["text"], 100]),
        ("submit", [[b"x"], 1.5]),
        ("get", [b"x"]),
        ("get", [[b"x"] * (GET_KEYS_MAX + 1)]),
        ("scan", [b"", None, 0, False]),
        ("scan", [b"", None, SCAN_ROWS_MAX + 1, False]),
        ("scan", [b"", None, 1]),
        ("status", [1]),
        ("stop", ["now"]),
    ],
)
def test_wrong_parameters_are_refused_with_a_reason(
    alone: Cluster, method: str, params: list[object]
) -> None:
    async def scenario() -> None:
        await alone.leader()
        async with alone.link("a") as link:
            with pytest.raises(Refusal) as refused:
                await link.request(method, params, 5)
            assert refused.value.kind == "bad_request"
            with pytest.raises(Refusal) as refused:
                await link.request(method + "s", params, 5)
            assert refused.value.kind == "unknown_method"
            await link.status()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 0),
        struct.pack(">I", FRAME_BYTES_MAX + 1),
        encode_frame([0, "status", []]),
        encode_frame([-1, "status", []]),
        encode_frame(["1", "status", []]),
        encode_frame([1, "status"]),
        encode_frame([1, b"\xff", []]),
        struct.pack(">I", 1) + b"\xc1",
        struct.pack(">I", 100_000) + b"\x91" * 100_000,
        struct.pack(">I", 6) + b"\x93\x01\xa2\xff\xff\x90",
    ],
)
def test_a_malformed_request_closes_its_connection_only(alone: Cluster, data: bytes) -> None:
    async def scenario() -> None:
        async with alone.link("a") as link:
            reader, writer = await asyncio.open_unix_connection(alone.socket_path("a"))
            writer.write(data)
            async with asyncio.timeout(5):
                assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()
            await link.status()

    asyncio.run(scenario())


def test_many_requests_share_a_link_and_a_request_can_be_given_up(alone: Cluster) -> None:
    async def scenario() -> None:
        await alone.leader()
        async with alone.link("a") as link:
            with pytest.raises(LinkTimeout):
                await link.request("status", [], 0)
            answers = await asyncio.gather(
                *(link.submit([b"shared %d" % each], 10) for each in range(2_000)),
                *(link.status() for _ in range(200)),
            )
            assert len(answers) == 2_200

    asyncio.run(scenario())


def test_an_answer_above_the_read_bound_stops_early_or_is_refused(alone: Cluster) -> None:
    async def scenario() -> None:
        await alone.leader()
        async with alone.link("a") as link:
            size = TRANSACTION_BYTES_MAX - 6
            large = [b"keep:L" + os.urandom(size) for _ in range(READ_BYTES_MAX // size + 4)]
            await link.submit(large, 20)
            rows: list[tuple[bytes, bytes]] = []
            pages = 0
            while True:
                start = rows[-1][0] + b"\0" if rows else None
                _, page = await link.scan(b"keep:L", start=start)
                if not page:
                    break
                assert sum(len(key) + len(value) for key, value in page) <= READ_BYTES_MAX
                rows += page
                pages += 1
            assert pages == 2
            assert sorted(value for _, value in rows) == sorted(large)
            with pytest.raises(Refusal) as refused:
                await link.get([key for key, _ in rows])
            assert refused.value.kind == "too_large"

    asyncio.run(scenario())


# Starting and stopping


def test_orderly_stops_end_with_zero_and_remove_the_socket(tmp_path: Path) -> None:
    async def stop(cluster: Cluster) -> None:
        async with cluster.link("a") as link:
            await link.submit([b"before"], 5)
            await link.request("stop", [], 5)

    with running_cluster(tmp_path, "a") as cluster:
        asyncio.run(cluster.leader())
        asyncio.run(stop(cluster))
        assert cluster.processes.pop("a").wait(5) == 0
        assert not cluster.socket_path("a").exists()
        cluster.start("a")
        asyncio.run(cluster.leader())
        assert asyncio.run(cluster.applied("a", [b"before"])) == [1]
        assert cluster.terminate("a") == 0
        assert not cluster.socket_path("a").exists()
        assert cluster.log("a") == ""


def test_a_defect_in_apply_stops_the_member_at_once(tmp_path: Path) -> None:
    async def poison(cluster: Cluster) -> None:
        await cluster.leader()
        async with cluster.link("a") as link:
            await link.submit([b"before"], 5)
            with pytest.raises(Unknown):
                await link.submit([b"poison"], 5)

    with running_cluster(tmp_path, "a") as cluster:
        asyncio.run(poison(cluster))
        assert cluster.processes.pop("a").wait(5) == engine.EXIT_FAIL_STOP
        assert "RuntimeError: poison" in cluster.log("a")


def _refusal(cluster: Cluster, name: str) -> str:
    """Start a member that cannot run; what it says."""
    cluster.start(name)
    assert cluster.processes.pop(name).wait(10) == 1
    return cluster.log(name)


def test_a_port_in_use_is_named(tmp_path: Path, alone: Cluster) -> None:
    with running_cluster(tmp_path, "b", start="") as cluster:
        cluster.members["b"] = alone.members["a"]
        port = alone.members["a"].rpartition(":")[2]
        assert f"port {port} of 127.0.0.1 is in use" in _refusal(cluster, "b")


def test_an_address_of_another_machine_is_refused(tmp_path: Path) -> None:
    with running_cluster(tmp_path, "b", start="") as cluster:
        cluster.members["b"] = "192.0.2.1:7100"
        assert "cannot listen on 192.0.2.1:7100" in _refusal(cluster, "b")


def test_a_lost_or_damaged_journal_is_refused(tmp_path: Path) -> None:
    async def fill(cluster: Cluster) -> None:
        await cluster.leader()
        async with cluster.link("a") as link:
            await link.submit([b"x"], 5)

    with running_cluster(tmp_path, "a") as cluster:
        asyncio.run(fill(cluster))
        cluster.kill()
        (journal,) = (tmp_path / "a" / "journal").glob("*.wal")
        data = journal.read_bytes()
        journal.write_bytes(data[:600] + b"?" + data[601:])
        assert "is damaged at byte 512" in _refusal(cluster, "a")
        journal.unlink()
        assert "they do not belong together" in _refusal(cluster, "a")


@pytest.mark.parametrize("change", ["version", "source", "name"])
def test_another_library_than_the_audited_one_is_refused(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.check_library()
    if change == "version":
        monkeypatch.setattr(syncobj, "VERSION", "0.3.18")
    elif change == "source":
        patched = tmp_path / "syncobj.py"
        patched.write_bytes(Path(syncobj.__file__).read_bytes() + b"\n")
        assert hashlib.sha256(patched.read_bytes()).hexdigest() != engine.AUDITED_SHA256
        monkeypatch.setattr(syncobj, "__file__", str(patched))
    else:
        monkeypatch.delattr(syncobj.SyncObj, "_SyncObj__sendNextNodeIdx")
    with pytest.raises(engine.EngineError, match="is not the audited"):
        engine.check_library()
