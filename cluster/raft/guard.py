"""Corrections to what the library does with append_entries, made before it sees them.

Three faults of the library can undo or block what was acknowledged:

* It cuts its log after the previous index of every message, also when the entries match. A late
  or repeated message so removes entries that this member has acknowledged.
* It answers every message that does not fit with a demand to start again lower, also those that
  were on their way when it first demanded it. Under load leader and follower chase each other
  and the follower never catches up.
* It goes back one entry at a time, not one term at a time.

The guard is pure: it reads the journal and the clock it is given and says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vcp_cluster.cluster.raft.journal import Journal

DEMAND_LIFETIME_S = 1.0
"""After this long a demand is repeated, since it or the answer to it may be lost."""

Message = dict[str, Any]


class Diverged(Exception):
    """A leader contradicts an entry that is committed here: this member must stop."""


@dataclass(frozen=True)
class Answer:
    """What to tell the leader: the index wanted next, a demand to go back, or agreement."""

    next_index: int
    reset: bool
    success: bool


@dataclass(frozen=True)
class Decision:
    """The message to hand to the library, and an answer when the library will give none."""

    message: Message
    answer: Answer | None


@dataclass(frozen=True)
class _Demand:
    next_index: int
    term: int
    expires_s: float


class AppendGuard:
    """Judges the append_entries messages that one member receives."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._demand: _Demand | None = None

    def check(self, message: Message, *, commit_index: int, now_s: float) -> Decision:
        """Decide on a message of the current or a newer term.

        `commit_index` is this member's own. Raises `Diverged` when the message contradicts a
        committed entry, KeyError or TypeError when it is not an append_entries message.
        """
        previous_index, previous_term = message["prevLogIdx"], message["prevLogTerm"]
        last = self._journal.last_index
        if previous_index is None or previous_index > last:
            return self._go_back(message, last + 1, commit_index, now_s)
        if self._term(previous_index) != previous_term:
            if previous_index <= commit_index:
                raise Diverged(
                    f"the leader has another entry than ours, committed, before it at "
                    f"{previous_index}"
                )
            first = self._first_of_term(previous_index, commit_index)
            return self._go_back(message, first, commit_index, now_s)
        self._demand = None
        return self._agree(message, previous_index, commit_index)

    def _agree(self, message: Message, previous_index: int, commit_index: int) -> Decision:
        """The logs agree up to `previous_index`: keep what also matches, hand on what is new."""
        entries = message["entries"]
        last = self._journal.last_index
        known = 0
        for _, index, term in entries:
            if index > last or self._term(index) != term:
                break
            known += 1
        match = previous_index + known
        commit = min(message["commit_index"], match)
        if known == len(entries):
            return Decision(_heartbeat(message, commit), Answer(match + 1, False, True))
        if match < commit_index:
            raise Diverged(f"the leader wants to replace entry {match + 1}, which is committed")
        fresh = dict(message)
        fresh["prevLogIdx"], fresh["prevLogTerm"] = match, self._term(match)
        fresh["entries"] = entries[known:]
        fresh["commit_index"] = min(message["commit_index"], match + len(fresh["entries"]))
        return Decision(fresh, None)

    def _go_back(
        self, message: Message, next_index: int, commit_index: int, now_s: float
    ) -> Decision:
        """Demand `next_index`, once: what was sent before the leader learnt of it gets no other
        answer than a sign of life."""
        previous_index, demand = message["prevLogIdx"], self._demand
        beat = _heartbeat(message, commit_index)
        if (
            demand is not None
            and demand.term == message["term"]
            and now_s < demand.expires_s
            and (previous_index is None or previous_index >= demand.next_index)
        ):
            return Decision(beat, Answer(demand.next_index, False, False))
        self._demand = _Demand(next_index, message["term"], now_s + DEMAND_LIFETIME_S)
        return Decision(beat, Answer(next_index, True, False))

    def _first_of_term(self, index: int, commit_index: int) -> int:
        """The first entry above the commit index with the same term as the one at `index`."""
        term = self._term(index)
        while index - 1 > commit_index and self._term(index - 1) == term:
            index -= 1
        return index

    def _term(self, index: int) -> int:
        return self._journal.entry(index)[2]


def _heartbeat(message: Message, commit_index: int) -> Message:
    """The same sign of a leader without entries, which the library does not answer."""
    return {"type": "append_entries", "term": message["term"], "commit_index": commit_index}
