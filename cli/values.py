"""Values as people write and read them: amounts, durations, sizes, ids.

Amounts are VCP with up to six decimals here and whole units (1 VCP = 10^6) everywhere else. They
are read and printed with integers alone: a float would lose units of a large balance.
"""

from __future__ import annotations

import re
from typing import Any

import click

UNITS_MAX = 2**63 - 1
DECIMALS = 6
_UNITS = 1_000_000
# A narrow space that does not break: "1 250.500000" stays one word, also for a shell.
GROUP_SPACE = "\u202f"
UNPRINTABLE = "\ufffd"

_AMOUNT = re.compile(rf"([0-9]+|[0-9]{{1,3}}(?:{GROUP_SPACE}[0-9]{{3}})+)(?:\.([0-9]{{1,6}}))?")
_DURATION = re.compile(r"([0-9]{1,9})(ms|s|m|h)")
_SIZE = re.compile(r"([0-9]{1,15})(KiB|MiB|GiB)?")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
_SIZE_BYTES = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
# Control characters, and the invisible ones that turn or join the text around them.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def parse_amount(text: str) -> int:
    """Units of an amount in VCP, such as `1250.5`; at least 1. Raises `ValueError`."""
    match = _AMOUNT.fullmatch(text) if len(text) <= 40 else None
    if match is None:
        raise ValueError("an amount is digits and up to 6 decimals, such as 1250.5")
    whole, decimals = match[1].replace(GROUP_SPACE, ""), match[2] or ""
    units = int(whole) * _UNITS + int(decimals.ljust(DECIMALS, "0"))
    if not 1 <= units <= UNITS_MAX:
        raise ValueError(f"an amount is 0.000001 to {format_amount(UNITS_MAX)} VCP")
    return units


def format_amount(units: int | str, *, separator: str = GROUP_SPACE) -> str:
    """Units as VCP with six decimals, grouped by threes: `1 250.500000`."""
    whole, decimals = divmod(int(units), _UNITS)
    return f"{format_number(whole, separator=separator)}.{decimals:0{DECIMALS}d}"


def format_number(value: int | str, *, separator: str = GROUP_SPACE) -> str:
    """An integer, grouped by threes."""
    return f"{int(value):,}".replace(",", separator)


def parse_duration(text: str) -> int:
    """Milliseconds of a duration such as `500ms`, `30s`, `5m`, `1h`. Raises `ValueError`."""
    match = _DURATION.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError("a duration is a whole number and ms, s, m or h, such as 30s")
    return int(match[1]) * _DURATION_MS[match[2]]


def parse_size(text: str) -> int:
    """Bytes of a size such as `65536`, `64KiB`, `512MiB`. Raises `ValueError`."""
    match = _SIZE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise ValueError("a size is a whole number of bytes, KiB, MiB or GiB, such as 64MiB")
    return int(match[1]) * _SIZE_BYTES[match[2]]


def parse_id(text: str) -> str:
    """An id or the beginning of one, in lower case. Raises `ValueError`."""
    if not re.fullmatch(r"[0-9A-Fa-f]{4,64}", text):
        raise ValueError("an id is 64 hexadecimal digits; its first digits, at least 4, will do")
    return text.lower()


def parse_full_id(text: str) -> str:
    """A whole id, in lower case. Raises `ValueError`."""
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        raise ValueError("a transaction's id is 64 hexadecimal digits")
    return text.lower()


def parse_chain_id(text: str) -> bytes:
    """The 16 bytes of a chain id. Raises `ValueError`."""
    if not re.fullmatch(r"[0-9A-Fa-f]{32}", text):
        raise ValueError("a chain id is 32 hexadecimal digits")
    return bytes.fromhex(text)


def parse_members(text: str) -> list[tuple[str, str, int]]:
    """(name, host, port) of each member in `a=HOST:PORT,b=HOST:PORT`. Raises `ValueError`."""
    members = []
    for part in text.split(","):
        name, separator, address = part.strip().partition("=")
        host, colon, port = address.rpartition(":")
        if not (name and separator and host and colon and re.fullmatch(r"[0-9]{1,5}", port)):
            raise ValueError(f"{part.strip()!r} is not NAME=HOST:PORT, such as a=10.0.0.1:7100")
        members.append((name, host, int(port)))
    return members


def shorten(identity: str) -> str:
    """The first 12 digits of an id, enough to name it in the next command; else unchanged."""
    is_long = len(identity) > 20 and re.fullmatch(r"[0-9a-f]+", identity)
    return identity[:12] if is_long else identity


def clean(text: str) -> str:
    """Text from outside with everything replaced that would steer a terminal."""
    return _HIDDEN.sub(UNPRINTABLE, text)


class _Value(click.ParamType[Any]):
    """A click type of one of the parsers above."""

    def __init__(self, name: str, parse: Any) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed value; a wrong one is a usage error."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f"{clean(value[:100])!r}: {error}", param, ctx)


AMOUNT = _Value("vcp", parse_amount)
DURATION = _Value("duration", parse_duration)
SIZE = _Value("size", parse_size)
ID = _Value("id", parse_id)
FULL_ID = _Value("id", parse_full_id)
CHAIN_ID = _Value("hex", parse_chain_id)
MEMBERS = _Value("members", parse_members)
