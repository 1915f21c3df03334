"""`vcp-cluster status`."""

from __future__ import annotations

import time

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.failures import EXIT_DIVERGED, EXIT_UNAVAILABLE
from vcp_cluster.cli.options import reads
from vcp_cluster.cli.page import (
    AMOUNT,
    ID,
    NUMBER,
    Column,
    Document,
    Line,
    Part,
    Table,
    View,
)
from vcp_cluster.cli.values import DURATION, format_amount, format_number, shorten


@click.command(
    cls=Command,
    examples=("vcp-cluster status", "vcp-cluster status --cluster http://10.0.0.1:7101 --watch"),
)
@click.option("--watch", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--interval", type=DURATION, default="1s", show_default=True, help="Pause of --watch."
)
@reads
@click.pass_context
def status(ctx: click.Context, access: Access, watch: bool, interval: int) -> None:
    """Show members, their heights and state roots, tasks, nodes, money, batch and anchor.

    Exit code 0: there is a leader, and no two members disagree. 3: there is no leader. 71: two
    members have different states at the same height.
    """
    with access.open_client() as client:
        while True:
            document = client.status()
            if watch:
                access.output.repaint()
            access.output.emit(document, VIEW)
            if not watch:
                break
            time.sleep(interval / 1000)
    if document.get("is_agreed") is False:
        ctx.exit(EXIT_DIVERGED)
    if document.get("leader") is None:
        ctx.exit(EXIT_UNAVAILABLE)


def _page(document: Document) -> list[Part]:
    return [
        Line(_headline(document)),
        Line(),
        Table(
            (
                Column("MEMBER", "id", ID),
                Column("ADDRESS", "address"),
                Column("ROLE", "role"),
                Column("TERM", "term", NUMBER),
                Column("APPLIED", "height", NUMBER),
                Column("LAG", "lag", NUMBER),
                Column("STATE ROOT", "state_root", ID),
            ),
            document["members"],
            empty="no members",
        ),
        Line(),
        *_warnings(document),
        Line(f"tasks   {_counts(document['tasks'])}"),
        Line(f"nodes   {_counts(document['nodes'])}"),
        Line(f"money   {_money(document['supply'])}"),
        Line(f"batch   {_batch(document['batch'])}"),
        Line(f"anchor  {_anchor(document['anchor'])}"),
        Line(f"chain   {document['chain_id']}"),
    ]


def _headline(document: Document) -> str:
    leader = document["leader"]
    leads = f"leader {leader} (term {document['term']})" if leader else "no leader"
    height = format_number(document["height"])
    return f"cluster {document['cluster']}   height {height}   {leads}"


def _warnings(document: Document) -> list[Part]:
    lines: list[Part] = []
    if not document["is_agreed"]:
        lines.append(Line("DIVERGED: two members show different roots at one height", "red"))
    if document["leader"] is None:
        lines.append(Line("NO LEADER: nothing can be written until a majority runs", "red"))
    for item in document["awaiting"][:10]:
        members = ", ".join(item["members"])
        lines.append(Line(f"proof {shorten(item['proof'])} waits for the verdict of {members}"))
    return [*lines, Line()] if lines else []


def _counts(counts: Document) -> str:
    return " · ".join(
        f"{format_number(count)} {word.replace('_', ' ')}" for word, count in counts.items()
    )


def _money(supply: Document) -> str:
    held = ("available", "escrow", "pending", "stake", "treasury")
    parts = [f"{format_amount(supply[word])} {word}" for word in held if supply[word] != "0"]
    made = int(supply["minted"]) + int(supply["deposited"]) - int(supply["withdrawn"])
    sign = "=" if made == int(supply["accounted"]) else "≠"
    return f"{AMOUNT.on_page(made)} {sign} {' + '.join(parts) or '0'}"


def _batch(batch: Document) -> str:
    sealed = format_number(batch["sealed"])
    return f"{batch['open']} open with {format_number(batch['tasks'])} tasks · {sealed} sealed"


def _anchor(anchor: Document) -> str:
    final, pending = anchor["final"], anchor["pending"]
    text = f"{anchor['backend']} ({anchor['label']})"
    text += f" · final up to batch {format_number(final)}" if final else " · nothing anchored yet"
    return f"{text} · pending at {format_number(pending)}" if pending else text


VIEW = View(_page, lambda document: [member["id"] for member in document["members"]])
