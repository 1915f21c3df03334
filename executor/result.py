"""What comes out of one execution: a committable result, or a failure that is only reported."""

import enum
from dataclasses import dataclass, field

from vcp_cluster.executor.commitment import ExecutionRecord
from vcp_cluster.executor.trace import Trace


class Status(enum.IntEnum):
    """How a run ended, as a function of module, input and limits alone.

    Committable. The numbers are wire format and are never reused.
    """

    OK = 0
    TRAP = 1
    OUT_OF_GAS = 2
    BAD_OUTPUT = 3
    STACK_LIMIT = 4


class TrapClass(enum.IntEnum):
    """Which trap ended a run of status `TRAP`. Our numbers, wire format, never reused.

    These are all traps that a guest can cause under the profile's features. The engine's text is
    never committed: it changes from version to version.
    """

    NONE = 0
    UNREACHABLE = 1
    MEMORY_OUT_OF_BOUNDS = 2
    TABLE_OUT_OF_BOUNDS = 3
    INDIRECT_CALL_TO_NULL = 4
    BAD_SIGNATURE = 5
    INTEGER_OVERFLOW = 6
    INTEGER_DIVISION_BY_ZERO = 7
    BAD_CONVERSION_TO_INTEGER = 8


class Failure(enum.IntEnum):
    """Why a run gave no result. Not reproducible, hence never committed; a worker reports it."""

    TIMEOUT = 1
    HOST_FAILURE = 2
    COMPILE_RESOURCE = 3
    SANDBOX_VIOLATION = 4


@dataclass(frozen=True, kw_only=True)
class Execution:
    """The result of one run.

    `engine` and the two times are about this host and stay outside every hash; `trace_root` and
    the path in `trace` belong to the binding; the rest is equal on every host of the profile.
    """

    status: Status
    trap: TrapClass
    output: bytes
    """Empty unless `status` is OK."""
    gas: int
    """Gas units used; the limit itself when `status` is OUT_OF_GAS."""
    execution_root: bytes
    """32 bytes, independent of who ran the task (see commitment.py)."""
    trace_root: bytes
    """32 bytes, `execution_root` and the path bound to the caller's `binding`."""
    waypoints: int
    """Number of states that `execution_root` covers, the final one included."""
    profile_id: bytes
    """32 bytes, see profile.py."""
    engine: str
    """For people: `wasmtime-VERSION/ARCHITECTURE`."""
    wall_ms: int
    cpu_ms: int
    record: ExecutionRecord | None = field(default=None, repr=False)
    """What `execution_root` is computed over; None for a result that was not run here."""
    trace: Trace = field(default_factory=Trace, repr=False)


class ExecutionFailure(Exception):
    """The run ended without a result; `failure` says in which way, `detail` with what evidence."""

    def __init__(self, failure: Failure, detail: str) -> None:
        super().__init__(f"{failure.name.lower()}: {detail}")
        self.failure = failure
        self.detail = detail
