"""The journal of a member: a write-ahead log that survives loss of power."""

from vcp_cluster.cluster.raft.journal.errors import JournalError, JournalFailed
from vcp_cluster.cluster.raft.journal.format import Entry
from vcp_cluster.cluster.raft.journal.journal import Journal, Limits

__all__ = ["Entry", "Journal", "JournalError", "JournalFailed", "Limits"]
