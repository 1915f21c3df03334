"""`vcp-cluster init`: the directories of a new cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.options import PATH, offline
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import (
    AMOUNT,
    ID,
    Column,
    Document,
    Field,
    Fields,
    Line,
    Part,
    Table,
    View,
)
from vcp_cluster.cli.values import MEMBERS

if TYPE_CHECKING:
    from vcp_cluster.ledger.anchor_settings import AnchorSettings
    from vcp_cluster.ledger.genesis import Genesis

ANCHORS_BYTES_MAX = 256 * 1024


@click.command(
    cls=Command,
    examples=(
        "vcp-cluster init --members a=127.0.0.1:7100,b=127.0.0.1:7110,c=127.0.0.1:7120 --dir demo",
        "vcp-cluster init --members a=10.0.0.1:7100,b=10.0.0.2:7100,c=10.0.0.3:7100 --dir paris",
    ),
)
@click.option(
    "--members",
    type=MEMBERS,
    required=True,
    metavar="NAME=HOST:PORT,…",
    help="All members. A member takes PORT for Raft, PORT+1 for HTTP, and PORT+2.",
)
@click.option(
    "--dir", "directory", type=PATH, required=True, metavar="DIR", help="New or empty directory."
)
@click.option(
    "--certificate-days",
    type=click.IntRange(1, 3652),
    default=1826,
    show_default=True,
    help="How long the members' certificates are valid.",
)
@click.option("--name", default="vcp", show_default=True, help="Name of the cluster.")
@click.option(
    "--anchors", type=PATH, metavar="FILE", help="From `anchor settings`; the notary by default."
)
@offline
def init(
    output: Output,
    members: list[tuple[str, str, int]],
    directory: Path,
    certificate_days: int,
    name: str,
    anchors: Path | None,
) -> None:
    """Make the directories of a new cluster: keys, certificates, genesis, a funded client account.

    Copy DIR/NAME to the machine of each member and run `vcp-cluster join --dir DIR/NAME` there.
    Keep DIR/governance.key, which can make money, and DIR/ca.key away from all of them.
    """
    from vcp_cluster.cluster.directory import initialise

    created_ms = time.time_ns() // 1_000_000
    genesis = initialise(
        directory,
        members,
        cluster_name=name,
        created_ms=created_ms,
        certificate_days=certificate_days,
        anchors=None if anchors is None else _read_anchors(anchors),
    )
    profile = _write_profile(genesis, directory, output)
    output.emit(_describe(genesis, directory, profile), VIEW)


def _read_anchors(path: Path) -> AnchorSettings:
    import json

    from vcp_cluster.cli.files import read_input
    from vcp_cluster.cluster.errors import ConfigError
    from vcp_cluster.ledger.genesis import GenesisInvalid, read_anchor_settings

    data = read_input(path, ANCHORS_BYTES_MAX, option="--anchors")
    try:
        return read_anchor_settings(json.loads(data))
    except (GenesisInvalid, ValueError, RecursionError) as error:
        raise ConfigError(
            str(error),
            key="--anchors",
            origin=str(path),
            hint="make the file with `vcp-cluster anchor settings`",
        ) from None


def _write_profile(genesis: Genesis, directory: Path, output: Output) -> Path | None:
    """Let commands without flags find this cluster; a home that cannot be written is no error."""
    from vcp_cluster.cluster.directory import CLIENT_DIRECTORY, endpoints_of
    from vcp_cluster.cluster.errors import ConfigError
    from vcp_cluster.cluster.profile import Profile, write_profile
    from vcp_cluster.ledger.genesis import compute_chain_id

    try:
        return write_profile(
            Profile(
                cluster=endpoints_of(genesis),
                directory=str((directory / CLIENT_DIRECTORY).resolve()),
                chain_id=compute_chain_id(genesis).hex(),
            )
        )
    except ConfigError as error:
        output.note(f"no profile was written, so commands need --dir: {error.message}")
        return None


def _describe(genesis: Genesis, directory: Path, profile: Path | None) -> Document:
    from vcp_cluster.cluster.directory import (
        AUTHORITY_KEY_FILE,
        CLIENT_DIRECTORY,
        GOVERNANCE_KEY_FILE,
    )
    from vcp_cluster.ledger.genesis import compute_chain_id

    (allocation,) = genesis.allocations
    return {
        "schema": "vcp/init/v1",
        "cluster": genesis.cluster_name,
        "chain_id": compute_chain_id(genesis).hex(),
        "dir": str(directory),
        "members": [
            {
                "id": member.name,
                "address": member.address,
                "key": member.key.hex(),
                "dir": str(directory / member.name),
            }
            for member in genesis.members
        ],
        "client": {
            "dir": str(directory / CLIENT_DIRECTORY),
            "account": allocation.account.hex(),
            "allocation": str(allocation.amount),
        },
        "governance_key": str(directory / GOVERNANCE_KEY_FILE),
        "authority_key": str(directory / AUTHORITY_KEY_FILE),
        "profile": None if profile is None else str(profile),
    }


def _page(document: Document) -> list[Part]:
    client = document["client"]
    return [
        Fields(
            (
                Field("cluster", document["cluster"]),
                Field("chain id", document["chain_id"]),
                Field("client", client["account"], ID),
                Field("holds", client["allocation"], AMOUNT),
            )
        ),
        Line(),
        Table(
            (
                Column("MEMBER", "id"),
                Column("ADDRESS", "address", is_elastic=True),
                Column("KEY", "key", ID),
            ),
            document["members"],
            empty="",
        ),
        Line(),
        *(Line(f"next: vcp-cluster join --dir {one['dir']}") for one in document["members"]),
        Line(f"then: vcp-cluster status --dir {client['dir']}"),
        Line(f"keep {document['governance_key']} away from these machines: it can make money"),
        Line(f"keep {document['authority_key']} there too: it makes certificates"),
    ]


VIEW = View(_page, lambda document: [document["chain_id"]])
