"""`vcp-cluster anchor audit`: the list of anchors, from Bitcoin alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.anchor_views import AUDIT
from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.failures import EXIT_INVALID
from vcp_cluster.cli.options import PATH, reads
from vcp_cluster.cli.page import Document, understanding

if TYPE_CHECKING:
    from vcp_cluster.cluster.anchors.bitcoin.audit import Audit
    from vcp_cluster.ledger.anchor_settings import BitcoinSettings

PROGRESS_BLOCKS = 1_000
LEDGER_ANCHORS_MAX = 1_000


@click.command(
    "audit",
    cls=Command,
    examples=(
        "vcp-cluster anchor audit --genesis genesis.json --rpc http://127.0.0.1:8332 --rpc-cookie C",
        "vcp-cluster anchor audit --genesis genesis.json --rpc URL --rpc-cookie C --from 880123",
    ),
)
@click.option("--genesis", type=PATH, required=True, metavar="FILE", help="The genesis.json.")
@click.option("--rpc", required=True, metavar="URL", help="A Bitcoin node of yours.")
@click.option(
    "--rpc-cookie", type=PATH, required=True, metavar="FILE", help="The node's USER:PASSWORD."
)
@click.option(
    "--from",
    "first",
    type=click.IntRange(0, 2**31),
    metavar="HEIGHT",
    help="Height of the first coin's block; asked of the node while the coin is unspent.",
)
@click.option("--compare", is_flag=True, help="Ask the cluster whether its ledger says the same.")
@reads
@click.pass_context
def audit(
    ctx: click.Context,
    access: Access,
    genesis: Path,
    rpc: str,
    rpc_cookie: Path,
    first: int | None,
    compare: bool,
) -> None:
    """Follow the chain of seals through the blocks of a Bitcoin node, and list what it commits to.

    Needs no cluster. Exit code 5: something is published twice, missing, or rewritten.
    """
    from vcp_cluster.cluster.directory import load_genesis

    settings = load_genesis(genesis).anchors.bitcoin
    if not settings:
        raise click.UsageError("the cluster of this genesis does not anchor in Bitcoin")
    found = _run(access, settings[0], rpc, rpc_cookie, first)
    ledger = _read_ledger(access) if compare else None
    document = _to_document(found, ledger)
    access.output.emit(document, AUDIT)
    if document["problems"]:
        ctx.exit(EXIT_INVALID)


def _run(
    access: Access, settings: BitcoinSettings, rpc: str, cookie: Path, first: int | None
) -> Audit:
    from vcp_cluster.cluster.anchors.bitcoin.asking import ask_node
    from vcp_cluster.cluster.anchors.bitcoin.audit import audit_chain, find_first_height

    if first is None:
        first = ask_node(rpc, cookie, lambda node: find_first_height(node, settings))
        if first is None:
            raise click.UsageError(
                "the first coin is spent, so its block must be named: --from HEIGHT"
            )
    start = first

    def progress(height: int, tip: int) -> None:
        if height % PROGRESS_BLOCKS == 0:
            access.output.note(f"block {height} of {tip}")

    return ask_node(rpc, cookie, lambda node: audit_chain(node, settings, start, progress))


def _read_ledger(access: Access) -> dict[int, str]:
    """Size and payload of the ledger's newest final Bitcoin anchors."""
    with access.open_client() as client:
        document = client.anchors(limit=LEDGER_ANCHORS_MAX)
    with understanding():
        return {
            int(one["size"]): str(one["payload"])
            for one in document["anchors"]
            if one["backend"] == "bitcoin" and one["status"] == "final"
        }


def _to_document(found: Audit, ledger: dict[int, str] | None) -> Document:
    from vcp_cluster.ledger.bitcoin.reader import to_display
    from vcp_cluster.ledger.bitcoin.script import PAYLOAD_MAGIC
    from vcp_cluster.ledger.schema import u32

    problems = list(found.problems)
    anchors = []
    for one in found.anchors:
        says: str | None = None
        if ledger is not None and one.size is not None and one.root is not None:
            payload = (PAYLOAD_MAGIC + u32(one.size) + one.root).hex()
            says = "unknown" if one.size not in ledger else "equal"
            if ledger.get(one.size, payload) != payload:
                says = "DIFFERENT"
                problems.append(f"height {one.height}: the ledger has another root at {one.size}")
        anchors.append(
            {
                "height": one.height,
                "block_hash": to_display(one.block_hash),
                "txid": to_display(one.txid),
                "size": one.size,
                "root": None if one.root is None else one.root.hex(),
                "problem": one.problem,
                "ledger": says,
            }
        )
    published = {one.size for one in found.anchors}
    for size in sorted(set(ledger or {}) - published):
        problems.append(f"the ledger calls an anchor at {size} final, and no block has it")
    return {
        "schema": "vcp/anchor-audit/v1",
        "first_height": found.first_height,
        "last_height": found.last_height,
        "seal": f"{to_display(found.seal.txid)}:{found.seal.output}",
        "is_compared": ledger is not None,
        "problems": problems,
        "anchors": anchors,
    }
