"""How far a receipt's Bitcoin anchor is shown: four levels, and what each was told to trust.

matches-header     the anchor is in a block, on a network where work costs nothing
pow-attested       work was spent on the block and on those after it
on-pinned-chain    the block is in a chain that the verifier trusts (--headers, --checkpoint)
node-confirmed     a node of the verifier's has the block in its best chain (--rpc)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from vcp_cluster.cli.files import read_input
from vcp_cluster.cli.page import Document

if TYPE_CHECKING:
    from vcp_cluster.ledger.anchors.bitcoin_proof import AnchoredBlock

# All of mainnet for centuries.
HEADERS_FILE_BYTES_MAX = 1 << 30
NOT_PINNED = "that the block is on the best chain: give --headers FILE, --checkpoint HASH:HEIGHT or --rpc URL"


@dataclass(frozen=True)
class Trust:
    """What the verifier gave on the command line."""

    headers: Path | None
    checkpoint: str | None
    rpc: str | None
    rpc_cookie: Path | None

    @property
    def is_given(self) -> bool:
        """Whether anything was."""
        return any((self.headers, self.checkpoint, self.rpc))


@dataclass(frozen=True)
class Standing:
    """The level reached. `confirmations` counts the block itself, where somebody counted."""

    level: str
    confirmations: int | None
    checked: tuple[tuple[str, str], ...]
    unchecked: tuple[str, ...]


def judge(block: AnchoredBlock, network: bytes, trust: Trust) -> Standing:
    """The level of an anchored block; raise `BitcoinInvalid` where the trusted chain differs.

    Raises `ConfigError` or `Unavailable` when a node was named and gives no answer.
    """
    from vcp_cluster.ledger.bitcoin import pinning
    from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid

    level = "pow-attested" if block.has_security else "matches-header"
    checked: list[tuple[str, str]] = []
    confirmations = None
    hashes = block.header_hashes
    if trust.headers is not None:
        data = read_input(trust.headers, HEADERS_FILE_BYTES_MAX, option="--headers")
        hashes = pinning.find_in_headers(data, block.block_hash)
        level, confirmations = "on-pinned-chain", len(hashes)
        checked.append(("headers", f"in {trust.headers}, {confirmations} deep"))
    if trust.checkpoint is not None:
        try:
            checkpoint = pinning.parse_checkpoint(trust.checkpoint)
        except BitcoinInvalid as error:
            raise click.UsageError(f"--checkpoint: {error}") from None
        number = pinning.check_checkpoint(hashes, block.block_height, checkpoint)
        level = "on-pinned-chain"
        checked.append(("checkpoint", f"block {checkpoint.height} is {number} after the anchor's"))
    if trust.rpc is not None:
        confirmations = _ask_node(block, network, trust)
        level = "node-confirmed"
        checked.append(("node", f"{trust.rpc} has it in its best chain, {confirmations} deep"))
    is_pinned = bool(checked)
    return Standing(level, confirmations, tuple(checked), () if is_pinned else (NOT_PINNED,))


def _ask_node(block: AnchoredBlock, network: bytes, trust: Trust) -> int:
    from vcp_cluster.cluster.anchors.bitcoin.asking import ask_node, confirm_block
    from vcp_cluster.cluster.errors import ConfigError
    from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid

    assert trust.rpc is not None, "only asked with a node"
    if trust.rpc_cookie is None:
        raise ConfigError(
            "a node wants credentials",
            key="--rpc-cookie",
            origin="not given",
            hint="give the node's .cookie, or a file of mode 0600 with one line USER:PASSWORD",
        )
    count = ask_node(
        trust.rpc,
        trust.rpc_cookie,
        lambda node: confirm_block(node, network, block.block_hash),
    )
    if count == 0:
        raise BitcoinInvalid("the node does not have the block in its best chain")
    return count


def describe(block: AnchoredBlock, standing: Standing) -> Document:
    """The Bitcoin part of a verification document."""
    from vcp_cluster.ledger.bitcoin.reader import to_display

    return {
        "network": block.network,
        "has_security": block.has_security,
        "txid": to_display(block.txid),
        "block_hash": to_display(block.block_hash),
        "block_height": block.block_height,
        "headers": len(block.header_hashes),
        "work": f"{block.work:064x}",
        "log_size": block.log_size,
        "confirmations": standing.confirmations,
    }
