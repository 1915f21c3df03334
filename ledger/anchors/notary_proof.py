"""The notary's part of a settlement receipt: header → batch log → cosigned checkpoints."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.anchors.notary import (
    NotaryEvidence,
    batch_origin,
    check_note,
    transaction_origin,
)
from vcp_cluster.ledger.encoding import Hash, Record, decode_stored
from vcp_cluster.ledger.genesis import Genesis, member_names
from vcp_cluster.ledger.merkle import PROOF_HASHES_MAX, RFC9162, ProofInvalid, check_inclusion
from vcp_cluster.ledger.notes import NoteError
from vcp_cluster.ledger.records import Anchor
from vcp_cluster.ledger.settlement import BatchHeader, header_leaf_hash


class NotaryProof(Record, frozen=True, tag=1):
    """The path of the batch header to the cosigned root, and both cosigned notes."""

    header_path: Annotated[tuple[Hash, ...], Meta(max_length=PROOF_HASHES_MAX)]
    evidence: NotaryEvidence


def build_proof(anchor: Anchor, header_path: tuple[bytes, ...]) -> NotaryProof:
    """The proof of a final anchor for the batch header whose path is given."""
    return NotaryProof(header_path, decode_stored(NotaryEvidence, anchor.evidence))


def check_proof(
    genesis: Genesis, header_bytes: bytes, proof: NotaryProof
) -> tuple[tuple[str, ...], int, int]:
    """Check that a majority cosigned a log with this header: names, batch and transaction log sizes.

    Raises `NoteError` or `ProofInvalid` at the first step that fails.
    """
    header = BatchHeader.decode(header_bytes)
    try:
        batches, batch_members = check_note(genesis, proof.evidence.batch_note)
        transactions, log_members = check_note(genesis, proof.evidence.transaction_note)
    except NoteError as error:
        raise NoteError(f"the notary's checkpoint does not hold: {error}") from None
    if batches.origin != batch_origin(genesis):
        raise NoteError("the cosigned checkpoint is of another log")
    if transactions.origin != transaction_origin(genesis):
        raise NoteError("the cosigned transaction checkpoint is of another log")
    try:
        check_inclusion(
            RFC9162,
            header_leaf_hash(header_bytes),
            header.batch - 1,
            batches.size,
            proof.header_path,
            batches.root,
        )
    except ProofInvalid as error:
        raise ProofInvalid(f"the batch is not in the cosigned log: {error}") from None
    if transactions.size < header.log_size:
        raise NoteError("the cosigned transaction log ends before the batch")
    known = set(member_names(genesis).values())
    members = tuple(sorted(set(batch_members) & set(log_members) & known))
    return members, batches.size, transactions.size
