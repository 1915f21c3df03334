"""That a transaction is in a block: branches of every size, nodes' proofs, and how both are spoilt."""

from __future__ import annotations

import pytest

from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, compact_size, hash256
from vcp_cluster.ledger.bitcoin.spv import (
    DEPTH_MAX,
    compute_branch,
    compute_merkle_root,
    parse_block_proof,
)

from .node import make_merkle_block
from .regtest import ANYONE, Block, RegtestChain

TXIDS = [hash256(bytes([number])) for number in range(40)]


def root_of(txids: list[bytes]) -> bytes:
    level = txids
    while len(level) > 1:
        level = [*level, level[-1]] if len(level) & 1 else level
        level = [hash256(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
    return level[0]


@pytest.mark.parametrize("count", range(1, 34))
def test_every_branch_of_every_tree(count: int) -> None:
    txids = TXIDS[:count]
    for index in range(count):
        branch = compute_branch(txids, index)
        assert compute_merkle_root(txids[index], index, branch) == root_of(txids)
        for other in range(1 << (count - 1).bit_length()):
            if other == index:
                continue
            try:
                assert compute_merkle_root(txids[index], other, branch) != root_of(txids)
            except BitcoinInvalid:
                continue  # The last one of an odd level, named a second time.


def test_duplicated_siblings_are_refused() -> None:
    """CVE-2012-2459: with three transactions the last is hashed with itself."""
    branch = compute_branch(TXIDS[:3], 2)
    assert branch[:32] == TXIDS[2]
    with pytest.raises(BitcoinInvalid, match="twice"):
        compute_merkle_root(TXIDS[2], 3, branch)


def test_indexes_and_lengths_are_bounded() -> None:
    for index, branch in (
        (2, bytes(32)),
        (-1, bytes(32)),
        (1, b""),
        (0, bytes(31)),
        (0, bytes(32 * (DEPTH_MAX + 1))),
    ):
        with pytest.raises(BitcoinInvalid):
            compute_merkle_root(TXIDS[0], index, branch)


@pytest.fixture
def block(chain: RegtestChain) -> Block:
    """A block of six transactions."""
    for number in range(5):
        paid = chain.pay(ANYONE, 1_000 + number)
        del paid
    transactions = [chain.blocks[one].transactions[1] for one in chain.active[-5:]]
    block = chain.blocks[chain.tip]
    txids = [block.transactions[0].txid, *(one.txid for one in transactions)]
    header = block.header[:36] + root_of(txids) + block.header[68:]
    return Block(header + block.raw[80:], block.height, [block.transactions[0], *transactions])


def test_proofs_of_nodes_are_read(block: Block) -> None:
    for index, transaction in enumerate(block.transactions):
        proof = parse_block_proof(make_merkle_block(block, index), transaction.txid)
        assert proof.index == index
        root = compute_merkle_root(transaction.txid, proof.index, proof.branch)
        assert root == block.header[36:68]


def test_every_spoilt_proof_is_refused(block: Block) -> None:
    txid = block.transactions[3].txid
    data = make_merkle_block(block, 3)
    for place in range(36, len(data)):
        if 68 <= place <= 80:
            continue  # Time, target, nonce: the header's matter. Six or seven leaves: one shape.
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        with pytest.raises(BitcoinInvalid):
            parse_block_proof(bytes(spoilt), txid)
    for other in (b"", data[:-1], data + b"\0", data[:84] + compact_size(2**40)):
        with pytest.raises(BitcoinInvalid):
            parse_block_proof(other, txid)
    with pytest.raises(BitcoinInvalid, match="not of this one"):
        parse_block_proof(data, block.transactions[2].txid)
