"""Send signed transactions so that each is applied once, whatever happens on the way.

The ledger remembers (account, nonce) together with the id, so the same bytes may be sent again and
again: a repeat returns the first receipt. What must not happen is to take a refusal of a repeat for
the outcome while an earlier sending is still on its way; `_settle` decides that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence

from vcp_cluster.cluster.client.documents import (
    MemberDocument,
    ReceiptsDocument,
    TransactionDocument,
    read_typed,
    to_milliseconds,
    to_receipt,
)
from vcp_cluster.cluster.client.link import AttemptFailed, Link, Refused, Request
from vcp_cluster.cluster.errors import (
    BadAnswer,
    InvalidRequest,
    InvalidTransaction,
    NotFound,
    Unavailable,
    UnknownOutcome,
    VcpError,
)
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Malformed, encode
from vcp_cluster.ledger.transactions import (
    ParsedTransaction,
    TransactionReceipt,
    parse_transaction,
)

REQUEST_TRANSACTIONS_MAX = 1_024
REQUEST_BYTES_MAX = 1 << 20
WAIT_MS_MAX = 10_000

_CODES = frozenset(Code)
# What does not depend on the ledger's state is as true of an earlier sending as of this one.
_STATELESS = frozenset(
    (
        Code.TOO_LARGE,
        Code.MALFORMED,
        Code.CHAIN_MISMATCH,
        Code.UNSIGNED,
        Code.SIGNATURE_INVALID,
        Code.TOO_MANY_OPERATIONS,
        Code.INNER_SIGNATURE_INVALID,
    )
)


class Sender:
    """Sends transactions over a link; `observe` is told every height that it learns."""

    def __init__(self, link: Link, observe: Callable[[int], None]) -> None:
        self._link = link
        self._observe = observe

    def send(self, transactions: Sequence[bytes], *, deadline: float) -> list[TransactionReceipt]:
        """Send signed transactions and return their receipts, rejections included, in order.

        `deadline` in monotonic seconds. Raises `InvalidTransaction` when a member refused one
        before it reached the log (none of its request was entered then), `UnknownOutcome` when one
        may have been sent and was not confirmed, and `Unavailable` when nothing was sent.
        """
        try:
            parsed = [parse_transaction(data) for data in transactions]
        except Malformed as error:
            raise InvalidRequest(
                f"the bytes are not a signed transaction: {error}",
                next_step="make it with `Client.sign`",
            ) from None
        receipts: list[TransactionReceipt] = []
        for group in _split(parsed):
            receipts.extend(self._send_group(group, deadline))
        return receipts

    def _send_group(
        self, group: list[ParsedTransaction], deadline: float
    ) -> list[TransactionReceipt]:
        retry = self._link.begin(deadline)
        may_be_sent = False
        while True:
            try:
                receipts = self._attempt(group, retry.endpoint, deadline)
                return self._replace_expired(receipts, deadline) if may_be_sent else receipts
            except Refused as refusal:
                failure = self._settle(group, refusal, may_be_sent, deadline)
                if not isinstance(failure, AttemptFailed):
                    return failure
            except AttemptFailed as error:
                failure = error
            except VcpError as error:
                if not may_be_sent and not error.is_of_endpoint:
                    raise
                failure = AttemptFailed(error, may_be_sent=True)
            may_be_sent = may_be_sent or failure.may_be_sent
            try:
                retry.after(failure)
            except VcpError as error:
                if may_be_sent:
                    raise UnknownOutcome(group[0].tx_id, error.message) from None
                raise

    def _attempt(
        self, group: list[ParsedTransaction], endpoint: str, deadline: float
    ) -> list[TransactionReceipt]:
        wait_ms = max(0, min(WAIT_MS_MAX, int((deadline - time.monotonic()) * 1000)))
        request = Request(
            method="POST",
            path="/v1/transactions",
            params={"wait_ms": str(wait_ms)},
            headers={"Content-Type": "application/msgpack"},
            content=encode([parsed.data for parsed in group]),
            wait_s=wait_ms / 1000,
        )
        body = self._link.attempt(endpoint, request, deadline)
        receipts = [to_receipt(item) for item in read_typed(ReceiptsDocument, body).receipts]
        if [receipt.tx_id for receipt in receipts] != [parsed.tx_id for parsed in group]:
            raise BadAnswer(f"{endpoint} answered with receipts of other transactions")
        for receipt in receipts:
            if receipt.code not in _CODES:
                raise BadAnswer(f"{endpoint} answered with the unknown code {receipt.code}")
            self._observe(receipt.height)
        return receipts

    def look_up(
        self, tx_id: bytes, *, deadline: float, min_height: int = 0
    ) -> TransactionReceipt | None:
        """The receipt of a transaction that the ledger has, as of `min_height` at least."""
        request = Request(
            method="GET",
            path=f"/v1/transactions/{tx_id.hex()}",
            params={"min_height": str(min_height)},
        )
        try:
            body = self._link.request(request, bytes, deadline=deadline)
        except NotFound:
            return None
        receipt = to_receipt(read_typed(TransactionDocument, body).receipt)
        if receipt.tx_id != tx_id:
            raise BadAnswer("the answer is about another transaction")
        return receipt

    def _replace_expired(
        self, receipts: list[TransactionReceipt], deadline: float
    ) -> list[TransactionReceipt]:
        """A repeat that came too late says EXPIRED; an earlier sending may have been applied.

        Earlier means a lower height, so looking it up at the height of the repeat is certain.
        """
        result = []
        for receipt in receipts:
            first = None
            if receipt.code == Code.EXPIRED:
                try:
                    first = self.look_up(
                        receipt.tx_id, deadline=deadline, min_height=receipt.height
                    )
                except Unavailable as error:
                    raise UnknownOutcome(receipt.tx_id, error.message) from None
            result.append(first or receipt)
        return result

    def _settle(
        self,
        group: list[ParsedTransaction],
        refusal: Refused,
        may_be_sent: bool,
        deadline: float,
    ) -> list[TransactionReceipt] | AttemptFailed:
        """What a refusal at the door means: receipts if all were applied before, else a failure.

        Raises `InvalidTransaction` when no earlier sending can still be applied: because there was
        none, or because what is missing is missing at a height whose time is past its validity.
        """
        refused = group[min(refusal.index, len(group) - 1)]
        error = InvalidTransaction(refusal.code, tx_id=refused.tx_id)
        if not may_be_sent or refusal.code in _STATELESS:
            raise error
        try:
            member = self._link.request(
                Request(method="GET", path="/v1/member/status"),
                lambda body: read_typed(MemberDocument, body),
                deadline=deadline,
            )
            found = [
                self.look_up(item.tx_id, deadline=deadline, min_height=member.height)
                for item in group
            ]
        except VcpError as failure:
            return AttemptFailed(failure, may_be_sent=True)
        receipts = [receipt for receipt in found if receipt is not None]
        if len(receipts) == len(group):
            return receipts
        now_ms = to_milliseconds(member.time)
        missing = [item for item, receipt in zip(group, found, strict=True) if receipt is None]
        if all(item.envelope.valid_until_ms < now_ms for item in missing):
            raise error
        return AttemptFailed(error, may_be_sent=True)


def _split(parsed: list[ParsedTransaction]) -> Iterator[list[ParsedTransaction]]:
    """Groups that fit into one request each."""
    group: list[ParsedTransaction] = []
    size = 0
    for item in parsed:
        is_full = (
            len(group) == REQUEST_TRANSACTIONS_MAX or size + len(item.data) > REQUEST_BYTES_MAX
        )
        if group and is_full:
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item.data)
    if group:
        yield group
