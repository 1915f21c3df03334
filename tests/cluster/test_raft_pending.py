"""Submissions: taken whole or refused, grouped within bounds, answered by what is applied."""

from collections.abc import Callable

import pytest

from vcp_cluster.cluster.raft.pending import (
    GROUP_BYTES_MAX,
    GROUP_TRANSACTIONS_MAX,
    PENDING_BYTES_MAX,
    PENDING_TRANSACTIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Group,
    Outcome,
    Pending,
    Refused,
)


class Desk:
    """A `Pending` with the outcomes it has given, by the name of the submission."""

    def __init__(self) -> None:
        self.pending = Pending()
        self.outcomes: dict[str, Outcome] = {}

    def submit(self, name: str, *transactions: bytes, deadline_s: float = 10) -> None:
        def answer(outcome: Outcome) -> None:
            assert name not in self.outcomes
            self.outcomes[name] = outcome

        self.pending.submit(transactions, deadline_s=deadline_s, answer=answer)

    def propose(self, index: int) -> Group:
        group = self.pending.take_group()
        assert group is not None
        self.pending.note_proposed(index, b"entry %d" % index, group)
        return group

    def apply(self, index: int, group: Group) -> None:
        receipts = [b"receipt of " + each for each in group.transactions]
        self.pending.note_applied(index, b"entry %d" % index, receipts)

    def kind(self, name: str) -> str:
        outcome = self.outcomes[name]
        assert isinstance(outcome, Refused)
        return outcome.kind


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_receipts_come_in_order_when_all_are_applied(desk: Desk) -> None:
    desk.submit("x", b"1", b"2", b"1")
    desk.submit("y", b"3")
    group = desk.propose(5)
    assert group.transactions == [b"1", b"2", b"1", b"3"]
    assert not desk.outcomes
    desk.apply(5, group)
    assert desk.outcomes == {
        "x": [b"receipt of 1", b"receipt of 2", b"receipt of 1"],
        "y": [b"receipt of 3"],
    }


def test_the_same_transaction_submitted_twice_is_answered_twice(desk: Desk) -> None:
    desk.submit("first", b"1")
    group = desk.propose(5)
    desk.submit("second", b"1")
    desk.apply(5, group)
    assert desk.outcomes == {"first": [b"receipt of 1"], "second": [b"receipt of 1"]}
    assert desk.pending.take_group() is None


def test_a_submission_over_two_entries_waits_for_both(desk: Desk) -> None:
    size = GROUP_BYTES_MAX // 4
    desk.submit("x", *[bytes([each]) * size for each in range(5)])
    groups = [desk.propose(5), desk.propose(6)]
    assert [len(group.transactions) for group in groups] == [4, 1]
    desk.apply(5, groups[0])
    assert not desk.outcomes
    desk.apply(6, groups[1])
    assert len(desk.outcomes["x"]) == 5  # type: ignore[arg-type]


def test_what_another_leader_put_at_the_index_answers_nobody(desk: Desk) -> None:
    desk.submit("x", b"1", deadline_s=3)
    group = desk.propose(5)
    desk.pending.note_applied(5, b"of another leader", [b"a receipt"])
    desk.apply(5, group)
    assert not desk.outcomes
    desk.pending.expire(2.9)
    assert not desk.outcomes
    desk.pending.expire(3)
    assert desk.kind("x") == "unknown"


def test_a_group_keeps_its_bounds(desk: Desk) -> None:
    desk.submit("many", *[each.to_bytes(2, "big") for each in range(GROUP_TRANSACTIONS_MAX + 1)])
    assert len(desk.propose(1).transactions) == GROUP_TRANSACTIONS_MAX
    assert len(desk.propose(2).transactions) == 1
    size = 100_000
    desk.submit(
        "large", *[each.to_bytes(size, "big") for each in range(GROUP_BYTES_MAX // size + 1)]
    )
    assert sum(map(len, desk.propose(3).transactions)) <= GROUP_BYTES_MAX
    assert len(desk.propose(4).transactions) == 1


@pytest.mark.parametrize(
    ("kind", "transactions"),
    [
        ("bad_request", list),
        ("too_large", lambda: [b"small", bytes(TRANSACTION_BYTES_MAX + 1)]),
        ("too_large", lambda: [b"x"] * (PENDING_TRANSACTIONS_MAX + 1)),
        ("too_large", lambda: [bytes(TRANSACTION_BYTES_MAX)] * (PENDING_BYTES_MAX >> 18) + [b"x"]),
        ("busy", lambda: [b"x"] * PENDING_TRANSACTIONS_MAX),
        ("busy", lambda: [bytes(TRANSACTION_BYTES_MAX)] * (PENDING_BYTES_MAX >> 18)),
    ],
)
def test_a_refused_submission_leaves_nothing(
    desk: Desk, kind: str, transactions: Callable[[], list[bytes]]
) -> None:
    desk.submit("before", b"taken")
    with pytest.raises(Refused) as refused:
        desk.submit("x", *transactions())
    assert refused.value.kind == kind
    assert desk.propose(1).transactions == [b"taken"]
    assert desk.pending.take_group() is None


@pytest.mark.parametrize("how", ["applied", "expired", "refused"])
def test_room_comes_back(desk: Desk, how: str) -> None:
    for round_ in range(3):
        names = [f"{round_} {each}" for each in range(10)]
        for name in names:
            size = PENDING_TRANSACTIONS_MAX // 10
            desk.submit(name, *[f"{name} {each}".encode() for each in range(size)], deadline_s=1)
        with pytest.raises(Refused):
            desk.submit("above", b"1")
        if how == "applied":
            index = 0
            while desk.pending.has_queued:
                index += 1
                desk.apply(index, desk.propose(index))
        elif how == "expired":
            desk.pending.expire(1)
        else:
            desk.pending.refuse_queued("b")
        assert set(names) <= set(desk.outcomes)


def test_without_leadership_only_what_was_proposed_waits_on(desk: Desk) -> None:
    desk.submit("proposed", b"1")
    group = desk.propose(5)
    desk.submit("queued", b"2")
    desk.pending.refuse_queued("b")
    outcome = desk.outcomes["queued"]
    assert isinstance(outcome, Refused)
    assert (outcome.kind, outcome.details) == ("not_leader", {"leader": "b"})
    assert desk.pending.take_group() is None
    desk.apply(5, group)
    assert desk.outcomes["proposed"] == [b"receipt of 1"]


def test_what_expired_in_the_queue_is_not_proposed(desk: Desk) -> None:
    desk.submit("late", b"1", deadline_s=1)
    desk.submit("same bytes", b"1", deadline_s=9)
    desk.submit("other", b"2", deadline_s=9)
    desk.pending.expire(1)
    assert desk.kind("late") == "unknown"
    assert desk.propose(5).transactions == [b"1", b"2"]
