"""Frames on the Unix socket between the Raft process of a member and its doors.

A frame is its length (u32 big endian) and that many bytes of MessagePack:

    request  [id, method, params]      id from 1 on, chosen by the client
    answer   [id, "ok", result]  or  [id, "error", {"kind": …, "message": …, …}]
    push     [0, "applied", {"height": …, "root": …, "time_ms": …}]
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

FRAME_BYTES_MAX = 32 << 20
APPLIED = "applied"
PUSH_ID = 0

_LENGTH = struct.Struct(">I")
_encode = msgspec.msgpack.Encoder().encode


class FrameError(Exception):
    """The peer does not speak this protocol; its connection is to be closed."""


def encode_frame(message: Sequence[Any]) -> bytes:
    """One frame. Raises ValueError when it is larger than `FRAME_BYTES_MAX`."""
    body = _encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a message of {len(body)} bytes, at most {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into the bodies of its frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take `data` and yield each body that is complete. Raises `FrameError` on a length out
        of bounds, before anything of that length is kept."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _LENGTH.size:
                (length,) = _LENGTH.unpack_from(buffer, start)
                if not 1 <= length <= FRAME_BYTES_MAX:
                    raise FrameError(f"a frame of {length} bytes, at most {FRAME_BYTES_MAX}")
                end = start + _LENGTH.size + length
                if end > len(buffer):
                    return
                body = bytes(memoryview(buffer)[start + _LENGTH.size : end])
                start = end
                yield body
        finally:
            del buffer[:start]
