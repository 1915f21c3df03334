"""The Unix socket of the Raft process, served from the library's own poll loop.

There is no second thread: a busy one would take a commit from one millisecond to twenty. What is
sent is gathered and leaves once in a tick (`flush`), so that the answers to a whole entry cost
one system call for each connection.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pysyncobj.poller import POLL_EVENT_TYPE

from vcp_cluster.cluster.raft.frames import FrameError, FrameReader, encode_frame

CONNECTIONS_MAX = 64
OUTPUT_BYTES_MAX = 64 << 20
READ_BYTES = 256 << 10
"""Taken from a connection in one turn; small enough that its requests cannot hold up Raft."""
SOCKET_PATH_BYTES_MAX = 107
"""What `struct sockaddr_un` of Linux holds."""

_READ, _WRITE, _ERROR = POLL_EVENT_TYPE.READ, POLL_EVENT_TYPE.WRITE, POLL_EVENT_TYPE.ERROR

logger = logging.getLogger(__name__)


class SocketError(Exception):
    """The socket cannot be made. The message says why and what to do."""


class Connection:
    """One peer. `is_subscribed` and `has_news` belong to whoever pushes to it."""

    def __init__(self, peer: socket.socket) -> None:
        self.peer = peer
        self.reader = FrameReader()
        self.output = bytearray()
        self.is_closed = False
        self.is_polled_for_write = False
        self.is_subscribed = False
        self.has_news = False

    def send(self, message: list[Any]) -> None:
        """Queue one message; a message of a closed connection is dropped.

        Raises ValueError when it is larger than a frame.
        """
        if not self.is_closed:
            self.output += encode_frame(message)


class SocketServer:
    """Listens on `path` and gives each frame to `on_frame(connection, body)`.

    `on_frame` raises `FrameError` to have the connection closed.
    """

    def __init__(
        self, path: Path, poller: Any, on_frame: Callable[[Connection, bytes], None]
    ) -> None:
        """Raises `SocketError` when a live process owns the path, or it cannot be used."""
        self._path = path
        self._poller = poller
        self._on_frame = on_frame
        self._connections: dict[int, Connection] = {}
        self._listener = _listen(path)
        self._poller.subscribe(self._listener.fileno(), self._accept, _READ)

    @property
    def connections(self) -> list[Connection]:
        """The live connections."""
        return list(self._connections.values())

    def flush(self) -> None:
        """Send what can be sent now; the rest leaves when the peer has read."""
        for connection in self.connections:
            if connection.output:
                self._write(connection)

    def close(self) -> None:
        """Send what can be sent, close every connection and remove the socket file."""
        self.flush()
        self._poller.unsubscribe(self._listener.fileno())
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for connection in self.connections:
            self._drop(connection)

    def _accept(self, _descriptor: int, _events: int) -> None:
        try:
            peer, _ = self._listener.accept()
        except OSError:  # The peer is gone already, or this process has no descriptor to spare.
            return
        if len(self._connections) >= CONNECTIONS_MAX:
            logger.warning("socket %s: refused connection above %d", self._path, CONNECTIONS_MAX)
            peer.close()
            return
        peer.setblocking(False)
        self._connections[peer.fileno()] = Connection(peer)
        self._poller.subscribe(peer.fileno(), self._handle, _READ | _ERROR)

    def _handle(self, descriptor: int, events: int) -> None:
        connection = self._connections.get(descriptor)
        if connection is None:  # Closed earlier in the same round of events.
            return
        if events & _WRITE:
            self._write(connection)
        if events & _READ and not connection.is_closed:
            self._read(connection)
        elif events & _ERROR:
            self._drop(connection)

    def _read(self, connection: Connection) -> None:
        try:
            data = connection.peer.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(connection)
            return
        try:
            for body in connection.reader.feed(data):
                self._on_frame(connection, body)
                if len(connection.output) > OUTPUT_BYTES_MAX:
                    self._write(connection)
                if connection.is_closed:
                    break
        except FrameError as error:
            logger.warning("socket %s: closed a connection: %s", self._path, error)
            self._drop(connection)

    def _write(self, connection: Connection) -> None:
        try:
            sent = connection.peer.send(connection.output)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(connection)
            return
        del connection.output[:sent]
        if len(connection.output) > OUTPUT_BYTES_MAX:
            logger.warning("socket %s: closed a connection that does not read", self._path)
            self._drop(connection)
            return
        waits = bool(connection.output)
        if waits != connection.is_polled_for_write:
            connection.is_polled_for_write = waits
            mask = _READ | _ERROR | (_WRITE if waits else 0)
            self._poller.subscribe(connection.peer.fileno(), self._handle, mask)

    def _drop(self, connection: Connection) -> None:
        if connection.is_closed:
            return
        connection.is_closed = True
        descriptor = connection.peer.fileno()
        self._poller.unsubscribe(descriptor)
        del self._connections[descriptor]
        connection.output.clear()
        connection.peer.close()


def _listen(path: Path) -> socket.socket:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise SocketError(
            f"the socket path {path} is longer than {SOCKET_PATH_BYTES_MAX} bytes, more than the "
            "system allows. Next: use a directory with a shorter path."
        )
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        mode = stat.S_IMODE(path.parent.stat().st_mode)
        if mode & 0o077:
            raise SocketError(
                f"directory {path.parent} is open to others (mode {mode:o}). "
                f"Next: chmod 700 {path.parent}"
            )
        _remove_stale(path)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            listener.bind(str(path))
            path.chmod(0o600)
            listener.listen(CONNECTIONS_MAX)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise SocketError(
            f"cannot make the socket {path}: {error.strerror}. "
            "Next: check the directory and its permissions."
        ) from error
    return listener


def _remove_stale(path: Path) -> None:
    """Remove what a killed process left, once it is certain that nobody answers there."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise SocketError(f"{path} exists and is not a socket. Next: move it away.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # Somebody listens, with a full backlog.
    raise SocketError(
        f"a running member owns the socket {path}. "
        "Next: stop the member that runs on this directory, then start again."
    )
