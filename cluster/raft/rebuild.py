"""Applying again what the journal knows to be committed, before a member takes part."""

from __future__ import annotations

import logging
import time

from vcp_cluster.cluster.raft.engine import ENTRY_TYPE, stop_on_failure
from vcp_cluster.cluster.raft.journal import Journal, JournalError
from vcp_cluster.cluster.raft.machine import StateMachine

PROGRESS_S = 10.0
FEW_ENTRIES = 1_000
"""Fewer than these are caught up with in no time and not worth a line in the log."""

logger = logging.getLogger(__name__)


def apply_committed(journal: Journal, machine: StateMachine) -> None:
    """Apply the committed entries that the state does not have.

    After a kill these are a few; after a loss of power that the store did not survive, all of them.
    Interrupted, it goes on where it was. Raises `JournalError` when the journal does not reach back
    to where the state stands; what `apply` raises is a defect and stops the process.
    """
    first, last = machine.raft_index + 1, journal.getRaftCommitIndex()
    if first <= last and first < journal.first_index:
        raise JournalError(
            f"the journal begins at entry {journal.first_index}, but the state stands at "
            f"{machine.raft_index}. Next: when every other member is up, move this member's journal "
            "and store away (keep them) and start it; it fetches everything again."
        )
    is_long = last - first >= FEW_ENTRIES
    started_s = told_s = time.monotonic()
    for index in range(first, min(last, journal.last_index) + 1):
        command = journal.entry(index)[0]
        with stop_on_failure(f"entry {index}"):
            if command[:1] == ENTRY_TYPE:
                machine.apply(index, command[1:])
            else:
                machine.skip(index)
        now_s = time.monotonic()
        if is_long and now_s - told_s >= PROGRESS_S:
            told_s = now_s
            logger.warning("rebuilding the state: entry %d of %d", index, last)
    if is_long:
        spent_s = time.monotonic() - started_s
        logger.warning("rebuilt the state: %d entries in %.1f s", last - first + 1, spent_s)
    if machine.durable_index < machine.raft_index:
        with stop_on_failure("writing the state to the disk"):
            machine.flush()
    journal.note_durable_state(machine.durable_index)
