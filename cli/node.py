"""`vcp-cluster node`: compute nodes."""

from __future__ import annotations

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.options import reads
from vcp_cluster.cli.page import (
    AMOUNT,
    ID,
    NUMBER,
    SHARE,
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
from vcp_cluster.cli.values import ID as ID_VALUE
from vcp_cluster.cli.values import format_number

LISTED_MAX = 1_000


@click.group(cls=Group, examples=("vcp-cluster node list", "vcp-cluster node show 9c0e"))
def node() -> None:
    """Look at compute nodes."""


@node.command("list", examples=("vcp-cluster node list", "vcp-cluster node list --json"))
@click.option(
    "--limit",
    type=click.IntRange(1, LISTED_MAX),
    default=100,
    show_default=True,
    help="At most so many.",
)
@reads
def list_nodes(access: Access, limit: int) -> None:
    """List compute nodes with health, reputation and what they did."""
    with access.open_client() as client:
        access.output.emit(client.nodes(limit=limit), NODES)


@node.command("show", examples=("vcp-cluster node show 9c0e", "vcp-cluster node show 9c0e --json"))
@click.argument("node_id", metavar="NODE", type=ID_VALUE)
@reads
def show(access: Access, node_id: str) -> None:
    """Show a compute node: its telemetry, its record, its balance."""
    with access.open_client() as client:
        access.output.emit(client.node(node_id), NODE)


def _list_page(document: Document) -> list[Part]:
    return [
        Table(
            (
                Column("NODE", "id", ID),
                Column("DEVICE", "device", is_elastic=True),
                Column("STATUS", "status"),
                Column("HEALTH", "health", SHARE),
                Column("REPUTATION", "reputation", SHARE),
                Column("RUNNING", lambda one: f"{one['running']}/{one['capacity']}"),
                Column("ACCEPTED", "accepted", NUMBER),
                Column("REJECTED", "rejected", NUMBER),
                Column("FAILED", "failed", NUMBER),
            ),
            document["nodes"],
            empty="no compute nodes yet.  Next: vcp-cluster worker run --key worker.key",
        )
    ]


def _page(node: Document) -> list[Part]:
    told, balance = node["telemetry"], node["balance"]
    return [
        Fields(
            (
                Field("node", node["id"], ID),
                Field("device", node["device"]),
                Field("status", node["status"]),
                Field("health", node["health"], SHARE),
                Field("reputation", node["reputation"], SHARE),
                Field("running", f"{node['running']} of {node['capacity']}"),
                Field("proofs", _record(node)),
                Field("reported", node["reported"], TIME),
            )
        ),
        Line(),
        Fields(
            (
                Field("power", f"{_thousandths(told['power_mw'])} W"),
                Field("temperature", f"{_thousandths(told['temperature_mc'])} °C"),
                Field("carbon", f"{format_number(told['carbon_g_kwh'])} gCO2/kWh"),
                Field("bandwidth", f"{_thousandths(told['bandwidth_kbps'])} Mbit/s"),
                Field("latency", f"{_thousandths(told['latency_us'])} ms"),
                Field("efficiency", f"{_thousandths(told['efficiency_mflops_w'])} GFLOPS/W"),
            )
        ),
        Line(),
        Fields(
            (
                Field("available", balance["available"], AMOUNT),
                Field("pending", balance["pending"], AMOUNT),
                Field("stake", balance["stake"], AMOUNT),
            )
        ),
    ]


def _record(node: Document) -> str:
    words = ("proofs", "accepted", "rejected", "undecided", "failed")
    return " · ".join(f"{format_number(node[word])} {word}" for word in words)


def _thousandths(value: int) -> str:
    return f"{format_number(value // 1000)}.{value % 1000:03d}"


NODES = View(
    _list_page, lambda document: [one["id"] for one in document["nodes"]], "nodes", "vcp/node/v1"
)
NODE = View(_page, lambda node: [node["id"]])
