"""Tasks from their submission to their settlement, with real workers in real sandboxes.

Throughput is bounded by three workers that run one task at a time, and by the members, which run
every audited task again: each node's first ten, then a sample. The times between the stages are
ledger times; settlement waits for the next batch.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from vcp_cluster.benchmarks.document import Row
from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.machine.usage import Meter
from vcp_cluster.benchmarks.systems.base import System
from vcp_cluster.benchmarks.systems.cluster import OurCluster
from vcp_cluster.benchmarks.workloads.base import Plan, Report, make_row
from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.demonstration import DEVICES, reference_output_hash
from vcp_cluster.cluster.local import LocalCluster
from vcp_cluster.examples import EXAMPLES, Example
from vcp_cluster.ledger.keys import hash_content

WORKERS = 3
SUBMITTERS = 4
REWARD = 1_000
TASK_S_MAX = 120.0
_FINAL = ("settled", "expired", "cancelled")


class Lifecycle:
    """The one workload that only this cluster knows."""

    name = "lifecycle"

    def suits(self, system: System, plan: Plan) -> str:
        """Whether the system has tasks."""
        return "" if isinstance(system, OurCluster) else "it has no tasks"

    def run(self, system: System, plan: Plan, report: Report) -> list[Row]:
        """Submit, wait and check all tasks."""
        assert isinstance(system, OurCluster)
        with system.open_client() as client, _workers(system.local, client):
            meter = Meter(system.member_pids().values())
            start_s = time.monotonic()
            with ThreadPoolExecutor(SUBMITTERS) as pool:
                results = list(
                    pool.map(lambda number: _run_task(client, number), range(plan.tasks))
                )
            elapsed_s = time.monotonic() - start_s
            usage = meter.read()
            _check_money(client)
        stages = [_stages(document) for _, document in results]
        row = make_row(
            self.name,
            system,
            [taken_s * 1000 for taken_s, _ in results],
            clients=SUBMITTERS,
            ops=plan.tasks,
            ops_per_s=plan.tasks / elapsed_s,
            cpu_us_per_op=usage.members_cpu_s * 1e6 / plan.tasks,
            cores_share=usage.cores_share,
            detail={name: statistics.median(one[name] for one in stages) for name in stages[0]},
        )
        return [row]


@contextmanager
def _workers(local: LocalCluster, client: Client) -> Iterator[None]:
    """Workers that are registered and measured; they leave at the end."""
    names = [f"worker-{number}" for number in range(WORKERS)]
    for number, name in enumerate(names):
        local.start_worker(name, device=DEVICES[number % len(DEVICES)])
    try:
        local.wait_until(
            lambda: sum(node["status"] == "online" for node in client.nodes()["nodes"]) == WORKERS,
            "all workers to be online",
        )
        yield
    finally:
        for name in names:
            local.terminate(name)


def _run_task(client: Client, number: int) -> tuple[float, dict[str, Any]]:
    """Seconds from the submission to the settlement, and the task's last document."""
    example = EXAMPLES[number % len(EXAMPLES)]
    start_s = time.monotonic()
    task = client.submit_task(
        example.module.read_bytes(), example.input.read_bytes(), reward=REWARD
    )
    document = client.wait_task(task, until=_FINAL, timeout_s=TASK_S_MAX)
    taken_s = time.monotonic() - start_s
    _check_task(client, example, document)
    return taken_s, document


def _check_task(client: Client, example: Example, document: dict[str, Any]) -> None:
    """The task is settled, its proof accepted, and its output what a run here gives."""
    task = document["id"]
    if document["status"] != "settled":
        attempts = document["assignments"]
        why = f": {attempts[-1]['outcome']} {attempts[-1]['detail']}" if attempts else ""
        raise BenchmarkFailed(f"task {task[:12]} ended as {document['status']}{why}")
    if client.proof(document["proof"])["status"] != "accepted":
        raise BenchmarkFailed(f"task {task[:12]} was settled with a proof that is not accepted")
    if hash_content(client.output(task)) != reference_output_hash(example):
        raise BenchmarkFailed(f"task {task[:12]} has a wrong output")


def _check_money(client: Client) -> None:
    """Every unit is somewhere."""
    supply = client.status()["supply"]
    if supply["minted"] != supply["accounted"]:
        raise BenchmarkFailed(
            f"of {supply['minted']} units {supply['accounted']} are accounted for"
        )


def _stages(document: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of ledger time from the submission to the assignment, and on to the proof."""
    submitted = datetime.fromisoformat(document["submitted"]["time"])
    assigned = datetime.fromisoformat(document["assignments"][-1]["time"])
    return {
        "assigned_after_ms": (assigned - submitted).total_seconds() * 1000,
        "attempts": float(document["attempts"]),
        "gas": float(document["gas"] or 0),
    }
