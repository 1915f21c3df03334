"""Admission: junk is refused before it reaches the Raft log.

Every signature is verified here, in worker threads (libsodium releases the interpreter lock), and
the envelope is checked against the ledger as this member knows it. What admission refuses leaves
no trace: nothing of the request is taken, and the transaction may be sent again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from vcp_cluster.cluster.clock import wall_ms
from vcp_cluster.cluster.door.context import Reader, ReadSet
from vcp_cluster.cluster.door.problems import Problem, bad_request, refused
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Malformed
from vcp_cluster.ledger.records import Head
from vcp_cluster.ledger.state import Overlay, State
from vcp_cluster.ledger.transactions import (
    ENTRY_BYTES_MAX,
    OPERATIONS_MAX,
    TRANSACTION_BYTES_MAX,
    ParsedTransaction,
    SignatureCheck,
    parse_transaction,
    verify_transaction,
)
from vcp_cluster.ledger.transition import check_envelope

REQUEST_TRANSACTIONS_MAX = 1_024
REQUEST_BYTES_MAX = ENTRY_BYTES_MAX
VERIFY_THREADS = 2

# What a leader may only say when it knows all that was committed before it led.
_OF_STATE = (Code.ACCOUNT_NOT_FOUND, Code.KEY_NOT_AUTHORISED)

# Below this a hand-over to a thread costs more than the work.
_INLINE_SIGNATURES_MAX = 2


class NotCurrent(Problem):
    """This member cannot judge: it does not lead, or has not applied everything yet."""

    def __init__(self) -> None:
        super().__init__(
            503,
            "behind",
            "this member has begun to lead and has not applied everything yet",
            next_step="send the same bytes again",
            retry_after_ms=100,
        )


class Admission:
    """Checks requests of transactions. One for each door process."""

    def __init__(self, reader: Reader, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self._reader = reader
        self._now_ms = now_ms
        self._threads = ThreadPoolExecutor(VERIFY_THREADS, thread_name_prefix="verify")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def admit(self, transactions: Sequence[bytes]) -> list[ParsedTransaction]:
        """The parsed transactions of a request; raise `Problem` for the first bad one."""
        parsed = parse_request(transactions)
        checks = await self._verify(parsed)
        state, head = await self._read_state(parsed)
        for index, (transaction, check) in enumerate(zip(parsed, checks, strict=True)):
            code = check_envelope(state, head, transaction, is_valid=check.is_valid)
            if code is Code.OK and not all(check.operations):
                code = Code.INNER_SIGNATURE_INVALID
            if code in _OF_STATE and not await self._reader.is_current():
                raise NotCurrent
            if code is not Code.OK:
                raise refused(code, index)
        return parsed

    async def _verify(self, parsed: Sequence[ParsedTransaction]) -> list[SignatureCheck]:
        if len(parsed) <= _INLINE_SIGNATURES_MAX:
            return [verify_transaction(transaction) for transaction in parsed]
        loop = asyncio.get_running_loop()
        size = -(-len(parsed) // VERIFY_THREADS)
        pieces = [parsed[start : start + size] for start in range(0, len(parsed), size)]
        results = await asyncio.gather(
            *(loop.run_in_executor(self._threads, _verify_all, piece) for piece in pieces)
        )
        return [check for piece in results for check in piece]

    async def _read_state(self, parsed: Sequence[ParsedTransaction]) -> tuple[State, Head]:
        accounts = {transaction.envelope.account for transaction in parsed}
        keys = [schema.HEAD, *(schema.ACCOUNT + account for account in sorted(accounts))]
        values = await self._reader.get(*keys)
        view = ReadSet(dict(zip(keys, values, strict=True)))
        state = State(Overlay(view), self._reader.genesis)
        head = state.get_head()
        # Ledger time stands still while nothing happens; the entry will carry the clock's.
        return state, msgspec.structs.replace(head, time_ms=max(head.time_ms, self._now_ms()))


def _verify_all(parsed: Sequence[ParsedTransaction]) -> list[SignatureCheck]:
    return [verify_transaction(transaction) for transaction in parsed]


def parse_request(transactions: Sequence[bytes]) -> list[ParsedTransaction]:
    """Bound and decode a request's transactions; raise `Problem`."""
    if not 1 <= len(transactions) <= REQUEST_TRANSACTIONS_MAX:
        raise bad_request(f"a request carries 1 to {REQUEST_TRANSACTIONS_MAX} transactions")
    if sum(map(len, transactions)) > REQUEST_BYTES_MAX:
        raise Problem(413, "too_large", f"a request has at most {REQUEST_BYTES_MAX} bytes")
    parsed = []
    for index, data in enumerate(transactions):
        if len(data) > TRANSACTION_BYTES_MAX:
            raise refused(Code.TOO_LARGE, index)
        try:
            parsed.append(parse_transaction(data))
        except Malformed:
            raise refused(Code.MALFORMED, index) from None
        if len(parsed[-1].envelope.operations) > OPERATIONS_MAX:
            raise refused(Code.TOO_MANY_OPERATIONS, index)
    return parsed
