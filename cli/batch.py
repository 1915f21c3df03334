"""`vcp-cluster batch`: settlement batches."""

from __future__ import annotations

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.options import reads, writes
from vcp_cluster.cli.page import (
    AMOUNT,
    ID,
    NUMBER,
    TIME,
    Column,
    Document,
    Field,
    Fields,
    Line,
    Part,
    Table,
    View,
    pick,
)
from vcp_cluster.cli.values import format_amount, format_number
from vcp_cluster.cli.writing import print_receipt


@click.group(cls=Group, examples=("vcp-cluster batch list", "vcp-cluster batch show 3"))
def batch() -> None:
    """Look at settlement batches, seal one."""


@batch.command("list", examples=("vcp-cluster batch list", "vcp-cluster batch list --json"))
@reads
def list_batches(access: Access) -> None:
    """List the open batch and the sealed ones, the newest first."""
    with access.open_client() as client:
        access.output.emit(client.batches(), BATCHES)


@batch.command("show", examples=("vcp-cluster batch show 3", "vcp-cluster batch show 3 --json"))
@click.argument("number", metavar="BATCH", type=click.IntRange(1, 2**63 - 1))
@reads
def show(access: Access, number: int) -> None:
    """Show a sealed batch: its header, its anchor, its payments."""
    with access.open_client() as client:
        access.output.emit(client.batch(number), BATCH)


@batch.command(
    "seal",
    examples=(
        "vcp-cluster batch seal --dir paris-1/a",
        "vcp-cluster batch seal --cluster http://10.0.0.1:7101 --key paris-1/a/member.key",
    ),
)
@writes
def seal(access: Access) -> None:
    """Seal the open batch now. Needs a member's key: --dir or --key.

    The leader seals by itself some seconds after anything was accepted; nobody has to do this.
    """
    from vcp_cluster.ledger.operations import SealBatch

    with access.open_client(is_signing=True) as client:
        number = pick(client.batches(), "open.batch")
        receipt = client.submit(SealBatch(number))
    access.output.note(f"batch {number} sealed")
    print_receipt(access.output, receipt)


def _list_page(document: Document) -> list[Part]:
    opened = document["open"]
    total = format_amount(opened["total"])
    return [
        Line(
            f"batch {opened['batch']} is open: {format_number(opened['tasks'])} tasks, {total} VCP"
        ),
        Line(),
        Table(
            (
                Column("BATCH", "batch", NUMBER),
                Column("TASKS", "count", NUMBER),
                Column("HEIGHTS", lambda one: f"{one['first']}–{one['last']}"),
                Column("SEALED", "time", TIME),
                Column("ROOT", "settlement_root", ID),
                Column("ANCHOR", lambda one: one["anchor"] and one["anchor"]["backend"]),
                Column("STATUS", lambda one: one["anchor"] and one["anchor"]["status"]),
            ),
            document["batches"],
            empty="no batch is sealed yet",
        ),
    ]


def _page(document: Document) -> list[Part]:
    return [
        Fields(
            (
                Field("batch", document["batch"], NUMBER),
                Field("tasks", document["count"], NUMBER),
                Field("heights", f"{document['first']} to {document['last']}"),
                Field("sealed", document["time"], TIME),
                Field("at height", document["height"], NUMBER),
                Field("settlement root", document["settlement_root"], ID),
                Field("state root", document["state_root"], ID),
                Field("previous", document["previous"], ID),
                Field("log", f"{document['log_root']} ({document['log_size']} transactions)"),
                Field("anchor", _anchor(document["anchor"])),
            )
        ),
        Line(),
        Table(
            (
                Column("TASK", "task", ID),
                Column("NODE", "node", ID),
                Column("VCP", "amount", AMOUNT),
            ),
            document["tasks"],
            empty="no payments",
        ),
    ]


def _anchor(anchor: Document | None) -> str:
    if anchor is None:
        return "not anchored yet"
    final = anchor["final_height"]
    when = f" at height {format_number(final)}" if final is not None else ""
    return f"{anchor['backend']} ({anchor['label']}), {anchor['status']}{when}"


BATCHES = View(
    _list_page,
    lambda document: [str(one["batch"]) for one in document["batches"]],
    "batches",
    "vcp/batch/v1",
)
BATCH = View(_page, lambda document: [str(document["batch"])])
