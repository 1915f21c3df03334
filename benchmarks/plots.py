"""Plots of a document: throughput over clients, distributions of latency, growth."""

from __future__ import annotations

from collections import defaultdict
from importlib import import_module
from pathlib import Path
from typing import Any

from vcp_cluster.benchmarks.document import Document, Row

_SINGLE = ("sequential", "single-64", "single-256")


def draw_plots(document: Document, directory: Path) -> list[Path]:
    """Draw what the document has figures for, as SVG; the files that were written.

    Every plot names commit and machine. Needs matplotlib. Raises `OSError`.
    """
    matplotlib: Any = import_module("matplotlib")
    matplotlib.use("svg")
    pyplot: Any = import_module("matplotlib.pyplot")
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, draw in (
        ("throughput", _draw_throughput),
        ("latency", _draw_latency),
        ("growth", _draw_growth),
    ):
        figure, axes = pyplot.subplots(figsize=(8, 5))
        if draw(axes, document.rows):
            machine = document.machine
            axes.set_title(f"{name}, {machine.commit}, {machine.processor}, {machine.cores} cores")
            axes.grid(visible=True, alpha=0.3)
            axes.legend(fontsize="small")
            path = directory / f"{name}.svg"
            figure.savefig(path)
            written.append(path)
        pyplot.close(figure)
    return written


def label(row: Row) -> str:
    """The system, and what it does not promise."""
    return row.system if row.fsync else f"{row.system} (no fsync)"


def _draw_throughput(axes: Any, rows: list[Row]) -> bool:
    """Acknowledged records per second over the number of clients."""
    points: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for row in rows:
        if row.workload in _SINGLE and row.ops_per_s is not None:
            points[label(row)].append((row.clients, row.ops_per_s))
    for name, one in points.items():
        clients, rates = zip(*sorted(one), strict=True)
        axes.plot(clients, rates, marker="o", label=name)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xlabel("clients, one record in a request")
    axes.set_ylabel("acknowledged records/s")
    return bool(points)


def _draw_latency(axes: Any, rows: list[Row]) -> bool:
    """The share of requests that took at most so long."""
    drawn = [row for row in rows if row.workload in _SINGLE and row.latency_quantiles_ms]
    for row in drawn:
        count = len(row.latency_quantiles_ms) + 1
        shares = [number / count for number in range(1, count)]
        axes.plot(row.latency_quantiles_ms, shares, label=f"{row.workload} {label(row)}")
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds")
    axes.set_ylabel("share of requests")
    return bool(drawn)


def _draw_growth(axes: Any, rows: list[Row]) -> bool:
    """Throughput with many records as a share of that with none."""
    drawn = [row for row in rows if "throughput_kept" in row.detail]
    for row in drawn:
        points = ([0, row.detail["records"]], [1.0, row.detail["throughput_kept"]])
        axes.plot(*points, marker="o", label=label(row))
    axes.set_xlabel("records")
    axes.set_ylabel("throughput, 1 when empty")
    axes.set_ylim(bottom=0)
    return bool(drawn)
