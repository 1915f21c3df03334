"""The Raft log, term and vote of one member, on its disk.

The library's own file journal is not used: it syncs nothing, it has no checksum, it stores term and
vote as a pickle whose loss it ignores, and it ends at 4 GiB.

What is added waits in memory until `sync`, which puts all of it on the disk with one write and one
fdatasync. Term and vote are on the disk when `setCurrentTerm` returns. The engine counts its own
copy, and acknowledges a leader's, after `sync` only.

A write or sync that fails is not tried again, because Linux forgets failed pages: the second attempt
would succeed without the data. The journal is unusable from then on and the member stops. For the
same reason the last group is written again whenever a journal is opened: it may be in the memory of
the kernel only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vcp_cluster.cluster.files import Files, SystemFiles
from vcp_cluster.cluster.raft.journal.errors import JournalError, JournalFailed
from vcp_cluster.cluster.raft.journal.format import (
    VOTE_BYTES_MAX,
    Entry,
    FormatError,
    Group,
)
from vcp_cluster.cluster.raft.journal.index import SparseIndex
from vcp_cluster.cluster.raft.journal.reader import EntryReader
from vcp_cluster.cluster.raft.journal.recovery import damaged, load_segments
from vcp_cluster.cluster.raft.journal.segments import Position, Segments
from vcp_cluster.cluster.raft.journal.spares import Spares
from vcp_cluster.cluster.raft.journal.tail import Tail

ENTRY_BYTES_MAX = 64 << 20

GROUP_BYTES = 4 << 20
"""Entries of a group together, unless one entry is larger."""

SLICE_BYTES = (2 << 20) + (64 << 10)
"""Entries of a slice together: as many as the engine sends in one message."""

LOCK_FILE = "lock"


@dataclass(frozen=True)
class Limits:
    """Sizes, in bytes. Segments begin at the smallest size and double, so that a small cluster
    takes little of a disk. `makes_spares_inline` is for tests that count system calls."""

    segment_min: int = 1 << 20
    segment_max: int = 64 << 20
    tail: int = 64 << 20
    makes_spares_inline: bool = False


def _raise(failure: JournalFailed) -> None:
    raise failure


class Journal:
    """The methods with capitals are the library's interface; its positions count from the oldest
    entry that is kept, at 0. Indexes count from 1."""

    def __init__(
        self,
        directory: Path,
        *,
        chain_id: bytes,
        committed_index: int,
        files: Files | None = None,
        limits: Limits | None = None,
        on_failure: Callable[[JournalFailed], None] = _raise,
    ) -> None:
        """Open or create the journal in `directory`.

        `committed_index` is an index known to be committed, that is the one the state stands at.
        `on_failure` is called when the disk fails later on; it does not return, or raises.

        Raises `JournalError` when the journal is in use, damaged, of a newer format, another
        cluster's, and when it ends before `committed_index`.
        """
        self._files = files or SystemFiles()
        self._limits = limits or Limits()
        self._directory = directory
        self._on_failure = on_failure
        self._failure: JournalFailed | None = None
        self._term = 0
        self._vote: str | None = None
        self._commit_index = 1
        self._durable_state_index = 0
        self._first_index = self._oldest_index = 1
        self._first: Entry | None = None
        self._tail = Tail()
        self._unsynced_index = 1
        self._is_dirty = False
        self._index = SparseIndex()
        try:
            self._lock = self._open_directory()
            try:
                self._segments = self._open_segments(chain_id)
            except BaseException:
                self._files.close(self._lock)
                raise
        except OSError as error:
            raise JournalError(
                f"cannot open journal {directory}: {error.strerror}. "
                "Next: check the path, its permissions and the free space of its disk."
            ) from error
        self._reader = EntryReader(self._segments, self._index)
        if committed_index > max(1, self.last_index):
            self._close()
            raise JournalError(
                f"journal {directory} ends at index {self.last_index} but the store has applied "
                f"{committed_index}: they do not belong together. Next: put back the journal "
                "that goes with this store; do not start without it."
            )
        self._commit_index = max(1, committed_index, min(self._commit_index, self.last_index))

    @property
    def first_index(self) -> int:
        """Index of the oldest entry that is kept."""
        return self._first_index

    @property
    def last_index(self) -> int:
        """Index of the newest entry, 0 in an empty journal."""
        return self._tail.last_index

    @property
    def synced_index(self) -> int:
        """Index of the newest entry that is on the disk."""
        return self._unsynced_index - 1

    def entry(self, index: int) -> Entry:
        """The entry at `index`; raises IndexError outside first_index..last_index."""
        if not self._first_index <= index <= self.last_index:
            raise IndexError(index)
        if index >= self._tail.first_index:
            return self._tail[index]
        if index == self._first_index and self._first is not None:
            return self._first
        with self._stopping_on_failure():
            entry = self._reader.entry(index)
        if index == self._first_index:  # The library asks for it all the time.
            self._first = entry
        return entry

    def __len__(self) -> int:
        return self.last_index - self._first_index + 1

    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        """One entry, or entries in a row. A slice ends early, after two entries or more, when it
        reaches `SLICE_BYTES`: nobody can ask for the whole log at once."""
        if isinstance(item, int):
            return self.entry((self._first_index if item >= 0 else self.last_index + 1) + item)
        start, stop, _ = item.indices(len(self))
        entries: list[Entry] = []
        size = 0
        for index in range(self._first_index + start, self._first_index + stop):
            entries.append(self.entry(index))
            size += len(entries[-1][0])
            if size >= SLICE_BYTES and len(entries) >= 2:
                break
        return entries

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append one entry, in memory until `sync`; its index follows the last one."""
        if index != self.last_index + 1 or term > self._term or len(command) > ENTRY_BYTES_MAX:
            raise JournalError(
                f"entry {index} of term {term} with {len(command)} bytes does not follow entry "
                f"{self.last_index} in term {self._term}. Report it."
            )
        self._tail.add((command, index, term))
        self._is_dirty = True

    def deleteEntriesFrom(self, position: int) -> None:
        """Forget the entries from `position` on."""
        index = self._first_index + position
        if index > self.last_index:
            return
        if index <= self._commit_index:
            raise JournalError(
                f"refused to remove entry {index}: everything up to {self._commit_index} is "
                "committed. Report it."
            )
        self._tail.cut(index)
        self._reader.forget()
        if index < self._unsynced_index:
            self._unsynced_index = index
            self._is_dirty = True

    def deleteEntriesTo(self, position: int) -> None:
        """Forget the entries before `position` and give back the segments that hold only these.
        Only what `note_durable_state` covers can be forgotten."""
        index = self._first_index + position
        if index > self._durable_state_index + 1 or index > self.synced_index:
            raise JournalError(
                f"refused to forget the entries before {index}: the state has only those up to "
                f"{self._durable_state_index} on the disk. Report it."
            )
        self._first_index, self._first, self._is_dirty = index, None, True
        self.sync()  # A segment that is missing, but was not given back, is then told apart.
        with self._stopping_on_failure():
            self._segments.release(index)
        self._index.release(self._segments.first_number)
        self._tail.drop(index)
        self._reader.forget()

    def note_durable_state(self, index: int) -> None:
        """The state up to entry `index` is on the disk, whatever happens to the machine."""
        self._durable_state_index = max(self._durable_state_index, index)

    def clear(self) -> None:
        """Replacement of the log by a snapshot, which does not exist: always raises."""
        raise JournalError("clearing the journal was asked for, but there are no snapshots")

    def setRaftCommitIndex(self, index: int) -> None:
        """Note the commit index; it is written with the next group."""
        self._commit_index = index

    def getRaftCommitIndex(self) -> int:
        """The highest index known to be committed, at least 1."""
        return self._commit_index

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        """Put term and vote on the disk; what depends on them may be sent after."""
        changes_vote = term == self._term and self._vote is not None and vote != self._vote
        if term < self._term or changes_vote or len((vote or "").encode()) > VOTE_BYTES_MAX:
            raise JournalError(
                f"refused term {term} with a vote for {vote}: the term is {self._term} with a vote "
                f"for {self._vote}. Report it."
            )
        self._term, self._vote, self._is_dirty = term, vote or None, True
        self.sync()

    def getCurrentTerm(self) -> int:
        """The newest term recorded, 0 if there is none."""
        return self._term

    def getVotedForNodeId(self) -> str | None:
        """Whom this member voted for in the current term."""
        return self._vote

    def onOneSecondTimer(self) -> None:
        """Called by the library every second; nothing is due."""

    def sync(self) -> None:
        """Return when everything is on the disk. Nothing is written when it is already."""
        if not self._is_dirty:
            return
        with self._stopping_on_failure():
            for group in self._groups():
                position = self._segments.append(group)
                self._index.note(group, position)
                self._unsynced_index = group.end_index
        self._is_dirty = False
        self._tail.shrink(self._limits.tail, keep_index=self._unsynced_index)

    def _destroy(self) -> None:
        """Write what is waiting and the commit index, then close. The library calls it when it
        ends in order. The last group has no entries then: damage to one that has is told from a
        write cut short."""
        if self._failure is None:
            for _ in range(2 if self._unsynced_index <= self.last_index else 1):
                self._is_dirty = True
                self.sync()
        self._close()

    def _close(self) -> None:
        self._segments.close()
        self._files.close(self._lock)

    def _groups(self) -> Iterator[Group]:
        """What is not on the disk, in as few groups as possible, at least one."""
        first_index, size = self._unsynced_index, 0
        entries: list[Entry] = []
        for index in range(first_index, self.last_index + 1):
            entry = self._tail[index]
            if entries and size + len(entry[0]) > GROUP_BYTES:
                yield self._group(first_index, entries)
                first_index, entries, size = index, [], 0
            entries.append(entry)
            size += len(entry[0])
        yield self._group(first_index, entries)

    def _group(self, first_index: int, entries: list[Entry]) -> Group:
        return Group(
            self._term,
            self._vote,
            self._commit_index,
            self._first_index,
            first_index,
            tuple(entries),
        )

    def _open_directory(self) -> int:
        """Make the directory and own it; returns the descriptor of the lock."""
        self._files.make_directory(self._directory)
        self._files.fsync_directory(self._directory.parent)
        lock = self._files.open(self._directory / LOCK_FILE, create=True)
        try:
            self._files.lock(lock)
        except OSError as error:
            self._files.close(lock)
            if not isinstance(error, BlockingIOError):
                raise
            raise JournalError(
                f"journal {self._directory} is in use by another process. "
                "Next: stop the member that runs on this directory, then start again."
            ) from error
        return lock

    def _open_segments(self, chain_id: bytes) -> Segments:
        limits, names = self._limits, self._files.names(self._directory)
        loaded, last_group = load_segments(
            self._files, self._directory, names, chain_id=chain_id, on_group=self._load_group
        )
        if loaded and self._oldest_index > self._first_index:
            raise damaged(
                loaded[0].path,
                0,
                f"it begins with entry {self._oldest_index}, and those from {self._first_index} on "
                "should be in segments before it, which are missing",
            )
        inline = limits.makes_spares_inline
        segments = Segments(
            self._files,
            self._directory,
            Spares(self._files, self._directory, names, inline=inline),
            chain_id=chain_id,
            size_min=limits.segment_min,
            size_max=limits.segment_max,
        )
        try:
            if not loaded:
                segments.start(limits.segment_min)
                return segments
            for segment in loaded:
                segments.add(segment)
            segments.open_last()
            # A process killed before its fdatasync left the last group in the kernel's memory only;
            # one that stopped because it failed left pages there that Linux takes for written.
            segments.rewrite(last_group, loaded[-1].end - len(last_group))
            self._files.fsync_directory(self._directory)
        except BaseException:
            segments.close()
            raise
        return segments

    def _load_group(self, group: Group, position: Position) -> None:
        """Repeat what a group did when it was written."""
        tail = self._tail
        if tail.last_index == 0:
            self._oldest_index = group.first_index
            tail.begin(group.first_index)
        if group.first_index > tail.last_index + 1:
            raise FormatError(
                f"its first entry is {group.first_index}, after entry {tail.last_index}"
            )
        if group.first_index <= min(self._commit_index, tail.last_index):
            raise FormatError(
                f"its first entry is {group.first_index}, but {self._commit_index} is committed"
            )
        if group.term < self._term:
            raise FormatError(f"its term is {group.term}, after term {self._term}")
        self._oldest_index = min(self._oldest_index, group.first_index)
        tail.cut(group.first_index)
        for entry in group.entries:
            tail.add(entry)
        self._term, self._vote, self._first_index = group.term, group.vote, group.base_index
        self._commit_index = max(self._commit_index, group.commit_index)
        self._unsynced_index = group.end_index
        self._index.note(group, position)
        tail.shrink(self._limits.tail, keep_index=self._unsynced_index)

    @contextmanager
    def _stopping_on_failure(self) -> Iterator[None]:
        """What fails inside is the end of this journal."""
        if self._failure is not None:
            raise self._failure
        try:
            yield
        except OSError as error:
            self._failure = JournalFailed(
                f"journal {self._directory}: the disk failed ({error.strerror}). Nothing that was "
                "not on the disk was acknowledged. Next: check the disk and its free space, then "
                "start the member again."
            )
            self._on_failure(self._failure)
            raise self._failure from error
        except JournalFailed as failure:
            self._failure = failure
            self._on_failure(failure)
            raise
