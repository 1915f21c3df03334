"""The listening socket of a member, which takes so many connections in a second and no more."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import Any

from pysyncobj.poller import POLL_EVENT_TYPE

from vcp_cluster.cluster.raft.transport.addresses import resolve
from vcp_cluster.cluster.raft.transport.channel import explain

ACCEPTS_PER_S = 100.0
"""Each costs about a millisecond of the thread that ticks Raft; the others wait in the kernel."""

ACCEPTS_AT_ONCE = 16
PAUSE_S = 0.5
BACKLOG = 128


class Listener:
    """Listens on HOST:PORT and gives each connection to `on_connection(socket, host)`.

    What keeps it from taking connections goes to `on_problem(message)`; it tries again by itself.
    """

    def __init__(
        self,
        address: str,
        poller: Any,
        *,
        on_connection: Callable[[socket.socket, str], None],
        on_problem: Callable[[str], None],
    ) -> None:
        """Raises OSError when the address cannot be bound."""
        self._poller = poller
        self._on_connection = on_connection
        self._on_problem = on_problem
        self._budget = float(ACCEPTS_AT_ONCE)
        self._again_s = 0.0
        family, target = resolve(address)
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(target)
            self._socket.listen(BACKLOG)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        self._is_polled = False
        self._resume()

    def check(self, now_s: float, step_s: float) -> None:
        """Let time pass: `step_s` seconds more, at `now_s` of the monotonic clock."""
        self._budget = min(ACCEPTS_AT_ONCE, self._budget + ACCEPTS_PER_S * step_s)
        if not self._is_polled and now_s >= self._again_s and self._budget >= 1:
            self._resume()

    def close(self) -> None:
        """Close the socket."""
        self._pause()
        self._socket.close()

    def _resume(self) -> None:
        self._is_polled = True
        self._poller.subscribe(self._socket.fileno(), self._accept, POLL_EVENT_TYPE.READ)

    def _pause(self) -> None:
        if self._is_polled:
            self._is_polled = False
            self._poller.unsubscribe(self._socket.fileno())

    def _accept(self, _descriptor: int, _events: int) -> None:
        while self._is_polled:
            if self._budget < 1:
                self._pause()
                return
            try:
                peer, source = self._socket.accept()
            except BlockingIOError:
                return
            except ConnectionError:
                continue  # It went away while it waited.
            except OSError as error:
                # No descriptor to spare, most likely. The poller would report the same connection
                # again at once, and for ever.
                self._pause()
                self._again_s = time.monotonic() + PAUSE_S
                self._on_problem(f"cannot take connections: {explain(error)}")
                return
            self._budget -= 1
            self._on_connection(peer, str(source[0]))
