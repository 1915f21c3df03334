"""The steps of an anchor on real consensus: one at a time, in order, whatever happens."""

from __future__ import annotations

from vcp_cluster.ledger.records import AnchorStatus

from ..cluster.fake_ledger import asynchronous
from .world import World


@asynchronous
async def test_a_batch_is_anchored_and_final_after_k_blocks(world: World) -> None:
    world.seal(3)
    assert await world.step()  # lease
    assert await world.step()  # intent
    assert world.nodes["a"].node.sent == []  # nothing is broadcast before it is in the log
    await world.settle()
    assert list(world.chain.mempool) == [world.newest().txid]
    assert await world.finish() == 3
    assert world.anchor(3).status == AnchorStatus.FINAL
    world.check_chain()
    assert world.newest is not None
