"""A ledger whose batches are anchored on a regtest chain, and members that do it."""

from __future__ import annotations

import msgspec

from vcp_cluster.cluster.anchors.bitcoin.anchorer import BitcoinAnchorer
from vcp_cluster.cluster.anchors.bitcoin.signer import KeySigner, compute_seal_script
from vcp_cluster.cluster.anchors.bitcoin.variants import AnchorerOptions
from vcp_cluster.ledger import schema, settlement
from vcp_cluster.ledger.anchor_settings import BITCOIN, AnchorSettings, BitcoinSettings
from vcp_cluster.ledger.anchors.bitcoin import parse_variant
from vcp_cluster.ledger.bitcoin.networks import NETWORKS
from vcp_cluster.ledger.bitcoin.reader import to_display
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction
from vcp_cluster.ledger.merkle import RFC9162, Frontier
from vcp_cluster.ledger.records import Anchor, AnchorLane, AnchorStatus
from vcp_cluster.ledger.schema import u32
from vcp_cluster.ledger.state import Overlay, State

from ..cluster.fake_ledger import MEMBER_SEEDS, FakeChain, FakeLedger, make_genesis
from .node import CoreNode, DirectNode, spenders_of
from .regtest import RegtestChain

SECRET = b"\x11" * 32
SIGNER = KeySigner(SECRET)
SCRIPT = compute_seal_script(SIGNER.public_key)
SEAL_VALUE = 1_000_000
FEE_MAX = 50_000


def make_settings(
    funding: Transaction, *, confirmations: int = 3, output: int = 0, fee_max: int = FEE_MAX
) -> BitcoinSettings:
    """Regtest settings whose first seal is an output of `funding`."""
    network = NETWORKS["regtest"]
    return BitcoinSettings(
        network=network.genesis_hash,
        seal_key=SIGNER.public_key,
        funding=funding.stripped,
        funding_output=output,
        confirmations=confirmations,
        fee_max=fee_max,
        header_bits=network.header_bits,
    )


class World:
    """One chain, one ledger; a node and an anchorer for each member."""

    def __init__(
        self,
        chain: RegtestChain,
        *,
        confirmations: int = 3,
        options: AnchorerOptions | None = None,
        value: int = SEAL_VALUE,
    ) -> None:
        self.chain = chain
        self.funding = chain.pay(SCRIPT, value)
        self.settings = make_settings(
            self.funding, confirmations=confirmations, fee_max=min(FEE_MAX, value)
        )
        self.ledger = FakeChain(make_genesis(anchors=AnchorSettings((BITCOIN,), (self.settings,))))
        self.options = options or AnchorerOptions()
        self.nodes: dict[str, DirectNode] = {}
        self.members: dict[str, FakeLedger] = {}
        self.anchorers: dict[str, BitcoinAnchorer] = {}
        for name in MEMBER_SEEDS:
            self.nodes[name] = DirectNode(CoreNode(chain))
            self.members[name] = self.ledger.member(name)
            self.anchorers[name] = self.make_anchorer(name, self.members[name])

    def make_anchorer(
        self, name: str, ledger: FakeLedger, signer: KeySigner | None = SIGNER
    ) -> BitcoinAnchorer:
        """A member's anchorer on its own node."""
        return BitcoinAnchorer(
            ledger, self.nodes[name], signer, self.options, now_ms=lambda: self.ledger.time_ms
        )

    def seal(self, count: int = 1) -> None:
        """Close batches, as `SealBatch` does, without the tasks that would be in them."""
        for _ in range(count):
            overlay = Overlay(self.ledger.store)
            state = State(overlay)
            state.put_settlement(msgspec.structs.replace(state.get_settlement(), count=1))
            head = state.get_head()
            settlement.seal(state, head=head, root=head.state_root)
            self.ledger.store.commit(list(overlay.changes.items()))

    @property
    def lane(self) -> AnchorLane:
        return self.ledger.lane(BITCOIN)

    @property
    def headers(self) -> int:
        return self.ledger.settlement().headers

    def anchor(self, size: int) -> Anchor:
        return self.ledger.anchor(size, BITCOIN)

    def pending(self) -> Anchor:
        return self.anchor(self.lane.pending)

    def newest(self) -> Transaction:
        """The newest variant of the pending anchor."""
        return parse_variant(self.pending().raws[-1])

    def payload_at(self, size: int) -> bytes:
        """What an anchor of the first `size` batches must publish."""
        frontier = Frontier.empty()
        for number in range(1, size + 1):
            header = self.ledger.store.get(schema.HEADER + schema.u64(number))
            assert header is not None
            frontier = frontier.append(RFC9162, settlement.header_leaf_hash(header))
        return b"VCP1" + u32(size) + frontier.root(RFC9162)

    def published(self) -> list[Transaction]:
        """The chain of seals, as the blocks show it."""
        return spenders_of(self.chain, OutPoint(self.funding.txid, 0))

    def check_chain(self) -> None:
        """The blocks hold each anchor once, in order, right, and what the ledger says they hold."""
        published = self.published()
        payloads = [one.outputs[1].script[2:] for one in published]
        sizes = [int.from_bytes(payload[4:8], "big") for payload in payloads]
        assert sizes == sorted(set(sizes)), f"an anchor is published twice: {sizes}"
        for size, payload in zip(sizes, payloads, strict=True):
            assert payload == self.payload_at(size), f"the anchor at {size} says something else"
        finals = []
        size = self.lane.final
        while size:
            anchor = self.anchor(size)
            assert anchor.status == AnchorStatus.FINAL
            finals.insert(0, to_display(parse_variant(anchor.raws[anchor.variant]).txid))
            size = anchor.previous
        assert finals == [to_display(one.txid) for one in published][: len(finals)]

    async def step(self, name: str = "a", times: int = 1) -> bool:
        """Steps of one member; whether the last one moved the ledger."""
        moved = False
        for _ in range(times):
            moved = await self.anchorers[name].step()
        return moved

    async def settle(self, name: str = "a", limit: int = 20) -> None:
        """Steps until there is nothing to do before the next block."""
        for _ in range(limit):
            if not await self.step(name):
                return
        raise AssertionError("the anchorer does not come to rest")

    async def finish(self, name: str = "a", blocks: int = 20) -> int:
        """Blocks and steps until every batch is covered; how many blocks it took."""
        for mined in range(blocks):
            await self.settle(name)
            if self.lane.final == self.headers:
                return mined
            self.chain.mine()
            self.ledger.time_ms += 1_000
        raise AssertionError(f"{self.headers - self.lane.final} batches are not covered")
