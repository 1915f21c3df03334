"""`vcp-cluster join`: run a member."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.commands import Command
from vcp_cluster.cli.options import PATH

if TYPE_CHECKING:
    from vcp_cluster.cluster.directory import MemberDirectory

CANDIDATES_MAX = 64


@click.command(
    cls=Command,
    examples=(
        "vcp-cluster join --dir paris-1/a",
        "vcp-cluster join --peers 10.0.0.1:7100,10.0.0.2:7100,10.0.0.3:7100 --dir paris-1/a",
    ),
)
@click.option(
    "--dir",
    "directory",
    type=PATH,
    metavar="DIR",
    help="The member's directory; by default the only one here.",
)
@click.option(
    "--peers",
    metavar="HOST:PORT,…",
    help="All members' addresses, checked against genesis.json.",
)
@click.pass_context
def join(ctx: click.Context, directory: Path | None, peers: str | None) -> None:
    """Run a member of a cluster until it is stopped, by Ctrl-C or SIGTERM.

    Members start in any order; the cluster works as soon as a majority of them runs.
    """
    from vcp_cluster.cluster.directory import MemberDirectory

    member = MemberDirectory.load(directory or _find_directory(Path()))
    if peers is not None:
        _check_peers(member, peers)
    from vcp_cluster.cluster.member import run_member

    ctx.exit(run_member(member.path))


def _find_directory(here: Path) -> Path:
    """The one member directory that can be meant; raise `ConfigError` for none or several."""
    from vcp_cluster.cluster.directory import INIT_LINE, MEMBER_KEY_FILE
    from vcp_cluster.cluster.errors import ConfigError

    if (here / MEMBER_KEY_FILE).exists():
        return here
    found = sorted(path.parent for path in here.glob(f"*/{MEMBER_KEY_FILE}"))
    if len(found) == 1:
        return found[0]
    names = ", ".join(map(str, found[:CANDIDATES_MAX]))
    raise ConfigError(
        f"it holds the directories of several members: {names}"
        if found
        else "there is no initialised directory of a member",
        key="--dir",
        origin=str(here.resolve()),
        hint=f"vcp-cluster join --dir {found[0]}"
        if found
        else f"{INIT_LINE}, then vcp-cluster join --dir DIR/a",
    )


def _check_peers(member: MemberDirectory, peers: str) -> None:
    """Raise `ConfigError` unless `--peers` names exactly the members of genesis.json."""
    from vcp_cluster.cluster.directory import GENESIS_FILE
    from vcp_cluster.cluster.errors import ConfigError

    given = {part.strip().lower() for part in peers.split(",")}
    known = {one.address.lower() for one in member.genesis.members}
    if given == known:
        return
    differences = [
        *(f"{address} is not in it" for address in sorted(given - known)),
        *(f"{address} is missing here" for address in sorted(known - given)),
    ]
    right = ",".join(one.address for one in member.genesis.members)
    raise ConfigError(
        f"they are not the members of {member.path / GENESIS_FILE}: {'; '.join(differences[:8])}",
        key="--peers",
        origin="the command line",
        hint=f"--peers {right}, or leave it out",
    )
