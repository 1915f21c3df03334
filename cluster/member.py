"""A member: the Raft process, which owns the store, and the door process, as one.

The two are children of this process. When one of them ends, so does the other, and the member exits
with the code of the one that ended first. When this process is killed, the kernel takes the
children with it, so that `kill -9` of a member leaves nothing behind.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

from vcp_cluster.cluster.directory import MemberDirectory
from vcp_cluster.cluster.processes import follow_if_asked

STOP_TIMEOUT_S = 10.0
_PARTS = ("raft", "door")


def run_member(directory: Path) -> int:
    """Run a member until SIGTERM or SIGINT, or until a part of it ends; returns the exit code."""
    follow_if_asked()
    from vcp_cluster.cluster.certification import check_member

    member = MemberDirectory.load(directory)  # refuse what is wrong before anything starts
    check_member(member)
    children = {part: _start(part, member.path) for part in _PARTS}

    def stop(number: int, _frame: FrameType | None) -> None:
        _signal_all(children, signal.SIGTERM)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        return _supervise(children)
    finally:
        _signal_all(children, signal.SIGKILL)
        for child in children.values():
            child.wait()


def _start(part: str, directory: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "vcp_cluster.cluster.process", part, str(directory)]
    # Of its own session: Ctrl-C reaches this process only, which stops both in order.
    return subprocess.Popen(
        [*command, str(os.getpid())], stdin=subprocess.DEVNULL, start_new_session=True
    )


def _signal_all(children: dict[str, subprocess.Popen[bytes]], number: int) -> None:
    for child in children.values():
        if child.poll() is None:
            child.send_signal(number)


def _supervise(children: dict[str, subprocess.Popen[bytes]]) -> int:
    """Wait for the first child to end, stop the other; the first one's code."""
    pids = {child.pid: child for child in children.values()}
    first = -1
    while first not in pids:
        first, status = os.waitpid(-1, 0)
    pids[first].returncode = code = os.waitstatus_to_exitcode(status)
    _signal_all(children, signal.SIGTERM)
    deadline = time.monotonic() + STOP_TIMEOUT_S
    for child in children.values():
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
    return code if code >= 0 else 128 - code
