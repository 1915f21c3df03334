"""`vcp-cluster dev`: the demo's cluster, kept up until Ctrl-C."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.demo import MEMBERS_MAX, NODES_MAX, make_reporter, stop_on_signal
from vcp_cluster.cli.options import offline
from vcp_cluster.cli.output import Output

_CLUSTER_NAME = "dev"


@click.command(
    cls=Command,
    examples=("vcp-cluster dev", "vcp-cluster dev --members 3 --workers 2 --liars 1"),
)
@click.option("--members", type=click.IntRange(1, MEMBERS_MAX), default=3, show_default=True)
@click.option("--workers", type=click.IntRange(1, NODES_MAX), default=3, show_default=True)
@click.option(
    "--liars",
    type=click.IntRange(0, NODES_MAX),
    default=0,
    show_default=True,
    help="How many of the workers return wrong results.",
)
@click.option(
    "--dir",
    "directory",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the cluster here, or open one that is there; else it is removed at the end.",
)
@offline
def dev(output: Output, members: int, workers: int, liars: int, directory: Path | None) -> int:
    """Run a cluster with workers on this machine until Ctrl-C.

    Writes a profile, so that the next command in another terminal needs no flags.
    """
    if liars > workers:
        raise click.UsageError("--liars is at most --workers")
    from vcp_cluster.cluster.demonstration import DEVICES, Step
    from vcp_cluster.cluster.local import FIRST_PORT, LocalCluster
    from vcp_cluster.cluster.profile import Profile, remove_profile, write_profile
    from vcp_cluster.ledger.genesis import compute_chain_id

    report = make_reporter(output)
    with stop_on_signal(), _place(directory) as place:
        if (place / "genesis.json").exists():
            cluster = LocalCluster.open(place)
        else:
            cluster = LocalCluster.create(
                place, members=members, cluster_name=_CLUSTER_NAME, first_port=FIRST_PORT
            )
        with cluster:
            profile = Profile(
                cluster=cluster.endpoints,
                directory=str(cluster.client_directory.resolve()),
                chain_id=compute_chain_id(cluster.genesis).hex(),
            )
            report(Step("members", f"starting {len(cluster.names)} members"))
            cluster.start_members()
            cluster.wait_ready()
            write_profile(profile)
            try:
                for number in range(workers):
                    fault = "wrong-output" if number < liars else None
                    device = DEVICES[number % len(DEVICES)]
                    cluster.start_worker(f"node-{number + 1}", device=device, fault=fault)
                    report(Step("workers", f"node-{number + 1} ({device}) started"))
                report(Step("ready", f"HTTP at {cluster.endpoints}"))
                output.note(
                    "\nIn another terminal:\n"
                    "  vcp-cluster status\n"
                    "  vcp-cluster task submit --module examples/wordcount.wasm "
                    "--input README.md --reward 10 --wait\n"
                    "Ctrl-C stops it."
                )
                _sleep_until_interrupted()
            except KeyboardInterrupt:
                report(Step("stop", "stopping workers and members"))
            finally:
                remove_profile(profile)
    return 0


def _sleep_until_interrupted() -> None:
    while True:
        signal.pause()


@contextmanager
def _place(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory(prefix="vcp-dev-", ignore_cleanup_errors=True) as name:
        yield Path(name)
