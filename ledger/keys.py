"""Hashes, keys and signatures, each use with its own domain.

BLAKE3 names content and state; Ed25519 signs. libsodium decides which signatures are valid: it
refuses non-canonical scalars and small-order keys, and every member uses the same library, because
two members that disagree about one signature would have two ledgers.
"""

from __future__ import annotations

from blake3 import blake3
from nacl import bindings
from nacl.exceptions import CryptoError


def hash_content(data: bytes) -> bytes:
    """BLAKE3 of a blob: its name everywhere. 32 bytes."""
    return blake3(data).digest()


def hash_domain(domain: bytes, *parts: bytes) -> bytes:
    """BLAKE3 over a domain string and parts whose lengths the caller fixes. 32 bytes."""
    hasher = blake3(domain)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def public_key(seed: bytes) -> bytes:
    """The Ed25519 public key (32 bytes) of a 32-byte seed."""
    return bindings.crypto_sign_seed_keypair(seed)[0]


def sign(seed: bytes, domain: bytes, message: bytes) -> bytes:
    """Sign `domain | message` with the key of a 32-byte seed. 64 bytes."""
    _, secret = bindings.crypto_sign_seed_keypair(seed)
    return bindings.crypto_sign(domain + message, secret)[: bindings.crypto_sign_BYTES]


def is_signed(key: bytes, domain: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is one of `key` over `domain | message`, by libsodium's rules.

    A predicate and not a check that raises: its callers turn the answer into a code for each
    operation, and must go on after a wrong one.
    """
    try:
        bindings.crypto_sign_open(signature + domain + message, key)
    except (CryptoError, ValueError, TypeError):
        return False
    return len(signature) == bindings.crypto_sign_BYTES
