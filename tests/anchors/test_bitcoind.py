"""The same protocol on a real `bitcoind`: set VCP_BITCOIND to its path (Core 24 or newer).

Blocks are mined straight to the seal's script, so that no wallet is needed; reorganisations are made
with `invalidateblock`.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vcp_cluster.cluster.anchors.bitcoin.anchorer import BitcoinAnchorer
from vcp_cluster.cluster.anchors.bitcoin.audit import audit_chain
from vcp_cluster.cluster.anchors.bitcoin.config import read_cookie
from vcp_cluster.cluster.anchors.bitcoin.fees import FeePolicy
from vcp_cluster.cluster.anchors.bitcoin.replies import Outcome, broadcast
from vcp_cluster.cluster.anchors.bitcoin.rpc import NodeError, NodeUnavailable, RpcClient
from vcp_cluster.cluster.anchors.bitcoin.variants import AnchorerOptions
from vcp_cluster.cluster.local import find_ports
from vcp_cluster.ledger.anchor_settings import BITCOIN, AnchorSettings
from vcp_cluster.ledger.anchors.bitcoin import parse_variant
from vcp_cluster.ledger.bitcoin.transaction import Transaction, parse_transaction
from vcp_cluster.ledger.records import AnchorStatus

from ..cluster.fake_ledger import FakeChain, make_genesis
from .world import SCRIPT, SIGNER, World, make_settings

BITCOIND = os.environ.get("VCP_BITCOIND")
pytestmark = pytest.mark.skipif(
    BITCOIND is None, reason="set VCP_BITCOIND to a bitcoind to run these on it"
)
START_TIMEOUT_S = 60.0
DESCRIPTOR = f"raw({SCRIPT.hex()})"


class RealNode:
    """A bitcoind on regtest in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        assert BITCOIND is not None, "skipped otherwise"
        port = find_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        self.cookie = directory / "regtest" / ".cookie"
        self._process = subprocess.Popen(
            [
                BITCOIND,
                "-regtest",
                f"-datadir={directory}",
                f"-rpcport={port}",
                "-listen=0",
                "-connect=0",
                "-dnsseed=0",
                "-disablewallet",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._descriptor = ""

    def client(self) -> RpcClient:
        """A client with the node's own cookie."""
        return RpcClient(self.url, lambda: read_cookie(self.cookie))

    async def start(self, client: RpcClient) -> None:
        """Wait until it answers; through refused connections and warming up."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                info = await client.call("getdescriptorinfo", DESCRIPTOR)
                break
            except NodeError:
                assert self._process.poll() is None, "bitcoind has ended"
                assert time.monotonic() < deadline, "bitcoind does not answer"
                await asyncio.sleep(0.1)
        self._descriptor = info["descriptor"]

    async def mine(self, client: RpcClient, *transactions: bytes, count: int = 1) -> None:
        """Blocks: the first with these transactions, or all with the mempool when there are none."""
        if transactions:
            raws = [one.hex() for one in transactions]
            await client.call("generateblock", self._descriptor, raws)
        else:
            await client.call("generatetodescriptor", count, self._descriptor)

    async def mine_empty(self, client: RpcClient, count: int) -> None:
        """Blocks without transactions."""
        for _ in range(count):
            await client.call("generateblock", self._descriptor, [])

    async def reorganise(self, client: RpcClient, depth: int, *transactions: bytes) -> None:
        """Replace the last `depth` blocks by one more, the first with these transactions."""
        height = await client.call("getblockcount")
        gone = await client.call("getblockhash", height - depth + 1)
        await client.call("invalidateblock", gone)
        raws = [one.hex() for one in transactions]
        await client.call("generateblock", self._descriptor, raws)
        await self.mine_empty(client, depth)

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(60)


class RealWorld(World):
    """A ledger on a real node: what `World` does to its own chain is asked of the node here."""

    def __init__(self, node: RealNode, client: RpcClient, funding: Transaction) -> None:
        self.node = node
        self.client = client
        self.funding = funding
        self.settings = make_settings(funding)
        self.ledger = FakeChain(make_genesis(anchors=AnchorSettings((BITCOIN,), (self.settings,))))
        options = AnchorerOptions(policy=FeePolicy(target_blocks=1, budget_per_day=10**9))
        self.members = {"a": self.ledger.member("a")}
        self.anchorers = {
            "a": BitcoinAnchorer(
                self.members["a"], client, SIGNER, options, now_ms=lambda: self.ledger.time_ms
            )
        }

    async def finish_here(self, blocks: int = 20) -> None:
        """Blocks and steps until every batch is covered."""
        for _ in range(blocks):
            await self.settle()
            if self.lane.final == self.headers:
                return
            await self.node.mine(self.client)
            self.ledger.time_ms += 1_000
        raise AssertionError("batches are not covered")

    async def check_here(self) -> None:
        """The blocks hold each anchor once, in order, and what the ledger says."""
        found = await audit_chain(self.client, self.settings, 1, lambda height, tip: None)
        assert found.problems == []
        assert found.anchors[-1].size == self.headers
        for one in found.anchors:
            assert one.size is not None and one.root is not None
            assert self.payload_at(one.size)[8:] == one.root


@pytest.fixture
def node(tmp_path: Path) -> Iterator[RealNode]:
    node = RealNode(tmp_path)
    yield node
    node.stop()


async def open_world(node: RealNode) -> RealWorld:
    """A world whose first seal is the coinbase of block 1, mature."""
    client = node.client()
    await node.start(client)
    await node.mine(client, count=101)
    block: Any = await client.call("getblock", await client.call("getblockhash", 1), 2)
    funding = parse_transaction(bytes.fromhex(block["tx"][0]["hex"]))
    return RealWorld(node, client, funding)


def test_anchors_bumps_and_reorganisations_of_every_depth(node: RealNode) -> None:
    async def run() -> None:
        world = await open_world(node)
        for depth in range(1, 7):
            world.seal()
            await world.settle()
            await node.mine_empty(world.client, 6)  # The price goes up.
            await world.settle()
            variants = [parse_variant(raw).full for raw in world.pending().raws]
            assert len(variants) > 1
            await world.finish_here()
            await node.mine(world.client, count=1)
            world.seal()
            await world.settle()  # A child is in the mempool when its parent goes.
            await node.reorganise(world.client, depth, *(variants[:1] if depth > 4 else []))
            await world.finish_here()
            assert not world.lane.halt
        await world.check_here()
        await world.client.close()

    asyncio.run(run())


def test_answers_to_a_broadcast(node: RealNode) -> None:
    async def run() -> None:
        world = await open_world(node)
        world.seal()
        await world.settle()
        first = parse_variant(world.pending().raws[0]).full
        assert await broadcast(world.client, first) is Outcome.ACCEPTED
        await node.mine(world.client)
        assert await broadcast(world.client, first) is Outcome.CONFIRMED
        await world.finish_here()
        world.seal()
        await world.finish_here()
        assert await broadcast(world.client, first) is Outcome.MISSING  # Confirmed, and spent on.
        assert world.anchor(1).status == AnchorStatus.FINAL
        spoilt = bytearray(parse_variant(world.anchor(2).raws[0]).full)
        spoilt[-60] ^= 1
        assert await broadcast(world.client, bytes(spoilt[:20])) is Outcome.INVALID
        node.stop()
        with pytest.raises(NodeUnavailable):
            await broadcast(world.client, first)
        await world.client.close()

    asyncio.run(run())
