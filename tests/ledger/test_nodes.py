"""Health, reputation and audit rate: the formulas, at their corners and in the ledger."""

from __future__ import annotations

import msgspec
import pytest
from ledger_harness import forms
from ledger_harness.cast import key, make_genesis
from ledger_harness.ledger import Ledger

from vcp_cluster.ledger import nodes, selection
from vcp_cluster.ledger.audits import compute_audit_rate_bp
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import INTEGER_MAX
from vcp_cluster.ledger.operations import RegisterNode, Stake, Transfer, Unstake
from vcp_cluster.ledger.records import Node

_replace = msgspec.structs.replace


def registered(ledger: Ledger, name: str = "pc") -> Node:
    """The record of a node."""
    node = ledger.state.get_node(key(name))
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("kbps", "score"), [(0, 0), (99, 0), (100, 1), (999_999, 9_999), (10**6, 10_000)]
)
def test_bandwidth_score(kbps: int, score: int) -> None:
    """A gigabit is full marks, and more is not better."""
    assert nodes.compute_bandwidth_score(kbps) == score
    assert nodes.compute_bandwidth_score(INTEGER_MAX) == 10_000


@pytest.mark.parametrize(
    ("microseconds", "score"),
    [(0, 9_900), (1_000, 9_900), (1_010, 9_899), (50_000, 5_000), (99_999, 1), (100_000, 0)],
)
def test_latency_score(microseconds: int, score: int) -> None:
    """Less than a millisecond counts as one; 100 ms and more are worth nothing."""
    assert nodes.compute_latency_score(microseconds) == score
    assert nodes.compute_latency_score(INTEGER_MAX) == 0


def test_health_is_the_weighted_sum() -> None:
    """40 % bandwidth, 30 % latency, 20 % efficiency, 10 % reputation."""
    ledger = Ledger()
    assert ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
    node = _replace(
        registered(ledger),
        bandwidth_kbps=250_000,
        latency_us=40_000,
        efficiency_mflops_w=3_000,
        reputation=7_000,
    )
    assert nodes.compute_health(node) == 1_000 + 1_800 + 600 + 700
    best = _replace(
        node,
        bandwidth_kbps=INTEGER_MAX,
        latency_us=0,
        efficiency_mflops_w=INTEGER_MAX,
        reputation=10_000,
    )
    assert nodes.compute_health(best) == 9_970


def test_what_a_node_declares_never_raises_its_score() -> None:
    """The lower bandwidth and the higher latency of the two count, whoever says so."""
    ledger = Ledger()
    assert ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
    boast = forms.report(ledger, "pc", bandwidth_kbps=INTEGER_MAX, latency_us=0)
    assert ledger.submit("ada", boast) is Code.OK
    measured = registered(ledger)
    assert (measured.bandwidth_kbps, measured.latency_us) == (500_000, 10_000)
    modest = forms.report(ledger, "pc", bandwidth_kbps=7, latency_us=90_000)
    assert ledger.submit("ada", modest) is Code.OK
    declared = registered(ledger)
    assert (declared.bandwidth_kbps, declared.latency_us) == (7, 90_000)
    weight = selection.get_weight(ledger.state.overlay, declared.slot)
    assert weight == declared.health < measured.health


def test_a_node_needs_the_smallest_stake() -> None:
    """Below `stake_min` it is registered and measured, but never drawn."""
    ledger = Ledger(stake_min=1)
    assert ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
    assert ledger.submit("ada", forms.report(ledger, "pc")) is Code.OK
    assert selection.total_weight(ledger.state.overlay) == 0
    assert ledger.submit("alice", Transfer(key("pc"), 1)) is Code.OK
    assert ledger.submit("pc", Stake(1)) is Code.OK
    assert selection.total_weight(ledger.state.overlay) == registered(ledger).health
    assert ledger.submit("pc", Unstake(1)) is Code.OK
    assert selection.total_weight(ledger.state.overlay) == 0


@pytest.mark.parametrize(
    ("decided", "reputation", "rate"),
    [(0, 10_000, 10_000), (9, 10_000, 10_000), (10, 10_000, 500), (10, 5_000, 3_000)],
)
def test_audit_rate(decided: int, reputation: int, rate: int) -> None:
    """All of the first ten, then 5 % and more as reputation falls; 55 % at the worst."""
    ledger = Ledger()
    assert ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
    node = _replace(registered(ledger), accepted=decided, reputation=reputation)
    assert compute_audit_rate_bp(make_genesis(), node) == rate
    split = _replace(node, accepted=decided // 2, rejected=decided - decided // 2)
    assert compute_audit_rate_bp(make_genesis(), split) == rate
    worst = _replace(node, accepted=10, reputation=0)
    assert compute_audit_rate_bp(make_genesis(), worst) == 5_500
    assert compute_audit_rate_bp(make_genesis(audit_rate_min_bp=9_000), worst) == 10_000
