"""What can be wrong with a journal."""

from __future__ import annotations


class JournalError(Exception):
    """The journal cannot be opened, is damaged, or is asked for what would lose entries.

    The message says where, why, and what to do.
    """


class JournalFailed(JournalError):
    """The disk failed a running journal. What is on it is not known any more: the member stops."""
