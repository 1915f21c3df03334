"""The notary: checkpoints of both logs, cosigned by a majority of the members.

It shows that a majority of the operators' keys saw this history and no other. It is not Bitcoin:
operators who collude can rewrite it. Both checkpoints of an anchor travel together, the batch log's
at the anchored size and the transaction log's at the size named by the newest header.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Malformed, Record, decode
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id, majority
from vcp_cluster.ledger.merkle import RFC9162, Frontier
from vcp_cluster.ledger.notes import (
    Checkpoint,
    NoteError,
    check_cosignature,
    match_cosignatures,
    parse_note,
)
from vcp_cluster.ledger.records import Anchor
from vcp_cluster.ledger.settlement import BatchHeader
from vcp_cluster.ledger.state import State

NOTE_BYTES_MAX = 30_000


class NotaryEvidence(Record, frozen=True):
    """Two cosigned notes: of the batch log and of the transaction log."""

    batch_note: Annotated[bytes, Meta(max_length=NOTE_BYTES_MAX)]
    transaction_note: Annotated[bytes, Meta(max_length=NOTE_BYTES_MAX)]


def batch_origin(genesis: Genesis) -> str:
    """Origin line of the batch log's checkpoints."""
    return f"vcp/{compute_chain_id(genesis).hex()}/batch"


def transaction_origin(genesis: Genesis) -> str:
    """Origin line of the transaction log's checkpoints."""
    return f"vcp/{compute_chain_id(genesis).hex()}/tx"


def compute_checkpoints(state: State) -> tuple[Checkpoint, Checkpoint]:
    """The checkpoints that the next anchor publishes: batch log, transaction log.

    Only called when at least one batch is sealed.
    """
    batches = state.get_settlement()
    data = state.overlay.get(schema.HEADER + schema.u64(batches.headers))
    assert data is not None, "the newest header is stored"
    header = BatchHeader.decode(data)
    root = Frontier.decode(batches.headers_frontier).root(RFC9162)
    return (
        Checkpoint(batch_origin(state.genesis), batches.headers, root),
        Checkpoint(transaction_origin(state.genesis), header.log_size, header.log_root),
    )


def compute_raw(state: State) -> bytes:
    """What is published: the two checkpoint bodies, one after the other."""
    return b"".join(checkpoint.body() for checkpoint in compute_checkpoints(state))


def check_note(genesis: Genesis, note: bytes) -> tuple[Checkpoint, list[str]]:
    """Check that a majority of members cosigned a note; returns it and the members' names.

    Raises `NoteError` for anything less.
    """
    checkpoint, lines = parse_note(note)
    witnesses = {member.name: member.key for member in genesis.members}
    cosignatures = match_cosignatures(lines, witnesses)
    for cosignature in cosignatures:
        check_cosignature(checkpoint, cosignature)
    names = sorted({cosignature.name for cosignature in cosignatures})
    if len(names) < majority(genesis):
        raise NoteError(
            f"cosigned by {len(names)} of {len(genesis.members)} members, "
            f"{majority(genesis)} are needed"
        )
    return checkpoint, names


class Notary:
    """`AnchorBackend` of the embedded default. Its word does not depend on the one before."""

    label = "operators only, not Bitcoin"
    is_leased = False

    def network(self, genesis: Genesis) -> bytes:
        """The cluster itself."""
        return compute_chain_id(genesis)

    def check_variant(
        self, state: State, previous: Anchor | None, payload: bytes, raw: bytes
    ) -> Code:
        """Whether `raw` is the two checkpoints of this moment."""
        if state.get_settlement().headers == 0 or raw != compute_raw(state):
            return Code.ANCHOR_INTENT_MISMATCH
        return Code.OK

    def check_bump(self, state: State, previous: Anchor | None, anchor: Anchor, raw: bytes) -> Code:
        """Nothing can be paid for more speed."""
        return Code.ANCHOR_FEE_INVALID

    def is_seated(self, genesis: Genesis, previous: Anchor | None, anchor: Anchor) -> bool:
        """It can always be cosigned."""
        return True

    def find_variant(
        self, genesis: Genesis, previous: Anchor | None, anchor: Anchor, evidence: bytes
    ) -> int | None:
        """The one variant, if a majority of members cosigned both checkpoints of the intent."""
        try:
            notes = decode(NotaryEvidence, evidence)
            batch, _ = check_note(genesis, notes.batch_note)
            transaction, _ = check_note(genesis, notes.transaction_note)
        except (Malformed, NoteError):
            return None
        return 0 if batch.body() + transaction.body() == anchor.raws[0] else None

    def is_final(self, genesis: Genesis, anchor: Anchor, finality: bytes) -> bool:
        """A cosignature is not taken back."""
        return finality == b""
