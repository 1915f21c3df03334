"""Transactions and entries: their encodings, ids and signatures.

    SignedTransaction  [envelope bytes, signature, cosignatures]
    Envelope           [version, chain_id, account, key, nonce, valid_until_ms, operations]
    Entry              [version, time_ms, transactions]

`signature` is by `key` over `"vcp/tx/v1" | envelope`; so are the cosignatures, which operations of
the governance need when its threshold is above one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.domains import DOMAIN_ENVELOPE, DOMAIN_TRANSACTION
from vcp_cluster.ledger.encoding import (
    ChainId,
    Hash,
    Key,
    Malformed,
    Record,
    Signature,
    Unsigned,
    decode,
    encode,
    prepare,
)
from vcp_cluster.ledger.keys import hash_domain, is_signed, public_key, sign
from vcp_cluster.ledger.operations import AnyOperation

TRANSACTION_BYTES_MAX = 256 * 1024
OPERATIONS_MAX = 128
ENTRY_TRANSACTIONS_MAX = 4_096
ENTRY_BYTES_MAX = 2 << 20


class Envelope(Record, frozen=True):
    """What is signed. `nonce` is a random number without order."""

    version: Annotated[int, Meta(ge=1, le=1)]
    chain_id: ChainId
    account: Key
    key: Key
    nonce: Unsigned
    valid_until_ms: Unsigned
    operations: Annotated[tuple[AnyOperation, ...], Meta(min_length=1)]


class Cosignature(Record, frozen=True):
    """A further key's signature over the same envelope."""

    key: Key
    signature: Signature


class SignedTransaction(Record, frozen=True):
    """An envelope as the bytes that were signed, and its signatures (empty if unsigned)."""

    envelope: bytes
    signature: Annotated[bytes, Meta(max_length=64)]
    cosignatures: Annotated[tuple[Cosignature, ...], Meta(max_length=16)]


class Entry(Record, frozen=True):
    """One Raft log record: the leader's time and transactions in their order."""

    version: Annotated[int, Meta(ge=1, le=1)]
    time_ms: Unsigned
    transactions: Annotated[tuple[bytes, ...], Meta(max_length=ENTRY_TRANSACTIONS_MAX)]


class TransactionReceipt(Record, frozen=True):
    """What happened to a transaction: first time, and every time that it is sent again.

    `log_index` is its leaf in the transaction log; `operation` the index of the operation that
    failed (0 where the code is of the envelope, or OK).
    """

    version: Unsigned
    tx_id: Hash
    height: Unsigned
    time_ms: Unsigned
    log_index: Unsigned
    code: Unsigned
    operation: Unsigned


@dataclass(frozen=True, slots=True)
class ParsedTransaction:
    """A transaction taken apart: its bytes, envelope and id."""

    data: bytes
    signed: SignedTransaction
    envelope: Envelope
    tx_id: bytes


@dataclass(frozen=True, slots=True)
class SignatureCheck:
    """Which signatures of a transaction are right.

    `is_valid`: the envelope's and every cosignature. `operations[i]`: all those inside operation i.
    """

    is_valid: bool
    operations: tuple[bool, ...]


NOT_VALID = SignatureCheck(False, ())


def parse_transaction(data: bytes) -> ParsedTransaction:
    """Decode a signed transaction strictly; raise `Malformed`."""
    signed = decode(SignedTransaction, data)
    if len(signed.signature) not in (0, 64):
        raise Malformed("a signature has 64 bytes")
    envelope = decode(Envelope, signed.envelope)
    return ParsedTransaction(data, signed, envelope, compute_tx_id(signed.envelope))


def compute_tx_id(envelope: bytes) -> bytes:
    """The id of a transaction: BLAKE3 over the signed bytes, whatever the signature."""
    return hash_domain(DOMAIN_TRANSACTION, envelope)


def compute_envelope_hash(data: bytes) -> bytes:
    """Hash of the whole signed transaction, signatures included, as the log records it."""
    return hash_domain(DOMAIN_ENVELOPE, data)


def verify_envelope(parsed: ParsedTransaction) -> bool:
    """Whether the envelope's signature and every cosignature are right."""
    signed, key = parsed.signed, parsed.envelope.key
    pairs = ((key, signed.signature), *((item.key, item.signature) for item in signed.cosignatures))
    return all(
        is_signed(key, DOMAIN_TRANSACTION, signed.envelope, signature) for key, signature in pairs
    )


def verify_operations(
    parsed: ParsedTransaction, is_claim_true: Callable[..., bool] = is_signed
) -> tuple[bool, ...]:
    """Whether all signatures inside an operation are right, for each operation.

    `is_claim_true` takes what `is_signed` takes, and may remember what was asked before.
    """
    envelope = parsed.envelope
    return tuple(
        all(is_claim_true(*claim) for claim in operation.signatures(envelope.chain_id))
        for operation in envelope.operations[:OPERATIONS_MAX]
    )


def verify_transaction(
    parsed: ParsedTransaction, is_claim_true: Callable[..., bool] = is_signed
) -> SignatureCheck:
    """Check every signature that a transaction carries. Pure and slow: some 50 µs for each."""
    if not verify_envelope(parsed):
        return NOT_VALID
    return SignatureCheck(True, verify_operations(parsed, is_claim_true))


def verify_entry(
    data: bytes, verify: Callable[[bytes], SignatureCheck] | None = None
) -> tuple[SignatureCheck, ...]:
    """The signature checks of an entry, one for each transaction, for `transition.apply`.

    `verify` lets a member remember what it verified at admission; by default all are checked.
    """
    try:
        entry = decode(Entry, data)
    except Malformed:
        return ()
    check = verify or verify_transaction_bytes
    return tuple(check(transaction) for transaction in entry.transactions)


def verify_transaction_bytes(
    data: bytes, is_claim_true: Callable[..., bool] = is_signed
) -> SignatureCheck:
    """`verify_transaction` of bytes; what does not parse has no valid signature."""
    if len(data) > TRANSACTION_BYTES_MAX:
        return NOT_VALID
    try:
        return verify_transaction(parse_transaction(data), is_claim_true)
    except Malformed:
        return NOT_VALID


def sign_transaction(
    seed: bytes,
    *,
    chain_id: bytes,
    nonce: int,
    valid_until_ms: int,
    operations: Sequence[AnyOperation],
    account: bytes | None = None,
    cosigner_seeds: Sequence[bytes] = (),
) -> bytes:
    """Build and sign a transaction; `account` is the key's own unless given."""
    key = public_key(seed)
    envelope = encode(
        Envelope(1, chain_id, account or key, key, nonce, valid_until_ms, tuple(operations))
    )
    cosignatures = tuple(
        Cosignature(public_key(other), sign(other, DOMAIN_TRANSACTION, envelope))
        for other in cosigner_seeds
    )
    return encode(
        SignedTransaction(envelope, sign(seed, DOMAIN_TRANSACTION, envelope), cosignatures)
    )


# All that these build upon as well: records, commitments, genesis, operations.
prepare(*Record.__subclasses__())
