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

from vcp_cluster.cluster.claims import Claims
from vcp_cluster.cluster.clock import wall_ms
from vcp_cluster.cluster.door.context import Reader, ReadSet
from vcp_cluster.cluster.door.problems import Problem, bad_request, refused
from vcp_cluster.cluster.door.strangers import Strangers
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Malformed
from vcp_cluster.ledger.genesis import member_names
from vcp_cluster.ledger.operations import SubmitProof, SubmitTask
from vcp_cluster.ledger.operations.base import Operation
from vcp_cluster.ledger.operations.tasks import Attestations
from vcp_cluster.ledger.records import Head
from vcp_cluster.ledger.state import Overlay, State
from vcp_cluster.ledger.transactions import (
    ENTRY_BYTES_MAX,
    OPERATIONS_MAX,
    TRANSACTION_BYTES_MAX,
    ParsedTransaction,
    parse_transaction,
    verify_envelope,
    verify_operations,
)
from vcp_cluster.ledger.transition import check_envelope

REQUEST_TRANSACTIONS_MAX = 1_024
REQUEST_BYTES_MAX = ENTRY_BYTES_MAX
VERIFY_THREADS = 2

# What a leader may only say when it knows all that was committed before it led.
_OF_STATE = (Code.ACCOUNT_NOT_FOUND, Code.KEY_NOT_AUTHORISED)

# Below this, one or two transfers, a hand-over to a thread costs more than the work.
_INLINE_BYTES_MAX = 1_024


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
        self._claims = Claims()
        self._strangers = Strangers(reader)
        self._threads = ThreadPoolExecutor(VERIFY_THREADS, thread_name_prefix="verify")

    def close(self) -> None:
        """Stop the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def admit(self, transactions: Sequence[bytes]) -> list[ParsedTransaction]:
        """The parsed transactions of a request; raise `Problem` for the first bad one.

        What costs most comes last: signatures inside operations are looked at only when the sender
        is known and the operations could be right.
        """
        parsed = parse_request(transactions)
        for index, transaction in enumerate(parsed):
            if not self._are_cosigners_possible(transaction):
                raise refused(Code.NOT_GOVERNANCE, index)
        signed = await self._run_each(verify_envelope, parsed)
        state, head = await self._read_state(parsed)
        strangers = 0
        for index, (transaction, is_valid) in enumerate(zip(parsed, signed, strict=True)):
            code = check_envelope(state, head, transaction, is_valid=is_valid)
            if code in _OF_STATE and not await self._reader.is_current():
                raise NotCurrent
            if code is Code.OK and state.get_account(transaction.envelope.account) is None:
                strangers += 1
                code = await self._strangers.check(transaction, head)
            if code is Code.OK and not self._are_attestations_possible(transaction):
                code = Code.ATTESTATION_INVALID
            if code is not Code.OK:
                raise refused(code, index)
        await self._check_operations(parsed)
        if strangers:
            self._strangers.take(strangers)
        return parsed

    async def _check_operations(self, parsed: Sequence[ParsedTransaction]) -> None:
        """Raise `Problem` for the first transaction with a wrong signature in an operation."""
        carrying = [
            (index, transaction)
            for index, transaction in enumerate(parsed)
            if any(_carries_signatures(item) for item in transaction.envelope.operations)
        ]
        checks = await self._run_each(self._verify_operations, [item for _, item in carrying])
        for (index, _), is_valid in zip(carrying, checks, strict=True):
            if not is_valid:
                raise refused(Code.INNER_SIGNATURE_INVALID, index)

    def _verify_operations(self, parsed: ParsedTransaction) -> bool:
        return all(verify_operations(parsed, self._claims.is_true))

    def _are_cosigners_possible(self, parsed: ParsedTransaction) -> bool:
        """Whether cosignatures are of governance keys, one of each: no others count for anything."""
        keys = [cosignature.key for cosignature in parsed.signed.cosignatures]
        return len(set(keys)) == len(keys) and set(keys) <= set(
            self._reader.genesis.governance.keys
        )

    def _are_attestations_possible(self, parsed: ParsedTransaction) -> bool:
        """Whether attestations are of members, one of each: anybody can sign any number."""
        names = member_names(self._reader.genesis)
        for operation in parsed.envelope.operations:
            for attestations in _get_attestations(operation):
                members = {attestation.member for attestation in attestations}
                if len(members) != len(attestations) or not members <= names.keys():
                    return False
        return True

    async def _run_each(
        self,
        check: Callable[[ParsedTransaction], bool],
        parsed: Sequence[ParsedTransaction],
    ) -> list[bool]:
        """The check of each transaction, in threads when there are more than a few."""
        if sum(len(transaction.data) for transaction in parsed) <= _INLINE_BYTES_MAX:
            return [check(transaction) for transaction in parsed]
        loop = asyncio.get_running_loop()
        size = -(-len(parsed) // VERIFY_THREADS)
        pieces = [parsed[start : start + size] for start in range(0, len(parsed), size)]
        results = await asyncio.gather(
            *(loop.run_in_executor(self._threads, _check_all, check, piece) for piece in pieces)
        )
        return [result for piece in results for result in piece]

    async def _read_state(self, parsed: Sequence[ParsedTransaction]) -> tuple[State, Head]:
        accounts = {transaction.envelope.account for transaction in parsed}
        keys = [schema.HEAD, *(schema.ACCOUNT + account for account in sorted(accounts))]
        values = await self._reader.get(*keys)
        view = ReadSet(dict(zip(keys, values, strict=True)))
        state = State(Overlay(view), self._reader.genesis)
        head = state.get_head()
        # Ledger time stands still while nothing happens; the entry will carry the clock's.
        return state, msgspec.structs.replace(head, time_ms=max(head.time_ms, self._now_ms()))


def _check_all(
    check: Callable[[ParsedTransaction], bool], parsed: Sequence[ParsedTransaction]
) -> list[bool]:
    return [check(transaction) for transaction in parsed]


def _carries_signatures(operation: Operation) -> bool:
    return type(operation).signatures is not Operation.signatures


def _get_attestations(operation: Operation) -> tuple[Attestations, ...]:
    match operation:
        case SubmitTask():
            return operation.module_attestations, operation.input_attestations
        case SubmitProof():
            return (operation.output_attestations,)
    return ()


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
