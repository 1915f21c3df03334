"""The doors' side of the Unix socket to their member's Raft process.

LinkError
  NotLeader(leader)        the member named leads, or nobody is known to
  Busy(retry_after_ms)     nothing was taken
  Refusal(kind)            any other definite refusal: bad_request, too_large, unknown_method
  Unknown                  sent, not confirmed: it may or may not be applied
  LinkTimeout              no answer in time to a request that changes nothing
  LinkClosed               the connection is gone; nothing is said about what was sent
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from vcp_cluster.cluster.raft.frames import (
    PUSH_ID,
    FrameError,
    FrameReader,
    encode_frame,
)

PENDING_REQUESTS_MAX = 1_024
READ_BYTES = 1 << 20
ANSWER_GRACE_S = 1.0
"""How long after a submission's own time-out its answer is waited for."""


class LinkError(Exception):
    """A request had no result; the subclass says what is known."""


class NotLeader(LinkError):
    """This member does not lead; `leader` is the name of the one that does, if known."""

    def __init__(self, message: str, leader: str | None) -> None:
        super().__init__(message)
        self.leader = leader


class Busy(LinkError):
    """Nothing was taken; try again after `retry_after_ms`."""

    def __init__(self, message: str, retry_after_ms: int) -> None:
        super().__init__(message)
        self.retry_after_ms = retry_after_ms


class Refusal(LinkError):
    """A definite refusal of another `kind`."""

    def __init__(self, message: str, kind: str) -> None:
        super().__init__(message)
        self.kind = kind


class Unknown(LinkError):
    """A submission was sent and not confirmed: it may or may not be applied."""


class LinkTimeout(LinkError):
    """No answer in time to a request that changes nothing."""


class LinkClosed(LinkError):
    """The connection is gone."""


class RaftLink:
    """A multiplexed connection: any number of tasks may request at the same time.

    At most `PENDING_REQUESTS_MAX` requests are on their way; further ones wait their turn.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Use `RaftLink.connect`."""
        self._reader, self._writer = reader, writer
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._slots = asyncio.Semaphore(PENDING_REQUESTS_MAX)
        self._last_id = 0
        self._heights: dict[str, Any] = {"height": 0, "root": b"", "time_ms": 0}
        self._news = asyncio.Event()
        self._closed: LinkClosed | None = None
        self._receiver = asyncio.create_task(self._receive())

    @classmethod
    async def connect(cls, socket_path: Path, timeout_s: float) -> RaftLink:
        """Connect and subscribe. Raises `LinkClosed` when nobody answers within `timeout_s`.

        It does not wait for a process that is still starting: that is for the caller to repeat.
        """
        try:
            async with asyncio.timeout(timeout_s):
                reader, writer = await asyncio.open_unix_connection(socket_path, limit=READ_BYTES)
        except (OSError, TimeoutError) as error:
            raise LinkClosed(
                f"no Raft process answers at {socket_path}: {error or 'timed out'}. "
                "Next: see whether the member runs."
            ) from error
        link = cls(reader, writer)
        try:
            await link.request("subscribe", [], timeout_s)
        except BaseException:
            await link.close()
            raise
        return link

    @property
    def heights(self) -> dict[str, Any]:
        """The newest `{"height", "root", "time_ms"}` the member has told; height 0 before that."""
        return self._heights

    @property
    def is_closed(self) -> bool:
        """Whether the connection is gone; a link does not come back."""
        return self._closed is not None

    async def request(self, method: str, params: Sequence[Any], timeout_s: float) -> Any:
        """Send one request and return its result.

        Raises the errors above; ValueError when the request is larger than a frame.
        """
        try:
            async with asyncio.timeout(timeout_s), self._slots:
                return await self._exchange(method, params)
        except TimeoutError as error:
            raise LinkTimeout(f"no answer to {method} within {timeout_s} s") from error

    async def status(self, timeout_s: float = 5.0) -> dict[str, Any]:
        """Role, term, peers and the machine's own status."""
        result: dict[str, Any] = await self.request("status", [], timeout_s)
        return result

    async def submit(self, transactions: Sequence[bytes], timeout_s: float) -> list[bytes]:
        """Submit to this member, which must lead; the receipts in order once all are applied.

        Raises `NotLeader`, `Busy` or `Refusal` when nothing was taken, `Unknown` when that is not
        certain.
        """
        self._check_open()
        params = [list(transactions), max(1, round(timeout_s * 1000))]
        try:
            receipts: list[bytes] = await self.request("submit", params, timeout_s + ANSWER_GRACE_S)
        except (LinkTimeout, LinkClosed) as error:
            raise Unknown(f"sent, not confirmed: {error}") from error
        return receipts

    async def get(
        self, keys: Sequence[bytes], timeout_s: float = 5.0
    ) -> tuple[int, list[bytes | None]]:
        """(height, the value of each key or None), as applied by this member."""
        height, values = await self.request("get", [list(keys)], timeout_s)
        return height, values

    async def scan(
        self,
        prefix: bytes,
        *,
        start: bytes | None = None,
        limit: int = 1_000,
        reverse: bool = False,
        timeout_s: float = 5.0,
    ) -> tuple[int, list[tuple[bytes, bytes]]]:
        """(height, rows in key order from `start` on, itself included).

        Fewer rows than `limit` do not mean the end: an answer is at most 8 MiB.
        """
        params = [prefix, start, limit, reverse]
        height, rows = await self.request("scan", params, timeout_s)
        return height, [(key, value) for key, value in rows]

    async def wait_height(self, height: int, timeout_s: float) -> bool:
        """Wait until the member has applied `height`; False when it has not within `timeout_s`.

        Raises `LinkClosed` when the connection is lost.
        """
        try:
            async with asyncio.timeout(timeout_s):
                while self._heights["height"] < height:
                    self._check_open()
                    await self._news.wait()
        except TimeoutError:
            return False
        return True

    async def wait_closed(self) -> None:
        """Return when the connection is gone."""
        await asyncio.wait((self._receiver,))

    async def close(self) -> None:
        """Close the connection; requests on their way end with `LinkClosed`."""
        self._receiver.cancel()
        await asyncio.gather(self._receiver, self._writer.wait_closed(), return_exceptions=True)

    def _check_open(self) -> None:
        if self._closed is not None:
            raise LinkClosed(str(self._closed))

    async def _exchange(self, method: str, params: Sequence[Any]) -> Any:
        self._check_open()
        self._last_id += 1
        request_id = self._last_id
        frame = encode_frame([request_id, method, params])
        answer = self._answers[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._writer.write(frame)
            await self._writer.drain()
            return await answer
        except OSError as error:
            raise LinkClosed(f"the Raft process closed the connection: {error}") from error
        finally:
            del self._answers[request_id]
            answer.cancel()

    async def _receive(self) -> None:
        frames, why = FrameReader(), "the Raft process closed the connection"
        try:
            while data := await self._reader.read(READ_BYTES):
                for body in frames.feed(data):
                    self._take(body)
        except (OSError, FrameError, msgspec.MsgspecError, UnicodeDecodeError) as error:
            why = f"the connection to the Raft process failed: {error}"
        except asyncio.CancelledError:
            why = "the link was closed"
            raise
        finally:
            self._end(LinkClosed(why))
            self._writer.close()

    def _take(self, body: bytes) -> None:
        match msgspec.msgpack.decode(body):
            case [int(request_id), "applied", dict(applied)] if request_id == PUSH_ID:
                self._heights = applied
                news, self._news = self._news, asyncio.Event()
                news.set()
            case [int(request_id), "ok", result]:
                if answer := self._waiting(request_id):
                    answer.set_result(result)
            case [int(request_id), "error", {"kind": str(kind), "message": str(text), **rest}]:
                if answer := self._waiting(request_id):
                    answer.set_exception(_error(kind, text, rest))
            case _:
                raise FrameError("not an answer")

    def _waiting(self, request_id: int) -> asyncio.Future[Any] | None:
        """Who waits for this answer; nobody when the request was given up meanwhile."""
        answer = self._answers.get(request_id)
        return None if answer is None or answer.done() else answer

    def _end(self, closed: LinkClosed) -> None:
        self._closed = closed
        self._news.set()
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LinkClosed(str(closed)))


def _error(kind: str, message: str, details: Mapping[Any, Any]) -> LinkError:
    if kind == "not_leader":
        return NotLeader(message, details.get("leader"))
    if kind == "busy":
        return Busy(message, int(details.get("retry_after_ms", 0)))
    if kind == "unknown":
        return Unknown(message)
    return Refusal(message, kind)
