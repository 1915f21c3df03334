"""What one execution may use: the submitter's limits and the fixed bounds around them."""

from dataclasses import dataclass
from typing import Final

from vcp_cluster.executor.callgraph import UNCOUNTED_BYTES_MAX

MODULE_BYTES_MAX: Final = 4 << 20
"""Largest module in bytes. Compiling is the attack surface, so this is far below the engine's."""

INPUT_BYTES_MAX: Final = 16 << 20
"""Largest input in bytes; equals the largest blob of the cluster."""

PAGE_BYTES: Final = 1 << 16
"""Size of one WebAssembly memory page in bytes."""

NATIVE_STACK_FACTOR: Final = 16
"""Native bytes for each counted byte of stack."""

# Each limit has a floor and a ceiling, because limits arrive with a task and a task is hostile.
_BOUNDS: Final[dict[str, tuple[int, int]]] = {
    "memory_bytes_max": (PAGE_BYTES, 4 << 30),
    "gas_max": (1, (1 << 63) - 1),
    "time_ms_max": (1, 600_000),
    "output_bytes_max": (0, 16 << 20),
    "stack_bytes_max": (1 << 16, 2 << 20),
}


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one execution. Memory, gas, output and stack decide the result; time does not.

    Two runs are comparable only under equal memory, gas, output and stack limits: each of them
    can be observed by the guest or changes its status. Time only ever ends in a failure that is
    reported and never committed.

    Raises `ValueError` when a limit is outside its bounds.
    """

    memory_bytes_max: int = 512 << 20
    """Largest linear memory in bytes; `memory.grow` beyond it returns -1."""
    gas_max: int = 10_000_000_000
    """Gas units of the profile (see `profile.py`)."""
    time_ms_max: int = 30_000
    """Wall time of instantiation, the calls and the final hash, in milliseconds."""
    output_bytes_max: int = 16 << 20
    """Largest output in bytes; a longer one is `BAD_OUTPUT`."""
    stack_bytes_max: int = 1 << 20
    """Counted bytes of the guest's frames (`callgraph.compute_frame_bytes`), not native ones."""

    def __post_init__(self) -> None:
        for name, (low, high) in _BOUNDS.items():
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ValueError(
                    f"limit {name} is {value!r}, outside {low} to {high}. "
                    f"Next: choose an integer in that range"
                )


def compute_native_stack_bytes(stack_bytes_max: int) -> int:
    """The engine's own stack for guests of this limit, in bytes.

    Large enough that the counted stack ends first whatever the engine makes of a frame.
    """
    return NATIVE_STACK_FACTOR * (stack_bytes_max + UNCOUNTED_BYTES_MAX)
