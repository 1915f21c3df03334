"""`vcp-cluster proof`: what a worker claimed, and what was found when others ran it again."""

from __future__ import annotations

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.options import reads
from vcp_cluster.cli.page import (
    FLAG,
    ID,
    NUMBER,
    TIME,
    WORDS,
    Column,
    Document,
    Field,
    Fields,
    Line,
    Part,
    Table,
    View,
    pick,
)
from vcp_cluster.cli.proof_explain import EXPLANATION, explain_proof
from vcp_cluster.cli.values import ID as ID_VALUE


@click.group(cls=Group, examples=("vcp-cluster proof explain 7d1f", "vcp-cluster proof show 7d1f"))
def proof() -> None:
    """Look at proofs and why they were rejected.

    A proof is a worker's signed commitment to a run. It does not spare the run: whoever wants to
    know runs the task again and compares, as the members do with the proofs that are drawn.
    """


@proof.command(
    "show", examples=("vcp-cluster proof show 7d1f", "vcp-cluster proof show 7d1f --json")
)
@click.argument("proof_id", metavar="PROOF", type=ID_VALUE)
@reads
def show(access: Access, proof_id: str) -> None:
    """Show a proof: the commitment, field by field, and every verdict."""
    with access.open_client() as client:
        access.output.emit(client.proof(proof_id), PROOF)


@proof.command(
    "explain",
    examples=("vcp-cluster proof explain 7d1f", "vcp-cluster proof explain 7d1f --json"),
)
@click.argument("proof_id", metavar="PROOF", type=ID_VALUE)
@reads
def explain(access: Access, proof_id: str) -> None:
    """Say what was claimed, what was recomputed and by whom, what differs, and how to check it."""
    with access.open_client() as client:
        document = client.proof(proof_id)
        task = client.task(pick(document, "task"))
    access.output.emit(explain_proof(document, task), EXPLANATION)


def _page(document: Document) -> list[Part]:
    commitment = document["commitment"]
    return [
        Fields(
            (
                Field("proof", document["id"], ID),
                Field("status", document["status"]),
                Field("task", f"{document['task']} (attempt {document['attempt'] + 1})"),
                Field("node", document["node"], ID),
                Field("submitted", document["submitted"]["time"], TIME),
                Field("decided", document["decided_height"], NUMBER),
                Field("audited", document["is_audited"], FLAG),
                Field("verifier", document["verifier"]),
                Field("waits for", document["missing"], WORDS),
                Field("differs in", document["differs"], WORDS),
            )
        ),
        Line(),
        Line("commitment, signed by the node"),
        Fields([Field(f"  {name.replace('_', ' ')}", value) for name, value in commitment.items()]),
        Line(),
        Table(
            (
                Column("MEMBER", "member"),
                Column("FINDING", "finding"),
                Column("HEIGHT", "height", NUMBER),
                Column("STATUS", "status"),
                Column("GAS", "gas", NUMBER),
                Column("OUTPUT", "output_hash", ID),
                Column("EXECUTION ROOT", "execution_root", ID),
                Column("DETAIL", "detail", is_elastic=True),
            ),
            document["verdicts"],
            empty="no verdicts",
        ),
    ]


PROOF = View(_page, lambda document: [document["id"]])
