"""Audited proofs are run again, once, and the verdict reaches the ledger."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest

from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.verifier import (
    CROSS_CHECK_GAS_MAX,
    CROSS_CHECK_ONE_IN,
    Verifier,
)
from vcp_cluster.cluster.errors import InvalidTransaction, UnknownOutcome
from vcp_cluster.cluster.execution import (
    Execution,
    ExecutionFailure,
    ModuleError,
    TaskSpec,
    commitment_of,
    compute_binding,
    execute,
)
from vcp_cluster.examples import EXAMPLES
from vcp_cluster.executor import PROFILE_ID, Failure, Status, TrapClass
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import Finding, commitment_hash
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.records import ProofStatus, RecordedVerdict

from .fake_ledger import (
    EXECUTION_ROOT,
    INPUT,
    MEMBER_SEEDS,
    MODULE,
    NODE,
    OUTPUT,
    PROFILE,
    TRACE_ROOT,
    Clock,
    FakeChain,
    FakeLedger,
    asynchronous,
    make_genesis,
    until,
)

Outcome = Callable[[], Execution]


def honest() -> Execution:
    """What running the task of the fake ledger gives."""
    return Execution(
        status=Status.OK,
        trap=TrapClass.NONE,
        output=OUTPUT,
        gas=1_234,
        execution_root=EXECUTION_ROOT,
        trace_root=TRACE_ROOT,
        waypoints=1,
        profile_id=PROFILE,
        engine="test",
        wall_ms=1,
        cpu_ms=1,
    )


def refused() -> Execution:
    raise ModuleError("import_denied", "it imports env.time")


def timeout() -> Execution:
    raise ExecutionFailure(Failure.TIMEOUT, "over 1000 ms")


class FakeBlobs:
    """Blobs in memory, some of which may come late."""

    def __init__(self) -> None:
        self.blobs = {hash_content(data): data for data in (MODULE, INPUT)}
        self.asked = 0

    async def fetch(self, blob: bytes) -> bytes | None:
        self.asked += 1
        return self.blobs.get(blob)


class Auditor:
    """A member's verifier with an executor that the test scripts."""

    def __init__(self, chain: FakeChain, name: str, profile: bytes = PROFILE) -> None:
        self.ledger: FakeLedger = chain.member(name)
        self.blobs = FakeBlobs()
        self.clock = Clock()
        self.outcomes: list[Outcome] = []
        self.runs: list[tuple[bytes, bytes, TaskSpec, bytes]] = []
        self.cross_outcomes: list[Outcome] = []
        self.cross_runs = 0
        self.verifier = Verifier(
            self.ledger,
            self.blobs,
            execute=self._execute,
            cross_execute=self._cross_execute,
            profile_id=profile,
            clock=self.clock,
        )

    def _execute(
        self,
        module: bytes,
        input: bytes,
        spec: TaskSpec,
        *,
        binding: bytes,
        cancel: threading.Event | None = None,
    ) -> Execution:
        self.runs.append((module, input, spec, binding))
        return (self.outcomes.pop(0) if self.outcomes else honest)()

    def _cross_execute(
        self,
        _module: bytes,
        _input: bytes,
        _spec: TaskSpec,
        *,
        binding: bytes,
        cancel: threading.Event | None = None,
    ) -> Execution:
        assert binding == self.runs[-1][3]
        self.cross_runs += 1
        return (self.cross_outcomes.pop(0) if self.cross_outcomes else honest)()

    async def audit(self) -> None:
        for identity in await self.verifier.refresh():
            await self.verifier.verify(identity)


class Audit:
    """A proof under audit; `drawn` is the verifier's name, `others` are the rest."""

    def __init__(self, **values: object) -> None:
        self.chain = FakeChain()
        self.chain.bring_online()
        self.task = self.chain.submit_task()
        self.identity = self.chain.submit_proof(self.task, **values)
        self.auditors = {name: Auditor(self.chain, name) for name in MEMBER_SEEDS}
        drawn = self.proof.verifier
        (self.drawn,) = [a for a in self.auditors.values() if a.ledger.member.key == drawn]
        self.others = [a for a in self.auditors.values() if a is not self.drawn]

    @property
    def proof(self):  # type: ignore[no-untyped-def]
        return self.chain.proof(self.identity)

    @property
    def verdicts(self) -> list[RecordedVerdict]:
        return list(self.proof.verdicts)

    def put_to_all(self) -> None:
        self.chain.advance(2_000)
        while self.proof.status == ProofStatus.AUDITED_BY_ONE:
            self.chain.advance(2_000)
        assert self.proof.status == ProofStatus.AUDITED_BY_ALL


@asynchronous
async def test_the_drawn_member_alone_verifies_and_agrees() -> None:
    audit = Audit()
    for other in audit.others:
        await other.audit()
        assert other.runs == []
    await audit.drawn.audit()
    assert audit.proof.status == ProofStatus.ACCEPTED
    (recorded,) = audit.verdicts
    assert recorded.verdict.finding == Finding.AGREE
    assert recorded.verdict.detail == ""
    task = audit.chain.task(audit.task)
    ((module, input_, spec, binding),) = audit.drawn.runs
    assert (module, input_) == (MODULE, INPUT)
    assert spec == TaskSpec(
        entry_point=task.entry_point,
        gas_limit=task.gas_limit,
        memory_bytes_max=task.memory_bytes_max,
        # Not the task's: a client must not be able to make it too short for members alone.
        run_ms_max=2 * audit.chain.genesis.parameters.run_ms_max,
        output_bytes_max=task.output_bytes_max,
    )
    assert binding == compute_binding(task=audit.task, attempt=0, node=NODE)
    assert await audit.drawn.verifier.refresh() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("output_hash", hash_content(b"?")),
        ("output_length", 5),
        ("gas", 1_233),
        ("execution_root", b"\x99" * 32),
    ],
)
def test_a_lie_is_named_then_all_are_asked_and_a_majority_rejects(
    field: str, value: object
) -> None:
    @asynchronous
    async def play() -> None:
        audit = Audit(**{field: value})
        await audit.drawn.audit()
        assert audit.proof.status == ProofStatus.AUDITED_BY_ALL
        assert audit.verdicts[0].verdict.finding == Finding.DISAGREE
        assert audit.verdicts[0].verdict.detail == f"differs: {field}"
        await audit.drawn.audit()  # Its verdict is given, and counts for this round too.
        assert len(audit.drawn.runs) == 1
        await audit.others[0].audit()
        assert audit.proof.status == ProofStatus.REJECTED
        await audit.others[1].audit()
        assert audit.others[1].runs == []

    play()


@asynchronous
async def test_a_commitment_that_claims_a_trap_differs_in_every_part() -> None:
    audit = Audit(status=1, trap=1, output_hash=hash_content(b""), output_length=0)
    await audit.drawn.audit()
    assert audit.verdicts[0].verdict.detail == "differs: status, trap, output_hash, output_length"


@asynchronous
async def test_a_trace_bound_to_something_else_is_said_in_the_verdict() -> None:
    audit = Audit(trace_root=b"\x33" * 32)
    await audit.drawn.audit()
    assert audit.verdicts[0].verdict.detail == "trace_root differs"


@asynchronous
async def test_silence_puts_it_to_all_members() -> None:
    audit = Audit()
    audit.put_to_all()
    await audit.others[0].audit()
    assert audit.proof.status == ProofStatus.AUDITED_BY_ALL
    await audit.others[1].audit()
    assert audit.proof.status == ProofStatus.ACCEPTED


@asynchronous
async def test_no_commitment_to_a_refused_module_is_right_whatever_it_claims() -> None:
    # The liar claims just what a verifier without values would put: nothing but zeros.
    audit = Audit(gas=0, output_hash=hash_content(b""), output_length=0, execution_root=bytes(32))
    audit.drawn.outcomes = [refused]
    await audit.drawn.audit()
    (recorded,) = audit.verdicts
    assert recorded.verdict.finding == Finding.DISAGREE
    assert recorded.verdict.detail == "module_refused: import_denied: it imports env.time"
    assert recorded.verdict.execution_root == commitment_hash(audit.proof.commitment)


@asynchronous
async def test_a_failure_of_this_host_is_tried_again_before_unable() -> None:
    audit = Audit()
    audit.drawn.outcomes = [timeout, honest]
    await audit.drawn.audit()
    assert audit.proof.status == ProofStatus.ACCEPTED

    audit = Audit()
    audit.drawn.outcomes = [timeout, timeout]
    await audit.drawn.audit()
    (recorded,) = audit.verdicts
    assert recorded.verdict.finding == Finding.UNABLE
    assert recorded.verdict.detail == "timeout: over 1000 ms"
    assert audit.proof.status == ProofStatus.AUDITED_BY_ALL


@pytest.mark.parametrize(("data", "what"), [(MODULE, "module"), (INPUT, "input")])
def test_a_blob_that_nobody_has_is_waited_for_then_unable(
    monkeypatch: pytest.MonkeyPatch, data: bytes, what: str
) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.door.verifier.RETRY_PAUSE_S", 0.001)

    @asynchronous
    async def play() -> None:
        audit = Audit()
        blobs = audit.drawn.blobs
        del blobs.blobs[hash_content(data)]
        waiting = asyncio.create_task(audit.drawn.audit())
        await until(lambda: blobs.asked >= 5)
        assert audit.verdicts == []
        audit.drawn.clock.now_s += 10
        await waiting
        (recorded,) = audit.verdicts
        assert recorded.verdict.finding == Finding.UNABLE
        assert recorded.verdict.detail == f"blob_unavailable: no member has the {what}"
        assert audit.drawn.runs == []

    play()


@asynchronous
async def test_a_late_blob_is_no_reason_to_be_unable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.door.verifier.RETRY_PAUSE_S", 0.001)
    audit = Audit()
    blobs = audit.drawn.blobs
    module = blobs.blobs.pop(hash_content(MODULE))
    waiting = asyncio.create_task(audit.drawn.audit())
    await until(lambda: blobs.asked >= 3)
    blobs.blobs[hash_content(MODULE)] = module
    await waiting
    assert audit.proof.status == ProofStatus.ACCEPTED


@asynchronous
async def test_another_profile_is_unable_and_runs_nothing() -> None:
    audit = Audit()
    other = Auditor(audit.chain, audit.drawn.ledger.member.name, profile=b"\x08" * 32)
    await other.audit()
    assert audit.verdicts[0].verdict.finding == Finding.UNABLE
    assert audit.verdicts[0].verdict.detail == "this member runs another execution profile"
    assert other.runs == []


@asynchronous
async def test_a_proof_is_run_once_however_often_the_verdict_must_be_sent() -> None:
    audit = Audit()
    failures = [
        UnknownOutcome(bytes(32), "test"),
        Problem(503, "no_leader", "test"),
        InvalidTransaction(Code.EXPIRED, tx_id=bytes(32)),
    ]
    audit.drawn.ledger.failures = list(failures)
    for failure in failures:
        with pytest.raises(type(failure)):
            await audit.drawn.audit()
    audit.put_to_all()
    await audit.drawn.audit()
    assert len(audit.drawn.runs) == 1
    assert len(audit.verdicts) == 1


@asynchronous
async def test_a_verdict_that_was_applied_without_our_knowing_is_not_sent_again() -> None:
    audit = Audit(gas=1_233)
    submit = audit.drawn.ledger.submit

    async def lose_answer(operations: object) -> None:
        await submit(operations)
        raise UnknownOutcome(bytes(32), "test")

    audit.drawn.ledger.submit = lose_answer
    with pytest.raises(UnknownOutcome):
        await audit.drawn.audit()
    assert await audit.drawn.verifier.refresh() == [audit.identity]
    await audit.drawn.audit()
    assert len(audit.drawn.ledger.submitted) == 1
    assert await audit.drawn.verifier.refresh() == []


@asynchronous
async def test_a_verdict_that_is_not_wanted_any_more_is_dropped() -> None:
    audit = Audit(gas=1_233)
    audit.put_to_all()
    submit = audit.drawn.ledger.submit

    async def be_late(operations: object) -> object:
        for other in audit.others:
            await other.audit()
        return await submit(operations)

    audit.drawn.ledger.submit = be_late
    await audit.drawn.audit()
    assert audit.proof.status == ProofStatus.REJECTED
    assert len(audit.verdicts) == 2
    assert await audit.drawn.verifier.refresh() == []
    assert not audit.drawn.verifier._verdicts
    assert not audit.drawn.verifier._finished


@asynchronous
async def test_it_runs_beside_the_ledger_one_task_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.door.verifier.PAGE", 2)
    monkeypatch.setattr("vcp_cluster.cluster.door.verifier.REFRESH_GAP_S", 0.001)
    monkeypatch.setattr("vcp_cluster.cluster.door.verifier.RETRY_PAUSE_S", 0.001)
    chain = FakeChain()
    chain.bring_online()
    auditors = [Auditor(chain, name) for name in MEMBER_SEEDS]
    gate = threading.Event()

    def hold() -> Execution:
        assert gate.wait(10)
        return honest()

    for auditor in auditors:
        auditor.outcomes = [hold] * 20
        auditor.ledger.failures = [Problem(503, "no_leader", "test")]
    proofs = [chain.submit_proof(chain.submit_task()) for _ in range(12)]
    key = auditors[0].ledger.member.key
    mine = [identity for identity in proofs if chain.proof(identity).verifier == key]
    assert len(mine) >= 2
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(auditor.verifier.run()) for auditor in auditors]
        # With all workers at their runs, one proof is taken and the others wait.
        await until(lambda: all(len(auditor.runs) == 1 for auditor in auditors))
        assert len(auditors[0].verifier._waiting) == len(mine) - 1
        gate.set()
        await until(lambda: all(chain.proof(i).status == ProofStatus.ACCEPTED for i in proofs))
        for task in tasks:
            task.cancel()
    assert sum(len(auditor.runs) for auditor in auditors) == len(proofs)
    assert list(chain.store.iterate(schema.AUDIT)) == []


@asynchronous
async def test_a_real_run_of_a_worker_is_verified_by_a_real_run() -> None:
    example = next(one for one in EXAMPLES if one.name == "wordcount")
    module = example.module.read_bytes()
    chain = FakeChain(make_genesis(profile=PROFILE_ID))
    chain.bring_online()
    task = chain.submit_task(module=module)
    record = chain.task(task)
    spec = TaskSpec(
        entry_point=record.entry_point,
        gas_limit=record.gas_limit,
        memory_bytes_max=record.memory_bytes_max,
        run_ms_max=record.run_ms_max,
        output_bytes_max=record.output_bytes_max,
    )
    binding = compute_binding(task=task, attempt=0, node=NODE)
    execution = await asyncio.to_thread(execute, module, INPUT, spec, binding=binding)
    assert execution.status is Status.OK
    commitment = commitment_of(
        execution,
        spec,
        chain_id=chain.chain_id,
        task=task,
        attempt=0,
        node=NODE,
        module_hash=record.module_hash,
        input_hash=record.input_hash,
    )
    identity = chain.submit_proof(task, **msgspec.structs.asdict(commitment))
    blobs = FakeBlobs()
    blobs.blobs[record.module_hash] = module
    (name,) = [m.name for m in chain.genesis.members if m.key == chain.proof(identity).verifier]
    await Verifier(chain.member(name), blobs).verify(identity)
    assert chain.proof(identity).status == ProofStatus.ACCEPTED
    assert chain.proof(identity).verdicts[0].verdict.detail == ""


def audit_with(is_checked: Callable[[bytes], bool], **values: object) -> Audit:
    """An audit of a proof whose id is of the wanted kind; the id follows from the commitment."""
    for trial in range(1_000):
        audit = Audit(trace_root=hash_content(bytes([trial % 256, trial // 256])), **values)
        if is_checked(audit.identity):
            return audit
    raise AssertionError("no commitment gives such an id")


def is_chosen(identity: bytes) -> bool:
    return identity[0] % CROSS_CHECK_ONE_IN == 0


@asynchronous
async def test_one_in_sixteen_short_runs_is_repeated_on_the_other_back_end() -> None:
    chosen, passed = audit_with(is_chosen), audit_with(lambda identity: not is_chosen(identity))
    for audit, runs in ((chosen, 1), (passed, 0)):
        await audit.drawn.audit()
        assert audit.drawn.cross_runs == runs
        assert audit.proof.status == ProofStatus.ACCEPTED
        assert audit.verdicts[0].verdict.finding == Finding.AGREE


@asynchronous
async def test_a_long_run_is_not_repeated() -> None:
    audit = audit_with(is_chosen)
    audit.drawn.outcomes = [lambda: replace(honest(), gas=CROSS_CHECK_GAS_MAX)]
    await audit.drawn.audit()
    assert audit.drawn.cross_runs == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("gas", 1_235),
        ("output", b"?"),
        ("status", Status.STACK_LIMIT),
        ("execution_root", b"\x99" * 32),
        ("trace_root", b"\x99" * 32),
    ],
)
def test_back_ends_that_differ_raise_an_alarm_and_judge_nobody(
    field: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    @asynchronous
    async def play() -> None:
        audit = audit_with(is_chosen)
        audit.drawn.cross_outcomes = [lambda: replace(honest(), **{field: value})]
        await audit.drawn.audit()
        (recorded,) = audit.verdicts
        assert recorded.verdict.finding == Finding.UNABLE
        assert recorded.verdict.detail == f"engine alarm: the back ends differ in {field}"
        assert audit.proof.status != ProofStatus.REJECTED

    play()
    (alarm,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert alarm.getMessage().startswith("engine alarm")


@asynchronous
async def test_an_alarm_goes_before_a_disagreement_with_the_worker() -> None:
    """While the engine is in doubt, a claim that differs from it is no lie yet."""
    audit = audit_with(is_chosen, gas=1_233)
    audit.drawn.cross_outcomes = [refused]
    await audit.drawn.audit()
    assert audit.verdicts[0].verdict.finding == Finding.UNABLE
    assert audit.verdicts[0].verdict.detail.endswith("differ in import_denied")


@asynchronous
async def test_a_cross_check_that_fails_says_nothing_about_the_engine() -> None:
    audit = audit_with(is_chosen)
    audit.drawn.cross_outcomes = [timeout]
    await audit.drawn.audit()
    assert audit.verdicts[0].verdict.finding == Finding.AGREE


@asynchronous
async def test_stopping_ends_the_run_that_is_on_its_way() -> None:
    audit = Audit()
    started = threading.Event()
    cancelled = threading.Event()

    def hang(
        _module: bytes,
        _input: bytes,
        _spec: TaskSpec,
        *,
        binding: bytes,
        cancel: threading.Event | None = None,
    ) -> Execution:
        assert cancel is not None
        started.set()
        cancel.wait(10)
        if cancel.is_set():
            cancelled.set()
        raise ExecutionFailure(Failure.HOST_FAILURE, "cancelled")

    verifier = Verifier(audit.drawn.ledger, audit.drawn.blobs, execute=hang, profile_id=PROFILE)
    task = asyncio.create_task(verifier.run())
    await until(started.is_set)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await until(cancelled.is_set)
    assert audit.verdicts == []


@asynchronous
async def test_a_host_without_processes_or_memory_is_unable_and_goes_on() -> None:
    audit = Audit()

    def no_process() -> Execution:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    def no_memory() -> Execution:
        raise MemoryError

    audit.drawn.outcomes = [no_process, no_memory]
    await audit.drawn.audit()
    (recorded,) = audit.verdicts
    assert recorded.verdict.finding == Finding.UNABLE
    assert recorded.verdict.detail == "host_failure: MemoryError: "
    assert audit.proof.status == ProofStatus.AUDITED_BY_ALL
