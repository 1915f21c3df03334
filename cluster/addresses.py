"""Addresses of a member: one HOST:PORT in genesis, and the doors at fixed offsets from it."""

from __future__ import annotations

HTTP_OFFSET = 1
NATIVE_OFFSET = 2


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT as host and port; IPv6 hosts in brackets. Raises `ValueError`."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit():
        raise ValueError(f"{address!r} is not HOST:PORT")
    if not 1 <= int(port) <= 65_535 - NATIVE_OFFSET:
        raise ValueError(f"the port of {address!r} is not 1 to {65_535 - NATIVE_OFFSET}")
    return host, int(port)


def http_url(address: str) -> str:
    """Base URL of the HTTP door of the member at a Raft address."""
    host, port = split_address(address)
    return f"http://{host}:{port + HTTP_OFFSET}"
