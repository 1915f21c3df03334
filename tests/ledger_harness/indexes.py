"""The indexes (keys that start with `~`) computed again from the records alone.

Three need more than records: `~t` and `~i` are found in the kept envelopes, and `~b` and `~r` need
the time at which a task ended, which no record holds.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Iterator, Mapping

from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Malformed, decode, encode
from vcp_cluster.ledger.genesis import Parameters
from vcp_cluster.ledger.merkle import RFC9162, root_of
from vcp_cluster.ledger.nodes import compute_health
from vcp_cluster.ledger.operations import SubmitTask
from vcp_cluster.ledger.records import (
    Account,
    Head,
    LogLeaf,
    Node,
    NonceRecord,
    Proof,
    ProofStatus,
    Task,
    TaskStatus,
    compute_node_class,
)
from vcp_cluster.ledger.schema import CountKind, DeadlineKind
from vcp_cluster.ledger.settlement import header_leaf_hash
from vcp_cluster.ledger.state import Overlay, State, View
from vcp_cluster.ledger.tasks import compute_task_id
from vcp_cluster.ledger.transactions import Envelope, parse_transaction

Index = dict[bytes, bytes]
PRESENT = b"\x01"
FINISHED = (TaskStatus.ACCEPTED, TaskStatus.EXPIRED, TaskStatus.CANCELLED)
FANOUT, LEVELS = 64, 3


def rebuild_indexes(view: View, finished_ms: Mapping[bytes, int]) -> Index:
    """Every index that should be there, except `~e` (envelopes) and `~H` (the head)."""
    state = State(Overlay(view))
    head, parameters = state.get_head(), state.genesis.parameters
    index: Index = {}
    index |= _nodes(view, parameters)
    index |= _tasks(view, head, parameters, finished_ms)
    index |= _proofs(view)
    index |= _log(view)
    index |= _tree(schema.LOG_TREE, [RFC9162.leaf(value) for _, value in records(view, b"l")])
    headers = [header_leaf_hash(value) for _, value in records(view, schema.HEADER)]
    index |= _tree(schema.HEADER_TREE, headers)
    for identity, value in records(view, schema.NONCE):
        until = decode(NonceRecord, value).valid_until_ms
        index[schema.NONCE_EXPIRY + schema.u64(until) + identity] = PRESENT
    return index


def records(view: View, prefix: bytes) -> list[tuple[bytes, bytes]]:
    """(key without its prefix, value) of all records of a kind."""
    return [(key[len(prefix) :], value) for key, value in view.iterate(prefix)]


def expected_weight(view: View, identity: bytes, node: Node, parameters: Parameters) -> int:
    """A node's weight: its health if it may be drawn, else 0."""
    data = view.get(schema.ACCOUNT + identity)
    stake = 0 if data is None else decode(Account, data).stake
    assert node.health == compute_health(node)
    drawable = node.is_online and not node.is_safe_mode and node.running < node.capacity
    return node.health if drawable and stake >= parameters.stake_min else 0


def weight_tree(weights: Mapping[int, int]) -> Index:
    """The selection tree over weights by slot, without its all-zero nodes."""
    index: Index = {}
    values: dict[int, int] = {slot: weight for slot, weight in weights.items() if weight}
    for level in range(LEVELS):
        groups: dict[int, list[int]] = {}
        for child, value in values.items():
            groups.setdefault(child // FANOUT, [0] * FANOUT)[child % FANOUT] = value
        for number, group in groups.items():
            index[schema.weight_key(level, number)] = struct.pack(f">{FANOUT}I", *group)
        values = {number: sum(group) for number, group in groups.items()}
    return index


def _counts(kind: CountKind, classes: list[int]) -> Index:
    return {
        schema.count_key(kind, class_): schema.u64(number)
        for class_, number in Counter(classes).items()
    }


def _nodes(view: View, parameters: Parameters) -> Index:
    nodes = [(identity, decode(Node, value)) for identity, value in records(view, schema.NODE)]
    index: Index = {schema.SLOT + schema.u32(node.slot): identity for identity, node in nodes}
    assert len(index) == len(nodes), "two nodes share a slot"
    if nodes:
        index[schema.NODE_COUNT] = schema.u64(len(nodes))
    index |= weight_tree(
        {node.slot: expected_weight(view, identity, node, parameters) for identity, node in nodes}
    )
    return index | _counts(CountKind.NODE, [compute_node_class(node) for _, node in nodes])


def _tasks(
    view: View, head: Head, parameters: Parameters, finished_ms: Mapping[bytes, int]
) -> Index:
    tasks = [(identity, decode(Task, value)) for identity, value in records(view, schema.TASK)]
    index = _counts(CountKind.TASK, [task.status for _, task in tasks])
    for identity, task in tasks:
        index |= dict.fromkeys(_blob_references(view, identity, task), PRESENT)
        if task.status in FINISHED:
            due_ms = finished_ms[identity] + parameters.blob_retention_ms
            if due_ms < head.time_ms:
                for key in _blob_references(view, identity, task):
                    index.pop(key, None)
            else:
                index[schema.RETENTION + schema.u64(due_ms) + identity] = encode(due_ms)
            continue
        if task.closes_ms > head.active_ms:
            kind = DeadlineKind.TASK_OPEN
            index[schema.deadline_key(task.closes_ms, kind, identity)] = PRESENT
        if task.status == TaskStatus.OPEN:
            assert task.queue_key.startswith(schema.OPEN_TASK)
            index[task.queue_key] = PRESENT
        elif task.status == TaskStatus.ASSIGNED:
            last = task.assignments[-1]
            kind = DeadlineKind.ASSIGNMENT
            index[schema.deadline_key(last.deadline_ms, kind, identity)] = PRESENT
            index[schema.RUNNING + last.node + identity] = PRESENT
    return index


def _blob_references(view: View, identity: bytes, task: Task) -> Iterator[bytes]:
    blobs = {task.module_hash, task.input_hash}
    for assignment in task.assignments:
        data = view.get(schema.PROOF + assignment.proof) if assignment.proof else None
        if data is not None:
            commitment = decode(Proof, data).commitment
            blobs |= {commitment.output_hash} if commitment.output_length else set()
    return (schema.BLOB_REFERENCE + blob + identity for blob in sorted(blobs))


def _proofs(view: View) -> Index:
    index: Index = {}
    for identity, value in records(view, schema.PROOF):
        proof = decode(Proof, value)
        if proof.status == ProofStatus.COMMITTED:
            index[schema.DRAW + schema.u64(proof.height) + identity] = PRESENT
        if proof.status in (ProofStatus.AUDITED_BY_ONE, ProofStatus.AUDITED_BY_ALL):
            asks_one = proof.status == ProofStatus.AUDITED_BY_ONE
            index[schema.AUDIT + identity] = proof.verifier if asks_one else b""
        if proof.status == ProofStatus.AUDITED_BY_ONE:
            kind = DeadlineKind.AUDIT_SILENCE
            index[schema.deadline_key(proof.silence_ms, kind, identity)] = PRESENT
    return index


def _log(view: View) -> Index:
    index: Index = {}
    for number, value in records(view, schema.LOG_LEAF):
        leaf = decode(LogLeaf, value)
        envelope = view.get(schema.ENVELOPE + number)
        assert envelope is not None, "every leaf keeps its envelope"
        try:
            parsed = parse_transaction(envelope)
        except Malformed:
            assert leaf.code in (Code.MALFORMED, Code.TOO_LARGE)
            continue
        if leaf.code == Code.OK:
            for key in _task_keys(leaf, parsed.envelope, parsed.tx_id):
                index[key] = PRESENT
        key = schema.TRANSACTION + parsed.tx_id
        if leaf.code == Code.OK or leaf.code > Code.NONCE_REUSED:
            index[key] = number
    return index


def _task_keys(leaf: LogLeaf, envelope: Envelope, tx_id: bytes) -> Iterator[bytes]:
    for number, operation in enumerate(envelope.operations):
        if isinstance(operation, SubmitTask):
            identity = compute_task_id(tx_id, number)
            place = leaf.position * 128 + number
            yield schema.order_key(schema.TASK_ORDER, leaf.height, place, identity)


def _tree(prefix: bytes, leaves: list[bytes]) -> Index:
    """Every complete subtree, each computed from its leaves alone."""
    index: Index = {}
    level = 0
    while 1 << level <= len(leaves):
        width = 1 << level
        for number in range(len(leaves) // width):
            part = leaves[number * width : (number + 1) * width]
            index[schema.tree_key(prefix, level, number)] = root_of(RFC9162, part)
        level += 1
    return index
