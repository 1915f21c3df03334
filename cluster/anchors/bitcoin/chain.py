"""Reading the chain from a node: its health, its tip, where a transaction is, who spent a coin.

Works on any full node, without a wallet and without an index. Everything a node says is taken as a
claim: what goes into the ledger is checked there, and an answer that contradicts another is no
answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vcp_cluster.cluster.anchors.bitcoin.rpc import (
    BitcoinNode,
    NodeMisconfigured,
    NodeRefused,
    NodeUnavailable,
)
from vcp_cluster.ledger.bitcoin.headers import HEADER_BYTES
from vcp_cluster.ledger.bitcoin.reader import (
    BitcoinInvalid,
    Reader,
    from_display,
    hash256,
    to_display,
)
from vcp_cluster.ledger.bitcoin.spv import BlockProof, parse_block_proof
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction, read_transaction

NOT_FOUND = -5
OUT_OF_RANGE = -8
_TRANSACTION_BYTES_MIN = 60


class NodeBehind(NodeUnavailable):
    """The node has seen less of the chain than the ledger knows of: nothing follows from it."""


@dataclass(frozen=True, slots=True)
class Tip:
    """The node's best block; `work` is the chain's, big endian without leading zeros."""

    height: int
    hash: bytes
    work: bytes


@dataclass(frozen=True, slots=True)
class Location:
    """A block in the active chain that holds a transaction."""

    transaction: Transaction
    height: int
    block_hash: bytes


async def check_health(node: BitcoinNode, network: bytes, position: bytes) -> Tip:
    """The tip of a node that is on the right chain, in sync, and not behind `position`.

    Raises `NodeMisconfigured` for another chain and `NodeBehind` for a node that has to catch up: a
    node that was killed may come back with a lower height, which looks like a reorganisation.
    """
    first = _hash(await node.call("getblockhash", 0))
    if first != network:
        raise NodeMisconfigured(
            f"the node follows the chain of {to_display(first)[:16]}…, not of "
            f"{to_display(network)[:16]}…. Next: give the RPC address of a node on that chain"
        )
    info = _object(await node.call("getblockchaininfo"))
    if info.get("initialblockdownload") is not False:
        raise NodeBehind("the node is still downloading the chain")
    try:
        work = int(str(info.get("chainwork")), 16)
        encoded = work.to_bytes((work.bit_length() + 7) // 8, "big")
    except (ValueError, OverflowError):
        raise NodeUnavailable("the node's chain work is not a number") from None
    if not 0 < len(encoded) <= 32:
        raise NodeUnavailable("the node's chain work is out of all bounds")
    if work < int.from_bytes(position, "big"):
        raise NodeBehind("the node has seen less work than the ledger has recorded")
    return Tip(_number(info.get("blocks")), _hash(info.get("bestblockhash")), encoded)


async def get_block_hash(node: BitcoinNode, height: int) -> bytes | None:
    """The active chain's block at a height, or None above its tip."""
    try:
        return _hash(await node.call("getblockhash", height))
    except NodeRefused as refused:
        if refused.code == OUT_OF_RANGE:
            return None
        raise


async def is_active(node: BitcoinNode, block_hash: bytes) -> bool:
    """Whether a block is in the active chain, as far as the node knows."""
    return await count_confirmations(node, block_hash) > 0


async def count_confirmations(node: BitcoinNode, block_hash: bytes) -> int:
    """How deep a block is in the active chain, 1 for the tip; 0 when it is not in it."""
    try:
        header = _object(await node.call("getblockheader", to_display(block_hash)))
    except NodeRefused as refused:
        if refused.code == NOT_FOUND:
            return 0
        raise
    confirmations = header.get("confirmations")
    if not isinstance(confirmations, int):
        raise NodeUnavailable("the node gave a header without confirmations")
    return max(0, confirmations)  # -1: known, and on another branch


async def is_unspent(node: BitcoinNode, coin: OutPoint) -> bool:
    """Whether a coin is in the active chain and no block spends it; the mempool does not count."""
    return await _get_coin(node, coin) is not None


async def _get_coin(node: BitcoinNode, coin: OutPoint) -> dict[str, Any] | None:
    answer = await node.call("gettxout", to_display(coin.txid), coin.output, False)
    return None if answer is None else _object(answer)


async def find_unspent(node: BitcoinNode, transactions: Sequence[Transaction]) -> Location | None:
    """The one of `transactions` whose first output is an unspent coin of the chain."""
    for transaction in transactions:
        coin = await _get_coin(node, OutPoint(transaction.txid, 0))
        if coin is None:
            continue
        best = _object(await node.call("getblockheader", str(coin.get("bestblock"))))
        height = _number(best.get("height")) - _number(coin.get("confirmations")) + 1
        block_hash = await get_block_hash(node, height)
        if block_hash is None:
            raise NodeUnavailable("the chain moved while it was read")
        return Location(transaction, height, block_hash)
    return None


async def find_spender(node: BitcoinNode, block_hash: bytes, coin: OutPoint) -> Transaction | None:
    """The transaction of a block that spends a coin; raise `NodeUnavailable` for another block.

    A block without the coin's 36 bytes in it is not taken apart.
    """
    data = _bytes(await node.call("getblock", to_display(block_hash), 0))
    if hash256(data[:HEADER_BYTES]) != block_hash:
        raise NodeUnavailable("the node gave another block than the one asked for")
    if coin.encode() not in data:
        return None
    for transaction in _read_block(data):
        if any(one.outpoint == coin for one in transaction.inputs):
            return transaction
    return None


def _read_block(data: bytes) -> list[Transaction]:
    try:
        reader = Reader(data, HEADER_BYTES)
        count = reader.count(_TRANSACTION_BYTES_MIN)
        transactions = [read_transaction(reader) for _ in range(count)]
        reader.end()
    except BitcoinInvalid as error:
        raise NodeUnavailable(f"the node's block cannot be read: {error}") from None
    return transactions


async def read_header(node: BitcoinNode, block_hash: bytes) -> bytes:
    """The 80 bytes of a header."""
    data = _bytes(await node.call("getblockheader", to_display(block_hash), False))
    if len(data) != HEADER_BYTES or hash256(data) != block_hash:
        raise NodeUnavailable("the node's header is not the one asked for")
    return data


async def prove(node: BitcoinNode, location: Location) -> BlockProof:
    """The Merkle branch of a located transaction, checked."""
    txid = location.transaction.txid
    data = _bytes(
        await node.call("gettxoutproof", [to_display(txid)], to_display(location.block_hash))
    )
    try:
        return parse_block_proof(data, txid)
    except BitcoinInvalid as error:
        raise NodeUnavailable(f"the node's proof does not hold: {error}") from None


class SpenderScan:
    """Finds the transaction that spends a coin by reading blocks from the tip down.

    Remembers blocks that it has read in vain for the same coin, so that the next scan reads only new
    ones.
    """

    def __init__(self) -> None:
        self._coin: OutPoint | None = None
        self._read: set[bytes] = set()

    async def find(
        self, node: BitcoinNode, coin: OutPoint, *, tip: Tip, lowest: int
    ) -> Location | None:
        """The spender in the blocks from `tip` down to `lowest`, or None."""
        if coin != self._coin:
            self._coin, self._read = coin, set()
        for height in range(tip.height, lowest - 1, -1):
            block_hash = await get_block_hash(node, height)
            if block_hash is None or block_hash in self._read:
                continue
            spender = await find_spender(node, block_hash, coin)
            if spender is not None:
                return Location(spender, height, block_hash)
            self._read.add(block_hash)
        return None


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NodeUnavailable("the node's answer is not an object")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 32:
        raise NodeUnavailable("the node's answer is not a height or a count")
    return value


def _hash(value: Any) -> bytes:
    try:
        return from_display(str(value))
    except BitcoinInvalid as error:
        raise NodeUnavailable(f"the node's answer: {error}") from None


def _bytes(value: Any) -> bytes:
    try:
        return bytes.fromhex(value)
    except (ValueError, TypeError):
        raise NodeUnavailable("the node's answer is not hexadecimal") from None
