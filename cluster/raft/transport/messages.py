"""What members say to each other, byte for byte.

A frame is its length (u32 big endian) and that many bytes of MessagePack, an array that begins with
the number of its kind. Each kind has one schema; anything else ends the connection.

    0 HELLO      [version, chain id, member name]    the first frame in each direction
    1 PING       []                                  from who has said nothing for a while
    2 APPEND     [term, commit index, previous index or nil, previous term or nil,
                  [[term, command], …]]              entries follow the previous index one by one
    3 APPENDED   [term, next index, reset, success]
    4 CAMPAIGN   [term, last index, last term]
    5 VOTE       [term]

The library's messages are dicts; `encode_message` and `to_library` translate. Entries are sent
without their index, so that what arrives is contiguous however wrong its sender is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vcp_cluster.ledger.encoding import ChainId, Unsigned

PROTOCOL_VERSION = 1
COMMAND_BYTES_MAX = (2 << 20) + 1
"""The largest entry (`engine.ENTRY_BYTES_MAX`) and its type."""

FRAME_BYTES_MAX = COMMAND_BYTES_MAX + 1024
PIECE_BYTES = 256 << 10
"""Entries are sent in frames of about this size: each is a sign of life, and none holds up the
others for long. Only an entry that is larger by itself makes a larger frame."""

HELLO_BYTES_MAX = 256
"""Bound of a frame before its sender is known."""

LENGTH_BYTES = 4
_LENGTH = struct.Struct(">I")
_ENTRY_OVERHEAD_BYTES = 16
Command = Annotated[bytes, Meta(min_length=1, max_length=COMMAND_BYTES_MAX)]


class MessageError(Exception):
    """A frame is none of ours; the connection is to be closed."""


class Hello(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=0):
    """Who speaks, of which cluster, in which version of this protocol."""

    version: Unsigned
    chain_id: ChainId
    name: Annotated[str, Meta(max_length=64)]


class Ping(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=1):
    """A sign of life."""


class Append(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=2):
    """append_entries of a leader."""

    term: Unsigned
    commit_index: Unsigned
    previous_index: Unsigned | None
    previous_term: Unsigned | None
    entries: list[tuple[Unsigned, Command]]


class Appended(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=3):
    """The answer to append_entries, with the term it belongs to."""

    term: Unsigned
    next_index: Unsigned
    reset: bool
    success: bool


class Campaign(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=4):
    """request_vote of a candidate."""

    term: Unsigned
    last_index: Unsigned
    last_term: Unsigned


class Vote(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=5):
    """A vote given."""

    term: Unsigned


RaftMessage = Append | Appended | Campaign | Vote
Message = Hello | Ping | RaftMessage

_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_encoder = msgspec.msgpack.Encoder()


def encode_frame(message: Message) -> bytes:
    """One frame. Raises ValueError when it is larger than `FRAME_BYTES_MAX`."""
    body = _encoder.encode(message)
    if len(body) > FRAME_BYTES_MAX:
        raise ValueError(f"a message of {len(body)} bytes, at most {FRAME_BYTES_MAX}")
    return _LENGTH.pack(len(body)) + body


def frame_length(header: bytes | bytearray, offset: int = 0) -> int:
    """The length that the four bytes at `offset` announce."""
    length: int = _LENGTH.unpack_from(header, offset)[0]
    return length


def decode_message(body: bytes) -> Message:
    """The message in a frame; raise `MessageError` for anything else."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MessageError(f"it sent something that is no message ({error})") from None


def encode_message(message: dict[str, Any]) -> Iterator[bytes]:
    """The frames of a message of the library: one, or several for many entries.

    Raises ValueError for what the engine never sends.
    """
    kind = message["type"]
    if kind == "append_entries":
        for piece in _split(message):
            yield encode_frame(piece)
    elif kind == "next_node_idx":
        yield encode_frame(
            Appended(
                message["term"], message["next_node_idx"], message["reset"], message["success"]
            )
        )
    elif kind == "request_vote":
        yield encode_frame(
            Campaign(message["term"], message["last_log_index"], message["last_log_term"])
        )
    elif kind == "response_vote":
        yield encode_frame(Vote(message["term"]))
    else:
        raise ValueError(f"a message of type {kind!r} is not sent")


def to_library(message: RaftMessage) -> dict[str, Any]:
    """The library's form of a message; raise `MessageError` for entries without a place."""
    match message:
        case Append(term, commit_index, previous_index, previous_term, entries):
            if (previous_index is None) != (previous_term is None) or (
                previous_index == 0 or (entries and previous_index is None)
            ):
                raise MessageError("it sent entries that follow nothing")
            first = (previous_index or 0) + 1
            return {
                "type": "append_entries",
                "term": term,
                "commit_index": commit_index,
                "prevLogIdx": previous_index,
                "prevLogTerm": previous_term,
                "entries": [
                    (command, index, entry_term)
                    for index, (entry_term, command) in enumerate(entries, first)
                ],
            }
        case Appended(term, next_index, reset, success):
            return {
                "type": "next_node_idx",
                "term": term,
                "next_node_idx": next_index,
                "reset": reset,
                "success": success,
            }
        case Campaign(term, last_index, last_term):
            return {
                "type": "request_vote",
                "term": term,
                "last_log_index": last_index,
                "last_log_term": last_term,
            }
        case Vote(term):
            return {"type": "response_vote", "term": term}


def _split(message: dict[str, Any]) -> Iterator[Append]:
    """An append_entries as one or more, each of which stands by itself."""
    term, commit_index = message["term"], message["commit_index"]
    # Without a previous index the library means a snapshot, and there is none to send.
    previous_index, previous_term = message.get("prevLogIdx"), message.get("prevLogTerm")
    entries = message.get("entries") or []
    if "transmission" in message or message.get("serialized"):
        raise ValueError("the library cut an entry or a snapshot into pieces")
    piece: list[tuple[int, bytes]] = []
    size = 0
    for command, index, entry_term in entries:
        size += len(command) + _ENTRY_OVERHEAD_BYTES
        if piece and size > PIECE_BYTES:
            yield Append(term, commit_index, previous_index, previous_term, piece)
            previous_index, previous_term = index - 1, piece[-1][0]
            piece, size = [], len(command) + _ENTRY_OVERHEAD_BYTES
        piece.append((entry_term, command))
    yield Append(term, commit_index, previous_index, previous_term, piece)
