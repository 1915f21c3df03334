"""The verifier: runs audited proofs again and says what it found.

Which proofs this member must verify, the ledger says (`schema.AUDIT`): those for which it was drawn,
and those that were put to all members. The run goes through `cluster.execution`, as the worker's
did, so that honest parties cannot differ by how they fill in a field.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Protocol

import msgspec

from vcp_cluster.cluster.door.context import Ledger
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.rejections import get_rejection
from vcp_cluster.cluster.errors import VcpError
from vcp_cluster.cluster.execution import (
    Execution,
    ExecutionFailure,
    ModuleError,
    TaskSpec,
    compute_binding,
    execute,
)
from vcp_cluster.executor import PROFILE_ID, Failure
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import (
    EMPTY_OUTPUT_HASH,
    Commitment,
    Finding,
    ResultStatus,
    Verdict,
    commitment_hash,
    is_same_result,
    sign_verdict,
)
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.operations import SubmitVerdict
from vcp_cluster.ledger.records import Proof, Task

PAGE = 1_000
IDLE_WAIT_S = 5.0
REFRESH_GAP_S = 0.02
RETRY_PAUSE_S = 0.5
# A blob may still be on its way from another member, but an audit must not wait for ever.
BLOB_WAIT_S = 10.0
EXECUTIONS_MAX = 2
# What the fastest worker does within the cluster's limit, a member this much slower still does.
VERIFY_TIME_FACTOR = 2
TIME_MS_MAX = 600_000  # the executor takes no more
DETAIL_CHARACTERS_MAX = 200
# Some of the audits are run on the engine's other back end as well, which is many times slower.
CROSS_CHECK_ONE_IN = 16
CROSS_CHECK_GAS_MAX = 50_000_000

_replace = msgspec.structs.replace
_RESULT_FIELDS = ("status", "trap", "gas", "output_hash", "output_length", "execution_root")
_ENGINE_FIELDS = ("status", "trap", "gas", "output", "waypoints", "execution_root", "trace_root")
_NOT_WANTED = (Code.VERDICT_EXISTS, Code.PROOF_NOT_IN_AUDIT)

logger = logging.getLogger(__name__)


class Blobs(Protocol):
    """Where modules and inputs come from: `BlobService`."""

    async def fetch(self, blob: bytes) -> bytes | None:
        """The blob, or None when nobody has it."""
        ...


class Execute(Protocol):
    """`cluster.execution.execute`."""

    def __call__(
        self,
        module: bytes,
        input: bytes,
        spec: TaskSpec,
        *,
        binding: bytes,
        cancel: threading.Event | None = None,
    ) -> Execution:
        """Run a task; raise `ModuleError` or `ExecutionFailure`."""
        ...


class Verifier:
    """Verifies what the ledger asks of this member, at most `concurrency` runs at a time.

    A proof is run once while it is open: what came out is remembered until the ledger has the
    verdict, or needs none. One in `CROSS_CHECK_ONE_IN` short runs is repeated by `cross_execute`, on
    another back end: if the two differ, the engine is at fault and nobody is judged by it.
    """

    def __init__(
        self,
        ledger: Ledger,
        blobs: Blobs,
        *,
        concurrency: int = 1,
        execute: Execute = execute,
        cross_execute: Execute = partial(execute, backend="pulley"),  # noqa: B008
        profile_id: bytes = PROFILE_ID,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._ledger = ledger
        self._blobs = blobs
        self._concurrency = concurrency
        self._execute = execute
        self._cross_execute = cross_execute
        self._profile_id = profile_id
        self._clock = clock
        self._waiting: dict[bytes, None] = {}  # in the order in which they were seen
        self._busy: set[bytes] = set()
        self._finished: set[bytes] = set()  # open proofs from which nothing more is wanted
        self._verdicts: dict[bytes, Verdict] = {}
        self._news = asyncio.Event()
        self._cancel = threading.Event()

    async def run(self) -> None:
        """Watch and verify for ever; a run on its way ends when this is cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                for _ in range(self._concurrency):
                    group.create_task(self._work())
        finally:
            self._cancel.set()

    async def refresh(self) -> list[bytes]:
        """Read which proofs wait for this member's verdict; those that no run is busy with."""
        mine = (b"", self._ledger.member.key)
        wanted: dict[bytes, bool] = {}
        start = schema.AUDIT
        while True:
            rows = await self._ledger.scan(schema.AUDIT, start=start, limit=PAGE)
            wanted.update({key[len(schema.AUDIT) :]: value in mine for key, value in rows})
            if len(rows) < PAGE:  # Rows of this index are far too small to fill an answer.
                break
            start = rows[-1][0] + b"\x00"
        self._finished &= wanted.keys()
        self._verdicts = {key: value for key, value in self._verdicts.items() if key in wanted}
        skipped = self._finished | self._busy
        due = {key: None for key, is_mine in wanted.items() if is_mine and key not in skipped}
        known = [key for key in self._waiting if key in due]
        self._waiting = dict.fromkeys(known) | due
        if self._waiting:
            self._news.set()
        return list(self._waiting)

    async def verify(self, identity: bytes) -> None:
        """Verify one proof and submit the verdict, if it is still this member's to give.

        Raises `VcpError` or `Problem` when the ledger cannot be read or written now; to be called
        again then.
        """
        proof = await self._read_wanted(identity)
        if proof is None:
            return
        verdict = self._verdicts.get(identity)
        if verdict is None:
            verdict = self._verdicts[identity] = await self._compute_verdict(identity, proof)
        seed, key = self._ledger.seed, self._ledger.member.key
        try:
            await self._ledger.submit([SubmitVerdict(key, verdict, sign_verdict(seed, verdict))])
        except (VcpError, Problem) as error:
            code = get_rejection(error)
            if code is None:
                raise
            if code is Code.VERIFIER_NOT_DRAWN:
                return  # It may yet be put to all members.
            if code not in _NOT_WANTED:
                logger.error("verdict on proof %s: %s", identity.hex(), error)
        self._finished.add(identity)

    async def _watch(self) -> None:
        height = -1
        while True:
            try:
                await self._ledger.wait_height(height, IDLE_WAIT_S)
                height = self._ledger.height
                await self.refresh()
                pause_s = REFRESH_GAP_S
            except (VcpError, Problem) as error:
                logger.info("audits cannot be read: %s", error)
                pause_s = RETRY_PAUSE_S
            await asyncio.sleep(pause_s)

    async def _work(self) -> None:
        while True:
            while not self._waiting:
                self._news.clear()
                await self._news.wait()
            identity = next(iter(self._waiting))
            del self._waiting[identity]
            self._busy.add(identity)
            try:
                await self.verify(identity)
            except (VcpError, Problem) as error:
                logger.info("the verdict on proof %s waits: %s", identity.hex(), error)
                await asyncio.sleep(RETRY_PAUSE_S)
                self._waiting[identity] = None
            finally:
                self._busy.discard(identity)

    async def _read_wanted(self, identity: bytes) -> Proof | None:
        """The proof, or None when this member has nothing (more) to say about it now."""
        audit, data = await self._ledger.get(schema.AUDIT + identity, schema.PROOF + identity)
        if audit is None or data is None or audit not in (b"", self._ledger.member.key):
            return None
        proof = decode_stored(Proof, data)
        if any(item.member == self._ledger.member.key for item in proof.verdicts):
            self._finished.add(identity)
            return None
        return proof

    async def _compute_verdict(self, identity: bytes, proof: Proof) -> Verdict:
        commitment = proof.commitment
        (data,) = await self._ledger.get(schema.TASK + commitment.task)
        assert data is not None, "a proof belongs to a task"
        task = decode_stored(Task, data)
        if commitment.profile != self._profile_id:
            return self._unable(identity, "this member runs another execution profile")
        module = await self._fetch(task.module_hash)
        input_ = await self._fetch(task.input_hash)
        if module is None or input_ is None:
            missing = "module" if module is None else "input"
            return self._unable(identity, f"blob_unavailable: no member has the {missing}")
        try:
            execution = await self._run(module, input_, task, commitment)
        except ModuleError as error:
            return self._refused(identity, commitment, error)
        except ExecutionFailure as error:
            return self._unable(identity, str(error))
        if identity[0] % CROSS_CHECK_ONE_IN == 0 and execution.gas < CROSS_CHECK_GAS_MAX:
            differing = await self._cross_check(module, input_, task, commitment, execution)
            if differing:
                alarm = f"engine alarm: the back ends differ in {', '.join(differing)}"
                logger.error("%s (task %s)", alarm, commitment.task.hex())
                return self._unable(identity, alarm)
        return self._compare(identity, commitment, execution)

    async def _fetch(self, blob: bytes) -> bytes | None:
        deadline = self._clock() + BLOB_WAIT_S
        while True:
            data = await self._blobs.fetch(blob)
            if data is not None or self._clock() >= deadline:
                return data
            await asyncio.sleep(RETRY_PAUSE_S)

    async def _cross_check(
        self, module: bytes, input_: bytes, task: Task, commitment: Commitment, first: Execution
    ) -> list[str]:
        """Run the task on the other back end; what differs from `first`, which must be nothing."""
        spec, binding = _describe(task, commitment, run_ms_max=self._compute_run_ms(task))
        try:
            second = await asyncio.to_thread(
                self._cross_execute, module, input_, spec, binding=binding, cancel=self._cancel
            )
        except ExecutionFailure as error:
            # A slow host is no evidence against an engine.
            logger.info("no cross-check of task %s: %s", commitment.task.hex(), error)
            return []
        except ModuleError as error:
            return [error.code]
        return [name for name in _ENGINE_FIELDS if getattr(first, name) != getattr(second, name)]

    async def _run(
        self, module: bytes, input_: bytes, task: Task, commitment: Commitment
    ) -> Execution:
        """Run the task as its worker must have; once more after a failure of this host."""
        spec, binding = _describe(task, commitment, run_ms_max=self._compute_run_ms(task))
        for attempt in range(1, EXECUTIONS_MAX + 1):
            try:
                return await asyncio.to_thread(
                    self._execute, module, input_, spec, binding=binding, cancel=self._cancel
                )
            except ExecutionFailure as error:
                if attempt == EXECUTIONS_MAX:
                    raise
                logger.warning("run of task %s again: %s", commitment.task.hex(), error)
            except (OSError, MemoryError) as error:
                # This host is short of processes, files or memory: no reason for the door to end.
                why = f"{type(error).__name__}: {error}"
                if attempt == EXECUTIONS_MAX:
                    raise ExecutionFailure(Failure.HOST_FAILURE, why) from None
                logger.warning("run of task %s again: %s", commitment.task.hex(), why)
                await asyncio.sleep(RETRY_PAUSE_S)
        raise AssertionError("the last attempt returns or raises")

    def _compute_run_ms(self, task: Task) -> int:
        """The wall time of a verifying run: not the task's, which is no part of the result.

        A client could else choose it so that its worker just keeps it and the members do not: no
        majority would have values to compare, and the client had its output for nothing.
        """
        most = VERIFY_TIME_FACTOR * self._ledger.genesis.parameters.run_ms_max
        return max(task.run_ms_max, min(most, TIME_MS_MAX))

    def _unable(self, identity: bytes, why: str) -> Verdict:
        """A verdict that says why there are no values to compare."""
        logger.warning("cannot verify proof %s: %s", identity.hex(), why)
        return Verdict(
            version=1,
            chain_id=self._ledger.chain_id,
            proof=identity,
            finding=int(Finding.UNABLE),
            status=int(ResultStatus.OK),
            trap=0,
            gas=0,
            output_hash=EMPTY_OUTPUT_HASH,
            output_length=0,
            execution_root=bytes(32),
            detail=why[:DETAIL_CHARACTERS_MAX],
        )

    def _refused(self, identity: bytes, commitment: Commitment, error: ModuleError) -> Verdict:
        """No host can run it, so no commitment to a run of it is right.

        There is no execution root to put against the claimed one. The commitment's own hash stands
        there because it alone cannot have been claimed: nobody can write a hash into its preimage.
        """
        verdict = self._unable(identity, f"module_refused: {error.code}: {error.found}")
        return _replace(
            verdict,
            finding=int(Finding.DISAGREE),
            execution_root=commitment_hash(commitment),
        )

    def _compare(self, identity: bytes, commitment: Commitment, execution: Execution) -> Verdict:
        verdict = Verdict(
            version=1,
            chain_id=self._ledger.chain_id,
            proof=identity,
            finding=int(Finding.AGREE),
            status=int(execution.status),
            trap=int(execution.trap),
            gas=execution.gas,
            output_hash=hash_content(execution.output),
            output_length=len(execution.output),
            execution_root=execution.execution_root,
            detail="" if execution.trace_root == commitment.trace_root else "trace_root differs",
        )
        if is_same_result(commitment, verdict):
            return verdict
        differing = [
            name for name in _RESULT_FIELDS if getattr(commitment, name) != getattr(verdict, name)
        ]
        detail = f"differs: {', '.join(differing)}"
        return _replace(verdict, finding=int(Finding.DISAGREE), detail=detail)


def _describe(task: Task, commitment: Commitment, *, run_ms_max: int) -> tuple[TaskSpec, bytes]:
    """What a run of the task must be given, and the binding of the worker that committed to it."""
    spec = TaskSpec(
        entry_point=task.entry_point,
        gas_limit=task.gas_limit,
        memory_bytes_max=task.memory_bytes_max,
        run_ms_max=run_ms_max,
        output_bytes_max=task.output_bytes_max,
    )
    binding = compute_binding(
        task=commitment.task, attempt=commitment.attempt, node=commitment.node
    )
    return spec, binding
