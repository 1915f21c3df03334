"""The anchor operations, the same for every backend.

    AnchorLease     one member acts for a backend, with a node that is on the right chain and not behind
    AnchorIntent    what will be published, whole, before anything is
    AnchorBump      the same payload from the same place at a higher price
    AnchorReseat    the same payload again, because the chain replaced what it was built on
    AnchorObserved  one variant was published; every member checks the evidence
    AnchorFinal     it is as deep as genesis asks: the next one may begin
    AnchorRetract   what was observed is gone from the chain, and all that was built on it
    AnchorHalt      nothing moves until someone has looked

One anchor of a backend is pending at a time and covers all batches before it. Every variant that
ever was in the log stays a candidate: whichever the chain takes is the anchor.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from vcp_cluster.ledger import anchors
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import DetailText, HashOrNone, ShortText, Unsigned
from vcp_cluster.ledger.operations.base import Context, Operation
from vcp_cluster.ledger.records import RECORD_VERSION, Anchor, AnchorLane, AnchorStatus

_replace = msgspec.structs.replace

EVIDENCE_BYTES_MAX = 64 * 1024
LEASE_MS = 60_000
VARIANTS_MAX = 64
# How many anchors may be taken back at once: far more than any reorganisation has ever undone.
RETRACT_MAX = 64

Raw = Annotated[bytes, Meta(max_length=EVIDENCE_BYTES_MAX)]


def _check_acting(context: Context, backend: str) -> Code:
    """NOT_A_MEMBER, ANCHOR_BACKEND_UNKNOWN, ANCHOR_HALTED, ANCHOR_LEASE_MISSING."""
    if not context.is_member:
        return Code.NOT_A_MEMBER
    if backend not in context.genesis.anchors.backends:
        return Code.ANCHOR_BACKEND_UNKNOWN
    lane = context.state.get_lane(backend)
    if lane.halt:
        return Code.ANCHOR_HALTED
    if anchors.BACKENDS[backend].is_leased:
        is_over = context.head.time_ms >= lane.lease_until_ms
        if is_over or lane.holder != context.account:
            return Code.ANCHOR_LEASE_MISSING
    return Code.OK


def _get_pending(context: Context, backend: str, size: int) -> Anchor | None:
    if context.state.get_lane(backend).pending != size:
        return None
    return context.state.get_anchor(backend, size)


def _get_previous(context: Context, backend: str) -> Anchor | None:
    return anchors.find_previous(context.state, backend, context.state.get_lane(backend))


def _raise_position(lane: AnchorLane, position: bytes) -> AnchorLane:
    """What a node has seen of the chain is never forgotten: a node that saw less is behind."""
    return _replace(lane, position=position) if _is_ahead(position, lane.position) else lane


def _put_lane(context: Context, backend: str, lane: AnchorLane) -> None:
    """Write a lane that has changed in more than its lease."""
    context.state.put_lane(backend, _replace(lane, revision=lane.revision + 1))


def _is_ahead(position: bytes, other: bytes) -> bool:
    return int.from_bytes(position, "big") > int.from_bytes(other, "big")


def _reset(anchor: Anchor) -> Anchor:
    """As before it was observed."""
    return _replace(
        anchor,
        status=int(AnchorStatus.PENDING),
        variant=0,
        observed_height=0,
        final_height=0,
        evidence=b"",
        finality=b"",
    )


class AnchorLease(Operation, tag=44, frozen=True):
    """Act for a leased backend for the next minute; the holder renews it before that.

    `network` names the chain that the member's node follows, `position` how far it has seen it.
    """

    backend: ShortText
    network: HashOrNone
    position: HashOrNone

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, ANCHOR_BACKEND_UNKNOWN, …_HALTED, …_LEASE_HELD, …_NETWORK_…, …_BEHIND."""
        if not context.is_member:
            return Code.NOT_A_MEMBER
        backend = anchors.BACKENDS.get(self.backend)
        is_known = self.backend in context.genesis.anchors.backends
        if backend is None or not is_known or not backend.is_leased:
            return Code.ANCHOR_BACKEND_UNKNOWN
        lane = context.state.get_lane(self.backend)
        if lane.halt:
            return Code.ANCHOR_HALTED
        if lane.holder != context.account and context.head.time_ms < lane.lease_until_ms:
            return Code.ANCHOR_LEASE_HELD
        if self.network != backend.network(context.genesis):
            return Code.ANCHOR_NETWORK_MISMATCH
        if _is_ahead(lane.position, self.position):
            return Code.ANCHOR_NODE_BEHIND
        return Code.OK

    def effect(self, context: Context) -> None:
        """The sender acts."""
        lane = _raise_position(context.state.get_lane(self.backend), self.position)
        until_ms = context.head.time_ms + LEASE_MS
        lane = _replace(lane, holder=context.account, lease_until_ms=until_ms)
        context.state.put_lane(self.backend, lane)


class AnchorIntent(Operation, tag=41, frozen=True):
    """What will be published: `payload` (40 bytes, DESIGN §7) inside the backend's `raw`."""

    backend: ShortText
    size: Unsigned
    payload: Annotated[bytes, Meta(min_length=40, max_length=40)]
    raw: Raw

    def check(self, context: Context) -> Code:
        """Acting, ANCHOR_PENDING, ANCHOR_STALE, ANCHOR_INTENT_MISMATCH, the variant's own codes.

        The payload comes first: a variant is only compared with the right one.
        """
        code = _check_acting(context, self.backend)
        if code is not Code.OK:
            return code
        lane, batches = context.state.get_lane(self.backend), context.state.get_settlement()
        if lane.pending != 0:
            return Code.ANCHOR_PENDING
        if self.size != batches.headers or self.size <= lane.final:
            return Code.ANCHOR_STALE
        if self.payload != anchors.compute_payload(context.state):
            return Code.ANCHOR_INTENT_MISMATCH
        backend = anchors.BACKENDS[self.backend]
        previous = _get_previous(context, self.backend)
        return backend.check_variant(context.state, previous, self.payload, self.raw)

    def effect(self, context: Context) -> None:
        """The anchor is pending."""
        lane = context.state.get_lane(self.backend)
        context.state.put_anchor(
            Anchor(
                version=RECORD_VERSION,
                backend=self.backend,
                size=self.size,
                previous=lane.final,
                payload=self.payload,
                raws=(self.raw,),
                status=int(AnchorStatus.PENDING),
                variant=0,
                time_ms=context.head.time_ms,
                intent_height=context.head.height,
                observed_height=0,
                final_height=0,
                evidence=b"",
                finality=b"",
            )
        )
        _put_lane(context, self.backend, _replace(lane, pending=self.size))


class _Variant(Operation, frozen=True):
    """Another variant of the pending anchor: same payload, other bytes."""

    backend: ShortText
    size: Unsigned
    raw: Raw

    def check_replacement(self, context: Context, previous: Anchor | None, anchor: Anchor) -> Code:
        """Why this variant may not stand beside those that `anchor` has, or OK."""
        raise NotImplementedError

    def check(self, context: Context) -> Code:
        """Acting, ANCHOR_NOT_PENDING, ANCHOR_OBSERVED, …_VARIANTS_LIMIT, the variant's own codes."""
        code = _check_acting(context, self.backend)
        if code is not Code.OK:
            return code
        anchor = _get_pending(context, self.backend, self.size)
        if anchor is None:
            return Code.ANCHOR_NOT_PENDING
        if anchor.status != AnchorStatus.PENDING:
            return Code.ANCHOR_OBSERVED
        if len(anchor.raws) >= VARIANTS_MAX:
            return Code.ANCHOR_VARIANTS_LIMIT
        return self.check_replacement(context, _get_previous(context, self.backend), anchor)

    def effect(self, context: Context) -> None:
        """One variant more; the others stay candidates."""
        anchor = context.state.get_anchor(self.backend, self.size)
        assert anchor is not None, "checked"
        context.state.put_anchor(_replace(anchor, raws=(*anchor.raws, self.raw)))
        _put_lane(context, self.backend, context.state.get_lane(self.backend))


class AnchorBump(_Variant, tag=45, frozen=True):
    """Pay more for the pending anchor."""

    def check_replacement(self, context: Context, previous: Anchor | None, anchor: Anchor) -> Code:
        """What the backend says of it, ANCHOR_FEE_INVALID last."""
        backend = anchors.BACKENDS[self.backend]
        return backend.check_bump(context.state, previous, anchor, self.raw)


class AnchorReseat(_Variant, tag=46, frozen=True):
    """Build the pending anchor on another variant of the one before.

    Safe because the two variants before it exclude each other, and so do the anchors on them.
    """

    def check_replacement(self, context: Context, previous: Anchor | None, anchor: Anchor) -> Code:
        """ANCHOR_SEAL_ALIVE while an older variant can be published; the variant's own codes."""
        backend = anchors.BACKENDS[self.backend]
        if backend.is_seated(context.genesis, previous, anchor):
            return Code.ANCHOR_SEAL_ALIVE
        return backend.check_variant(context.state, previous, anchor.payload, self.raw)


class AnchorObserved(Operation, tag=42, frozen=True):
    """Evidence that the pending anchor was published; every member checks it."""

    backend: ShortText
    size: Unsigned
    evidence: Raw
    position: HashOrNone

    def check(self, context: Context) -> Code:
        """Acting, ANCHOR_NOT_PENDING, ANCHOR_OBSERVED, ANCHOR_EVIDENCE_INVALID."""
        code = _check_acting(context, self.backend)
        if code is not Code.OK:
            return code
        anchor = _get_pending(context, self.backend, self.size)
        if anchor is None:
            return Code.ANCHOR_NOT_PENDING
        if anchor.status != AnchorStatus.PENDING:
            return Code.ANCHOR_OBSERVED
        if self._find_variant(context, anchor) is None:
            return Code.ANCHOR_EVIDENCE_INVALID
        return Code.OK

    def _find_variant(self, context: Context, anchor: Anchor) -> int | None:
        backend = anchors.BACKENDS[self.backend]
        previous = _get_previous(context, self.backend)
        return backend.find_variant(context.genesis, previous, anchor, self.evidence)

    def effect(self, context: Context) -> None:
        """The anchor is observed."""
        anchor = context.state.get_anchor(self.backend, self.size)
        assert anchor is not None, "checked"
        variant = self._find_variant(context, anchor)
        assert variant is not None, "checked"
        context.state.put_anchor(
            _replace(
                anchor,
                status=int(AnchorStatus.OBSERVED),
                variant=variant,
                observed_height=context.head.height,
                evidence=self.evidence,
            )
        )
        lane = context.state.get_lane(self.backend)
        _put_lane(context, self.backend, _raise_position(lane, self.position))


class AnchorFinal(Operation, tag=43, frozen=True):
    """The observed anchor is deep enough: the next one may begin."""

    backend: ShortText
    size: Unsigned
    finality: Raw
    position: HashOrNone

    def check(self, context: Context) -> Code:
        """Acting, ANCHOR_NOT_PENDING, ANCHOR_NOT_OBSERVED, ANCHOR_EVIDENCE_INVALID."""
        code = _check_acting(context, self.backend)
        if code is not Code.OK:
            return code
        anchor = _get_pending(context, self.backend, self.size)
        if anchor is None:
            return Code.ANCHOR_NOT_PENDING
        if anchor.status != AnchorStatus.OBSERVED:
            return Code.ANCHOR_NOT_OBSERVED
        if not anchors.BACKENDS[self.backend].is_final(context.genesis, anchor, self.finality):
            return Code.ANCHOR_EVIDENCE_INVALID
        return Code.OK

    def effect(self, context: Context) -> None:
        """Everything up to this size is anchored; a retracted anchor after it is pending again."""
        anchor = context.state.get_anchor(self.backend, self.size)
        assert anchor is not None, "checked"
        context.state.put_anchor(
            _replace(
                anchor,
                status=int(AnchorStatus.FINAL),
                final_height=context.head.height,
                finality=self.finality,
            )
        )
        lane = _raise_position(context.state.get_lane(self.backend), self.position)
        pending = lane.retracted[0] if lane.retracted else 0
        _put_lane(
            context,
            self.backend,
            _replace(
                lane,
                pending=pending,
                final=self.size,
                retracted=lane.retracted[1:],
            ),
        )


class AnchorRetract(Operation, tag=47, frozen=True):
    """The block of an observed or final anchor is not in the chain any more.

    It is pending again with all its variants, and what was built on it waits behind it. A wrong
    retraction costs time and nothing else: the same evidence makes it observed again.
    """

    backend: ShortText
    size: Unsigned
    position: HashOrNone

    def check(self, context: Context) -> Code:
        """Acting, ANCHOR_NODE_BEHIND, ANCHOR_NOT_FINAL."""
        code = _check_acting(context, self.backend)
        if code is not Code.OK:
            return code
        lane = context.state.get_lane(self.backend)
        if _is_ahead(lane.position, self.position):
            return Code.ANCHOR_NODE_BEHIND
        if not anchors.BACKENDS[self.backend].is_leased:
            return Code.ANCHOR_NOT_FINAL  # members' signatures are not taken back
        if self.size == lane.pending:
            anchor = _get_pending(context, self.backend, self.size)
            is_observed = anchor is not None and anchor.status == AnchorStatus.OBSERVED
            return Code.OK if is_observed else Code.ANCHOR_NOT_FINAL
        return Code.OK if self._find_undone(context, lane) else Code.ANCHOR_NOT_FINAL

    def _find_undone(self, context: Context, lane: AnchorLane) -> list[Anchor]:
        """The final anchors from the newest down to this one; empty when it is not among them."""
        undone = []
        size = lane.final
        for _ in range(RETRACT_MAX - len(lane.retracted)):
            anchor = context.state.get_anchor(self.backend, size) if size else None
            if anchor is None:
                return []
            undone.append(anchor)
            if size == self.size:
                return undone
            size = anchor.previous
        return []

    def effect(self, context: Context) -> None:
        """Pending again; later ones wait."""
        state = context.state
        lane = _raise_position(state.get_lane(self.backend), self.position)
        if lane.pending:
            pending = state.get_anchor(self.backend, lane.pending)
            assert pending is not None, "a pending anchor is stored"
            state.put_anchor(_reset(pending))
        if self.size != lane.pending:
            undone = self._find_undone(context, lane)
            for anchor in undone:
                state.put_anchor(_reset(anchor))
            waiting = [anchor.size for anchor in reversed(undone[:-1])]
            waiting += [lane.pending] if lane.pending else []
            lane = _replace(
                lane,
                pending=self.size,
                final=undone[-1].previous,
                retracted=(*waiting, *lane.retracted),
            )
        _put_lane(context, self.backend, lane)


class AnchorHalt(Operation, tag=48, frozen=True):
    """Stop a backend, for a reason; or let it go on, with an empty one.

    `revision` is the lane's that the sender has looked at: what looks like a stranger's transaction
    may be one that entered the ledger a moment ago. Going on also ends the lease and forgets how far
    the chain was seen, in case a node said too much.
    """

    backend: ShortText
    reason: DetailText
    revision: Unsigned

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, ANCHOR_BACKEND_UNKNOWN, ANCHOR_LANE_CHANGED."""
        if not context.is_member:
            return Code.NOT_A_MEMBER
        if self.backend not in context.genesis.anchors.backends:
            return Code.ANCHOR_BACKEND_UNKNOWN
        if context.state.get_lane(self.backend).revision != self.revision:
            return Code.ANCHOR_LANE_CHANGED
        return Code.OK

    def effect(self, context: Context) -> None:
        """The lane is halted, or moves again."""
        lane = _replace(context.state.get_lane(self.backend), halt=self.reason)
        if not self.reason:
            lane = _replace(lane, position=b"", holder=b"", lease_until_ms=0)
        _put_lane(context, self.backend, lane)
