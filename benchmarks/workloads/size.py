"""What the number of records changes: the restart of a member, memory, and throughput."""

from __future__ import annotations

from vcp_cluster.benchmarks.document import Row
from vcp_cluster.benchmarks.machine.limits import measure_cores_share
from vcp_cluster.benchmarks.systems.bare import BarePysyncobj
from vcp_cluster.benchmarks.systems.base import Shape, System
from vcp_cluster.benchmarks.systems.network import as_network
from vcp_cluster.benchmarks.workloads.base import Plan, Report, fill, make_row
from vcp_cluster.benchmarks.workloads.throughput import Throughput

_PROBE = Shape(64)


def size_name(records: int) -> str:
    """10k, 100k, 1m."""
    return f"{records // 1_000_000}m" if records >= 1_000_000 else f"{records // 1_000}k"


class Restart:
    """A member is killed and restarted at each size, while nothing else happens."""

    name = "restart"

    def suits(self, system: System, plan: Plan) -> str:
        """Whether single members can be killed, and have others to catch up with."""
        if isinstance(system, BarePysyncobj):
            return "its journal is replayed by the library, not by a server that can be asked"
        return "" if plan.members >= 3 else "a member alone has nobody to catch up with"

    def run(self, system: System, plan: Plan, report: Report) -> list[Row]:
        """A row for every size."""
        rows: list[Row] = []
        records = 0
        for size in plan.sizes:
            records += fill(system, size - records, report)
            rows.append(_measure_restarts(system, size, plan.restarts, report))
        return rows


class Growth:
    """The same 64 clients on an empty system and on one with the last size."""

    name = "growth"

    def suits(self, system: System, plan: Plan) -> str:
        """Every system grows."""
        return ""

    def run(self, system: System, plan: Plan, report: Report) -> list[Row]:
        """The row of the grown system, with what the empty one did as its details."""
        probe = Throughput(f"{self.name}-{size_name(plan.sizes[-1])}", _PROBE)
        empty = probe.measure(system, plan.seconds)
        records = fill(system, plan.sizes[-1], report)
        full = probe.measure(system, plan.seconds)
        assert empty.ops_per_s is not None and full.ops_per_s is not None
        full.detail = {
            "records": records,
            "ops_per_s_empty": empty.ops_per_s,
            "p99_ms_empty": empty.p99_ms,
            "rss_mb_empty": empty.rss_mb,
            "throughput_kept": full.ops_per_s / empty.ops_per_s,
        }
        return [full]


def _measure_restarts(system: System, size: int, restarts: int, report: Report) -> Row:
    """Kill a follower and wait until it has caught up, so many times."""
    network = as_network(system)
    times_ms = []
    for _ in range(restarts):
        leader = network.leader()
        follower = next(name for name in system.member_pids() if name != leader)
        network.kill(follower)
        times_ms.append(1000 * network.restart(follower))
        report(f"{system.name}: restarted with {size} records in {times_ms[-1]:.0f} ms")
    return make_row(
        f"restart-{size_name(size)}",
        system,
        times_ms,
        clients=0,
        ops=len(times_ms),
        cores_share=measure_cores_share(),
    )
