"""One member's door lies: it cannot stop, fill up or confuse the doors of the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import msgspec
import pytest

from vcp_cluster.cluster.door import status
from vcp_cluster.cluster.door.admission import Admission
from vcp_cluster.cluster.door.peers import PeerError, Peers
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.queries import Queries
from vcp_cluster.cluster.door.status import Status
from vcp_cluster.cluster.door.submission import RECEIPTS_BYTES_MAX, Submission, submit_until
from vcp_cluster.cluster.link import NotLeader, RaftLink
from vcp_cluster.ledger.keys import hash_content

from .fake_ledger import MEMBER_SEEDS, START_MS, FakeChain, asynchronous

Answer = Callable[[httpx2.Request], httpx2.Response]

DEEP = b"[" * 30_000 + b"]" * 30_000


class Bytes(httpx2.AsyncByteStream):
    """A body as the network brings it, counted."""

    def __init__(self, piece: bytes, pause_s: float = 0.0) -> None:
        self.sent = 0
        self._piece = piece
        self._pause_s = pause_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(self._pause_s)
            self.sent += len(self._piece)
            yield self._piece


def body(content: bytes, code: int = 200) -> Answer:
    """Always the same answer."""
    return lambda _: httpx2.Response(code, stream=httpx2.ByteStream(content))


def client_of(answer: Answer) -> httpx2.AsyncClient:
    """A client that asks the liar."""
    return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))


# --- transactions sent on to a leader ----------------------------------------------------------


class FollowerAdmission(Admission):
    """Of a member that does not lead."""

    def __init__(self) -> None:
        pass

    async def admit(self, transactions: Any) -> Any:
        raise NotLeader("this member does not lead", "b")


async def send(answer: Answer) -> Problem:
    """Send one transaction on to the liar b; the problem that its sender sees."""
    link: RaftLink = None  # type: ignore[assignment]
    async with client_of(answer) as peers:
        submission = Submission(link, FollowerAdmission(), FakeChain().genesis, peers)
        with pytest.raises(Problem) as caught:
            await submit_until(submission, [b"transaction"], 0.2)
        return caught.value


def error_document(**changes: object) -> bytes:
    """A refusal with some fields replaced."""
    error = {"code": "busy", "message": "m", "next": "n", "retry_after_ms": 1, "index": None}
    return msgspec.json.encode({"error": {**error, **changes}})


@pytest.mark.parametrize(
    "content, code",
    [
        (DEEP, 503),
        (b'{"x":' + DEEP + b"}", 422),
        (error_document(retry_after_ms="soon"), 503),
        (error_document(retry_after_ms=10**18), 429),
        (error_document(index=-1), 422),
        (error_document(), 302),
        (b"", 200),
        (msgspec.msgpack.encode([]), 200),
        (b"\xd9\x02\xff\xff", 200),
        (DEEP, 200),
    ],
)
@asynchronous
async def test_what_is_no_answer_of_a_leader_is_an_unknown_outcome(
    content: bytes, code: int
) -> None:
    problem = await send(body(content, code))
    assert (problem.status, problem.code) == (504, "unknown")


@asynchronous
async def test_an_answer_without_an_end_is_cut_off() -> None:
    endless = Bytes(bytes(64 << 10))
    problem = await send(lambda _: httpx2.Response(200, stream=endless))
    assert problem.code == "unknown"
    assert (
        endless.sent % (RECEIPTS_BYTES_MAX + (64 << 10)) == 0
    )  # whole attempts, none of them more


@asynchronous
async def test_a_refusal_of_a_leader_is_passed_on() -> None:
    problem = await send(body(error_document(code="expired", index=0), 422))
    assert (problem.status, problem.code, problem.index) == (422, "expired", 0)


# --- between members ---------------------------------------------------------------------------


@pytest.mark.parametrize("content", [DEEP, b'{"x":' + DEEP + b"}"])
@asynchronous
async def test_deep_answers_to_a_request_for_cosignatures_stop_nobody(content: bytes) -> None:
    chain = FakeChain()
    a, b = chain.genesis.members[:2]
    peers = Peers(
        chain.genesis,
        a,
        MEMBER_SEEDS["a"],
        transport=httpx2.MockTransport(body(content)),
        now_ms=lambda: START_MS,
    )
    try:
        with pytest.raises(PeerError):
            await peers.cosign(b, 1)
        with pytest.raises(PeerError):
            await peers.put_blob(b, hash_content(b"data"), b"data")
    finally:
        await peers.close()


# --- status ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        body(DEEP),
        body(b"null"),
        body(b'{"id":"b","role":"leader","height":"1","state_root":"00","term":1}'),
        lambda _: httpx2.Response(200, stream=Bytes(bytes(64 << 10))),
        lambda _: httpx2.Response(200, stream=Bytes(b"{", pause_s=0.05)),
    ],
    ids=["deep", "null", "types", "endless", "drip"],
)
@asynchronous
async def test_a_member_that_answers_nonsense_is_shown_as_unreachable(
    answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "PEER_TIMEOUT_S", 0.5)
    chain = FakeChain()
    a, b = chain.genesis.members[:2]
    link: RaftLink = None  # type: ignore[assignment]
    queries: Queries = None  # type: ignore[assignment]
    async with client_of(answer) as peers:
        row = await Status(link, queries, chain.genesis, a, peers)._ask(b)
    assert (row["id"], row["role"], row["height"]) == ("b", "unreachable", None)
