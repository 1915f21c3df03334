"""Run one task in a process of its own: the executor's front door."""

import os
import threading
from itertools import pairwise

from vcp_cluster.executor import confine
from vcp_cluster.executor.admission import check_sections
from vcp_cluster.executor.child import run_child
from vcp_cluster.executor.commitment import (
    ExecutionRecord,
    compute_execution_root,
    compute_trace_root,
    content_hash,
)
from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.limits import INPUT_BYTES_MAX, Limits
from vcp_cluster.executor.profile import PROFILE_ID, Backend, describe_engine
from vcp_cluster.executor.protocol import Finished, Refused, Request
from vcp_cluster.executor.result import (
    Execution,
    ExecutionFailure,
    Failure,
    Status,
    TrapClass,
)
from vcp_cluster.executor.trace import Trace, Waypoint, compute_path_seed

_DEFAULT_LIMITS = Limits()


def run(
    module: bytes,
    input: bytes,
    limits: Limits = _DEFAULT_LIMITS,
    *,
    entry_point: str = "vcp_run",
    binding: bytes = b"",
    cancel: threading.Event | None = None,
    backend: Backend = "cranelift",
) -> Execution:
    """Run `module` on `input` and commit to how it ended.

    `binding` (of a fixed length per use) names who runs what, and enters `trace_root` alone.
    Both back ends give the same result but for its `engine` and times; Pulley is the slower one.
    Setting `cancel` kills the run within 50 ms. Several threads may call this at once.

    Raises `ModuleError` when module or input can never run here, on any host, and
    `ExecutionFailure` when this attempt gave no result.
    """
    if len(input) > INPUT_BYTES_MAX:
        found = f"the input has {len(input)} bytes, the most is {INPUT_BYTES_MAX}"
        raise ModuleError("input_limit", found)
    check_sections(module, limits, entry_point=entry_point)
    request = Request(
        parent_pid=os.getpid(),
        module=module,
        input=input,
        entry_point=entry_point,
        memory_bytes_max=limits.memory_bytes_max,
        gas_max=limits.gas_max,
        time_ms_max=limits.time_ms_max,
        output_bytes_max=limits.output_bytes_max,
        stack_bytes_max=limits.stack_bytes_max,
        path_seed=compute_path_seed(binding),
        backend=backend,
    )
    reply = run_child(request, cancel)
    if isinstance(reply, Refused):
        raise ModuleError(reply.code, reply.found)
    _check_consistent(reply, limits)
    trace = Trace(
        tuple(Waypoint(item.gas, item.pages, item.memory, item.globals) for item in reply.states),
        tuple(item.path for item in reply.states),
    )
    record = ExecutionRecord(
        module_hash=content_hash(module),
        entry_point=entry_point,
        input_hash=content_hash(input),
        output_hash=content_hash(reply.output),
        output_length=len(reply.output),
        status=reply.status,
        trap=reply.trap,
        gas=reply.gas,
        gas_limit=limits.gas_max,
        profile_id=PROFILE_ID,
        waypoints=len(trace.waypoints),
        waypoint_root=trace.waypoint_root,
    )
    execution_root = compute_execution_root(record)
    return Execution(
        status=Status(reply.status),
        trap=TrapClass(reply.trap),
        output=reply.output,
        gas=reply.gas,
        execution_root=execution_root,
        trace_root=compute_trace_root(execution_root, trace.path_root, binding),
        waypoints=len(trace.waypoints),
        profile_id=PROFILE_ID,
        engine=describe_engine(backend),
        wall_ms=reply.wall_ms,
        cpu_ms=reply.cpu_ms,
        record=record,
        trace=trace,
    )


def isolation() -> list[str]:
    """What stands between a task and this host, on this platform, for people to read."""
    return confine.measures()


def _check_consistent(reply: Finished, limits: Limits) -> None:
    """Check what a sound child cannot say. Raises `ExecutionFailure`."""
    sound = (
        reply.gas <= limits.gas_max
        and len(reply.output) <= limits.output_bytes_max
        and (reply.trap != TrapClass.NONE) == (reply.status == Status.TRAP)
        and (reply.status == Status.OK or not reply.output)
        and (reply.status != Status.OUT_OF_GAS or reply.gas == limits.gas_max)
        and reply.gas == reply.states[-1].gas
        and all(one.gas <= next_.gas for one, next_ in pairwise(reply.states))
    )
    if not sound:
        raise ExecutionFailure(
            Failure.HOST_FAILURE, "the process of the task gave a result that contradicts itself"
        )
