"""The wall clock, in one place: everything else of a member counts monotonic time."""

from __future__ import annotations

import time


def wall_ms() -> int:
    """Unix time in milliseconds."""
    return time.time_ns() // 1_000_000
