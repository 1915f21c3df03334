"""`vcp-cluster demo`: the whole road once, on this machine."""

from __future__ import annotations

import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import click

from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.options import offline
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import (
    AMOUNT,
    ID,
    NOTHING,
    NUMBER,
    SHARE,
    Column,
    Document,
    Line,
    Part,
    Table,
    View,
)

# Members take ports and memory of this one machine; more shows nothing new.
MEMBERS_MAX = 7
NODES_MAX = 16
TASKS_MAX = 1_000
_CLUSTER_NAME = "demo"


def _heading(text: str) -> list[Part]:
    return [Line(), Line(text.upper())]


def _page(document: Document) -> list[Part]:
    names = {node["id"]: node["name"] for node in document["nodes"]}
    return [
        *_heading("members"),
        Table(
            [
                Column("MEMBER", "id"),
                Column("ROLE", "role"),
                Column("HEIGHT", "height", NUMBER),
                Column("STATE ROOT", "state_root", ID),
            ],
            document["members"],
            "no members",
        ),
        *_heading("health scores and declared telemetry"),
        Table(
            [
                Column("NODE", "name"),
                Column("DEVICE", "device"),
                Column("HEALTH", "health", SHARE),
                Column("REPUTATION", "reputation", SHARE),
                Column("POWER", lambda node: f"{node['telemetry']['power_mw'] / 1000:.1f} W"),
                Column("TEMP", lambda node: f"{node['telemetry']['temperature_mc'] / 1000:.0f} °C"),
                Column("CARBON", lambda node: f"{node['telemetry']['carbon_g_kwh']} g/kWh"),
                Column("LATENCY", lambda node: f"{node['telemetry']['latency_us'] / 1000:.0f} ms"),
            ],
            document["nodes"],
            "no nodes",
        ),
        *_heading("assignments and verdicts"),
        Table(
            [
                Column("TASK", "task", ID),
                Column("EXAMPLE", "name"),
                Column("NODE", lambda row: names[row["node"]]),
                Column("PROOF", "status"),
                Column("CHECKED BY", _checked_by),
            ],
            _proof_rows(document),
            "no proofs",
        ),
        *_explanations(document, names),
        *_heading("energy, estimated: declared power × time from assignment to proof"),
        Table(
            [
                Column("TASK", "task", ID),
                Column("NODE", lambda row: names[row["node"]]),
                Column("TIME", lambda row: f"{row['seconds']:.2f} s"),
                Column("ENERGY", lambda row: f"{row['energy_j']:.1f} J"),
                Column("CARBON", lambda row: f"{row['carbon_mg']:.2f} mg CO2"),
            ],
            _proof_rows(document),
            "no proofs",
        ),
        *_heading("results"),
        *(
            Line(f"{task['id'][:12]}  {task['name']}: {task['output']}")
            for task in document["tasks"]
        ),
        *_heading("rewards and balances (VCP)"),
        Table(
            [
                Column("NODE", "name"),
                Column("ACCEPTED", "accepted", NUMBER),
                Column("REJECTED", "rejected", NUMBER),
                Column("BALANCE", "balance", AMOUNT),
                Column("OF IT STAKE", "stake", AMOUNT),
            ],
            document["nodes"],
            "no nodes",
        ),
        Line(f"minted {_vcp(document['supply']['minted'])}"),
        Line(f"found  {_vcp(document['supply']['accounted'])}"),
        *_heading("settlement"),
        Table(
            [
                Column("BATCH", "batch", NUMBER),
                Column("TASKS", "count", NUMBER),
                Column("SETTLEMENT ROOT", "settlement_root", ID),
                Column("ANCHOR", lambda one: one["anchor"] and one["anchor"]["status"]),
                Column("SHOWS", lambda one: one["anchor"] and one["anchor"]["label"]),
            ],
            document["batches"],
            "no batches",
        ),
        *_heading("receipts, each verified in a fresh process without the cluster"),
        Table(
            [
                Column("TASK", "task", ID),
                Column("VALID", lambda one: "yes" if one["valid"] else "NO"),
                Column("BYTES", "bytes", NUMBER),
                Column("FILE", "file"),
            ],
            document["receipts"],
            "no receipts",
        ),
        Line(),
        _conclusion(document),
    ]


def _vcp(units: str) -> str:
    return AMOUNT.on_page(units)


def _proof_rows(document: Document) -> list[Document]:
    return [
        {**proof, "task": task["id"], "name": task["name"]}
        for task in document["tasks"]
        for proof in task["proofs"]
    ]


def _checked_by(row: Document) -> str:
    if not row["is_audited"]:
        return "signature and structure; not drawn"
    return ", ".join(f"{member}: {finding}" for member, finding in row["verdicts"].items())


def _explanations(document: Document, names: dict[str, str]) -> list[Part]:
    """Why proofs were rejected, in the words of `proof explain`."""
    parts: list[Part] = []
    for row in _proof_rows(document):
        if row["status"] != "rejected":
            continue
        against = [member for member, finding in row["verdicts"].items() if finding == "disagree"]
        parts += [
            Line(),
            Line(f"{names[row['node']]} lied about {row['name']} and was caught:", "red"),
            Line(f"  claimed     output {row['claimed'][:32]}…"),
            Line(f"  recomputed  output {(row['recomputed'] or NOTHING)[:32]}…"),
            Line(f"  by          {', '.join(against)} (a majority of the members)"),
            Line(f"  differs in  {', '.join(row['differs'])}"),
            Line("  so          not paid, reputation cut, the task went to another node"),
        ]
    return parts


def _conclusion(document: Document) -> Line:
    if document["ok"]:
        count = len(document["tasks"])
        return Line(
            f"ok: {count} tasks run, checked, paid and anchored; every unit accounted for", "green"
        )
    return Line("NOT ok: something above is not as it should be", "red")


class Interrupt:
    """Whether somebody pressed Ctrl-C, or sent SIGTERM.

    The exception alone is not enough: Python drops one that is raised while it runs a finalizer.
    """

    def __init__(self) -> None:
        self._is_set = False

    def take(self, _number: int, _frame: FrameType | None) -> None:
        """The signal handler."""
        self._is_set = True
        raise KeyboardInterrupt

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if the one of the handler was dropped."""
        if self._is_set:
            raise KeyboardInterrupt


@contextmanager
def stop_on_signal() -> Iterator[Interrupt]:
    """SIGTERM ends like Ctrl-C, so that whatever is running is stopped and removed."""
    interrupt = Interrupt()
    numbers = (signal.SIGINT, signal.SIGTERM)
    previous = {number: signal.signal(number, interrupt.take) for number in numbers}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def make_reporter(output: Output, interrupt: Interrupt) -> Any:
    """Print progress on standard error, with the time since the start."""
    start = time.monotonic()

    def report(step: Any) -> None:
        interrupt.check()
        output.note(f"{time.monotonic() - start:6.1f} s  {step.stage:<9} {step.text}")

    return report


@click.command(
    cls=Command,
    examples=("vcp-cluster demo", "vcp-cluster demo --liars 1 --json"),
)
@click.option("--members", type=click.IntRange(1, MEMBERS_MAX), default=3, show_default=True)
@click.option("--nodes", type=click.IntRange(1, NODES_MAX), default=3, show_default=True)
@click.option("--tasks", type=click.IntRange(1, TASKS_MAX), default=5, show_default=True)
@click.option(
    "--liars",
    type=click.IntRange(0, NODES_MAX - 1),
    default=0,
    show_default=True,
    help="How many of the nodes return wrong results.",
)
@click.option("--keep", is_flag=True, help="Keep the directory, and print how to open it.")
@offline
def demo(output: Output, members: int, nodes: int, tasks: int, liars: int, keep: bool) -> int:
    """Run real members and workers on this machine, from a signed task to an offline receipt.

    Everything is removed at the end, also after Ctrl-C. Exit code 1 if anything is not as it
    should be.
    """
    if liars >= nodes:
        raise click.UsageError("--liars must be less than --nodes: somebody has to do the work")
    if liars > tasks:
        raise click.UsageError(
            "--liars must be at most --tasks: each liar needs a task to lie about"
        )
    from vcp_cluster.cluster.demonstration import Demonstration, Plan
    from vcp_cluster.cluster.local import LocalCluster

    plan = Plan(members=members, nodes=nodes, tasks=tasks, liars=liars)
    with stop_on_signal() as interrupt, _directory(keep) as directory:
        # A task may pass through every liar before it meets an honest node.
        cluster = LocalCluster.create(
            directory, members=members, cluster_name=_CLUSTER_NAME, attempts_max=3 + liars
        )
        with cluster:
            document = Demonstration(cluster, plan, make_reporter(output, interrupt)).run()
        output.emit(
            {**document, "directory": str(directory) if keep else None},
            View(_page, lambda one: [task["id"] for task in one["tasks"]]),
        )
    if keep:
        output.note(f"kept in {directory}.  Next: vcp-cluster dev --dir {directory}")
    return 0 if document["ok"] else 1


@contextmanager
def _directory(keep: bool) -> Iterator[Path]:
    if keep:
        yield Path(tempfile.mkdtemp(prefix="vcp-demo-"))
        return
    with tempfile.TemporaryDirectory(prefix="vcp-demo-", ignore_cleanup_errors=True) as name:
        yield Path(name)
