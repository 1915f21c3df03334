"""What the Raft process needs of the state it replicates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol


class View(Protocol):
    """Read access to the state, as `Store` gives it."""

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None."""

    def iterate(
        self, prefix: bytes, *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """(key, value) in byte order; `start` is a full key to begin at, itself included."""


class StateMachine(Protocol):
    """A deterministic state fed by Raft entries, one after the other.

    Everything is called from the one thread of the Raft process. Any exception of `apply`, `skip`
    or `pack` is a defect and stops the member: going on could make it differ from the others.
    """

    @property
    def raft_index(self) -> int:
        """Index of the last entry that is in the state; 0 when there is none."""

    @property
    def known_index(self) -> int:
        """Highest index known to have been applied here, hence committed. Above `raft_index` after
        a loss of power: the entries between are in the journal and are applied again."""

    @property
    def durable_index(self) -> int:
        """Highest index up to which the state is on the disk, whatever happens to the machine."""

    @property
    def chain_id(self) -> bytes:
        """Identity of the cluster, 16 bytes."""

    @property
    def height(self) -> int:
        """Number of entries applied (what was skipped is not counted)."""

    @property
    def state_root(self) -> bytes:
        """The root at `height`."""

    @property
    def ledger_time_ms(self) -> int:
        """Time of the state in milliseconds since 1970; it never runs backwards."""

    @property
    def view(self) -> View:
        """The state at `height`, for reads."""

    def apply(self, index: int, entry: bytes) -> list[bytes]:
        """Apply the entry at Raft index `index` and write it together with the index, whole or not
        at all when the process is killed.

        Returns one encoded receipt for each transaction of the entry, in order.
        """

    def skip(self, index: int) -> None:
        """Record index `index`, which carries nothing for the state."""

    def is_due(self, now_ms: int) -> bool:
        """Whether the passing of time alone would change the state at `now_ms`."""

    def empty_entry(self, time_ms: int) -> bytes:
        """An entry with a time and no transaction."""

    def pack(self, time_ms: int, transactions: Sequence[bytes]) -> bytes:
        """An entry with a time and these transactions, in this order."""

    def status(self) -> dict[str, Any]:
        """What a status command shows of the state; MessagePack types only."""

    def flush(self) -> None:
        """Put everything applied on the disk: `durable_index` is `raft_index` then."""

    def close(self) -> None:
        """Flush and release the store. Called once, when the process ends in order."""
