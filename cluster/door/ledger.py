"""`context.Ledger` of a door: reads over the Unix socket, writes signed by this member."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator, Sequence
from typing import Any

from vcp_cluster.cluster.clock import wall_ms
from vcp_cluster.cluster.door.problems import unavailable
from vcp_cluster.cluster.door.submission import Submission, submit_until
from vcp_cluster.cluster.errors import InvalidTransaction
from vcp_cluster.cluster.link import LinkError, RaftLink
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.genesis import Genesis, Member, compute_chain_id
from vcp_cluster.ledger.operations import AnyOperation
from vcp_cluster.ledger.transactions import TransactionReceipt, sign_transaction

WRITE_TIMEOUT_S = 20.0
WRITE_VALIDITY_MS = 60_000
SCAN_LIMIT = 1_000


class LinkReader:
    """`context.Reader` over the Unix socket."""

    def __init__(self, link: RaftLink, genesis: Genesis) -> None:
        self._link = link
        self.genesis = genesis

    @property
    def height(self) -> int:
        """Newest applied height that the Raft process told."""
        return int(self._link.heights["height"])

    @property
    def time_ms(self) -> int:
        """Ledger time at `height`."""
        return int(self._link.heights["time_ms"])

    async def get(self, *keys: bytes) -> list[bytes | None]:
        """Values under keys, all at one height."""
        try:
            return (await self._link.get(keys))[1]
        except LinkError as error:
            raise unavailable(str(error)) from None

    async def scan(
        self,
        prefix: bytes,
        *,
        start: bytes | None = None,
        limit: int = SCAN_LIMIT,
        reverse: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        """Pairs with a prefix, in key order (or reverse), from `start` on."""
        try:
            _, rows = await self._link.scan(prefix, start=start, limit=limit, reverse=reverse)
        except LinkError as error:
            raise unavailable(str(error)) from None
        return rows

    async def wait_height(self, above: int, timeout_s: float) -> int:
        """Wait until the height is greater than `above`; returns the newest height either way."""
        try:
            await self._link.wait_height(above + 1, timeout_s)
        except LinkError as error:
            raise unavailable(str(error)) from None
        return self.height

    async def is_leader(self) -> bool:
        """Whether this member leads now."""
        return bool((await self._status())["role"] == "leader")

    async def is_current(self) -> bool:
        """Whether this member leads and has applied all that was committed before its term."""
        return bool((await self._status())["is_current"])

    async def _status(self) -> dict[str, Any]:
        try:
            return await self._link.status()
        except LinkError as error:
            raise unavailable(str(error)) from None


class MemberLedger(LinkReader):
    """`context.Ledger`: a member's services write with it."""

    def __init__(
        self, link: RaftLink, genesis: Genesis, member: Member, seed: bytes, submission: Submission
    ) -> None:
        super().__init__(link, genesis)
        self.member = member
        self.seed = seed
        self.chain_id = compute_chain_id(genesis)
        self._submission = submission

    async def submit(self, operations: Sequence[AnyOperation]) -> TransactionReceipt:
        """Sign, submit until there is an answer, and return the receipt of an applied transaction.

        Raises `InvalidTransaction` when the ledger rejected it, `Problem` when there is no answer.
        """
        transaction = sign_transaction(
            self.seed,
            chain_id=self.chain_id,
            nonce=secrets.randbits(63),
            # Ledger time stands still while nothing happens.
            valid_until_ms=max(self.time_ms, wall_ms()) + WRITE_VALIDITY_MS,
            operations=operations,
        )
        receipts = await submit_until(self._submission, [transaction], WRITE_TIMEOUT_S)
        receipt = receipts[0]
        if receipt.code != Code.OK:
            raise InvalidTransaction(
                Code(receipt.code),
                tx_id=receipt.tx_id,
                operation=receipt.operation,
                receipt=receipt,
            )
        return receipt


class ThreadView:
    """A blocking view over a reader, for pure ledger code that runs in a worker thread.

    Its reads are not of one height: use it for what does not change any more.
    """

    def __init__(self, reader: LinkReader, loop: asyncio.AbstractEventLoop) -> None:
        self._reader = reader
        self._loop = loop

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, or None."""
        future = asyncio.run_coroutine_threadsafe(self._reader.get(key), self._loop)
        return future.result()[0]

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with a prefix, in key order, read in pages."""
        start: bytes | None = None
        while True:
            future = asyncio.run_coroutine_threadsafe(
                self._reader.scan(prefix, start=start), self._loop
            )
            rows = future.result()
            if not rows:
                return
            yield from rows
            start = rows[-1][0] + b"\x00"
