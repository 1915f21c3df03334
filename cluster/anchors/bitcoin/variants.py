"""Making a signed variant: which coins, at what price, within which limits. Broadcasts nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from vcp_cluster.cluster.anchors.bitcoin.chain import Tip, is_unspent
from vcp_cluster.cluster.anchors.bitcoin.fees import (
    FeePolicy,
    choose_rate,
    compute_fee,
    compute_replacement,
    read_market,
)
from vcp_cluster.cluster.anchors.bitcoin.rpc import BitcoinNode
from vcp_cluster.cluster.anchors.bitcoin.signer import Signer, estimate_size
from vcp_cluster.cluster.anchors.bitcoin.view import LaneView, read_final
from vcp_cluster.cluster.door.context import Reader
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import BITCOIN, BitcoinSettings, seal_script_of
from vcp_cluster.ledger.anchors.bitcoin import SignedAnchor
from vcp_cluster.ledger.anchors.bitcoin import compute_fee as compute_variant_fee
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid
from vcp_cluster.ledger.bitcoin.seal import Coin, build_anchor, find_coin
from vcp_cluster.ledger.bitcoin.transaction import Transaction
from vcp_cluster.ledger.encoding import decode_stored, encode
from vcp_cluster.ledger.records import Anchor, AnchorStatus

DAY_MS = 86_400_000
POLL_S = 5.0
_DAY_ANCHORS_MAX = 200

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TopUp:
    """A coin for the seal: the transaction that made it, without witnesses, and which output."""

    parent: Transaction
    output: int


@dataclass(frozen=True)
class AnchorerOptions:
    """What one member's operator chose. `poll_s` is between looks at the node."""

    policy: FeePolicy = field(default_factory=FeePolicy)
    top_ups: tuple[TopUp, ...] = ()
    poll_s: float = POLL_S


class VariantMaker:
    """Makes variants for the holder of the lease. None means: not now, and the log says why."""

    def __init__(
        self,
        reader: Reader,
        settings: BitcoinSettings,
        node: BitcoinNode,
        signer: Signer,
        options: AnchorerOptions,
        now_ms: Callable[[], int],
    ) -> None:
        self._reader = reader
        self._settings = settings
        self._node = node
        self._signer = signer
        self._options = options
        self._now_ms = now_ms

    async def make(self, view: LaneView, payload: bytes, tip: Tip) -> bytes | None:
        """The first variant on the present seal, at the market's price; raise `NodeError`."""
        market = await read_market(self._node, self._options.policy)
        rate = choose_rate(market, self._options.policy, 0)
        if rate is None:
            logger.info("anchoring in Bitcoin waits: the mempool's floor is above fee_rate_max")
            return None
        coins, parents = await self._find_coins(view.seal)
        fee = compute_fee(rate, self._measure(coins, payload))
        return await self._sign(coins, parents, payload, fee, tip)

    async def make_replacement(self, view: LaneView, pending: Anchor, tip: Tip) -> bytes | None:
        """A variant that replaces the newest, if the market or the time that passed asks for it."""
        number, newest = view.seated()[-1]
        market = await read_market(self._node, self._options.policy)
        since = decode_stored(SignedAnchor, pending.raws[number]).block_height
        rate = choose_rate(market, self._options.policy, max(0, tip.height - since))
        if rate is None:
            return None
        coins, parents = await self._find_coins(view.seal)
        size = self._measure(coins, pending.payload)
        fee = compute_replacement(market, rate, view.fee_of(number), newest.virtual_size, size)
        if fee is None:
            return None
        return await self._sign(coins, parents, pending.payload, fee, tip)

    def _measure(self, coins: Sequence[Coin], payload: bytes) -> int:
        return estimate_size(build_anchor(coins, seal_script_of(self._settings), payload, 0))

    async def _find_coins(self, seal: Coin) -> tuple[list[Coin], list[bytes]]:
        """The seal, and the operator's coins that are in the chain and not spent yet."""
        coins, parents = [seal], []
        script = seal_script_of(self._settings)
        for one in self._options.top_ups:
            coin = find_coin(one.parent, one.output, script)
            if coin.outpoint != seal.outpoint and await is_unspent(self._node, coin.outpoint):
                coins.append(coin)
                parents.append(one.parent.stripped)
        return coins, parents

    async def _sign(
        self,
        coins: Sequence[Coin],
        parents: Sequence[bytes],
        payload: bytes,
        fee: int,
        tip: Tip,
    ) -> bytes | None:
        if not await self._is_affordable(fee):
            return None
        script = seal_script_of(self._settings)
        try:
            unsigned = build_anchor(coins, script, payload, fee)
        except BitcoinInvalid as error:
            logger.error(
                "anchoring in Bitcoin waits: %s. Next: pay the seal's address and name the "
                "transaction in top_ups of bitcoin.toml",
                error,
            )
            return None
        signed = self._signer.sign(unsigned, coins, script)
        return encode(SignedAnchor(signed.full, tuple(parents), tip.height))

    async def _is_affordable(self, fee: int) -> bool:
        """Whether a fee is within genesis's cap and the operator's budget of the day."""
        if fee > self._settings.fee_max:
            logger.info("anchoring in Bitcoin waits: a fee of %d is above genesis's cap", fee)
            return False
        budget, spent = self._options.policy.budget_per_day, await self._sum_fees_of_day()
        if spent + fee > budget:
            logger.info("anchoring in Bitcoin waits: %d of the day's %d are spent", spent, budget)
            return False
        return True

    async def _sum_fees_of_day(self) -> int:
        """What the anchors of the last day paid, by the variants that the chain took."""
        prefix = schema.anchor_prefix(BITCOIN)
        rows = await self._reader.scan(prefix, limit=_DAY_ANCHORS_MAX, reverse=True)
        spent = 0
        for _, value in rows:
            anchor = decode_stored(Anchor, value)
            if anchor.time_ms < self._now_ms() - DAY_MS:
                break
            previous = await read_final(self._reader, anchor.previous)
            if anchor.status == AnchorStatus.FINAL and (previous or anchor.previous == 0):
                raw = anchor.raws[anchor.variant]
                variant = compute_variant_fee(self._settings, previous, anchor.payload, raw)
                spent += variant.fee
        return spent
