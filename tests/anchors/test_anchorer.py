"""The steps of an anchor on real consensus: each alone, and every way the world gets between them."""

from __future__ import annotations

import logging

import pytest

from vcp_cluster.cluster.anchors.bitcoin.chain import NodeBehind
from vcp_cluster.cluster.anchors.bitcoin.fees import FeePolicy
from vcp_cluster.cluster.anchors.bitcoin.rpc import NodeMisconfigured, NodeUnavailable
from vcp_cluster.cluster.anchors.bitcoin.variants import AnchorerOptions, TopUp
from vcp_cluster.cluster.errors import InvalidTransaction
from vcp_cluster.ledger.anchor_settings import BITCOIN
from vcp_cluster.ledger.anchors.bitcoin import parse_variant
from vcp_cluster.ledger.bitcoin.networks import NETWORKS
from vcp_cluster.ledger.bitcoin.reader import to_display
from vcp_cluster.ledger.bitcoin.seal import Coin, build_anchor
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, parse_transaction
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.operations import AnchorHalt
from vcp_cluster.ledger.records import AnchorStatus

from ..cluster.fake_ledger import MEMBER_SEEDS, asynchronous
from .regtest import RegtestChain
from .world import SCRIPT, SECRET, SIGNER, World


def make_world(chain: RegtestChain, *, value: int = 1_000_000, **policy: int) -> World:
    options = AnchorerOptions(policy=FeePolicy(**policy))
    return World(chain, value=value, options=options)


@asynchronous
async def test_a_batch_is_anchored_and_final_after_k_blocks(world: World) -> None:
    assert not await world.step()  # Nothing to anchor: not even a lease.
    world.seal(3)
    assert await world.step()
    assert world.lane.holder == world.members["a"].member.key
    assert await world.step()
    node = world.nodes["a"].node
    assert node.sent == []  # It is in the ledger before anything is broadcast.
    await world.settle()
    assert list(world.chain.mempool) == [world.newest().txid]
    assert world.newest().virtual_size <= 162
    assert await world.finish() == 3
    anchor = world.anchor(3)
    assert (anchor.status, anchor.previous, world.lane.pending) == (AnchorStatus.FINAL, 0, 0)
    world.check_chain()
    assert not await world.step()


@asynchronous
async def test_batches_that_come_meanwhile_are_covered_by_the_next(world: World) -> None:
    world.seal()
    await world.settle()
    for _ in range(5):
        world.seal(10)
        await world.settle()
    assert world.lane.pending == 1
    await world.finish()
    assert [int.from_bytes(one.outputs[1].script[6:10], "big") for one in world.published()] == [
        1,
        51,
    ]
    world.check_chain()


@asynchronous
async def test_an_outage_of_any_length_costs_one_anchor(world: World) -> None:
    world.seal()
    await world.finish()
    world.nodes["a"].faults.plan("close_before", times=40)
    for _ in range(40):
        world.seal(2)
        world.ledger.time_ms += 60_000
        with pytest.raises(NodeUnavailable):
            await world.step()
    await world.settle()
    world.chain.mine()
    await world.settle()
    assert world.pending().status == AnchorStatus.OBSERVED  # one block later
    assert await world.finish() == 2
    assert [len(world.published()), world.lane.final] == [2, 81]


# --- reorganisations ---------------------------------------------------------------------------------


@pytest.mark.parametrize("depth", range(1, 7))
@pytest.mark.parametrize("state", ["pending", "observed", "final"])
def test_back_to_final_after_a_reorganisation(depth: int, state: str, chain: RegtestChain) -> None:
    @asynchronous
    async def run() -> None:
        world = World(chain)
        world.seal()
        await world.settle()
        if state == "observed":
            chain.mine(transactions=[])
            chain.mine()
            await world.settle()
        elif state == "final":
            await world.finish()
            chain.mine(2)
            world.seal()  # The next one has its intent when the earlier one goes.
            await world.settle()
        chain.reorganise(depth)
        assert await world.finish() <= 2 * (world.settings.confirmations + 1)
        world.check_chain()
        assert not world.lane.halt

    run()


@asynchronous
async def test_another_variant_of_the_parent_wins_and_the_child_is_reseated(
    chain: RegtestChain,
) -> None:
    world = make_world(chain, target_blocks=1)
    world.seal()
    await world.settle()
    first = world.newest()
    chain.mine(8, transactions=[])  # The fee goes up while it waits.
    await world.settle()
    assert len(world.pending().raws) > 1
    await world.finish()
    world.seal()
    await world.settle()
    child = world.newest()
    chain.reorganise(5, transactions=[first])  # The cheaper one confirms instead.
    assert first.txid in chain.confirmed
    await world.step()
    assert (world.lane.pending, world.lane.retracted, world.lane.final) == (1, (2,), 0)
    await world.finish()
    assert world.published()[0].txid == first.txid
    assert child.txid not in {one.txid for one in world.published()}
    assert len(world.anchor(2).raws) == 2
    world.check_chain()


@asynchronous
async def test_a_node_that_came_back_behind_is_no_reorganisation(world: World) -> None:
    world.seal()
    await world.finish()
    world.chain.mine(2)
    world.seal()
    await world.settle()  # The lease has recorded how far the chain is.
    world.nodes["a"].node.lag = 4
    with pytest.raises(NodeBehind):
        await world.step()
    assert world.anchor(1).status == AnchorStatus.FINAL
    world.nodes["a"].node.lag = 0
    await world.finish()
    world.check_chain()


@asynchronous
async def test_a_member_with_a_node_behind_cannot_take_the_lease(world: World) -> None:
    world.seal()
    await world.settle("a")
    world.ledger.time_ms += 100_000
    world.nodes["b"].node.lag = 1
    with pytest.raises(NodeBehind):
        await world.step("b")
    world.nodes["b"].node.lag = 0
    assert await world.step("b")
    assert world.lane.holder == world.members["b"].member.key


# --- who acts ----------------------------------------------------------------------------------------


@asynchronous
async def test_another_member_goes_on_after_the_lease(world: World) -> None:
    world.seal()
    await world.settle("a")
    raws = world.pending().raws
    assert not await world.step("b")  # It only broadcasts, while the lease lasts.
    world.ledger.time_ms += 100_000
    await world.settle("b")
    assert world.lane.holder == world.members["b"].member.key
    assert world.pending().raws == raws
    with pytest.raises(InvalidTransaction) as error:
        world.ledger.send(MEMBER_SEEDS["a"], AnchorHalt(BITCOIN, "late", 0))
    assert error.value.code is Code.ANCHOR_LANE_CHANGED
    await world.finish("b")
    world.check_chain()


@asynchronous
async def test_a_member_without_the_key_broadcasts_what_is_in_the_ledger(world: World) -> None:
    world.anchorers["c"] = world.make_anchorer("c", world.members["c"], None)
    world.seal()
    assert not await world.step("c")
    await world.step("a", 2)
    assert world.chain.mempool == {}
    assert not await world.step("c")
    assert list(world.chain.mempool) == [world.newest().txid]
    assert world.nodes["a"].node.sent == []


@asynchronous
async def test_a_mempool_that_was_lost_is_filled_again(world: World) -> None:
    world.seal()
    await world.settle()
    world.chain.mempool.clear()
    await world.settle()
    assert list(world.chain.mempool) == [world.newest().txid]


# --- fees --------------------------------------------------------------------------------------------


@asynchronous
async def test_the_fee_rises_with_every_block_waited_up_to_the_limit(chain: RegtestChain) -> None:
    world = make_world(chain, target_blocks=1, rate_max=1_000)
    world.nodes["a"].node.estimate = 500
    world.seal()
    await world.settle()
    fees = [chain.fees[world.newest().txid]]
    for _ in range(12):
        chain.mine(transactions=[])
        world.ledger.time_ms += 10_000
        await world.settle()
        fees.append(chain.fees[world.newest().txid])
    assert fees == sorted(fees)
    assert fees[0] == 81  # 161 vB at 0.5 satoshi
    assert 140 <= fees[-1] <= 161
    assert len(world.pending().raws) >= 4
    await world.finish()
    world.check_chain()


@asynchronous
async def test_a_floor_that_rises_over_the_offer_is_met(chain: RegtestChain) -> None:
    world = make_world(chain, rate_max=5_000)
    world.seal()
    await world.settle()
    chain.floor = 2_000
    chain.mempool.clear()
    await world.settle()
    assert chain.fees[world.newest().txid] >= 322
    chain.floor = 50_000
    chain.mempool.clear()
    await world.settle()  # Above the limit: wait, and go on afterwards.
    assert chain.mempool == {}
    chain.floor = 100
    await world.finish()
    world.check_chain()


@asynchronous
async def test_above_the_limit_nothing_is_intended_and_batches_gather(chain: RegtestChain) -> None:
    world = make_world(chain, rate_max=5_000)
    chain.floor = 50_000
    for _ in range(5):
        world.seal()
        await world.settle()
    assert world.lane.pending == 0
    chain.floor = 100
    await world.finish()
    assert len(world.published()) == 1


@asynchronous
async def test_a_day_has_a_budget(chain: RegtestChain) -> None:
    world = make_world(chain, rate_min=1_000, budget_per_day=400)
    for _ in range(2):
        world.seal()
        await world.finish()
    world.seal()
    await world.settle()
    assert world.lane.pending == 0
    world.ledger.time_ms += 86_400_000
    await world.finish()
    assert len(world.published()) == 3


@asynchronous
async def test_a_seal_that_runs_out_is_topped_up(
    chain: RegtestChain, caplog: pytest.LogCaptureFixture
) -> None:
    world = make_world(chain, value=1_100, rate_min=1_000)
    world.seal()
    await world.settle()
    assert world.lane.pending == 0
    assert "top_ups" in caplog.text
    paid = chain.pay(SCRIPT, 70_000)
    world.options = AnchorerOptions(world.options.policy, (TopUp(parse_transaction(paid.full), 0),))
    world.anchorers["a"] = world.make_anchorer("a", world.members["a"])
    await world.finish()
    (anchor,) = world.published()
    assert len(anchor.inputs) == 2
    assert anchor.outputs[0].value > 70_000
    world.seal()
    await world.finish()  # The coin is spent, and not asked for again.
    assert len(world.published()[1].inputs) == 1
    world.check_chain()


# --- what halts --------------------------------------------------------------------------------------


@asynchronous
async def test_a_seal_spent_by_a_stranger_halts_the_lane(world: World) -> None:
    world.seal()
    await world.settle()
    coin = Coin(OutPoint(world.funding.txid, 0), 1_000_000)
    stolen = build_anchor([coin], SCRIPT, b"VCP1" + bytes(36), 20_000)
    stolen = SIGNER.sign(stolen, [coin], SCRIPT)
    world.chain.mine(transactions=[stolen])
    await world.settle()
    assert to_display(stolen.txid) in world.lane.halt
    assert not await world.step()
    world.ledger.send(MEMBER_SEEDS["b"], AnchorHalt(BITCOIN, "", world.lane.revision))
    await world.settle()
    assert "in other hands" in world.lane.halt  # Looking away does not help.


@asynchronous
async def test_a_seal_stolen_before_the_intent_halts_the_lane(world: World) -> None:
    coin = Coin(OutPoint(world.funding.txid, 0), 1_000_000)
    stolen = SIGNER.sign(build_anchor([coin], SCRIPT, b"VCP1" + bytes(36), 500), [coin], SCRIPT)
    world.chain.mine(transactions=[stolen])
    world.seal()
    await world.settle()
    assert "in other hands" in world.lane.halt


@asynchronous
async def test_what_a_node_will_never_take_halts_the_lane(world: World) -> None:
    world.seal()
    await world.step(times=2)
    world.chain.datacarrier_max = 10
    await world.settle()
    assert "never take" in world.lane.halt


@asynchronous
async def test_small_relay_limits_are_enough(world: World) -> None:
    """Knots' default -datacarriersize=42 counts the script: 40 bytes and two of opcodes."""
    world.chain.datacarrier_max = 42
    world.seal()
    await world.finish()
    world.check_chain()


@asynchronous
async def test_a_node_of_another_chain_stops_this_member_and_no_other(world: World) -> None:
    world.nodes["a"].node.genesis_hash = to_display(NETWORKS["mainnet"].genesis_hash)
    world.seal()
    with pytest.raises(NodeMisconfigured):
        await world.step("a")
    await world.finish("b")
    world.check_chain()


@asynchronous
async def test_nothing_says_the_key(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for number in range(3):
        world.seal()
        world.nodes["a"].faults.plan(("garbage", "close_after", "http503")[number])
        for _ in range(3):
            try:
                await world.finish()
            except NodeUnavailable:
                continue
    assert world.lane.final == 3
    ledger = b"".join(key + value for key, value in world.ledger.store.iterate(b""))
    sent = b"".join(world.nodes["a"].node.sent)
    for secret in (SECRET, SECRET.hex().encode()):
        assert secret not in ledger + sent
    assert SECRET.hex() not in caplog.text + repr(vars(world.anchorers["a"]))
    assert parse_variant(world.anchor(3).raws[0]).witnesses[0][1] == SIGNER.public_key
