"""What a backend's pure half is: the checks that every member makes inside `apply`."""

from __future__ import annotations

from typing import Protocol

from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.records import Anchor, AnchorLane
from vcp_cluster.ledger.state import State


class AnchorBackend(Protocol):
    """The pure half of a backend. Its methods read the state and change nothing.

    `previous` is the newest final anchor, whose observed variant the next one builds on, or None.
    """

    label: str
    """How far its word goes, in words for people."""

    is_leased: bool
    """Whether one member acts, named by a lease; else whoever leads does."""

    def network(self, genesis: Genesis) -> bytes:
        """What names the chain it publishes on, 0 to 32 bytes."""
        ...

    def check_variant(
        self, state: State, previous: Anchor | None, payload: bytes, raw: bytes
    ) -> Code:
        """Whether `raw` publishes `payload`, and builds on `previous`."""
        ...

    def check_bump(self, state: State, previous: Anchor | None, anchor: Anchor, raw: bytes) -> Code:
        """Whether a valid variant `raw` may replace those that `anchor` has."""
        ...

    def is_seated(self, genesis: Genesis, previous: Anchor | None, anchor: Anchor) -> bool:
        """Whether some variant of `anchor` can still be published."""
        ...

    def find_variant(
        self, genesis: Genesis, previous: Anchor | None, anchor: Anchor, evidence: bytes
    ) -> int | None:
        """The variant that `evidence` shows to be published; None when it shows none."""
        ...

    def is_final(self, genesis: Genesis, anchor: Anchor, finality: bytes) -> bool:
        """Whether `finality` shows that the observed anchor is as deep as genesis asks."""
        ...


def find_previous(state: State, backend: str, lane: AnchorLane) -> Anchor | None:
    """The newest final anchor of a lane."""
    return state.get_anchor(backend, lane.final) if lane.final else None
