"""What must hold of the anchors of every backend, computed from the records alone.

A lane is a chain: its final anchors from the newest down, then the pending one, then those that
were retracted and wait. Every anchor is on exactly one lane, and every evidence that is stored
still convinces the backend that checked it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ledger_harness.indexes import records
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchors import BACKENDS
from vcp_cluster.ledger.anchors.payload import PAYLOAD_MAGIC
from vcp_cluster.ledger.encoding import decode
from vcp_cluster.ledger.merkle import RFC9162, root_of
from vcp_cluster.ledger.operations.anchors import RETRACT_MAX, VARIANTS_MAX
from vcp_cluster.ledger.records import Anchor, AnchorLane, AnchorStatus
from vcp_cluster.ledger.settlement import header_leaf_hash

if TYPE_CHECKING:
    from ledger_harness.ledger import Ledger


def check_lanes(ledger: Ledger) -> None:
    """All lanes and all anchors, and what has become of the lanes since the entry before."""
    view, genesis = ledger.store, ledger.genesis
    lanes = {name.decode(): decode(AnchorLane, value) for name, value in records(view, schema.LANE)}
    assert sorted(lanes) == list(genesis.anchors.backends)
    stored = {}
    for key, value in records(view, schema.ANCHOR):
        anchor = decode(Anchor, value)
        assert schema.ANCHOR + key == schema.anchor_key(anchor.backend, anchor.size)
        stored[anchor.backend, anchor.size] = anchor
    leaves = [header_leaf_hash(value) for _, value in records(view, schema.HEADER)]
    on_a_lane = set()
    for backend, lane in lanes.items():
        sizes = _check_chain(backend, lane, stored)
        on_a_lane |= {(backend, size) for size in sizes}
        _check_lane(backend, lane, ledger.lanes.get(backend, lane))
    assert on_a_lane == stored.keys()
    for anchor in stored.values():
        _check_anchor(ledger, anchor, stored.get((anchor.backend, anchor.previous)), leaves)
    ledger.lanes = lanes


def _check_chain(
    backend: str, lane: AnchorLane, stored: dict[tuple[str, int], Anchor]
) -> list[int]:
    """The sizes of a lane, oldest first: each anchor names the one before, none is skipped."""
    sizes, size = [], lane.final
    while size:
        anchor = stored[backend, size]
        assert anchor.status == AnchorStatus.FINAL
        sizes.append(size)
        size = anchor.previous
    sizes.reverse()
    if not lane.pending:
        assert lane.retracted == (), "what waits, waits behind a pending anchor"
    else:
        assert stored[backend, lane.pending].status != AnchorStatus.FINAL
        sizes += [lane.pending, *lane.retracted]
    for size in lane.retracted:
        assert stored[backend, size].status == AnchorStatus.PENDING
    for size, before in zip(sizes, [0, *sizes], strict=False):
        assert stored[backend, size].previous == before < size
    assert len(lane.retracted) < RETRACT_MAX
    return sizes


def _check_lane(backend: str, lane: AnchorLane, before: AnchorLane) -> None:
    """A revision for every change but the lease's; the chain is not forgotten but by a resume."""
    leased = ("holder", "lease_until_ms", "position")
    fields = [name for name in lane.__struct_fields__ if name not in leased]
    is_same = all(getattr(lane, name) == getattr(before, name) for name in fields)
    assert is_same or lane.revision > before.revision
    is_forgotten = not lane.position and not lane.holder and not lane.lease_until_ms
    is_raised = int.from_bytes(lane.position, "big") >= int.from_bytes(before.position, "big")
    assert is_raised or lane.revision > before.revision
    if not BACKENDS[backend].is_leased:
        assert not lane.holder and not lane.lease_until_ms
    elif not lane.holder:
        assert is_forgotten, "nobody saw the chain without the lease"


def _check_anchor(
    ledger: Ledger, anchor: Anchor, previous: Anchor | None, leaves: Sequence[bytes]
) -> None:
    """The payload is the log's root, and each stage has its evidence and its heights, no other."""
    genesis, backend = ledger.genesis, BACKENDS[anchor.backend]
    root = root_of(RFC9162, list(leaves[: anchor.size]))
    assert 0 < anchor.size <= len(leaves)
    assert anchor.payload == PAYLOAD_MAGIC + schema.u32(anchor.size) + root
    assert 0 < len(anchor.raws) <= VARIANTS_MAX
    assert anchor.time_ms <= ledger.now_ms
    assert 0 < anchor.intent_height <= ledger.state.get_head().height
    if anchor.status == AnchorStatus.PENDING:
        assert (anchor.variant, anchor.evidence) == (0, b"")
        assert anchor.observed_height == 0
    else:
        found = backend.find_variant(genesis, previous, anchor, anchor.evidence)
        assert found == anchor.variant
        assert anchor.intent_height <= anchor.observed_height
    if anchor.status == AnchorStatus.FINAL:
        assert backend.is_final(genesis, anchor, anchor.finality)
        assert anchor.observed_height <= anchor.final_height
    else:
        assert (anchor.final_height, anchor.finality) == (0, b"")
