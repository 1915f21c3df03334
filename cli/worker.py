"""`vcp-cluster worker`: run tasks for pay."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.options import PATH, finds
from vcp_cluster.cli.values import shorten

if TYPE_CHECKING:
    from vcp_cluster.cluster.worker.events import WorkerEvent

CAPACITY_MAX = 64


@click.group(
    cls=Group,
    examples=(
        "vcp-cluster worker run --key worker.key",
        "vcp-cluster worker run --cluster http://10.0.0.1:7101 --key worker.key --device server",
    ),
)
def worker() -> None:
    """Run tasks on this machine for pay."""


@worker.command(
    "run",
    examples=(
        "vcp-cluster worker run --key worker.key",
        "vcp-cluster worker run --cluster http://10.0.0.1:7101 --key worker.key --device server",
    ),
)
@click.option(
    "--key",
    "node_key_file",
    type=PATH,
    required=True,
    metavar="FILE",
    help="The node's key file; made if it is missing. What the node earns is its account's.",
)
@click.option(
    "--device", default="pc", show_default=True, help="gateway, smartphone, pc or server."
)
@click.option(
    "--capacity",
    type=click.IntRange(1, CAPACITY_MAX),
    default=1,
    show_default=True,
    help="Tasks at a time.",
)
@click.option("--fault", type=click.Choice(("wrong-output",)), hidden=True)
@finds
def run(access: Access, node_key_file: Path, device: str, capacity: int, fault: str | None) -> None:
    """Register this machine as a compute node and run tasks until Ctrl-C or SIGTERM.

    Each task runs in a process of its own, without network or files. A second signal ends at once.
    """
    from vcp_cluster.cluster.processes import follow_if_asked

    follow_if_asked()
    from vcp_cluster.cluster.devices import get_device
    from vcp_cluster.cluster.worker import Fault, run_worker
    from vcp_cluster.ledger.keys import public_key

    endpoints, profile = access.get_endpoints(), get_device(device)
    seed = _load_or_make_seed(node_key_file)
    output = access.output

    def tell(event: WorkerEvent) -> None:
        document = {
            "schema": "vcp/worker-event/v1",
            "event": str(event.kind),
            "task": event.task,
            "detail": event.detail,
        }
        task = f"task {shorten(event.task)} " if event.task else ""
        output.event(document, f"{task}{event.kind}{': ' if event.detail else ''}{event.detail}")

    output.note(f"node {public_key(seed).hex()}, {device}, capacity {capacity}")
    if fault is not None:
        output.note("this worker lies on purpose (--fault): for demonstrations and tests only")
    run_worker(
        endpoints=endpoints,
        seed=seed,
        device=profile,
        capacity=capacity,
        stop=_stop_on_signals(),
        on_event=tell,
        fault=None if fault is None else Fault(fault),
    )


def _load_or_make_seed(path: Path) -> bytes:
    """The seed of a key file, which is made with a random one if it is missing."""
    import secrets

    from vcp_cluster.cluster.directory import SEED_BYTES, load_seed, write_seed

    if not path.exists():
        write_seed(path, secrets.token_bytes(SEED_BYTES))
    return load_seed(path)


def _stop_on_signals() -> threading.Event:
    """An event that the first SIGINT or SIGTERM sets; the second one ends the process."""
    stop = threading.Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    return stop
