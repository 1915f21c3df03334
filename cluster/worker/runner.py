"""One assignment from start to end: fetch, run, commit, submit."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import cached_property

from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.client.documents import AssignmentBody
from vcp_cluster.cluster.client.link import clean_text
from vcp_cluster.cluster.errors import (
    InvalidBlob,
    InvalidTransaction,
    NotFound,
    VcpError,
)
from vcp_cluster.cluster.execution import (
    Execution,
    ExecutionFailure,
    ModuleError,
    TaskSpec,
    commitment_of,
    compute_binding,
    execute,
)
from vcp_cluster.cluster.worker.events import EventKind, OnEvent, WorkerEvent
from vcp_cluster.cluster.worker.faults import Fault, apply_fault
from vcp_cluster.ledger.commitments import Attestation, FailureKind, sign_commitment
from vcp_cluster.ledger.keys import public_key
from vcp_cluster.ledger.operations import ReportFailure, SubmitProof

VALIDITY_MARGIN_MS = 5_000
STOP_REPORT_S_MAX = 2.0
DETAIL_LETTERS_MAX = 150

logger = logging.getLogger(__name__)


class RunFailed(Exception):
    """The run gave nothing that could be committed to."""

    def __init__(self, kind: FailureKind, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


@dataclass(frozen=True)
class Run:
    """One assignment of this node. `run` blocks until its result was submitted or given up."""

    client: Client
    assignment: AssignmentBody
    fault: Fault | None
    on_event: OnEvent
    started_s: float
    cancel: threading.Event
    """End the execution: the assignment is not ours any more, or the worker stops."""
    stop: threading.Event
    """The worker stops: give the task back."""

    @cached_property
    def task(self) -> bytes:
        """The task's id, 32 bytes."""
        return bytes.fromhex(self.assignment.task)

    @cached_property
    def node(self) -> bytes:
        """This node's id."""
        return public_key(self.client.seed)

    @cached_property
    def spec(self) -> TaskSpec:
        """The task's limits."""
        return TaskSpec(
            entry_point=self.assignment.entry_point,
            gas_limit=self.assignment.gas_limit,
            memory_bytes_max=self.assignment.memory_bytes_max,
            run_ms_max=self.assignment.run_ms_max,
            output_bytes_max=self.assignment.output_bytes_max,
        )

    def run(self) -> None:
        """Do everything; tells how it ended by one event and never raises."""
        self._tell(EventKind.ASSIGNED, f"attempt {self.assignment.attempt + 1}")
        try:
            self._run()
        except InvalidTransaction as error:
            self._tell(EventKind.REFUSED, error.message)
        except VcpError as error:
            self._tell(EventKind.LOST, str(error))
        except Exception as error:
            # A defect must not take the worker down: its other assignments go on.
            logger.exception("defect in the run of task %s", self.assignment.task)
            self._tell(EventKind.LOST, f"a defect in the worker: {type(error).__name__}: {error}")

    def _run(self) -> None:
        try:
            execution = self._execute()
        except RunFailed as failure:
            if self.cancel.is_set() and not self.stop.is_set():
                self._tell(EventKind.CANCELLED, "the assignment is not ours any more")
            else:
                self._report(failure)
            return
        self._submit(execution)
        detail = f"{execution.status.name.lower()}, gas {execution.gas}, {execution.wall_ms} ms"
        self._tell(EventKind.PROVEN, detail)

    def _execute(self) -> Execution:
        """Fetch and run; raise `RunFailed`."""
        binding = compute_binding(task=self.task, attempt=self.assignment.attempt, node=self.node)
        try:
            self._check_wanted()
            module = self._fetch(self.assignment.module_hash, self.assignment.module_size)
            data = self._fetch(self.assignment.input_hash, self.assignment.input_size)
            execution = execute(module, data, self.spec, binding=binding, cancel=self.cancel)
        except ModuleError as error:
            raise RunFailed(FailureKind.MODULE_REFUSED, str(error)) from None
        except ExecutionFailure as error:
            self._check_wanted()
            raise RunFailed(FailureKind(error.failure.value), error.detail) from None
        except (OSError, MemoryError) as error:
            # The host is short of processes, memory or files: another one may do better.
            raise RunFailed(FailureKind.HOST_FAILURE, f"{type(error).__name__}: {error}") from None
        return (
            execution if self.fault is None else apply_fault(self.fault, execution, binding=binding)
        )

    def _check_wanted(self) -> None:
        if self.stop.is_set() or self.cancel.is_set():
            raise RunFailed(FailureKind.HOST_FAILURE, "the worker was stopped")

    def _fetch(self, content_hash: str, size: int) -> bytes:
        try:
            data = self.client.download(content_hash, size_max=size, timeout_s=self._left_s())
        except (NotFound, InvalidBlob) as error:
            raise RunFailed(FailureKind.BLOB_UNAVAILABLE, error.message) from None
        if len(data) != size:
            detail = f"blob {content_hash[:12]} has {len(data)} bytes, the task says {size}"
            raise RunFailed(FailureKind.BLOB_UNAVAILABLE, detail)
        return data

    def _submit(self, execution: Execution) -> None:
        """Upload the output, commit, sign, submit; the same bytes until the deadline."""
        client, assignment = self.client, self.assignment
        attestations: tuple[Attestation, ...] = ()
        if execution.output:
            attestations = client.upload(execution.output, timeout_s=self._left_s()).attestations
        commitment = commitment_of(
            execution,
            self.spec,
            chain_id=client.chain_id,
            task=self.task,
            attempt=assignment.attempt,
            node=self.node,
            module_hash=bytes.fromhex(assignment.module_hash),
            input_hash=bytes.fromhex(assignment.input_hash),
        )
        operation = SubmitProof(
            commitment=commitment,
            signature=sign_commitment(client.seed, commitment),
            output_attestations=attestations,
        )
        left_s = self._left_s()
        client.submit(operation, timeout_s=left_s, validity_ms=self._validity_ms(left_s))

    def _report(self, failure: RunFailed) -> None:
        operation = ReportFailure(
            task=self.task,
            attempt=self.assignment.attempt,
            failure=int(failure.kind),
            # It may quote names from the module, which are anybody's text.
            detail=clean_text(failure.detail)[:DETAIL_LETTERS_MAX],
        )
        left_s = self._left_s()
        if self.stop.is_set():
            left_s = min(left_s, STOP_REPORT_S_MAX)
        self.client.submit(operation, timeout_s=left_s, validity_ms=self._validity_ms(left_s))
        self._tell(EventKind.FAILED, f"{failure.kind.name.lower()}: {failure.detail}")

    def _left_s(self) -> float:
        """Seconds until the assignment's deadline; a little more than none, so that one is tried."""
        left_s = self.started_s + self.assignment.deadline_left_ms / 1000 - time.monotonic()
        return max(left_s, 1.0)

    def _validity_ms(self, left_s: float) -> int:
        """As long as it makes sense to repeat the bytes, and as the cluster allows."""
        wanted = int(left_s * 1000) + VALIDITY_MARGIN_MS
        return min(wanted, self.client.genesis.parameters.validity_ms_max - VALIDITY_MARGIN_MS)

    def _tell(self, kind: EventKind, detail: str) -> None:
        self.on_event(WorkerEvent(kind, self.assignment.task, clean_text(detail)))
