"""How much an anchor pays. Rates are satoshi per 1,000 vB, fees satoshi; integers throughout."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any

from vcp_cluster.cluster.anchors.bitcoin.rpc import BitcoinNode, NodeUnavailable

_SATOSHI = 100_000_000
_RATE_MAX = 10**9
# A quarter more for each block waited beyond the target: doubled after four.
ESCALATION_BLOCKS = 4


@dataclass(frozen=True, slots=True)
class FeePolicy:
    """An operator's limits. `budget_per_day` bounds the fees of one day's anchors, in satoshi."""

    target_blocks: int = 6
    rate_min: int = 100
    rate_max: int = 100_000
    budget_per_day: int = 100_000


@dataclass(frozen=True, slots=True)
class FeeMarket:
    """What the node says: its estimate if it has one, its mempool's floor, its replacement step."""

    estimate: int | None
    floor: int
    increment: int


def to_rate(value: Any) -> int:
    """A rate in BTC per 1,000 vB as integer satoshi, rounded up; raise `NodeUnavailable`."""
    try:
        satoshi = Decimal(value) * _SATOSHI
        rate = int(satoshi.to_integral_value("ROUND_CEILING"))
    except (InvalidOperation, OverflowError, TypeError, ValueError):
        raise NodeUnavailable("the node gave a fee rate that is not a number") from None
    if not 0 <= rate <= _RATE_MAX:
        raise NodeUnavailable("the node gave a fee rate out of all bounds")
    return rate


async def read_market(node: BitcoinNode, policy: FeePolicy) -> FeeMarket:
    """Ask the node; an estimate it does not have is None. Raises `NodeError`."""
    pool = await node.call("getmempoolinfo")
    estimate = await node.call("estimatesmartfee", policy.target_blocks)
    if not isinstance(pool, dict) or not isinstance(estimate, dict):
        raise NodeUnavailable("the node's fee information is not an object")
    floor = max(to_rate(pool.get("mempoolminfee")), to_rate(pool.get("minrelaytxfee", 0)))
    increment = to_rate(pool.get("incrementalrelayfee", pool.get("minrelaytxfee", 0)))
    feerate = estimate.get("feerate")
    return FeeMarket(None if feerate is None else to_rate(feerate), floor, increment)


def compute_fee(rate: int, size: int) -> int:
    """The fee of `size` vB, rounded up."""
    return -(-rate * size // 1_000)


def choose_rate(market: FeeMarket, policy: FeePolicy, waited_blocks: int) -> int | None:
    """The rate to offer now; None while even the mempool's floor is above the policy's limit.

    What was estimated, or the floor where nothing was, raised for every block waited in vain.
    """
    lowest = max(market.floor, policy.rate_min)
    if lowest > policy.rate_max:
        return None
    base = max(lowest, market.estimate or 0)
    late = max(0, waited_blocks - policy.target_blocks)
    return min(base * (ESCALATION_BLOCKS + late) // ESCALATION_BLOCKS, policy.rate_max)


def compute_replacement(
    market: FeeMarket, rate: int, old_fee: int, old_size: int, size: int
) -> int | None:
    """The fee with which a transaction of `size` replaces one that paid `old_fee`, or None.

    Nodes ask for the old fee and their increment for every new vB, and for a higher rate (BIP 125
    rules 3 and 4). None: the rate is not that much above the old one, so it is left alone.
    """
    needed = max(old_fee + compute_fee(market.increment, size), old_fee * size // old_size + 1)
    wanted = compute_fee(rate, size)
    return wanted if wanted >= needed else None
