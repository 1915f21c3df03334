"""`vcp-cluster anchor`: what is anchored where, and what a Bitcoin node says about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.anchor_audit import audit
from vcp_cluster.cli.anchor_setup import key, settings
from vcp_cluster.cli.anchor_views import ANCHOR, ANCHORS, LANES, PUBLISHED
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.options import PATH, reads, writes
from vcp_cluster.cli.page import Document, pick, understanding
from vcp_cluster.cli.writing import print_receipt

BACKENDS = click.Choice(("bitcoin", "notary"))


@click.group(
    cls=Group,
    examples=("vcp-cluster anchor status", "vcp-cluster anchor show 48"),
)
def anchor() -> None:
    """Look at anchors, publish and audit them, set up Bitcoin."""


@anchor.command(
    "status", examples=("vcp-cluster anchor status", "vcp-cluster anchor status --json")
)
@reads
def status(access: Access) -> None:
    """Show every backend: how far it is, what is pending, who acts, what holds it up."""
    with access.open_client() as client:
        access.output.emit(client.anchors(limit=1), LANES)


@anchor.command("list", examples=("vcp-cluster anchor list", "vcp-cluster anchor list --limit 10"))
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@reads
def list_anchors(access: Access, limit: int) -> None:
    """List the newest anchors of each backend."""
    with access.open_client() as client:
        access.output.emit(client.anchors(limit=limit), ANCHORS)


@anchor.command(
    "show", examples=("vcp-cluster anchor show 48", "vcp-cluster anchor show 48 --backend notary")
)
@click.argument("size", metavar="SIZE", type=click.IntRange(1, 2**63 - 1))
@click.option("--backend", type=BACKENDS, default="bitcoin", show_default=True)
@reads
def show(access: Access, size: int, backend: str) -> None:
    """Show the anchor that covers SIZE batches, with every transaction it may be."""
    with access.open_client() as client:
        access.output.emit(client.anchor(backend, size), ANCHOR)


@anchor.command(
    "publish",
    examples=(
        "vcp-cluster anchor publish",
        "vcp-cluster anchor publish --rpc http://127.0.0.1:8332 --rpc-cookie ~/.bitcoin/.cookie",
    ),
)
@click.option("--rpc", metavar="URL", help="A Bitcoin node to send it to.")
@click.option("--rpc-cookie", type=PATH, metavar="FILE", help="The node's USER:PASSWORD.")
@reads
def publish(access: Access, rpc: str | None, rpc_cookie: Path | None) -> None:
    """Send the pending Bitcoin anchor to a node of yours; without --rpc, print it.

    It is signed and in the ledger: whoever sends it, and how often, it is the same transaction.
    """
    from vcp_cluster.cluster.errors import NotReady

    if (rpc is None) != (rpc_cookie is None):
        raise click.UsageError("--rpc and --rpc-cookie go together")
    with access.open_client() as client:
        lane = _find_lane(client.anchors(limit=1), "bitcoin")
        if lane["pending"] is None:
            raise NotReady(
                "no Bitcoin anchor is pending", next_step="see `vcp-cluster anchor status`"
            )
        document = client.anchor("bitcoin", int(lane["pending"]))
    with understanding():
        live = [one for one in document["bitcoin"]["variants"] if one["is_live"]]
        txid, transaction = live[-1]["txid"], bytes.fromhex(live[-1]["transaction"])
    outcome = None
    if rpc is not None and rpc_cookie is not None:
        outcome = _send(rpc, rpc_cookie, transaction)
    access.output.emit(
        {
            "schema": "vcp/published/v1",
            "size": document["size"],
            "txid": txid,
            "transaction": transaction.hex(),
            "outcome": outcome,
        },
        PUBLISHED,
    )


def _send(rpc: str, cookie: Path, transaction: bytes) -> str:
    from vcp_cluster.cluster.anchors.bitcoin.asking import ask_node
    from vcp_cluster.cluster.anchors.bitcoin.replies import broadcast

    outcome = ask_node(rpc, cookie, lambda node: broadcast(node, transaction))
    return outcome.name.lower()


@anchor.command(
    "pause",
    examples=(
        "vcp-cluster anchor pause bitcoin --dir paris-1/a",
        'vcp-cluster anchor pause bitcoin --reason "fees are too high" --dir paris-1/a',
    ),
)
@click.argument("backend", type=BACKENDS)
@click.option("--reason", default="paused by an operator", show_default=True)
@writes
def pause(access: Access, backend: str, reason: str) -> None:
    """Stop a backend's anchors. Needs a member's key: --dir or --key.

    What is broadcast already may still confirm. Batches are sealed and paid all the same.
    """
    if not 1 <= len(reason) <= 200:
        raise click.UsageError("--reason is 1 to 200 characters")
    _set_halt(access, backend, reason)


@anchor.command(
    "resume",
    examples=(
        "vcp-cluster anchor resume bitcoin --dir paris-1/a",
        "vcp-cluster anchor resume notary --key paris-1/a/member.key",
    ),
)
@click.argument("backend", type=BACKENDS)
@writes
def resume(access: Access, backend: str) -> None:
    """Let a halted backend go on. Needs a member's key: --dir or --key.

    First see why it was halted: a seal spent by a stranger means that somebody else has the key.
    """
    _set_halt(access, backend, "")


def _set_halt(access: Access, backend: str, reason: str) -> None:
    from vcp_cluster.ledger.operations import AnchorHalt

    with access.open_client(is_signing=True) as client:
        lane = _find_lane(client.anchors(limit=1), backend)
        receipt = client.submit(AnchorHalt(backend, reason, int(lane["revision"])))
    access.output.note(f"{backend}: {'halted' if reason else 'goes on'}")
    print_receipt(access.output, receipt)


def _find_lane(document: Document, backend: str) -> Any:
    lanes = pick(document, "backends")
    with understanding():
        lane = next((one for one in lanes if one["backend"] == backend), None)
    if lane is None:
        raise click.UsageError(f"this cluster does not anchor in {backend}")
    return lane


for _command in (audit, key, settings):
    anchor.add_command(_command)
