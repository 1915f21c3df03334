"""Where entries are on the disk, in memory that hardly grows with the log."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

from vcp_cluster.cluster.raft.journal.format import Group
from vcp_cluster.cluster.raft.journal.segments import Position

SPACING_BYTES = 64 << 10
"""Distance of the points: the read of an entry begins at most this far before it."""


class SparseIndex:
    """For some entries, in order, the group they begin: 32 bytes for each 64 KiB of journal.

    From one point to the next, groups follow in the order of their entries: where the log was cut
    back and written anew, there is a point.
    """

    def __init__(self) -> None:
        self._indexes, self._numbers = array("Q"), array("Q")
        self._offsets, self._sequences = array("Q"), array("Q")
        self._columns = (self._indexes, self._numbers, self._offsets, self._sequences)
        self._end_index = 0
        self._was_cut = False

    def note(self, group: Group, position: Position) -> None:
        """Take note of the next group of the log."""
        if group.first_index < self._end_index:
            self._was_cut = True
            start = bisect_left(self._indexes, group.first_index)
            for column in self._columns:
                del column[start:]
        self._end_index = group.end_index
        if group.entries and (self._was_cut or self._is_due(position)):
            self._was_cut = False
            self._indexes.append(group.first_index)
            self._numbers.append(position.number)
            self._offsets.append(position.offset)
            self._sequences.append(position.sequence)

    def find(self, index: int) -> Position:
        """A group at or before the one that holds the entry `index`, which is in the log."""
        at = bisect_right(self._indexes, index) - 1
        return Position(self._numbers[at], self._offsets[at], self._sequences[at])

    def release(self, number: int) -> None:
        """Forget what is in segments before `number`."""
        stop = bisect_left(self._numbers, number)
        for column in self._columns:
            del column[:stop]

    def _is_due(self, position: Position) -> bool:
        return (
            not self._indexes
            or self._numbers[-1] != position.number
            or position.offset - self._offsets[-1] >= SPACING_BYTES
        )
