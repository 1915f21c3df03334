"""What commands that write have in common: the receipt they print, and the plan of a dry run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import ID, NUMBER, Document, Field, Fields, Kind, Part, View

if TYPE_CHECKING:
    from vcp_cluster.ledger.transactions import TransactionReceipt

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Print what would be done, and send nothing."
)


def print_receipt(output: Output, receipt: TransactionReceipt) -> None:
    """Print a transaction's receipt (`vcp/receipt/v1`)."""
    from vcp_cluster.cluster.door.documents import receipt as to_document

    output.emit({"schema": "vcp/receipt/v1", **to_document(receipt)}, RECEIPT)


def print_plan(output: Output, action: str, *fields: tuple[str, str, Any, Kind]) -> None:
    """Print what a command would do (`vcp/plan/v1`): (label, key, value, kind) of each detail."""
    document: Document = {"schema": "vcp/plan/v1", "action": action}
    document.update({key: value for _, key, value, _ in fields})

    def page(_document: Document) -> list[Part]:
        shown = (Field(label, value, kind) for label, _, value, kind in fields)
        return [Fields((Field("would", action), *shown))]

    output.emit(document, View(page, lambda _: []))


def _receipt_page(document: Document) -> list[Part]:
    return [
        Fields(
            (
                Field("transaction", document["tx_id"], ID),
                Field("outcome", f"{document['code']}, {document['message']}"),
                Field("height", document["height"], NUMBER),
                Field("log index", document["log_index"], NUMBER),
            )
        )
    ]


RECEIPT = View(_receipt_page, lambda document: [document["tx_id"]])
