"""The anchorer: takes a member's Bitcoin lane one step further, whatever happened before.

It keeps nothing that matters. Every step starts from what the ledger and the node say, so that a
crash at any point, a lost answer or another holder changes nothing but who does the next step:

    the block of an observed or final anchor left the chain   -> AnchorRetract, the earliest first
    batches are not covered, nothing is pending               -> AnchorIntent
    PENDING: a variant is in a block                          -> AnchorObserved
             no variant spends the present seal               -> AnchorReseat
             else broadcast the newest; if it waits too long  -> AnchorBump
             the seal was spent by a stranger                 -> AnchorHalt
    OBSERVED: as deep as genesis asks                         -> AnchorFinal

Only the lease's holder writes. Any member with a node broadcasts what is in the ledger; nobody
broadcasts what is not.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from vcp_cluster.cluster.anchors.bitcoin.chain import (
    Location,
    SpenderScan,
    Tip,
    check_health,
    find_unspent,
    get_block_hash,
    is_active,
    is_unspent,
    prove,
    read_header,
)
from vcp_cluster.cluster.anchors.bitcoin.replies import Outcome, broadcast
from vcp_cluster.cluster.anchors.bitcoin.rpc import (
    BitcoinNode,
    NodeError,
    NodeMisconfigured,
    NodeUnavailable,
)
from vcp_cluster.cluster.anchors.bitcoin.signer import Signer
from vcp_cluster.cluster.anchors.bitcoin.variants import AnchorerOptions, VariantMaker
from vcp_cluster.cluster.anchors.bitcoin.view import (
    LaneView,
    block_of,
    evidence_of,
    read_final,
    read_view,
)
from vcp_cluster.cluster.door.context import Ledger
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.errors import VcpError
from vcp_cluster.ledger.anchor_settings import BITCOIN
from vcp_cluster.ledger.anchors.bitcoin import BlockEvidence, settings_of
from vcp_cluster.ledger.bitcoin.reader import hash256, to_display
from vcp_cluster.ledger.bitcoin.transaction import Transaction
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.operations import (
    AnchorBump,
    AnchorFinal,
    AnchorHalt,
    AnchorIntent,
    AnchorLease,
    AnchorObserved,
    AnchorReseat,
    AnchorRetract,
    AnyOperation,
)
from vcp_cluster.ledger.operations.anchors import LEASE_MS, RETRACT_MAX, VARIANTS_MAX
from vcp_cluster.ledger.records import Anchor

MISCONFIGURED_PAUSE_S = 60.0
APPLY_WAIT_S = 5.0
# How far down a stranger's spending of the first coin is looked for: two weeks of blocks.
SCAN_BLOCKS_MAX = 2_016

logger = logging.getLogger(__name__)


def wall_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class BitcoinAnchorer:
    """Drives the Bitcoin lane for one member. Without a signer it only broadcasts."""

    def __init__(
        self,
        ledger: Ledger,
        node: BitcoinNode,
        signer: Signer | None,
        options: AnchorerOptions,
        *,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._ledger = ledger
        self._node = node
        self._options = options
        self._now_ms = now_ms
        self._settings = settings_of(ledger.genesis)
        self._scan = SpenderScan()
        self._maker_or_none = None
        if signer is not None:
            self._maker_or_none = VariantMaker(
                ledger, self._settings, node, signer, options, now_ms
            )

    @property
    def _maker(self) -> VariantMaker:
        assert self._maker_or_none is not None, "only the holder makes variants, and it has the key"
        return self._maker_or_none

    async def run(self) -> None:
        """Step for ever. A node that is down or wrong stops anchors, and nothing else."""
        while True:
            try:
                has_moved = await self.step()
                pause_s = 0.0 if has_moved else self._options.poll_s
            except NodeMisconfigured as error:
                logger.error("this member does not anchor in Bitcoin: %s", error)
                pause_s = MISCONFIGURED_PAUSE_S
            except (NodeError, VcpError, Problem) as error:
                logger.info("anchoring in Bitcoin waits: %s", error)
                pause_s = self._options.poll_s
            await asyncio.sleep(pause_s)

    async def step(self) -> bool:
        """Do the next thing that is due; whether the ledger moved.

        Raises `NodeError` when the node gave no answer to build on, `VcpError` or `Problem` when
        the ledger did not take an operation: the next step starts anew.
        """
        view = await read_view(self._ledger)
        if view.lane.halt or (not view.has_work and view.previous is None):
            return False
        tip = await check_health(self._node, self._settings.network, view.lane.position)
        gone = await self._find_gone(view)
        if gone is None and not view.has_work:
            return False
        if not self._is_holder(view):
            if self._maker_or_none is not None and self._may_claim(view):
                return await self._submit(AnchorLease(BITCOIN, self._settings.network, tip.work))
            await self._broadcast_pending(view)
            return False
        if view.lane.lease_until_ms - self._now_ms() < LEASE_MS // 2:
            return await self._submit(AnchorLease(BITCOIN, self._settings.network, tip.work))
        if gone is not None:
            return await self._submit(AnchorRetract(BITCOIN, gone.size, tip.work))
        if view.pending is None:
            return await self._intend(view, tip)
        if view.is_observed:
            return await self._finish(view.pending, tip)
        return await self._drive(view, view.pending, tip)

    # --- who acts ------------------------------------------------------------------------------

    def _is_holder(self, view: LaneView) -> bool:
        is_mine = view.lane.holder == self._ledger.member.key and self._maker_or_none is not None
        return is_mine and self._now_ms() < view.lane.lease_until_ms

    def _may_claim(self, view: LaneView) -> bool:
        is_mine = view.lane.holder == self._ledger.member.key
        return is_mine or self._now_ms() >= view.lane.lease_until_ms

    async def _submit(self, operation: AnyOperation) -> bool:
        """Write, and wait until this member has applied it: the next step is to see it."""
        receipt = await self._ledger.submit([operation])
        await self._ledger.wait_height(receipt.height - 1, APPLY_WAIT_S)
        return True

    async def _broadcast_pending(self, view: LaneView) -> None:
        if view.pending is not None and not view.is_observed and (seated := view.seated()):
            await broadcast(self._node, seated[-1][1].full)

    # --- what was lost -------------------------------------------------------------------------

    async def _find_gone(self, view: LaneView) -> Anchor | None:
        """The earliest observed or final anchor whose block is not in the chain any more."""
        gone: Anchor | None = None
        anchor = view.previous
        for _ in range(RETRACT_MAX):
            if anchor is None or await is_active(self._node, block_of(anchor)):
                break
            gone = anchor
            anchor = await read_final(self._ledger, anchor.previous)
        if gone is not None:
            return gone
        pending = view.pending
        if pending is None or not view.is_observed:
            return None
        return None if await is_active(self._node, block_of(pending)) else pending

    # --- a new anchor, or a new variant --------------------------------------------------------

    async def _intend(self, view: LaneView, tip: Tip) -> bool:
        """Write down the next anchor, signed, if the seal is there and the price is right."""
        if not await is_unspent(self._node, view.seal.outpoint):
            await self._look_for_stranger(view, [], tip)
            return False
        raw = await self._maker.make(view, view.payload, tip)
        if raw is None:
            return False
        size = view.settlement.headers
        return await self._submit(AnchorIntent(BITCOIN, size, view.payload, raw))

    # --- a pending anchor ----------------------------------------------------------------------

    async def _drive(self, view: LaneView, pending: Anchor, tip: Tip) -> bool:
        seated = view.seated()
        location = await self._locate(view, seated, tip)
        if location is not None:
            return await self._observe(view, pending, location, tip)
        if not seated:
            return await self._reseat(view, pending, tip)
        if not await is_unspent(self._node, view.seal.outpoint):
            return False  # Its parent is not in a block just now: the next step finds that out.
        newest = seated[-1][1]
        outcome = await broadcast(self._node, newest.full)
        if outcome is Outcome.INVALID:
            return await self._halt(view, f"a node will never take {to_display(newest.txid)}")
        return await self._bump(view, pending, tip)

    async def _locate(
        self, view: LaneView, seated: Sequence[tuple[int, Transaction]], tip: Tip
    ) -> Location | None:
        """Where a seated variant is in the chain; halts the lane if a stranger is there instead."""
        if await is_unspent(self._node, view.seal.outpoint):
            return None
        location = await find_unspent(self._node, [one for _, one in reversed(seated)])
        return location or await self._look_for_stranger(view, seated, tip)

    async def _look_for_stranger(
        self, view: LaneView, seated: Sequence[tuple[int, Transaction]], tip: Tip
    ) -> Location | None:
        """Who spent the seal, by reading blocks. Only this cluster's key can have done it."""
        lowest = max(1, tip.height - SCAN_BLOCKS_MAX)
        if view.previous is not None:
            lowest = max(lowest, evidence_of(view.previous).block_height)
        location = await self._scan.find(self._node, view.seal.outpoint, tip=tip, lowest=lowest)
        if location is None or location.transaction.txid in {one.txid for _, one in seated}:
            return location
        await self._halt(
            view,
            f"the seal was spent by {to_display(location.transaction.txid)}, which is not in the "
            "ledger: the seal's key is in other hands",
        )
        return None

    async def _halt(self, view: LaneView, reason: str) -> bool:
        await self._submit(AnchorHalt(BITCOIN, reason, view.lane.revision))
        logger.error("anchoring in Bitcoin is halted: %s", reason)
        return True

    async def _reseat(self, view: LaneView, pending: Anchor, tip: Tip) -> bool:
        """Build on the variant of the parent that the chain took."""
        if len(pending.raws) >= VARIANTS_MAX:
            return await self._halt(view, "the pending anchor has as many variants as it may have")
        if not await is_unspent(self._node, view.seal.outpoint):
            return False
        raw = await self._maker.make(view, pending.payload, tip)
        return raw is not None and await self._submit(AnchorReseat(BITCOIN, pending.size, raw))

    async def _bump(self, view: LaneView, pending: Anchor, tip: Tip) -> bool:
        """Pay more if the market asks for it or blocks pass by, within every limit."""
        if len(pending.raws) >= VARIANTS_MAX:
            return False
        raw = await self._maker.make_replacement(view, pending, tip)
        return raw is not None and await self._submit(AnchorBump(BITCOIN, pending.size, raw))

    # --- what is in a block --------------------------------------------------------------------

    async def _observe(self, view: LaneView, pending: Anchor, location: Location, tip: Tip) -> bool:
        proof = await prove(self._node, location)
        if hash256(proof.header) != location.block_hash:
            raise NodeUnavailable("the node's proof is of another block")
        txid = location.transaction.txid
        number = next(one for one, variant in view.seated() if variant.txid == txid)
        evidence = BlockEvidence(number, proof.index, proof.branch, proof.header, location.height)
        return await self._submit(AnchorObserved(BITCOIN, pending.size, encode(evidence), tip.work))

    async def _finish(self, pending: Anchor, tip: Tip) -> bool:
        """Collect the headers that make it final, once there are enough."""
        evidence = evidence_of(pending)
        depth = self._settings.confirmations
        if tip.height - evidence.block_height + 1 < depth:
            return False
        headers = []
        for height in range(evidence.block_height + 1, evidence.block_height + depth):
            block_hash = await get_block_hash(self._node, height)
            if block_hash is None:
                raise NodeUnavailable("the chain moved while it was read")
            headers.append(await read_header(self._node, block_hash))
        return await self._submit(AnchorFinal(BITCOIN, pending.size, b"".join(headers), tip.work))
