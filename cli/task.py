"""`vcp-cluster task`: list, show, watch, output, cancel; `submit` is in `task_submit.py`."""

from __future__ import annotations

import base64
import sys
from pathlib import Path

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.failures import EXIT_FAILED
from vcp_cluster.cli.files import write_out
from vcp_cluster.cli.options import PATH, reads, writes
from vcp_cluster.cli.output import preview, to_text, write_bytes, write_text
from vcp_cluster.cli.page import ID, TEXT, View, pick
from vcp_cluster.cli.task_submit import submit
from vcp_cluster.cli.task_views import TASK, TASKS, describe
from vcp_cluster.cli.values import ID as ID_VALUE
from vcp_cluster.cli.values import shorten
from vcp_cluster.cli.writing import dry_run_option, print_plan, print_receipt

LISTED_MAX = 1_000
OUTPUT = View(lambda _: [], lambda document: [document["task"]])
"""An output as JSON; its other forms are the bytes themselves."""


@click.group(
    cls=Group,
    examples=(
        "vcp-cluster task submit --module wordcount.wasm --input README.md --reward 10 --wait",
        "vcp-cluster task list",
    ),
)
def task() -> None:
    """Submit tasks, follow them, fetch outputs."""


task.add_command(submit)


@task.command("list", examples=("vcp-cluster task list", "vcp-cluster task list --mine --json"))
@click.option(
    "--limit",
    type=click.IntRange(1, LISTED_MAX),
    default=50,
    show_default=True,
    help="At most so many, the newest first.",
)
@click.option("--mine", is_flag=True, help="Only those of your own account (--key).")
@writes
def list_tasks(access: Access, limit: int, mine: bool) -> None:
    """List tasks, the newest first."""
    with access.open_client(is_signing=mine) as client:
        document = client.tasks(limit=limit, client=client.account_id if mine else None)
    access.output.emit(document, TASKS)


@task.command("show", examples=("vcp-cluster task show 7d1f", "vcp-cluster task show 7d1f --json"))
@click.argument("task_id", metavar="TASK", type=ID_VALUE)
@reads
def show(access: Access, task_id: str) -> None:
    """Show a task: its limits, its attempts, its result."""
    with access.open_client() as client:
        access.output.emit(client.task(task_id), TASK)


@task.command(
    "watch", examples=("vcp-cluster task watch 7d1f", "vcp-cluster task watch 7d1f --timeout 1h")
)
@click.argument("task_id", metavar="TASK", type=ID_VALUE)
@reads
@click.pass_context
def watch(ctx: click.Context, access: Access, task_id: str) -> None:
    """Follow a task until it is settled, expired or cancelled, then show it.

    Exit code 0 when it is settled, 1 when it ended without a result.
    """
    output = access.output
    with access.open_client() as client:
        document = client.wait_task(
            task_id,
            until=("settled",),
            timeout_s=access.wait_ms / 1000,
            on_change=lambda one: output.event(one, describe(one)),
        )
    if output.format != "ndjson":
        output.emit(document, TASK)
    if pick(document, "status") != "settled":
        ctx.exit(EXIT_FAILED)


@task.command(
    "output",
    examples=("vcp-cluster task output 7d1f", "vcp-cluster task output 7d1f --out model.bin"),
)
@click.argument("task_id", metavar="TASK", type=ID_VALUE)
@click.option("--out", type=PATH, metavar="FILE", help="Write it there; - is standard output.")
@reads
def output(access: Access, task_id: str, out: Path | None) -> None:
    """Fetch a task's output, checked against the hash in the ledger.

    Without --out it goes to standard output as it is; on a terminal, what is not text is shown in
    hexadecimal instead.
    """
    with access.open_client() as client:
        data = client.output(task_id)
    if out is not None:
        write_out(out, data)
        access.output.note(f"{len(data)} bytes written to {out}")
    elif access.output.is_json:
        document = {
            "schema": "vcp/output/v1",
            "task": task_id,
            "length": len(data),
            "content": base64.b64encode(data).decode("ascii"),
        }
        access.output.emit(document, OUTPUT)
    elif sys.stdout.isatty() and to_text(data) is None:
        write_text(preview(data))
        access.output.note(f"not text; all {len(data)} bytes: add --out FILE")
    else:
        write_bytes(data)


@task.command(
    "cancel", examples=("vcp-cluster task cancel 7d1f", "vcp-cluster task cancel 7d1f --dry-run")
)
@click.argument("task_id", metavar="TASK", type=ID_VALUE)
@dry_run_option
@writes
def cancel(access: Access, task_id: str, dry_run: bool) -> None:
    """Take back a task that no node has taken; its reward returns to your account."""
    with access.open_client(is_signing=True) as client:
        document = client.task(task_id)
        identity = pick(document, "id")
        if dry_run:
            print_plan(
                access.output,
                "cancel a task",
                ("task", "task", identity, ID),
                ("status", "status", pick(document, "status"), TEXT),
            )
            return
        receipt = client.cancel_task(identity)
    access.output.note(f"task {shorten(identity)} cancelled")
    print_receipt(access.output, receipt)
