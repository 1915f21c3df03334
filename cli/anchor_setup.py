"""`vcp-cluster anchor key` and `anchor settings`: a seal for a new cluster's genesis."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import click

from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.files import write_out
from vcp_cluster.cli.options import PATH, offline
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import Document, Field, Fields, Line, Part, View

NETWORK = click.Choice(("mainnet", "testnet4", "signet", "regtest"))
FEE_MAX = 20_000


@click.command(
    "key",
    cls=Command,
    examples=(
        "vcp-cluster anchor key --network regtest --out bitcoin.key",
        "vcp-cluster anchor key --network mainnet --out bitcoin.key",
    ),
)
@click.option("--network", type=NETWORK, required=True)
@click.option("--out", type=PATH, required=True, metavar="FILE", help="New key file, mode 0600.")
@offline
def key(output: Output, network: str, out: Path) -> None:
    """Make a key for the chain of seals, and print the address to pay its first coin to.

    Whoever has the file can spend the seal, and so end the chain: keep one copy offline, and give
    it only to members that shall anchor.
    """
    from vcp_cluster.cluster.anchors.bitcoin.signer import compute_seal_script, load_signer
    from vcp_cluster.cluster.directory import write_seed
    from vcp_cluster.ledger.bitcoin.networks import NETWORKS
    from vcp_cluster.ledger.bitcoin.script import format_address

    write_seed(out, secrets.token_bytes(32))
    signer = load_signer(out)
    script = compute_seal_script(signer.public_key)
    output.emit(
        {
            "schema": "vcp/anchor-key/v1",
            "file": str(out),
            "network": network,
            "public_key": signer.public_key.hex(),
            "script": script.hex(),
            "address": format_address(script, NETWORKS[network].address_prefix),
        },
        KEY,
    )


@click.command(
    "settings",
    cls=Command,
    examples=(
        "vcp-cluster anchor settings --network regtest --key K --funding F.hex --out anchors.json",
        "vcp-cluster init --members … --dir DIR --anchors anchors.json",
    ),
)
@click.option("--network", type=NETWORK, required=True)
@click.option("--key", "key_file", type=PATH, required=True, metavar="FILE", help="The seal's key.")
@click.option("--funding", type=PATH, required=True, metavar="FILE", help="Raw transaction in hex.")
@click.option(
    "--confirmations",
    type=click.IntRange(1, 144),
    help="Blocks that make an anchor final; 6, 3 or 1 by network.",
)
@click.option(
    "--fee-max",
    type=click.IntRange(1_000, 10**9),
    default=FEE_MAX,
    show_default=True,
    help="The most satoshi that one anchor may cost.",
)
@click.option("--no-notary", is_flag=True, help="Anchor in Bitcoin alone.")
@click.option("--out", type=PATH, required=True, metavar="FILE")
@offline
def settings(
    output: Output,
    network: str,
    key_file: Path,
    funding: Path,
    confirmations: int | None,
    fee_max: int,
    no_notary: bool,
    out: Path,
) -> None:
    """Write what genesis says about anchors, for `init --anchors FILE`.

    The first seal is the output of the funding transaction that pays the key's address.
    """
    from vcp_cluster.cluster.anchors.bitcoin.config import load_transaction
    from vcp_cluster.cluster.anchors.bitcoin.signer import compute_seal_script, load_signer
    from vcp_cluster.ledger.anchor_settings import (
        AnchorSettings,
        BitcoinSettings,
        check_anchor_settings,
    )
    from vcp_cluster.ledger.bitcoin.networks import NETWORKS
    from vcp_cluster.ledger.genesis import name_fields

    signer, transaction = load_signer(key_file), load_transaction(funding)
    script = compute_seal_script(signer.public_key)
    paid = [number for number, one in enumerate(transaction.outputs) if one.script == script]
    if not paid:
        raise click.UsageError("the funding transaction does not pay the key's address")
    chosen = NETWORKS[network]
    made = AnchorSettings(
        backends=("bitcoin",) if no_notary else ("bitcoin", "notary"),
        bitcoin=(
            BitcoinSettings(
                network=chosen.genesis_hash,
                seal_key=signer.public_key,
                funding=transaction.stripped,
                funding_output=paid[0],
                confirmations=confirmations or chosen.confirmations,
                fee_max=fee_max,
                header_bits=chosen.header_bits,
            ),
        ),
    )
    try:
        check_anchor_settings(made)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    write_out(out, (json.dumps(name_fields(made), indent=2) + "\n").encode())
    document = {
        "schema": "vcp/anchor-settings/v1",
        "file": str(out),
        "network": network,
        "txid": transaction.txid[::-1].hex(),
        "output": paid[0],
        "satoshi": str(transaction.outputs[paid[0]].value),
    }
    output.emit(document, SETTINGS)


def _key_page(document: Document) -> list[Part]:
    return [
        Fields(
            (
                Field("key", document["file"]),
                Field("address", document["address"]),
                Field("network", document["network"]),
            )
        ),
        Line("next: pay the address, then vcp-cluster anchor settings"),
    ]


def _settings_page(document: Document) -> list[Part]:
    coin = f"{document['txid']}:{document['output']}"
    return [
        Line(f"{document['file']}: the first seal is {coin}, {document['satoshi']} satoshi"),
        Line(f"next: vcp-cluster init … --anchors {document['file']}"),
    ]


KEY = View(_key_page, lambda document: [document["address"]])
SETTINGS = View(_settings_page, lambda document: [document["file"]])
