"""Hashes, keys and signatures, each use with its own domain.

BLAKE3 names content and state; Ed25519 signs. libsodium decides which signatures are valid: it
refuses non-canonical scalars and small-order keys, and every member uses the same library, because
two members that disagree about one signature would have two ledgers.
"""

from __future__ import annotations

from itertools import permutations

from blake3 import blake3
from nacl import bindings
from nacl.exceptions import CryptoError

DOMAIN_TRANSACTION = b"vcp/tx/v1"
DOMAIN_ENVELOPE = b"vcp/envelope/v1"
DOMAIN_TASK = b"vcp/task/v1"
DOMAIN_PROOF = b"vcp/proof/v1"
DOMAIN_COMMITMENT = b"vcp/commitment/v1"
DOMAIN_BLOB = b"vcp/blob/v1"
DOMAIN_UPLOAD = b"vcp/upload/v1"
DOMAIN_TELEMETRY = b"vcp/telemetry/v1"
DOMAIN_VERDICT = b"vcp/verdict/v1"
DOMAIN_AUDIT = b"vcp/audit/v1"
DOMAIN_SELECT = b"vcp/select/v1"
DOMAIN_ROOT = b"vcp/root/v1"
DOMAIN_HEADER = b"vcp/header/v1"
DOMAIN_PEER = b"vcp/peer/v1"

DOMAINS = tuple(value for name, value in sorted(globals().items()) if name.startswith("DOMAIN_"))

# A domain that is a prefix of another would let one message be read as two things.
assert not any(a.startswith(b) for a, b in permutations(DOMAINS, 2))


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
