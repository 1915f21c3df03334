"""`vcp-cluster account`: make accounts, look at them, move and make VCP."""

from __future__ import annotations

import secrets
from pathlib import Path

import click

from vcp_cluster.cli.access import Access
from vcp_cluster.cli.commands import Group
from vcp_cluster.cli.options import PATH, offline, writes
from vcp_cluster.cli.output import Output
from vcp_cluster.cli.page import (
    AMOUNT,
    FLAG,
    ID,
    NUMBER,
    Document,
    Field,
    Fields,
    Line,
    Part,
    View,
    pick,
)
from vcp_cluster.cli.values import AMOUNT as AMOUNT_VALUE
from vcp_cluster.cli.values import ID as ID_VALUE
from vcp_cluster.cli.values import format_amount, shorten
from vcp_cluster.cli.writing import dry_run_option, print_plan, print_receipt


@click.group(
    cls=Group,
    examples=("vcp-cluster account show", "vcp-cluster account transfer 9c0e 12.5"),
)
def account() -> None:
    """Make accounts, look at them, move VCP."""


@account.command(
    "create",
    examples=(
        "vcp-cluster account create --out alice.key",
        "vcp-cluster account create --out alice.key --quiet",
    ),
)
@click.option("--out", type=PATH, required=True, metavar="FILE", help="New key file.")
@offline
def create(output: Output, out: Path) -> None:
    """Make a key. Its account exists for the ledger once something was transferred to it."""
    from vcp_cluster.cluster.directory import SEED_BYTES, write_seed
    from vcp_cluster.ledger.keys import public_key

    seed = secrets.token_bytes(SEED_BYTES)
    write_seed(out, seed)
    document = {"schema": "vcp/key/v1", "id": public_key(seed).hex(), "file": str(out)}
    output.emit(document, KEY)


@account.command(
    "show", examples=("vcp-cluster account show", "vcp-cluster account show 9c0e --json")
)
@click.argument("account_id", metavar="[ACCOUNT]", type=ID_VALUE, required=False)
@writes
def show(access: Access, account_id: str | None) -> None:
    """Show an account's balances; your own (--key) when none is named."""
    with access.open_client(is_signing=account_id is None) as client:
        access.output.emit(client.account(account_id), ACCOUNT)


@account.command(
    "transfer",
    examples=(
        "vcp-cluster account transfer 9c0e 12.5",
        "vcp-cluster account transfer 9c0e 12.5 --key alice.key --dry-run",
    ),
)
@click.argument("recipient", metavar="TO", type=ID_VALUE)
@click.argument("amount", metavar="VCP", type=AMOUNT_VALUE)
@dry_run_option
@writes
def transfer(access: Access, recipient: str, amount: int, dry_run: bool) -> None:
    """Move VCP from your account to another.

    TO may be shortened when the ledger knows the account; the whole id makes a new account.
    """
    _move(access, "transfer", recipient, amount, dry_run=dry_run)


@account.command(
    "mint",
    examples=(
        "vcp-cluster account mint 9c0e 1000 --key governance.key",
        "vcp-cluster account mint 9c0e 1000 --key governance.key --dry-run",
    ),
)
@click.argument("recipient", metavar="TO", type=ID_VALUE)
@click.argument("amount", metavar="VCP", type=AMOUNT_VALUE)
@click.option(
    "--cosigner",
    "cosigners",
    type=PATH,
    multiple=True,
    metavar="FILE",
    help="A further governance key file; may be repeated.",
)
@dry_run_option
@writes
def mint(
    access: Access, recipient: str, amount: int, cosigners: tuple[Path, ...], dry_run: bool
) -> None:
    """Make new VCP. Needs the governance key: --key DIR/governance.key."""
    _move(access, "mint", recipient, amount, cosigners=cosigners, dry_run=dry_run)


def _move(
    access: Access,
    action: str,
    recipient: str,
    amount: int,
    *,
    cosigners: tuple[Path, ...] = (),
    dry_run: bool,
) -> None:
    from vcp_cluster.cluster.directory import load_seed

    seeds = [load_seed(path) for path in cosigners]
    with access.open_client(is_signing=True) as client:
        to = recipient if len(recipient) == 64 else pick(client.account(recipient), "id")
        if dry_run:
            print_plan(
                access.output,
                action,
                ("from", "from", client.account_id, ID),
                ("to", "to", to, ID),
                ("amount", "amount", str(amount), AMOUNT),
            )
            return
        if action == "mint":
            receipt = client.mint(to, amount, cosigner_seeds=seeds)
        else:
            receipt = client.transfer(to, amount)
    access.output.note(f"{format_amount(amount)} VCP to {shorten(to)}")
    print_receipt(access.output, receipt)


def _key_page(document: Document) -> list[Part]:
    return [
        Fields((Field("account", document["id"], ID), Field("key file", document["file"]))),
        Line("keep the file: whoever has it has the account, and nobody can make it again"),
    ]


def _page(account: Document) -> list[Part]:
    return [
        Fields(
            (
                Field("account", account["id"], ID),
                Field("available", account["available"], AMOUNT),
                Field("pending", account["pending"], AMOUNT),
                Field("escrow", account["escrow"], AMOUNT),
                Field("stake", account["stake"], AMOUNT),
                Field("compute node", account["is_node"], FLAG),
                Field("member", account["member"]),
                Field("as of height", account["height"], NUMBER),
            )
        )
    ]


KEY = View(_key_page, lambda document: [document["id"]])
ACCOUNT = View(_page, lambda document: [document["id"]])
