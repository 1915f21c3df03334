"""Three hundred seeded schedules of crashes, stale members, reorganisations, fees and lost answers.

What a schedule does is in `schedule.py`. More of them: make fuzz-anchors seed=N n=COUNT.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from itertools import count

import pytest

from vcp_cluster.cluster.anchors.bitcoin.anchorer import BitcoinAnchorer
from vcp_cluster.cluster.anchors.bitcoin.replies import broadcast
from vcp_cluster.ledger.anchors.bitcoin import parse_variant
from vcp_cluster.ledger.operations import AnchorIntent, AnyOperation

from .regtest import RegtestChain, make_chain
from .schedule import Crash, run_many, run_schedule

SCHEDULES = 300
GROUP = 20
_seen: Counter[str] = Counter()


@pytest.mark.parametrize("first", range(0, SCHEDULES, GROUP))
def test_no_double_anchor_and_no_uncovered_batch(first: int) -> None:
    counts = run_many(first, GROUP)
    _seen.update(counts)
    assert counts["anchors"] > GROUP
    assert counts["reorganisations"] > GROUP
    assert counts["crashes"] > GROUP


def test_the_schedules_met_everything() -> None:
    if sum(_seen.values()) == 0:
        pytest.skip("runs after the schedules, in one session with them")
    for what in ("AnchorBump", "AnchorReseat", "AnchorRetract", "rivals mined", "stale steps"):
        assert _seen[what] > 0, f"no schedule met {what}"


@pytest.fixture
def fresh_chain() -> Iterator[RegtestChain]:
    chain = make_chain()
    yield chain
    chain.close()


def test_the_checks_see_a_member_that_broadcasts_before_the_ledger_knows(
    fresh_chain: RegtestChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the intent first, the same schedules do not pass: so they can fail."""
    submit = BitcoinAnchorer._submit
    calls = count()

    async def broadcast_first(self: BitcoinAnchorer, operation: AnyOperation) -> bool:
        if isinstance(operation, AnchorIntent):
            await broadcast(self._node, parse_variant(operation.raw).full)
            if next(calls) % 2 == 0:
                raise Crash
        return await submit(self, operation)

    monkeypatch.setattr(BitcoinAnchorer, "_submit", broadcast_first)
    failures = 0
    for seed in range(12):
        try:
            asyncio.run(run_schedule(seed, fresh_chain))
        except (AssertionError, Crash):
            failures += 1
    assert failures > 0
