"""The anchor operations in `apply`: every way to be refused, in order, and what a lane goes through.

Blocks here are mined at regtest's difficulty by the test itself: two hashes each.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from ledger_harness.seals import BOTH, FUNDING, SCRIPT, SETTINGS, SIGNER, WORK, mine, paying

from vcp_cluster.cluster.anchors.bitcoin.signer import KeySigner, compute_seal_script
from vcp_cluster.cluster.errors import InvalidTransaction
from vcp_cluster.ledger import schema, settlement
from vcp_cluster.ledger.anchor_settings import (
    AnchorSettings,
    check_anchor_settings,
)
from vcp_cluster.ledger.anchors import compute_payload
from vcp_cluster.ledger.anchors.bitcoin import BlockEvidence, SignedAnchor, parse_variant
from vcp_cluster.ledger.bitcoin.networks import NETWORKS
from vcp_cluster.ledger.bitcoin.seal import Coin, build_anchor
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction, TxInput, TxOutput
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.operations import (
    AnchorBump,
    AnchorFinal,
    AnchorHalt,
    AnchorIntent,
    AnchorLease,
    AnchorObserved,
    AnchorReseat,
    AnchorRetract,
    AnyOperation,
)
from vcp_cluster.ledger.operations.anchors import LEASE_MS, VARIANTS_MAX
from vcp_cluster.ledger.records import Anchor, AnchorLane, AnchorStatus
from vcp_cluster.ledger.state import Overlay, State

from ..cluster.fake_ledger import CLIENT_SEED, MEMBER_SEEDS, FakeChain, make_genesis

A, B = MEMBER_SEEDS["a"], MEMBER_SEEDS["b"]
OTHER = KeySigner(b"\x22" * 32)


class Lane:
    """A ledger with a Bitcoin lane, driven by hand."""

    def __init__(self) -> None:
        self.chain = FakeChain(make_genesis(anchors=BOTH))

    def seal(self) -> None:
        overlay = Overlay(self.chain.store)
        state = State(overlay)
        state.put_settlement(msgspec.structs.replace(state.get_settlement(), count=1))
        head = state.get_head()
        settlement.seal(state, head=head, root=head.state_root)
        self.chain.store.commit(list(overlay.changes.items()))

    def send(self, operation: AnyOperation, seed: bytes = A) -> Code:
        """The code of an operation."""
        before = dict(self.chain.store.iterate(b"R")) | dict(self.chain.store.iterate(b"r"))
        try:
            self.chain.send(seed, operation)
        except InvalidTransaction as error:
            after = dict(self.chain.store.iterate(b"R")) | dict(self.chain.store.iterate(b"r"))
            assert before == after, "a refused operation changed something"
            return error.code
        return Code.OK

    def do(self, operation: AnyOperation, seed: bytes = A) -> None:
        assert self.send(operation, seed) is Code.OK

    @property
    def lane(self) -> AnchorLane:
        return self.chain.lane("bitcoin")

    @property
    def payload(self) -> bytes:
        return compute_payload(State(Overlay(self.chain.store)))

    def anchor(self, size: int) -> Anchor:
        return self.chain.anchor(size, "bitcoin")

    def seal_coin(self) -> Coin:
        if self.lane.final == 0:
            return Coin(OutPoint(FUNDING.txid, 0), 100_000)
        anchor = self.anchor(self.lane.final)
        transaction = parse_variant(anchor.raws[anchor.variant])
        return Coin(OutPoint(transaction.txid, 0), transaction.outputs[0].value)

    def make(
        self,
        fee: int = 200,
        *,
        payload: bytes | None = None,
        coins: list[Coin] | None = None,
        parents: tuple[bytes, ...] = (),
        signer: KeySigner = SIGNER,
        change: Callable[[Transaction], Transaction] = lambda same: same,
    ) -> bytes:
        """A signed variant on the present seal; `change` spoils it before it is signed."""
        coins = coins or [self.seal_coin()]
        unsigned = change(build_anchor(coins, SCRIPT, payload or self.payload, fee))
        return encode(SignedAnchor(signer.sign(unsigned, coins, SCRIPT).full, parents, 7))

    def intent(self, raw: bytes | None = None, **fields: object) -> AnchorIntent:
        size = self.chain.settlement().headers
        good = AnchorIntent("bitcoin", size, self.payload, self.make() if raw is None else raw)
        return msgspec.structs.replace(good, **fields)

    def observed(self, size: int, of: int = 0, **fields: object) -> AnchorObserved:
        transaction = parse_variant(self.anchor(size).raws[of])
        evidence = BlockEvidence(of, 0, b"", mine(transaction)[0], 100)
        evidence = msgspec.structs.replace(evidence, **fields)
        return AnchorObserved("bitcoin", size, encode(evidence), WORK)

    def final(self, size: int) -> AnchorFinal:
        anchor = self.anchor(size)
        headers = mine(parse_variant(anchor.raws[anchor.variant]))
        return AnchorFinal("bitcoin", size, b"".join(headers[1:]), WORK)

    def lease(self, seed: bytes = A) -> None:
        self.do(AnchorLease("bitcoin", SETTINGS.network, WORK), seed)

    def finish(self, fee: int = 200) -> int:
        """One more batch, anchored and final; its size."""
        self.seal()
        self.do(self.intent(self.make(fee)))
        size = self.lane.pending
        self.do(self.observed(size))
        self.do(self.final(size))
        return size


@pytest.fixture
def lane() -> Lane:
    """Member a holds the lease, and one batch is not anchored."""
    lane = Lane()
    lane.seal()
    lane.lease()
    return lane


# --- genesis ---------------------------------------------------------------------------------------


def test_the_chain_id_commits_to_seal_key_first_coin_and_network() -> None:
    ids = set()
    for changed in (
        SETTINGS,
        msgspec.structs.replace(SETTINGS, seal_key=OTHER.public_key),
        msgspec.structs.replace(SETTINGS, funding=paying(SCRIPT, 100_000, 1).stripped),
        msgspec.structs.replace(SETTINGS, network=NETWORKS["mainnet"].genesis_hash),
        msgspec.structs.replace(SETTINGS, confirmations=6),
        msgspec.structs.replace(SETTINGS, fee_max=6_000),
        msgspec.structs.replace(SETTINGS, header_bits=0x1D00FFFF),
    ):
        genesis = make_genesis(anchors=AnchorSettings(("bitcoin", "notary"), (changed,)))
        ids.add(compute_chain_id(genesis))
    assert len(ids) == 7


@pytest.mark.parametrize(
    "settings",
    [
        AnchorSettings((), ()),
        AnchorSettings(("notary", "bitcoin"), (SETTINGS,)),
        AnchorSettings(("notary", "notary"), ()),
        AnchorSettings(("evm",), ()),
        AnchorSettings(("bitcoin",), ()),
        AnchorSettings(("notary",), (SETTINGS,)),
        *(
            AnchorSettings(("bitcoin",), (msgspec.structs.replace(SETTINGS, **change),))
            for change in (
                {"seal_key": b"\x02" + bytes(31) + b"\x05"},
                {"funding_output": 1},
                {"funding": b""},
                {"funding": FUNDING.stripped + b"\0"},
                {"funding": paying(b"\x51", 100_000).stripped},
                {"funding": paying(SCRIPT, 999).stripped},
                {"fee_max": 999},
                {"fee_max": 100_001},
                {"header_bits": 0},
            )
        ),
    ],
    ids=range(15),
)
def test_settings_that_cannot_work_are_refused(settings: AnchorSettings) -> None:
    with pytest.raises(ValueError, match=r".+"):
        check_anchor_settings(settings)


# --- who may do what -------------------------------------------------------------------------------


def every_operation(lane: Lane, backend: str = "bitcoin") -> list[AnyOperation]:
    raw = lane.make()
    return [
        AnchorIntent(backend, 1, lane.payload, raw),
        AnchorBump(backend, 1, raw),
        AnchorReseat(backend, 1, raw),
        AnchorObserved(backend, 1, b"", WORK),
        AnchorFinal(backend, 1, b"", WORK),
        AnchorRetract(backend, 1, WORK),
    ]


def test_only_members_on_a_known_backend_with_the_lease(lane: Lane) -> None:
    others = [
        AnchorLease("bitcoin", SETTINGS.network, WORK),
        AnchorHalt("bitcoin", "x", lane.lane.revision),
    ]
    for operation in (*every_operation(lane), *others):
        assert lane.send(operation, CLIENT_SEED) is Code.NOT_A_MEMBER
        unknown = msgspec.structs.replace(operation, backend="evm")
        assert lane.send(unknown) is Code.ANCHOR_BACKEND_UNKNOWN
    for operation in every_operation(lane):
        assert lane.send(operation, B) is Code.ANCHOR_LEASE_MISSING
    lane.chain.time_ms += LEASE_MS
    for operation in every_operation(lane):
        assert lane.send(operation) is Code.ANCHOR_LEASE_MISSING
    assert lane.send(AnchorLease("notary", b"", b"")) is Code.ANCHOR_BACKEND_UNKNOWN


def test_a_halted_lane_moves_no_more(lane: Lane) -> None:
    revision = lane.lane.revision
    assert lane.send(AnchorHalt("bitcoin", "look", revision + 1)) is Code.ANCHOR_LANE_CHANGED
    lane.do(AnchorHalt("bitcoin", "look", revision), B)
    for operation in (*every_operation(lane), AnchorLease("bitcoin", SETTINGS.network, WORK)):
        assert lane.send(operation) is Code.ANCHOR_HALTED
    lane.do(AnchorHalt("bitcoin", "", lane.lane.revision))
    assert (lane.lane.holder, lane.lane.position) == (b"", b"")
    lane.lease()
    lane.do(lane.intent())


def test_the_lease_is_for_a_node_on_the_chain_that_is_not_behind(lane: Lane) -> None:
    foreign = NETWORKS["mainnet"].genesis_hash
    assert lane.send(AnchorLease("bitcoin", SETTINGS.network, WORK), B) is Code.ANCHOR_LEASE_HELD
    assert lane.send(AnchorLease("bitcoin", foreign, WORK)) is Code.ANCHOR_NETWORK_MISMATCH
    assert lane.send(AnchorLease("bitcoin", SETTINGS.network, b"\x01")) is Code.ANCHOR_NODE_BEHIND
    lane.do(AnchorLease("bitcoin", SETTINGS.network, b"\x01\x00"))
    lane.chain.time_ms += LEASE_MS
    behind = AnchorLease("bitcoin", SETTINGS.network, b"\xff")
    assert lane.send(behind, B) is Code.ANCHOR_NODE_BEHIND
    lane.do(AnchorLease("bitcoin", SETTINGS.network, b"\x01\x00"), B)
    assert lane.send(lane.intent()) is Code.ANCHOR_LEASE_MISSING
    lane.do(lane.intent(), B)


# --- what an intent must be ------------------------------------------------------------------------


def with_output(number: int, **change: object) -> Callable[[Transaction], Transaction]:
    def apply(transaction: Transaction) -> Transaction:
        outputs = list(transaction.outputs)
        old = outputs[number]
        outputs[number] = TxOutput(
            int(change.get("value", old.value)),  # type: ignore[call-overload]
            bytes(change.get("script", old.script)),  # type: ignore[call-overload]
        )
        return Transaction(2, transaction.inputs, tuple(outputs), 0)

    return apply


def test_an_intent_of_the_wrong_size_or_root_is_refused(lane: Lane) -> None:
    assert lane.send(lane.intent(size=2)) is Code.ANCHOR_STALE
    wrong = b"VCP1" + bytes(36)
    assert lane.send(lane.intent(payload=wrong)) is Code.ANCHOR_INTENT_MISMATCH
    raw = lane.make(payload=wrong)
    assert lane.send(lane.intent(raw)) is Code.ANCHOR_INTENT_MISMATCH
    lane.do(lane.intent())
    assert lane.send(lane.intent()) is Code.ANCHOR_PENDING
    lane.do(lane.observed(1))
    lane.do(lane.final(1))
    assert lane.send(lane.intent()) is Code.ANCHOR_STALE


@pytest.mark.parametrize(
    ("code", "make"),
    [
        (Code.ANCHOR_MALFORMED, lambda lane: b""),
        (Code.ANCHOR_MALFORMED, lambda lane: lane.make() + b"\0"),
        (Code.ANCHOR_MALFORMED, lambda lane: encode(SignedAnchor(b"\2\0", (), 7))),
        (Code.ANCHOR_MALFORMED, lambda lane: encode(SignedAnchor(FUNDING.stripped, (), 7))),
        (Code.ANCHOR_MALFORMED, lambda lane: lane.make(parents=(FUNDING.stripped,))),
        (
            Code.ANCHOR_MALFORMED,
            lambda lane: lane.make(change=lambda one: Transaction(1, one.inputs, one.outputs, 0)),
        ),
        (
            Code.ANCHOR_MALFORMED,
            lambda lane: lane.make(change=lambda one: Transaction(2, one.inputs, one.outputs, 9)),
        ),
        (
            Code.ANCHOR_MALFORMED,
            lambda lane: lane.make(
                change=lambda one: Transaction(2, one.inputs, (*one.outputs, one.outputs[0]), 0)
            ),
        ),
        (
            Code.ANCHOR_MALFORMED,
            lambda lane: lane.make(
                change=lambda one: Transaction(2, one.inputs, (*one.outputs, one.outputs[1]), 0)
            ),
        ),
        (
            Code.ANCHOR_MALFORMED,
            lambda lane: lane.make(
                change=lambda one: Transaction(
                    2, (TxInput(one.inputs[0].outpoint, b"", 0xFFFFFFFF),), one.outputs, 0
                )
            ),
        ),
        (Code.ANCHOR_MALFORMED, lambda lane: lane.make(change=with_output(1, value=1))),
        (
            Code.ANCHOR_SEAL_MISMATCH,
            lambda lane: lane.make(coins=[Coin(OutPoint(FUNDING.txid, 1), 100_000)]),
        ),
        (
            Code.ANCHOR_SEAL_MISMATCH,
            lambda lane: lane.make(coins=[Coin(OutPoint(b"\1" * 32, 0), 100_000)]),
        ),
        (
            Code.ANCHOR_NEXT_SEAL_MISMATCH,
            lambda lane: lane.make(
                change=with_output(0, script=compute_seal_script(OTHER.public_key))
            ),
        ),
        (Code.ANCHOR_NEXT_SEAL_MISMATCH, lambda lane: lane.make(change=with_output(0, value=999))),
        (Code.ANCHOR_FEE_INVALID, lambda lane: lane.make(0)),
        (Code.ANCHOR_FEE_INVALID, lambda lane: lane.make(change=with_output(0, value=100_001))),
        (Code.ANCHOR_FEE_OVER_CAP, lambda lane: lane.make(5_001)),
        (Code.ANCHOR_SIGNATURE_INVALID, lambda lane: lane.make(signer=OTHER)),
    ],
    ids=lambda value: value.name.lower() if isinstance(value, Code) else "",
)
def test_a_transaction_that_is_not_the_one_shape(
    code: Code, make: Callable[[Lane], bytes], lane: Lane
) -> None:
    assert lane.send(lane.intent(make(lane))) is code


def test_a_top_up_is_shown_by_the_transaction_that_made_it(lane: Lane) -> None:
    parent = paying(SCRIPT, 30_000, 5)
    coins = [lane.seal_coin(), Coin(OutPoint(parent.txid, 0), 30_000)]
    assert lane.send(lane.intent(lane.make(coins=coins))) is Code.ANCHOR_MALFORMED
    for wrong in (paying(SCRIPT, 90_000, 5), paying(b"\x51", 30_000, 5)):
        raw = lane.make(coins=coins, parents=(wrong.stripped,))
        assert lane.send(lane.intent(raw)) is Code.ANCHOR_MALFORMED
    richer = [coins[0], Coin(coins[1].outpoint, 90_000)]
    raw = lane.make(coins=richer, parents=(parent.stripped,))
    assert lane.send(lane.intent(raw)) is Code.ANCHOR_FEE_INVALID  # It gives out what is not there.
    lane.do(lane.intent(lane.make(coins=coins, parents=(parent.stripped,))))


# --- replacements ----------------------------------------------------------------------------------


def test_a_bump_pays_more_in_total_and_for_each_byte(lane: Lane) -> None:
    raw = lane.make(400)
    assert lane.send(AnchorBump("bitcoin", 1, raw)) is Code.ANCHOR_NOT_PENDING
    lane.do(lane.intent())
    for fee, code in (
        (200, Code.ANCHOR_FEE_INVALID),
        (199, Code.ANCHOR_FEE_INVALID),
        (5_001, Code.ANCHOR_FEE_OVER_CAP),
    ):
        assert lane.send(AnchorBump("bitcoin", 1, lane.make(fee))) is code
    parent = paying(SCRIPT, 30_000, 5)
    coins = [lane.seal_coin(), Coin(OutPoint(parent.txid, 0), 30_000)]
    larger = lane.make(250, coins=coins, parents=(parent.stripped,))
    assert lane.send(AnchorBump("bitcoin", 1, larger)) is Code.ANCHOR_FEE_INVALID
    other = lane.make(400, payload=b"VCP1" + bytes(36))
    assert lane.send(AnchorBump("bitcoin", 1, other)) is Code.ANCHOR_INTENT_MISMATCH
    lane.do(AnchorBump("bitcoin", 1, raw))
    assert lane.send(AnchorBump("bitcoin", 1, raw)) is Code.ANCHOR_FEE_INVALID
    assert lane.send(AnchorReseat("bitcoin", 1, raw)) is Code.ANCHOR_SEAL_ALIVE
    for fee in range(405, 405 + 5 * (VARIANTS_MAX - 2), 5):
        lane.do(AnchorBump("bitcoin", 1, lane.make(fee)))
    assert lane.send(AnchorBump("bitcoin", 1, lane.make(4_000))) is Code.ANCHOR_VARIANTS_LIMIT
    lane.do(lane.observed(1, 0))  # The first may confirm all the same.
    assert lane.send(AnchorBump("bitcoin", 1, lane.make(4_000))) is Code.ANCHOR_OBSERVED
    lane.do(lane.final(1))
    assert lane.anchor(1).variant == 0


# --- evidence --------------------------------------------------------------------------------------


def test_every_member_checks_that_a_block_holds_the_anchor(lane: Lane) -> None:
    lane.do(lane.intent())
    good = lane.observed(1)
    assert lane.send(lane.final(1)) is Code.ANCHOR_NOT_OBSERVED
    assert lane.send(msgspec.structs.replace(good, size=2)) is Code.ANCHOR_NOT_PENDING
    header = good.evidence.index(mine(parse_variant(lane.anchor(1).raws[0]))[0])
    # Half of all headers have proof of work here: of the header, only the root must not change.
    for number in (*range(header), *range(header + 36, header + 68)):
        spoilt = bytearray(good.evidence)
        spoilt[number] ^= 1
        code = lane.send(msgspec.structs.replace(good, evidence=bytes(spoilt)))
        assert code is Code.ANCHOR_EVIDENCE_INVALID, f"byte {number}"
    for fields in (
        {"variant": 1},
        {"index": 1},
        {"branch": bytes(32)},
        {"branch": bytes(31)},
        {"header": mine(FUNDING)[0]},
    ):
        assert lane.send(lane.observed(1, **fields)) is Code.ANCHOR_EVIDENCE_INVALID
    lane.do(good)
    assert lane.send(good) is Code.ANCHOR_OBSERVED
    headers = mine(parse_variant(lane.anchor(1).raws[0]))
    for finality in (
        b"",
        headers[1],
        b"".join(headers[1:]) + headers[2],
        headers[2] + headers[1],
        b"".join(mine(FUNDING)[1:]),
        b"".join(headers[1:])[:-1],
    ):
        final = AnchorFinal("bitcoin", 1, finality, WORK)
        assert lane.send(final) is Code.ANCHOR_EVIDENCE_INVALID
    lane.do(lane.final(1))
    assert (lane.lane.final, lane.lane.pending) == (1, 0)


# --- retractions -----------------------------------------------------------------------------------


def test_what_is_gone_is_pending_again_with_what_was_built_on_it(lane: Lane) -> None:
    lane.do(lane.intent())
    lane.do(AnchorBump("bitcoin", 1, lane.make(400)))
    lane.do(lane.observed(1, 1))
    lane.do(lane.final(1))
    assert [lane.finish(), lane.finish()] == [2, 3]
    lane.seal()
    lane.do(lane.intent())
    assert lane.send(AnchorRetract("bitcoin", 1, b"\x01")) is Code.ANCHOR_NODE_BEHIND
    for size in (4, 5, 0):  # pending and not observed; not there; none
        assert lane.send(AnchorRetract("bitcoin", size, WORK)) is Code.ANCHOR_NOT_FINAL
    lane.do(AnchorRetract("bitcoin", 1, WORK))
    assert (lane.lane.final, lane.lane.pending, lane.lane.retracted) == (0, 1, (2, 3, 4))
    for size in (1, 2, 3, 4):
        anchor = lane.anchor(size)
        assert (anchor.status, anchor.evidence, anchor.finality) == (AnchorStatus.PENDING, b"", b"")
    lane.do(lane.observed(1, 0))  # The other variant this time: what follows has lost its seal.
    lane.do(lane.final(1))
    assert (lane.lane.final, lane.lane.pending, lane.lane.retracted) == (1, 2, (3, 4))
    assert lane.send(lane.observed(2)) is Code.ANCHOR_EVIDENCE_INVALID
    payload = lane.anchor(2).payload
    assert lane.send(AnchorReseat("bitcoin", 2, lane.make())) is Code.ANCHOR_INTENT_MISMATCH
    lane.do(AnchorReseat("bitcoin", 2, lane.make(payload=payload)))
    again = AnchorReseat("bitcoin", 2, lane.make(300, payload=payload))
    assert lane.send(again) is Code.ANCHOR_SEAL_ALIVE
    lane.do(lane.observed(2, 1))
    lane.do(lane.final(2))
    assert (lane.lane.pending, lane.lane.retracted) == (3, (4,))


def test_an_observed_anchor_alone_is_retracted(lane: Lane) -> None:
    lane.do(lane.intent())
    lane.do(lane.observed(1))
    lane.do(AnchorRetract("bitcoin", 1, WORK))
    assert lane.anchor(1).status == AnchorStatus.PENDING
    assert (lane.lane.pending, lane.lane.final, lane.lane.retracted) == (1, 0, ())
    lane.do(lane.observed(1))
    lane.do(lane.final(1))


def test_the_notary_s_word_is_not_taken_back(lane: Lane) -> None:
    for operation in every_operation(lane, "notary")[1:3]:
        assert lane.send(operation) is Code.ANCHOR_NOT_PENDING
    assert lane.send(AnchorRetract("notary", 1, b"")) is Code.ANCHOR_NOT_FINAL
    assert lane.chain.store.get(schema.lane_key("notary")) is not None


def test_both_backends_have_an_anchor_pending_at_once(lane: Lane) -> None:
    from vcp_cluster.ledger.anchors.notary import compute_raw

    lane.do(lane.intent())
    raw = compute_raw(State(Overlay(lane.chain.store)))
    lane.do(AnchorIntent("notary", 1, lane.payload, raw), B)
    assert (lane.lane.pending, lane.chain.lane("notary").pending) == (1, 1)
    assert lane.anchor(1).raws != lane.chain.anchor(1).raws
