"""`vcp-cluster tx`: what became of a transaction."""

from __future__ import annotations

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.options import reads
from vcp_cluster.cli.page import (
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
)
from vcp_cluster.cli.values import FULL_ID, format_amount, shorten

_EXAMPLE = f"vcp-cluster tx show {'5e91c4d2' * 8}"


@click.group(cls=Group, examples=(_EXAMPLE, f"{_EXAMPLE} --json"))
def tx() -> None:
    """Look up a transaction by its id."""


@tx.command("show", examples=(_EXAMPLE, f"{_EXAMPLE} --json"))
@click.argument("tx_id", metavar="ID", type=FULL_ID)
@reads
def show(access: Access, tx_id: str) -> None:
    """Show what a transaction did, and whether the ledger applied it.

    This is the question to ask after exit code 8. Not found (exit code 6) after its validity, 60 s
    by default, means that it was never applied and never will be.
    """
    with access.open_client() as client:
        access.output.emit(client.transaction(tx_id), TRANSACTION)


def _page(document: Document) -> list[Part]:
    receipt = document["receipt"]
    failed = None
    if receipt["code"] != "ok":
        failed = f"operation {receipt['operation'] + 1} of {len(document['operations'])}"
    return [
        Fields(
            (
                Field("transaction", receipt["tx_id"], ID),
                Field("outcome", f"{receipt['code']}, {receipt['message']}"),
                Field("failed at", failed),
                Field("height", receipt["height"], NUMBER),
                Field("time", receipt["time"], TIME),
                Field("log index", receipt["log_index"], NUMBER),
                Field("account", document["account"], ID),
                Field("valid until", document["valid_until"], TIME),
            )
        ),
        Line(),
        Table(
            (
                Column("OPERATION", "operation"),
                Column("DETAIL", _detail, is_elastic=True),
            ),
            document["operations"],
            empty="no operations",
        ),
    ]


def _detail(operation: Document) -> str:
    """The plain fields of an operation; nested ones are in the JSON document."""
    plain = {
        name: value
        for name, value in operation.items()
        if name != "operation" and isinstance(value, (int, str))
    }
    return ", ".join(f"{name} {_value(name, value)}" for name, value in plain.items())


def _value(name: str, value: int | str) -> str:
    if name in ("amount", "reward"):
        return f"{format_amount(value)} VCP"
    return shorten(value) if isinstance(value, str) else str(value)


TRANSACTION = View(_page, lambda document: [document["receipt"]["tx_id"]])
