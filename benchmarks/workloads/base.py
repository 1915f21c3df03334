"""What all workloads have in common: the plan they follow and how rows are made of samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from vcp_cluster.benchmarks.document import Row
from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.machine.usage import read_memory_mb
from vcp_cluster.benchmarks.systems.base import Shape, System

Report = Callable[[str], None]
_QUANTILES = 100


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large a run is. `sizes` are the numbers of records for restart and growth."""

    members: int
    seconds: float
    kills: int
    restarts: int
    tasks: int
    sizes: tuple[int, ...]


class Workload(Protocol):
    """Something done to a system that gives rows."""

    @property
    def name(self) -> str:
        """The name on the command line."""

    def suits(self, system: System, plan: Plan) -> str:
        """Why there can be no row for this system; empty when there can."""

    def run(self, system: System, plan: Plan, report: Report) -> list[Row]:
        """Do it to a started system."""


def make_row(
    workload: str,
    system: System,
    times_ms: Sequence[float],
    *,
    clients: int,
    ops: int,
    cores_share: float,
    ops_per_s: float | None = None,
    cpu_us_per_op: float | None = None,
    client_cpu_share: float = 0.0,
    repeats: int = 0,
    detail: dict[str, float] | None = None,
) -> Row:
    """A row from what single operations took."""
    if not times_ms:
        raise BenchmarkFailed(
            f"{workload} on {system.name}: nothing was acknowledged in the window",
            next_step="give it more --seconds",
        )
    ordered = sorted(times_ms)
    pids = system.member_pids()
    return Row(
        workload=workload,
        system=system.name,
        clients=clients,
        ops_per_s=ops_per_s,
        p50_ms=get_quantile(ordered, 0.5),
        p99_ms=get_quantile(ordered, 0.99),
        cpu_us_per_op=cpu_us_per_op,
        rss_mb=max(read_memory_mb(pid) for pid in pids.values()),
        fsync=system.settings.fsync,
        ops=ops,
        cores_share=cores_share,
        client_cpu_share=client_cpu_share,
        repeats=repeats,
        latency_quantiles_ms=[
            get_quantile(ordered, number / _QUANTILES) for number in range(1, _QUANTILES)
        ],
        detail=detail or {},
    )


def get_quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all do not exceed; `ordered` is sorted."""
    return ordered[max(0, -(-int(len(ordered) * share * 1_000_000) // 1_000_000) - 1)]


def fill(system: System, records: int, report: Report) -> int:
    """Add at least so many records as fast as it goes; returns how many were added."""
    shape = Shape(clients=16, operations=128)
    added = 0
    while added < records:
        # A piece at a time: prepared requests are kept in memory until they are acknowledged.
        left = -(-(records - added) // (shape.clients * shape.records))
        outcome = system.load(shape, min(left, FILL_REQUESTS_MAX), FILL_S_MAX)
        added += outcome.answered * shape.records
        if records > REPORT_RECORDS:
            report(f"{system.name}: {added} of {records} records")
    return added


FILL_REQUESTS_MAX = 24
FILL_S_MAX = 300.0
REPORT_RECORDS = 200_000
