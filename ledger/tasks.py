"""The life of a task after it was submitted.

    OPEN -> ASSIGNED -> PROVEN -> ACCEPTED (-> SETTLED with its batch)
      ^         |          |
      +---------+----------+   next attempt, or EXPIRED with refund after the last one

These functions are the only ones that move a task from state to state after its submission. None
of them can fail; callers check first.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from vcp_cluster.ledger import money, nodes, schema, selection
from vcp_cluster.ledger.domains import DOMAIN_SELECT, DOMAIN_TASK
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import hash_domain
from vcp_cluster.ledger.records import (
    Assignment,
    AssignmentOutcome,
    Head,
    Task,
    TaskStatus,
)
from vcp_cluster.ledger.schema import DeadlineKind
from vcp_cluster.ledger.state import State

_replace = msgspec.structs.replace
_PRESENT = b"\x01"

# A node whose proof for a task was rejected is not given the same task again.
_EXCLUDING = (AssignmentOutcome.REJECTED,)


def compute_task_id(tx_id: bytes, operation: int) -> bytes:
    """The id of the task that operation number `operation` of a transaction submits."""
    return hash_domain(DOMAIN_TASK, tx_id, schema.u32(operation))


def get_status(state: State, task: Task) -> TaskStatus:
    """The status shown to users: an accepted task is settled once its batch is sealed."""
    status = TaskStatus(task.status)
    if status is TaskStatus.ACCEPTED and task.batch < state.get_settlement().batch:
        return TaskStatus.SETTLED
    return status


def blob_keys(task: Task) -> Iterable[bytes]:
    """Hashes of the blobs that a task needs to be run again."""
    return (task.module_hash, task.input_hash)


def reference_blob(state: State, blob: bytes, task: bytes) -> None:
    """Keep a blob while the task needs it."""
    state.overlay.put(schema.BLOB_REFERENCE + blob + task, _PRESENT)


def open_task(state: State, identity: bytes, task: Task, *, head: Head, number: int) -> None:
    """Write a new task, put it in the queue and start its time to wait."""
    state.overlay.put(schema.order_key(schema.TASK_ORDER, head.height, number, identity), _PRESENT)
    state.overlay.put(
        schema.deadline_key(task.closes_ms, DeadlineKind.TASK_OPEN, identity), _PRESENT
    )
    for blob in blob_keys(task):
        reference_blob(state, blob, identity)
    _enqueue(state, identity, task, height=head.height, number=number)


def _enqueue(state: State, identity: bytes, task: Task, *, height: int, number: int) -> None:
    key = schema.order_key(schema.OPEN_TASK, height, number, identity)
    state.overlay.put(key, _PRESENT)
    state.put_task(identity, _replace(task, status=int(TaskStatus.OPEN), queue_key=key))


def _dequeue(state: State, task: Task) -> None:
    if task.queue_key:
        state.overlay.delete(task.queue_key)


def get_running(state: State, node: bytes) -> list[bytes]:
    """Ids of the tasks that are assigned to a node now: at most its capacity."""
    prefix = schema.RUNNING + node
    return [key[len(prefix) :] for key, _ in state.overlay.iterate(prefix)]


def is_assigned_to(task: Task, node: bytes) -> bool:
    """Whether the running assignment of the task is this node's."""
    return task.status == TaskStatus.ASSIGNED and task.assignments[-1].node == node


def assign(state: State, identity: bytes, task: Task, *, head: Head, root: bytes) -> bool:
    """Draw a node for an open task; False when none can take it now."""
    slot = _draw_slot(state, identity, task, root)
    if slot is None:
        return False
    node_id = nodes.get_node_in_slot(state, slot)
    node = state.get_node(node_id)
    assert node is not None, "a slot belongs to a node"
    _dequeue(state, task)
    deadline = head.active_ms + task.deadline_ms
    assignment = Assignment(
        attempt=task.attempt,
        node=node_id,
        height=head.height,
        time_ms=head.time_ms,
        deadline_ms=deadline,
        outcome=int(AssignmentOutcome.RUNNING),
        proof=b"",
        detail="",
    )
    state.overlay.put(schema.deadline_key(deadline, DeadlineKind.ASSIGNMENT, identity), _PRESENT)
    state.overlay.put(schema.RUNNING + node_id + identity, _PRESENT)
    state.put_task(
        identity,
        _replace(
            task,
            status=int(TaskStatus.ASSIGNED),
            assignments=(*task.assignments, assignment),
            queue_key=b"",
        ),
    )
    nodes.put_node(state, node_id, _replace(node, running=node.running + 1))
    return True


def _draw_slot(state: State, identity: bytes, task: Task, root: bytes) -> int | None:
    """Draw by BLAKE3(task, attempt, previous root) among the eligible nodes of this task."""
    overlay = state.overlay
    held: dict[int, int] = {}
    for assignment in task.assignments:
        if assignment.outcome in _EXCLUDING:
            node = state.get_node(assignment.node)
            assert node is not None, "nodes are never removed"
            held.setdefault(node.slot, selection.get_weight(overlay, node.slot))
            selection.set_weight(overlay, node.slot, 0)
    randomness = hash_domain(DOMAIN_SELECT, identity, root, schema.u32(task.attempt))
    slot = selection.draw_slot(overlay, randomness)
    for excluded, weight in held.items():
        selection.set_weight(overlay, excluded, weight)
    return slot


def end_assignment(
    state: State,
    identity: bytes,
    task: Task,
    outcome: AssignmentOutcome,
    *,
    proof: bytes = b"",
    detail: str = "",
    is_nodes_fault: bool = True,
) -> Task:
    """Close the running assignment and free its node. The task is written by the caller.

    An outcome other than PROVEN costs the node reputation if it is the node's fault.
    """
    last = task.assignments[-1]
    state.overlay.delete(schema.deadline_key(last.deadline_ms, DeadlineKind.ASSIGNMENT, identity))
    state.overlay.delete(schema.RUNNING + last.node + identity)
    node = state.get_node(last.node)
    assert node is not None, "an assignment belongs to a node"
    node = _replace(node, running=node.running - 1)
    parameters = state.genesis.parameters
    if outcome is not AssignmentOutcome.PROVEN and is_nodes_fault:
        node = nodes.record_error(node, parameters, parameters.reputation_failed)
        node = _replace(node, failed=node.failed + 1)
    nodes.put_node(state, last.node, node)
    return set_outcome(task, outcome, proof=proof or last.proof, detail=detail)


def set_outcome(task: Task, outcome: AssignmentOutcome, *, proof: bytes, detail: str = "") -> Task:
    """The task with another outcome of its newest assignment."""
    last = _replace(task.assignments[-1], outcome=int(outcome), proof=proof, detail=detail)
    return _replace(task, assignments=(*task.assignments[:-1], last))


def reopen(state: State, identity: bytes, task: Task, *, head: Head) -> None:
    """The next attempt, or the end: EXPIRED with refund after the last one.

    The proof of the attempt before stays with its assignment; it is not the task's any more.
    """
    task = _replace(task, proof=b"")
    attempt = task.attempt + 1
    if attempt >= state.genesis.parameters.attempts_max or head.active_ms >= task.closes_ms:
        close(state, identity, task, TaskStatus.EXPIRED, head=head)
        return
    # It keeps its place in the queue: who waited longest goes first.
    number = len(task.assignments)
    _enqueue(state, identity, _replace(task, attempt=attempt), height=task.height, number=number)


def requeue(state: State, identity: bytes, task: Task, *, head: Head, number: int) -> None:
    """Put an open task at the end of the queue, so that it does not hold up those behind it."""
    _dequeue(state, task)
    _enqueue(state, identity, task, height=head.height, number=number)


def close(state: State, identity: bytes, task: Task, status: TaskStatus, *, head: Head) -> None:
    """End a task without payment: its escrow returns to the client."""
    _dequeue(state, task)
    money.refund_escrow(state, task.client, task.reward)
    finish(state, identity, _replace(task, status=int(status), queue_key=b""), head=head)


def finish(state: State, identity: bytes, task: Task, *, head: Head) -> None:
    """Write a task's last state; its blobs may go after the retention time."""
    state.overlay.delete(schema.deadline_key(task.closes_ms, DeadlineKind.TASK_OPEN, identity))
    due = head.time_ms + state.genesis.parameters.blob_retention_ms
    state.overlay.put(schema.RETENTION + schema.u64(due) + identity, encode(due))
    state.put_task(identity, task)
