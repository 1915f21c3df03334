"""What the parts of a door share: the ledger as seen and written through the Raft process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from vcp_cluster.ledger.genesis import Genesis, Member
from vcp_cluster.ledger.operations import AnyOperation
from vcp_cluster.ledger.transactions import TransactionReceipt


class Reader(Protocol):
    """Read access to the ledger as this member has applied it."""

    genesis: Genesis

    @property
    def height(self) -> int:
        """Newest applied height known here."""
        ...

    @property
    def time_ms(self) -> int:
        """Ledger time at `height`."""
        ...

    async def get(self, *keys: bytes) -> list[bytes | None]:
        """Values under keys, all at one height."""
        ...

    async def scan(
        self,
        prefix: bytes,
        *,
        start: bytes | None = None,
        limit: int = 1000,
        reverse: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """Pairs with a prefix, in key order (or reverse), from `start` on."""
        ...

    async def wait_height(self, above: int, timeout_s: float) -> int:
        """Wait until the height is greater than `above`; returns the newest height either way."""
        ...

    async def is_current(self) -> bool:
        """Whether this member leads and has applied all that was committed before its term."""
        ...


class Ledger(Reader, Protocol):
    """Read access, and writes that are signed by this member."""

    chain_id: bytes
    member: Member
    seed: bytes

    async def submit(self, operations: Sequence[AnyOperation]) -> TransactionReceipt:
        """Sign as this member, submit to the leader, and return the receipt.

        Raises the errors of `cluster.errors`: `InvalidTransaction` when it was rejected.
        """
        ...

    async def is_leader(self) -> bool:
        """Whether this member leads now."""
        ...


class ReadSet:
    """A view of values read beforehand, for running pure ledger code in a door."""

    def __init__(self, values: dict[bytes, bytes | None]) -> None:
        self._values = values

    def get(self, key: bytes) -> bytes | None:
        """The value that was read; a key that was not read is a defect of the caller."""
        return self._values[key]

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs that were read, with a prefix, in key order."""
        for key in sorted(self._values):
            value = self._values[key]
            if key.startswith(prefix) and value is not None:
                yield key, value
