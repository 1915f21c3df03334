"""Processor time and memory of processes, from /proc."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_PPID, _UTIME, _CSTIME = 1, 11, 14  # fields of /proc/PID/stat after the name
_OTHERS_COLUMNS = (1, 2, 3, 8)  # user, nice, system, steal of /proc/stat


def _stats() -> dict[int, tuple[int, float]]:
    """Of every process: its parent, and its CPU seconds with those of children it waited for."""
    found = {}
    for entry in _PROC.iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except OSError:
                continue  # it has just ended
            fields = text.rpartition(")")[2].split()
            ticks = sum(map(int, fields[_UTIME : _CSTIME + 1]))
            found[int(entry.name)] = (int(fields[_PPID]), ticks * _TICK_S)
    return found


def _tree(stats: Mapping[int, tuple[int, float]], roots: Iterable[int]) -> set[int]:
    """The roots and everything below them."""
    children = defaultdict(list)
    for pid, (parent, _) in stats.items():
        children[parent].append(pid)
    found: set[int] = set()
    waiting = [pid for pid in roots if pid in stats]
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children[pid]
    return found


def read_cpu_s(roots: Iterable[int]) -> float:
    """CPU seconds of processes and of all below them, to a hundredth for each process."""
    stats = _stats()
    return sum(stats[pid][1] for pid in _tree(stats, roots))


def read_memory_mb(root: int) -> float:
    """Resident memory of a process and all below it, in 10^6 bytes; shared pages count twice."""
    total = 0
    for pid in _tree(_stats(), [root]):
        try:
            fields = (_PROC / str(pid) / "statm").read_text().split()
        except OSError:
            continue
        total += int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
    return total / 1e6


def _busy_s() -> float:
    """Seconds of all cores spent in processes, and by the host on others (steal)."""
    fields = (_PROC / "stat").read_text().split("\n", 1)[0].split()
    return sum(int(fields[column]) for column in _OTHERS_COLUMNS) * _TICK_S


@dataclass
class Usage:
    """What a stretch of time cost. `cores_share` is the part of the machine that was left to us:
    1 when no process outside this process's tree ran."""

    members_cpu_s: float
    cores_share: float


class Meter:
    """Measures from its making to `read`. `roots` are the processes of the members.

    Not for a stretch in which one of them is killed: what it used goes with it, and its own children
    are nobody's.
    """

    def __init__(self, roots: Iterable[int]) -> None:
        self._roots = list(roots)
        self._start_s = time.monotonic()
        self._busy_s = _busy_s()
        self._own_s = read_cpu_s([os.getpid()])
        self._members_s = read_cpu_s(self._roots)

    def read(self) -> Usage:
        """The usage since the start."""
        members_s = read_cpu_s(self._roots) - self._members_s
        others_s = _busy_s() - self._busy_s - (read_cpu_s([os.getpid()]) - self._own_s)
        capacity_s = (time.monotonic() - self._start_s) * (os.cpu_count() or 1)
        share = 1 - others_s / capacity_s if capacity_s else 0.0
        return Usage(members_s, min(1.0, max(0.0, share)))
