"""Anchors, their pure halves: what is published, and what shows that it was.

To add one: a file here with a class that follows `AnchorBackend`, its line in `BACKENDS`, and its
I/O half in `cluster/anchors/`.
"""

from __future__ import annotations

from typing import Protocol

from vcp_cluster.ledger.anchors.notary import Notary
from vcp_cluster.ledger.anchors.payload import PAYLOAD_BYTES, compute_payload
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.records import Anchor
from vcp_cluster.ledger.state import State


class AnchorBackend(Protocol):
    """The pure half of a backend. Every member runs it inside `apply`."""

    label: str
    """How far its word goes, in words for people."""

    def is_intent(self, state: State, raw: bytes) -> bool:
        """Whether `raw` publishes the batch log's present root and nothing else."""
        ...

    def is_evidence(self, genesis: Genesis, anchor: Anchor, evidence: bytes) -> bool:
        """Whether `evidence` shows that `anchor.raw` was published."""
        ...


BACKENDS: dict[str, AnchorBackend] = {"notary": Notary()}

__all__ = ["BACKENDS", "PAYLOAD_BYTES", "AnchorBackend", "compute_payload"]
