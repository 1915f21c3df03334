"""The Raft process of a member: one thread that ticks until it is told to stop."""

from __future__ import annotations

import gc
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from vcp_cluster.cluster.files import Files, SystemFiles
from vcp_cluster.cluster.files_watch import WatchedFiles
from vcp_cluster.cluster.raft.engine import EngineError, stop_now, stop_on_failure
from vcp_cluster.cluster.raft.journal import Journal, JournalError
from vcp_cluster.cluster.raft.machine import StateMachine
from vcp_cluster.cluster.raft.rebuild import apply_committed
from vcp_cluster.cluster.raft.server import SocketError
from vcp_cluster.cluster.raft.service import RaftService
from vcp_cluster.cluster.raft.transport.security import Credentials

TICK_S = 0.05
"""Longest wait for messages; timers are looked at this often. Messages end the wait."""

SWITCH_INTERVAL_S = 0.0005

DISK_STALL_S = 10.0
"""A disk that does not answer for so long has failed; a healthy one takes milliseconds."""

EXIT_OK = 0
EXIT_CANNOT_START = 1

logger = logging.getLogger(__name__)


def wall_clock_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def run_raft_process(
    *,
    name: str,
    address: str,
    peers: Mapping[str, str],
    credentials: Credentials,
    journal_path: Path,
    socket_path: Path,
    machine: StateMachine,
    clock_ms: Callable[[], int] = wall_clock_ms,
    files: Files | None = None,
    disk_stall_s: float = DISK_STALL_S,
) -> int:
    """Run member `name` at `address` (HOST:PORT) until SIGTERM, SIGINT or the method `stop`.

    `peers` maps member names to addresses; the member itself may be among them. `credentials` say
    who they are. `journal_path` is a directory. `clock_ms` stamps entries. `files` is the system's
    own; others are for tests, which let it fail. The machine is closed at the end in any case.

    Returns the exit code: 0 after an orderly stop, 1 when the member cannot start (the reason is
    logged as an error). A defect, or a disk that fails or does not answer for `disk_stall_s`
    seconds, ends the process at once with code 70.
    """
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    watched = WatchedFiles(
        files or SystemFiles(),
        limit_s=disk_stall_s,
        on_stall=lambda what: stop_now(
            f"journal {journal_path}: {what} has not returned for {disk_stall_s:g} s. "
            "Next: check the disk, then start the member again."
        ),
    )
    try:
        journal = Journal(
            journal_path,
            chain_id=machine.chain_id,
            committed_index=machine.known_index,
            files=watched,
            on_failure=lambda failure: stop_now(str(failure)),
        )
        apply_committed(journal, machine)
        service = RaftService(
            name=name,
            address=address,
            peers={other: peer for other, peer in peers.items() if other != name},
            credentials=credentials,
            journal=journal,
            socket_path=socket_path,
            machine=machine,
            clock_ms=clock_ms,
        )
    except (EngineError, JournalError, SocketError) as error:
        logger.error("%s", error)
        machine.close()
        return EXIT_CANNOT_START

    def stop(_signal: int, _frame: FrameType | None) -> None:
        service.is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    gc.freeze()
    with stop_on_failure("the Raft process"):
        while not service.is_stopping:
            service.tick(TICK_S)
        service.close()
        machine.close()
    return EXIT_OK
