"""`vcp-cluster bench`: throughput and latency against etcd, on this machine, in one run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.demo import stop_on_signal
from vcp_cluster.cli.options import PATH, offline
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.settings import get_settings

SECONDS_MAX = 3_600.0
RUNS_MAX = 100
MEMBERS = ("1", "3", "5")


@click.group(
    cls=Group,
    examples=("vcp-cluster bench run --quick", "vcp-cluster bench compare before.json after.json"),
)
def bench() -> None:
    """Measure this cluster, etcd and bare pysyncobj on this machine.

    etcd comes with the extra: pip install 'vcp-cluster[bench]'. docs/benchmarks.md says what each
    workload does and when a ratio is withheld.
    """


@bench.command(
    "run",
    examples=(
        "vcp-cluster bench run --quick",
        "vcp-cluster bench run single-64 operations-16x128 --seconds 10 --json result.json",
    ),
)
@click.argument("workloads", metavar="[WORKLOAD]...", nargs=-1)
@click.option("--quick", is_flag=True, help="One short run of all but the longest: two minutes.")
@click.option(
    "--members", type=click.Choice(MEMBERS), default="3", show_default=True, help="Of each system."
)
@click.option(
    "--seconds",
    type=click.FloatRange(0.5, SECONDS_MAX),
    help="Length of one window; 8 by default, 2 with --quick.",
)
@click.option(
    "--runs", type=click.IntRange(1, RUNS_MAX), help="Medians of so many; 3, 1 with --quick."
)
@click.option("--seed", type=click.IntRange(0, 2**32), default=1, show_default=True)
@click.option("--json", "json_file", metavar="FILE", type=PATH, help="Write the document there.")
@click.option("--plot", "plots", metavar="DIR", type=PATH, help="Draw plots there (SVG).")
@click.option(
    "--dir",
    "directory",
    metavar="DIR",
    type=PATH,
    help="Keep data and logs there; it must be new or empty. A temporary one by default.",
)
@click.pass_context
def run(
    ctx: click.Context,
    workloads: tuple[str, ...],
    quick: bool,
    members: str,
    seconds: float | None,
    runs: int | None,
    seed: int,
    json_file: Path | None,
    plots: Path | None,
    directory: Path | None,
) -> int:
    """Run workloads, all by default, on each system in turn, and compare.

    Everything that was acknowledged is read back. Where something is lost, repeated or not verified
    there are no figures, and the exit code is 1.
    """
    from vcp_cluster.benchmarks.document import write_document
    from vcp_cluster.benchmarks.run import Order
    from vcp_cluster.benchmarks.run import run as run_benchmarks
    from vcp_cluster.benchmarks.workloads.table import NAMES
    from vcp_cluster.cli.bench_views import RESULT

    for name in workloads:
        if name not in NAMES:
            raise click.UsageError(f"no workload {name[:50]!r}; there are {', '.join(NAMES)}", ctx)
    output = Output(get_settings(ctx))
    order = Order(
        names=workloads,
        is_quick=quick,
        members=int(members),
        seconds=seconds,
        runs=runs,
        seed=seed,
    )
    _check_can_plot(plots)
    with stop_on_signal(), _directory(directory) as path:
        document = run_benchmarks(order, path, output.note)
    if json_file is not None:
        write_document(document, json_file)
    if plots is not None:
        from vcp_cluster.benchmarks.plots import draw_plots

        draw_plots(document, plots)
    output.emit(_as_builtins(document), RESULT)
    return 1 if document.failed else 0


@bench.command(
    "compare",
    examples=(
        "vcp-cluster bench compare before.json after.json",
        "vcp-cluster bench compare before.json after.json --json",
    ),
)
@click.argument("first", metavar="A.json", type=PATH)
@click.argument("second", metavar="B.json", type=PATH)
@offline
def compare(output: Output, first: Path, second: Path) -> None:
    """Compare the documents of two runs, row by row."""
    from vcp_cluster.benchmarks.compare import compare_documents
    from vcp_cluster.benchmarks.document import read_document
    from vcp_cluster.cli.bench_views import COMPARISON

    document = compare_documents(read_document(first), read_document(second))
    output.emit(document, COMPARISON)


def _as_builtins(document: Any) -> dict[str, Any]:
    import msgspec

    result: dict[str, Any] = msgspec.to_builtins(document)
    return result


def _check_can_plot(plots: Path | None) -> None:
    """Find out now and not after an hour."""
    if plots is None:
        return
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise click.UsageError("--plot needs matplotlib: pip install 'vcp-cluster[bench]'")


@contextmanager
def _directory(wanted: Path | None) -> Iterator[Path]:
    """The directory that was asked for, or a temporary one that is on a disk."""
    if wanted is not None:
        wanted.mkdir(parents=True, exist_ok=True)
        if next(wanted.iterdir(), None) is not None:
            raise click.UsageError(f"--dir {wanted} is not empty")
        yield wanted
        return
    # /tmp is often in memory, where syncing costs nothing and every figure is wrong.
    place = "/var/tmp" if Path("/var/tmp").is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vcp-bench-", dir=place) as path:
        yield Path(path)
