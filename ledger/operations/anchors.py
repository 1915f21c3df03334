"""AnchorIntent, AnchorObserved, AnchorFinal: the same for every backend.

The intent is in the Raft log before anything is published, so that every later leader publishes the
same bytes; one anchor is pending at a time and covers all batches before it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from vcp_cluster.ledger import anchors
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import ShortText, Unsigned
from vcp_cluster.ledger.operations.base import Context, Operation
from vcp_cluster.ledger.records import RECORD_VERSION, Anchor, AnchorStatus

_replace = msgspec.structs.replace

EVIDENCE_BYTES_MAX = 64 * 1024


def _check_pending(context: Context, size: int) -> tuple[Code, Anchor | None]:
    if not context.is_member:
        return Code.NOT_A_MEMBER, None
    anchor = context.state.get_anchor(size)
    if anchor is None or context.state.get_settlement().anchor_pending != size:
        return Code.ANCHOR_NOT_PENDING, None
    return Code.OK, anchor


class AnchorIntent(Operation, tag=41, frozen=True):
    """What will be published: `payload` (40 bytes, DESIGN §7) inside the backend's `raw`."""

    backend: ShortText
    size: Unsigned
    payload: Annotated[bytes, Meta(min_length=40, max_length=40)]
    raw: Annotated[bytes, Meta(max_length=EVIDENCE_BYTES_MAX)]

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, ANCHOR_BACKEND_UNKNOWN, ANCHOR_PENDING, ANCHOR_STALE, …_MISMATCH."""
        if not context.is_member:
            return Code.NOT_A_MEMBER
        backend = anchors.BACKENDS.get(self.backend)
        if backend is None:
            return Code.ANCHOR_BACKEND_UNKNOWN
        batches = context.state.get_settlement()
        if batches.anchor_pending != 0:
            return Code.ANCHOR_PENDING
        if self.size != batches.headers or self.size <= batches.anchor_final:
            return Code.ANCHOR_STALE
        if self.payload != anchors.compute_payload(context.state):
            return Code.ANCHOR_INTENT_MISMATCH
        if not backend.is_intent(context.state, self.raw):
            return Code.ANCHOR_INTENT_MISMATCH
        return Code.OK

    def effect(self, context: Context) -> None:
        """The anchor is pending."""
        context.state.put_anchor(
            Anchor(
                version=RECORD_VERSION,
                backend=self.backend,
                size=self.size,
                payload=self.payload,
                raw=self.raw,
                status=int(AnchorStatus.PENDING),
                intent_height=context.head.height,
                observed_height=0,
                final_height=0,
                evidence=b"",
            )
        )
        batches = context.state.get_settlement()
        context.state.put_settlement(_replace(batches, anchor_pending=self.size))


class AnchorObserved(Operation, tag=42, frozen=True):
    """Evidence that the pending anchor was published; every member checks it."""

    size: Unsigned
    evidence: Annotated[bytes, Meta(max_length=EVIDENCE_BYTES_MAX)]

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, ANCHOR_NOT_PENDING, ANCHOR_EVIDENCE_INVALID."""
        code, anchor = _check_pending(context, self.size)
        if anchor is None:
            return code
        backend = anchors.BACKENDS[anchor.backend]
        if not backend.is_evidence(context.genesis, anchor, self.evidence):
            return Code.ANCHOR_EVIDENCE_INVALID
        return Code.OK

    def effect(self, context: Context) -> None:
        """The anchor is observed."""
        anchor = context.state.get_anchor(self.size)
        assert anchor is not None, "checked"
        context.state.put_anchor(
            _replace(
                anchor,
                status=int(AnchorStatus.OBSERVED),
                observed_height=context.head.height,
                evidence=self.evidence,
            )
        )


class AnchorFinal(Operation, tag=43, frozen=True):
    """The observed anchor will not be undone: the next one may begin."""

    size: Unsigned

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, ANCHOR_NOT_PENDING, ANCHOR_NOT_OBSERVED."""
        code, anchor = _check_pending(context, self.size)
        if anchor is None:
            return code
        if anchor.status != AnchorStatus.OBSERVED:
            return Code.ANCHOR_NOT_OBSERVED
        return Code.OK

    def effect(self, context: Context) -> None:
        """Everything up to this size is anchored."""
        anchor = context.state.get_anchor(self.size)
        assert anchor is not None, "checked"
        context.state.put_anchor(
            _replace(anchor, status=int(AnchorStatus.FINAL), final_height=context.head.height)
        )
        batches = context.state.get_settlement()
        context.state.put_settlement(_replace(batches, anchor_pending=0, anchor_final=self.size))
