"""That a transaction is in a block: Merkle branches, and the proofs that nodes give (BIP 37)."""

from __future__ import annotations

from dataclasses import dataclass

from vcp_cluster.ledger.bitcoin.headers import HEADER_BYTES
from vcp_cluster.ledger.bitcoin.reader import HASH_BYTES, BitcoinInvalid, Reader, hash256

# 4,000,000 weight units hold fewer than 2^17 transactions of 60 bytes.
DEPTH_MAX = 17
TRANSACTIONS_MAX = 1 << DEPTH_MAX


def compute_merkle_root(txid: bytes, index: int, branch: bytes) -> bytes:
    """The root over transaction `index`, whose siblings from below are `branch`.

    Raises `BitcoinInvalid` for an index outside the tree, and for a right child that equals its
    sibling: Bitcoin doubles a last odd node, so that such a branch names a transaction that is not
    there (CVE-2012-2459).
    """
    depth, rest = divmod(len(branch), HASH_BYTES)
    if rest or depth > DEPTH_MAX:
        raise BitcoinInvalid(f"not a branch of 0 to {DEPTH_MAX} hashes")
    if not 0 <= index < 1 << depth:
        raise BitcoinInvalid("the index is outside the branch's tree")
    node = txid
    for start in range(0, len(branch), HASH_BYTES):
        sibling = branch[start : start + HASH_BYTES]
        if index & 1:
            if sibling == node:
                raise BitcoinInvalid("two siblings are equal: the transaction is counted twice")
            node = hash256(sibling + node)
        else:
            node = hash256(node + sibling)
        index >>= 1
    return node


@dataclass(frozen=True, slots=True)
class BlockProof:
    """Where a transaction is: its block's header, its index and its Merkle branch."""

    header: bytes
    index: int
    branch: bytes


def parse_block_proof(data: bytes, txid: bytes) -> BlockProof:
    """Read what `gettxoutproof` gives for one transaction; raise `BitcoinInvalid`."""
    reader = Reader(data)
    header = reader.take(HEADER_BYTES)
    total = reader.number(4)
    if not 1 <= total <= TRANSACTIONS_MAX:
        raise BitcoinInvalid(f"a block of {total} transactions")
    hashes = [reader.take(HASH_BYTES) for _ in range(reader.count(HASH_BYTES))]
    flags = reader.text()
    reader.end()
    tree = _PartialTree(total, hashes, flags)
    root = tree.walk()
    if root != header[36:68]:
        raise BitcoinInvalid("the proof does not lead to the header's Merkle root")
    if tree.found != [txid]:
        raise BitcoinInvalid("the proof is not of this one transaction")
    return BlockProof(header, tree.index, b"".join(tree.branch))


class _PartialTree:
    """A depth-first walk over a partial Merkle tree that collects the branch of its one match."""

    def __init__(self, total: int, hashes: list[bytes], flags: bytes) -> None:
        self._total = total
        self._hashes = iter(hashes)
        self._bits = [byte >> number & 1 for byte in flags for number in range(8)]
        self._used = 0
        self._left = len(hashes)
        self.found: list[bytes] = []
        self.index = 0
        self.branch: list[bytes] = []

    def walk(self) -> bytes:
        """The root; raise `BitcoinInvalid`, also when hashes or flags are left over."""
        root, _ = self._walk((self._total - 1).bit_length(), 0)
        if self._left or (self._used + 7) // 8 * 8 != len(self._bits):
            raise BitcoinInvalid("the proof has hashes or flags that nothing needs")
        if any(self._bits[self._used :]):
            raise BitcoinInvalid("the proof's padding is not zero")
        return root

    def _walk(self, height: int, position: int) -> tuple[bytes, bool]:
        """Hash of a node, and whether the match is under it."""
        if self._used == len(self._bits):
            raise BitcoinInvalid("the proof has too few flags")
        is_parent = self._bits[self._used]
        self._used += 1
        if height == 0 or not is_parent:
            node = self._next_hash()
            if height == 0 and is_parent:
                self.found.append(node)
                self.index = position
            return node, bool(height == 0 and is_parent)
        left, in_left = self._walk(height - 1, 2 * position)
        has_right = 2 * position + 1 < self._width(height - 1)
        right, in_right = self._walk(height - 1, 2 * position + 1) if has_right else (left, False)
        if has_right and left == right:
            raise BitcoinInvalid("two siblings are equal: a transaction is counted twice")
        if in_left or in_right:
            self.branch.append(right if in_left else left)
        return hash256(left + right), in_left or in_right

    def _next_hash(self) -> bytes:
        node = next(self._hashes, None)
        if node is None:
            raise BitcoinInvalid("the proof has too few hashes")
        self._left -= 1
        return node

    def _width(self, height: int) -> int:
        return (self._total + (1 << height) - 1) >> height


def compute_branch(txids: list[bytes], index: int) -> bytes:
    """The branch of transaction `index` among all of a block's, in order."""
    branch = []
    level = list(txids)
    while len(level) > 1:
        if len(level) & 1:
            level.append(level[-1])
        branch.append(level[index ^ 1])
        level = [hash256(level[at] + level[at + 1]) for at in range(0, len(level), 2)]
        index >>= 1
    return b"".join(branch)
