"""The one shape of an anchor's transaction, built, hashed for signing, and checked (BIP 143).

    vin[0]   the seal: vout[0] of the anchor before, or the first coin
    vin[1…]  coins paid to the seal's address, if it needs more: taken whole, so there is no change
    vout[0]  the next seal: the same script, and all the money but the fee
    vout[1]  OP_RETURN with 40 bytes

An output can be spent once: two anchors that spend one seal exclude each other, and Bitcoin decides.
The shape leaves no choice but the next seal's value, so that nothing but the fee can leave.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, hash256
from vcp_cluster.ledger.bitcoin.script import payload_script
from vcp_cluster.ledger.bitcoin.secp256k1 import check_signature
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction, TxInput, TxOutput

SEQUENCE = 0xFFFFFFFD  # replaceable (BIP 125), no relative lock
SIGHASH_ALL = 1
# Below it the seal would soon be dust, which no node relays, and the chain of seals would end.
SEAL_VALUE_MIN = 1_000
COINS_MAX = 8
_VERSION = 2


@dataclass(frozen=True, slots=True)
class Coin:
    """An output that the seal's key can spend: where it is and how many satoshi it holds."""

    outpoint: OutPoint
    value: int


def find_coin(parent: Transaction, output: int, script: bytes) -> Coin:
    """The coin in an output of `parent`; raise `BitcoinInvalid` unless it pays `script`."""
    if output >= len(parent.outputs) or parent.outputs[output].script != script:
        raise BitcoinInvalid("the output does not exist, or does not pay the seal's key")
    return Coin(OutPoint(parent.txid, output), parent.outputs[output].value)


def build_anchor(coins: Sequence[Coin], script: bytes, payload: bytes, fee: int) -> Transaction:
    """The unsigned anchor that spends `coins`, the seal first, for `fee` satoshi."""
    value = sum(coin.value for coin in coins) - fee
    if value < SEAL_VALUE_MIN:
        raise BitcoinInvalid(f"the next seal would hold {value} satoshi, too few to go on")
    return Transaction(
        _VERSION,
        tuple(TxInput(coin.outpoint, b"", SEQUENCE) for coin in coins),
        (TxOutput(value, script), TxOutput(0, payload_script(payload))),
        0,
    )


def has_anchor_shape(transaction: Transaction) -> bool:
    """Whether a transaction is built as `build_anchor` does, whatever its scripts and values."""
    return (
        transaction.version == _VERSION
        and transaction.lock_time == 0
        and all(one.sequence == SEQUENCE and not one.script for one in transaction.inputs)
        and len(transaction.outputs) == 2
        and transaction.outputs[1].value == 0
    )


def compute_digest(transaction: Transaction, index: int, coin: Coin, script: bytes) -> bytes:
    """What input `index`, which spends `coin`, signs: BIP 143, SIGHASH_ALL."""
    key_hash = script[2:]
    code = b"\x19\x76\xa9\x14" + key_hash + b"\x88\xac"
    inputs = transaction.inputs
    preimage = (
        transaction.version.to_bytes(4, "little")
        + hash256(b"".join(one.outpoint.encode() for one in inputs))
        + hash256(b"".join(one.sequence.to_bytes(4, "little") for one in inputs))
        + coin.outpoint.encode()
        + code
        + coin.value.to_bytes(8, "little")
        + inputs[index].sequence.to_bytes(4, "little")
        + hash256(b"".join(one.encode() for one in transaction.outputs))
        + transaction.lock_time.to_bytes(4, "little")
        + SIGHASH_ALL.to_bytes(4, "little")
    )
    return hash256(preimage)


def check_witnesses(
    transaction: Transaction, coins: Sequence[Coin], key: bytes, script: bytes
) -> None:
    """Check that `key` signed every input, and nothing else is there; raise `BitcoinInvalid`."""
    if len(transaction.witnesses) != len(coins):
        raise BitcoinInvalid("not one witness for each input")
    for index, (stack, coin) in enumerate(zip(transaction.witnesses, coins, strict=True)):
        if len(stack) != 2 or stack[1] != key or stack[0][-1:] != bytes([SIGHASH_ALL]):
            raise BitcoinInvalid("a witness is not a signature over everything and the seal's key")
        check_signature(key, compute_digest(transaction, index, coin, script), stack[0][:-1])
