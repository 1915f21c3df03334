"""What keys without an account may send: one thing, the registration of a compute node.

It costs them nothing, so it is bounded here: in the log it would be kept for ever. What the ledger
would refuse is refused at the door, and the rest is let in at a rate that leaves the operators time
to notice.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from vcp_cluster.cluster.door.context import Reader, ReadSet
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.operations.base import Context
from vcp_cluster.ledger.records import Head
from vcp_cluster.ledger.state import Overlay, State
from vcp_cluster.ledger.transactions import ParsedTransaction

BURST = 1_000
PER_S = 20


class Strangers:
    """Registrations of new nodes at one door."""

    def __init__(self, reader: Reader, *, clock: Callable[[], float] = monotonic) -> None:
        self._reader = reader
        self._clock = clock
        self._room = float(BURST)
        self._filled_s = clock()

    async def check(self, parsed: ParsedTransaction, head: Head) -> Code:
        """The code with which the ledger would refuse a registration, as far as is known here."""
        keys = (schema.NODE_COUNT, schema.NODE + parsed.envelope.account)
        values = await self._reader.get(*keys)
        view = ReadSet(dict(zip(keys, values, strict=True)))
        context = Context(
            state=State(Overlay(view), self._reader.genesis),
            head=head,
            root=head.state_root,
            account=parsed.envelope.account,
            signers=frozenset((parsed.envelope.key,)),
            tx_id=parsed.tx_id,
            index=0,
            position=0,
            is_inner_signed=True,
        )
        return parsed.envelope.operations[0].check(context)

    def take(self, count: int) -> None:
        """Let so many registrations in; raise `Problem` 429 when that is too many now."""
        now_s = self._clock()
        self._room = min(BURST, self._room + (now_s - self._filled_s) * PER_S)
        self._filled_s = now_s
        if count > self._room:
            raise Problem(
                429,
                "busy",
                f"more compute nodes register than {PER_S} in a second",
                next_step="send the same bytes again later",
                retry_after_ms=1_000,
            )
        self._room -= count
