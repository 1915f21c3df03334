"""pysyncobj 0.3.17 as an engine: it elects and replicates, everything else is ours.

The library's commands, callbacks, forwarding, membership changes, snapshots and connections are not
used, and its way to load a pickle is closed (`forbid_pickle`). An
entry is raw bytes behind the type byte 0; the leader appends it to its journal and sends it at
once instead of at the next heartbeat, so that a commit takes two messages and no waiting.

Methods and attributes of the library with mangled names are overridden and read here. They are
what they are in one audited version only, hence `check_library`.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import pysyncobj
from pysyncobj import SyncObj, SyncObjConf, syncobj

from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.cluster.raft.guard import AppendGuard, Message
from vcp_cluster.cluster.raft.journal import Journal
from vcp_cluster.cluster.raft.machine import StateMachine
from vcp_cluster.cluster.raft.transport.addresses import resolve
from vcp_cluster.cluster.raft.transport.security import Credentials, Security
from vcp_cluster.cluster.raft.transport.transport import MemberTransport

AUDITED_VERSION: Final = "0.3.17"
AUDITED_SHA256: Final = "e8bdf06797085d734df86e24ab4802fe87893dff77268565ec036f7ad4a1cfe4"

ENTRY_BYTES_MAX = 2 << 20
SEND_BYTES_MAX = ENTRY_BYTES_MAX + (64 << 10)
"""Bytes of entries in one message. Above the largest entry, or the library would cut entries into
pickled pieces; not much above it, or one message keeps the leader from its heartbeats."""

EXIT_FAIL_STOP = 70

ELECTION_S_MIN = 0.6
ELECTION_S_MAX = 1.2
LEADER_FALLBACK_S = 1.5
HEARTBEAT_S = 0.1

CATCH_UP_ENTRIES = 64
"""A member with more to apply than this does not wait for messages."""

ENTRY_TYPE: Final = b"\x00"
"""First byte of an entry for the state; others are the library's own and carry nothing."""

_NEVER = 1 << 62
_ROLES = ("follower", "candidate", "leader")
_ACCEPTED = frozenset(("append_entries", "next_node_idx", "request_vote", "response_vote"))
_PICKLE_LOADERS = ("load", "loads")
_METHODS = (
    "_SyncObj__doApplyCommand",
    "_SyncObj__onBecomeLeader",
    "_SyncObj__onMessageReceived",
    "_SyncObj__sendAppendEntries",
    "_SyncObj__sendNextNodeIdx",
    "_checkCommandsToApply",
    "_onTick",
)
_ATTRIBUTES = (
    "_SyncObj__connectedNodes",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftLog",
    "_SyncObj__raftState",
    "_SyncObj__transport",
)

logger = logging.getLogger(__name__)


class EngineError(Exception):
    """Raft cannot start here. The message says why and what to do."""


@contextmanager
def stop_on_failure(what: str) -> Iterator[None]:
    """End the process at once, with exit code 70, when the code inside raises anything.

    Used for our own defects and for input and output that failed: nothing that runs afterwards
    could be trusted, and the store and the journal are whole at any instant.
    """
    try:
        yield
    except Exception:
        logger.critical("stopped: %s failed", what, exc_info=True)
        os._exit(EXIT_FAIL_STOP)


def stop_now(reason: str) -> NoReturn:
    """End the process at once, with exit code 70: the disk does not do what it is told."""
    logger.critical("stopped: %s", reason)
    os._exit(EXIT_FAIL_STOP)


def check_library() -> None:
    """Raise `EngineError` unless pysyncobj is, byte for byte, the version that was audited."""
    digest = hashlib.sha256(Path(syncobj.__file__).read_bytes()).hexdigest()
    missing = [name for name in _METHODS if name not in SyncObj.__dict__]
    if not hasattr(syncobj, "createJournal"):
        missing.append("createJournal")
    if syncobj.VERSION != AUDITED_VERSION or digest != AUDITED_SHA256 or missing:
        raise EngineError(
            f"pysyncobj {syncobj.VERSION} (sha256 {digest[:16]}…) is not the audited "
            f"{AUDITED_VERSION}. Next: pip install --force-reinstall pysyncobj=={AUDITED_VERSION}"
        )


def forbid_pickle() -> None:
    """Make every function by which the library loads a pickle raise instead, in all its modules.

    None of them is ever reached; should one be, the member stops before a byte is looked at.
    """
    for name, module in list(sys.modules.items()):
        if name == "pysyncobj" or name.startswith("pysyncobj."):
            for function in _PICKLE_LOADERS:
                if callable(getattr(module, function, None)):
                    setattr(module, function, _refuse_pickle)


def _refuse_pickle(*_: object) -> None:
    raise RuntimeError("a pickle was to be loaded")


def check_address_free(address: str) -> None:
    """Raise `EngineError` when this machine cannot listen on `address` (HOST:PORT).

    The library only says that binding failed, not why.
    """
    host, _, port = address.rpartition(":")
    try:
        family, target = resolve(address)
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(target)
            probe.listen(1)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise EngineError(
                f"port {port} of {host} is in use. Next: stop what listens there "
                f"(ss -ltnp 'sport = :{port}'), or give this member another address."
            ) from error
        raise EngineError(
            f"cannot listen on {address}: {error}. "
            "Next: use an address HOST:PORT of this machine, with a port from 1024 to 65533."
        ) from error


class RaftEngine(SyncObj):  # type: ignore[misc]  # the library has no types
    """One Raft replica. Drive it with `doTick(seconds)` from one thread.

    `on_applied(index, entry, receipts)` is called after each entry was applied; `on_tick()` in
    every tick between applying and sending, the place to `propose`. Exceptions of both, and of
    the machine, stop the process.
    """

    def __init__(
        self,
        *,
        address: str,
        peers: Sequence[str],
        credentials: Credentials,
        journal: Journal,
        machine: StateMachine,
        on_applied: Callable[[int, bytes, list[bytes]], None],
        on_tick: Callable[[], None],
    ) -> None:
        """Listen on `address` and connect to `peers` (HOST:PORT each).

        `credentials` say who the members are and where this one's certificates lie. Raises
        `EngineError` when the library is not the audited one, the address cannot be used, or peers
        would refuse the certificate.
        """
        check_library()
        forbid_pickle()
        try:
            security = Security(credentials)
        except ConfigError as error:
            raise EngineError(str(error)) from error
        check_address_free(address)
        self._journal = journal
        self._machine = machine
        self._on_applied = on_applied
        self._on_tick_hook = on_tick
        self._guard = AppendGuard(journal)
        self._peer_ids = frozenset(peers)
        self._sent = (0, 0)
        self._votes: tuple[int, frozenset[str]] = (0, frozenset())
        self._held: list[tuple[Any, Message]] = []
        if machine.raft_index == 0:
            machine.skip(1)  # Every log begins with a no-op that the library takes as applied.
        syncobj.createJournal = lambda journal: journal
        try:
            super().__init__(
                address,
                list(peers),
                conf=SyncObjConf(
                    autoTick=False,
                    journalFile=journal,
                    appendEntriesUseBatch=True,
                    appendEntriesPeriod=HEARTBEAT_S,
                    appendEntriesBatchSizeBytes=SEND_BYTES_MAX,
                    raftMinTimeout=ELECTION_S_MIN,
                    raftMaxTimeout=ELECTION_S_MAX,
                    leaderFallbackTimeout=LEADER_FALLBACK_S,
                    commandsWaitLeader=False,
                    dynamicMembershipChange=False,
                    useFork=False,
                    logCompactionMinEntries=_NEVER,
                    logCompactionMinTime=_NEVER,
                ),
                transportClass=partial(MemberTransport, security=security),
            )
        except pysyncobj.SyncObjException as error:
            raise EngineError(
                f"cannot listen on {address}: {error}. Next: see what listens there."
            ) from error
        missing = [name for name in _ATTRIBUTES if not hasattr(self, name)]
        if missing:
            raise EngineError(f"pysyncobj lacks {', '.join(missing)}. Next: reinstall it.")
        self._SyncObj__raftLastApplied = machine.raft_index

    @property
    def role(self) -> str:
        """`leader`, `follower` or `candidate`."""
        return _ROLES[self._SyncObj__raftState]

    @property
    def is_leader(self) -> bool:
        """Whether this member leads, as far as it knows; another may lead a newer term."""
        return self.role == "leader"

    @property
    def is_current(self) -> bool:
        """Whether this member leads and has applied an entry of its own term.

        Only then does its state hold everything that was committed before its term began.
        """
        index = self._machine.raft_index
        if not self.is_leader or not 0 < index <= self._journal.last_index:
            return False
        return bool(self._journal.entry(index)[2] == self.raftCurrentTerm)

    @property
    def leader_address(self) -> str | None:
        """Address of the last known leader of the current term."""
        leader = self._getLeader()
        return None if leader is None else str(leader.id)

    @property
    def connected(self) -> frozenset[str]:
        """Addresses of the peers with a live connection."""
        return frozenset(node.id for node in self.otherNodes if self.isNodeConnected(node))

    @property
    def in_flight(self) -> int:
        """Number of entries in the journal that are not applied."""
        return self._journal.last_index - int(self.raftLastApplied)

    @property
    def poller(self) -> Any:
        """The library's poller: `subscribe(fd, callback(fd, mask), mask)`, `unsubscribe(fd)`."""
        return self._poller

    def propose(self, entry: bytes) -> int:
        """Append `entry` to this leader's journal and return its index; it leaves in this tick.

        That it is proposed does not mean that it will be applied. Only for leaders, from `on_tick`.
        Raises ValueError when the entry is larger than `ENTRY_BYTES_MAX`.
        """
        if len(entry) > ENTRY_BYTES_MAX:
            raise ValueError(f"entry of {len(entry)} bytes, at most {ENTRY_BYTES_MAX}")
        assert self.is_leader
        index = self._journal.last_index + 1
        self._journal.add(ENTRY_TYPE + entry, index, int(self.raftCurrentTerm))
        return index

    def _onTick(self, timeToWait: float = 0.0) -> None:
        """One tick. Everything that arrived in the one before goes to the disk at once, and only
        then is it acknowledged, counted as this member's own copy, and applied."""
        self._journal.sync()
        self._release_held()
        if self.raftCommitIndex - self.raftLastApplied > CATCH_UP_ENTRIES:
            timeToWait = 0.0  # Slices of the journal are bounded: there is more to apply at once.
        super()._onTick(timeToWait)

    def _release_held(self) -> None:
        """Send the acknowledgements of what is on the disk now; of several agreements in a row the
        last one says it all."""
        term, synced_index, held = int(self.raftCurrentTerm), self._journal.synced_index, self._held
        self._held = []
        for (node, message), following in zip(held, [*held, None][1:], strict=True):
            if message["term"] == term and not _is_covered(node, message, following):
                assert not message["success"] or message["next_node_idx"] <= synced_index + 1
                self._SyncObj__transport.send(node, message)

    def _SyncObj__onBecomeLeader(self) -> None:
        """A leader alone counts its first entry as committed in the same tick: sync it first."""
        super()._SyncObj__onBecomeLeader()
        self._journal.sync()

    def _checkCommandsToApply(self) -> None:
        """In place of the library's command queue: let the owner propose, then send what is new,
        and write it while it is on its way.

        The commit index is news as well: without it followers would apply a heartbeat late.
        """
        with stop_on_failure("the tick"):
            self._on_tick_hook()
        news = (self._journal.last_index, int(self.raftCommitIndex))
        has_room_again = self._SyncObj__transport.take_has_room_again()
        if (news != self._sent or has_room_again) and self.is_leader:
            self._sent = news
            self._SyncObj__sendAppendEntries()
        self._journal.sync()

    def _SyncObj__sendAppendEntries(self) -> None:
        """The library's, for the peers that keep up: one with much unread gets no more for now."""
        connected: Any = self._SyncObj__connectedNodes
        self._SyncObj__connectedNodes: Any = _KeepingUp(self._SyncObj__transport)
        try:
            SyncObj._SyncObj__sendAppendEntries(self)
        finally:
            self._SyncObj__connectedNodes = connected

    def _SyncObj__doApplyCommand(self, command: bytes) -> None:
        """Apply one committed entry. Nothing but type 0 is ours; the library's no-ops are skipped,
        and so is everything else, unread: nothing is unpickled here."""
        index = int(self.raftLastApplied) + 1
        with stop_on_failure(f"entry {index}"):
            if index != self._machine.raft_index + 1:
                raise RuntimeError(f"index {index} follows {self._machine.raft_index}")
            if index > self._journal.synced_index:
                raise RuntimeError(f"only {self._journal.synced_index} is on the disk")
            if command[:1] != ENTRY_TYPE:
                self._machine.skip(index)
                return
            entry = command[1:]
            self._on_applied(index, entry, self._machine.apply(index, entry))

    def _SyncObj__onMessageReceived(self, node: Any, message: Any) -> None:
        """Let through the four messages of Raft from members, append_entries corrected.

        What an older term said is dropped, whatever it is. So is an acknowledgement of a term that
        is not this one, or of entries that were never sent, and the second vote of a member.
        """
        if node.id not in self._peer_ids or message["type"] not in _ACCEPTED:
            return
        term = int(self.raftCurrentTerm)
        if message["term"] < term:
            return
        if message["type"] == "next_node_idx" and (
            message["term"] != term or message["next_node_idx"] > self._journal.last_index + 1
        ):
            return
        if message["type"] == "response_vote" and not self._is_first_vote(node.id, term):
            return
        if message["type"] != "append_entries":
            SyncObj._SyncObj__onMessageReceived(self, node, message)
            return
        decision = self._guard.check(
            message, commit_index=int(self.raftCommitIndex), now_s=time.monotonic()
        )
        SyncObj._SyncObj__onMessageReceived(self, node, decision.message)
        if decision.answer is not None:
            self._SyncObj__sendNextNodeIdx(
                node,
                reset=decision.answer.reset,
                nextNodeIdx=decision.answer.next_index,
                success=decision.answer.success,
            )

    def _is_first_vote(self, node_id: str, term: int) -> bool:
        """Note a vote; the library would count one that comes twice as two."""
        voted_term, voters = self._votes
        if voted_term != term:
            voters = frozenset()
        self._votes = (term, voters | {node_id})
        return node_id not in voters

    def _SyncObj__sendNextNodeIdx(
        self, node: Any, reset: bool = False, nextNodeIdx: int | None = None, success: bool = False
    ) -> None:
        """The library's acknowledgement, with the term it belongs to, held until the next sync."""
        message = {
            "type": "next_node_idx",
            "next_node_idx": self._journal.last_index + 1 if nextNodeIdx is None else nextNodeIdx,
            "reset": reset,
            "success": success,
            "term": int(self.raftCurrentTerm),
        }
        self._held.append((node, message))


def _is_covered(node: Any, message: Message, following: tuple[Any, Message] | None) -> bool:
    """Whether an agreement is followed by one for the same member that says as much or more."""
    if following is None or following[0] is not node:
        return False
    is_agreement = message["success"] and following[1]["success"]
    return bool(is_agreement and following[1]["next_node_idx"] >= message["next_node_idx"])


class _KeepingUp:
    """In the place of the library's set of connected nodes while it sends entries."""

    def __init__(self, transport: MemberTransport) -> None:
        self._transport = transport

    def __contains__(self, node: object) -> bool:
        return not self._transport.is_full(node)
