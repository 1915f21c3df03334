"""Settlement batches: accepted rewards as leaves, sealed into headers that are anchored.

A leaf joins the open batch's BLAKE3 frontier when its task is accepted. Sealing writes one header of
fixed length, chained to the one before; headers are leaves of an RFC 6962 log (SHA-256), and the
root of that log is what anchors publish.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import msgspec

from vcp_cluster.ledger import money, schema
from vcp_cluster.ledger.commitments import commitment_hash
from vcp_cluster.ledger.domains import DOMAIN_HEADER
from vcp_cluster.ledger.encoding import INTEGER_MAX, encode
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.keys import hash_domain
from vcp_cluster.ledger.merkle import BLAKE3_TREE, RFC9162, Frontier
from vcp_cluster.ledger.records import (
    RECORD_VERSION,
    BatchLeaf,
    Head,
    Proof,
    Settlement,
    Task,
)
from vcp_cluster.ledger.state import State

_replace = msgspec.structs.replace

# notes of the format: first byte 0x00, so that SHA-256 of the file is the RFC 6962 leaf hash of
# what follows that byte. Big endian, no padding.
_HEADER = struct.Struct(">BB8sQQQI32s32s32sQQQ32sQ")
HEADER_BYTES = _HEADER.size
HEADER_FLAGS = 1  # format version
CONFIGURATION_GENESIS = 0

assert HEADER_BYTES == 198


@dataclass(frozen=True, slots=True)
class BatchHeader:
    """The header of a sealed batch. `first` and `last` are heights of acceptance.

    `state_root` and the transaction log are those after the entry before the sealing one.
    """

    chain_tag: bytes
    batch: int
    first: int
    last: int
    count: int
    settlement_root: bytes
    state_root: bytes
    previous: bytes
    time_ms: int
    height: int
    log_size: int
    log_root: bytes
    configuration: int

    def encode(self) -> bytes:
        """The 198 bytes that are hashed."""
        return _HEADER.pack(
            0,
            HEADER_FLAGS,
            self.chain_tag,
            self.batch,
            self.first,
            self.last,
            self.count,
            self.settlement_root,
            self.state_root,
            self.previous,
            self.time_ms,
            self.height,
            self.log_size,
            self.log_root,
            self.configuration,
        )

    @classmethod
    def decode(cls, data: bytes) -> BatchHeader:
        """Read 198 bytes; raise `ValueError` if they are not a header of this version."""
        if len(data) != HEADER_BYTES:
            raise ValueError(f"a batch header has {HEADER_BYTES} bytes, not {len(data)}")
        zero, flags, *fields = _HEADER.unpack(data)
        if zero != 0 or flags != HEADER_FLAGS:
            raise ValueError("not a batch header of version 1")
        return cls(*fields)


def header_hash(header: bytes) -> bytes:
    """What the next header names as the previous one."""
    return hash_domain(DOMAIN_HEADER, header)


def header_leaf_hash(header: bytes) -> bytes:
    """RFC 6962 leaf hash of a header: plain SHA-256 of its bytes, which start with 0x00."""
    return RFC9162.leaf(header[1:])


def initial_settlement() -> Settlement:
    """An open batch 1 and an empty log of headers."""
    empty = Frontier.empty().encode()
    return Settlement(
        version=RECORD_VERSION,
        batch=1,
        count=0,
        total=0,
        pending=0,
        first_height=0,
        last_height=0,
        frontier=empty,
        previous_header=bytes(32),
        headers=0,
        headers_frontier=empty,
    )


def add_leaf(state: State, task: Task, proof: Proof, *, head: Head) -> tuple[int, int]:
    """Pay an accepted task into the open batch; returns its batch and leaf number."""
    open_batch = state.get_settlement()
    parameters = state.genesis.parameters
    commitment = proof.commitment
    payee = commitment.node
    missing = max(0, parameters.stake_target - money.stake(state, payee))
    retained = min(task.reward * parameters.stake_retained_bp // 10_000, missing)
    balance = money.pay_escrow(
        state,
        client=task.client,
        payee=payee,
        amount=task.reward,
        retained=retained,
        batch=open_batch.batch,
    )
    leaf = encode(
        BatchLeaf(
            version=RECORD_VERSION,
            task=commitment.task,
            attempt=commitment.attempt,
            node=commitment.node,
            payee=payee,
            amount=task.reward,
            balance=balance,
            output_hash=commitment.output_hash,
            commitment_hash=commitment_hash(commitment),
            height=head.height,
        )
    )
    state.overlay.put(schema.batch_leaf_key(open_batch.batch, open_batch.count), leaf)
    frontier = Frontier.decode(open_batch.frontier).append(BLAKE3_TREE, BLAKE3_TREE.leaf(leaf))
    state.put_settlement(
        _replace(
            open_batch,
            count=open_batch.count + 1,
            # Retained stake can be spent again before the batch is sealed, so that its total is not
            # bounded by the supply: it stops at the largest integer that a record holds.
            total=min(INTEGER_MAX, open_batch.total + task.reward),
            pending=open_batch.pending + task.reward - retained,
            first_height=open_batch.first_height or head.height,
            last_height=head.height,
            frontier=frontier.encode(),
        )
    )
    return open_batch.batch, open_batch.count


def seal(state: State, *, head: Head, root: bytes) -> bytes:
    """Close the open batch and open the next; returns the header. Logarithmic in its size."""
    batch = state.get_settlement()
    log = state.get_log()
    header = BatchHeader(
        chain_tag=compute_chain_id(state.genesis)[:8],
        batch=batch.batch,
        first=batch.first_height,
        last=batch.last_height,
        count=batch.count,
        settlement_root=Frontier.decode(batch.frontier).root(BLAKE3_TREE),
        state_root=root,
        previous=batch.previous_header,
        time_ms=head.time_ms,
        height=head.height,
        log_size=log.size,
        log_root=Frontier.decode(log.frontier).root(RFC9162),
        configuration=CONFIGURATION_GENESIS,
    ).encode()
    headers = Frontier.decode(batch.headers_frontier)
    headers, tree = headers.append_with_nodes(RFC9162, header_leaf_hash(header))
    for level, index, value in tree:
        state.overlay.put(schema.tree_key(schema.HEADER_TREE, level, index), value)
    state.overlay.put(schema.HEADER + schema.u64(batch.batch), header)
    money.release_pending(state, batch.pending)
    state.put_settlement(
        _replace(
            batch,
            batch=batch.batch + 1,
            count=0,
            total=0,
            pending=0,
            first_height=0,
            last_height=0,
            frontier=Frontier.empty().encode(),
            previous_header=header_hash(header),
            headers=headers.size,
            headers_frontier=headers.encode(),
        )
    )
    return header
