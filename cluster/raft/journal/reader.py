"""Entries that are not in memory any more, from the disk."""

from __future__ import annotations

from vcp_cluster.cluster.raft.journal.errors import JournalFailed
from vcp_cluster.cluster.raft.journal.format import Entry, FormatError, Group
from vcp_cluster.cluster.raft.journal.index import SparseIndex
from vcp_cluster.cluster.raft.journal.recovery import damaged
from vcp_cluster.cluster.raft.journal.segments import Position, Segments


class EntryReader:
    """Finds an entry by its index; entries asked for in order are read from the disk once."""

    def __init__(self, segments: Segments, index: SparseIndex) -> None:
        self._segments = segments
        self._index = index
        self._at: tuple[Group, Position] | None = None

    def forget(self) -> None:
        """Keep nothing: entries were removed from the log."""
        self._at = None

    def entry(self, index: int) -> Entry:
        """The entry at `index`, which is in the log and on the disk.

        Raises `JournalFailed` when what was whole is not whole any more, and OSError.
        """
        start = self._index.find(index)
        group, position = self._near(index, start) or self._read(start)
        while index >= group.end_index:
            group, position = self._read(position)
        if index < group.first_index:
            raise self._damaged(position, f"entry {index} is not before it")
        self._at = group, position
        return group.entries[index - group.first_index]

    def _near(self, index: int, start: Position) -> tuple[Group, Position] | None:
        """The group read last, if it holds the entry or ends before it. Not when the index starts
        behind that group: what it holds of these entries was replaced."""
        if self._at is None or start.sequence >= self._at[1].sequence:
            return None
        return self._at if self._at[0].first_index <= index <= self._at[0].end_index else None

    def _read(self, position: Position) -> tuple[Group, Position]:
        try:
            found = self._segments.read(position)
        except FormatError as error:
            raise self._damaged(position, str(error)) from error
        if found is None:
            raise self._damaged(position, "a group that was whole is not whole any more")
        return found

    def _damaged(self, position: Position, what: str) -> JournalFailed:
        path = self._segments.path(position.number)
        return JournalFailed(str(damaged(path, position.offset, what)))
