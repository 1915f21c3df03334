"""What an anchor pays: the estimate or the floor, within limits, more with every block waited."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from vcp_cluster.cluster.anchors.bitcoin.fees import (
    FeeMarket,
    FeePolicy,
    choose_rate,
    compute_fee,
    compute_replacement,
    read_market,
    to_rate,
)
from vcp_cluster.cluster.anchors.bitcoin.rpc import NodeUnavailable

from ..cluster.fake_ledger import asynchronous

POLICY = FeePolicy(target_blocks=2, rate_min=200, rate_max=50_000)


@pytest.mark.parametrize(
    ("value", "rate"),
    [(Decimal("0.00001"), 1_000), (Decimal("0.0000010001"), 101), (0, 0), (Decimal("1E-8"), 1)],
)
def test_rates_are_rounded_up_to_whole_satoshi(value: Any, rate: int) -> None:
    assert to_rate(value) == rate


@pytest.mark.parametrize("value", [None, "x", [], {}, -1, 100, Decimal("NaN"), Decimal("Infinity")])
def test_rates_that_are_none_are_no_answer(value: Any) -> None:
    with pytest.raises(NodeUnavailable):
        to_rate(value)


@pytest.mark.parametrize(
    ("estimate", "floor", "waited", "rate"),
    [
        (None, 100, 0, 200),  # the policy's own least
        (None, 1_000, 0, 1_000),
        (5_000, 1_000, 0, 5_000),
        (5_000, 1_000, 2, 5_000),  # within the target
        (5_000, 1_000, 3, 6_250),
        (5_000, 1_000, 6, 10_000),
        (5_000, 1_000, 1_000, 50_000),  # never above the limit
        (90_000, 1_000, 0, 50_000),
        (500, 1_000, 0, 1_000),  # an estimate below the floor
        (5_000, 60_000, 0, None),  # wait
    ],
)
def test_the_rate(estimate: int | None, floor: int, waited: int, rate: int | None) -> None:
    assert choose_rate(FeeMarket(estimate, floor, 100), POLICY, waited) == rate


def test_fees_are_rounded_up() -> None:
    assert [compute_fee(rate, 162) for rate in (100, 1_000, 10_000)] == [17, 162, 1_620]


@pytest.mark.parametrize(
    ("rate", "fee"), [(100, None), (200, None), (203, None), (204, 34), (300, 49)]
)
def test_a_replacement_pays_the_old_fee_and_the_increment(rate: int, fee: int | None) -> None:
    """Measured on Core 31: for 162 vB at 17 satoshi, 16 more were refused and 17 more taken."""
    assert compute_replacement(FeeMarket(None, 100, 100), rate, 17, 162, 162) == fee


def test_a_larger_replacement_needs_a_higher_rate_too() -> None:
    market = FeeMarket(None, 100, 0)
    assert compute_replacement(market, 1_000, 161, 161, 229) is None
    assert compute_replacement(market, 1_005, 161, 161, 229) == 231


class Answers:
    """A node that gives two documents."""

    def __init__(self, pool: Any, estimate: Any) -> None:
        self.answers = {"getmempoolinfo": pool, "estimatesmartfee": estimate}

    async def call(self, method: str, *params: Any) -> Any:
        return self.answers[method]


POOL = {"mempoolminfee": Decimal("0.00001"), "minrelaytxfee": Decimal("0.000001")}


@asynchronous
async def test_an_estimate_that_a_node_does_not_have_is_none() -> None:
    node = Answers(POOL, {"errors": ["Insufficient data or no feerate found"], "blocks": 2})
    assert await read_market(node, POLICY) == FeeMarket(None, 1_000, 100)
    node = Answers(
        {**POOL, "incrementalrelayfee": Decimal("0.00000500")}, {"feerate": Decimal("0.0002")}
    )
    assert await read_market(node, POLICY) == FeeMarket(20_000, 1_000, 500)
    for pool, estimate in (([], {}), (POOL, None), ({}, {}), (POOL, {"feerate": "much"})):
        with pytest.raises(NodeUnavailable):
            await read_market(Answers(pool, estimate), POLICY)
