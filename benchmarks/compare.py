"""Two documents, row by row: what became faster or slower between two commits."""

from __future__ import annotations

from typing import Any

from vcp_cluster.benchmarks.document import Document, Row

_MUST_AGREE = ("members", "seconds", "is_quick")
_MACHINE = ("processor", "cores", "file_system", "python")


def compare_documents(first: Document, second: Document) -> dict[str, Any]:
    """The document `vcp/benchmark-comparison/v1`.

    `differences` names the conditions in which the two runs differ. CPU for each operation depends
    least on what else a machine does, so it is the figure to watch.
    """
    before = {(row.workload, row.system): row for row in first.rows}
    after = {(row.workload, row.system): row for row in second.rows}
    return {
        "schema": "vcp/benchmark-comparison/v1",
        "commits": [first.machine.commit, second.machine.commit],
        "differences": _differences(first, second),
        "rows": [_compare(row, after[key]) for key, row in before.items() if key in after],
        "only_first": [" ".join(key) for key in before if key not in after],
        "only_second": [" ".join(key) for key in after if key not in before],
    }


def _differences(first: Document, second: Document) -> list[str]:
    pairs = [(name, getattr(first, name), getattr(second, name)) for name in _MUST_AGREE]
    pairs += [
        (name, getattr(first.machine, name), getattr(second.machine, name)) for name in _MACHINE
    ]
    pairs += [
        (f"fsync of {system}", settings.fsync, second.settings[system].fsync)
        for system, settings in first.settings.items()
        if system in second.settings
    ]
    return [f"{name}: {old} before, {new} after" for name, old, new in pairs if old != new]


def _compare(before: Row, after: Row) -> dict[str, Any]:
    return {
        "workload": before.workload,
        "system": before.system,
        "ops_per_s": _change(before.ops_per_s, after.ops_per_s),
        "p50_ms": _change(before.p50_ms, after.p50_ms),
        "p99_ms": _change(before.p99_ms, after.p99_ms),
        "cpu_us_per_op": _change(before.cpu_us_per_op, after.cpu_us_per_op),
        "rss_mb": _change(before.rss_mb, after.rss_mb),
        "ratio_to_etcd": _change(before.ratio_to_etcd, after.ratio_to_etcd),
    }


def _change(before: float | None, after: float | None) -> dict[str, float | None]:
    """Both values and the quotient of the second by the first, where there is one."""
    factor = after / before if before and after is not None else None
    return {"before": before, "after": after, "factor": factor}
