"""`vcp-cluster receipt ots`: an anchor as an OpenTimestamps proof."""

from __future__ import annotations

from pathlib import Path

import click

from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.files import read_input, write_out
from vcp_cluster.cli.options import PATH, offline
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import Document, Line, Part, View
from vcp_cluster.cli.trusted import get_chain_id
from vcp_cluster.cli.values import CHAIN_ID


@click.command(
    "ots",
    cls=Command,
    examples=(
        "vcp-cluster receipt ots payout.receipt --genesis genesis.json --out batch.header",
        "ots verify batch.header.ots",
    ),
)
@click.argument("file", metavar="FILE", type=PATH)
@click.option("--genesis", type=PATH, metavar="FILE", help="The cluster's genesis.json.")
@click.option("--chain-id", type=CHAIN_ID, metavar="HEX", help="The cluster's chain id.")
@click.option(
    "--out", type=PATH, required=True, metavar="FILE", help="The header; its proof is FILE.ots."
)
@offline
def timestamp(
    output: Output, file: Path, genesis: Path | None, chain_id: bytes | None, out: Path
) -> None:
    """Write the batch header of a receipt and its proof as OpenTimestamps has it.

    Standard tools verify it against a Bitcoin node, and know nothing of this cluster.
    """
    import hashlib

    from vcp_cluster.cluster.errors import VerificationFailed
    from vcp_cluster.ledger.anchors.bitcoin_proof import BitcoinProof
    from vcp_cluster.ledger.anchors.timestamp import export_timestamp
    from vcp_cluster.ledger.receipts import (
        RECEIPT_BYTES_MAX,
        ReceiptInvalid,
        check_receipt,
        parse_receipt,
    )

    expected, _ = get_chain_id(genesis, chain_id)
    data = read_input(file, RECEIPT_BYTES_MAX + 1, option="FILE")
    try:
        check_receipt(data, expected)
    except ReceiptInvalid as error:
        raise VerificationFailed(str(error), next_step="export the receipt again") from None
    parsed = parse_receipt(data)
    proof = next((one for one in parsed.anchors if isinstance(one, BitcoinProof)), None)
    if proof is None:
        raise click.UsageError("the receipt has no Bitcoin anchor; export it again once it has")
    digest = hashlib.sha256(parsed.header).digest()
    proof_path = out.with_name(f"{out.name}.ots")
    write_out(out, parsed.header)
    write_out(proof_path, export_timestamp(parsed.header, proof, digest))
    document = {"schema": "vcp/timestamp/v1", "file": str(out), "proof": str(proof_path)}
    output.emit(document, TIMESTAMP)


def _timestamp_page(document: Document) -> list[Part]:
    return [
        Line(f"{document['file']} and {document['proof']} written"),
        Line(f"next: ots verify {document['proof']}"),
    ]


TIMESTAMP = View(_timestamp_page, lambda document: [document["proof"]])
