"""The state transition: the one way in which the ledger changes.

    apply(view, entry, checks) -> Applied(receipts, writes, head)

It is deterministic (time comes with the entry) and total: whatever the bytes are, the answer is a
receipt with a code. The order within an entry is fixed: time, draws, what is due, transactions,
assignments, log, root.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import msgspec

from vcp_cluster.ledger import audits, money, schema, selection, settlement, tasks
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.domains import DOMAIN_ROOT
from vcp_cluster.ledger.encoding import Malformed, decode, encode
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id
from vcp_cluster.ledger.keys import hash_domain
from vcp_cluster.ledger.merkle import RFC9162, Frontier
from vcp_cluster.ledger.operations import RegisterNode
from vcp_cluster.ledger.operations.base import Context
from vcp_cluster.ledger.records import (
    RECORD_VERSION,
    AnchorLane,
    AssignmentOutcome,
    Head,
    LogLeaf,
    LogState,
    NonceRecord,
    ProofStatus,
    Supply,
    Task,
    TaskStatus,
)
from vcp_cluster.ledger.schema import DeadlineKind
from vcp_cluster.ledger.state import MemoryStore, Overlay, State, View, Write
from vcp_cluster.ledger.transactions import (
    NOT_VALID,
    OPERATIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Entry,
    Envelope,
    ParsedTransaction,
    SignatureCheck,
    TransactionReceipt,
    compute_envelope_hash,
    parse_transaction,
)

_replace = msgspec.structs.replace

NO_TX_ID = bytes(32)
# A leader keeps active time running while a deadline is pending: entries at least this often.
ACTIVE_TICK_MS = 1_500


@dataclass(frozen=True, slots=True)
class Applied:
    """The outcome of an entry: receipts in order, writes for one atomic batch, the new head."""

    receipts: tuple[TransactionReceipt, ...]
    writes: list[Write]
    head: Head


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What one transaction came to. `first` is the receipt of an earlier sending."""

    code: Code
    operation: int = 0
    tx_id: bytes = NO_TX_ID
    envelope: Envelope | None = None
    first: NonceRecord | None = None
    is_remembered: bool = False


def initial_writes(genesis: Genesis) -> list[Write]:
    """The state at height 0."""
    overlay = Overlay(MemoryStore())
    overlay.put(schema.GENESIS, encode(genesis))
    state = State(overlay)
    state.put_supply(Supply(RECORD_VERSION, 0, 0, 0, 0, 0, 0, 0, 0))
    state.put_settlement(settlement.initial_settlement())
    state.put_log(LogState(RECORD_VERSION, 0, Frontier.empty().encode()))
    for backend in genesis.anchors.backends:
        state.put_lane(backend, AnchorLane(RECORD_VERSION, 0, 0, 0, (), b"", 0, b"", ""))
    for member in genesis.members:
        money.ensure_account(state, member.key)
    for key in genesis.governance.keys:
        money.ensure_account(state, key)
    for allocation in genesis.allocations:
        money.mint(state, allocation.account, allocation.amount)
    head = Head(RECORD_VERSION, 0, genesis.created_ms, 0, bytes(32), False)
    return _close(overlay, head)[0]


def apply(view: View, data: bytes, checks: Sequence[SignatureCheck]) -> Applied:
    """Apply one entry to the state that `view` shows.

    `checks` are the signature checks of its transactions, as `transactions.verify_entry` gives
    them. Bytes that are no entry change nothing but the height.
    """
    overlay = Overlay(view)
    state = State(overlay)
    previous = state.get_head()
    try:
        entry = decode(Entry, data)
    except Malformed:
        entry = Entry(1, previous.time_ms, ())
    head = _next_head(state, previous, entry)
    root = previous.state_root
    _process_draws(state, head, root)
    has_more = _process_deadlines(state, head)
    has_more |= _process_forgetting(state, head)
    receipts, log = [], _TransactionLog(state)
    for position, transaction in enumerate(entry.transactions):
        check = checks[position] if position < len(checks) else NOT_VALID
        outcome = _process_transaction(state, transaction, check, position, head, root)
        receipts.append(_record(state, log, transaction, outcome, position, head))
    log.close()
    has_more |= _process_assignments(state, head, root)
    writes, head = _close(overlay, _replace(head, has_more=has_more))
    return Applied(tuple(receipts), writes, head)


def _next_head(state: State, previous: Head, entry: Entry) -> Head:
    """Time never runs backwards, and a long gap between entries is charged to nobody."""
    time_ms = max(previous.time_ms, entry.time_ms)
    gap = min(time_ms - previous.time_ms, state.genesis.parameters.active_gap_ms_max)
    return _replace(
        previous,
        height=previous.height + 1,
        time_ms=time_ms,
        active_ms=previous.active_ms + gap,
    )


def _close(overlay: Overlay, head: Head) -> tuple[list[Write], Head]:
    """Hash the ordered write set into the root. Indexes and the head itself stay outside."""
    changes = sorted(overlay.changes.items())
    hashed = [item for item in changes if not item[0].startswith(schema.INDEX)]
    root = hash_domain(
        DOMAIN_ROOT,
        head.state_root,
        schema.u64(head.height),
        schema.u64(head.time_ms),
        encode(hashed),
    )
    head = _replace(head, state_root=root)
    return [*changes, (schema.HEAD, encode(head))], head


# --- what is due -------------------------------------------------------------------------------


def _process_draws(state: State, head: Head, root: bytes) -> None:
    """Draw for every proof of the entry before: `root` is the state root at its height."""
    for key, _ in list(state.overlay.iterate(schema.DRAW)):
        state.overlay.delete(key)
        identity = key[-32:]
        proof = state.get_proof(identity)
        assert proof is not None, "the index names proofs"
        audits.draw(state, identity, proof, head=head, root=root)


def _process_deadlines(state: State, head: Head) -> bool:
    """Expire what is due in active time, oldest first; True when the limit left some."""
    limit = state.genesis.parameters.expiries_per_entry_max
    end = schema.DEADLINE + schema.u64(head.active_ms + 1)
    due = list(islice(_keys_below(state.overlay, schema.DEADLINE, end), limit + 1))
    for key in due[:limit]:
        state.overlay.delete(key)
        kind = DeadlineKind(key[len(schema.DEADLINE) + 8])
        _process_deadline(state, kind, key[len(schema.DEADLINE) + 9 :], head)
    return len(due) > limit


def _process_deadline(state: State, kind: DeadlineKind, identity: bytes, head: Head) -> None:
    if kind is DeadlineKind.AUDIT_SILENCE:
        proof = state.get_proof(identity)
        if proof is not None and proof.status == ProofStatus.AUDITED_BY_ONE:
            audits.escalate(state, identity, proof)
        return
    task = state.get_task(identity)
    assert task is not None, "the index names tasks"
    if kind is DeadlineKind.ASSIGNMENT and task.status == TaskStatus.ASSIGNED:
        task = tasks.end_assignment(
            state, identity, task, AssignmentOutcome.MISSED, detail="no result before the deadline"
        )
        tasks.reopen(state, identity, task, head=head)
    elif kind is DeadlineKind.TASK_OPEN and task.status == TaskStatus.OPEN:
        tasks.close(state, identity, task, TaskStatus.EXPIRED, head=head)


def _process_forgetting(state: State, head: Head) -> bool:
    """Forget nonces whose validity has ended, and blob references after the retention time."""
    limit = state.genesis.parameters.expiries_per_entry_max
    end = schema.NONCE_EXPIRY + schema.u64(head.time_ms)
    expired = list(islice(_keys_below(state.overlay, schema.NONCE_EXPIRY, end), limit + 1))
    for key in expired[:limit]:
        state.overlay.delete(key)
        state.overlay.delete(schema.NONCE + key[len(schema.NONCE_EXPIRY) + 8 :])
    end = schema.RETENTION + schema.u64(head.time_ms)
    retained = list(islice(_keys_below(state.overlay, schema.RETENTION, end), limit + 1))
    for key in retained[:limit]:
        state.overlay.delete(key)
        identity = key[-32:]
        task = state.get_task(identity)
        assert task is not None, "the index names tasks"
        for blob in (*tasks.blob_keys(task), *_output_blobs(state, task)):
            state.overlay.delete(schema.BLOB_REFERENCE + blob + identity)
    return len(expired) > limit or len(retained) > limit


def _output_blobs(state: State, task: Task) -> list[bytes]:
    """Outputs of all the task's proofs: a rejected one kept its blob for the audit."""
    proofs = (state.get_proof(item.proof) for item in task.assignments if item.proof)
    return [proof.commitment.output_hash for proof in proofs if proof is not None]


def _keys_below(overlay: Overlay, prefix: bytes, end: bytes) -> Iterator[bytes]:
    """Keys with a prefix and below `end`, in order, without reading past it."""
    for key, _ in overlay.iterate(prefix):
        if key >= end:
            return
        yield key


def _process_assignments(state: State, head: Head, root: bytes) -> bool:
    """Give open tasks to nodes, who waited longest first; True when the limit left some."""
    if selection.total_weight(state.overlay) == 0:
        return False
    limit = state.genesis.parameters.assignments_per_entry_max
    queue = list(islice(state.overlay.iterate(schema.OPEN_TASK), limit + 1))
    is_crowded, has_assigned = len(queue) > limit, False
    for number, (key, _) in enumerate(queue[:limit]):
        identity = key[-32:]
        task = state.get_task(identity)
        assert task is not None, "the queue names tasks"
        if tasks.assign(state, identity, task, head=head, root=root):
            has_assigned = True
        elif is_crowded:
            tasks.requeue(state, identity, task, head=head, number=number)
        if selection.total_weight(state.overlay) == 0:
            return False
    # Tasks that none of the present nodes may take are no reason for another entry at once.
    return has_assigned and is_crowded


def is_due(view: View, now_ms: int) -> bool:
    """Whether an empty entry at `now_ms` would do something: what an idle leader asks.

    Also when active time must be kept running, because a deadline is pending.
    """
    overlay = Overlay(view)
    state = State(overlay)
    head = state.get_head()
    gap = now_ms - head.time_ms
    if head.has_more or any(True for _ in overlay.iterate(schema.DRAW)):
        return True
    first = next(iter(overlay.iterate(schema.DEADLINE)), None)
    if first is not None:
        due_ms = int.from_bytes(first[0][len(schema.DEADLINE) :][:8], "big")
        active = head.active_ms + min(gap, state.genesis.parameters.active_gap_ms_max)
        if due_ms <= active or gap >= ACTIVE_TICK_MS:
            return True
    retained = next(iter(overlay.iterate(schema.RETENTION)), None)
    if retained is None:
        return False
    return int.from_bytes(retained[0][len(schema.RETENTION) :][:8], "big") < now_ms


# --- transactions ------------------------------------------------------------------------------


def check_envelope(state: State, head: Head, parsed: ParsedTransaction, *, is_valid: bool) -> Code:
    """The code of the envelope alone, before its nonce is looked at."""
    envelope = parsed.envelope
    if envelope.chain_id != compute_chain_id(state.genesis):
        return Code.CHAIN_MISMATCH
    if not parsed.signed.signature:
        return Code.UNSIGNED
    if not is_valid:
        return Code.SIGNATURE_INVALID
    account = state.get_account(envelope.account)
    if account is None:
        # A key without an account may do one thing: register a compute node with it.
        is_registration = len(envelope.operations) == 1 and isinstance(
            envelope.operations[0], RegisterNode
        )
        if not is_registration:
            return Code.ACCOUNT_NOT_FOUND
    if envelope.key != (envelope.account if account is None else account.key):
        return Code.KEY_NOT_AUTHORISED
    if envelope.valid_until_ms < head.time_ms:
        return Code.EXPIRED
    if envelope.valid_until_ms > head.time_ms + state.genesis.parameters.validity_ms_max:
        return Code.VALIDITY_TOO_LONG
    return Code.OK


def _process_transaction(
    state: State, data: bytes, check: SignatureCheck, position: int, head: Head, root: bytes
) -> _Outcome:
    if len(data) > TRANSACTION_BYTES_MAX:
        return _Outcome(Code.TOO_LARGE)
    try:
        parsed = parse_transaction(data)
    except Malformed:
        return _Outcome(Code.MALFORMED)
    envelope, tx_id = parsed.envelope, parsed.tx_id
    code = check_envelope(state, head, parsed, is_valid=check.is_valid)
    if code is not Code.OK:
        return _Outcome(code, tx_id=tx_id)
    first = state.get_nonce(envelope.account, envelope.nonce)
    if first is not None:
        if first.tx_id != tx_id:
            return _Outcome(Code.NONCE_REUSED, tx_id=tx_id)
        return _Outcome(Code(first.code), first.operation, tx_id, envelope, first)
    if len(envelope.operations) > OPERATIONS_MAX:
        code, operation = Code.TOO_MANY_OPERATIONS, 0
    else:
        code, operation = _run_operations(state, parsed, check, position, head, root)
    # A stranger's failed registration is not remembered: it would be memory for nothing. Nor is a
    # lack of cosignatures, which are outside the id: whoever relays a transaction can strip them.
    is_remembered = (
        code is not Code.NOT_GOVERNANCE and state.get_account(envelope.account) is not None
    )
    return _Outcome(code, operation, tx_id, envelope, is_remembered=is_remembered)


def _run_operations(
    state: State,
    parsed: ParsedTransaction,
    check: SignatureCheck,
    position: int,
    head: Head,
    root: bytes,
) -> tuple[Code, int]:
    """All operations on an overlay, or none: the code and index of the first that fails."""
    overlay = Overlay(state.overlay)
    signers = {parsed.envelope.key, *(item.key for item in parsed.signed.cosignatures)}
    for index, operation in enumerate(parsed.envelope.operations):
        context = Context(
            state=state.over(overlay),
            head=head,
            root=root,
            account=parsed.envelope.account,
            signers=frozenset(signers),
            tx_id=parsed.tx_id,
            index=index,
            position=position,
            is_inner_signed=check.operations[index],
        )
        code = operation.check(context)
        if code is not Code.OK:
            return code, index
        operation.effect(context)
    overlay.merge_into(state.overlay)
    return Code.OK, 0


def _record(
    state: State,
    log: _TransactionLog,
    data: bytes,
    outcome: _Outcome,
    position: int,
    head: Head,
) -> TransactionReceipt:
    """Append the outcome to the transaction log and remember the nonce; a repeat does neither."""
    first = outcome.first
    if first is not None:
        return TransactionReceipt(
            RECORD_VERSION,
            first.tx_id,
            first.height,
            first.time_ms,
            first.log_index,
            first.code,
            first.operation,
        )
    index = log.append(data, outcome, position, head)
    envelope = outcome.envelope
    if envelope is not None:
        state.overlay.put(schema.TRANSACTION + outcome.tx_id, schema.u64(index))
    if outcome.is_remembered and envelope is not None:
        key = schema.nonce_key(envelope.account, envelope.nonce)
        record = NonceRecord(
            tx_id=outcome.tx_id,
            valid_until_ms=envelope.valid_until_ms,
            height=head.height,
            time_ms=head.time_ms,
            log_index=index,
            code=int(outcome.code),
            operation=outcome.operation,
        )
        state.overlay.put(key, encode(record))
        state.overlay.put(
            schema.nonce_expiry_key(envelope.valid_until_ms, envelope.account, envelope.nonce),
            b"\x01",
        )
    return TransactionReceipt(
        RECORD_VERSION,
        outcome.tx_id,
        head.height,
        head.time_ms,
        index,
        int(outcome.code),
        outcome.operation,
    )


class _TransactionLog:
    """The transaction log during one entry: its state is written once, at the end.

    A batch that is sealed in this entry therefore names the log as it was before the entry.
    """

    def __init__(self, state: State) -> None:
        self._overlay = state.overlay
        self._state = state
        self._frontier = Frontier.decode(state.get_log().frontier)
        self._size_before = self._frontier.size

    def append(self, data: bytes, outcome: _Outcome, position: int, head: Head) -> int:
        """Add a leaf for a transaction, and keep its envelope; the leaf's index."""
        leaf = encode(
            LogLeaf(
                version=RECORD_VERSION,
                height=head.height,
                position=position,
                time_ms=head.time_ms,
                envelope_hash=compute_envelope_hash(data),
                code=int(outcome.code),
                operation=outcome.operation,
            )
        )
        index = self._frontier.size
        self._frontier, tree = self._frontier.append_with_nodes(RFC9162, RFC9162.leaf(leaf))
        for level, number, value in tree:
            self._overlay.put(schema.tree_key(schema.LOG_TREE, level, number), value)
        self._overlay.put(schema.LOG_LEAF + schema.u64(index), leaf)
        self._overlay.put(schema.ENVELOPE + schema.u64(index), data)
        return index

    def close(self) -> None:
        """Write the log's state, if it grew."""
        if self._frontier.size != self._size_before:
            self._state.put_log(
                LogState(RECORD_VERSION, self._frontier.size, self._frontier.encode())
            )
