"""The records of the ledger's state, as they are stored.

`schema.py` says under which key each of them lives. Every record starts with a format version.
"""

from __future__ import annotations

import enum

from vcp_cluster.ledger.commitments import Commitment, Verdict
from vcp_cluster.ledger.encoding import (
    DetailText,
    Hash,
    HashOrNone,
    Key,
    Record,
    ShortText,
    Signature,
    Unsigned,
)

RECORD_VERSION = 1


class Head(Record, frozen=True):
    """Where the ledger stands. `active_ms` is ledger time without gaps (FORMATS, Time)."""

    version: Unsigned
    height: Unsigned
    time_ms: Unsigned
    active_ms: Unsigned
    state_root: Hash
    has_more: bool  # work that a limit left for the next entry


class Account(Record, frozen=True):
    """Money of one key, in units. `pending` is paid out by the sealing of `pending_batch`."""

    version: Unsigned
    key: Key
    available: Unsigned
    pending: Unsigned
    pending_batch: Unsigned
    stake: Unsigned
    escrow: Unsigned  # held for the tasks of this account that are not finished


class Supply(Record, frozen=True):
    """Every unit that exists, by where it is: the two sides are always equal."""

    version: Unsigned
    minted: Unsigned
    deposited: Unsigned
    withdrawn: Unsigned
    available: Unsigned
    escrow: Unsigned
    pending: Unsigned
    stake: Unsigned
    treasury: Unsigned


class Node(Record, frozen=True):
    """A registered compute node. Units as in `commitments.Telemetry`; health in basis points."""

    version: Unsigned
    slot: Unsigned
    device: ShortText
    capacity: Unsigned
    registered_height: Unsigned
    report_ms: Unsigned
    reporter: HashOrNone
    is_online: bool
    is_safe_mode: bool
    power_mw: Unsigned
    temperature_mc: Unsigned
    carbon_g_kwh: Unsigned
    bandwidth_kbps: Unsigned
    latency_us: Unsigned
    efficiency_mflops_w: Unsigned
    health: Unsigned
    reputation: Unsigned
    running: Unsigned
    undecided: Unsigned
    proofs: Unsigned
    accepted: Unsigned
    rejected: Unsigned
    failed: Unsigned
    errors_in_row: Unsigned
    good_reports: Unsigned


class NodeClass(enum.IntEnum):
    """What a node can do now."""

    OFFLINE = 0
    ONLINE = 1
    SAFE_MODE = 2


def compute_node_class(node: Node) -> NodeClass:
    """Offline before safe mode: a silent node is first of all silent."""
    if not node.is_online:
        return NodeClass.OFFLINE
    return NodeClass.SAFE_MODE if node.is_safe_mode else NodeClass.ONLINE


class TaskStatus(enum.IntEnum):
    """States of a task. SETTLED is derived: ACCEPTED, and its batch is sealed."""

    OPEN = 0
    ASSIGNED = 1
    PROVEN = 2
    ACCEPTED = 3
    SETTLED = 4
    EXPIRED = 5
    CANCELLED = 6


class AssignmentOutcome(enum.IntEnum):
    """How one attempt of one node ended."""

    RUNNING = 0
    PROVEN = 1
    ACCEPTED = 2
    REJECTED = 3
    FAILED = 4
    MISSED = 5
    RELEASED = 6
    VOID = 7


class Assignment(Record, frozen=True):
    """One attempt of one node. `deadline_ms` is in active time; `detail` says why it failed."""

    attempt: Unsigned
    node: Key
    height: Unsigned
    time_ms: Unsigned
    deadline_ms: Unsigned
    outcome: Unsigned
    proof: HashOrNone
    detail: DetailText


class Task(Record, frozen=True):
    """A task and all its attempts. `closes_ms` is the active time after which it is not reopened."""

    version: Unsigned
    client: Key
    height: Unsigned
    time_ms: Unsigned
    module_hash: Hash
    module_size: Unsigned
    entry_point: ShortText
    input_hash: Hash
    input_size: Unsigned
    gas_limit: Unsigned
    memory_bytes_max: Unsigned
    run_ms_max: Unsigned
    output_bytes_max: Unsigned
    deadline_ms: Unsigned
    closes_ms: Unsigned
    reward: Unsigned
    replicas: Unsigned
    status: Unsigned
    attempt: Unsigned
    assignments: tuple[Assignment, ...]
    queue_key: bytes
    proof: HashOrNone
    batch: Unsigned
    leaf: Unsigned


class ProofStatus(enum.IntEnum):
    """States of a proof. COMMITTED waits for the draw of the next entry.

    VOID: all members gave a verdict and no majority of them agreed. Nobody is paid or blamed.
    """

    COMMITTED = 0
    AUDITED_BY_ONE = 1
    AUDITED_BY_ALL = 2
    ACCEPTED = 3
    REJECTED = 4
    VOID = 5


class RecordedVerdict(Record, frozen=True):
    """A verdict, who gave it and when."""

    member: Key
    verdict: Verdict
    signature: Signature
    height: Unsigned
    time_ms: Unsigned


class Proof(Record, frozen=True):
    """A worker's commitment and what became of it. `verifier` is the drawn member, or empty."""

    version: Unsigned
    commitment: Commitment
    signature: Signature
    height: Unsigned
    time_ms: Unsigned
    status: Unsigned
    is_audited: bool
    verifier: HashOrNone
    silence_ms: Unsigned
    verdicts: tuple[RecordedVerdict, ...]
    decided_height: Unsigned


class NonceRecord(Record, frozen=True):
    """What a transaction came to, remembered until its validity ends."""

    tx_id: Hash
    valid_until_ms: Unsigned
    height: Unsigned
    time_ms: Unsigned
    log_index: Unsigned
    code: Unsigned
    operation: Unsigned


class LogState(Record, frozen=True):
    """The transaction log: its frontier (`merkle.Frontier.encode`)."""

    version: Unsigned
    size: Unsigned
    frontier: bytes


class LogLeaf(Record, frozen=True):
    """One leaf of the transaction log (FORMATS). `operation` is the index of the failed one."""

    version: Unsigned
    height: Unsigned
    position: Unsigned
    time_ms: Unsigned
    envelope_hash: Hash
    code: Unsigned
    operation: Unsigned


class Settlement(Record, frozen=True):
    """The open batch, and the log of the sealed ones' headers."""

    version: Unsigned
    batch: Unsigned
    count: Unsigned
    total: Unsigned
    pending: Unsigned
    first_height: Unsigned
    last_height: Unsigned
    frontier: bytes
    previous_header: Hash
    headers: Unsigned
    headers_frontier: bytes


class BatchLeaf(Record, frozen=True):
    """One accepted task in a batch (FORMATS). `balance` is what the payee owns afterwards."""

    version: Unsigned
    task: Hash
    attempt: Unsigned
    node: Key
    payee: Key
    amount: Unsigned
    balance: Unsigned
    output_hash: Hash
    commitment_hash: Hash
    height: Unsigned


class AnchorStatus(enum.IntEnum):
    """States of an anchor."""

    PENDING = 0
    OBSERVED = 1
    FINAL = 2


class Anchor(Record, frozen=True):
    """A published (or to be published) root of the batch log at `size` headers.

    `raws` are the variants that may be published, oldest first: whichever the backend's chain takes
    is the anchor, and `variant` names it once `evidence` showed it. `finality` is what made it
    final. `previous` is the size of the anchor before, or 0. `time_ms` is that of the intent.
    """

    version: Unsigned
    backend: ShortText
    size: Unsigned
    previous: Unsigned
    payload: bytes
    raws: tuple[bytes, ...]
    status: Unsigned
    variant: Unsigned
    time_ms: Unsigned
    intent_height: Unsigned
    observed_height: Unsigned
    final_height: Unsigned
    evidence: bytes
    finality: bytes


class AnchorLane(Record, frozen=True):
    """One backend's anchors: the pending one's size (or 0), and the newest final one's.

    `retracted` are sizes of later anchors that wait until the pending one is final again. `holder`
    is the member that acts, until `lease_until_ms`. `position` is the furthest that any holder's
    node has seen the backend's chain (big endian; chain work for Bitcoin). `halt` says why nothing
    moves, or is empty. `revision` counts the changes, but for those of the lease.
    """

    version: Unsigned
    revision: Unsigned
    pending: Unsigned
    final: Unsigned
    retracted: tuple[Unsigned, ...]
    holder: HashOrNone
    lease_until_ms: Unsigned
    position: HashOrNone
    halt: DetailText
