"""Settlement receipts: that a node was paid for a task, verifiable by anyone, offline, for years.

One file, text armour around one canonical record. It holds the genesis (whose hash is the chain
id), the batch leaf with its Merkle path, the batch header, the header's inclusion in the batch log,
the members' cosigned checkpoints, and the worker's signed commitment. `check_receipt` raises unless
every step holds, and says in its report what was checked and what cannot be checked offline.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchors.notary import (
    NotaryEvidence,
    batch_origin,
    check_note,
    transaction_origin,
)
from vcp_cluster.ledger.commitments import Commitment, commitment_hash
from vcp_cluster.ledger.domains import DOMAIN_COMMITMENT
from vcp_cluster.ledger.encoding import (
    ChainId,
    Hash,
    Malformed,
    Record,
    ShortText,
    Signature,
    Unsigned,
    decode,
    decode_stored,
    encode,
    prepare,
)
from vcp_cluster.ledger.genesis import (
    Genesis,
    GenesisInvalid,
    check_genesis,
    compute_chain_id,
    member_names,
)
from vcp_cluster.ledger.keys import is_signed
from vcp_cluster.ledger.merkle import (
    BLAKE3_TREE,
    RFC9162,
    ProofInvalid,
    check_inclusion,
    inclusion_proof,
    inclusion_proof_of,
)
from vcp_cluster.ledger.notes import NoteError
from vcp_cluster.ledger.records import AnchorStatus, BatchLeaf, TaskStatus
from vcp_cluster.ledger.settlement import BatchHeader, header_leaf_hash
from vcp_cluster.ledger.state import State

RECEIPT_VERSION = 1
RECEIPT_BYTES_MAX = 256 * 1024
_BEGIN = "-----BEGIN VCP SETTLEMENT RECEIPT-----"
_END = "-----END VCP SETTLEMENT RECEIPT-----"
_LINE = 76

Path = Annotated[tuple[Hash, ...], Meta(max_length=64)]


class SettlementReceipt(Record, frozen=True):
    """All that `check_receipt` needs besides the chain id."""

    version: Annotated[int, Meta(ge=1, le=1)]
    chain_id: ChainId
    genesis: Genesis
    leaf: BatchLeaf
    leaf_index: Unsigned
    leaf_path: Path
    header: Annotated[bytes, Meta(max_length=1024)]
    header_path: Path
    anchor: ShortText
    evidence: NotaryEvidence
    commitment: Commitment
    commitment_signature: Signature


class ReceiptInvalid(ValueError):
    """The receipt does not show what it claims; the message says which step failed."""


class NotReady(ValueError):
    """There is no receipt yet; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ReceiptReport:
    """What a valid receipt shows. `checked` and `unchecked` are lines for people."""

    chain_id: bytes
    cluster_name: str
    task: bytes
    payee: bytes
    amount: int
    output_hash: bytes
    batch: int
    leaf_index: int
    leaf_count: int
    log_size: int
    members: tuple[str, ...]
    checked: tuple[tuple[str, str], ...]
    unchecked: tuple[str, ...]


# --- made by a member --------------------------------------------------------------------------


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
    if task.batch > batches.anchor_final:
        raise NotReady(f"batch {task.batch} is sealed, and its anchor is not final yet")
    proof = state.get_proof(task.proof)
    header = state.overlay.get(schema.HEADER + schema.u64(task.batch))
    anchor = state.get_anchor(_covering_anchor(state, task.batch))
    assert proof is not None and header is not None and anchor is not None, "settled"
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
        header_path=tuple(
            inclusion_proof(
                RFC9162, _tree_reader(state, schema.HEADER_TREE), task.batch - 1, anchor.size
            )
        ),
        anchor=anchor.backend,
        evidence=decode_stored(NotaryEvidence, anchor.evidence),
        commitment=proof.commitment,
        commitment_signature=proof.signature,
    )


def _covering_anchor(state: State, batch: int) -> int:
    """Size of the first final anchor that covers a batch."""
    for key, _ in state.overlay.iterate(schema.ANCHOR):
        size = int.from_bytes(key[len(schema.ANCHOR) :], "big")
        anchor = state.get_anchor(size)
        if size >= batch and anchor is not None and anchor.status == AnchorStatus.FINAL:
            return size
    raise NotReady(f"no final anchor covers batch {batch} yet")


def _tree_reader(state: State, prefix: bytes) -> Callable[[int, int], bytes]:
    def read(level: int, index: int) -> bytes:
        value = state.overlay.get(schema.tree_key(prefix, level, index))
        assert value is not None, "complete subtrees are stored"
        return value

    return read


def format_receipt(receipt: SettlementReceipt) -> str:
    """The receipt as a text file."""
    text = base64.b64encode(encode(receipt)).decode("ascii")
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join([_BEGIN, *lines, _END, ""])


# --- checked by anyone -------------------------------------------------------------------------


def parse_receipt(data: bytes) -> SettlementReceipt:
    """Read a receipt file strictly; raise `ReceiptInvalid`."""
    if len(data) > RECEIPT_BYTES_MAX:
        raise ReceiptInvalid(f"the file is larger than {RECEIPT_BYTES_MAX} bytes")
    try:
        lines = data.decode("ascii").split("\n")
    except UnicodeDecodeError:
        raise ReceiptInvalid("the file is not ASCII text") from None
    if len(lines) < 4 or lines[0] != _BEGIN or lines[-2:] != [_END, ""]:
        raise ReceiptInvalid("the file does not begin and end as a settlement receipt")
    body = lines[1:-2]
    if any(len(line) != _LINE for line in body[:-1]) or not 0 < len(body[-1]) <= _LINE:
        raise ReceiptInvalid("the lines do not have the length that a receipt has")
    text = "".join(body)
    try:
        record = base64.b64decode(text, validate=True)
        if base64.b64encode(record).decode("ascii") != text:
            raise ReceiptInvalid("the base64 text is not canonical")
        return decode(SettlementReceipt, record)
    except (binascii.Error, Malformed) as error:
        raise ReceiptInvalid(f"the content cannot be read: {error}") from None


def check_receipt(data: bytes, chain_id: bytes) -> ReceiptReport:
    """Check every step of a receipt against the 16-byte id of the cluster that the caller trusts.

    Raises `ReceiptInvalid` at the first step that fails. Uses hashes and signatures only.
    """
    receipt = parse_receipt(data)
    genesis = receipt.genesis
    _check_cluster(receipt, chain_id)
    leaf, header = receipt.leaf, _check_batch(receipt)
    _check_commitment(receipt)
    members, log_size, tx_size = _check_evidence(receipt, header)
    names = ", ".join(members)
    unchecked = (
        (
            f"that the operators of {genesis.cluster_name} do not collude: "
            "the notary shows their keys' word, not Bitcoin's"
        ),
        (
            "that the output is right: run the task again "
            f"(module {receipt.commitment.module_hash.hex()[:16]}…, "
            f"input {receipt.commitment.input_hash.hex()[:16]}…)"
        ),
    )
    checked = (
        ("cluster", f"genesis of {genesis.cluster_name}, chain id {chain_id.hex()}"),
        ("worker's word", "commitment signed by the node that was paid"),
        ("in the batch", f"inclusion proof, {len(receipt.leaf_path)} hashes"),
        ("in the batch log", f"inclusion proof, {len(receipt.header_path)} hashes"),
        ("notary", f"checkpoint of {log_size} batches cosigned by {names}"),
        ("transaction log", f"checkpoint of {tx_size} transactions cosigned by {names}"),
    )
    return ReceiptReport(
        chain_id=chain_id,
        cluster_name=genesis.cluster_name,
        task=leaf.task,
        payee=leaf.payee,
        amount=leaf.amount,
        output_hash=leaf.output_hash,
        batch=header.batch,
        leaf_index=receipt.leaf_index,
        leaf_count=header.count,
        log_size=log_size,
        members=members,
        checked=checked,
        unchecked=unchecked,
    )


def _check_cluster(receipt: SettlementReceipt, chain_id: bytes) -> None:
    try:
        check_genesis(receipt.genesis)
    except GenesisInvalid as error:
        raise ReceiptInvalid(f"the genesis inside is invalid: {error}") from None
    if receipt.chain_id != compute_chain_id(receipt.genesis):
        raise ReceiptInvalid("the genesis inside does not give the receipt's chain id")
    if receipt.chain_id != chain_id:
        raise ReceiptInvalid(
            f"it is of the cluster {receipt.chain_id.hex()}, not of {chain_id.hex()}"
        )


def _check_batch(receipt: SettlementReceipt) -> BatchHeader:
    """Leaf → settlement root → header of this cluster."""
    try:
        header = BatchHeader.decode(receipt.header)
    except ValueError as error:
        raise ReceiptInvalid(str(error)) from None
    if header.chain_tag != receipt.chain_id[:8]:
        raise ReceiptInvalid("the batch header is of another cluster")
    try:
        check_inclusion(
            BLAKE3_TREE,
            BLAKE3_TREE.leaf(encode(receipt.leaf)),
            receipt.leaf_index,
            header.count,
            receipt.leaf_path,
            header.settlement_root,
        )
    except ProofInvalid as error:
        raise ReceiptInvalid(f"the payment is not in the batch: {error}") from None
    if not header.first <= receipt.leaf.height <= header.last:
        raise ReceiptInvalid("the payment's height is outside the batch")
    return header


def _check_commitment(receipt: SettlementReceipt) -> None:
    """The commitment that was paid for is the one inside, and the paid node signed it."""
    commitment, leaf = receipt.commitment, receipt.leaf
    if commitment_hash(commitment) != leaf.commitment_hash:
        raise ReceiptInvalid("the commitment inside is not the one that was paid for")
    named = (commitment.task, commitment.attempt, commitment.node, commitment.output_hash)
    if named != (leaf.task, leaf.attempt, leaf.node, leaf.output_hash):
        raise ReceiptInvalid("commitment and payment name different runs")
    if commitment.chain_id != receipt.chain_id or leaf.payee != leaf.node:
        raise ReceiptInvalid("commitment and payment are of different clusters or payees")
    message = encode(commitment)
    if not is_signed(commitment.node, DOMAIN_COMMITMENT, message, receipt.commitment_signature):
        raise ReceiptInvalid("the node's signature over its commitment is wrong")


def _check_evidence(
    receipt: SettlementReceipt, header: BatchHeader
) -> tuple[tuple[str, ...], int, int]:
    """Header → batch log → checkpoints that a majority of the members cosigned."""
    genesis = receipt.genesis
    if receipt.anchor != "notary":
        raise ReceiptInvalid(f"unknown anchor {receipt.anchor!r}: use a newer version")
    try:
        batches, batch_members = check_note(genesis, receipt.evidence.batch_note)
        transactions, log_members = check_note(genesis, receipt.evidence.transaction_note)
    except NoteError as error:
        raise ReceiptInvalid(f"the notary's checkpoint does not hold: {error}") from None
    if batches.origin != batch_origin(genesis):
        raise ReceiptInvalid("the cosigned checkpoint is of another log")
    if transactions.origin != transaction_origin(genesis):
        raise ReceiptInvalid("the cosigned transaction checkpoint is of another log")
    try:
        check_inclusion(
            RFC9162,
            header_leaf_hash(receipt.header),
            header.batch - 1,
            batches.size,
            receipt.header_path,
            batches.root,
        )
    except ProofInvalid as error:
        raise ReceiptInvalid(f"the batch is not in the cosigned log: {error}") from None
    if transactions.size < header.log_size:
        raise ReceiptInvalid("the cosigned transaction log ends before the batch")
    known = set(member_names(genesis).values())
    members = tuple(sorted(set(batch_members) & set(log_members) & known))
    return members, batches.size, transactions.size


prepare(SettlementReceipt)
