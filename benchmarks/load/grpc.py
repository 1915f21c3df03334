"""Unary gRPC calls over HTTP/2 (RFC 9113), just enough to drive etcd.

The wheel of etcd has no load generator, and a gRPC library for Python would take more processor
time than the members it measures. Here a call costs a frame with headers, a frame with a prepared
message, and a short parse: some 20 µs. The share of a core that the client took is in every row.

Headers are literals that enter the peer's table (RFC 7541 § 6.2.1) in the first call and four
indexes afterwards, as etcd's own client sends them. Answers are not decoded: a message that came
whole means success, and everything that was acknowledged is read back after the run.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Self

from vcp_cluster.benchmarks.load.exchange import Answer, Done, Failure

_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS = 0, 1, 3, 4
_PING, _GOAWAY, _WINDOW_UPDATE = 6, 7, 8
_ACK = _END_STREAM = 1
_END_HEADERS, _PADDED = 4, 8
_ENABLE_PUSH, _INITIAL_WINDOW = 2, 4
_WINDOW_DEFAULT = 65_535
_WINDOW_MAX = (1 << 31) - 1
_FRAME_BYTES_MAX = 16_384
_MESSAGE_HEADER_BYTES = 5
_CONNECTION_LOST = Failure("the connection was lost", may_repeat=True)

# :method POST and :scheme http are in the static table; the four that follow get the indexes
# 65, 64, 63, 62 once the first call has put them into the dynamic one.
_KNOWN = b"\x83\x86"
_INDEXED = _KNOWN + bytes((0x80 | 65, 0x80 | 64, 0x80 | 63, 0x80 | 62))


def message(body: bytes) -> bytes:
    """A protobuf message as gRPC sends it: not compressed, with its length."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


def _text(value: bytes) -> bytes:
    assert len(value) < 127, "longer ones have a length of several bytes"
    return bytes((len(value),)) + value


def _literals(path: bytes, authority: bytes) -> bytes:
    return b"".join(
        (
            _KNOWN,
            b"\x44" + _text(path),
            b"\x41" + _text(authority),
            b"\x5f" + _text(b"application/grpc"),
            b"\x40" + _text(b"te") + _text(b"trailers"),
        )
    )


class GrpcChannel(asyncio.Protocol):
    """One HTTP/2 connection on which calls of one method are multiplexed (`Exchange`)."""

    def __init__(self, path: str, authority: str) -> None:
        """`path` is `/package.Service/Method`."""
        self._transport: asyncio.Transport | None = None
        self._first_headers = _literals(path.encode(), authority.encode())
        self._buffer = bytearray()
        self._next_stream = 1
        self._open: dict[int, tuple[Done, bytearray]] = {}
        self._window = self._stream_window = _WINDOW_DEFAULT
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._received = 0

    @classmethod
    async def connect(cls, host: str, port: int, path: str) -> Self:
        """Open a connection; raises `OSError`."""
        _, protocol = await asyncio.get_running_loop().create_connection(
            lambda: cls(path, f"{host}:{port}"), host, port
        )
        return protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio: the preface, and windows that never close on what we receive."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        settings = _ENABLE_PUSH.to_bytes(2, "big") + bytes(4)
        settings += _INITIAL_WINDOW.to_bytes(2, "big") + _WINDOW_MAX.to_bytes(4, "big")
        grow = (_WINDOW_MAX - _WINDOW_DEFAULT).to_bytes(4, "big")
        transport.write(
            _PREFACE + _frame(_SETTINGS, 0, 0, settings) + _frame(_WINDOW_UPDATE, 0, 0, grow)
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio: what is open has no answer."""
        self._transport = None
        self._waiting.clear()
        for stream in list(self._open):
            self._finish(stream, _CONNECTION_LOST)

    def start(self, request: bytes, done: Done) -> None:
        """Call the method with a message made by `message`."""
        if self._transport is None:
            asyncio.get_running_loop().call_soon(done, _CONNECTION_LOST)
            return
        assert len(request) <= self._stream_window, "larger than the peer takes at once"
        stream = self._next_stream
        self._next_stream += 2
        self._open[stream] = (done, bytearray())
        headers = self._first_headers if stream == 1 else _INDEXED
        self._transport.write(_frame(_HEADERS, _END_HEADERS, stream, headers))
        self._waiting.append((stream, request))
        self._send_waiting()

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _send_waiting(self) -> None:
        """Send messages, oldest first, while the connection's window has room for a whole one."""
        assert self._transport is not None
        while self._waiting and len(self._waiting[0][1]) <= self._window:
            stream, request = self._waiting.popleft()
            self._window -= len(request)
            pieces = []
            for start in range(0, len(request), _FRAME_BYTES_MAX):
                end = start + _FRAME_BYTES_MAX
                flags = _END_STREAM if end >= len(request) else 0
                pieces.append(_frame(_DATA, flags, stream, request[start:end]))
            self._transport.write(b"".join(pieces))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: take all whole frames."""
        self._buffer += data
        buffer, position = self._buffer, 0
        while len(buffer) - position >= 9:
            length = int.from_bytes(buffer[position : position + 3], "big")
            end = position + 9 + length
            if len(buffer) < end:
                break
            kind, flags = buffer[position + 3], buffer[position + 4]
            stream = int.from_bytes(buffer[position + 5 : position + 9], "big")
            self._take(kind, flags, stream, bytes(buffer[position + 9 : end]))
            position = end
        del buffer[:position]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == _DATA:
            self._take_data(stream, payload, is_padded=bool(flags & _PADDED))
        if kind in (_DATA, _HEADERS):
            if flags & _END_STREAM:
                self._end(stream)
        elif kind == _WINDOW_UPDATE:
            if stream == 0:
                self._window += int.from_bytes(payload, "big")
                self._send_waiting()
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self._write(_frame(_PING, _ACK, 0, payload))
        elif kind == _RST_STREAM:
            self._finish(stream, Failure("the call was cut off", may_repeat=True))
        elif kind == _GOAWAY:
            self.close()

    def _take_data(self, stream: int, payload: bytes, *, is_padded: bool) -> None:
        if is_padded:
            self.close()  # etcd never pads; nothing after it could be read right
            return
        self._received += len(payload)
        if self._received > _WINDOW_MAX // 2:
            self._write(_frame(_WINDOW_UPDATE, 0, 0, self._received.to_bytes(4, "big")))
            self._received = 0
        if stream in self._open:
            self._open[stream][1].extend(payload)

    def _take_settings(self, payload: bytes) -> None:
        for start in range(0, len(payload), 6):
            if int.from_bytes(payload[start : start + 2], "big") == _INITIAL_WINDOW:
                self._stream_window = int.from_bytes(payload[start + 2 : start + 6], "big")
        self._write(_frame(_SETTINGS, _ACK, 0))

    def _end(self, stream: int) -> None:
        """The peer has ended a call: with one whole message, or with an error in its trailers."""
        if stream not in self._open:
            return
        body = bytes(self._open[stream][1])
        size = int.from_bytes(body[1:_MESSAGE_HEADER_BYTES], "big")
        if len(body) >= _MESSAGE_HEADER_BYTES and len(body) == _MESSAGE_HEADER_BYTES + size:
            self._finish(stream, body[_MESSAGE_HEADER_BYTES:])
        else:
            self._finish(stream, Failure("the call failed", may_repeat=True))

    def _finish(self, stream: int, answer: Answer) -> None:
        call = self._open.pop(stream, None)
        if call is not None:
            call[0](answer)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)
