"""Anchors, their pure halves: what is published, and what shows that it was.

To add one: a file here with a class that follows `AnchorBackend`, its line in `BACKENDS`, and its
I/O half in `cluster/anchors/`.
"""

from __future__ import annotations

from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY
from vcp_cluster.ledger.anchors.base import AnchorBackend, find_previous
from vcp_cluster.ledger.anchors.bitcoin import Bitcoin
from vcp_cluster.ledger.anchors.notary import Notary
from vcp_cluster.ledger.anchors.payload import PAYLOAD_BYTES, compute_payload

BACKENDS: dict[str, AnchorBackend] = {NOTARY: Notary(), BITCOIN: Bitcoin()}

__all__ = [
    "BACKENDS",
    "BITCOIN",
    "NOTARY",
    "PAYLOAD_BYTES",
    "AnchorBackend",
    "compute_payload",
    "find_previous",
]
