"""Bitcoin: the root in an OP_RETURN of a chain of transactions, each spending the one before.

The seal makes an anchor unique: Bitcoin admits one spender of an output. An intent carries the whole
signed transaction, so that every member can broadcast the same bytes and none can make up others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.anchor_settings import (
    BitcoinSettings,
    first_coin,
    funding_of,
    seal_script_of,
)
from vcp_cluster.ledger.bitcoin.headers import decode_target, parse_chain, parse_header
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid
from vcp_cluster.ledger.bitcoin.script import payload_script
from vcp_cluster.ledger.bitcoin.seal import (
    COINS_MAX,
    SEAL_VALUE_MIN,
    Coin,
    check_witnesses,
    find_coin,
    has_anchor_shape,
)
from vcp_cluster.ledger.bitcoin.spv import DEPTH_MAX, compute_merkle_root
from vcp_cluster.ledger.bitcoin.transaction import Transaction, parse_stripped, parse_transaction
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Malformed, Record, Unsigned, decode, decode_stored
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.records import Anchor
from vcp_cluster.ledger.state import State

TRANSACTION_BYTES_MAX = 4_000
PARENT_BYTES_MAX = 10_000

RawTransaction = Annotated[bytes, Meta(max_length=TRANSACTION_BYTES_MAX)]
RawParent = Annotated[bytes, Meta(max_length=PARENT_BYTES_MAX)]


class SignedAnchor(Record, frozen=True):
    """A variant: the signed transaction, and where its money comes from.

    `parents` are the transactions (without witnesses) that made the coins of vin[1…]: they show
    what the coins hold, and so what the fee is. `block_height` is where the maker's node stood.
    """

    transaction: RawTransaction
    parents: Annotated[tuple[RawParent, ...], Meta(max_length=COINS_MAX)]
    block_height: Unsigned


class BlockEvidence(Record, frozen=True):
    """That variant number `variant` is in a block: its index, Merkle branch and header.

    `block_height` is what the observer's node says; a header does not hold it.
    """

    variant: Unsigned
    index: Unsigned
    branch: Annotated[bytes, Meta(max_length=32 * DEPTH_MAX)]
    header: Annotated[bytes, Meta(min_length=80, max_length=80)]
    block_height: Unsigned


class Refused(Exception):
    """A variant is not what it must be; `code` says why."""

    def __init__(self, code: Code) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass(frozen=True, slots=True)
class Variant:
    """A variant taken apart. `fee` in satoshi."""

    transaction: Transaction
    fee: int

    @property
    def seal(self) -> bytes:
        """The outpoint that it spends first."""
        return self.transaction.inputs[0].outpoint.encode()


def settings_of(genesis: Genesis) -> BitcoinSettings:
    """The cluster's settings; only called where the backend is configured."""
    return genesis.anchors.bitcoin[0]


def parse_variant(raw: bytes) -> Transaction:
    """The transaction of a variant that is in the ledger."""
    return parse_transaction(decode_stored(SignedAnchor, raw).transaction)


def find_parent(settings: BitcoinSettings, previous: Anchor | None) -> tuple[Transaction, int]:
    """The transaction whose output is the present seal, and the output's number."""
    if previous is None:
        return funding_of(settings), settings.funding_output
    return parse_variant(previous.raws[previous.variant]), 0


def find_seal(settings: BitcoinSettings, previous: Anchor | None) -> Coin:
    """The coin that the next anchor spends first."""
    if previous is None:
        return first_coin(settings)
    parent, output = find_parent(settings, previous)
    return find_coin(parent, output, seal_script_of(settings))


def read_variant(
    settings: BitcoinSettings, previous: Anchor | None, payload: bytes, raw: bytes
) -> Variant:
    """Take a variant apart and check it whole; raise `Refused`."""
    variant, coins = _read_unsigned(settings, previous, payload, raw)
    if variant.fee > settings.fee_max:
        raise Refused(Code.ANCHOR_FEE_OVER_CAP)
    try:
        script = seal_script_of(settings)
        check_witnesses(variant.transaction, coins, settings.seal_key, script)
    except BitcoinInvalid:
        raise Refused(Code.ANCHOR_SIGNATURE_INVALID) from None
    return variant


def _read_unsigned(
    settings: BitcoinSettings, previous: Anchor | None, payload: bytes, raw: bytes
) -> tuple[Variant, list[Coin]]:
    """All checks but cap and signature, in the order of their codes; raise `Refused`."""
    script = seal_script_of(settings)
    try:
        signed = decode(SignedAnchor, raw)
        transaction = parse_transaction(signed.transaction)
        coins = _find_coins(transaction, signed.parents, script)
    except (BitcoinInvalid, Malformed):
        raise Refused(Code.ANCHOR_MALFORMED) from None
    if not has_anchor_shape(transaction):
        raise Refused(Code.ANCHOR_MALFORMED)
    seal = find_seal(settings, previous)
    if transaction.inputs[0].outpoint != seal.outpoint:
        raise Refused(Code.ANCHOR_SEAL_MISMATCH)
    next_seal, commitment = transaction.outputs
    if next_seal.script != script or next_seal.value < SEAL_VALUE_MIN:
        raise Refused(Code.ANCHOR_NEXT_SEAL_MISMATCH)
    if commitment.script != payload_script(payload):
        raise Refused(Code.ANCHOR_INTENT_MISMATCH)
    coins.insert(0, seal)
    fee = sum(coin.value for coin in coins) - next_seal.value
    if fee <= 0:
        raise Refused(Code.ANCHOR_FEE_INVALID)
    return Variant(transaction, fee), coins


def _find_coins(transaction: Transaction, parents: Sequence[bytes], script: bytes) -> list[Coin]:
    """The coins of vin[1…], each shown by the transaction that made it."""
    outpoints = [one.outpoint for one in transaction.inputs]
    if len(outpoints) != len(parents) + 1 or len(set(outpoints)) != len(outpoints):
        raise BitcoinInvalid("not one parent for each further input")
    coins = []
    for outpoint, data in zip(outpoints[1:], parents, strict=True):
        parent = parse_stripped(data)
        if parent.txid != outpoint.txid:
            raise BitcoinInvalid("a parent is not the one that the input names")
        coins.append(find_coin(parent, outpoint.output, script))
    return coins


def compute_fee(
    settings: BitcoinSettings, previous: Anchor | None, payload: bytes, raw: bytes
) -> Variant:
    """A variant of the ledger that is seated, with its fee; its signature was checked before."""
    return _read_unsigned(settings, previous, payload, raw)[0]


def find_seated(
    settings: BitcoinSettings, previous: Anchor | None, anchor: Anchor
) -> list[tuple[int, Transaction]]:
    """The variants that spend the present seal, with their numbers, oldest first.

    Others spend an output of a variant of `previous` that the chain did not take.
    """
    seal = find_seal(settings, previous).outpoint
    variants = ((number, parse_variant(raw)) for number, raw in enumerate(anchor.raws))
    return [(number, one) for number, one in variants if one.inputs[0].outpoint == seal]


class Bitcoin:
    """`AnchorBackend` of Bitcoin and of every network that has its transactions and headers."""

    label = "Bitcoin"
    is_leased = True

    def network(self, genesis: Genesis) -> bytes:
        """Hash of the network's first block."""
        return settings_of(genesis).network

    def check_variant(
        self, state: State, previous: Anchor | None, payload: bytes, raw: bytes
    ) -> Code:
        """MALFORMED, SEAL_MISMATCH, NEXT_SEAL_…, INTENT_…, FEE_INVALID, FEE_OVER_CAP, SIGNATURE_…"""
        try:
            read_variant(settings_of(state.genesis), previous, payload, raw)
        except Refused as refused:
            return refused.code
        return Code.OK

    def check_bump(self, state: State, previous: Anchor | None, anchor: Anchor, raw: bytes) -> Code:
        """ANCHOR_FEE_INVALID unless fee and fee rate are above those of every seated variant."""
        settings = settings_of(state.genesis)
        try:
            new = read_variant(settings, previous, anchor.payload, raw)
            seated = [
                compute_fee(settings, previous, anchor.payload, anchor.raws[number])
                for number, _ in find_seated(settings, previous, anchor)
            ]
        except Refused as refused:
            return refused.code
        size = new.transaction.virtual_size
        for old in seated:
            is_above = new.fee * old.transaction.virtual_size > old.fee * size
            if new.fee <= old.fee or not is_above:
                return Code.ANCHOR_FEE_INVALID
        return Code.OK

    def is_seated(self, genesis: Genesis, previous: Anchor | None, anchor: Anchor) -> bool:
        """Whether some variant spends the present seal."""
        return bool(find_seated(settings_of(genesis), previous, anchor))

    def find_variant(
        self, genesis: Genesis, previous: Anchor | None, anchor: Anchor, evidence: bytes
    ) -> int | None:
        """The variant that a block holds, by its Merkle branch and a header with enough work."""
        settings = settings_of(genesis)
        try:
            found = decode(BlockEvidence, evidence)
            seated = dict(find_seated(settings, previous, anchor))
            if found.variant not in seated:
                return None
            txid = seated[found.variant].txid
            header = parse_header(found.header, decode_target(settings.header_bits))
            root = compute_merkle_root(txid, found.index, found.branch)
        except (BitcoinInvalid, Malformed):
            return None
        return found.variant if root == header.merkle_root else None

    def is_final(self, genesis: Genesis, anchor: Anchor, finality: bytes) -> bool:
        """Whether as many headers follow the block as make it K deep with itself."""
        settings = settings_of(genesis)
        first = decode_stored(BlockEvidence, anchor.evidence).header
        try:
            headers = parse_chain(first + finality, decode_target(settings.header_bits))
        except BitcoinInvalid:
            return False
        return len(headers) == settings.confirmations
