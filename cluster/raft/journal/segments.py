"""The segment files of a journal: groups are appended to the newest, read from any.

<number>.wal      a segment; numbers are consecutive
<number>.spare    ready to become one
unfinished.spare  was being made
lock              held by the process that owns the journal
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vcp_cluster.cluster.files import Files
from vcp_cluster.cluster.raft.journal.format import (
    GROUP_HEADER_BYTES,
    KEY_BYTES,
    SECTOR_BYTES,
    Group,
    SegmentHeader,
    decode_group,
    encode_group,
    encode_segment_header,
    group_length,
)
from vcp_cluster.cluster.raft.journal.spares import Spares

SUFFIX = ".wal"

_READ_AHEAD_BYTES = 16 << 10


@dataclass
class Segment:
    """One segment file. `end` is the offset after its last group, `lowest_index` the lowest first
    index of its groups: no entry from there on is in an earlier segment any more."""

    path: Path
    header: SegmentHeader
    size: int
    end: int = SECTOR_BYTES
    next_sequence: int = 0
    lowest_index: int | None = None

    def note(self, group: Group, length: int) -> None:
        """Take note of a group of `length` bytes at `end`."""
        self.end += length
        self.next_sequence += 1
        if self.lowest_index is None or group.first_index < self.lowest_index:
            self.lowest_index = group.first_index


@dataclass(frozen=True)
class Position:
    """Where a group is: segment number, offset in bytes, sequence."""

    number: int
    offset: int
    sequence: int


class Segments:
    """Segments in order; the last one is written to."""

    def __init__(
        self,
        files: Files,
        directory: Path,
        spares: Spares,
        *,
        chain_id: bytes,
        size_min: int,
        size_max: int,
    ) -> None:
        """No segment is known yet: `add` those that exist, or `start` the first one."""
        self._files = files
        self._directory = directory
        self._spares = spares
        self._chain_id = chain_id
        self._size_min = size_min
        self._size_max = size_max
        self._segments: list[Segment] = []
        self._writer: int | None = None
        self._reader: tuple[int, int] | None = None

    @property
    def last(self) -> Segment:
        """The segment written to."""
        return self._segments[-1]

    @property
    def first_number(self) -> int:
        """Number of the oldest segment."""
        return self._segments[0].header.number

    def add(self, segment: Segment) -> None:
        """Take in an existing segment, the next one in order."""
        self._segments.append(segment)

    def open_last(self) -> None:
        """Prepare to append to the last segment. Raises OSError."""
        self._writer = self._files.open(self.last.path)
        self._prepare_next()

    def rewrite(self, data: bytes, offset: int) -> None:
        """Write again what the last segment holds at `offset`, and sync it. Raises OSError."""
        assert self._writer is not None
        self._files.pwrite(self._writer, data, offset)
        self._files.fdatasync(self._writer)

    def append(self, group: Group) -> Position:
        """Write `group` and return where it is, once it is on the disk. Raises OSError."""
        assert self._writer is not None
        segment = self.last
        sequence, key = segment.next_sequence, segment.header.key
        data = encode_group(group, sequence=sequence, key=key)
        if segment.end + len(data) > segment.size:
            self.start(SECTOR_BYTES + len(data))
            segment = self.last
            data = encode_group(group, sequence=sequence, key=segment.header.key)
        position = Position(segment.header.number, segment.end, sequence)
        self._files.pwrite(self._writer, data, segment.end)
        self._files.fdatasync(self._writer)
        segment.note(group, len(data))
        return position

    def start(self, size_min: int) -> None:
        """Begin a segment of at least `size_min` bytes, with a key of its own. Raises OSError.

        Its header is on the disk before it gets its name, and its name before its first group is
        written: a segment whose header is damaged was once whole.
        """
        if self._segments:
            number, sequence = self.last.header.number + 1, self.last.next_sequence
            size = min(self._size_max, self.last.size * 2)
        else:
            number, sequence, size = 1, 1, self._size_min
        header = SegmentHeader(self._chain_id, os.urandom(KEY_BYTES), number, sequence)
        spare = self._spares.take(size_min, size, number)
        path = self._directory / f"{number:016d}{SUFFIX}"
        writer = self._files.open(spare)
        try:
            self._files.pwrite(writer, encode_segment_header(header), 0)
            self._files.fdatasync(writer)
            self._files.rename(spare, path)
            self._files.fsync_directory(self._directory)
            size = self._files.size(writer)
        except BaseException:
            self._files.close(writer)
            raise
        if self._writer is not None:
            self._files.close(self._writer)
        self._writer = writer
        self._segments.append(Segment(path, header, size, next_sequence=sequence))
        self._prepare_next()

    def read(self, position: Position) -> tuple[Group, Position] | None:
        """The group at `position` and the position after it; None when it is damaged.

        Raises OSError, and `FormatError` when the group contradicts itself.
        """
        segment = self._segments[position.number - self.first_number]
        if position.offset == segment.end:  # It was the end of the log when it was handed out.
            position = Position(position.number + 1, SECTOR_BYTES, position.sequence)
            segment = self._segments[position.number - self.first_number]
        file, key, sequence = self._open_for_read(segment), segment.header.key, position.sequence
        data = self._files.pread(file, _READ_AHEAD_BYTES, position.offset)
        length = group_length(data[:GROUP_HEADER_BYTES], sequence=sequence, key=key)
        if length is None:
            return None
        if length > len(data):
            data += self._files.pread(file, length - len(data), position.offset + len(data))
        group = decode_group(memoryview(data)[:length], sequence=sequence, key=key)
        if group is None:
            return None
        return group, Position(position.number, position.offset + length, sequence + 1)

    def path(self, number: int) -> Path:
        """The file of segment `number`."""
        return self._segments[number - self.first_number].path

    def release(self, index: int) -> None:
        """Give back the oldest segments, those without any entry from `index` on. Raises OSError."""
        keep = len(self._segments) - 1
        while keep > 0 and not self._begins_by(self._segments[keep], index):
            keep -= 1
        # The oldest goes first: after a loss of power the numbers left are still consecutive.
        for segment in self._segments[:keep]:
            self._close_reader()
            self._spares.give(segment.path)
            self._files.fsync_directory(self._directory)
        del self._segments[:keep]

    def close(self) -> None:
        """Close what is open."""
        self._spares.close()
        self._close_reader()
        if self._writer is not None:
            self._files.close(self._writer)
            self._writer = None

    def _begins_by(self, segment: Segment, index: int) -> bool:
        """Whether all entries from `index` on are in `segment` and those after it."""
        return segment.lowest_index is not None and segment.lowest_index <= index

    def _prepare_next(self) -> None:
        self._spares.prepare(min(self._size_max, self.last.size * 2), self.last.header.number + 1)

    def _open_for_read(self, segment: Segment) -> int:
        """A descriptor of the segment; one is kept, since reads of old entries go in order."""
        number = segment.header.number
        if segment is self.last and self._writer is not None:
            return self._writer
        if self._reader is None or self._reader[0] != number:
            self._close_reader()
            self._reader = (number, self._files.open(segment.path))
        return self._reader[1]

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._files.close(self._reader[1])
            self._reader = None
