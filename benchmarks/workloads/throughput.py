"""Clients that write as fast as they are answered."""

from __future__ import annotations

import math
from dataclasses import dataclass

from vcp_cluster.benchmarks.document import Row
from vcp_cluster.benchmarks.load.closed_loop import Outcome
from vcp_cluster.benchmarks.systems.base import Shape, System
from vcp_cluster.benchmarks.workloads.base import Plan, Report, make_row

WARM_S = 0.5
WARM_REQUESTS = 1_500
WARM_RECORDS = 10_000
PREPARED_FACTOR = 1.5
"""More than the warm-up promises. Who runs out all the same ends the window early for everybody."""


@dataclass(frozen=True)
class Throughput:
    """One shape of load for some seconds, after a warm-up that says how much to prepare."""

    name: str
    shape: Shape

    def suits(self, system: System, plan: Plan) -> str:
        """Every system takes records, but only one takes signed transactions."""
        if self.shape.transactions > 1 and system.name == "pysyncobj":
            return "it has no transactions to sign: see operations-16x128"
        return ""

    def run(self, system: System, plan: Plan, report: Report) -> list[Row]:
        """Warm up, then measure."""
        return [self.measure(system, plan.seconds)]

    def measure(self, system: System, seconds: float) -> Row:
        """The row of one window."""
        shape = self.shape
        warm = system.load(shape, self._warm_requests(), WARM_S)
        rate = warm.answered / warm.elapsed_s
        requests = math.ceil(PREPARED_FACTOR * rate * seconds / shape.clients) + 2
        return self._row(system, system.load(shape, requests, seconds))

    def _warm_requests(self) -> int:
        budget = min(WARM_REQUESTS, WARM_RECORDS // self.shape.records)
        return max(2, budget // self.shape.clients)

    def _row(self, system: System, outcome: Outcome) -> Row:
        answered = outcome.answered * self.shape.records
        return make_row(
            self.name,
            system,
            [taken / 1e6 for taken in outcome.latencies_ns],
            clients=self.shape.clients,
            ops=answered,
            ops_per_s=outcome.counted * self.shape.records / outcome.elapsed_s,
            cpu_us_per_op=outcome.members_cpu_s * 1e6 / max(1, answered),
            client_cpu_share=outcome.client_cpu_s / outcome.elapsed_s,
            cores_share=outcome.cores_share,
            repeats=outcome.repeats,
        )
