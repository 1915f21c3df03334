"""What the ledger says about the Bitcoin lane, read at one moment."""

from __future__ import annotations

from dataclasses import dataclass

from vcp_cluster.cluster.door.context import Reader
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import BITCOIN
from vcp_cluster.ledger.anchors.bitcoin import (
    BlockEvidence,
    compute_fee,
    find_seal,
    find_seated,
    settings_of,
)
from vcp_cluster.ledger.anchors.payload import make_payload
from vcp_cluster.ledger.bitcoin.reader import hash256
from vcp_cluster.ledger.bitcoin.seal import Coin
from vcp_cluster.ledger.bitcoin.transaction import Transaction
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.records import Anchor, AnchorLane, AnchorStatus, Settlement


@dataclass(frozen=True)
class LaneView:
    """The lane, the pending anchor, the newest final one, and the batch log."""

    genesis: Genesis
    lane: AnchorLane
    settlement: Settlement
    pending: Anchor | None
    previous: Anchor | None

    @property
    def seal(self) -> Coin:
        """The coin that the pending or the next anchor spends."""
        return find_seal(settings_of(self.genesis), self.previous)

    @property
    def payload(self) -> bytes:
        """What the next anchor publishes."""
        return make_payload(self.settlement)

    @property
    def has_work(self) -> bool:
        """Whether something is pending or not covered."""
        return self.lane.pending != 0 or self.settlement.headers > self.lane.final

    @property
    def is_observed(self) -> bool:
        """Whether the pending anchor is in a block."""
        return self.pending is not None and self.pending.status == AnchorStatus.OBSERVED

    def seated(self) -> list[tuple[int, Transaction]]:
        """The pending anchor's variants that can still confirm, oldest first."""
        assert self.pending is not None, "only asked for a pending anchor"
        return find_seated(settings_of(self.genesis), self.previous, self.pending)

    def fee_of(self, variant: int) -> int:
        """The fee of a seated variant of the pending anchor."""
        assert self.pending is not None, "only asked for a pending anchor"
        raw = self.pending.raws[variant]
        settings = settings_of(self.genesis)
        return compute_fee(settings, self.previous, self.pending.payload, raw).fee


def evidence_of(anchor: Anchor) -> BlockEvidence:
    """The evidence of an observed or final anchor."""
    return decode_stored(BlockEvidence, anchor.evidence)


def block_of(anchor: Anchor) -> bytes:
    """Hash of the block that an observed or final anchor is in."""
    return hash256(evidence_of(anchor).header)


async def read_view(reader: Reader) -> LaneView:
    """Read the lane; only called where the backend is configured."""
    lane_data, settled = await reader.get(schema.lane_key(BITCOIN), schema.SETTLEMENT)
    assert lane_data is not None and settled is not None, "written at height 0"
    lane = decode_stored(AnchorLane, lane_data)
    pending, previous = (
        None if data is None else decode_stored(Anchor, data)
        for data in await reader.get(
            schema.anchor_key(BITCOIN, lane.pending), schema.anchor_key(BITCOIN, lane.final)
        )
    )
    settlement = decode_stored(Settlement, settled)
    return LaneView(reader.genesis, lane, settlement, pending, previous)


async def read_final(reader: Reader, size: int) -> Anchor | None:
    """The final anchor at a size; None at size 0, and when it was retracted meanwhile."""
    if size == 0:
        return None
    (data,) = await reader.get(schema.anchor_key(BITCOIN, size))
    if data is None:
        return None
    anchor = decode_stored(Anchor, data)
    return anchor if anchor.status == AnchorStatus.FINAL else None
