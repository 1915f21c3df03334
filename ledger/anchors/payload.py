"""What every anchor publishes: 40 bytes, `"VCP1" | u32 size | SHA-256 root` of the batch log."""

from __future__ import annotations

from vcp_cluster.ledger.merkle import RFC9162, Frontier
from vcp_cluster.ledger.schema import u32
from vcp_cluster.ledger.state import State

PAYLOAD_MAGIC = b"VCP1"
PAYLOAD_BYTES = 40


def compute_payload(state: State) -> bytes:
    """The payload for the batch log as it stands."""
    batches = state.get_settlement()
    root = Frontier.decode(batches.headers_frontier).root(RFC9162)
    return PAYLOAD_MAGIC + u32(batches.headers) + root
