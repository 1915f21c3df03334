"""Canonical MessagePack for everything that is signed, hashed or stored.

Records are msgspec array-like structs without optional and without default fields, so that one
value has one encoding. `decode` accepts exactly the bytes that `encode` gives and nothing else:
non-minimal integers, longer arrays and wrong types are all `Malformed`.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import msgspec
from msgspec import Meta

INTEGER_MAX = 2**63 - 1

# The largest unsigned integer that every language reads without loss from JSON text and SQL.
Unsigned = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]
Hash = Annotated[bytes, Meta(min_length=32, max_length=32)]
Key = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
ChainId = Annotated[bytes, Meta(min_length=16, max_length=16)]
HashOrNone = Annotated[bytes, Meta(max_length=32)]  # empty where there is none
ShortText = Annotated[str, Meta(max_length=64)]
DetailText = Annotated[str, Meta(max_length=200)]


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of every encoded value: immutable, positional, closed."""


class Malformed(ValueError):
    """The bytes are not the canonical encoding of the expected type."""


T = TypeVar("T")
_encoder = msgspec.msgpack.Encoder()


def encode(value: Any) -> bytes:
    """Return the one canonical encoding of a record (or of a tuple of plain values)."""
    return _encoder.encode(value)


_decoders: dict[Any, msgspec.msgpack.Decoder[Any]] = {}


def prepare(*kinds: Any) -> None:
    """Build the decoders of types, once, when their module is imported.

    Not on first use: msgspec 0.22 crashes the interpreter when two threads do that at once. Every
    module that defines records which threads may decode calls this (a test looks).
    """
    for kind in kinds:
        _decoders[kind] = msgspec.msgpack.Decoder(kind)


def _decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    if kind not in _decoders:
        prepare(kind)
    return _decoders[kind]


def decode(kind: type[T], data: bytes) -> T:
    """Return the value of type `kind` that `data` encodes canonically; raise `Malformed`."""
    try:
        value = _decoder(kind).decode(data)
        # Comparing the re-encoding is what catches every second spelling of the same value.
        if _encoder.encode(value) != data:
            raise Malformed(f"not the canonical encoding of {_name(kind)}")
    except (msgspec.MsgspecError, UnicodeDecodeError, UnicodeEncodeError, RecursionError) as error:
        raise Malformed(f"not a {_name(kind)}: {error}") from None
    result: T = value
    return result


def decode_stored(kind: type[T], data: bytes) -> T:
    """Decode bytes of our own store, which `encode` wrote: no re-encoding."""
    result: T = _decoder(kind).decode(data)
    return result


def _name(kind: Any) -> str:
    return str(getattr(kind, "__name__", kind))
