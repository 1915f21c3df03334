"""From HOST:PORT to what a socket connects to, without ever waiting for a name server."""

from __future__ import annotations

import ipaddress
import socket
import threading
from typing import Any

from vcp_cluster.cluster.addresses import split_address

Target = tuple[socket.AddressFamily, Any]
"""(family, socket address of that family)."""


def resolve(address: str) -> Target:
    """Look up HOST:PORT; may wait for a name server. Raises OSError or ValueError."""
    host, port = split_address(address)
    family, _, _, _, target = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
    return socket.AddressFamily(family), target


class Resolver:
    """Looks up names in threads, one for each address at a time; numbers need no look-up."""

    def __init__(self) -> None:
        self._running: set[str] = set()
        self._found: dict[str, Target | str] = {}

    def lookup(self, address: str) -> Target | None:
        """What to connect to, or None while that is not known: ask again a little later.

        Each answer is used once, so that a name that moves is followed. Raises OSError for a name
        that has no address.
        """
        host, _ = split_address(address)
        try:
            ipaddress.ip_address(host.strip("[]"))
        except ValueError:
            pass
        else:
            return resolve(address)
        found = self._found.pop(address, None)
        if isinstance(found, str):
            raise OSError(found)
        if found is None and address not in self._running:
            self._running.add(address)
            threading.Thread(target=self._resolve, args=(address,), daemon=True).start()
        return found

    def _resolve(self, address: str) -> None:
        try:
            self._found[address] = resolve(address)
        except (OSError, ValueError) as error:
            self._found[address] = f"cannot look up {address}: {error}"
        finally:
            self._running.discard(address)
