"""The settler: seals batches and anchors them, on whichever member leads.

It keeps nothing of its own: every step starts from what the ledger says, so that a new leader goes
on where the last one stopped, and a step done twice is refused by the ledger.

    leaves in the open batch, and the interval is over   -> SealBatch
    sealed headers that are not anchored, none pending   -> AnchorIntent
    PENDING: a majority cosigned                         -> AnchorObserved
    OBSERVED                                             -> AnchorFinal

The anchor that it drives is the notary's. Others have services of their own in `cluster/anchors/`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from time import monotonic

from vcp_cluster.cluster.anchors.notary import (
    CosignRefused,
    NotaryKeeper,
    parse_checkpoints,
)
from vcp_cluster.cluster.door.context import Ledger, ReadSet
from vcp_cluster.cluster.door.peers import PeerError, Peers
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.errors import InvalidTransaction, VcpError
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import NOTARY
from vcp_cluster.ledger.anchors import compute_payload
from vcp_cluster.ledger.anchors.notary import NotaryEvidence, compute_raw
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import decode_stored, encode
from vcp_cluster.ledger.genesis import Member, majority
from vcp_cluster.ledger.notes import (
    Checkpoint,
    Cosignature,
    NoteError,
    SignatureLine,
    check_cosignature,
    format_note,
    match_cosignatures,
)
from vcp_cluster.ledger.operations import AnchorFinal, AnchorIntent, AnchorObserved, SealBatch
from vcp_cluster.ledger.records import Anchor, AnchorLane, AnchorStatus, Settlement
from vcp_cluster.ledger.state import Overlay, State

STEP_GAP_S = 0.1
IDLE_WAIT_S = 1.0
RETRY_PAUSE_S = 1.0
# How long cosignatures beyond the majority are waited for: they make a stronger anchor.
GRACE_S = 0.25
SEAL_ATTEMPTS_MAX = 3

_Pair = tuple[Cosignature, Cosignature]

logger = logging.getLogger(__name__)


class Settler:
    """Drives settlement while this member leads."""

    def __init__(
        self,
        ledger: Ledger,
        peers: Peers,
        keeper: NotaryKeeper,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._ledger = ledger
        self._peers = peers
        self._keeper = keeper
        self._clock = clock
        self._open_batch = 0
        self._open_since_s = 0.0

    async def run(self) -> None:
        """Step for ever, at every new height and whenever a batch may be due."""
        while True:
            try:
                height = self._ledger.height
                while await self._ledger.is_leader() and await self.step():
                    height = self._ledger.height
                await self._ledger.wait_height(height, IDLE_WAIT_S)
                pause_s = STEP_GAP_S
            except (VcpError, Problem, CosignRefused) as error:
                logger.info("settlement waits: %s", error)
                pause_s = RETRY_PAUSE_S
            await asyncio.sleep(pause_s)

    async def step(self) -> bool:
        """Do the next thing that is due; whether there was one.

        Raises `VcpError` or `Problem` when the ledger did not take it, `CosignRefused` when no
        majority cosigns: the same step is due again.
        """
        settlement = await self._read_settlement()
        if self._is_seal_due(settlement):
            await self._ledger.submit([SealBatch(settlement.batch)])
            return True
        lane = await self._read_lane()
        if lane is None or lane.halt:
            return False
        if lane.pending:
            await self._drive_anchor(lane.pending)
            return True
        if settlement.headers > lane.final:
            return await self._intend(settlement.headers)
        return False

    async def seal_now(self) -> int:
        """Seal the open batch, from any member; its number.

        Raises `InvalidTransaction` with BATCH_EMPTY when nothing was accepted since the last one.
        """
        for _ in range(SEAL_ATTEMPTS_MAX):
            settlement = await self._read_settlement()
            try:
                await self._ledger.submit([SealBatch(settlement.batch)])
            except InvalidTransaction as error:
                if error.code is not Code.BATCH_NOT_OPEN:
                    raise
                # Either it was sealed this moment, or this member's view of it is behind.
                await self._ledger.wait_height(self._ledger.height, IDLE_WAIT_S)
                continue
            return settlement.batch
        raise Problem(
            503,
            "behind",
            "this member does not know the open batch yet",
            next_step="send the request again, or to another member",
            retry_after_ms=500,
        )

    def _is_seal_due(self, settlement: Settlement) -> bool:
        """Whether the open batch has had leaves for the interval, as this member saw it."""
        if settlement.count == 0:
            return False
        if self._open_batch != settlement.batch:
            self._open_batch, self._open_since_s = settlement.batch, self._clock()
        interval_ms = self._ledger.genesis.parameters.settle_interval_ms
        return (self._clock() - self._open_since_s) * 1000 >= interval_ms

    async def _read_settlement(self) -> Settlement:
        (data,) = await self._ledger.get(schema.SETTLEMENT)
        assert data is not None, "the settlement is written at height 0"
        return decode_stored(Settlement, data)

    async def _read_lane(self) -> AnchorLane | None:
        """The notary's lane; None in a cluster without a notary."""
        (data,) = await self._ledger.get(schema.lane_key(NOTARY))
        return None if data is None else decode_stored(AnchorLane, data)

    async def _intend(self, size: int) -> bool:
        """Announce the anchor of the batch log at `size`; False when it has grown meanwhile."""
        keys = (schema.SETTLEMENT, schema.HEADER + schema.u64(size))
        values = dict(zip(keys, await self._ledger.get(*keys), strict=True))
        state = State(Overlay(ReadSet(values)), self._ledger.genesis)
        if state.get_settlement().headers != size:
            return False
        intent = AnchorIntent(NOTARY, size, compute_payload(state), compute_raw(state))
        await self._ledger.submit([intent])
        return True

    async def _drive_anchor(self, size: int) -> None:
        (data,) = await self._ledger.get(schema.anchor_key(NOTARY, size))
        assert data is not None, "a pending anchor is stored"
        anchor = decode_stored(Anchor, data)
        if anchor.status == AnchorStatus.OBSERVED:
            await self._ledger.submit([AnchorFinal(NOTARY, size, b"", b"")])
            return
        checkpoints = parse_checkpoints(self._ledger.genesis, anchor)
        evidence = await self._collect(size, checkpoints)
        await self._ledger.submit([AnchorObserved(NOTARY, size, encode(evidence), b"")])

    async def _collect(
        self, size: int, checkpoints: tuple[Checkpoint, Checkpoint]
    ) -> NotaryEvidence:
        """Ask all members at once; both notes, cosigned by a majority at least."""
        members = (self._ledger.member, *self._peers.others)
        needed = majority(self._ledger.genesis)
        waiting = {
            asyncio.create_task(self._cosign(member, size, checkpoints)) for member in members
        }
        pairs: list[_Pair] = []
        refusals: list[str] = []
        try:
            while waiting:
                timeout_s = GRACE_S if len(pairs) >= needed else None
                done, waiting = await asyncio.wait(
                    waiting, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    break
                for answer in (task.result() for task in done):
                    if isinstance(answer, str):
                        refusals.append(answer)
                    else:
                        pairs.append(answer)
        finally:
            for task in waiting:
                task.cancel()
        if len(pairs) < needed:
            raise CosignRefused(
                f"the anchor at size {size} has {len(pairs)} of {needed} cosignatures: "
                + "; ".join(refusals)
            )
        batch, transaction = checkpoints
        return NotaryEvidence(
            format_note(batch, _sorted(pair[0] for pair in pairs)),
            format_note(transaction, _sorted(pair[1] for pair in pairs)),
        )

    async def _cosign(
        self, member: Member, size: int, checkpoints: tuple[Checkpoint, Checkpoint]
    ) -> _Pair | str:
        """A member's checked cosignatures, or why there are none."""
        try:
            if member.key == self._ledger.member.key:
                lines = await self._keeper.cosign(size)
            else:
                lines = await self._peers.cosign(member, size)
            return _read_pair(member, checkpoints, lines)
        except (CosignRefused, PeerError, NoteError, VcpError, Problem) as error:
            logger.warning("member %s does not cosign size %d: %s", member.name, size, error)
            return f"{member.name}: {error}"


def _read_pair(
    member: Member, checkpoints: tuple[Checkpoint, Checkpoint], lines: tuple[str, str]
) -> _Pair:
    batch, transaction = (
        _read_cosignature(member, checkpoint, line)
        for checkpoint, line in zip(checkpoints, lines, strict=True)
    )
    return batch, transaction


def _read_cosignature(member: Member, checkpoint: Checkpoint, line: str) -> Cosignature:
    """The member's own, verified cosignature in a line; raise `NoteError`."""
    found = match_cosignatures([SignatureLine.parse(line)], {member.name: member.key})
    if not found:
        raise NoteError("the line is not a cosignature by this member's key")
    check_cosignature(checkpoint, found[0])
    return found[0]


def _sorted(cosignatures: Iterable[Cosignature]) -> list[Cosignature]:
    return sorted(cosignatures, key=lambda one: one.name)
