"""HTTP/1.1 with as little work as it allows: prepared bytes out, status and length in.

A general client library costs more processor time for a request than the cluster does, on the very
cores that are measured. One exchange is one kept-alive connection with one request at a time, which
is what one client of the HTTP API is.
"""

from __future__ import annotations

import asyncio
from typing import Self

from vcp_cluster.benchmarks.load.exchange import Answer, Done, Failure

ANSWER_BYTES_MAX = 64 << 20
_REPEATABLE = (429, 503, 504)


def post(path: str, body: bytes, *, content_type: str) -> bytes:
    """The bytes of a POST request."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class Http1(asyncio.Protocol):
    """One kept-alive connection (`Exchange`)."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._done: Done | None = None
        self._body_start = 0
        self._end = 0
        self._status = 0

    @classmethod
    async def connect(cls, host: str, port: int) -> Self:
        """Open a connection; raises `OSError`."""
        _, protocol = await asyncio.get_running_loop().create_connection(cls, host, port)
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: what is open has no answer."""
        self._transport = None
        self._finish(Failure("the connection was lost", may_repeat=True))

    def start(self, request: bytes, done: Done) -> None:
        """Send a request made by `post`."""
        assert self._done is None, "one request at a time"
        self._done = done
        if self._transport is None:
            # Not from inside the caller: it may be about to start the next one.
            failure = Failure("the connection is closed", may_repeat=True)
            asyncio.get_running_loop().call_soon(self._finish, failure)
            return
        self._transport.write(request)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        if not self._end and not self._read_head():
            return
        if len(self._buffer) < self._end:
            return
        body = bytes(self._buffer[self._body_start : self._end])
        del self._buffer[: self._end]
        self._end = 0
        if self._status == 200:
            self._finish(body)
        else:
            reason = f"{self._status} {body[:300].decode(errors='replace')}"
            self._finish(Failure(reason, may_repeat=self._status in _REPEATABLE))

    def _read_head(self) -> bool:
        """Find the end of the head and the length of the body; False until it is complete."""
        split = self._buffer.find(b"\r\n\r\n")
        if split < 0:
            return False
        head = bytes(self._buffer[:split]).lower()
        _, found, rest = head.partition(b"\r\ncontent-length:")
        length = rest.split(b"\r\n", 1)[0].strip()
        if not head.startswith(b"http/1.1 ") or not found or not length.isdigit():
            self._finish(Failure("not an answer of the HTTP API", may_repeat=False))
            self.close()
            return False
        self._status = int(head[9:12])
        self._body_start = split + 4
        self._end = self._body_start + min(int(length), ANSWER_BYTES_MAX)
        return True

    def _finish(self, answer: Answer) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(answer)
