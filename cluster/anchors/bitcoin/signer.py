"""The seal's key: in a file of mode 0600, in this process, and nowhere else."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from vcp_cluster.cluster.directory import load_seed
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.ledger.anchor_settings import BitcoinSettings, seal_script_of
from vcp_cluster.ledger.bitcoin.script import seal_script
from vcp_cluster.ledger.bitcoin.seal import SIGHASH_ALL, Coin, compute_digest
from vcp_cluster.ledger.bitcoin.secp256k1 import SIGNATURE_BYTES_MAX, N, encode_signature
from vcp_cluster.ledger.bitcoin.transaction import Transaction

SEAL_KEY_FILE = "bitcoin.key"
# The same transaction always gets the same signature, and no random number can give the key away.
_ECDSA = ec.ECDSA(utils.Prehashed(hashes.SHA256()), deterministic_signing=True)


class Signer(Protocol):
    """Whatever can sign as the seal's key."""

    def sign(self, transaction: Transaction, coins: Sequence[Coin], script: bytes) -> Transaction:
        """The transaction with a witness for each input."""
        ...


class KeySigner:
    """Signs with a key that is held in memory; its `repr` does not show it."""

    def __init__(self, secret: bytes) -> None:
        value = int.from_bytes(secret, "big")
        if not 0 < value < N:
            raise ValueError("not a private key of secp256k1")
        self._key = ec.derive_private_key(value, ec.SECP256K1())
        self.public_key = self._key.public_key().public_bytes(
            Encoding.X962, PublicFormat.CompressedPoint
        )

    def sign(self, transaction: Transaction, coins: Sequence[Coin], script: bytes) -> Transaction:
        """The transaction with a witness for each input (RFC 6979, low s)."""
        witnesses = []
        for index, coin in enumerate(coins):
            digest = compute_digest(transaction, index, coin, script)
            r, s = utils.decode_dss_signature(self._key.sign(digest, _ECDSA))
            witnesses.append((encode_signature(r, s) + bytes([SIGHASH_ALL]), self.public_key))
        return transaction.with_witnesses(witnesses)


def compute_seal_script(public_key: bytes) -> bytes:
    """The script that pays a compressed public key; raise `ConfigError` without RIPEMD-160."""
    try:
        ripemd = hashlib.new("ripemd160")
    except ValueError:
        raise ConfigError(
            "this Python's OpenSSL has no RIPEMD-160, which Bitcoin addresses need",
            key="ripemd160",
            origin="hashlib",
            hint="use a Python with OpenSSL 3.0.7 or newer",
        ) from None
    ripemd.update(hashlib.sha256(public_key).digest())
    return seal_script(ripemd.digest())


def load_signer(path: Path, settings: BitcoinSettings | None = None) -> KeySigner:
    """The signer of a key file; raise `ConfigError`, also when it is not the key of `settings`."""
    try:
        signer = KeySigner(load_seed(path))
    except ValueError as error:
        raise ConfigError(
            str(error),
            key=path.name,
            origin=str(path),
            hint="make one with `vcp-cluster anchor key`",
        ) from None
    script = compute_seal_script(signer.public_key)
    if settings is not None and (
        signer.public_key != settings.seal_key or script != seal_script_of(settings)
    ):
        raise ConfigError(
            "it is not the key of the seals in genesis.json",
            key=path.name,
            origin=str(path),
            hint="copy the key file that was given to `vcp-cluster init`",
        )
    return signer


def estimate_size(transaction: Transaction) -> int:
    """vB of a transaction once each input has the largest witness that a signature makes."""
    stack = (bytes(SIGNATURE_BYTES_MAX), bytes(33))
    return transaction.with_witnesses([stack] * len(transaction.inputs)).virtual_size
