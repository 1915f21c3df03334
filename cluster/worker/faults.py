"""Deliberate lies, for demonstrations and tests only.

A worker with a fault is a dishonest one: everything that it submits is well formed and rightly
signed, so that only running the task again can tell that it is wrong.
"""

from __future__ import annotations

import enum
from dataclasses import replace

from vcp_cluster.executor.commitment import compute_trace_root
from vcp_cluster.executor.result import Execution, Status, TrapClass
from vcp_cluster.ledger.keys import hash_content


class Fault(enum.Enum):
    """How a worker lies."""

    WRONG_OUTPUT = "wrong-output"


def apply_fault(fault: Fault, execution: Execution, *, binding: bytes) -> Execution:
    """The execution as the liar tells it, with roots that fit its story as well as it can."""
    assert fault is Fault.WRONG_OUTPUT, "there is no other"
    output = execution.output or b"\0"
    output = bytes([output[0] ^ 0xFF]) + output[1:]
    # The true root covers the final memory, which the liar does not have for this output.
    root = hash_content(execution.execution_root + output)
    return replace(
        execution,
        status=Status.OK,
        trap=TrapClass.NONE,
        output=output,
        execution_root=root,
        trace_root=compute_trace_root(root, execution.trace.path_root, binding),
    )
