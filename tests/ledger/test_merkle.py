"""Merkle trees against an independent reference, published vectors, and every way to spoil them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from vcp_cluster.ledger.merkle import (
    BLAKE3_TREE,
    HASH_BYTES,
    PROOF_HASHES_MAX,
    RFC9162,
    TREE_SIZE_MAX,
    Frontier,
    ProofInvalid,
    TreeHasher,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
    inclusion_proof_of,
    root_of,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "merkle.json").read_text()
)
HASHERS = pytest.mark.parametrize("hasher", [RFC9162, BLAKE3_TREE], ids=lambda each: each.name)
DIGESTS: dict[str, Callable[[bytes], bytes]] = {
    "sha256": lambda data: hashlib.sha256(data).digest(),
    "blake3": lambda data: blake3(data).digest(),
}
SIZE_MAX = 130


def data_of(index: int) -> bytes:
    return b"leaf %d" % index


# The reference: the recursive definitions of RFC 6962 §2.1, over leaf data, as they are printed.


def left_of(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def naive_root(name: str, data: list[bytes]) -> bytes:
    digest = DIGESTS[name]
    if not data:
        return digest(b"")
    if len(data) == 1:
        return digest(b"\x00" + data[0])
    k = left_of(len(data))
    return digest(b"\x01" + naive_root(name, data[:k]) + naive_root(name, data[k:]))


def naive_path(name: str, m: int, data: list[bytes]) -> list[bytes]:
    if len(data) == 1:
        return []
    k = left_of(len(data))
    if m < k:
        return [*naive_path(name, m, data[:k]), naive_root(name, data[k:])]
    return [*naive_path(name, m - k, data[k:]), naive_root(name, data[:k])]


def naive_subproof(name: str, m: int, data: list[bytes], complete: bool) -> list[bytes]:
    if m == len(data):
        return [] if complete else [naive_root(name, data)]
    k = left_of(len(data))
    if m <= k:
        return [*naive_subproof(name, m, data[:k], complete), naive_root(name, data[k:])]
    return [*naive_subproof(name, m - k, data[k:], False), naive_root(name, data[:k])]


class Tree:
    """A tree grown leaf by leaf, with every complete subtree kept and every read counted."""

    def __init__(self, hasher: TreeHasher, size: int, *, changed: int | None = None) -> None:
        self.hasher = hasher
        self.leaf_hashes = [hasher.leaf(data_of(index)) for index in range(size)]
        if changed is not None:
            self.leaf_hashes[changed] = hasher.leaf(b"rewritten")
        self.nodes: dict[tuple[int, int], bytes] = {}
        self.roots = [hasher.empty()]
        self.frontier = Frontier.empty()
        self.reads = 0
        for leaf_hash in self.leaf_hashes:
            self.frontier, nodes = self.frontier.append_with_nodes(hasher, leaf_hash)
            for level, index, node in nodes:
                assert (level, index) not in self.nodes
                self.nodes[level, index] = node
            self.roots.append(self.frontier.root(hasher))

    def read_node(self, level: int, index: int) -> bytes:
        self.reads += 1
        return self.nodes[level, index]

    def inclusion(self, index: int, size: int) -> tuple[bytes, ...]:
        return inclusion_proof(self.hasher, self.read_node, index, size)

    def consistency(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        return consistency_proof(self.hasher, self.read_node, old_size, new_size)


@pytest.fixture(scope="module", params=[RFC9162, BLAKE3_TREE], ids=lambda each: each.name)
def tree(request: pytest.FixtureRequest) -> Tree:
    return Tree(request.param, 1_000)


def flipped(node: bytes, bit: int = 0) -> bytes:
    return bytes([node[0] ^ (1 << bit)]) + node[1:]


def spoiled_proofs(proof: tuple[bytes, ...], root: bytes) -> list[tuple[bytes, ...]]:
    """Each way to damage a proof while its hashes keep their length."""
    spoiled = [(*proof, root), (root, *proof)]
    for i in range(len(proof)):
        spoiled.append((*proof[:i], *proof[i + 1 :]))
        spoiled.append((*proof[:i], flipped(proof[i]), *proof[i + 1 :]))
        spoiled.append((*proof[: i + 1], *proof[i:]))
    for i in range(len(proof) - 1):
        spoiled.append((*proof[:i], proof[i + 1], proof[i], *proof[i + 2 :]))
    return spoiled


# Roots.


def test_roots_equal_the_reference(tree: Tree) -> None:
    for size in (*range(SIZE_MAX + 1), 1_000):
        expected = naive_root(tree.hasher.name, [data_of(index) for index in range(size)])
        assert tree.roots[size] == expected
        assert root_of(tree.hasher, tree.leaf_hashes[:size]) == expected


def test_a_duplicated_right_edge_changes_the_root(tree: Tree) -> None:
    # Bitcoin's tree repeats a lone last node, so that these two have one root (CVE-2012-2459).
    for size in range(1, SIZE_MAX + 1):
        leaf_hashes = tree.leaf_hashes[:size]
        for repeated in (1, size & -size):
            doubled = leaf_hashes + leaf_hashes[-repeated:]
            assert root_of(tree.hasher, doubled) != tree.roots[size]


def test_every_complete_subtree_is_reported_once(tree: Tree) -> None:
    # Tree() refuses a repeated node; here none is missing and none is beyond the tree.
    size = len(tree.leaf_hashes)
    expected = {(level, i) for level in range(10) for i in range(size >> level)}
    assert set(tree.nodes) == expected
    for (level, index), node in tree.nodes.items():
        start = index << level
        assert node == root_of(tree.hasher, tree.leaf_hashes[start : start + (1 << level)])


# Frontier.


def test_frontier_round_trip_and_growth_after_it(tree: Tree) -> None:
    frontier = Frontier.empty()
    for leaf_hash in tree.leaf_hashes[:SIZE_MAX]:
        frontier = Frontier.decode(frontier.append(tree.hasher, leaf_hash).encode())
        assert frontier.root(tree.hasher) == tree.roots[frontier.size]
    assert frontier.size == SIZE_MAX


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(7),
        bytes(9),
        bytes(8) + bytes(32),
        (1).to_bytes(8, "big"),
        (1).to_bytes(8, "big") + bytes(31),
        (1).to_bytes(8, "big") + bytes(33),
        (3).to_bytes(8, "big") + bytes(32),
        (2).to_bytes(8, "big") + bytes(64),
        (2**63).to_bytes(8, "big") + bytes(32),
        (2**64 - 1).to_bytes(8, "big") + bytes(64 * 32),
        (2**63 - 1).to_bytes(8, "big") + bytes(62 * 32),
        bytes(8 + 32 * 100_000),
    ],
    ids=lambda data: f"{len(data)} bytes, {data[:8].hex()}",
)
def test_frontier_refuses_malformed_bytes(data: bytes) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier.decode(data)


def test_frontier_refuses_wrong_fields() -> None:
    with pytest.raises(ValueError, match="size"):
        Frontier(-1, (bytes(32),))
    with pytest.raises(ValueError, match="2 hashes for size 4"):
        Frontier(4, (bytes(32), bytes(32)))
    with pytest.raises(ValueError, match="32 bytes"):
        Frontier(1, (bytes(31),))
    for length in (0, 31, 33):
        with pytest.raises(ValueError, match=f"{length} bytes, not 32"):
            Frontier.empty().append(RFC9162, bytes(length))


def test_a_full_tree_refuses_another_leaf() -> None:
    full = Frontier(TREE_SIZE_MAX, (bytes(32),) * 63)
    assert Frontier.decode(full.encode()) == full
    with pytest.raises(ValueError, match="full"):
        full.append(RFC9162, bytes(32))


# Inclusion.


def test_every_leaf_is_included(tree: Tree) -> None:
    for size in (*range(1, SIZE_MAX + 1), 1_000):
        for index, leaf_hash in enumerate(tree.leaf_hashes[:size]):
            tree.reads = 0
            proof = tree.inclusion(index, size)
            assert tree.reads <= 2 * size.bit_length()
            check_inclusion(tree.hasher, leaf_hash, index, size, proof, tree.roots[size])


def test_inclusion_proofs_equal_the_reference(tree: Tree) -> None:
    for size in range(1, 41):
        data = [data_of(index) for index in range(size)]
        for index in range(size):
            expected = tuple(naive_path(tree.hasher.name, index, data))
            assert tree.inclusion(index, size) == expected
            assert inclusion_proof_of(tree.hasher, tree.leaf_hashes[:size], index) == expected


def test_spoiled_inclusion_is_refused(tree: Tree) -> None:
    # The hash does not change the shape: one of the two trees is enough for every size.
    for size in range(1, SIZE_MAX + 1 if tree.hasher is RFC9162 else 41):
        root = tree.roots[size]
        for index in range(size):
            leaf_hash, proof = tree.leaf_hashes[index], tree.inclusion(index, size)
            wrong_leaves = (tree.leaf_hashes[index + 1], flipped(leaf_hash), data_of(index), b"")
            wrong_indices = (-1, index - 1, index + 1, index ^ 2, size, size + index, 2**64 + index)
            wrong_sizes = (-1, 0, index, size // 2, size * 2, 2**63, 2**64)
            wrong_roots = (tree.roots[size + 1], tree.hasher.empty(), flipped(root), root[:31])
            claims = [
                *((leaf_hash, index, size, wrong, root) for wrong in spoiled_proofs(proof, root)),
                *((wrong, index, size, proof, root) for wrong in wrong_leaves),
                *((leaf_hash, wrong, size, proof, root) for wrong in wrong_indices),
                *((leaf_hash, index, wrong, proof, root) for wrong in wrong_sizes),
                *((leaf_hash, index, size, proof, wrong) for wrong in wrong_roots),
            ]
            for claim in claims:
                with pytest.raises(ProofInvalid):
                    check_inclusion(tree.hasher, *claim)


def test_an_inner_node_is_no_leaf(tree: Tree) -> None:
    root = tree.roots[128]
    for index in range(128):
        proof = tree.inclusion(index, 128)
        pair = index & ~1
        inner_data = tree.leaf_hashes[pair] + tree.leaf_hashes[pair + 1]
        inner_node = tree.hasher.node(tree.leaf_hashes[pair], tree.leaf_hashes[pair + 1])
        # With the true size the path is one too short, with half of it the prefixes differ.
        with pytest.raises(ProofInvalid, match="short"):
            check_inclusion(tree.hasher, inner_node, index, 128, proof[1:], root)
        with pytest.raises(ProofInvalid, match="root"):
            check_inclusion(
                tree.hasher, tree.hasher.leaf(inner_data), index >> 1, 64, proof[1:], root
            )
        # Half the size is why a verifier must hash the leaf's data itself: this one passes.
        check_inclusion(tree.hasher, inner_node, index >> 1, 64, proof[1:], root)


@HASHERS
def test_the_work_of_a_check_is_bounded(hasher: TreeHasher) -> None:
    hash_count = 0

    def digest(data: bytes) -> bytes:
        nonlocal hash_count
        hash_count += 1
        return hasher.digest(data)

    counting = TreeHasher("counting", digest)
    endless = (bytes(32),) * 100_000
    with pytest.raises(ProofInvalid, match="long"):
        check_inclusion(counting, bytes(32), 1, TREE_SIZE_MAX, endless, bytes(32))
    with pytest.raises(ProofInvalid, match="long"):
        check_consistency(counting, 1, TREE_SIZE_MAX, bytes(32), bytes(32), endless)
    assert hash_count == 0
    longest = endless[:PROOF_HASHES_MAX]
    with pytest.raises(ProofInvalid, match="long"):
        check_inclusion(counting, bytes(32), 1, TREE_SIZE_MAX, longest, bytes(32))
    assert hash_count == 63


def test_the_largest_tree_can_be_checked() -> None:
    hashes = tuple(bytes([level]) * 32 for level in range(63))
    root = Frontier(TREE_SIZE_MAX, hashes).root(RFC9162)
    # The last leaf is a complete subtree of its own; all the others are its proof, bottom up.
    last = TREE_SIZE_MAX - 1
    proof = hashes[:-1][::-1]
    check_inclusion(RFC9162, hashes[-1], last, TREE_SIZE_MAX, proof, root)
    with pytest.raises(ProofInvalid):
        check_inclusion(RFC9162, hashes[-1], last - 1, TREE_SIZE_MAX, proof, root)
    old_root = Frontier(TREE_SIZE_MAX - 1, hashes[:-1]).root(RFC9162)
    path = (hashes[-2], hashes[-1], *hashes[:-2][::-1])
    check_consistency(RFC9162, TREE_SIZE_MAX - 1, TREE_SIZE_MAX, old_root, root, path)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (-1, 5), (5, 5), (0, -1), (0, 2**63)])
def test_no_inclusion_proof_for_a_leaf_that_is_not_there(tree: Tree, index: int, size: int) -> None:
    with pytest.raises(ValueError, match="no leaf"):
        tree.inclusion(index, size)


def test_in_memory_trees_refuse_wrong_input(tree: Tree) -> None:
    for index in (-1, 3):
        with pytest.raises(ValueError, match="no leaf"):
            inclusion_proof_of(tree.hasher, tree.leaf_hashes[:3], index)
    with pytest.raises(ValueError, match="no leaf"):
        inclusion_proof_of(tree.hasher, [], 0)
    for function in (root_of, lambda hasher, hashes: inclusion_proof_of(hasher, hashes, 0)):
        with pytest.raises(ValueError, match="hash the leaves"):
            function(tree.hasher, [bytes(32), b"not hashed"])


# Consistency.


def test_every_pair_of_sizes_is_consistent(tree: Tree) -> None:
    for new_size in range(41):
        data = [data_of(index) for index in range(new_size)]
        for old_size in range(new_size + 1):
            tree.reads = 0
            proof = tree.consistency(old_size, new_size)
            assert tree.reads <= 2 * new_size.bit_length()
            old_root, new_root = tree.roots[old_size], tree.roots[new_size]
            check_consistency(tree.hasher, old_size, new_size, old_root, new_root, proof)
            if old_size > 0:
                assert list(proof) == naive_subproof(tree.hasher.name, old_size, data, True)


def test_spoiled_consistency_is_refused(tree: Tree) -> None:
    for new_size in range(41):
        for old_size in range(new_size + 1):
            proof = tree.consistency(old_size, new_size)
            old_root, new_root = tree.roots[old_size], tree.roots[new_size]
            for spoiled in spoiled_proofs(proof, new_root):
                with pytest.raises(ProofInvalid):
                    check_consistency(tree.hasher, old_size, new_size, old_root, new_root, spoiled)
            for wrong in (flipped(old_root), tree.roots[old_size + 1], b"", bytes(33)):
                with pytest.raises(ProofInvalid):
                    check_consistency(tree.hasher, old_size, new_size, wrong, new_root, proof)
            # An empty old tree says nothing about the new root but that it has 32 bytes.
            forged = (flipped(new_root), tree.roots[new_size + 1]) if old_size else ()
            for wrong in (*forged, b"", bytes(33)):
                with pytest.raises(ProofInvalid):
                    check_consistency(tree.hasher, old_size, new_size, old_root, wrong, proof)
            for sizes in ((-1, new_size), (new_size + 1, new_size), (old_size, 2**63)):
                with pytest.raises(ProofInvalid, match="cannot extend"):
                    check_consistency(tree.hasher, *sizes, old_root, new_root, proof)


def test_a_proof_for_other_sizes_is_not_consistent(tree: Tree) -> None:
    # Roots and proof fit each other here, only the claimed sizes are wrong.
    for old_size in range(1, 21):
        for new_size in range(old_size + 1, 41):
            roots = tree.roots[old_size], tree.roots[new_size]
            proof = tree.consistency(old_size, new_size)
            with pytest.raises(ProofInvalid, match="too short"):
                check_consistency(tree.hasher, old_size, new_size * 2, *roots, proof)
            with pytest.raises(ProofInvalid, match="too long"):
                check_consistency(tree.hasher, old_size, new_size, *roots, (*proof, tree.roots[1]))


def test_a_rewritten_history_is_not_consistent(tree: Tree) -> None:
    for changed in (0, 1, 7, 20, 38):
        rewritten = Tree(tree.hasher, 40, changed=changed)
        for new_size in range(changed + 2, 41):
            for old_size in range(changed + 1, new_size):
                proof = rewritten.consistency(old_size, new_size)
                with pytest.raises(ProofInvalid):
                    check_consistency(
                        tree.hasher,
                        old_size,
                        new_size,
                        tree.roots[old_size],
                        rewritten.roots[new_size],
                        proof,
                    )


@pytest.mark.parametrize(("old_size", "new_size"), [(-1, 5), (6, 5), (0, 2**63), (-2, -1)])
def test_no_consistency_proof_between_impossible_sizes(
    tree: Tree, old_size: int, new_size: int
) -> None:
    with pytest.raises(ValueError, match="cannot go"):
        tree.consistency(old_size, new_size)


# Golden vectors.


@HASHERS
def test_golden_vectors(hasher: TreeHasher) -> None:
    vectors = VECTORS[hasher.name]
    leaf_hashes = [hasher.leaf(bytes.fromhex(data)) for data in VECTORS["leaves"]]
    roots = [bytes.fromhex(root) for root in vectors["roots"]]
    assert len(leaf_hashes) == 8
    assert [root_of(hasher, leaf_hashes[:size]) for size in range(9)] == roots
    assert len(vectors["inclusion"]) == 5
    for vector in vectors["inclusion"]:
        index, size = vector["index"], vector["size"]
        proof = tuple(bytes.fromhex(node) for node in vector["proof"])
        assert inclusion_proof_of(hasher, leaf_hashes[:size], index) == proof
        check_inclusion(hasher, leaf_hashes[index], index, size, proof, roots[size])
    frontier, nodes = Frontier.empty(), {}
    for leaf_hash in leaf_hashes[:7]:
        frontier, created = frontier.append_with_nodes(hasher, leaf_hash)
        nodes.update({(level, index): node for level, index, node in created})
    assert frontier.encode().hex() == vectors["frontier_of_7"]
    for level, index, node in frontier.append_with_nodes(hasher, leaf_hashes[7])[1]:
        nodes[level, index] = node
    assert len(vectors["consistency"]) == 5
    for vector in vectors["consistency"]:
        old_size, new_size = vector["old_size"], vector["new_size"]
        proof = tuple(bytes.fromhex(node) for node in vector["proof"])
        made = consistency_proof(
            hasher, lambda level, index: nodes[level, index], old_size, new_size
        )
        assert made == proof
        check_consistency(hasher, old_size, new_size, roots[old_size], roots[new_size], proof)


# Whatever arrives.


@settings(deadline=None)
@given(data=st.data())
def test_random_damage_is_refused(tree: Tree, data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 1_000), "size")
    index = data.draw(st.integers(0, size - 1), "index")
    old_size = data.draw(st.integers(1, size - 1), "old size")
    root, old_root = tree.roots[size], tree.roots[old_size]
    some_hash = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)

    def damage(proof: tuple[bytes, ...]) -> tuple[bytes, ...]:
        at = data.draw(st.integers(0, len(proof) - 1), "at")
        bit = data.draw(st.integers(0, 8 * HASH_BYTES - 1), "bit")
        changed = (int.from_bytes(proof[at], "big") ^ (1 << bit)).to_bytes(HASH_BYTES, "big")
        return data.draw(
            st.one_of(
                st.just((*proof[:at], changed, *proof[at + 1 :])),
                st.just((*proof[:at], *proof[at + 1 :])),
                some_hash.map(lambda node: (*proof[:at], node, *proof[at:])),
                st.permutations(proof).map(tuple),
                st.lists(some_hash, max_size=PROOF_HASHES_MAX + 2).map(tuple),
            ).filter(lambda spoiled: spoiled != proof),
            "spoiled",
        )

    inclusion = tree.inclusion(index, size)
    with pytest.raises(ProofInvalid):
        check_inclusion(tree.hasher, tree.leaf_hashes[index], index, size, damage(inclusion), root)
    consistency = tree.consistency(old_size, size)
    with pytest.raises(ProofInvalid):
        check_consistency(tree.hasher, old_size, size, old_root, root, damage(consistency))


ANY_INTEGER = st.one_of(st.integers(-2, 20), st.integers(-(2**70), 2**70))
ANY_BYTES = st.one_of(st.binary(max_size=64), st.binary(min_size=32, max_size=32))


@settings(deadline=None)
@given(ANY_BYTES, ANY_INTEGER, ANY_INTEGER, st.lists(ANY_BYTES, max_size=70), ANY_BYTES)
def test_checks_raise_nothing_but_proof_invalid(
    leaf_hash: bytes, first: int, second: int, proof: list[bytes], root: bytes
) -> None:
    # Proofs that hold by chance have no siblings: the leaf is the root, or the trees are equal.
    try:
        check_inclusion(RFC9162, leaf_hash, first, second, proof, root)
    except ProofInvalid:
        pass
    else:
        assert (first, second, proof) == (0, 1, []) and leaf_hash == root
    try:
        check_consistency(RFC9162, first, second, leaf_hash, root, proof)
    except ProofInvalid:
        pass
    else:
        assert first == second and not proof and leaf_hash == root


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=200), st.integers(0, 70).map(lambda n: bytes(7 + n * 32))))
def test_frontier_decoding_is_strict(data: bytes) -> None:
    try:
        frontier = Frontier.decode(data)
    except ValueError:
        return
    assert frontier.encode() == data
