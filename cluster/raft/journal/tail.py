"""The newest entries of a log, in memory."""

from __future__ import annotations

from vcp_cluster.cluster.raft.journal.format import Entry

ENTRY_OVERHEAD_BYTES = 200
"""What an entry costs in memory beside its command, about."""


class Tail:
    """Entries `first_index` to `last_index` in a row; none when the one follows the other."""

    def __init__(self) -> None:
        self.first_index = 1
        self.last_index = 0
        self._entries: dict[int, Entry] = {}
        self._bytes = 0

    def __getitem__(self, index: int) -> Entry:
        """The entry at `index`; raises KeyError when it is not here."""
        return self._entries[index]

    def begin(self, index: int) -> None:
        """Have the next entry at `index`; only while there is none."""
        assert not self._entries
        self.first_index, self.last_index = index, index - 1

    def add(self, entry: Entry) -> None:
        """Append the entry after the last."""
        self.last_index = entry[1]
        self._entries[entry[1]] = entry
        self._bytes += len(entry[0]) + ENTRY_OVERHEAD_BYTES

    def cut(self, index: int) -> None:
        """Forget the entries from `index` on, which may be before the first."""
        for removed in range(max(index, self.first_index), self.last_index + 1):
            self._remove(removed)
        self.last_index = index - 1
        self.first_index = min(self.first_index, index)

    def drop(self, index: int) -> None:
        """Forget the entries before `index`."""
        for removed in range(self.first_index, min(index, self.last_index + 1)):
            self._remove(removed)
        self.first_index = max(self.first_index, index)

    def shrink(self, bytes_max: int, *, keep_index: int) -> None:
        """Forget the oldest until the rest is within `bytes_max`; `keep_index` and above stay."""
        while self._bytes > bytes_max and self.first_index < keep_index:
            self.drop(self.first_index + 1)

    def _remove(self, index: int) -> None:
        self._bytes -= len(self._entries.pop(index)[0]) + ENTRY_OVERHEAD_BYTES
