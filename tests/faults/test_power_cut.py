"""The power is cut in every system call of the journal: what was synced is there, nothing is half
there, term and vote never go back."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from vcp_cluster.cluster.files import replace_file
from vcp_cluster.cluster.raft.journal import (
    Entry,
    Journal,
    JournalError,
    JournalFailed,
    Limits,
)
from vcp_cluster.cluster.raft.journal.segments import Segments

from .simulated_disk import PowerCut, SimulatedDisk

DIRECTORY = Path("/disk/journal")
CHAIN_ID = bytes(range(16))
LIMITS = Limits(segment_min=2_048, segment_max=8_192, tail=2_000, makes_spares_inline=True)
SURVIVALS = [("nothing", 0), ("everything", 0), *(("chance", seed) for seed in range(4))]


@dataclass(frozen=True)
class State:
    """What a journal holds, all of it since the beginning."""

    entries: tuple[Entry, ...] = ()
    term: int = 0
    vote: str | None = None


class Recorder:
    """Writes to a journal and knows what it holds: `synced` is what was promised to others,
    `attempted` what the sync that runs, if any, would add."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.synced = self.attempted = self.state = State()
        self.released_index = 1

    def open(self) -> None:
        self.journal = Journal(
            DIRECTORY, chain_id=CHAIN_ID, committed_index=0, files=self.disk, limits=LIMITS
        )

    def add(self, *sizes: int) -> None:
        for size in sizes:
            index = len(self.state.entries) + 1
            entry = (index.to_bytes(4, "big") * size, index, self.state.term)
            self.journal.add(*entry)
            self.state = replace(self.state, entries=(*self.state.entries, entry))

    def cut_back(self, count: int) -> None:
        left = self.state.entries[: len(self.state.entries) - count]
        self.journal.deleteEntriesFrom(len(left) + 1 - self.journal.first_index)
        self.state = replace(self.state, entries=left)

    def vote(self, term: int, vote: str | None) -> None:
        self.state = replace(self.state, term=term, vote=vote)
        self.attempted = self.state
        self.journal.setCurrentTerm(term, vote)
        self.synced = self.state

    def sync(self) -> None:
        self.attempted = self.state
        self.journal.sync()
        self.synced = self.state

    def release(self, index: int) -> None:
        self.journal.setRaftCommitIndex(index)
        self.journal.note_durable_state(index)
        self.released_index = index
        self.journal.deleteEntriesTo(index - self.journal.first_index)

    def close(self) -> None:
        self.attempted = self.state
        self.journal._destroy()
        self.synced = self.state


def run(recorder: Recorder) -> None:
    """Elections, groups of all sizes, entries replaced on the disk and before they get there,
    segments begun, given back and used again, a stop in order."""
    recorder.open()
    recorder.add(0)
    recorder.vote(1, "127.0.0.1:7100")
    for size in (10, 100, 300, 500):
        recorder.add(size, 1)
        recorder.sync()
    recorder.cut_back(3)
    recorder.add(40)
    recorder.sync()
    recorder.add(20, 30)
    recorder.cut_back(1)
    recorder.vote(3, None)
    recorder.cut_back(2)
    recorder.sync()
    recorder.vote(3, "127.0.0.1:7103")
    for size in range(6):
        recorder.add(*[200 * size] * 3)
        recorder.sync()
    recorder.release(8)
    recorder.close()
    recorder.open()
    for size in range(8):
        recorder.add(700, size)
        recorder.sync()
        recorder.release(recorder.journal.last_index - 4)
    recorder.cut_back(1)
    recorder.add(3)
    recorder.vote(9, "127.0.0.1:7101")
    recorder.close()


def check(recorder: Recorder) -> State:
    """Open the journal again: it holds what was synced, or that and what was being synced."""
    recorder.open()
    journal = recorder.journal
    first, last = journal.first_index, journal.last_index
    assert first <= recorder.released_index
    found = tuple(journal.entry(index) for index in range(first, last + 1))
    allowed = [
        State(state.entries[first - 1 :], state.term, state.vote)
        for state in (recorder.synced, recorder.attempted)
    ]
    assert State(found, journal.getCurrentTerm(), journal.getVotedForNodeId()) in allowed
    assert journal.getRaftCommitIndex() <= max(1, last)
    assert len(journal) == last - first + 1
    whole = recorder.attempted if found == allowed[1].entries else recorder.synced
    recorder.state = replace(whole, term=journal.getCurrentTerm(), vote=journal.getVotedForNodeId())
    return recorder.state


def count_calls() -> list[str]:
    recorder = Recorder(SimulatedDisk())
    run(recorder)
    return recorder.disk.calls


def stopped_runs() -> Iterator[tuple[int, Recorder]]:
    """The workload with the power cut in each of its calls."""
    for number in range(1, len(count_calls()) + 1):
        recorder = Recorder(SimulatedDisk())
        recorder.disk.cut_at = number
        with pytest.raises(PowerCut):
            run(recorder)
        yield number, recorder


def test_the_workload_does_what_it_says() -> None:
    """Otherwise the sweeps would sweep nothing."""
    recorder = Recorder(SimulatedDisk())
    run(recorder)
    state = recorder.synced
    assert check(recorder) == state
    assert recorder.journal.first_index > 20
    calls = recorder.disk.calls
    assert calls.count("rename") > 15 and calls.count("fdatasync") > 40
    assert any(path.name.endswith(".spare") for path in recorder.disk._names)


@pytest.mark.parametrize(("survives", "seed"), SURVIVALS)
def test_a_cut_at_any_call_loses_nothing_that_was_synced(survives: str, seed: int) -> None:
    for number, recorder in stopped_runs():
        recorder.disk.cut_power(survives=survives, seed=seed * 10_000 + number)
        recorder.synced = recorder.attempted = check(recorder)
        # Life goes on, and the power goes again: once after a sync, once before.
        recorder.vote(recorder.state.term + 1, "127.0.0.1:7102")
        recorder.add(50, 600)
        recorder.sync()
        recorder.add(60)
        recorder.disk.cut_power(survives=survives, seed=seed)
        recorder.synced = recorder.attempted = check(recorder)


def test_a_kill_and_then_a_cut_lose_nothing_that_was_read_back() -> None:
    """What a killed process had not synced is in the kernel's memory; the next one relies on it."""
    for number, recorder in stopped_runs():
        recorder.disk.kill()
        recorder.synced = recorder.attempted = check(recorder)
        recorder.disk.cut_power(survives="nothing", seed=number)
        check(recorder)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("survives", ["nothing", "everything"])
def sweep_failures(code: int, survives: str) -> int:
    """Let every call fail once; returns how many of the failures stopped a running journal."""
    stopped = 0
    for number in range(1, len(count_calls()) + 1):
        recorder = Recorder(SimulatedDisk())
        recorder.disk.fail_at = {number: code}
        try:
            run(recorder)
            continue  # Only preparing a spare failed, and was done again when it was needed.
        except JournalFailed:
            stopped += 1
            with pytest.raises(JournalFailed):
                recorder.journal.setCurrentTerm(99, None)
        except JournalError as error:
            assert "cannot open journal" in str(error)
        recorder.disk.kill()
        recorder.synced = recorder.attempted = check(recorder)
        recorder.disk.cut_power(survives=survives, seed=number)
        check(recorder)
    return stopped


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("survives", ["nothing", "everything"])
def test_any_failing_call_stops_the_journal_for_good(code: int, survives: str) -> None:
    """What was synced before survives a start of the process, which sees pages that the disk does
    not have, and then a power cut."""
    assert sweep_failures(code, survives) > 40


def _cut_everywhere() -> None:
    for number, recorder in stopped_runs():
        recorder.disk.cut_power(survives="nothing", seed=number)
        check(recorder)


@pytest.mark.parametrize(
    ("owner", "name", "sweep"),
    [
        (SimulatedDisk, "fdatasync", _cut_everywhere),
        (SimulatedDisk, "fsync_directory", _cut_everywhere),
        (Segments, "rewrite", lambda: sweep_failures(errno.EIO, "nothing")),
        (Segments, "rewrite", test_a_kill_and_then_a_cut_lose_nothing_that_was_read_back),
    ],
)
def test_the_sweeps_find_a_sync_that_is_left_out(
    owner: type, name: str, sweep: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are worth something only if they fail where they should."""
    calls = []

    def leave_out(_: object, *arguments: object) -> None:
        calls.append(arguments)

    monkeypatch.setattr(owner, name, leave_out)
    with pytest.raises((AssertionError, JournalError, KeyError)):
        sweep()
    assert calls


def test_a_replaced_file_is_the_old_or_the_new_one() -> None:
    path = Path("/disk/SESSION")

    def write(disk: SimulatedDisk) -> None:
        replace_file(disk, path, b"the old one")
        replace_file(disk, path, b"new")
        replace_file(disk, path, b"the newest")

    calls = SimulatedDisk()
    write(calls)
    contents = set()
    for number in range(1, len(calls.calls) + 1):
        for survives, seed in SURVIVALS:
            disk = SimulatedDisk()
            disk.cut_at = number
            with pytest.raises(PowerCut):
                write(disk)
            disk.cut_power(survives=survives, seed=seed)
            found = disk.content(path) if path.name in disk.names(path.parent) else None
            contents.add(found)
            replace_file(disk, path, b"after")
            disk.cut_power(survives="nothing")
            assert disk.content(path) == b"after"
    assert contents <= {None, b"the old one", b"new", b"the newest"}
    assert len(contents) == 4
