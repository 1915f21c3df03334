"""Pages of `vcp-cluster anchor`."""

from __future__ import annotations

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
from vcp_cluster.cli.values import format_number

ANCHOR_VB = 161  # one input, two outputs, for the runway


def _lanes_page(document: Document) -> list[Part]:
    parts: list[Part] = [
        Line(f"{format_number(document['batches'])} batches at height {document['height']}")
    ]
    for lane in document["backends"]:
        parts += [Line(), Line(f"{lane['backend']}: {lane['label']}"), Fields(_lane_fields(lane))]
    return parts


def _lane_fields(lane: Document) -> list[Field]:
    fields = [
        Field("  anchored", lane["final"], NUMBER),
        Field("  not yet", lane["unanchored"], NUMBER),
        Field("  pending", lane["pending"], NUMBER),
    ]
    if lane["retracted"]:
        fields.append(Field("  waiting behind", ", ".join(map(str, lane["retracted"]))))
    if lane["halt"]:
        fields.append(Field("  HALTED", lane["halt"]))
    bitcoin = lane["bitcoin"]
    if bitcoin is None:
        return fields
    seal = bitcoin["seal"]
    security = "" if bitcoin["has_security"] else " (no security)"
    return [
        *fields,
        Field("  network", f"{bitcoin['network']}{security}"),
        Field("  holder", lane["holder"]),
        Field("  lease until", lane["lease_until"], TIME),
        Field("  seal", f"{seal['txid']}:{seal['output']}"),
        Field("  holds", f"{format_number(seal['satoshi'])} satoshi"),
        Field("  runway", _runway(int(seal["satoshi"]))),
        Field("  address", bitcoin["address"]),
    ]


def _runway(satoshi: int) -> str:
    anchors = satoshi // (10 * ANCHOR_VB)
    return f"{format_number(anchors)} anchors at 10 sat/vB"


def _list_page(document: Document) -> list[Part]:
    return [
        Table(
            (
                Column("SIZE", "size", NUMBER),
                Column("BACKEND", "backend"),
                Column("STATUS", "status"),
                Column("VARIANTS", "variants", NUMBER),
                Column("INTENT", "time", TIME),
                Column("FINAL AT", "final_height", NUMBER),
                Column("PAYLOAD", "payload", ID),
            ),
            document["anchors"],
            empty="nothing is anchored yet",
        )
    ]


def _page(document: Document) -> list[Part]:
    parts: list[Part] = [
        Fields(
            (
                Field("anchor", f"{document['backend']} ({document['label']})"),
                Field("covers", f"batches 1 to {document['size']}"),
                Field("status", document["status"]),
                Field("payload", document["payload"]),
                Field("intent", document["time"], TIME),
                Field("final at height", document["final_height"], NUMBER),
            )
        )
    ]
    bitcoin = document.get("bitcoin")
    if bitcoin is None:
        return parts
    block = bitcoin["block"]
    if block is not None:
        parts += [
            Fields(
                (
                    Field("transaction", block["txid"]),
                    Field("block", f"{block['hash']} at {block['height']}"),
                )
            )
        ]
    return [
        *parts,
        Line(),
        Table(
            (
                Column("VARIANT", "txid", ID),
                Column("LIVE", lambda one: "yes" if one["is_live"] else "no"),
                Column("FEE", "fee", NUMBER),
                Column("VB", "virtual_size", NUMBER),
                Column("MADE AT", "block_height", NUMBER),
            ),
            bitcoin["variants"],
            empty="",
        ),
    ]


def _published_page(document: Document) -> list[Part]:
    if document["outcome"] is None:
        return [Line(document["transaction"])]
    return [Line(f"{document['txid']}: {document['outcome']}")]


def _audit_page(document: Document) -> list[Part]:
    problems = document["problems"]
    count = format_number(len(document["anchors"]))
    span = f"blocks {document['first_height']} to {document['last_height']}"
    verdict = (
        Line(f"{count} anchors in {span}: one chain, no gap, nothing rewritten", "green")
        if not problems
        else Line(f"{count} anchors in {span}, and {len(problems)} problems", "red")
    )
    return [
        verdict,
        *(Line(f"  {problem}") for problem in problems),
        Line(),
        Table(
            (
                Column("HEIGHT", "height", NUMBER),
                Column("SIZE", "size", NUMBER),
                Column("ROOT", "root", ID),
                Column("TRANSACTION", "txid", ID),
                Column("LEDGER", "ledger"),
            ),
            document["anchors"],
            empty="no anchor is published",
        ),
        *(
            []
            if document["is_compared"]
            else [Line("not checked: that the ledger says the same; give --compare")]
        ),
    ]


LANES = View(
    _lanes_page,
    lambda document: [one["backend"] for one in document["backends"]],
    "backends",
    "vcp/anchor-lane/v1",
)
ANCHORS = View(
    _list_page,
    lambda document: [str(one["size"]) for one in document["anchors"]],
    "anchors",
    "vcp/anchor/v1",
)
ANCHOR = View(_page, lambda document: [str(document["size"])])
PUBLISHED = View(_published_page, lambda document: [document["txid"]])
AUDIT = View(_audit_page, lambda document: [one["txid"] for one in document["anchors"]])
