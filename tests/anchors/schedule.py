"""A seeded schedule of everything that can go wrong, against real consensus.

    python -m tests.anchors.schedule SEED COUNT        (make fuzz-anchors seed=SEED n=COUNT)

Two members hold the key and one has only a node. Each tick the chain, the market and the nodes
change, and members take steps: from an old view of the ledger, with answers lost before or after
they were acted on, ended in the middle of a step. Then everything heals, and the chain of seals must
hold each anchor once and cover every batch.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence

from vcp_cluster.cluster.anchors.bitcoin.fees import FeePolicy
from vcp_cluster.cluster.anchors.bitcoin.rpc import NodeError
from vcp_cluster.cluster.anchors.bitcoin.variants import AnchorerOptions
from vcp_cluster.cluster.errors import InvalidTransaction
from vcp_cluster.ledger.anchors.bitcoin import parse_variant
from vcp_cluster.ledger.bitcoin.transaction import Transaction
from vcp_cluster.ledger.operations import AnyOperation
from vcp_cluster.ledger.state import MemoryStore
from vcp_cluster.ledger.transactions import TransactionReceipt

from ..cluster.fake_ledger import FakeLedger
from .node import Faults
from .regtest import RegtestChain, make_chain
from .world import World

TICKS = 60
TICK_MS = 15_000
REORG_MAX = 6
FLOORS = (100, 100, 100, 1_000, 20_000, 400_000)
ACTORS = {"a": True, "b": True, "c": False}  # member: whether it has the key


class Crash(BaseException):
    """The end of a process in the middle of something; nothing catches it."""


class MortalLedger(FakeLedger):
    """A ledger whose reader may have an old view, and may end before or after it wrote."""

    def __init__(self, world: World, name: str, on_call: Callable[[], None]) -> None:
        super().__init__(world.ledger, name)
        self.on_call = on_call
        self.view: MemoryStore | None = None

    async def get(self, *keys: bytes) -> list[bytes | None]:
        store = self.view or self.chain.store
        return [store.get(key) for key in keys]

    async def submit(self, operations: Sequence[AnyOperation]) -> TransactionReceipt:
        self.on_call()
        receipt = await super().submit(operations)
        self.on_call()
        return receipt


class Schedule:
    """One world, driven by one random number generator."""

    def __init__(self, seed: int, chain: RegtestChain) -> None:
        self.random = random.Random(seed)
        self.counts: Counter[str] = Counter()
        policy = FeePolicy(
            target_blocks=self.random.choice((1, 2, 4)), rate_max=60_000, budget_per_day=10**9
        )
        self.world = World(chain, value=50_000_000, options=AnchorerOptions(policy=policy))
        self.ledgers: dict[str, MortalLedger] = {}
        self._fuse = -1
        self._old: list[MemoryStore] = []
        for name, has_key in ACTORS.items():
            ledger = self.ledgers[name] = MortalLedger(self.world, name, self._burn)
            self.world.nodes[name].on_call = self._burn
            anchorer = self.world.make_anchorer(name, ledger)
            if not has_key:
                anchorer = self.world.make_anchorer(name, ledger, None)
            self.world.anchorers[name] = anchorer
        chain.floor = 100
        chain.mine(REORG_MAX)  # The funding is deeper than any reorganisation here.

    def _burn(self) -> None:
        """Count down to the crash that was drawn for this step, if one was."""
        if self._fuse == 0:
            self._fuse = -1
            raise Crash
        self._fuse -= self._fuse > 0

    async def run(self, ticks: int = TICKS) -> Counter[str]:
        """All ticks, then healing and the checks."""
        for _ in range(ticks):
            self.world.ledger.time_ms += TICK_MS
            self._disturb()
            for name in self.random.sample(sorted(ACTORS), len(ACTORS)):
                await self._act(name)
        await self._heal()
        self.counts["anchors"] = len(self.world.published())
        return self.counts

    def _chance(self, probability: float, what: str) -> bool:
        happens = self.random.random() < probability
        self.counts[what] += happens
        return happens

    # --- what the world does -------------------------------------------------------------------

    def _disturb(self) -> None:
        world, chain = self.world, self.world.chain
        if self._chance(0.4, "seals"):
            world.seal(self.random.randint(1, 3))
        if self._chance(0.1, "views"):
            self._remember()
        if self._chance(0.15, "markets"):
            chain.floor = self.random.choice(FLOORS)
            for node in world.nodes.values():
                node.node.estimate = self.random.choice((None, 500, 5_000, 100_000))
        for node in world.nodes.values():
            node.node.lag = self.random.randint(1, 4) if self._chance(0.05, "lags") else 0
            if self._chance(0.15, "faults"):
                node.faults.plan(self.random.choice(Faults.KINDS))
        if self._chance(0.08, "reorganisations"):
            self._reorganise()
        elif self._chance(0.25, "empty blocks"):
            chain.mine(transactions=[])
        elif self._chance(0.55, "blocks"):
            chain.mine()
        if self._chance(0.03, "lost mempools"):
            chain.mempool.clear()
            chain.fees.clear()

    def _remember(self) -> None:
        copy = MemoryStore()
        copy.commit(list(self.world.ledger.store.iterate(b"")))
        self._old = [*self._old[-2:], copy]

    def _reorganise(self) -> None:
        """A longer branch: empty, or with a variant that the old branch did not take."""
        chain = self.world.chain
        depth = self.random.randint(1, REORG_MAX)
        chosen = self._find_other_variant(depth) if self._chance(0.5, "rivals") else None
        chain.reorganise(depth, transactions=None if chosen is None else [chosen])

    def _find_other_variant(self, depth: int) -> Transaction | None:
        """A variant that conflicts with one in the last `depth` blocks, or is still waiting."""
        world = self.world
        lowest = world.chain.height - depth
        sizes = {world.lane.pending, *world.lane.retracted, world.lane.final} - {0}
        for size in self.random.sample(sorted(sizes), len(sizes)):
            anchor = world.anchor(size)
            for raw in self.random.sample(anchor.raws, len(anchor.raws)):
                variant = parse_variant(raw)
                coin = world.chain.coins.get(variant.inputs[0].outpoint)
                is_parent_deep = coin is not None and coin.height <= lowest
                if is_parent_deep or self._is_spent_above(variant, lowest):
                    self.counts["rivals mined"] += variant.txid not in world.chain.confirmed
                    return variant
        return None

    def _is_spent_above(self, variant: Transaction, lowest: int) -> bool:
        """Whether its coin is older than the branch, and only blocks to be undone spend it."""
        outpoint = variant.inputs[0].outpoint
        chain = self.world.chain
        parent = chain.confirmed.get(outpoint.txid)
        if parent is None or chain.blocks[parent].height > lowest:
            return False
        return all(
            one.outpoint != outpoint
            for block_hash in chain.active[chain.blocks[parent].height : lowest + 1]
            for transaction in chain.blocks[block_hash].transactions[1:]
            for one in transaction.inputs
        )

    # --- what members do -----------------------------------------------------------------------

    async def _act(self, name: str) -> None:
        if self._chance(0.15, "absences"):
            return
        ledger = self.ledgers[name]
        is_stale = bool(self._old) and self._chance(0.1, "stale steps")
        ledger.view = self.random.choice(self._old) if is_stale else None
        for _ in range(self.random.randint(1, 4)):
            self._fuse = self.random.randint(0, 12) if self._chance(0.12, "crash fuses") else -1
            try:
                if not await self.world.anchorers[name].step():
                    break
            except Crash:
                self.counts["crashes"] += 1
                # What lived in the process is gone with it.
                signer = {} if ACTORS[name] else {"signer": None}
                self.world.anchorers[name] = self.world.make_anchorer(name, ledger, **signer)
                break
            except NodeError:
                self.counts["node errors"] += 1
                break
            except InvalidTransaction as error:
                self.counts[f"refused: {error.code.name.lower()}"] += 1
                break
        self._fuse = -1

    # --- how it ends ---------------------------------------------------------------------------

    async def _heal(self) -> None:
        world = self.world
        world.chain.floor = 100
        for node in world.nodes.values():
            node.node.lag, node.node.estimate = 0, None
            node.faults.planned.clear()
        for ledger in self.ledgers.values():
            ledger.view = None
        assert not world.lane.halt, world.lane.halt
        world.ledger.time_ms += 120_000  # Leases end.
        self.counts["batches"] = world.headers
        while world.lane.final < world.headers:
            anchors = 2 + len(world.lane.retracted)
            before = world.lane.final
            for _ in range(anchors * 8):
                await world.settle("a", limit=60)
                world.chain.mine()
                world.ledger.time_ms += 1_000
            assert world.lane.final > before or world.lane.final == world.headers, (
                f"{world.headers - world.lane.final} batches stay uncovered"
            )
        world.check_chain()
        for anchor in (world.anchor(world.lane.final),) if world.lane.final else ():
            self.counts["variants"] += len(anchor.raws)
        for ledger in self.ledgers.values():
            for (operation,) in ledger.submitted:
                self.counts[type(operation).__name__] += 1


async def run_schedule(seed: int, chain: RegtestChain, ticks: int = TICKS) -> Counter[str]:
    """One schedule; raises AssertionError where an invariant does not hold."""
    return await Schedule(seed, chain).run(ticks)


def run_many(first: int, count: int) -> Counter[str]:
    """Schedules on chains of twenty each; a failure names its seed."""
    total: Counter[str] = Counter()
    for start in range(first, first + count, 20):
        chain = make_chain()
        try:
            for seed in range(start, min(start + 20, first + count)):
                try:
                    total += asyncio.run(run_schedule(seed, chain))
                except BaseException as error:
                    error.add_note(f"make fuzz-anchors seed={seed} n=1")
                    raise
        finally:
            chain.close()
    return total


if __name__ == "__main__":
    began = time.monotonic()
    counts = run_many(int(sys.argv[1]), int(sys.argv[2]))
    for what, number in sorted(counts.items()):
        sys.stdout.write(f"{number:>8}  {what}\n")
    sys.stdout.write(f"{time.monotonic() - began:8.1f}  seconds; no double anchor, none missing\n")
