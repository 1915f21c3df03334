"""One connection to a member: TLS over a socket that never blocks, frames in, frames out.

A channel has no opinion on who its peer is; `transport.py` has. Everything that goes wrong with it,
from a refused connection to a frame that is too long, is `LinkFailed` with the reason.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography import x509

from vcp_cluster.cluster.certificates import MemberIdentity
from vcp_cluster.cluster.raft.transport.messages import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    LENGTH_BYTES,
    frame_length,
)

RECORD_BYTES_MAX = 16_384
"""Plain bytes in a TLS record. Reading so many at once leaves nothing in OpenSSL's own buffer, which
the poll loop could not see."""

RECORDS_PER_TURN = 64
SEND_BYTES_PER_TURN = 4 << 20
JOIN_BYTES = 64 << 10
"""Frames smaller than this leave together, in one record."""

DEAD_AFTER_MS = 3_000
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES = 2, 1, 2
BUFFER_BYTES = 1 << 20

_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError, BlockingIOError, InterruptedError)

# Reasons that OpenSSL gives for what does not begin like TLS, or for too old a version of it.
_NOT_TLS = frozenset(
    (
        "HTTP_REQUEST",
        "HTTPS_PROXY_REQUEST",
        "PACKET_LENGTH_TOO_LONG",
        "RECORD_LAYER_FAILURE",
        "UNEXPECTED_MESSAGE",
        "UNKNOWN_PROTOCOL",
        "UNSUPPORTED_PROTOCOL",
        "VERSION_TOO_LOW",
        "WRONG_SSL_VERSION",
        "WRONG_VERSION_NUMBER",
    )
)
_VERIFY_EXPIRED, _VERIFY_NOT_YET_VALID = 10, 9
_VERIFY_OTHER_AUTHORITY = frozenset((18, 19, 20, 21))


class LinkFailed(Exception):
    """The connection is of no more use. The message says why, with the peer as "it"."""


@dataclass(eq=False)
class Timers:
    """Seconds of this process's own activity since something happened.

    Time in which the process did not run, or hung in its disk, is not counted: what came in
    meanwhile waits in the kernel, and nobody is to be blamed for a silence that is ours.
    """

    age_s: float = 0.0
    silence_s: float = 0.0
    stall_s: float = 0.0
    quiet_s: float = 0.0


@dataclass(eq=False)
class Channel:
    """A connection; use `accept` or `connect`."""

    peer: socket.socket
    where: str
    """The address at the other end, for messages."""

    context: ssl.SSLContext
    is_server: bool
    expected: MemberIdentity | None = None
    """The member that was dialled; whoever dialled us is not known yet."""

    member: MemberIdentity | None = None
    """Whose certificate it is, once that is checked."""

    certificate: x509.Certificate | None = None
    is_open: bool = False
    """Whether both sides have said hello."""

    is_closed: bool = False
    mask: int = 0
    """What the poller watches for."""

    timers: Timers = field(default_factory=Timers)
    queued_bytes: int = 0
    _output: deque[bytes] = field(default_factory=deque)
    _sent: int = 0
    _input: bytearray = field(default_factory=bytearray)
    _is_secure: bool = False

    @classmethod
    def accept(cls, peer: socket.socket, where: str, context: ssl.SSLContext) -> Channel:
        """A channel on an accepted connection; raise `LinkFailed`."""
        channel = cls(peer, where, context, is_server=True)
        channel._wrap()
        return channel

    @classmethod
    def connect(
        cls,
        family: int,
        target: Any,
        where: str,
        context: ssl.SSLContext,
        expected: MemberIdentity,
    ) -> Channel:
        """Begin to connect to a socket address; raise `LinkFailed`."""
        peer = socket.socket(family, socket.SOCK_STREAM)
        try:
            peer.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                peer.connect(target)
        except OSError as error:
            peer.close()
            raise LinkFailed(f"cannot connect: {error.strerror}") from None
        return cls(peer, where, context, is_server=False, expected=expected)

    @property
    def descriptor(self) -> int:
        """The file descriptor."""
        return self.peer.fileno()

    @property
    def wants_write(self) -> bool:
        """Whether something waits until the peer reads, or the connection is being made."""
        return bool(self._output) or not isinstance(self.peer, ssl.SSLSocket)

    @property
    def is_secure(self) -> bool:
        """Whether the TLS handshake is done."""
        return self._is_secure

    def handshake(self) -> bool:
        """Go on with connecting and the TLS handshake; whether it is done. Raise `LinkFailed`."""
        if not isinstance(self.peer, ssl.SSLSocket):
            if number := self.peer.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise LinkFailed(f"cannot connect: {_describe(number)}")
            self._wrap()
        assert isinstance(self.peer, ssl.SSLSocket)
        try:
            self.peer.do_handshake()
            der = self.peer.getpeercert(binary_form=True)
        except _WAITING:
            return False
        except OSError as error:
            raise LinkFailed(explain(error)) from None
        if der is None:
            raise LinkFailed("it has no certificate")
        try:
            self.certificate = x509.load_der_x509_certificate(der)
        except ValueError as error:
            raise LinkFailed(f"its certificate cannot be read: {error}") from None
        self._is_secure = True
        return True

    def receive(self) -> Iterator[bytes]:
        """Read what has come, and yield the body of each complete frame. Raise `LinkFailed`.

        The bound of a frame holds before anything of its length is kept: small until the peer has
        said hello.
        """
        for _ in range(RECORDS_PER_TURN):
            try:
                data = self.peer.recv(RECORD_BYTES_MAX)
            except _WAITING:
                return
            except OSError as error:
                raise LinkFailed(explain(error)) from None
            if not data:
                raise LinkFailed("it closed the connection")
            self.timers.silence_s = 0.0
            self._input += data
            yield from self._cut()

    def queue(self, frame: bytes) -> None:
        """Put a frame behind what waits to be sent."""
        self._output.append(frame)
        self.queued_bytes += len(frame)
        self.timers.quiet_s = 0.0

    def flush(self) -> None:
        """Send what can be sent now; raise `LinkFailed`."""
        if not self._is_secure:
            return
        budget = SEND_BYTES_PER_TURN
        while self._output and budget > 0:
            chunk = self._next_chunk()
            try:
                count = self.peer.send(memoryview(chunk)[self._sent :])
            except _WAITING:
                return
            except OSError as error:
                raise LinkFailed(explain(error)) from None
            self.timers.stall_s = 0.0
            self.queued_bytes -= count
            budget -= count
            self._sent += count
            if self._sent == len(chunk):
                self._output.popleft()
                self._sent = 0

    def close(self) -> None:
        """Close the socket and forget what waits."""
        self.is_closed = True
        self.is_open = False
        self._output.clear()
        self._input.clear()
        self.queued_bytes = 0
        self.peer.close()

    def _next_chunk(self) -> bytes:
        """The first frame, joined with small ones behind it. One that was begun stays as it is:
        OpenSSL wants the same bytes again."""
        first = self._output[0]
        if self._sent or len(self._output) == 1 or len(first) >= JOIN_BYTES:
            return first
        parts: list[bytes] = []
        size = 0
        while self._output and (not parts or size + len(self._output[0]) <= JOIN_BYTES):
            parts.append(self._output.popleft())
            size += len(parts[-1])
        chunk = b"".join(parts)
        self._output.appendleft(chunk)
        return chunk

    def _cut(self) -> Iterator[bytes]:
        buffer, start = self._input, 0
        try:
            while len(buffer) - start >= LENGTH_BYTES:
                length = frame_length(buffer, start)
                bound = FRAME_BYTES_MAX if self.is_open else HELLO_BYTES_MAX
                if not 1 <= length <= bound:
                    raise LinkFailed(f"it announced a frame of {length} bytes, at most {bound}")
                end = start + LENGTH_BYTES + length
                if end > len(buffer):
                    return
                body = bytes(memoryview(buffer)[start + LENGTH_BYTES : end])
                start = end
                yield body
        finally:
            del buffer[:start]

    def _wrap(self) -> None:
        """Set the socket's options and put TLS over it."""
        try:
            _set_options(self.peer)
            self.peer = self.context.wrap_socket(
                self.peer, server_side=self.is_server, do_handshake_on_connect=False
            )
        except (OSError, ValueError) as error:
            self.peer.close()
            raise LinkFailed(explain(error)) from None


def explain(error: Exception) -> str:
    """Why TLS or TCP failed, with the peer as "it"."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code == _VERIFY_EXPIRED:
            return "its certificate has expired"
        if code == _VERIFY_NOT_YET_VALID:
            return "its certificate is not valid yet: compare the clocks"
        if code in _VERIFY_OTHER_AUTHORITY:
            return "its certificate is not of this cluster's CA"
        return f"its certificate is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError):
        return "it closed the connection"
    if isinstance(error, ssl.SSLError):
        reason = error.reason or "no reason"
        if reason == "PEER_DID_NOT_RETURN_A_CERTIFICATE":
            return "it has no certificate"
        if reason in _NOT_TLS:
            return f"it does not speak TLS 1.3 ({reason.lower()})"
        if "_ALERT_" in reason:
            alert = reason.partition("_ALERT_")[2].lower().replace("_", " ")
            return f"it refused us: {alert}"
        return f"TLS failed ({reason.lower()})"
    if isinstance(error, OSError) and error.errno:
        return _describe(error.errno)
    return str(error)


def _describe(number: int) -> str:
    return os.strerror(number).lower()


def _set_options(peer: socket.socket) -> None:
    peer.setblocking(False)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for name in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        peer.setsockopt(socket.SOL_SOCKET, name, BUFFER_BYTES)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _TCP_TIMERS:
        peer.setsockopt(socket.IPPROTO_TCP, option, value)


_TCP_TIMERS: Final = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_S),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_S),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
        ("TCP_USER_TIMEOUT", DEAD_AFTER_MS),
    )
    if hasattr(socket, name)  # not every system has all of them
)
"""A machine that is gone is noticed by the kernel, also where nothing is sent."""
