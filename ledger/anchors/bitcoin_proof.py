"""That a batch is anchored in Bitcoin, for someone who has a receipt and nothing else.

    header → batch log → OP_RETURN of a transaction → Merkle root of a block → proof of work
    the transaction spends an output that pays the seal's key, which genesis names

The blocks show that work was spent on them, not that they are the best chain; and the transaction
shows that the seal's key made it, not that it made no other. The first needs a pinned header or a
node, the second an audit of the chain of seals.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.anchor_settings import (
    BITCOIN,
    BitcoinSettings,
    funding_of,
    seal_script_of,
)
from vcp_cluster.ledger.anchors.bitcoin import BlockEvidence, parse_variant
from vcp_cluster.ledger.bitcoin.headers import HEADER_BYTES, HEADERS_MAX, decode_target, parse_chain
from vcp_cluster.ledger.bitcoin.networks import find_network
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, to_display
from vcp_cluster.ledger.bitcoin.script import PAYLOAD_MAGIC, find_payload
from vcp_cluster.ledger.bitcoin.seal import find_coin, has_anchor_shape
from vcp_cluster.ledger.bitcoin.spv import DEPTH_MAX, compute_merkle_root
from vcp_cluster.ledger.bitcoin.transaction import Transaction, parse_stripped
from vcp_cluster.ledger.encoding import Hash, Record, Unsigned, decode_stored
from vcp_cluster.ledger.merkle import PROOF_HASHES_MAX, RFC9162, ProofInvalid, check_inclusion
from vcp_cluster.ledger.records import Anchor
from vcp_cluster.ledger.schema import u32
from vcp_cluster.ledger.settlement import BatchHeader, header_leaf_hash
from vcp_cluster.ledger.state import State

STRIPPED_BYTES_MAX = 10_000


class BitcoinProof(Record, frozen=True, tag=2):
    """What the checks need beside the batch header and genesis. Transactions have no witnesses.

    `log_root` is the batch log's at `log_size`; `parent` is the transaction whose output the anchor
    spends; `headers` begin with the block's own. `block_height` is the observer's word.
    """

    log_size: Unsigned
    log_root: Hash
    header_path: Annotated[tuple[Hash, ...], Meta(max_length=PROOF_HASHES_MAX)]
    transaction: Annotated[bytes, Meta(max_length=STRIPPED_BYTES_MAX)]
    parent: Annotated[bytes, Meta(max_length=STRIPPED_BYTES_MAX)]
    index: Unsigned
    branch: Annotated[bytes, Meta(max_length=32 * DEPTH_MAX)]
    headers: Annotated[bytes, Meta(max_length=HEADER_BYTES * HEADERS_MAX)]
    block_height: Unsigned


@dataclass(frozen=True, slots=True)
class AnchoredBlock:
    """What a valid proof shows. Hashes as computed; `work` is the expected number of hashes.

    `network` is None where genesis names none that we know; `has_security` says whether work on it
    costs anything.
    """

    log_size: int
    txid: bytes
    block_hash: bytes
    block_height: int
    header_hashes: tuple[bytes, ...]
    headers: bytes
    work: int
    time_s: int
    network: str | None
    has_security: bool


def build_proof(state: State, anchor: Anchor, header_path: tuple[bytes, ...]) -> BitcoinProof:
    """The proof of a final anchor for the batch header whose path is given."""
    settings = state.genesis.anchors.bitcoin[0]
    previous = state.get_anchor(BITCOIN, anchor.previous) if anchor.previous else None
    evidence = decode_stored(BlockEvidence, anchor.evidence)
    transaction = parse_variant(anchor.raws[anchor.variant])
    return BitcoinProof(
        log_size=anchor.size,
        log_root=anchor.payload[-32:],
        header_path=header_path,
        transaction=transaction.stripped,
        parent=_find_parent(settings, previous, transaction).stripped,
        index=evidence.index,
        branch=evidence.branch,
        headers=evidence.header + anchor.finality,
        block_height=evidence.block_height,
    )


def _find_parent(
    settings: BitcoinSettings, previous: Anchor | None, transaction: Transaction
) -> Transaction:
    """The transaction that `transaction` spends, by its id: `previous` may be retracted by now."""
    if previous is None:
        return funding_of(settings)
    spent = transaction.inputs[0].outpoint.txid
    return next(one for one in map(parse_variant, previous.raws) if one.txid == spent)


def check_proof(settings: BitcoinSettings, header: bytes, proof: BitcoinProof) -> AnchoredBlock:
    """Check that the batch header is anchored by this cluster's seal key.

    Raises `BitcoinInvalid` or `ProofInvalid` at the first step that fails.
    """
    try:
        check_inclusion(
            RFC9162,
            header_leaf_hash(header),
            BatchHeader.decode(header).batch - 1,
            proof.log_size,
            proof.header_path,
            proof.log_root,
        )
    except ProofInvalid as error:
        raise ProofInvalid(f"the batch is not in the anchored log: {error}") from None
    if proof.log_size >= 1 << 32:
        raise BitcoinInvalid("the log's size does not fit in a commitment")
    transaction = parse_stripped(proof.transaction)
    if not has_anchor_shape(transaction):
        raise BitcoinInvalid("the transaction is not built as an anchor is")
    payload = find_payload([one.script for one in transaction.outputs])
    if payload != PAYLOAD_MAGIC + u32(proof.log_size) + proof.log_root:
        raise BitcoinInvalid("the transaction commits to another log")
    parent, script = parse_stripped(proof.parent), seal_script_of(settings)
    spent = transaction.inputs[0].outpoint
    if spent.txid != parent.txid:
        raise BitcoinInvalid("the transaction does not spend its parent")
    find_coin(parent, spent.output, script)
    if transaction.outputs[0].script != script:
        raise BitcoinInvalid("the transaction's first output is not the next seal")
    headers = parse_chain(proof.headers, decode_target(settings.header_bits))
    if len(headers) < settings.confirmations:
        raise BitcoinInvalid(
            f"{len(headers)} headers are given, and genesis asks for {settings.confirmations}"
        )
    root = compute_merkle_root(transaction.txid, proof.index, proof.branch)
    if root != headers[0].merkle_root:
        raise BitcoinInvalid("the transaction is not in the block")
    network = find_network(settings.network)
    return AnchoredBlock(
        log_size=proof.log_size,
        txid=transaction.txid,
        block_hash=headers[0].hash,
        block_height=proof.block_height,
        header_hashes=tuple(one.hash for one in headers),
        headers=proof.headers,
        work=sum(one.work for one in headers),
        time_s=headers[0].time_s,
        network=None if network is None else network.name,
        has_security=network is not None and network.has_security,
    )


def describe_block(block: AnchoredBlock) -> str:
    """One line for people: where and how much work."""
    bits = block.work.bit_length() - 1
    security = (
        "" if block.has_security else f"; {block.network or 'an unknown network'}: no security"
    )
    return (
        f"transaction {to_display(block.txid)[:16]}… in block {block.block_height} "
        f"({to_display(block.block_hash)}), {len(block.header_hashes)} headers, "
        f"2^{bits} hashes of work{security}"
    )
