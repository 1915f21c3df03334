"""Submissions between their arrival and their receipts.

A transaction waits in the queue until it is put in an entry, and then for that entry to be
applied here. It is known by the BLAKE3 of its bytes: whoever submitted the same bytes gets the
same receipt. An entry counts as ours only when what is applied at its index are its bytes, since
another leader may have put something else there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from blake3 import blake3

TRANSACTION_BYTES_MAX = 256 << 10
PENDING_TRANSACTIONS_MAX = 10_000
PENDING_BYTES_MAX = 16 << 20
# An entry is verified and applied in one go, some 0.3 ms for each transaction: a member that is busy
# with one for longer than an election takes would look dead, and take the others for it.
GROUP_TRANSACTIONS_MAX = 512
GROUP_BYTES_MAX = 256 << 10
BUSY_RETRY_MS = 100


class Refused(Exception):
    """A request is answered with an error of this `kind`; `details` are further fields."""

    def __init__(self, kind: str, message: str, **details: object) -> None:
        super().__init__(message)
        self.kind = kind
        self.details = details


Outcome = list[bytes] | Refused
"""The receipts of a submission in order, or why there are none."""


class Submission:
    """Transactions sent together, answered together."""

    def __init__(
        self, transactions: Sequence[bytes], deadline_s: float, answer: Callable[[Outcome], None]
    ) -> None:
        self.transactions = transactions
        self.digests = [blake3(transaction).digest() for transaction in transactions]
        self.receipts: list[bytes | None] = [None] * len(transactions)
        self.missing = len(transactions)
        self.deadline_s = deadline_s
        self.is_proposed = False
        self._answer: Callable[[Outcome], None] | None = answer

    @property
    def is_answered(self) -> bool:
        """Whether the outcome was given."""
        return self._answer is None

    def answer(self, outcome: Outcome) -> None:
        """Give the outcome; only the first one counts."""
        give, self._answer = self._answer, None
        if give is not None:
            give(outcome)


@dataclass(frozen=True)
class Group:
    """Transactions that travel in one entry, with their digests."""

    transactions: list[bytes]
    digests: list[bytes]


class Pending:
    """The queue and the waiters of one member. Knows no clock; `now_s` is monotonic seconds."""

    def __init__(self) -> None:
        self._queue: deque[tuple[Submission, int]] = deque()
        self._open: dict[Submission, None] = {}
        self._waiters: dict[bytes, list[tuple[Submission, int]]] = {}
        self._in_flight: dict[int, tuple[bytes, list[bytes]]] = {}
        self._count = 0
        self._bytes = 0

    @property
    def has_queued(self) -> bool:
        """Whether a transaction waits for an entry."""
        return bool(self._queue)

    def submit(
        self,
        transactions: Sequence[bytes],
        *,
        deadline_s: float,
        answer: Callable[[Outcome], None],
    ) -> None:
        """Take all of `transactions` or none.

        Raises `Refused` with kind `bad_request` (none given), `too_large` (one is above
        `TRANSACTION_BYTES_MAX`, or all together above what may ever be pending) or `busy` (above
        what may be pending now).
        """
        if not transactions:
            raise Refused("bad_request", "a submission needs a transaction")
        largest, total = max(map(len, transactions)), sum(map(len, transactions))
        if largest > TRANSACTION_BYTES_MAX:
            raise Refused(
                "too_large",
                f"a transaction of {largest} bytes, at most {TRANSACTION_BYTES_MAX}: split it",
                bytes_max=TRANSACTION_BYTES_MAX,
            )
        if len(transactions) > PENDING_TRANSACTIONS_MAX or total > PENDING_BYTES_MAX:
            raise Refused(
                "too_large",
                f"{len(transactions)} transactions of {total} bytes together, at most "
                f"{PENDING_TRANSACTIONS_MAX} of {PENDING_BYTES_MAX}: send them in parts",
                bytes_max=PENDING_BYTES_MAX,
            )
        if (
            self._count + len(transactions) > PENDING_TRANSACTIONS_MAX
            or self._bytes + total > PENDING_BYTES_MAX
        ):
            raise Refused(
                "busy",
                f"{self._count} transactions ({self._bytes} bytes) are pending here; nothing of "
                "this submission was taken: send it again later",
                retry_after_ms=BUSY_RETRY_MS,
            )
        submission = Submission(transactions, deadline_s, answer)
        self._open[submission] = None
        self._count += len(transactions)
        self._bytes += total
        for position, digest in enumerate(submission.digests):
            self._queue.append((submission, position))
            self._waiters.setdefault(digest, []).append((submission, position))

    def take_group(self) -> Group | None:
        """Remove from the queue what fits in one entry, oldest first; None when it is empty."""
        group, size = Group([], []), 0
        while self._queue and len(group.transactions) < GROUP_TRANSACTIONS_MAX:
            submission, position = self._queue[0]
            if not submission.is_answered and submission.receipts[position] is None:
                transaction = submission.transactions[position]
                if group.transactions and size + len(transaction) > GROUP_BYTES_MAX:
                    break
                size += len(transaction)
                group.transactions.append(transaction)
                group.digests.append(submission.digests[position])
                submission.is_proposed = True
            self._queue.popleft()
        return group if group.transactions else None

    def note_proposed(self, index: int, entry: bytes, group: Group) -> None:
        """`entry`, which carries `group`, was proposed at Raft index `index`."""
        self._in_flight[index] = (entry, group.digests)

    def note_applied(self, index: int, entry: bytes, receipts: Sequence[bytes]) -> None:
        """`entry` was applied at `index`: answer whoever now has all receipts."""
        proposed = self._in_flight.pop(index, None)
        if proposed is None or proposed[0] != entry:
            return
        for digest, receipt in zip(proposed[1], receipts, strict=True):
            for submission, position in self._waiters.pop(digest, ()):
                submission.receipts[position] = receipt
                submission.missing -= 1
                if submission.missing == 0:
                    self._close(submission, [r for r in submission.receipts if r is not None])

    def refuse_queued(self, leader: str | None) -> None:
        """This member does not lead: send away every submission of which nothing was proposed.

        The others wait on, since what was proposed may still be applied.
        """
        for submission, _ in self._queue:
            if not submission.is_proposed and not submission.is_answered:
                self._close(submission, not_leader(leader))
        self._queue.clear()

    def expire(self, now_s: float) -> None:
        """Answer every submission whose deadline has passed with `unknown`."""
        for submission in [s for s in self._open if s.deadline_s <= now_s]:
            self._close(
                submission,
                Refused("unknown", "sent, not confirmed in time: it may be applied later"),
            )

    def _close(self, submission: Submission, outcome: Outcome) -> None:
        del self._open[submission]
        self._count -= len(submission.transactions)
        self._bytes -= sum(map(len, submission.transactions))
        for digest, receipt in zip(submission.digests, submission.receipts, strict=True):
            waiters = self._waiters.get(digest)
            if receipt is None and waiters is not None:
                rest = [waiter for waiter in waiters if waiter[0] is not submission]
                if rest:
                    self._waiters[digest] = rest
                else:
                    del self._waiters[digest]
        submission.answer(outcome)


def not_leader(leader: str | None) -> Refused:
    """The refusal of a member that does not lead; `leader` is the name of the one that does."""
    where = f"send it to {leader}" if leader else "no leader is known now: try again shortly"
    return Refused("not_leader", f"this member does not lead: {where}", leader=leader)
