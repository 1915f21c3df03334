"""Rebuilding the list of anchors from Bitcoin alone: follow the chain of seals from the first coin.

Needs genesis and a full node that nobody of the cluster runs. Every seal has one spender, so the list
has no branches: what it shows is all that this cluster's key ever committed to, in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vcp_cluster.cluster.anchors.bitcoin.chain import (
    check_health,
    find_spender,
    get_block_hash,
    is_active,
    is_unspent,
)
from vcp_cluster.cluster.anchors.bitcoin.rpc import BitcoinNode, NodeMisconfigured, NodeUnavailable
from vcp_cluster.ledger.anchor_settings import BitcoinSettings, first_coin, seal_script_of
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid
from vcp_cluster.ledger.bitcoin.script import find_payload
from vcp_cluster.ledger.bitcoin.seal import has_anchor_shape
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction

_SIZE = slice(4, 8)
_ROOT = slice(8, 40)


@dataclass(frozen=True, slots=True)
class PublishedAnchor:
    """An anchor in a block. `problem` says what is wrong with it, or is None."""

    height: int
    block_hash: bytes
    txid: bytes
    size: int | None
    root: bytes | None
    problem: str | None


@dataclass(frozen=True, slots=True)
class Audit:
    """All anchors between two heights, in order. `seal` is the coin that no block spends yet."""

    anchors: tuple[PublishedAnchor, ...]
    first_height: int
    last_height: int
    seal: OutPoint
    is_seal_unspent: bool

    @property
    def problems(self) -> list[str]:
        """What is wrong, one line each."""
        found = [f"height {one.height}: {one.problem}" for one in self.anchors if one.problem]
        if not self.is_seal_unspent:
            found.append(
                "the last seal is neither spent in these blocks nor unspent now: begin at or below "
                "the height of the first coin's block"
            )
        return found


async def audit_chain(
    node: BitcoinNode,
    settings: BitcoinSettings,
    first_height: int,
    on_block: Callable[[int, int], None],
) -> Audit:
    """Read the blocks from `first_height` to the tip; `on_block` gets height and tip.

    Raises `NodeError`, also when the chain moves meanwhile.
    """
    tip = await check_health(node, settings.network, b"")
    if first_height > tip.height:
        raise NodeMisconfigured(
            f"the node's tip is {tip.height}. Next: give --from the height of the first coin's block"
        )
    seal = first_coin(settings).outpoint
    script = seal_script_of(settings)
    found: list[PublishedAnchor] = []
    for height in range(first_height, tip.height + 1):
        on_block(height, tip.height)
        block_hash = await get_block_hash(node, height)
        if block_hash is None:
            raise NodeUnavailable("the chain moved while it was read; audit again")
        # A chain of anchors may be in one block, after a reorganisation.
        while (spender := await find_spender(node, block_hash, seal)) is not None:
            newest = max((one.size or 0 for one in found), default=0)
            found.append(_read(spender, height, block_hash, script, newest))
            seal = OutPoint(spender.txid, 0)
    if not await is_active(node, tip.hash):
        raise NodeUnavailable("the chain moved while it was read; audit again")
    is_seal_unspent = await is_unspent(node, seal)
    return Audit(tuple(found), first_height, tip.height, seal, is_seal_unspent)


def _read(
    transaction: Transaction, height: int, block_hash: bytes, script: bytes, newest: int
) -> PublishedAnchor:
    """One spender of a seal, and what is wrong with it."""
    size: int | None = None
    root: bytes | None = None
    problem: str | None = None
    try:
        payload = find_payload([one.script for one in transaction.outputs])
        size, root = int.from_bytes(payload[_SIZE], "big"), payload[_ROOT]
        if not has_anchor_shape(transaction) or transaction.outputs[0].script != script:
            problem = "it is not built as an anchor is, or does not pass the seal on"
        elif size <= newest:
            problem = f"it commits to {size} batches after one that committed to {newest}"
    except BitcoinInvalid as error:
        problem = f"the seal was spent without a commitment: {error}"
    return PublishedAnchor(height, block_hash, transaction.txid, size, root, problem)


async def find_first_height(node: BitcoinNode, settings: BitcoinSettings) -> int | None:
    """Height of the first coin's block while no block spends the coin; else None."""
    coin = first_coin(settings).outpoint
    tip = await check_health(node, settings.network, b"")
    answer = await node.call("gettxout", coin.txid[::-1].hex(), coin.output, False)
    if not isinstance(answer, dict) or not isinstance(answer.get("confirmations"), int):
        return None
    return tip.height - int(answer["confirmations"]) + 1
