"""All workloads by name, in the order in which a session runs them; and those that are absent."""

from __future__ import annotations

from collections.abc import Sequence

from vcp_cluster.benchmarks.document import Absent
from vcp_cluster.benchmarks.systems.base import Shape
from vcp_cluster.benchmarks.workloads.base import Workload
from vcp_cluster.benchmarks.workloads.leader_kill import LeaderKill
from vcp_cluster.benchmarks.workloads.lifecycle import Lifecycle
from vcp_cluster.benchmarks.workloads.size import Growth, Restart
from vcp_cluster.benchmarks.workloads.throughput import Throughput

THROUGHPUT = (
    Throughput("sequential", Shape(1)),
    Throughput("single-64", Shape(64)),
    Throughput("single-256", Shape(256)),
    Throughput("signed-1x128", Shape(1, transactions=128)),
    Throughput("signed-16x128", Shape(16, transactions=128)),
    Throughput("operations-1x128", Shape(1, operations=128)),
    Throughput("operations-16x128", Shape(16, operations=128)),
)
EVENTS: tuple[Workload, ...] = (Lifecycle(), LeaderKill(), Restart(), Growth())
NAMES = tuple(one.name for one in (*THROUGHPUT, *EVENTS))
QUICK_LEAVES_OUT = ("signed-1x128", "operations-1x128", "growth")

ABSENT = (
    Absent(
        "nodes-10k", "", "a member's door takes 1,024 connections, a heartbeat session needs one"
    ),
    Absent("snapshot", "", "the log is not compacted yet, so no snapshot is ever sent"),
    Absent("hand-over", "", "a leader cannot hand over yet"),
)
"""What issue 4 asks for and the cluster cannot do yet."""


def make_sessions(names: Sequence[str]) -> list[list[Workload]]:
    """The workloads of these names, those of one list to be run on one fresh cluster.

    All of the throughput shares a cluster. Whatever kills or grows one has a cluster of its own, so
    that what it reveals voids nothing else.
    """
    throughput: list[Workload] = [one for one in THROUGHPUT if one.name in names]
    events = [[one] for one in EVENTS if one.name in names]
    return [throughput, *events] if throughput else events
