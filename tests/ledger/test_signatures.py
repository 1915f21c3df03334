"""Which signatures are valid is consensus: the accept set is libsodium's, pinned here.

The vectors are made by `ed25519.py`: signatures that satisfy the equation, or almost, and that
libraries disagree about. For each, `openssl` says what OpenSSL answers: where it accepts, only the
choice of one library keeps two members from having two ledgers.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from ledger_harness import ed25519
from ledger_harness.cast import key, seed
from ledger_harness.ed25519 import BASE, P, Point, challenge, multiply
from ledger_harness.ed25519 import L as ORDER
from ledger_harness.ledger import Ledger

from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.domains import DOMAIN_TRANSACTION, DOMAINS
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import is_signed, sign
from vcp_cluster.ledger.operations import Transfer
from vcp_cluster.ledger.transactions import Envelope, SignedTransaction, parse_transaction

PATH = Path(__file__).parents[1] / "vectors" / "signatures.json"
SECRET = ed25519.secret_scalar(seed("alice"))
PUBLIC = multiply(SECRET, BASE)
NONCE = ed25519.secret_scalar(b"any number will do")

Case = tuple[str, bytes, bytes, bytes]  # name, key, message, signature


def assemble(commitment: bytes, scalar: int) -> bytes:
    """R and S as 64 bytes."""
    return commitment + scalar.to_bytes(32, "little")


def respond(public: bytes, message: bytes) -> tuple[bytes, int]:
    """R and S of alice's scalar under any public key."""
    commitment = ed25519.encode(multiply(NONCE, BASE))
    return commitment, (NONCE + challenge(commitment, public, message) * SECRET) % ORDER


def grind(public: bytes, commitment: bytes, *, is_multiple: bool, of: int = 8) -> bytes:
    """A message whose challenge is, or is not, a multiple of 8: small-order parts vanish, or not."""
    for number in range(1_000):
        message = b"message %d" % number
        if (challenge(commitment, public, message) % of == 0) == is_multiple:
            return message
    raise AssertionError("no message found")


def small_order_keys() -> Iterator[tuple[str, bytes]]:
    """Every encoding of the points of small order, those of y + p included."""
    for number, point in enumerate(ed25519.torsion_points()):
        yield f"small-order key {number}", ed25519.encode(point)
    for y in (P, P + 1):
        for sign_bit in (0, 1):
            name = f"small-order key, y = p + {y - P}, sign {sign_bit}"
            yield name, (y | sign_bit << 255).to_bytes(32, "little")
    for y in (1, P - 1):
        name = f"small-order key, y = {'1' if y == 1 else '-1'}, sign of x = 0 set"
        yield name, (y | 1 << 255).to_bytes(32, "little")


def make_cases() -> Iterator[Case]:
    """All vectors."""
    alice = key("alice")
    message = b"pay bob"
    commitment, scalar = respond(alice, message)
    yield "valid", alice, message, assemble(commitment, scalar)
    yield "S = S + L", alice, message, assemble(commitment, scalar + ORDER)
    yield "S = S + 8 L", alice, message, assemble(commitment, scalar + 8 * ORDER)
    yield "S = S + 15 L, highest bits", alice, message, assemble(commitment, scalar + 15 * ORDER)
    yield "S = 0", alice, message, assemble(commitment, 0)
    yield "R and S swapped", alice, message, scalar.to_bytes(32, "little") + commitment
    for name, identity in (
        ("R = identity", ed25519.encode(ed25519.IDENTITY)),
        ("R = identity, y = p + 1", (P + 1).to_bytes(32, "little")),
    ):
        zero = challenge(identity, alice, message) * SECRET % ORDER
        yield name, alice, message, assemble(identity, zero)
    for name, small in small_order_keys():
        # The key's multiple vanishes: S B = R holds for a signer who knows no secret at all.
        text = grind(small, commitment, is_multiple=True)
        yield name, small, text, assemble(commitment, NONCE % ORDER)
    torsion = ed25519.torsion_points()[1]
    mixed = ed25519.encode(ed25519.add(PUBLIC, torsion))
    for is_multiple in (True, False):
        text = grind(mixed, commitment, is_multiple=is_multiple)
        name = "mixed-order key, " + ("exact equation" if is_multiple else "only times 8")
        yield name, mixed, text, assemble(*respond(mixed, text))
    stray: Point = ed25519.add(multiply(NONCE, BASE), torsion)
    mixed_r = ed25519.encode(stray)
    text_scalar = (NONCE + challenge(mixed_r, alice, message) * SECRET) % ORDER
    yield "mixed-order R, only times 8", alice, message, assemble(mixed_r, text_scalar)
    off_curve = (2).to_bytes(32, "little")
    yield "key not on the curve", off_curve, message, assemble(commitment, scalar)


def is_openssl(public: bytes, message: bytes, signature: bytes) -> bool:
    """What OpenSSL says."""
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def make_vectors() -> list[dict[str, Any]]:
    """The vectors as the file holds them."""
    return [
        {
            "name": name,
            "key": public.hex(),
            "message": message.hex(),
            "signature": signature.hex(),
            "valid": is_signed(public, b"", message, signature),
            "openssl": is_openssl(public, message, signature),
        }
        for name, public, message, signature in make_cases()
    ]


def test_vectors(is_rewriting: bool) -> None:
    """The library in use accepts and refuses what the file says."""
    vectors = make_vectors()
    if is_rewriting:
        PATH.write_text(json.dumps(vectors, indent=1) + "\n")
    assert vectors == json.loads(PATH.read_text())


def test_only_these_are_accepted() -> None:
    """One ordinary signature, and a key whose small-order part plays no role: nothing else."""
    vectors = json.loads(PATH.read_text())
    accepted = [vector["name"] for vector in vectors if vector["valid"]]
    assert accepted == ["valid", "mixed-order key, exact equation"]
    disputed = [vector["name"] for vector in vectors if vector["openssl"] and not vector["valid"]]
    assert len(disputed) >= 8, "the vectors lost their bite: OpenSSL refuses them as well"


@pytest.mark.parametrize("length", [0, 1, 32, 63])
def test_a_signature_is_not_completed_by_what_it_signs(length: int) -> None:
    """The library takes signature and message in one piece: the cut must be after 64 bytes."""
    whole = sign(seed("alice"), b"", b"message")
    assert is_signed(key("alice"), b"", b"message", whole)
    assert not is_signed(key("alice"), whole[length:], b"message", whole[:length])
    longer = whole + b"message"[: length + 1]
    assert not is_signed(key("alice"), b"", b"message"[length + 1 :], longer)


def test_a_signature_is_of_one_domain() -> None:
    """What was signed for one use is nothing for another."""
    for domain in DOMAINS:
        signature = sign(seed("alice"), domain, b"message")
        uses = [other for other in DOMAINS if is_signed(key("alice"), other, b"message", signature)]
        assert uses == [domain]


def test_a_transaction_with_a_larger_scalar() -> None:
    """S + L satisfies the equation, and would be a second spelling of the same transaction."""
    ledger = Ledger()
    parsed = parse_transaction(ledger.transaction("alice", Transfer(key("bob"), 1)))
    commitment, scalar = parsed.signed.signature[:32], parsed.signed.signature[32:]
    larger = assemble(commitment, int.from_bytes(scalar, "little") + ORDER)
    code = ledger.send(encode(SignedTransaction(parsed.signed.envelope, larger, ())))
    assert code is Code.SIGNATURE_INVALID
    assert ledger.send(parsed.data) is Code.OK


@pytest.mark.parametrize("number", range(8))
def test_a_transaction_by_a_key_that_anyone_can_sign_for(number: int) -> None:
    """An account of small order would belong to everybody: its signatures are never right."""
    ledger = Ledger()
    nobody = ed25519.encode(ed25519.torsion_points()[number])
    assert ledger.submit("alice", Transfer(nobody, 1_000)) is Code.OK
    commitment = ed25519.encode(multiply(NONCE, BASE))
    for nonce in range(1_000):
        take = (Transfer(key("bob"), 1_000),)
        until_ms = ledger.now_ms + 1_000
        envelope = encode(Envelope(1, ledger.chain_id, nobody, nobody, nonce, until_ms, take))
        if challenge(commitment, nobody, DOMAIN_TRANSACTION + envelope) % 8 == 0:
            break
    signature = assemble(commitment, NONCE % ORDER)
    assert is_openssl(nobody, DOMAIN_TRANSACTION + envelope, signature)
    code = ledger.send(encode(SignedTransaction(envelope, signature, ())))
    assert code is Code.SIGNATURE_INVALID


def test_a_second_signature_of_the_same_envelope_changes_nothing() -> None:
    """A signer can make many; the id does not depend on it, so it is the same transaction."""
    ledger = Ledger()
    parsed = parse_transaction(ledger.transaction("alice", Transfer(key("bob"), 1)))
    assert ledger.send(parsed.data) is Code.OK
    other = assemble(*respond(key("alice"), DOMAIN_TRANSACTION + parsed.signed.envelope))
    assert other != parsed.signed.signature
    size = ledger.state.get_log().size
    (receipt,) = ledger.entry(encode(SignedTransaction(parsed.signed.envelope, other, ())))
    assert (receipt.code, receipt.height, receipt.tx_id) == (Code.OK, 1, parsed.tx_id)
    assert ledger.state.get_log().size == size
