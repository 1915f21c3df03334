"""Processes that end with the one that started them, so that a kill leaves nothing behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

FOLLOW_VARIABLE = "VCP_FOLLOW_PROCESS"
_PR_SET_PDEATHSIG = 1


def die_with_parent(parent: int) -> None:
    """Ask Linux to kill this process when its parent (process id) dies; elsewhere nothing."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the request
        os._exit(0)


@contextmanager
def interrupts_deferred() -> Iterator[None]:
    """Take SIGINT and SIGTERM only after the block: what it starts, it can also write down."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Signals are for the main thread.
        return
    taken: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        taken.append(number)

    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, remember) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if taken:
            signal.raise_signal(taken[0])


def following_environment() -> dict[str, str]:
    """Environment for a command that shall end with this process."""
    return {**os.environ, FOLLOW_VARIABLE: str(os.getpid())}


def follow_if_asked() -> None:
    """End with the parent if the environment says so: what long-running commands call first."""
    parent = os.environ.pop(FOLLOW_VARIABLE, "")
    if parent.isascii() and parent.isdigit():
        die_with_parent(int(parent))
