"""Bytes of the journal: segments of groups of entries. Little endian.

    segment  a header of one sector, then groups, then zeros or what an earlier use left
    header   'VCPJRNL' u8 format | 16 chain id | 32 key | u64 number | u64 first sequence | zeros |
             16 BLAKE3 of everything before it in the sector
    group    16 mac | 16 mac of the body | u64 sequence | u32 body length | u32 entries |
             u64 term | u64 commit index | u64 base index | u64 first index | u8 vote length | body
    body     the vote | entries | zeros to the end of the sector
    entry    u32 length | u8 kind | u64 index | u64 term | command

A group is what one write and one fdatasync carry. It says: the current term and the vote in it are
these; the log is what it was, up to `first index` − 1, followed by these entries. So a group also
removes what a new leader replaces. Entries before `base index` are not needed any more, and may be
missing. `commit index` is a hint: all up to it was committed.

Both macs are BLAKE3 keyed with the random key in the segment's header, cut to 16 bytes; the first
covers the header of the group, the second its body. The key is new each time a segment is taken
into use. Nothing that a recycled segment held before, and nothing that a client can put into a
transaction, passes for a group.

Groups begin at multiples of 512 bytes. No write touches a sector that holds anything acknowledged:
all that is asked of the disk is that it leaves alone the sectors it is not told to write.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from blake3 import blake3

FORMAT: Final = 1
SECTOR_BYTES: Final = 512
VOTE_BYTES_MAX: Final = 255
KEY_BYTES: Final = 32

MAC_BYTES: Final = 16
_MAGIC = b"VCPJRNL"
_SEGMENT = struct.Struct("<7sB16s32sQQ")
_GROUP_FIELDS = struct.Struct("<16sQIIQQQQB")
_ENTRY = struct.Struct("<IBQQ")
_SEQUENCE_IN_SECTOR = struct.Struct("<32xQ472x")
_KIND_ENTRY = 1
_CHECKED = SECTOR_BYTES - MAC_BYTES

GROUP_HEADER_BYTES: Final = MAC_BYTES + _GROUP_FIELDS.size

Entry = tuple[bytes, int, int]
"""(command, index, term), the shape in which the library keeps and sends entries."""


class _Fields(NamedTuple):
    body_mac: bytes
    sequence: int
    body_length: int
    entry_count: int
    term: int
    commit_index: int
    base_index: int
    first_index: int
    vote_length: int


class FormatError(Exception):
    """Bytes that are not what they should be; the message says what they are instead."""


@dataclass(frozen=True)
class SegmentHeader:
    """What a segment begins with. `first_sequence` is that of its first group."""

    chain_id: bytes
    key: bytes
    number: int
    first_sequence: int


@dataclass(frozen=True)
class Group:
    """What is written at once; see above."""

    term: int
    vote: str | None
    commit_index: int
    base_index: int
    first_index: int
    entries: tuple[Entry, ...]

    @property
    def end_index(self) -> int:
        """The index after the last entry."""
        return self.first_index + len(self.entries)


def encode_segment_header(header: SegmentHeader) -> bytes:
    """One sector."""
    fields = _SEGMENT.pack(
        _MAGIC, FORMAT, header.chain_id, header.key, header.number, header.first_sequence
    ).ljust(_CHECKED, b"\0")
    return fields + blake3(fields).digest(length=MAC_BYTES)


def decode_segment_header(sector: bytes) -> SegmentHeader:
    """Raises `FormatError` when `sector` is not a whole header of this format."""
    if len(sector) != SECTOR_BYTES or sector[: len(_MAGIC)] != _MAGIC:
        raise FormatError("it does not begin as a journal segment")
    fields, digest = sector[:_CHECKED], sector[_CHECKED:]
    _, version, chain_id, key, number, sequence = _SEGMENT.unpack_from(fields)
    if version != FORMAT:  # Before the checksum, which another format may have elsewhere.
        raise FormatError(f"it has format {version} and this release knows {FORMAT}")
    if blake3(fields).digest(length=MAC_BYTES) != digest:
        raise FormatError("its header fails its checksum")
    return SegmentHeader(chain_id, key, number, sequence)


def encode_group(group: Group, *, sequence: int, key: bytes) -> bytes:
    """Whole sectors."""
    vote = (group.vote or "").encode()
    assert len(vote) <= VOTE_BYTES_MAX
    parts = [vote]
    for command, index, term in group.entries:
        parts += (_ENTRY.pack(len(command), _KIND_ENTRY, index, term), command)
    length = sum(map(len, parts))
    parts.append(bytes(-(GROUP_HEADER_BYTES + length) % SECTOR_BYTES))
    body = b"".join(parts)
    fields = _GROUP_FIELDS.pack(
        _mac(body, key),
        sequence,
        len(body),
        len(group.entries),
        group.term,
        group.commit_index,
        group.base_index,
        group.first_index,
        len(vote),
    )
    return _mac(fields, key) + fields + body


def group_length(header: bytes, *, sequence: int, key: bytes) -> int | None:
    """Length in bytes of the group that begins with `header`, whose first mac is checked, or None
    when it is not the header of the group with this sequence."""
    fields = _checked_fields(header, key)
    if fields is None or fields.sequence != sequence:
        return None
    return GROUP_HEADER_BYTES + fields.body_length


def decode_group(data: bytes | memoryview, *, sequence: int, key: bytes) -> Group | None:
    """The group that `data` is, or None when it is not the whole group with this sequence.

    Raises `FormatError` when it is, but its content contradicts itself.
    """
    fields = _checked_fields(data[:GROUP_HEADER_BYTES], key)
    body = bytes(data[GROUP_HEADER_BYTES:])
    if fields is None or fields.sequence != sequence or fields.body_length != len(body):
        return None
    if _mac(body, key) != fields.body_mac:
        return None
    vote = body[: fields.vote_length].decode("utf-8", "replace") or None
    entries = tuple(_decode_entries(body, fields))
    return Group(
        fields.term, vote, fields.commit_index, fields.base_index, fields.first_index, entries
    )


def later_group(sectors: bytes, *, sequence: int, key: bytes) -> int | None:
    """Offset in `sectors` of the header of any group after the one with `sequence`, or None."""
    whole = memoryview(sectors)[: len(sectors) - len(sectors) % SECTOR_BYTES]
    for number, (found,) in enumerate(_SEQUENCE_IN_SECTOR.iter_unpack(whole)):
        if found > sequence:
            offset = number * SECTOR_BYTES
            if _checked_fields(whole[offset : offset + GROUP_HEADER_BYTES], key) is not None:
                return offset
    return None


def _decode_entries(body: bytes, fields: _Fields) -> Iterator[Entry]:
    offset = fields.vote_length
    for expected in range(fields.first_index, fields.first_index + fields.entry_count):
        if offset + _ENTRY.size > len(body):
            raise FormatError(f"its entry {expected} is missing")
        length, kind, index, term = _ENTRY.unpack_from(body, offset)
        offset += _ENTRY.size
        if kind != _KIND_ENTRY or index != expected or term > fields.term:
            raise FormatError(f"entry {expected} has kind {kind}, index {index}, term {term}")
        if offset + length > len(body):
            raise FormatError(f"entry {expected} is longer than its group")
        yield body[offset : offset + length], index, term
        offset += length


def _checked_fields(header: bytes | memoryview, key: bytes) -> _Fields | None:
    """The fields of a group's header, or None when its mac is wrong."""
    if len(header) < GROUP_HEADER_BYTES:
        return None
    fields = bytes(header[MAC_BYTES:GROUP_HEADER_BYTES])
    if _mac(fields, key) != bytes(header[:MAC_BYTES]):
        return None
    return _Fields._make(_GROUP_FIELDS.unpack(fields))


def _mac(data: bytes, key: bytes) -> bytes:
    return blake3(data, key=key).digest(length=MAC_BYTES)
