"""Tasks on the client's side: their limits, their checks before they cost anything, waiting."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from vcp_cluster.cluster.client.blobs import Blob
from vcp_cluster.cluster.client.documents import get_height
from vcp_cluster.cluster.errors import InvalidModule, InvalidRequest, Timeout
from vcp_cluster.executor.admission import check_module
from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.limits import Limits
from vcp_cluster.ledger.genesis import Parameters
from vcp_cluster.ledger.operations import SubmitTask

ENDED = ("accepted", "settled", "expired", "cancelled")
"""Statuses of a task that waits for nothing but its batch."""

_FINAL = ("settled", "expired", "cancelled")

POLL_S_MIN = 0.05
"""At most one poll in this time, should a member not wait when it is asked to."""

ANSWER_GRACE_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """A task before its blobs are uploaded. Units, gas units, bytes, milliseconds."""

    reward: int
    entry_point: str
    gas_limit: int
    memory_bytes_max: int
    run_ms_max: int
    output_bytes_max: int
    deadline_ms: int
    open_ms_max: int

    def attest(self, module: Blob, input: Blob) -> SubmitTask:
        """The operation, with the members' attestations of both blobs."""
        return SubmitTask(
            module_hash=module.hash,
            module_size=module.size,
            module_attestations=module.attestations,
            entry_point=self.entry_point,
            input_hash=input.hash,
            input_size=input.size,
            input_attestations=input.attestations,
            gas_limit=self.gas_limit,
            memory_bytes_max=self.memory_bytes_max,
            run_ms_max=self.run_ms_max,
            output_bytes_max=self.output_bytes_max,
            deadline_ms=self.deadline_ms,
            open_ms_max=self.open_ms_max,
            reward=self.reward,
            replicas=1,
        )


def prepare_task(
    parameters: Parameters,
    *,
    module: bytes,
    input: bytes,
    reward: int,
    entry_point: str,
    gas_limit: int | None,
    memory_bytes_max: int | None,
    run_ms_max: int | None,
    output_bytes_max: int | None,
    deadline_ms: int,
    open_ms_max: int,
) -> TaskRequest:
    """Fill in the cluster's limits where none is given, and check what can be checked here.

    A module that can never run is found before its blobs are uploaded or its reward is held.
    Raises `InvalidModule` and `InvalidRequest`.
    """
    if len(input) > parameters.input_bytes_max:
        raise InvalidRequest(
            f"the input has {len(input)} bytes, the cluster takes {parameters.input_bytes_max}",
            next_step="split it over several tasks",
        )
    task = TaskRequest(
        reward=reward,
        entry_point=entry_point,
        gas_limit=_or(gas_limit, parameters.gas_max),
        memory_bytes_max=_or(memory_bytes_max, parameters.memory_bytes_max),
        run_ms_max=_or(run_ms_max, parameters.run_ms_max),
        output_bytes_max=_or(output_bytes_max, parameters.output_bytes_max),
        deadline_ms=deadline_ms,
        open_ms_max=min(open_ms_max, parameters.open_ms_max),
    )
    _check_module(task, module)
    return task


def _or(value: int | None, default: int) -> int:
    return default if value is None else value


def _check_module(task: TaskRequest, module: bytes) -> None:
    try:
        limits = Limits(
            memory_bytes_max=task.memory_bytes_max,
            gas_max=task.gas_limit,
            time_ms_max=task.run_ms_max,
            output_bytes_max=task.output_bytes_max,
        )
        check_module(module, limits, entry_point=task.entry_point)
    except ValueError as error:
        message, _, next_step = str(error).partition(". Next: ")
        raise InvalidRequest(message, next_step=next_step or "change the limit") from None
    except ModuleError as error:
        message, _, next_step = str(error).partition(". Next: ")
        raise InvalidModule(f"module: {message}", code=error.code, next_step=next_step) from None


def wait_for_task(
    get: Callable[[int | None, int, float], dict[str, Any]],
    *,
    until: Collection[str],
    deadline: float,
    on_change: Callable[[dict[str, Any]], None] | None,
) -> dict[str, Any]:
    """Poll a task until its status is in `until` or it has ended otherwise; raise `Timeout`.

    `get(after_height, wait_ms, deadline)` returns the task's document, waiting up to `wait_ms` for
    the ledger to pass `after_height`.
    """
    seen: tuple[object, object] | None = None
    height: int | None = None
    while True:
        asked_s = time.monotonic()
        wait_ms = max(0, int((deadline - asked_s) * 1000))
        # The last poll ends with the time itself; its answer must still be allowed to arrive.
        document = get(height, wait_ms, deadline + ANSWER_GRACE_S)
        status, attempts = document.get("status"), document.get("attempts")
        if on_change is not None and seen != (status, attempts):
            on_change(document)
        seen = (status, attempts)
        if status in until or status in _FINAL:
            return document
        now_s = time.monotonic()
        if now_s >= deadline:
            raise Timeout(
                f"task {str(document.get('id'))[:12]} is still {status}",
                next_step="wait longer (--timeout), or look at its attempts with `task show`",
            )
        if document.get("height") == height:
            time.sleep(max(0.0, min(asked_s + POLL_S_MIN, deadline) - now_s))
        height = get_height(document)
