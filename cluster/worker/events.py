"""What a worker tells its caller while it runs."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass


class EventKind(enum.StrEnum):
    """What happened."""

    REGISTERED = "registered"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"
    ASSIGNED = "assigned"
    PROVEN = "proven"
    FAILED = "failed"
    """The run gave nothing that could be reproduced; this was reported."""
    REFUSED = "refused"
    """The ledger did not take the result, for example because it came too late."""
    LOST = "lost"
    """No member could be told the result in time."""
    CANCELLED = "cancelled"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class WorkerEvent:
    """One thing that happened; `task` is the task's id in hex, `detail` is for people."""

    kind: EventKind
    task: str | None
    detail: str


OnEvent = Callable[[WorkerEvent], None]
