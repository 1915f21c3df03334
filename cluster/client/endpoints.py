"""Addresses of members' HTTP doors, as flags, variables and profiles give them."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from vcp_cluster.cluster.errors import ConfigError

ENDPOINTS_MAX = 16
_HINT = "give a comma list of http://HOST:PORT, such as http://127.0.0.1:7101"


def parse_endpoints(value: str | Sequence[str], *, origin: str = "endpoints") -> tuple[str, ...]:
    """The endpoints of a comma list or of a sequence, without doubles, in their order.

    `origin` says where the value came from, for the message. Raises `ConfigError`.
    """
    parts = value.split(",") if isinstance(value, str) else list(value)
    endpoints = dict.fromkeys(_parse_endpoint(part.strip(), origin) for part in parts)
    if len(endpoints) > ENDPOINTS_MAX:
        message = f"{len(endpoints)} endpoints, the most is {ENDPOINTS_MAX}"
        raise ConfigError(message, key="cluster", origin=origin, hint="name fewer members")
    return tuple(endpoints)


def _parse_endpoint(text: str, origin: str) -> str:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError as error:
        raise _wrong(text, str(error), origin) from None
    if url.scheme not in ("http", "https"):
        raise _wrong(text, "it does not start with http:// or https://", origin)
    if not url.hostname or not port:
        raise _wrong(text, "host or port is missing", origin)
    if url.path not in ("", "/") or url.query or url.fragment or url.username is not None:
        raise _wrong(text, "there is something besides host and port", origin)
    if not url.netloc.isascii() or not url.netloc.isprintable() or " " in url.netloc:
        raise _wrong(text, "the host has characters that no address has", origin)
    return f"{url.scheme}://{url.netloc}"


def _wrong(text: str, why: str, origin: str) -> ConfigError:
    return ConfigError(
        f"{text[:100]!r} is not an endpoint: {why}", key="cluster", origin=origin, hint=_HINT
    )
