"""Settlement receipts: that a node was paid for a task, verifiable by anyone, offline, for years.

One file, text armour around one canonical record. It holds the genesis (whose hash is the chain
id), the batch leaf with its Merkle path, the batch header, the worker's signed commitment, and for
each anchor that covers the batch the header's inclusion in the batch log and what shows that the log
was published. `check_receipt` raises unless every step holds, and says in its report what was
checked and what cannot be checked offline. `receipt_builder` makes receipts.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY
from vcp_cluster.ledger.anchors import bitcoin_proof, notary_proof
from vcp_cluster.ledger.anchors.bitcoin_proof import AnchoredBlock, BitcoinProof, describe_block
from vcp_cluster.ledger.anchors.notary_proof import NotaryProof
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid
from vcp_cluster.ledger.commitments import Commitment, commitment_hash
from vcp_cluster.ledger.domains import DOMAIN_COMMITMENT
from vcp_cluster.ledger.encoding import (
    ChainId,
    Hash,
    Malformed,
    Record,
    Signature,
    Unsigned,
    decode,
    encode,
    prepare,
)
from vcp_cluster.ledger.genesis import (
    Genesis,
    GenesisInvalid,
    check_genesis,
    compute_chain_id,
)
from vcp_cluster.ledger.keys import is_signed
from vcp_cluster.ledger.merkle import (
    BLAKE3_TREE,
    ProofInvalid,
    check_inclusion,
)
from vcp_cluster.ledger.notes import NoteError
from vcp_cluster.ledger.records import BatchLeaf
from vcp_cluster.ledger.settlement import BatchHeader

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
    commitment: Commitment
    commitment_signature: Signature
    anchors: Annotated[tuple[NotaryProof | BitcoinProof, ...], Meta(min_length=1, max_length=2)]


class ReceiptInvalid(ValueError):
    """The receipt does not show what it claims; the message says which step failed."""


class NotReady(ValueError):
    """There is no receipt yet; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class ReceiptReport:
    """What a valid receipt shows. `checked` and `unchecked` are lines for people.

    `log_size` is the largest batch log that an anchor of the receipt commits to; `members` are those
    that cosigned, none where there is no notary; `block` is where Bitcoin holds it, if it does.
    """

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
    block: AnchoredBlock | None = None


def format_receipt(receipt: SettlementReceipt) -> str:
    """The receipt as a text file."""
    text = base64.b64encode(encode(receipt)).decode("ascii")
    lines = [text[start : start + _LINE] for start in range(0, len(text), _LINE)]
    return "\n".join([_BEGIN, *lines, _END, ""])


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
    checked = [
        ("cluster", f"genesis of {genesis.cluster_name}, chain id {chain_id.hex()}"),
        ("worker's word", "commitment signed by the node that was paid"),
        ("in the batch", f"inclusion proof, {len(receipt.leaf_path)} hashes"),
    ]
    unchecked = [
        (
            "that the output is right: run the task again "
            f"(module {receipt.commitment.module_hash.hex()[:16]}…, "
            f"input {receipt.commitment.input_hash.hex()[:16]}…)"
        )
    ]
    members: tuple[str, ...] = ()
    block: AnchoredBlock | None = None
    log_size = 0
    for proof in _check_order(receipt):
        checked.append(("in the batch log", f"inclusion proof, {len(proof.header_path)} hashes"))
        if isinstance(proof, NotaryProof):
            members, size, tx_size = _check_notary(receipt, proof)
            names = ", ".join(members)
            checked += [
                ("notary", f"checkpoint of {size} batches cosigned by {names}"),
                ("transaction log", f"checkpoint of {tx_size} transactions cosigned by {names}"),
            ]
            unchecked.append(
                f"that the operators of {genesis.cluster_name} do not collude: "
                "the notary shows their keys' word, not Bitcoin's"
            )
        else:
            block = _check_bitcoin(receipt, proof)
            size = block.log_size
            checked.append(("Bitcoin", f"{describe_block(block)}; log of {size} batches"))
            unchecked += [
                "that no other chain of seals exists: vcp-cluster anchor audit",
                "the block's height: it is what a member's node said",
            ]
        log_size = max(log_size, size)
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
        checked=tuple(checked),
        unchecked=tuple(unchecked),
        block=block,
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


def _check_order(receipt: SettlementReceipt) -> tuple[NotaryProof | BitcoinProof, ...]:
    """The anchors: each backend of genesis at most once, in its order."""
    kinds = [type(proof) for proof in receipt.anchors]
    if kinds not in ([NotaryProof], [BitcoinProof], [NotaryProof, BitcoinProof]):
        raise ReceiptInvalid("an anchor is given twice, or not in order")
    return receipt.anchors


def get_anchor_names(receipt: SettlementReceipt) -> list[str]:
    """Names of the backends whose anchors a receipt carries."""
    return [NOTARY if isinstance(one, NotaryProof) else BITCOIN for one in receipt.anchors]


def _check_notary(
    receipt: SettlementReceipt, proof: NotaryProof
) -> tuple[tuple[str, ...], int, int]:
    """Header → batch log → checkpoints that a majority of the members cosigned."""
    try:
        return notary_proof.check_proof(receipt.genesis, receipt.header, proof)
    except (NoteError, ProofInvalid) as error:
        raise ReceiptInvalid(str(error)) from None


def _check_bitcoin(receipt: SettlementReceipt, proof: BitcoinProof) -> AnchoredBlock:
    """Header → batch log → transaction of the seal's key → block."""
    settings = receipt.genesis.anchors.bitcoin
    if not settings:
        raise ReceiptInvalid("the cluster's genesis names no chain of seals on Bitcoin")
    try:
        return bitcoin_proof.check_proof(settings[0], receipt.header, proof)
    except (BitcoinInvalid, ProofInvalid) as error:
        raise ReceiptInvalid(f"the Bitcoin anchor does not hold: {error}") from None


prepare(SettlementReceipt, NotaryProof, BitcoinProof)
