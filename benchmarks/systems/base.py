"""What a workload asks of a system."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from vcp_cluster.benchmarks.load.closed_loop import Outcome
from vcp_cluster.benchmarks.load.exchange import Exchange


class Settings(msgspec.Struct, frozen=True):
    """What a system promises when it acknowledges, and how it was run; for the table and JSON."""

    version: str
    fsync: bool
    durability: str
    verification: str
    encryption: str
    clients: str


@dataclass(frozen=True)
class Shape:
    """The form of a load: `clients` in parallel, each request with so many transactions of so many
    operations. An operation makes one record."""

    clients: int
    transactions: int = 1
    operations: int = 1

    @property
    def records(self) -> int:
        """Records of one request."""
        return self.transactions * self.operations


@dataclass(frozen=True)
class Checked:
    """What was read back: acknowledged records, where they were found, and how.

    `faults` are of a peer, where they leave its figures true; ours has none that do.
    """

    records: int
    text: str
    faults: tuple[str, ...] = ()


class System(Protocol):
    """A cluster of a few members on this machine. Started once, verified once, stopped once."""

    name: str
    settings: Settings

    def start(self) -> None:
        """Start all members and wait until they serve."""

    def stop(self) -> None:
        """Stop what runs, whatever its state."""

    def member_pids(self) -> dict[str, int]:
        """The topmost process of each running member."""

    def load(self, shape: Shape, requests: int, seconds: float) -> Outcome:
        """Prepare so many requests for each client, then drive them for so long.

        What was acknowledged is remembered for `verify`.
        """

    def verify(self) -> Checked:
        """Read back everything that was acknowledged since the start.

        May stop the members. Raises `BenchmarkFailed` for what is lost, repeated or not verified.
        """


class NetworkSystem(System, Protocol):
    """A system whose members can be addressed, killed and started one by one."""

    def leader(self) -> str:
        """The member that leads."""

    def kill(self, name: str) -> None:
        """kill -9 a member; returns without waiting for anything."""

    def restart(self, name: str) -> float:
        """Start a member that was killed; the seconds until it serves all that the others have."""

    def prepare(self, shape: Shape, requests: int) -> list[list[bytes]]:
        """Requests for each client."""

    async def connect(self, name: str, shape: Shape, number: int) -> Sequence[Exchange]:
        """One exchange for each of `number` clients, to a member; some may share a connection."""

    def acknowledge(self, requests: Sequence[bytes], answers: Sequence[bytes]) -> None:
        """Remember requests that were answered; raise `BenchmarkFailed` for a wrong answer."""
