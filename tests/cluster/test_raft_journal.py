"""The journal: what was added is there again, a cut end is removed, any other damage refused."""

from pathlib import Path

import pytest

from vcp_cluster.cluster.raft.journal import FORMAT, Journal, JournalError


def reopen(path: Path, *, committed_index: int = 0) -> Journal:
    return Journal(path, committed_index=committed_index)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of four entries, one of them replaced in a later term, and a vote."""
    path = tmp_path / "deep" / "raft.log"
    journal = Journal(path, committed_index=0)
    journal.add(b"\x01", 1, 0)
    journal.add(b"\x00one", 2, 1)
    journal.add(b"\x00replaced", 3, 1)
    journal.add(b"\x00gone", 4, 1)
    journal.deleteEntriesFrom(2)
    journal.setCurrentTerm(3, "127.0.0.1:7100")
    journal.add(b"\x00two", 3, 3)
    journal._destroy()
    return path


ENTRIES = [(b"\x01", 1, 0), (b"\x00one", 2, 1), (b"\x00two", 3, 3)]


def test_entries_term_and_vote_are_there_again(path: Path) -> None:
    journal = reopen(path, committed_index=2)
    assert journal[:] == ENTRIES
    assert (len(journal), journal.last_index, journal[-1]) == (3, 3, ENTRIES[-1])
    assert journal.entry(2) == ENTRIES[1]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (3, "127.0.0.1:7100")
    assert journal.getRaftCommitIndex() == 2
    journal.setCurrentTerm(4, None)
    journal._destroy()
    again = reopen(path)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (4, None)
    assert again.getRaftCommitIndex() == 1
    again._destroy()


def test_a_file_cut_anywhere_opens_with_what_is_whole(path: Path) -> None:
    data = path.read_bytes()
    previous: list[object] = []
    for size in range(8, len(data) + 1):
        path.write_bytes(data[:size])
        journal = reopen(path)
        entries = list(journal[:])
        assert [index for _, index, _ in entries] == list(range(1, len(entries) + 1))
        journal.add(b"\x00next", journal.last_index + 1, 9)
        journal._destroy()
        again = reopen(path)
        assert again[:] == [*entries, (b"\x00next", len(entries) + 1, 9)]
        again._destroy()
        previous = entries
    assert previous == ENTRIES


def test_every_flipped_bit_is_refused(path: Path) -> None:
    data = path.read_bytes()
    for position in range(len(data)):
        for bit in (0x01, 0x80):
            spoilt = bytearray(data)
            spoilt[position] ^= bit
            path.write_bytes(spoilt)
            with pytest.raises(JournalError):
                reopen(path)


def test_a_newer_format_is_refused_untouched(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[7] = FORMAT + 1
    path.write_bytes(data)
    with pytest.raises(JournalError, match=f"has format {FORMAT + 1}"):
        reopen(path)
    assert path.read_bytes() == data


def test_a_second_owner_is_refused(path: Path) -> None:
    owner = reopen(path)
    with pytest.raises(JournalError, match="in use by another process"):
        reopen(path)
    owner._destroy()


def test_a_store_that_is_ahead_is_refused(path: Path) -> None:
    with pytest.raises(JournalError, match="ends at index 3 but the store has applied 4"):
        reopen(path, committed_index=4)


def test_a_kill_while_the_file_is_made_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "raft.log.new").write_bytes(b"VCP")
    journal = reopen(tmp_path / "raft.log")
    assert (len(journal), journal.last_index, journal.getCurrentTerm()) == (0, 0, 0)
    journal._destroy()


def test_committed_entries_cannot_be_removed(path: Path) -> None:
    journal = reopen(path, committed_index=2)
    with pytest.raises(JournalError, match="committed"):
        journal.deleteEntriesFrom(1)
    journal.deleteEntriesFrom(2)
    assert journal[:] == ENTRIES[:2]
    journal._destroy()


def test_a_gap_and_compaction_are_refused(path: Path) -> None:
    journal = reopen(path)
    for refused in (
        lambda: journal.add(b"", 5, 3),
        lambda: journal.deleteEntriesTo(1),
        journal.clear,
    ):
        with pytest.raises(JournalError):
            refused()
    with pytest.raises(IndexError):
        journal.entry(0)
    assert journal[:] == ENTRIES
    journal._destroy()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="cannot open journal"):
        reopen(tmp_path / "file" / "raft.log")
