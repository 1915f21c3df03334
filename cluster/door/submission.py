"""The way of a transaction into the log: admitted here if this member leads, else sent on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

import httpx2
import msgspec
from msgspec import Meta

from vcp_cluster.cluster.addresses import http_url
from vcp_cluster.cluster.door.admission import Admission, NotCurrent
from vcp_cluster.cluster.door.exchange import AnswerTooLarge, exchange
from vcp_cluster.cluster.door.problems import Problem, no_leader, unavailable, unknown
from vcp_cluster.cluster.link import Busy, LinkClosed, NotLeader, RaftLink, Refusal, Unknown
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.transactions import TransactionReceipt

FORWARDED_HEADER = "VCP-Forwarded"
CONTENT_TYPE = "application/vnd.msgpack"
RECEIPTS_BYTES_MAX = 1 << 20
RETRY_AFTER_MS_MAX = 60_000
_CONNECT_S = 1.0
_REFUSALS = frozenset((400, 408, 413, 422, 429, 503, 504))


class Submission:
    """Submits on behalf of clients and of this member's own services."""

    def __init__(
        self, link: RaftLink, admission: Admission, genesis: Genesis, peers: httpx2.AsyncClient
    ) -> None:
        self._link = link
        self._admission = admission
        self._addresses = {member.name: member.address for member in genesis.members}
        self._peers = peers
        self._leader: str | None = None

    async def submit(
        self, transactions: Sequence[bytes], *, wait_s: float, is_forwarded: bool
    ) -> list[TransactionReceipt]:
        """The receipts, in order, once all are applied.

        Raises `Problem`: 422 when admission refuses one, 503 when nothing was sent, 504 when it is
        not known whether something was.
        """
        if self._leader is None or is_forwarded:
            try:
                return await self._submit_here(transactions, wait_s)
            except NotLeader as error:
                if is_forwarded or error.leader is None:
                    raise no_leader() from None
                self._leader = error.leader
        return await self._forward(transactions, wait_s)

    async def _submit_here(
        self, transactions: Sequence[bytes], wait_s: float
    ) -> list[TransactionReceipt]:
        try:
            await self._admission.admit(transactions)
        except NotCurrent:
            status = await self._link.status()
            if status["role"] != "leader":
                raise NotLeader("this member does not lead", status["leader"]) from None
            raise
        try:
            receipts = await self._link.submit(transactions, wait_s)
        except Busy as error:
            raise Problem(
                429,
                "busy",
                str(error),
                next_step="send the same bytes again later",
                retry_after_ms=error.retry_after_ms,
            ) from None
        except Unknown as error:
            raise unknown(str(error)) from None
        except LinkClosed as error:
            raise unavailable(str(error)) from None
        except Refusal as error:
            raise Problem(400, error.kind, str(error)) from None
        return [decode_stored(TransactionReceipt, receipt) for receipt in receipts]

    async def _forward(
        self, transactions: Sequence[bytes], wait_s: float
    ) -> list[TransactionReceipt]:
        leader, self._leader = self._leader, None
        if leader is None or leader not in self._addresses:
            raise no_leader()
        url = f"{http_url(self._addresses[leader])}/v1/member/transactions"
        try:
            status, body = await exchange(
                self._peers,
                "POST",
                url,
                content=msgspec.msgpack.encode(list(transactions)),
                params={"wait_ms": str(int(wait_s * 1000))},
                headers={FORWARDED_HEADER: "1", "Content-Type": CONTENT_TYPE},
                timeout_s=wait_s + 2,
                connect_s=_CONNECT_S,
                bytes_max=RECEIPTS_BYTES_MAX,
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout):
            raise no_leader() from None
        except (httpx2.HTTPError, TimeoutError, AnswerTooLarge) as error:
            raise unknown(f"sent to the leader {leader}, not confirmed: {error!r}") from None
        if status != 200:
            raise _read_problem(leader, status, body)
        try:
            receipts = msgspec.msgpack.decode(body, type=list[TransactionReceipt])
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise unknown(f"the leader {leader} answered with garbage: {error}") from None
        if len(receipts) != len(transactions):
            raise unknown(f"the leader {leader} answered with {len(receipts)} receipts")
        self._leader = leader
        return receipts


class _ErrorBody(msgspec.Struct):
    code: Annotated[str, Meta(max_length=64)]
    message: Annotated[str, Meta(max_length=2_000)]
    next: Annotated[str, Meta(max_length=2_000)]
    retry_after_ms: Annotated[int, Meta(ge=0, le=RETRY_AFTER_MS_MAX)] | None
    index: Annotated[int, Meta(ge=0)] | None


class _ErrorDocument(msgspec.Struct):
    error: _ErrorBody


def _read_problem(leader: str, status: int, body: bytes) -> Problem:
    """The leader's refusal as our own answer; `unknown` when it is not one that we would give."""
    try:
        error = msgspec.json.decode(body, type=_ErrorDocument).error
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        error = None
    if error is None or status not in _REFUSALS:
        return unknown(f"the leader {leader} answered {status} without a reason")
    return Problem(
        status,
        error.code,
        error.message,
        next_step=error.next,
        retry_after_ms=error.retry_after_ms,
        index=error.index,
    )


async def submit_until(
    submission: Submission, transactions: Sequence[bytes], timeout_s: float
) -> list[TransactionReceipt]:
    """Send the same bytes until there is an answer or the time is over.

    Safe because a transaction is applied once however often it is sent. Raises the last `Problem`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        left = deadline - time.monotonic()
        try:
            return await submission.submit(transactions, wait_s=max(left, 0.1), is_forwarded=False)
        except Problem as problem:
            wait_s = (problem.retry_after_ms or 0) / 1000
            if problem.status not in (429, 503, 504) or left <= wait_s:
                raise
            await asyncio.sleep(wait_s or 0.2)
