"""Merkle trees of RFC 9162 §2.1: roots, inclusion proofs and consistency proofs.

One shape, two hashes. The transaction log and the log of batch headers use SHA-256, so that
transparency-log tools read them; the settlement leaves of a batch use BLAKE3.

A subtree is *complete* when it holds 2**level leaves. Complete subtrees never change once they
exist, so they are all that is kept: a `Frontier` carries the few that make up the current tree,
and a store keeps every one by (level, index), where subtree `index` of `level` covers the leaves
from index * 2**level up to, not including, (index + 1) * 2**level. The rest, the ragged right edge
of a tree whose size is no power of two, is recomputed from them.

Leaf hashes go in, not leaf data: hash with `TreeHasher.leaf` first. A verifier must do so itself,
never take a leaf hash from the one who made the proof, else an inner node passes for a leaf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from blake3 import blake3

HASH_BYTES: Final = 32
SIZE_BYTES: Final = 8
TREE_SIZE_MAX: Final = 2**63 - 1  # The largest integer of our formats, in leaves.
PROOF_HASHES_MAX: Final = 64  # 63 levels, and one hash more where a consistency proof starts.

NodeReader = Callable[[int, int], bytes]
"""Returns the 32 bytes of complete subtree (level, index); what it raises passes through."""


class ProofInvalid(ValueError):
    """A Merkle proof does not show what it is said to show."""


@dataclass(frozen=True, slots=True)
class TreeHasher:
    """The three hashes of a tree (RFC 9162 §2.1.1) over `digest`, from any bytes to 32 bytes.

    The prefixes keep the two kinds of node apart, so that the two hashes under an inner node can
    never be presented as the data of a leaf.
    """

    name: str
    digest: Callable[[bytes], bytes]

    def leaf(self, data: bytes) -> bytes:
        """Hash of the leaf that holds `data`."""
        return self.digest(b"\x00" + data)

    def node(self, left: bytes, right: bytes) -> bytes:
        """Hash of the inner node over two subtree hashes."""
        return self.digest(b"\x01" + left + right)

    def empty(self) -> bytes:
        """Root of the tree without leaves."""
        return self.digest(b"")


RFC9162: Final = TreeHasher("sha256", lambda data: hashlib.sha256(data).digest())
BLAKE3_TREE: Final = TreeHasher("blake3", lambda data: blake3(data).digest())


@dataclass(frozen=True, slots=True)
class Frontier:
    """All that is needed to append to a tree and to know its root: O(log size) hashes.

    `size` counts leaves; `hashes` are the complete subtrees that make up the tree, largest and
    leftmost first, one for each bit set in `size`. Raises ValueError when the two disagree.
    """

    size: int
    hashes: tuple[bytes, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.size <= TREE_SIZE_MAX:
            raise ValueError(f"frontier: size {self.size} is not in 0..{TREE_SIZE_MAX}")
        if len(self.hashes) != self.size.bit_count():
            raise ValueError(
                f"frontier: {len(self.hashes)} hashes for size {self.size}, "
                f"which needs {self.size.bit_count()}; restore it from a checked snapshot"
            )
        if any(len(node) != HASH_BYTES for node in self.hashes):
            raise ValueError(f"frontier: a hash is not {HASH_BYTES} bytes long")

    @classmethod
    def empty(cls) -> Frontier:
        """The frontier of the tree without leaves."""
        return cls(0, ())

    def append(self, hasher: TreeHasher, leaf_hash: bytes) -> Frontier:
        """The frontier after one more leaf; raises ValueError as `append_with_nodes` does."""
        return self.append_with_nodes(hasher, leaf_hash)[0]

    def append_with_nodes(
        self, hasher: TreeHasher, leaf_hash: bytes
    ) -> tuple[Frontier, list[tuple[int, int, bytes]]]:
        """Append one leaf and report every complete subtree that it closes, for a store to keep.

        Nodes are (level, index, hash), the leaf itself first as level 0. Each node is reported
        once in the life of a tree, two a leaf on average. Raises ValueError for a leaf hash that
        is not 32 bytes and for a full tree.
        """
        if len(leaf_hash) != HASH_BYTES:
            raise ValueError(f"append: the leaf hash has {len(leaf_hash)} bytes, not {HASH_BYTES}")
        if self.size == TREE_SIZE_MAX:
            raise ValueError(f"append: the tree is full at {TREE_SIZE_MAX} leaves; start a new one")
        level, index, node = 0, self.size, leaf_hash
        nodes = [(level, index, node)]
        hashes = list(self.hashes)
        while index & 1:  # Each low bit set in the size is a complete subtree of equal height.
            level, index, node = level + 1, index >> 1, hasher.node(hashes.pop(), node)
            nodes.append((level, index, node))
        return Frontier(self.size + 1, (*hashes, node)), nodes

    def root(self, hasher: TreeHasher) -> bytes:
        """Root of the tree, 32 bytes."""
        return _join_subtrees(hasher, self.hashes) if self.hashes else hasher.empty()

    def encode(self) -> bytes:
        """`size` as 8 bytes, big endian, then the hashes."""
        return self.size.to_bytes(SIZE_BYTES, "big") + b"".join(self.hashes)

    @classmethod
    def decode(cls, data: bytes) -> Frontier:
        """The inverse of `encode`; raises ValueError on any bytes that `encode` cannot return."""
        length_max = SIZE_BYTES + TREE_SIZE_MAX.bit_count() * HASH_BYTES
        if not SIZE_BYTES <= len(data) <= length_max or (len(data) - SIZE_BYTES) % HASH_BYTES:
            raise ValueError(
                f"frontier: {len(data)} bytes are not a size and whole hashes; "
                "restore it from a checked snapshot"
            )
        starts = range(SIZE_BYTES, len(data), HASH_BYTES)
        hashes = tuple(data[start : start + HASH_BYTES] for start in starts)
        return cls(int.from_bytes(data[:SIZE_BYTES], "big"), hashes)


def root_of(hasher: TreeHasher, leaf_hashes: Sequence[bytes]) -> bytes:
    """Root over leaf hashes held in memory, 32 bytes. Raises ValueError on a wrong length."""
    _require_leaf_hashes(leaf_hashes)
    if not leaf_hashes:
        return hasher.empty()
    level = list(leaf_hashes)
    while len(level) > 1:
        level = _level_above(hasher, level)
    return level[0]


def inclusion_proof_of(
    hasher: TreeHasher, leaf_hashes: Sequence[bytes], index: int
) -> tuple[bytes, ...]:
    """Inclusion proof of leaf `index` over leaf hashes held in memory, lowest sibling first.

    Raises ValueError when there is no such leaf or a hash has a wrong length.
    """
    _require_leaf_hashes(leaf_hashes)
    _require_leaf(index, len(leaf_hashes))
    proof = []
    level = list(leaf_hashes)
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):  # A last node without a sibling rises unchanged.
            proof.append(level[sibling])
        level = _level_above(hasher, level)
        index >>= 1
    return tuple(proof)


def inclusion_proof(
    hasher: TreeHasher, read_node: NodeReader, index: int, size: int
) -> tuple[bytes, ...]:
    """Inclusion proof of leaf `index` in the tree of `size` leaves (RFC 9162 §2.1.3.1).

    Reads fewer than 2 * log2(size) + 2 nodes, none beyond `size`, so that a proof for an older
    tree can be made while the log grows. Raises ValueError when there is no such leaf.
    """
    _require_leaf(index, size)
    proof = []
    first, end = 0, size  # The subtree that holds the leaf, narrowed down from the root.
    while end - first > 1:
        middle = first + _left_size(end - first)
        if index < middle:
            proof.append(_subtree_root(hasher, read_node, middle, end))
            end = middle
        else:
            proof.append(_subtree_root(hasher, read_node, first, middle))
            first = middle
    return tuple(reversed(proof))


def consistency_proof(
    hasher: TreeHasher, read_node: NodeReader, old_size: int, new_size: int
) -> tuple[bytes, ...]:
    """Proof that the tree of `new_size` leaves extends that of `old_size` (RFC 9162 §2.1.4.1).

    Empty when the sizes are equal or the old tree is empty. Reads as few nodes as
    `inclusion_proof`. Raises ValueError unless 0 <= old_size <= new_size <= TREE_SIZE_MAX.
    """
    if not 0 <= old_size <= new_size <= TREE_SIZE_MAX:
        raise ValueError(f"consistency proof: cannot go from size {old_size} to size {new_size}")
    if old_size in (0, new_size):
        return ()
    proof = []
    first, end = 0, new_size  # The subtree that holds the old right edge.
    while end != old_size:
        middle = first + _left_size(end - first)
        if old_size <= middle:
            proof.append(_subtree_root(hasher, read_node, middle, end))
            end = middle
        else:
            proof.append(_subtree_root(hasher, read_node, first, middle))
            first = middle
    if first > 0:  # Otherwise the subtree left over is the whole old tree, whose root is known.
        proof.append(_subtree_root(hasher, read_node, first, end))
    return tuple(reversed(proof))


def check_inclusion(
    hasher: TreeHasher,
    leaf_hash: bytes,
    index: int,
    size: int,
    proof: Sequence[bytes],
    root: bytes,
) -> None:
    """Check that leaf `index` of the tree (`size`, `root`) is `leaf_hash` (RFC 9162 §2.1.3.2).

    `size` and `root` must come together from one trusted tree head: a proof may hold for several
    sizes. Raises ProofInvalid.
    """
    if not 0 <= index < size <= TREE_SIZE_MAX:
        raise ProofInvalid(f"inclusion proof: there is no leaf {index} in a tree of {size} leaves")
    _check_lengths("inclusion", (leaf_hash, root), proof)
    position, last = index, size - 1  # The RFC's fn and sn.
    node = leaf_hash
    for sibling in proof:
        if last == 0:
            raise _wrong_length("inclusion", len(proof), "long")
        if position & 1 or position == last:
            node = hasher.node(sibling, node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            node = hasher.node(node, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise _wrong_length("inclusion", len(proof), "short")
    if node != root:
        raise ProofInvalid(
            f"inclusion proof: leaf {index} of {size} does not lead to the root {root.hex()}; "
            "ask another member for the proof of this leaf in this tree"
        )


def inclusion_sides(index: int, size: int, length: int) -> list[bool]:
    """For each of the `length` hashes of an inclusion proof: whether it is the left one of its pair.

    For other formats that spell a path out. Raises ValueError where `check_inclusion` would refuse
    the proof's length.
    """
    _require_leaf(index, size)
    sides = []
    position, last = index, size - 1
    for _ in range(length):
        if last == 0:
            raise ValueError(f"inclusion proof: {length} hashes are too long")
        is_left = bool(position & 1) or position == last
        sides.append(is_left)
        while is_left and not position & 1 and position:
            position, last = position >> 1, last >> 1
        position, last = position >> 1, last >> 1
    if last != 0:
        raise ValueError(f"inclusion proof: {length} hashes are too short")
    return sides


def check_consistency(
    hasher: TreeHasher,
    old_size: int,
    new_size: int,
    old_root: bytes,
    new_root: bytes,
    proof: Sequence[bytes],
) -> None:
    """Check that the new tree holds the old one unchanged as its start (RFC 9162 §2.1.4.2).

    The RFC leaves the empty old tree out. Every tree extends it, so it is accepted with its own
    root and an empty proof; that says nothing about `new_root`. Raises ProofInvalid.
    """
    if not 0 <= old_size <= new_size <= TREE_SIZE_MAX:
        raise ProofInvalid(
            f"consistency proof: a tree of {new_size} leaves cannot extend one of {old_size}"
        )
    _check_lengths("consistency", (old_root, new_root), proof)
    if old_size == 0 and old_root != hasher.empty():
        raise ProofInvalid("consistency proof: the old root is not the root of the empty tree")
    if old_size == new_size and old_root != new_root:
        raise ProofInvalid(
            f"consistency proof: two roots for size {old_size}, {old_root.hex()} and "
            f"{new_root.hex()}: history was rewritten or forked; keep both as evidence"
        )
    if old_size in (0, new_size):
        if proof:
            raise _wrong_length("consistency", len(proof), "long")
        return
    if not proof:
        raise _wrong_length("consistency", 0, "short")
    # A complete old tree is itself the subtree from which the proof starts, and is left out of it.
    path = [old_root, *proof] if old_size.bit_count() == 1 else list(proof)
    position, last = old_size - 1, new_size - 1  # The RFC's fn and sn.
    while position & 1:
        position, last = position >> 1, last >> 1
    old_node = new_node = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _wrong_length("consistency", len(proof), "long")
        if position & 1 or position == last:
            old_node = hasher.node(sibling, old_node)
            new_node = hasher.node(sibling, new_node)
            while not position & 1 and position:
                position, last = position >> 1, last >> 1
        else:
            new_node = hasher.node(new_node, sibling)
        position, last = position >> 1, last >> 1
    if last != 0:
        raise _wrong_length("consistency", len(proof), "short")
    for age, node, root in (("old", old_node, old_root), ("new", new_node, new_root)):
        if node != root:
            raise ProofInvalid(
                f"consistency proof from size {old_size} to {new_size} does not lead to the {age} "
                f"root {root.hex()}; ask another member, and keep both tree heads as evidence"
            )


def _check_lengths(kind: str, hashes: Sequence[bytes], proof: Sequence[bytes]) -> None:
    """Bound the work before any hashing. Hashes of other lengths would make node() ambiguous."""
    if len(proof) > PROOF_HASHES_MAX:
        raise _wrong_length(kind, len(proof), "long")
    if any(len(node) != HASH_BYTES for node in (*hashes, *proof)):
        raise ProofInvalid(f"{kind} proof: a hash is not {HASH_BYTES} bytes long; fetch it again")


def _wrong_length(kind: str, length: int, what: str) -> ProofInvalid:
    return ProofInvalid(
        f"{kind} proof: {length} hashes are too {what} for these sizes; "
        "fetch the proof for exactly these sizes"
    )


def _require_leaf(index: int, size: int) -> None:
    if not 0 <= index < size <= TREE_SIZE_MAX:
        raise ValueError(f"inclusion proof: there is no leaf {index} in a tree of {size} leaves")


def _require_leaf_hashes(leaf_hashes: Sequence[bytes]) -> None:
    if any(len(leaf_hash) != HASH_BYTES for leaf_hash in leaf_hashes):
        raise ValueError(f"tree: a leaf hash is not {HASH_BYTES} bytes long; hash the leaves first")


def _level_above(hasher: TreeHasher, level: Sequence[bytes]) -> list[bytes]:
    """Join neighbours; a last node without one rises unchanged, which gives the RFC's tree."""
    joined = [hasher.node(level[i], level[i + 1]) for i in range(0, len(level) - 1, 2)]
    return [*joined, level[-1]] if len(level) & 1 else joined


def _left_size(size: int) -> int:
    """Leaves under the left child of the root: the largest power of two below `size`, size > 1."""
    return 1 << ((size - 1).bit_length() - 1)


def _subtree_root(hasher: TreeHasher, read_node: NodeReader, first: int, end: int) -> bytes:
    """Root over the leaves first..end-1, where `first` is where the RFC starts such a subtree."""
    hashes = []
    while first < end:
        level = (end - first).bit_length() - 1
        hashes.append(read_node(level, first >> level))
        first += 1 << level
    return _join_subtrees(hasher, hashes)


def _join_subtrees(hasher: TreeHasher, hashes: Sequence[bytes]) -> bytes:
    """Root over adjacent complete subtrees, largest first, at least one."""
    node = hashes[-1]
    for left in reversed(hashes[:-1]):
        node = hasher.node(left, node)
    return node
