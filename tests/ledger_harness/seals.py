"""Anchors on Bitcoin without a node: a first coin, a signer, and blocks that the tests mine.

Regtest's difficulty: a header takes two hashes on average.
"""

from __future__ import annotations

from functools import lru_cache

from vcp_cluster.cluster.anchors.bitcoin.signer import KeySigner, compute_seal_script
from vcp_cluster.ledger.anchor_settings import (
    BITCOIN,
    NOTARY,
    AnchorSettings,
    BitcoinSettings,
)
from vcp_cluster.ledger.bitcoin.networks import NETWORKS
from vcp_cluster.ledger.bitcoin.reader import hash256
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction, TxInput, TxOutput

SIGNER = KeySigner(b"\x11" * 32)
SCRIPT = compute_seal_script(SIGNER.public_key)
NETWORK = NETWORKS["regtest"]
CONFIRMATIONS = 3
COIN_VALUE = 100_000  # satoshi in the first seal
FEE_MAX = 5_000
# How far the honest nodes of the tests have seen the chain (chain work, big endian).
WORK = b"\x02"
_SOURCE = TxInput(OutPoint(b"\x09" * 32, 0), b"", 0xFFFFFFFF)


def paying(script: bytes, value: int, tag: int = 0) -> Transaction:
    """A transaction that pays a script; `tag` makes it another."""
    return Transaction(2, (_SOURCE,), (TxOutput(value, script),), tag)


FUNDING = paying(SCRIPT, COIN_VALUE)
SETTINGS = BitcoinSettings(
    network=NETWORK.genesis_hash,
    seal_key=SIGNER.public_key,
    funding=FUNDING.stripped,
    funding_output=0,
    confirmations=CONFIRMATIONS,
    fee_max=FEE_MAX,
    header_bits=NETWORK.header_bits,
)
BOTH = AnchorSettings((BITCOIN, NOTARY), (SETTINGS,))


def mine(transaction: Transaction, salt: int = 0) -> list[bytes]:
    """Headers of a block that holds just this transaction, and of those after it."""
    return list(_mine(transaction.txid, salt))


@lru_cache(maxsize=256)
def _mine(txid: bytes, salt: int) -> tuple[bytes, ...]:
    previous, headers = bytes([salt]) * 32, []
    for number in range(CONFIRMATIONS):
        root = txid if number == 0 else bytes(32)
        prefix = (4).to_bytes(4, "little") + previous + root + bytes(4)
        prefix += NETWORK.header_bits.to_bytes(4, "little")
        nonce = 0
        while hash256(header := prefix + nonce.to_bytes(4, "little"))[31] >= 0x80:
            nonce += 1
        headers.append(header)
        previous = hash256(header)
    return tuple(headers)
