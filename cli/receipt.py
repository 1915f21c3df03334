"""`vcp-cluster receipt`: export a settlement receipt, verify one offline.

`verify` reads one file and needs no cluster, no client and no network: hashes and signatures only.
Only `--rpc` asks a node, the verifier's own.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.failures import EXIT_INVALID
from vcp_cluster.cli.files import read_input, write_out
from vcp_cluster.cli.options import PATH, offline, reads
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import AMOUNT, Document, Field, Fields, Line, Part, View
from vcp_cluster.cli.pinning import Trust, describe, judge
from vcp_cluster.cli.receipt_ots import timestamp
from vcp_cluster.cli.trusted import get_chain_id
from vcp_cluster.cli.values import CHAIN_ID, format_number, shorten
from vcp_cluster.cli.values import ID as ID_VALUE

if TYPE_CHECKING:
    from vcp_cluster.cluster.client import Client
    from vcp_cluster.ledger.receipts import ReceiptReport

POLL_S = 0.5


@click.group(
    cls=Group,
    examples=(
        "vcp-cluster receipt export 7d1f --out payout.receipt",
        "vcp-cluster receipt verify payout.receipt --genesis genesis.json",
    ),
)
def receipt() -> None:
    """Export and verify settlement receipts."""


@receipt.command(
    "export",
    examples=(
        "vcp-cluster receipt export 7d1f --out payout.receipt",
        "vcp-cluster receipt export 7d1f --out payout.receipt --wait",
    ),
)
@click.argument("task_id", metavar="TASK", type=ID_VALUE)
@click.option(
    "--out", type=PATH, required=True, metavar="FILE", help="File to write; - is standard output."
)
@click.option("--wait", is_flag=True, help="Wait until the task's batch is sealed and anchored.")
@click.option(
    "--anchor",
    type=click.Choice(("notary", "bitcoin")),
    help="Only with this anchor in it; without, whichever is final.",
)
@reads
def export(access: Access, task_id: str, out: Path, wait: bool, anchor: str | None) -> None:
    """Write the settlement receipt of a task to a file that anyone can verify offline."""
    with access.open_client() as client:
        text = _wait_for_receipt(client, task_id, access.wait_ms if wait else 0, anchor)
    write_out(out, text.encode())
    if str(out) != "-":
        document = {"schema": "vcp/export/v1", "task": task_id, "file": str(out)}
        access.output.emit({**document, "bytes": len(text)}, EXPORT)


def _wait_for_receipt(client: Client, task_id: str, wait_ms: int, anchor: str | None) -> str:
    """The receipt, asked for until it is ready or the time is over; raise `NotReady`."""
    from vcp_cluster.cluster.errors import NotReady

    deadline_s = time.monotonic() + wait_ms / 1000
    while True:
        try:
            return _require_anchor(client.receipt(task_id), anchor)
        except NotReady:
            if time.monotonic() + POLL_S >= deadline_s:
                raise
        time.sleep(POLL_S)


def _require_anchor(text: str, anchor: str | None) -> str:
    """The receipt, if the anchor is in it; raise `NotReady`."""
    if anchor is None:
        return text
    from vcp_cluster.cluster.errors import BadAnswer, NotReady
    from vcp_cluster.ledger.receipts import ReceiptInvalid, get_anchor_names, parse_receipt

    try:
        parsed = parse_receipt(text.encode())
    except ReceiptInvalid as error:
        raise BadAnswer(f"the member's receipt cannot be read: {error}") from None
    if anchor not in parsed.genesis.anchors.backends:
        raise click.UsageError(f"this cluster does not anchor in {anchor}")
    if anchor not in get_anchor_names(parsed):
        raise NotReady(
            f"the {anchor} anchor of its batch is not final yet",
            next_step="see `vcp-cluster anchor status`, and export it again with --wait",
        )
    return text


@receipt.command(
    "verify",
    examples=(
        "vcp-cluster receipt verify payout.receipt --genesis genesis.json",
        "vcp-cluster receipt verify payout.receipt --chain-id 0f3a61c2d4e5f60718293a4b5c6d7e8f",
        "vcp-cluster receipt verify payout.receipt --genesis genesis.json --headers headers.bin",
    ),
)
@click.argument("file", metavar="FILE", type=PATH)
@click.option("--genesis", type=PATH, metavar="FILE", help="The cluster's genesis.json.")
@click.option("--chain-id", type=CHAIN_ID, metavar="HEX", help="The cluster's chain id.")
@click.option(
    "--headers", type=PATH, metavar="FILE", help="Block headers that you trust, 80 bytes each."
)
@click.option("--checkpoint", metavar="HASH:HEIGHT", help="A block that you trust.")
@click.option("--rpc", metavar="URL", help="A Bitcoin node that you trust.")
@click.option("--rpc-cookie", type=PATH, metavar="FILE", help="The node's USER:PASSWORD.")
@offline
@click.pass_context
def verify(
    ctx: click.Context,
    output: Output,
    file: Path,
    genesis: Path | None,
    chain_id: bytes | None,
    headers: Path | None,
    checkpoint: str | None,
    rpc: str | None,
    rpc_cookie: Path | None,
) -> None:
    """Verify a settlement receipt, offline: no cluster and no network is asked.

    A Bitcoin anchor is shown as far as what you give allows: matches-header, pow-attested,
    on-pinned-chain, node-confirmed. Which cluster to trust comes from --genesis, --chain-id or the profile, never from the receipt.
    Exit code 5: it is not valid.
    """
    from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid
    from vcp_cluster.ledger.receipts import RECEIPT_BYTES_MAX, ReceiptInvalid, check_receipt

    expected, origin = get_chain_id(genesis, chain_id)
    # One byte more than is allowed, so that the check itself says what is too large.
    data = read_input(file, RECEIPT_BYTES_MAX + 1, option="FILE")
    trust = Trust(headers, checkpoint, rpc, rpc_cookie)
    try:
        report = check_receipt(data, expected)
        document = _judge(_to_document(file, origin, report), report, data, trust)
    except (ReceiptInvalid, BitcoinInvalid) as error:
        document = _to_invalid_document(file, expected, origin, str(error))
    output.emit(document, VERIFICATION)
    if not document["valid"]:
        ctx.exit(EXIT_INVALID)


def _judge(document: Document, report: ReceiptReport, data: bytes, trust: Trust) -> Document:
    """The document with the level that the receipt's Bitcoin anchor reaches, if it has one."""
    if report.block is None:
        if trust.is_given:
            raise click.UsageError(
                "the receipt has no Bitcoin anchor to check; export it again once it has"
            )
        return document
    from vcp_cluster.ledger.receipts import parse_receipt

    (settings,) = parse_receipt(data).genesis.anchors.bitcoin
    standing = judge(report.block, settings.network, trust)
    steps = [{"step": step, "detail": detail} for step, detail in standing.checked]
    return {
        **document,
        "level": standing.level,
        "bitcoin": describe(report.block, standing),
        "checked": document["checked"] + steps,
        "unchecked": [*document["unchecked"], *standing.unchecked],
    }


def _to_document(file: Path, origin: str, report: ReceiptReport) -> Document:
    return {
        "schema": "vcp/verification/v1",
        "file": str(file),
        "valid": True,
        "reason": None,
        "chain_id": report.chain_id.hex(),
        "chain_id_from": origin,
        "cluster": report.cluster_name,
        "task": report.task.hex(),
        "payee": report.payee.hex(),
        "amount": str(report.amount),
        "output_hash": report.output_hash.hex(),
        "batch": report.batch,
        "leaf_index": report.leaf_index,
        "leaf_count": report.leaf_count,
        "log_size": report.log_size,
        "members": list(report.members),
        "level": None,
        "bitcoin": None,
        "checked": [{"step": step, "detail": detail} for step, detail in report.checked],
        "unchecked": list(report.unchecked),
    }


_OF_A_VALID_RECEIPT = (
    "cluster",
    "task",
    "payee",
    "amount",
    "output_hash",
    "batch",
    "leaf_index",
    "leaf_count",
    "log_size",
)


def _to_invalid_document(file: Path, chain_id: bytes, origin: str, reason: str) -> Document:
    """The same keys: what a receipt claims is not repeated where it was not shown."""
    return {
        "schema": "vcp/verification/v1",
        "file": str(file),
        "valid": False,
        "reason": reason,
        "chain_id": chain_id.hex(),
        "chain_id_from": origin,
        **dict.fromkeys(_OF_A_VALID_RECEIPT),
        "members": [],
        "level": None,
        "bitcoin": None,
        "checked": [],
        "unchecked": [],
    }


def _page(document: Document) -> list[Part]:
    if not document["valid"]:
        return [
            Line(f"{document['file']} is NOT valid", "red"),
            Fields(
                (
                    Field("  because", document["reason"]),
                    Field("  trusted", f"{document['chain_id']} ({document['chain_id_from']})"),
                )
            ),
            Line("do not rely on it; ask for another: vcp-cluster receipt export TASK --out FILE"),
        ]
    entry = format_number(document["leaf_index"] + 1)
    paid = (
        f"{AMOUNT.on_page(document['amount'])} to node {shorten(document['payee'])} for task "
        f"{shorten(document['task'])}"
    )
    place = f"batch {document['batch']}, entry {entry} of {format_number(document['leaf_count'])}"
    fields = [
        Field("  paid", paid),
        Field("  where", f"{document['cluster']}, {place}"),
        Field("  trusted", f"{document['chain_id']} ({document['chain_id_from']})"),
    ]
    fields += [Field(f"  {one['step']}", f"{one['detail']}: ok") for one in document["checked"]]
    if document["level"] is not None:
        fields.append(Field("  level", document["level"]))
    fields += [Field("  not checked", text) for text in document["unchecked"]]
    return [Line(f"{document['file']} is valid", "green"), Fields(fields)]


def _export_page(document: Document) -> list[Part]:
    file = document["file"]
    return [
        Line(f"{format_number(document['bytes'])} bytes written to {file}"),
        Line(f"next: vcp-cluster receipt verify {file}"),
    ]


VERIFICATION = View(_page, lambda document: ["valid" if document["valid"] else "not valid"])
EXPORT = View(_export_page, lambda document: [document["file"]])

receipt.add_command(timestamp)
