"""The guard: matching entries stay, a leader is asked to go back once, committed entries are final."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vcp_cluster.cluster.raft.guard import DEMAND_LIFETIME_S, Answer, AppendGuard, Diverged
from vcp_cluster.cluster.raft.journal import Journal

TERMS = [0, 1, 1, 2, 2, 2]
"""Terms of the entries 1 to 6 of the member under test."""


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "journal", chain_id=bytes(16), committed_index=0)
    journal.setCurrentTerm(max(TERMS), None)
    for index, term in enumerate(TERMS, 1):
        journal.add(b"\x00%d" % index, index, term)
    yield journal
    journal._destroy()


def append(previous: int | None, previous_term: int | None, *terms: int, **fields: Any) -> Any:
    first = (previous or 0) + 1
    return {
        "type": "append_entries",
        "term": 3,
        "commit_index": 0,
        "prevLogIdx": previous,
        "prevLogTerm": previous_term,
        "entries": [(b"\x00%d" % i, i, term) for i, term in enumerate(terms, first)],
        **fields,
    }


def test_new_entries_go_to_the_library_as_they_are(journal: Journal) -> None:
    message = append(6, 2, 3, 3, commit_index=7)
    decision = AppendGuard(journal).check(message, commit_index=3, now_s=0)
    assert (decision.message, decision.answer) == (message, None)


def test_a_commit_index_beyond_what_was_verified_is_capped(journal: Journal) -> None:
    decision = AppendGuard(journal).check(append(6, 2, 3, commit_index=99), commit_index=3, now_s=0)
    assert decision.message["commit_index"] == 7


@pytest.mark.parametrize(
    ("message", "match"),
    [(append(2, 1), 2), (append(2, 1, 1, 2), 4), (append(1, 0, 1, 1, 2, 2, 2), 6)],
)
def test_a_message_without_news_removes_nothing(journal: Journal, message: Any, match: int) -> None:
    message["commit_index"] = 6
    decision = AppendGuard(journal).check(message, commit_index=1, now_s=0)
    assert "prevLogIdx" not in decision.message
    assert decision.message["commit_index"] == match
    assert decision.answer == Answer(match + 1, reset=False, success=True)


def test_the_matching_beginning_is_left_alone(journal: Journal) -> None:
    decision = AppendGuard(journal).check(append(2, 1, 1, 2, 3, 3), commit_index=4, now_s=0)
    assert decision.answer is None
    assert (decision.message["prevLogIdx"], decision.message["prevLogTerm"]) == (4, 2)
    assert [index for _, index, _ in decision.message["entries"]] == [5, 6]


def test_replacing_a_committed_entry_is_refused(journal: Journal) -> None:
    with pytest.raises(Diverged, match="replace entry 5"):
        AppendGuard(journal).check(append(2, 1, 1, 2, 3, 3), commit_index=5, now_s=0)
    with pytest.raises(Diverged, match="at 4"):
        AppendGuard(journal).check(append(4, 3), commit_index=4, now_s=0)


@pytest.mark.parametrize("commit_index", [1, 3])
def test_a_mismatch_goes_back_over_the_whole_term(journal: Journal, commit_index: int) -> None:
    decision = AppendGuard(journal).check(append(6, 3), commit_index=commit_index, now_s=0)
    assert decision.answer == Answer(4, reset=True, success=False)
    assert decision.message["commit_index"] == commit_index


def test_going_back_ends_above_the_commit_index(journal: Journal) -> None:
    decision = AppendGuard(journal).check(append(6, 3), commit_index=4, now_s=0)
    assert decision.answer == Answer(5, reset=True, success=False)


@pytest.mark.parametrize("previous", [(9, 3), (None, None)])
def test_a_gap_asks_for_the_end(journal: Journal, previous: tuple[Any, Any]) -> None:
    decision = AppendGuard(journal).check(append(*previous, 3), commit_index=1, now_s=0)
    assert decision.answer == Answer(7, reset=True, success=False)


def test_what_was_on_its_way_gets_no_second_demand(journal: Journal) -> None:
    guard = AppendGuard(journal)
    guard.check(append(6, 3, 3), commit_index=1, now_s=0)
    alive = Answer(4, reset=False, success=False)
    for message in (append(8, 3, 3), append(9, 3, 3), append(5, 3)):
        assert guard.check(message, commit_index=1, now_s=0.1).answer == alive


def test_a_demand_is_repeated_when_it_is_old_the_term_new_or_the_leader_lower(
    journal: Journal,
) -> None:
    for message, now_s, next_index in (
        (append(9, 3), DEMAND_LIFETIME_S, 7),
        (append(9, 4, term=4), 0.1, 7),
        (append(3, 3), 0.1, 2),
    ):
        guard = AppendGuard(journal)
        guard.check(append(6, 3), commit_index=1, now_s=0)
        answer = guard.check(message, commit_index=1, now_s=now_s).answer
        assert answer == Answer(next_index, reset=True, success=False)


def test_agreement_ends_the_demand(journal: Journal) -> None:
    guard = AppendGuard(journal)
    guard.check(append(6, 3), commit_index=1, now_s=0)
    guard.check(append(3, 1, 3), commit_index=1, now_s=0.1)
    answer = guard.check(append(9, 3), commit_index=1, now_s=0.2).answer
    assert answer is not None and answer.reset
