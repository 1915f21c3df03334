"""The journal: what was added is there again, a cut end is passed over, other damage is refused.

Loss of power is in tests/faults.
"""

import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from vcp_cluster.cluster.files import SystemFiles
from vcp_cluster.cluster.raft.journal import Journal, JournalError, JournalFailed, Limits
from vcp_cluster.cluster.raft.journal.format import FORMAT, MAC_BYTES, SECTOR_BYTES
from vcp_cluster.cluster.raft.journal.journal import SLICE_BYTES

CHAIN_ID = b"chain of a test."
SMALL = Limits(segment_min=4_096, segment_max=16_384, tail=4_000, makes_spares_inline=True)


def reopen(path: Path, *, committed_index: int = 0, limits: Limits = SMALL) -> Journal:
    return Journal(path, chain_id=CHAIN_ID, committed_index=committed_index, limits=limits)


def kill(journal: Journal) -> None:
    """Let go of the files without writing anything."""
    journal._close()


def segments(path: Path) -> list[Path]:
    return sorted(path.glob("*.wal"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of three entries, one of them replaced in a later term, and a vote."""
    path = tmp_path / "deep" / "journal"
    journal = reopen(path)
    journal.add(b"\x01", 1, 0)
    journal.setCurrentTerm(1, None)
    journal.add(b"\x00one", 2, 1)
    journal.add(b"\x00replaced", 3, 1)
    journal.add(b"\x00gone", 4, 1)
    journal.sync()
    journal.deleteEntriesFrom(2)
    journal.setCurrentTerm(3, "127.0.0.1:7100")
    journal.add(b"\x00two", 3, 3)
    journal.sync()
    kill(journal)
    return path


ENTRIES = [(b"\x01", 1, 0), (b"\x00one", 2, 1), (b"\x00two", 3, 3)]
GROUPS = 4
"""Groups of the journal, each in a sector of its own."""


def test_entries_term_and_vote_are_there_again(path: Path) -> None:
    journal = reopen(path, committed_index=2)
    assert journal[:] == ENTRIES
    assert (len(journal), journal.last_index, journal[-1], journal[0]) == (
        3,
        3,
        ENTRIES[-1],
        ENTRIES[0],
    )
    assert journal.entry(2) == ENTRIES[1]
    assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (3, "127.0.0.1:7100")
    assert journal.getRaftCommitIndex() == 2
    journal.setCurrentTerm(4, None)
    journal._destroy()
    again = reopen(path)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (4, None)
    assert again.getRaftCommitIndex() == 2
    again._destroy()


def test_nothing_is_on_the_disk_before_the_sync(path: Path) -> None:
    journal = reopen(path)
    content = segments(path)[0].read_bytes()
    journal.add(b"\x00three", 4, 3)
    assert (journal.last_index, journal.synced_index) == (4, 3)
    assert segments(path)[0].read_bytes() == content
    journal.sync()
    assert (journal.last_index, journal.synced_index) == (4, 4)
    assert segments(path)[0].read_bytes() != content
    kill(journal)


def test_one_sync_for_all_that_arrived(tmp_path: Path) -> None:
    class Counting(SystemFiles):
        writes = syncs = 0

        def pwrite(self, file: int, data: bytes, offset: int) -> None:
            self.writes += 1
            super().pwrite(file, data, offset)

        def fdatasync(self, file: int) -> None:
            self.syncs += 1
            super().fdatasync(file)

    files = Counting()
    journal = Journal(tmp_path / "j", chain_id=CHAIN_ID, committed_index=0, files=files)
    journal._segments._spares._wait()
    before = (files.writes, files.syncs)
    for index in range(1, 500):
        journal.add(b"\x00%d" % index, index, 0)
    journal.sync()
    journal.sync()
    assert (files.writes, files.syncs) == (before[0] + 1, before[1] + 1)
    journal._destroy()


def test_an_end_cut_anywhere_is_passed_over(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The last group is cut at every byte; the rest are zeros, as in a new segment."""
    (segment,) = segments(path)
    data = segment.read_bytes()
    start = SECTOR_BYTES * GROUPS
    for kept in range(start, start + SECTOR_BYTES):
        segment.write_bytes(data[:kept].ljust(len(data), b"\0"))
        journal = reopen(path)
        whole = kept >= start + len(data[start : start + SECTOR_BYTES].rstrip(b"\0"))
        assert journal[:] == (ENTRIES if whole else ENTRIES[:2])
        assert (journal.getCurrentTerm(), journal.getVotedForNodeId()) == (3, "127.0.0.1:7100")
        journal.add(b"\x00next", journal.last_index + 1, 3)
        journal.sync()
        kill(journal)
        again = reopen(path)
        assert again[-1] == (b"\x00next", 4 if whole else 3, 3)
        kill(again)
    assert "passed over a group cut short at byte 2048" in caplog.text


def test_every_flipped_bit_before_the_last_group_is_refused(path: Path) -> None:
    (segment,) = segments(path)
    data = segment.read_bytes()
    for position in range(SECTOR_BYTES * GROUPS):
        for bit in (0x01, 0x80):
            spoilt = bytearray(data)
            spoilt[position] ^= bit
            segment.write_bytes(spoilt)
            with pytest.raises(JournalError) as refused:
                reopen(path)
            assert str(segment) in str(refused.value) and "Next: " in str(refused.value)
    segment.write_bytes(data)
    kill(reopen(path))


def test_damage_to_the_last_entries_is_refused_after_a_stop_in_order(path: Path) -> None:
    reopen(path)._destroy()
    (segment,) = segments(path)
    data = bytearray(segment.read_bytes())
    data[data.index(b"two")] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalError, match=r"0001\.wal is damaged at byte 2048"):
        reopen(path)


def test_a_missing_end_is_refused_when_the_store_has_applied_it(path: Path) -> None:
    (segment,) = segments(path)
    data = segment.read_bytes()
    segment.write_bytes(data[: SECTOR_BYTES * GROUPS].ljust(len(data), b"\0"))
    with pytest.raises(JournalError, match="ends at index 2 but the store has applied 3"):
        reopen(path, committed_index=3)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_missing_or_foreign_segment_is_refused(tmp_path: Path, number: int) -> None:
    for name in "ab":
        journal = reopen(tmp_path / name)
        for index in range(1, 30):
            journal.add(bytes(500), index, 0)
            journal.sync()
        kill(journal)
    mine, other = segments(tmp_path / "a"), segments(tmp_path / "b")
    assert len(mine) > 3
    content = mine[number].read_bytes()
    mine[number].write_bytes(other[number].read_bytes())
    kill(reopen(tmp_path / "a"))  # The same content, under another key.
    mine[number].write_bytes(mine[number + 1].read_bytes())
    with pytest.raises(JournalError, match="under another name"):
        reopen(tmp_path / "a")
    mine[number].unlink()
    with pytest.raises(JournalError, match=r"missing"):
        reopen(tmp_path / "a")
    mine[number].write_bytes(content)
    kill(reopen(tmp_path / "a"))


def test_another_clusters_journal_is_refused(path: Path) -> None:
    with pytest.raises(JournalError, match=f"belongs to the cluster {CHAIN_ID.hex()}"):
        Journal(path, chain_id=bytes(16), committed_index=0)


def test_a_newer_format_is_refused_untouched(path: Path) -> None:
    (segment,) = segments(path)
    data = bytearray(segment.read_bytes())
    data[7] = FORMAT + 1
    checked = SECTOR_BYTES - MAC_BYTES
    data[checked:SECTOR_BYTES] = blake3(data[:checked]).digest(length=MAC_BYTES)
    segment.write_bytes(data)
    with pytest.raises(JournalError, match=f"has format {FORMAT + 1}"):
        reopen(path)
    assert segment.read_bytes() == data


def test_a_forged_group_in_an_entry_is_not_taken_for_one(tmp_path: Path) -> None:
    """A client can put anything into an entry, also the bytes of another journal's groups, at the
    offsets and with the sequences that would fit."""
    forged = reopen(tmp_path / "forged")
    for index in range(1, 40):
        forged.add(b"\x00forged", index, 0)
        forged.sync()
    kill(forged)
    content = b"".join(each.read_bytes() for each in segments(tmp_path / "forged"))
    journal = reopen(tmp_path / "journal", limits=Limits(makes_spares_inline=True))
    journal.add(content, 1, 0)
    journal.sync()
    journal.add(content, 2, 0)
    journal.sync()
    end = journal._segments.last.end
    kill(journal)
    (segment,) = segments(tmp_path / "journal")
    with segment.open("r+b") as file:
        file.seek(end - len(content) - 100)
        file.write(b"cut")
    again = reopen(tmp_path / "journal")
    assert again[:] == [(content, 1, 0)]
    kill(again)


def test_a_second_owner_is_refused(path: Path) -> None:
    owner = reopen(path)
    with pytest.raises(JournalError, match="in use by another process"):
        reopen(path)
    owner._destroy()


def test_committed_entries_cannot_be_removed(path: Path) -> None:
    journal = reopen(path, committed_index=2)
    with pytest.raises(JournalError, match="committed"):
        journal.deleteEntriesFrom(1)
    journal.deleteEntriesFrom(2)
    assert journal[:] == ENTRIES[:2]
    journal._destroy()


def test_a_commit_index_beyond_the_end_of_the_log_is_not_believed(path: Path) -> None:
    """The library's journal believes it, and a leader then commits new entries alone."""
    journal = reopen(path)
    journal.setRaftCommitIndex(3)
    journal.add(b"", 4, 3)
    journal.sync()
    assert journal.getRaftCommitIndex() == 3
    journal.setRaftCommitIndex(99)
    journal.sync()
    journal._destroy()
    again = reopen(path)
    assert again.getRaftCommitIndex() == again.last_index == 4
    again._destroy()


@pytest.mark.parametrize(
    ("term", "vote"), [(2, None), (3, None), (3, "127.0.0.1:7101"), (4, "x" * 256)]
)
def test_term_and_vote_do_not_go_back(path: Path, term: int, vote: str | None) -> None:
    journal = reopen(path)
    with pytest.raises(JournalError, match="refused term"):
        journal.setCurrentTerm(term, vote)
    journal._destroy()
    again = reopen(path)
    assert (again.getCurrentTerm(), again.getVotedForNodeId()) == (3, "127.0.0.1:7100")
    again._destroy()


def test_what_does_not_follow_is_refused(path: Path) -> None:
    journal = reopen(path)
    refused: list[Callable[[], None]] = [
        lambda: journal.add(b"", 5, 3),
        lambda: journal.add(b"", 3, 3),
        lambda: journal.add(b"", 4, 4),
        lambda: journal.deleteEntriesTo(1),
        journal.clear,
    ]
    for each in refused:
        with pytest.raises(JournalError):
            each()
    for index in (0, 4):
        with pytest.raises(IndexError):
            journal.entry(index)
    assert journal[:] == ENTRIES
    journal._destroy()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalError, match="cannot open journal"):
        reopen(tmp_path / "file" / "journal")


# A long log


def test_old_entries_are_read_from_the_disk(tmp_path: Path) -> None:
    """Appends, cuts and reads in all orders, against a list."""
    journal = reopen(tmp_path / "journal")
    model: list[tuple[bytes, int, int]] = []
    for turn in range(120):
        if turn % 7 == 3:
            journal.setCurrentTerm(turn, None)
            journal.deleteEntriesFrom(len(model) - turn % 5)
            del model[len(model) - turn % 5 :]
        for size in (turn, 1, 40 * (turn % 11)):
            entry = (b"%d " % turn * size, len(model) + 1, journal.getCurrentTerm())
            journal.add(*entry)
            model.append(entry)
        journal.sync()
        if turn % 10 == 0:
            assert [journal.entry(index + 1) for index in range(len(model))] == model
    assert len(segments(tmp_path / "journal")) > 5
    assert journal._tail.first_index > len(model) - 20
    for index in [*range(len(model), 0, -1), *range(1, len(model) + 1, 13), 5, 6, 300, 7]:
        assert journal.entry(index) == model[index - 1]
    assert journal[3:17] == model[3:17]
    kill(journal)
    again = reopen(tmp_path / "journal")
    assert [again.entry(index + 1) for index in range(len(model))] == model
    again._destroy()


def test_a_slice_is_bounded_but_has_two_entries(tmp_path: Path) -> None:
    journal = reopen(tmp_path / "journal", limits=Limits(tail=1 << 20))
    command = bytes(SLICE_BYTES // 2 + 1)
    for index in range(1, 6):
        journal.add(command if index < 4 else b"", index, 0)
        journal.sync()
    assert [len(journal[start:]) for start in range(5)] == [2, 2, 3, 2, 1]
    huge = bytes(SLICE_BYTES)
    journal.add(huge, 6, 0)
    journal.add(huge, 7, 0)
    assert [index for _, index, _ in journal[5:]] == [6, 7]
    journal._destroy()


def test_memory_does_not_grow_with_the_log(tmp_path: Path) -> None:
    """Ten times the bound of the tail, read again from the beginning."""
    limits = Limits(segment_min=1 << 18, segment_max=1 << 19, tail=1 << 20)
    journal = reopen(tmp_path / "journal", limits=limits)
    command = bytes(1_000)
    tracemalloc.start()
    for index in range(1, 10_001):
        journal.add(command, index, 0)
        if index % 50 == 0:
            journal.sync()
    assert all(journal.entry(index)[1] == index for index in range(1, 10_001))
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    journal._destroy()
    assert grown < 3 << 20


def test_damage_found_while_reading_stops_the_journal(tmp_path: Path) -> None:
    failures: list[JournalFailed] = []
    journal = Journal(
        tmp_path / "journal",
        chain_id=CHAIN_ID,
        committed_index=0,
        limits=SMALL,
        on_failure=failures.append,
    )
    for index in range(1, 30):
        journal.add(bytes(400), index, 0)
        journal.sync()
    segment = segments(tmp_path / "journal")[0]
    data = bytearray(segment.read_bytes())
    data[SECTOR_BYTES + 300] ^= 1
    segment.write_bytes(data)
    with pytest.raises(JournalFailed, match="damaged at byte 512"):
        journal.entry(1)
    assert len(failures) == 1
    with pytest.raises(JournalFailed):
        journal.setCurrentTerm(1, None)
    kill(journal)


# Segments given back


def test_segments_are_given_back_and_used_again(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = reopen(path)
    most = 0
    for index in range(1, 400):
        journal.add(b"%d" % index * 100, index, 0)
        journal.sync()
        journal.setRaftCommitIndex(index)
        journal.note_durable_state(index)
        if index % 10 == 0:
            journal.deleteEntriesTo(index - 5 - journal.first_index)
        most = max(most, sum(each.stat().st_size for each in path.iterdir()))
    assert most < 8 * SMALL.segment_max
    first = journal.first_index
    assert 340 < first <= 385
    assert (len(journal), journal[0][1], journal[-1][1]) == (400 - first, first, 399)
    with pytest.raises(IndexError):
        journal.entry(first - 1)
    inodes = {each.stat().st_ino for each in path.iterdir()}
    assert len(inodes) < 9
    kill(journal)
    again = reopen(path, committed_index=399)
    assert [again.entry(index)[0] for index in range(first, 400)] == [
        b"%d" % index * 100 for index in range(first, 400)
    ]
    assert (again.first_index, again.last_index) == (first, 399)
    again._destroy()


def test_only_what_the_state_has_on_the_disk_is_given_back(tmp_path: Path) -> None:
    journal = reopen(tmp_path / "journal")
    for index in range(1, 50):
        journal.add(bytes(300), index, 0)
        journal.sync()
    journal.setRaftCommitIndex(49)
    journal.note_durable_state(20)
    with pytest.raises(JournalError, match="only those up to 20 on the disk"):
        journal.deleteEntriesTo(21)
    journal.deleteEntriesTo(20)
    assert 10 < journal.first_index <= 21
    journal._destroy()
