"""Making settlement receipts from a member's state: see `receipts` for what they hold."""

from __future__ import annotations

from collections.abc import Callable

from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY
from vcp_cluster.ledger.anchors import bitcoin_proof, notary_proof
from vcp_cluster.ledger.anchors.bitcoin_proof import BitcoinProof
from vcp_cluster.ledger.anchors.notary_proof import NotaryProof
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.merkle import (
    BLAKE3_TREE,
    RFC9162,
    inclusion_proof,
    inclusion_proof_of,
)
from vcp_cluster.ledger.receipts import RECEIPT_VERSION, NotReady, SettlementReceipt
from vcp_cluster.ledger.records import Anchor, AnchorStatus, BatchLeaf, TaskStatus
from vcp_cluster.ledger.state import State


def build_receipt(state: State, task_id: bytes) -> SettlementReceipt:
    """The receipt of a settled and anchored task; raise `NotReady` before that."""
    task = state.get_task(task_id)
    if task is None:
        raise NotReady("no task with this id")
    if task.status != TaskStatus.ACCEPTED:
        raise NotReady(f"the task is {TaskStatus(task.status).name.lower()}, not accepted")
    batches = state.get_settlement()
    if task.batch >= batches.batch:
        raise NotReady(f"batch {task.batch} is not sealed yet")
    proof = state.get_proof(task.proof)
    header = state.overlay.get(schema.HEADER + schema.u64(task.batch))
    assert proof is not None and header is not None, "settled"
    anchors = _build_proofs(state, task.batch)
    if not anchors:
        raise NotReady(f"batch {task.batch} is sealed, and its anchor is not final yet")
    leaves = [
        value for _, value in state.overlay.iterate(schema.BATCH_LEAF + schema.u64(task.batch))
    ]
    return SettlementReceipt(
        version=RECEIPT_VERSION,
        chain_id=compute_chain_id(state.genesis),
        genesis=state.genesis,
        leaf=decode_stored(BatchLeaf, leaves[task.leaf]),
        leaf_index=task.leaf,
        leaf_path=tuple(
            inclusion_proof_of(BLAKE3_TREE, [BLAKE3_TREE.leaf(leaf) for leaf in leaves], task.leaf)
        ),
        header=header,
        commitment=proof.commitment,
        commitment_signature=proof.signature,
        anchors=anchors,
    )


def _build_proofs(state: State, batch: int) -> tuple[NotaryProof | BitcoinProof, ...]:
    """What each backend's first final anchor that covers a batch shows; may be none."""
    proofs: list[NotaryProof | BitcoinProof] = []
    for backend in (NOTARY, BITCOIN):
        anchor = _find_covering(state, backend, batch)
        if anchor is None:
            continue
        reader = _tree_reader(state, schema.HEADER_TREE)
        path = tuple(inclusion_proof(RFC9162, reader, batch - 1, anchor.size))
        if backend == NOTARY:
            proofs.append(notary_proof.build_proof(anchor, path))
        else:
            proofs.append(bitcoin_proof.build_proof(state, anchor, path))
    return tuple(proofs)


def _find_covering(state: State, backend: str, batch: int) -> Anchor | None:
    """The first final anchor of a configured backend that covers a batch."""
    if backend not in state.genesis.anchors.backends or batch > state.get_lane(backend).final:
        return None
    prefix = schema.anchor_prefix(backend)
    for key, value in state.overlay.iterate(prefix):
        if int.from_bytes(key[len(prefix) :], "big") >= batch:
            anchor = decode_stored(Anchor, value)
            if anchor.status == AnchorStatus.FINAL:
                return anchor
    return None


def _tree_reader(state: State, prefix: bytes) -> Callable[[int, int], bytes]:
    def read(level: int, index: int) -> bytes:
        value = state.overlay.get(schema.tree_key(prefix, level, index))
        assert value is not None, "complete subtrees are stored"
        return value

    return read
