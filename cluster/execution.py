"""Run a task and describe the run: what a worker commits to and what a verifier compares.

Both go through this file, so that two honest parties cannot differ by how they filled in a field.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

from vcp_cluster.executor import run
from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.limits import Limits
from vcp_cluster.executor.profile import Backend
from vcp_cluster.executor.result import Execution, ExecutionFailure, Failure, Status
from vcp_cluster.ledger.commitments import (
    COMMITMENT_VERSION,
    Commitment,
    FailureKind,
    ResultStatus,
)
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import hash_content

__all__ = [
    "Execution",
    "ExecutionFailure",
    "ModuleError",
    "TaskSpec",
    "commitment_of",
    "compute_binding",
    "execute",
]

# The executor knows no ledger and the ledger no executor; these are the same numbers on the wire.
assert {item.name: item.value for item in Status} == {
    item.name: item.value for item in ResultStatus
}
assert all(FailureKind(item.value).name == item.name for item in Failure)


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """What a task fixes about its run, besides module and input. Bytes, milliseconds, gas units."""

    entry_point: str
    gas_limit: int
    memory_bytes_max: int
    run_ms_max: int
    output_bytes_max: int


def compute_binding(*, task: bytes, attempt: int, node: bytes) -> bytes:
    """What `trace_root` binds a run to: canonical `[task, attempt, node]`.

    A copied trace root does not fit its copier, whose node id is another one.
    """
    return encode((task, attempt, node))


def execute(
    module: bytes,
    input: bytes,
    spec: TaskSpec,
    *,
    binding: bytes,
    cancel: threading.Event | None = None,
    backend: Backend = "cranelift",
) -> Execution:
    """Run `module` on `input` in a process of its own, within the limits of `spec`.

    `binding` is `compute_binding` of the assignment. `backend` changes nothing that is committed to,
    unless the engine has an error. Setting `cancel` ends the run at once, with
    an `ExecutionFailure`. Blocks; call it in a thread.

    Raises `ModuleError` when module, input or limits can never run, on any host, and
    `ExecutionFailure` when this run gave nothing that could be reproduced.
    """
    try:
        limits = Limits(
            memory_bytes_max=spec.memory_bytes_max,
            gas_max=spec.gas_limit,
            time_ms_max=spec.run_ms_max,
            output_bytes_max=spec.output_bytes_max,
        )
    except ValueError as error:
        # The ledger allows limits that no executor offers, such as less memory than one page.
        found = str(error).partition(". Next:")[0]
        raise ModuleError("resource_min", f"the task's limits are unusable: {found}") from None
    return run(
        module,
        input,
        limits,
        entry_point=spec.entry_point,
        binding=binding,
        cancel=cancel,
        backend=backend,
    )


def commitment_of(
    execution: Execution,
    spec: TaskSpec,
    *,
    chain_id: bytes,
    task: bytes,
    attempt: int,
    node: bytes,
    module_hash: bytes,
    input_hash: bytes,
) -> Commitment:
    """The commitment (version 1 of FORMATS) of `node` to a run of one assignment.

    `execution` must come from `execute` with the binding of this very assignment.
    """
    return Commitment(
        version=COMMITMENT_VERSION,
        chain_id=chain_id,
        task=task,
        attempt=attempt,
        node=node,
        module_hash=module_hash,
        entry_point=spec.entry_point,
        input_hash=input_hash,
        output_hash=hash_content(execution.output),
        output_length=len(execution.output),
        status=int(execution.status),
        trap=int(execution.trap),
        gas=execution.gas,
        gas_limit=spec.gas_limit,
        profile=execution.profile_id,
        engine=execution.engine,
        waypoints=execution.waypoints,
        execution_root=execution.execution_root,
        trace_root=execution.trace_root,
    )
