"""What every anchor publishes: 40 bytes, `"VCP1" | u32 size | SHA-256 root` of the batch log."""

from __future__ import annotations

from vcp_cluster.ledger.bitcoin.script import PAYLOAD_BYTES, PAYLOAD_MAGIC
from vcp_cluster.ledger.merkle import RFC9162, Frontier
from vcp_cluster.ledger.records import Settlement
from vcp_cluster.ledger.schema import u32
from vcp_cluster.ledger.state import State

__all__ = ["PAYLOAD_BYTES", "PAYLOAD_MAGIC", "compute_payload", "make_payload"]


def make_payload(settlement: Settlement) -> bytes:
    """The payload for a batch log."""
    root = Frontier.decode(settlement.headers_frontier).root(RFC9162)
    return PAYLOAD_MAGIC + u32(settlement.headers) + root


def compute_payload(state: State) -> bytes:
    """The payload for the batch log as it stands."""
    return make_payload(state.get_settlement())
