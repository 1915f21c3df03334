"""What must hold after every entry, computed from the records and compared with what is kept."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from ledger_harness.indexes import FINISHED, rebuild_indexes, records
from ledger_harness.lanes import check_lanes
from vcp_cluster.ledger import money, schema
from vcp_cluster.ledger.encoding import INTEGER_MAX, decode, encode
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.merkle import BLAKE3_TREE, RFC9162, Frontier, root_of
from vcp_cluster.ledger.records import (
    Account,
    Anchor,
    AnchorLane,
    BatchLeaf,
    LogLeaf,
    LogState,
    Node,
    NonceRecord,
    Proof,
    ProofStatus,
    Settlement,
    Supply,
    Task,
    TaskStatus,
)
from vcp_cluster.ledger.settlement import BatchHeader, header_leaf_hash
from vcp_cluster.ledger.state import View, Write

if TYPE_CHECKING:
    from ledger_harness.ledger import Ledger

KINDS: dict[bytes, Any] = {
    schema.ACCOUNT: Account,
    schema.BATCH_LEAF: BatchLeaf,
    schema.SUPPLY: Supply,
    schema.GENESIS: Genesis,
    schema.LOG_LEAF: LogLeaf,
    schema.LOG_STATE: LogState,
    schema.NODE: Node,
    schema.NONCE: NonceRecord,
    schema.PROOF: Proof,
    schema.ANCHOR: Anchor,
    schema.LANE: AnchorLane,
    schema.SETTLEMENT: Settlement,
    schema.TASK: Task,
}
# Where a limit may leave work to the next entry, which `head.has_more` then announces.
LIMITED = (schema.DEADLINE, schema.RETENTION, schema.BLOB_REFERENCE, schema.NONCE_EXPIRY)


def check_writes(writes: list[Write]) -> None:
    """Every record written is the canonical encoding of its kind, and reads back the same."""
    for key, value in writes:
        if value is None or key.startswith(schema.INDEX):
            continue
        if key.startswith(schema.HEADER):
            assert BatchHeader.decode(value).encode() == value
        else:
            record = decode(KINDS[key[:1]], value)
            assert encode(record) == value


def check(ledger: Ledger) -> None:
    """All invariants of the present state."""
    view = ledger.store
    tasks = {identity: decode(Task, value) for identity, value in records(view, schema.TASK)}
    for identity, task in tasks.items():
        if task.status in FINISHED:
            ledger.finished_ms.setdefault(identity, ledger.now_ms)
    check_money(ledger, tasks)
    check_nodes(view, tasks)
    check_settlement(ledger)
    check_lanes(ledger)
    check_indexes(ledger)


def check_money(ledger: Ledger, tasks: dict[bytes, Task]) -> None:
    """Every unit is somewhere, and each counter is the sum over the records."""
    state = ledger.state
    supply = state.get_supply()
    assert money.is_balanced(supply), supply
    running = (TaskStatus.OPEN, TaskStatus.ASSIGNED, TaskStatus.PROVEN)
    escrow: Counter[bytes] = Counter()
    for task in tasks.values():
        escrow[task.client] += task.reward if task.status in running else 0
    held: Counter[str] = Counter(escrow=escrow.total())
    for identity, _ in records(ledger.store, schema.ACCOUNT):
        account = money.get_account(state, identity)
        assert account is not None and account.key == identity
        assert account.escrow == escrow[identity]
        held["available"] += account.available
        held["pending"] += account.pending
        held["stake"] += account.stake
    assert held["available"] == supply.available
    assert held["pending"] == supply.pending
    assert held["stake"] == supply.stake
    assert held["escrow"] == supply.escrow


def check_nodes(view: View, tasks: dict[bytes, Task]) -> None:
    """`running` and `undecided` of a node are the numbers of its tasks and proofs."""
    running = Counter(
        task.assignments[-1].node for task in tasks.values() if task.status == TaskStatus.ASSIGNED
    )
    proofs = [decode(Proof, value) for _, value in records(view, schema.PROOF)]
    decided = (ProofStatus.ACCEPTED, ProofStatus.REJECTED, ProofStatus.VOID)
    undecided = Counter(p.commitment.node for p in proofs if p.status not in decided)
    submitted = Counter(p.commitment.node for p in proofs)
    accepted = Counter(p.commitment.node for p in proofs if p.status == ProofStatus.ACCEPTED)
    void = Counter(p.commitment.node for p in proofs if p.status == ProofStatus.VOID)
    for identity, value in records(view, schema.NODE):
        node = decode(Node, value)
        assert node.running == running[identity] <= node.capacity
        assert node.undecided == undecided[identity]
        assert node.proofs == submitted[identity]
        assert node.accepted == accepted[identity]
        assert node.rejected == node.proofs - node.accepted - node.undecided - void[identity]
    proven = sum(task.status == TaskStatus.PROVEN for task in tasks.values())
    assert proven == undecided.total()


def check_settlement(ledger: Ledger) -> None:
    """Frontiers are those of the stored leaves; the open batch's sums are its leaves'."""
    view, state = ledger.store, ledger.state
    batch, log = state.get_settlement(), state.get_log()
    leaves = [value for _, value in records(view, schema.BATCH_LEAF + schema.u64(batch.batch))]
    root = root_of(BLAKE3_TREE, [BLAKE3_TREE.leaf(leaf) for leaf in leaves])
    assert Frontier.decode(batch.frontier).root(BLAKE3_TREE) == root
    assert batch.count == len(leaves)
    total = sum(decode(BatchLeaf, leaf).amount for leaf in leaves)
    assert batch.total == min(INTEGER_MAX, total)
    assert batch.pending == state.get_supply().pending
    headers = [value for _, value in records(view, schema.HEADER)]
    header_root = root_of(RFC9162, [header_leaf_hash(value) for value in headers])
    assert batch.headers == len(headers) == batch.batch - 1
    assert Frontier.decode(batch.headers_frontier).root(RFC9162) == header_root
    log_leaves = [RFC9162.leaf(value) for _, value in records(view, schema.LOG_LEAF)]
    assert log.size == len(log_leaves)
    assert Frontier.decode(log.frontier).root(RFC9162) == root_of(RFC9162, log_leaves)


def check_indexes(ledger: Ledger) -> None:
    """Each index entry is there if and only if the records say so."""
    expected = rebuild_indexes(ledger.store, ledger.finished_ms)
    not_rebuilt = (schema.HEAD, schema.ENVELOPE)
    actual = {
        key: value
        for key, value in ledger.store.iterate(schema.INDEX)
        if not key.startswith(not_rebuilt) and not _is_zero(key, value)
    }
    if ledger.state.get_head().has_more:
        for key in [*actual, *expected]:
            if key.startswith(LIMITED):
                actual.pop(key, None)
                expected.pop(key, None)
    wrong = {key for key in actual.keys() | expected.keys() if actual.get(key) != expected.get(key)}
    assert not wrong, sorted(wrong)


def _is_zero(key: bytes, value: bytes) -> bool:
    """An empty node of the weight tree, or a count of 0: as good as absent."""
    return key.startswith((schema.WEIGHT, schema.COUNT)) and not any(value)
