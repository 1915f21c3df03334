"""The Raft log of one member, in one append-only file.

The library's own file journal is not used: a kill while it creates its file leaves an empty one
that it cannot open again, it stores term and vote as a pickle whose loss it ignores, it has no
checksum, and it ends at 4 GiB. Format, little endian:

    file     'VCPRAFT' u8 version, then records
    record   u32 crc of the header fields after it | u32 crc of the body | u32 body length |
             u8 kind | u64 index | u64 term | body
    kinds    1 ENTRY     body is the command of `index` in `term`
             2 TRUNCATE  everything from `index` on is gone
             3 TERM      current term; body is the id of the member voted for in it, or empty

Every record is in the kernel before the call that writes it returns, so nothing that a member has
said is lost when its process is killed. Nothing is synced: loss of power is not covered.

A kill can cut the last record short; it was never acknowledged and is removed when the journal is
opened. Any other damage refuses to open. The commit index is not in the file: what the store has
applied is committed, the rest is learnt from the next leader.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

FORMAT = 1
BODY_BYTES_MAX = 64 << 20

_MAGIC = b"VCPRAFT" + bytes([FORMAT])
_HEADER = struct.Struct("<IIIBQQ")
_FIELDS = struct.Struct("<IIBQQ")
_ENTRY, _TRUNCATE, _TERM = 1, 2, 3

Entry = tuple[bytes, int, int]
"""(command, index, term), the shape in which the library keeps and sends entries."""

logger = logging.getLogger(__name__)


class JournalError(Exception):
    """The journal cannot be opened or is damaged. The message says where and what to do."""


class Journal:
    """The log, term and vote of one member; the methods with capitals are the library's interface.

    All entries are also in memory: the log is never shortened at its beginning.
    """

    def __init__(self, path: Path, *, committed_index: int) -> None:
        """Open or create the journal file `path`.

        `committed_index` is an index known to be committed, that is the one the state stands at.
        Raises `JournalError` when the file is in use, damaged or of a newer format, and when it
        ends before `committed_index`.
        """
        self._path = path
        self._entries: list[Entry] = []
        self._term = 0
        self._vote: str | None = None
        self._commit_index = max(1, committed_index)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not path.exists():
                _create(path)
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(
                f"cannot open journal {path}: {error.strerror}. "
                "Next: check the path, its permissions and the free space of its disk."
            ) from error
        try:
            self._lock()
            self._load()
            if committed_index > max(1, self.last_index):
                raise JournalError(
                    f"journal {path} ends at index {self.last_index} but the store has applied "
                    f"{committed_index}: they do not belong together. Next: put back the journal "
                    "that goes with this store; do not start without it."
                )
        except BaseException:
            os.close(self._file)
            raise

    @property
    def last_index(self) -> int:
        """Index of the newest entry, 0 in an empty journal."""
        return self._entries[-1][1] if self._entries else 0

    def entry(self, index: int) -> Entry:
        """The entry at `index`; raises IndexError outside 1..last_index."""
        if index < 1:
            raise IndexError(index)
        return self._entries[index - 1]

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, item: int | slice) -> Entry | list[Entry]:
        return self._entries[item]

    def add(self, command: bytes, index: int, term: int) -> None:
        """Append one entry; its index follows the last one."""
        if index != self.last_index + 1:
            raise JournalError(f"entry {index} does not follow {self.last_index}. Report it.")
        self._write(_ENTRY, index, term, command)
        self._entries.append((command, index, term))

    def deleteEntriesFrom(self, position: int) -> None:
        """Forget the entries from list position `position` on."""
        if position >= len(self._entries):
            return
        if position + 1 <= self._commit_index:
            raise JournalError(
                f"refused to remove entry {position + 1}: everything up to {self._commit_index} is "
                "committed. Report it."
            )
        self._write(_TRUNCATE, position + 1, 0, b"")
        del self._entries[position:]

    def deleteEntriesTo(self, position: int) -> None:
        """Compaction, which is off: always raises."""
        raise JournalError(f"compaction to position {position} was asked for, but it is off")

    def clear(self) -> None:
        """Replacement of the log by a snapshot, which does not exist: always raises."""
        raise JournalError("clearing the journal was asked for, but there are no snapshots")

    def setRaftCommitIndex(self, index: int) -> None:
        """Note the commit index (in memory)."""
        self._commit_index = index

    def getRaftCommitIndex(self) -> int:
        """The highest index known to be committed, at least 1."""
        return self._commit_index

    def setCurrentTerm(self, term: int, vote: str | None) -> None:
        """Record term and vote, before any message that depends on them is sent."""
        self._write(_TERM, 0, term, (vote or "").encode())
        self._term, self._vote = term, vote

    def getCurrentTerm(self) -> int:
        """The newest term recorded, 0 if there is none."""
        return self._term

    def getVotedForNodeId(self) -> str | None:
        """Whom this member voted for in the current term."""
        return self._vote

    def onOneSecondTimer(self) -> None:
        """Called by the library every second; everything is written already."""

    def _destroy(self) -> None:
        """Close the file. Called by the library when it ends in order."""
        os.close(self._file)

    def _write(self, kind: int, index: int, term: int, body: bytes) -> None:
        fields = _FIELDS.pack(zlib.crc32(body), len(body), kind, index, term)
        record = memoryview(zlib.crc32(fields).to_bytes(4, "little") + fields + body)
        while record:
            record = record[os.write(self._file, record) :]

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise JournalError(
                f"journal {self._path} is in use by another process. "
                "Next: stop the member that runs on this directory, then start again."
            ) from error

    def _load(self) -> None:
        with open(self._file, "rb", closefd=False, buffering=1 << 20) as file:
            magic = file.read(len(_MAGIC))
            if magic != _MAGIC:
                if magic[:-1] == _MAGIC[:-1]:
                    raise JournalError(
                        f"journal {self._path} has format {magic[-1]}; this release knows {FORMAT}."
                        " Next: start the member with the release that wrote it, or a newer one."
                    )
                raise self._damaged(0, "it does not begin as a journal")
            size = os.fstat(self._file).st_size
            offset = len(_MAGIC)
            while length := self._load_record(file, offset, size - offset):
                offset += length
        if offset < size:
            logger.warning("journal %s: removed %d bytes cut short", self._path, size - offset)
            os.ftruncate(self._file, offset)

    def _load_record(self, file: BinaryIO, offset: int, rest: int) -> int:
        """Take in one record of at most `rest` bytes; returns its length, 0 at the end or when it
        is cut short.

        The header has a checksum of its own, so that a damaged length is not mistaken for a record
        cut short, after which everything would be thrown away.
        """
        if rest < _HEADER.size:
            return 0
        header = file.read(_HEADER.size)
        header_crc, body_crc, length, kind, index, term = _HEADER.unpack(header)
        if zlib.crc32(header[4:]) != header_crc or length > BODY_BYTES_MAX:
            raise self._damaged(offset, "a record's header fails its checksum")
        if rest < _HEADER.size + length:
            return 0
        body = file.read(length)
        if zlib.crc32(body) != body_crc:
            raise self._damaged(offset, "a record's body fails its checksum")
        if kind == _ENTRY and index == self.last_index + 1:
            self._entries.append((body, index, term))
        elif kind == _TRUNCATE and 1 <= index <= self.last_index:
            del self._entries[index - 1 :]
        elif kind == _TERM:
            self._term, self._vote = term, body.decode("utf-8", "replace") or None
        else:
            raise self._damaged(offset, f"record {kind} at index {index} does not fit")
        return _HEADER.size + len(body)

    def _damaged(self, offset: int, what: str) -> JournalError:
        return JournalError(
            f"journal {self._path} is damaged at byte {offset}: {what}. The cluster runs on while a "
            "majority of its members does. Next: when every other member is up, move this member's "
            "journal and store away (keep them) and start it; it fetches everything again."
        )


def _create(path: Path) -> None:
    """Make the file appear with its beginning complete, whenever the process is killed."""
    fresh = path.with_name(path.name + ".new")
    with open(fresh, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
        file.write(_MAGIC)
    fresh.rename(path)
