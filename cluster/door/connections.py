"""Connections of strangers: how many, and how long one may be open without asking for anything.

The HTTP server bounds neither: it would keep a silent connection, half a request or an answer that
nobody reads for ever, and a thousand of them are all that it takes.
"""

from __future__ import annotations

import asyncio
import ipaddress
import resource
from collections import Counter
from typing import Any, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS_MAX = 1_024
# One address cannot take them all: the other members come in by the same port. The machine itself
# can, because that may be a reverse proxy with everybody behind it.
ADDRESS_CONNECTIONS_MAX = CONNECTIONS_MAX // 2
CHECK_S = 5.0
"""A connection that is neither in use nor properly idle at two checks in a row is closed."""

FILES_SPARE = 512
"""Descriptors besides those of connections: blobs, links to members, the runs of the verifier."""

_TRANSPORT = "vcp.transport"


def allow_connections() -> None:
    """Raise the limit on open files to what `CONNECTIONS_MAX` needs, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS_MAX + FILES_SPARE
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def get_transport(scope: Any) -> asyncio.Transport | None:
    """The connection of a request; None where there is no real one, as in tests."""
    return cast("asyncio.Transport | None", scope.get("state", {}).get(_TRANSPORT))


class BoundedProtocol(H11Protocol):
    """HTTP/1.1 over one connection, closed when it is one too many or waits for nothing."""

    _by_address: ClassVar[Counter[str]] = Counter()
    _address = ""
    _is_suspect = False
    _check: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse the connection above a limit, else watch it."""
        super().connection_made(transport)
        self._address = self.client[0] if self.client else ""
        self._by_address[self._address] += 1
        is_over = len(self.connections) > CONNECTIONS_MAX or (
            self._by_address[self._address] > ADDRESS_CONNECTIONS_MAX
            and not _is_loopback(self._address)
        )
        if is_over:
            transport.abort()
            return
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        self._check = self.loop.call_later(CHECK_S, self._check_use)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._check is not None:
            self._check.cancel()
        self._by_address[self._address] -= 1
        if self._by_address[self._address] <= 0:
            del self._by_address[self._address]
        super().connection_lost(exc)

    def _check_use(self) -> None:
        if not self._is_suspect or self._is_in_use():
            self._is_suspect = not self._is_in_use()
            self._check = self.loop.call_later(CHECK_S, self._check_use)
            return
        self.transport.abort()

    def _is_in_use(self) -> bool:
        """Whether a request is being handled (`traffic` bounds that), or keep-alive runs."""
        if self.cycle is None:
            return False
        if not self.cycle.response_complete:
            return True
        has_rest = bool(self.conn.trailing_data[0]) or self.transport.get_write_buffer_size() > 0
        return self.conn.their_state is h11.IDLE and not has_rest


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
