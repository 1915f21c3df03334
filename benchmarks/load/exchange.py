"""What the closed loop needs of a connection."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Failure:
    """A request without a success. `may_repeat`: the same bytes may be sent again."""

    reason: str
    may_repeat: bool


Answer = bytes | Failure
"""The body of a success, or why there is none."""

Done = Callable[[Answer], None]


class Exchange(Protocol):
    """A connection that carries requests. Calls back once for each, from the event loop."""

    def start(self, request: bytes, done: Done) -> None:
        """Send a request that was prepared for this kind of connection."""

    def close(self) -> None:
        """Close the connection; what is open fails."""
