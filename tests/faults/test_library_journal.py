"""Faults of the journal that comes with the library, and that ours does not have them.

The numbers are those of the findings that led to our own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pysyncobj.journal import FileJournal

from vcp_cluster.cluster.raft.journal import Journal, JournalError

# The library leaves its files to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

CHAIN_ID = b"chain of a test."
VOTE = "127.0.0.1:7101"


@contextmanager
def library_journal(directory: Path) -> Iterator[Any]:
    directory.mkdir(exist_ok=True)
    journal = FileJournal(str(directory / "log"))
    try:
        yield journal
    finally:
        journal._destroy()


@contextmanager
def our_journal(directory: Path, committed_index: int = 0) -> Iterator[Journal]:
    journal = Journal(directory, chain_id=CHAIN_ID, committed_index=committed_index)
    try:
        yield journal
    finally:
        journal._destroy()


@pytest.mark.parametrize("opened", [library_journal, our_journal])
def test_commit_index_beyond_the_log(opened: Any, tmp_path: Path) -> None:
    """R9: believed after a restart, a leader commits its first new entries alone."""
    with opened(tmp_path / "journal") as journal:
        journal.add(b"\x01", 1, 0)
        journal.setRaftCommitIndex(50)
        journal.onOneSecondTimer()
    with opened(tmp_path / "journal") as journal:
        assert journal.getRaftCommitIndex() == (50 if opened is library_journal else 1)


def test_lost_term_and_vote(tmp_path: Path) -> None:
    """R11: the library takes a lost file for term 0 without a vote, and votes again."""
    for name, opened in (("theirs", library_journal), ("ours", our_journal)):
        with opened(tmp_path / name) as journal:
            journal.add(b"\x01", 1, 0)
            journal.setCurrentTerm(7, VOTE)
            journal.add(b"\x00", 2, 7)
    (tmp_path / "theirs" / "log.meta").unlink()
    with library_journal(tmp_path / "theirs") as journal:
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (0, None)
    (segment,) = (tmp_path / "ours").glob("*.wal")
    segment.unlink()
    with pytest.raises(JournalError, match="they do not belong together"):
        our_journal(tmp_path / "ours", committed_index=2).__enter__()


def test_damaged_entry(tmp_path: Path) -> None:
    """R15: the library has no checksum and applies what it finds."""
    for name, opened in (("theirs", library_journal), ("ours", our_journal)):
        with opened(tmp_path / name) as journal:
            journal.add(b"\x00pay 1", 1, 0)
            journal.add(b"\x00pay 1", 2, 0)
    files = [tmp_path / "theirs" / "log", *(tmp_path / "ours").glob("*.wal")]
    for file in files:
        file.write_bytes(file.read_bytes().replace(b"pay 1", b"pay 9"))
    with library_journal(tmp_path / "theirs") as journal:
        assert journal[0][0] == b"\x00pay 9"
    with pytest.raises(JournalError, match="is damaged"):
        our_journal(tmp_path / "ours").__enter__()


def test_a_replacing_entry_with_a_gap(tmp_path: Path) -> None:
    """R15: the library takes entries whose indexes do not follow one another."""
    with library_journal(tmp_path / "theirs") as journal:
        journal.add(b"\x00", 1, 0)
        journal.add(b"\x00", 9, 0)
        assert [index for _, index, _ in journal[:]] == [1, 9]
    with our_journal(tmp_path / "ours") as journal:
        journal.add(b"\x00", 1, 0)
        with pytest.raises(JournalError, match="does not follow"):
            journal.add(b"\x00", 9, 0)
