"""Documents and rows as a run makes them, for tests."""

from __future__ import annotations

from typing import Any

from vcp_cluster.benchmarks.document import Document, Row
from vcp_cluster.benchmarks.machine.describe import Machine
from vcp_cluster.benchmarks.machine.limits import Latency, Limits
from vcp_cluster.benchmarks.systems.base import Settings
from vcp_cluster.benchmarks.workloads.table import ABSENT

_LATENCY = Latency(ops_per_s=4_000.0, p50_us=150.0, p99_us=900.0)


def make_row(system: str, ops_per_s: float | None, **fields: Any) -> Row:
    """A row of `single-64`; etcd's syncs unless told otherwise."""
    defaults: dict[str, Any] = {
        "workload": "single-64",
        "clients": 64,
        "p50_ms": 2.0,
        "p99_ms": 9.0,
        "cpu_us_per_op": 240.0,
        "rss_mb": 60.0,
        "fsync": system == "etcd",
        "ops": 1_000,
        "cores_share": 1.0,
        "latency_quantiles_ms": [number / 10 for number in range(1, 100)],
    }
    return Row(system=system, ops_per_s=ops_per_s, **{**defaults, **fields})


def make_document(rows: list[Row], **fields: Any) -> Document:
    """A document with these rows."""
    settings = {
        row.system: Settings("1.0", row.fsync, "some promise", "none", "none", "lean")
        for row in rows
    }
    return Document(
        created="2026-01-01T00:00:00+00:00",
        seed=1,
        members=3,
        seconds=2.0,
        is_quick=True,
        machine=Machine("processor", 2, 8_000, "6.1", "3.11", "ext4", True, "0123456789ab"),
        limits=Limits(_LATENCY, 9_000.0, 18_000.0, 200_000.0, 100_000.0, _LATENCY),
        settings=settings,
        rows=rows,
        absent=list(ABSENT),
        checked=["etcd: 1000 acknowledged records: every value read back"],
        **fields,
    )
