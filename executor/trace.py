"""The trace of a run: the states that it went through at its waypoints, and the trees over them.

A waypoint is a state of the guest at a point that gas and memory size alone decide, so every honest
run has the same ones. The last one is the final state. Two trees stand over them:

- the waypoints themselves, which do not depend on who ran the task; their root is in
  `execution_root`;
- the *path* at each waypoint, a fingerprint of the way that control took, seeded by the binding of
  the one who ran it; their root is in `trace_root`. It makes a copied trace fit nobody else; it is
  64 bits, linear, and no cryptographic proof of anything.

Both are RFC 9162 trees over BLAKE3 whose leaves name their index; the number of leaves is bound by
the record over which `execution_root` is computed (commitment.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import msgspec
from blake3 import blake3

from vcp_cluster.executor.errors import TraceInvalid
from vcp_cluster.executor.limits import PAGE_BYTES
from vcp_cluster.ledger.domains import DOMAINS
from vcp_cluster.ledger.merkle import (
    BLAKE3_TREE,
    ProofInvalid,
    check_inclusion,
    inclusion_proof_of,
    root_of,
)

DOMAIN_WAYPOINT: Final = b"vcp/waypoint/v1"
DOMAIN_PATH: Final = b"vcp/path/v1"
# A domain that is a prefix of another would let one message be read as two things.
assert not any(
    one.startswith(other) or other.startswith(one)
    for one in (DOMAIN_WAYPOINT, DOMAIN_PATH)
    for other in DOMAINS
)

WAYPOINT_GAS_MIN: Final = 1 << 27
"""Least gas between waypoints: hashing must stay a small part of the run."""
WAYPOINT_GAS_PER_BYTE: Final = 128
"""Gas between waypoints for each byte of memory, which is hashed at each of them."""
WAYPOINTS_MAX: Final = 4_096
"""Most waypoints of a run besides the final one; larger gas limits space them wider."""

PATH_BYTES: Final = 8


def compute_spacing(memory_bytes: int, gas_limit: int) -> int:
    """Gas from a waypoint to where the next one is due: the published rule."""
    return max(
        WAYPOINT_GAS_MIN, WAYPOINT_GAS_PER_BYTE * memory_bytes, -(-gas_limit // WAYPOINTS_MAX)
    )


class Waypoint(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """One state of the guest, without who ran it."""

    gas: int
    """Used so far."""
    pages: int
    """Of 64 KiB."""
    memory: bytes
    """32 bytes, see `compute_memory_digest`."""
    globals: bytes
    """32 bytes, see `compute_globals_digest`."""


@dataclass(frozen=True, slots=True)
class Trace:
    """The waypoints of one run in order, the final state last, and the path at each (8 bytes)."""

    waypoints: tuple[Waypoint, ...] = ()
    path: tuple[bytes, ...] = ()

    def __post_init__(self) -> None:
        if len(self.waypoints) != len(self.path):
            raise ValueError(f"{len(self.waypoints)} waypoints have {len(self.path)} paths")

    @property
    def waypoint_root(self) -> bytes:
        """32 bytes over the waypoints."""
        return root_of(BLAKE3_TREE, self._waypoint_leaves())

    @property
    def path_root(self) -> bytes:
        """32 bytes over the path at each waypoint and the waypoint itself."""
        return root_of(BLAKE3_TREE, self._path_leaves())

    def open(self, index: int) -> "Opening":
        """What shows waypoint `index` to somebody who has the roots only. Raises `IndexError`."""
        if not 0 <= index < len(self.waypoints):
            raise IndexError(f"the trace has {len(self.waypoints)} waypoints, not {index + 1}")
        return Opening(
            index=index,
            waypoint=self.waypoints[index],
            path=self.path[index],
            waypoint_siblings=tuple(
                inclusion_proof_of(BLAKE3_TREE, self._waypoint_leaves(), index)
            ),
            path_siblings=tuple(inclusion_proof_of(BLAKE3_TREE, self._path_leaves(), index)),
        )

    def _waypoint_leaves(self) -> list[bytes]:
        return [_waypoint_leaf(index, item) for index, item in enumerate(self.waypoints)]

    def _path_leaves(self) -> list[bytes]:
        pairs = zip(self.path, self._waypoint_leaves(), strict=True)
        return [_path_leaf(index, path, leaf) for index, (path, leaf) in enumerate(pairs)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """One waypoint with its ways to the two roots, hashes of 32 bytes from the leaf upwards."""

    index: int
    waypoint: Waypoint
    path: bytes
    waypoint_siblings: tuple[bytes, ...]
    path_siblings: tuple[bytes, ...]

    def check(self, count: int, waypoint_root: bytes) -> None:
        """Check that the waypoint is number `index` of `count` under `waypoint_root`.

        Both come from the record that `execution_root` is computed over. Raises `TraceInvalid`.
        """
        leaf = _waypoint_leaf(self.index, self.waypoint)
        self._check("waypoint", leaf, count, self.waypoint_siblings, waypoint_root)

    def check_path(self, count: int, path_root: bytes) -> None:
        """Check that the worker's path at the waypoint is under `path_root`.

        Raises `TraceInvalid`.
        """
        leaf = _path_leaf(self.index, self.path, _waypoint_leaf(self.index, self.waypoint))
        self._check("path", leaf, count, self.path_siblings, path_root)

    def _check(
        self, what: str, leaf: bytes, count: int, siblings: tuple[bytes, ...], root: bytes
    ) -> None:
        try:
            check_inclusion(BLAKE3_TREE, leaf, self.index, count, siblings, root)
        except ProofInvalid as error:
            raise TraceInvalid(
                f"{what} {self.index} of {count} is not under its root: {error}"
            ) from None


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where two traces part: the first waypoint that is not equal in both."""

    index: int
    differing: tuple[str, ...]
    """Fields of the waypoint; `("count",)` when one trace ends before it."""
    start: Waypoint | None
    """The last state that both have; None when they part from the beginning."""


def first_divergence(one: Trace, other: Trace) -> Divergence | None:
    """Where two traces of one task part, or None when their waypoints are equal.

    No exchange of messages is needed: whoever holds both lists knows which piece of the run decides.
    """
    start = None
    for index, (mine, theirs) in enumerate(zip(one.waypoints, other.waypoints, strict=False)):
        if mine != theirs:
            fields = Waypoint.__struct_fields__
            differing = [name for name in fields if getattr(mine, name) != getattr(theirs, name)]
            return Divergence(index, tuple(differing), start)
        start = mine
    if len(one.waypoints) == len(other.waypoints):
        return None
    return Divergence(min(len(one.waypoints), len(other.waypoints)), ("count",), start)


def compute_page_digests(memory: memoryview) -> list[bytes]:
    """BLAKE3 of each page of `memory`, a contiguous view of bytes and a whole number of pages."""
    return [
        blake3(memory[start : start + PAGE_BYTES]).digest()
        for start in range(0, len(memory), PAGE_BYTES)
    ]


def compute_memory_digest(page_digests: Sequence[bytes]) -> bytes:
    """32 bytes: BLAKE3 over the digests of all pages in order, so that one page can be shown."""
    return blake3(b"".join(page_digests)).digest()


def compute_globals_digest(values: Sequence[tuple[int, bytes]]) -> bytes:
    """32 bytes: BLAKE3 over the MessagePack array of [index, little-endian bit pattern].

    `values` are the mutable globals that hold numbers, by rising index.
    """
    return blake3(msgspec.msgpack.encode([list(item) for item in values])).digest()


def compute_path_seed(binding: bytes) -> bytes:
    """8 bytes with which the path begins: it belongs to the one whom `binding` names."""
    return blake3(DOMAIN_PATH + binding).digest()[:PATH_BYTES]


def _waypoint_leaf(index: int, waypoint: Waypoint) -> bytes:
    record = [index, waypoint.gas, waypoint.pages, waypoint.memory, waypoint.globals]
    return BLAKE3_TREE.leaf(DOMAIN_WAYPOINT + msgspec.msgpack.encode(record))


def _path_leaf(index: int, path: bytes, waypoint_leaf: bytes) -> bytes:
    return BLAKE3_TREE.leaf(DOMAIN_PATH + msgspec.msgpack.encode([index, path, waypoint_leaf]))
