"""Other MessagePack spellings of a value: each means the same, or almost, and none is canonical.

Source: the MessagePack specification (msgpack.org, spec.md). `respell` yields every message that
differs from a given one in the spelling of a single value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any


class Raw(bytes):
    """Bytes that `pack` writes as they are."""


def pack(value: Any) -> bytes:
    """Canonical MessagePack of nested lists, integers, bytes, text and booleans."""
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return _pack_integer(value)
    if isinstance(value, bytes):
        return _pack_sized(value, {8: b"\xc4", 16: b"\xc5", 32: b"\xc6"})
    if isinstance(value, str):
        data = value.encode()
        if len(data) < 32:
            return bytes([0xA0 | len(data)]) + data
        return _pack_sized(data, {8: b"\xd9", 16: b"\xda", 32: b"\xdb"})
    head = (
        bytes([0x90 | len(value)]) if len(value) < 16 else b"\xdc" + struct.pack(">H", len(value))
    )
    return head + b"".join(pack(item) for item in value)


def _pack_integer(value: int) -> bytes:
    if value < 0x80:
        return bytes([value])
    for head, layout, bits in ((b"\xcc", ">B", 8), (b"\xcd", ">H", 16), (b"\xce", ">I", 32)):
        if value < 1 << bits:
            return head + struct.pack(layout, value)
    return b"\xcf" + struct.pack(">Q", value)


def _pack_sized(data: bytes, heads: dict[int, bytes]) -> bytes:
    bits = 8 if len(data) < 1 << 8 else 16 if len(data) < 1 << 16 else 32
    return heads[bits] + len(data).to_bytes(bits // 8, "big") + data


def respell(value: Any) -> Iterator[tuple[str, bytes]]:
    """(what was done, the whole message) for one change at each place in turn."""
    for what, changed in _variants(value, "value"):
        yield what, pack(changed)


def _variants(value: Any, place: str) -> Iterator[tuple[str, Any]]:
    for what, other in _spellings(value):
        yield f"{place}: {what}", other
    if isinstance(value, list):
        for number, item in enumerate(value):
            for what, other in _variants(item, f"{place}[{number}]"):
                yield what, [*value[:number], other, *value[number + 1 :]]


def _spellings(value: Any) -> Iterator[tuple[str, Any]]:
    canonical = pack(value)
    yield "nil", Raw(b"\xc0")
    yield "absent", Raw(b"")
    yield "twice", Raw(canonical * 2)
    yield "never used byte", Raw(b"\xc1")
    yield "extension", Raw(b"\xd4\x01\x00")
    yield "timestamp", Raw(b"\xd6\xff" + bytes(4))
    yield "NaN", Raw(b"\xcb" + struct.pack(">d", float("nan")))
    if isinstance(value, bool):
        yield "integer", Raw(bytes([value]))
    elif isinstance(value, int):
        yield from _integer_spellings(value, canonical)
    elif isinstance(value, bytes):
        for head, size in ((b"\xc4", 1), (b"\xc5", 2), (b"\xc6", 4)):
            if len(value) < 1 << 8 * size:
                yield f"bin{8 * size}", Raw(head + len(value).to_bytes(size, "big") + value)
        yield "text", Raw(b"\xda" + struct.pack(">H", len(value)) + value)
        yield "list of integers", list(value)
    elif isinstance(value, str):
        data = value.encode()
        yield "str16", Raw(b"\xda" + struct.pack(">H", len(data)) + data)
        yield "bin", data
        yield "not UTF-8", Raw(b"\xa2\xc3\x28")
        yield "half a surrogate pair", Raw(b"\xa3\xed\xa0\x80")
        yield "too long", "x" * 201
    else:
        content = b"".join(pack(item) for item in value)
        yield "array16", Raw(b"\xdc" + struct.pack(">H", len(value)) + content)
        yield "array32", Raw(b"\xdd" + struct.pack(">I", len(value)) + content)
        yield "array of 2^32-1", Raw(b"\xdd\xff\xff\xff\xff" + content)
        yield "one element more", [*value, 0]
        yield "one element less", value[:-1] if value else Raw(b"\x91\x00")
        yield "nested in a list", [value]
        yield "map", Raw(bytes([0x80 | len(value) % 16]) + content * 2)


def _integer_spellings(value: int, canonical: bytes) -> Iterator[tuple[str, Raw]]:
    for name, head, layout in (
        ("uint8", b"\xcc", ">B"),
        ("uint16", b"\xcd", ">H"),
        ("uint32", b"\xce", ">I"),
        ("uint64", b"\xcf", ">Q"),
        ("int8", b"\xd0", ">b"),
        ("int16", b"\xd1", ">h"),
        ("int32", b"\xd2", ">i"),
        ("int64", b"\xd3", ">q"),
        ("float32", b"\xca", ">f"),
        ("float64", b"\xcb", ">d"),
    ):
        try:
            spelled = head + struct.pack(layout, value)
        except struct.error:
            continue  # too large for this width
        if spelled != canonical:
            yield name, Raw(spelled)
    yield "negative", Raw(b"\xff")
    yield "-2^63", Raw(b"\xd3\x80" + bytes(7))
    yield "2^63", Raw(b"\xcf\x80" + bytes(7))
    yield "2^64-1", Raw(b"\xcf" + b"\xff" * 8)
    yield "text", Raw(b"\xa11")
    yield "true", Raw(b"\xc3")
