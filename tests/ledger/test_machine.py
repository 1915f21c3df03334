"""Any sequence of operations by anyone: the ledger keeps its promises after every entry.

`Ledger` checks after each entry that money is conserved and that every index and counter follows
from the records. On top of that: `apply` never raises, so that an effect whose check passed cannot
fail; a second store that is given the same entries has the same roots and receipts; and two
different states never have one root.
"""

from __future__ import annotations

from blake3 import blake3
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from ledger_harness import anchoring, forms
from ledger_harness.cast import CLIENTS, GOVERNOR, MEMBERS, WORKERS, key
from ledger_harness.ledger import Ledger

from vcp_cluster.ledger.anchor_settings import BITCOIN
from vcp_cluster.ledger.commitments import Finding, proof_id
from vcp_cluster.ledger.encoding import INTEGER_MAX, encode
from vcp_cluster.ledger.operations import (
    AnyOperation,
    CancelTask,
    Mint,
    RegisterNode,
    ReportFailure,
    SealBatch,
    Stake,
    Transfer,
    Unstake,
)
from vcp_cluster.ledger.records import AnchorStatus, TaskStatus
from vcp_cluster.ledger.state import MemoryStore
from vcp_cluster.ledger.transactions import Entry, verify_entry
from vcp_cluster.ledger.transition import apply, initial_writes

EVERYONE = (*CLIENTS, *WORKERS, *MEMBERS, GOVERNOR, "stranger")
QUEUE_MAX = 6

people = st.sampled_from(EVERYONE)
members = st.sampled_from(MEMBERS)
workers = st.sampled_from(WORKERS)
amounts = st.sampled_from((0, 1, 999, 10**6, 10**9, 2**62, INTEGER_MAX))
picks = st.integers(0, 7)
seldom = st.integers(0, 5).map(lambda number: number == 0)
durations_ms = st.sampled_from((0, 1, 200, 1_000, 2_000, 2_001, 31_000, 700_000))

# Over all examples: what the store held when it had a root.
_STATES: dict[bytes, bytes] = {}


class AnythingGoes(RuleBasedStateMachine):
    """Transactions of the honest, the mistaken and the hostile, several to an entry."""

    @initialize(
        limit=st.sampled_from((1, 2, 1_000)),
        first_proofs=st.sampled_from((0, 2)),
        stake_min=st.sampled_from((0, 0, 1_000)),
        retention_ms=st.sampled_from((500, 4 * 3_600_000)),
    )
    def begin(self, limit: int, first_proofs: int, stake_min: int, retention_ms: int) -> None:
        """Limits small enough to matter."""
        self.ledger = Ledger(
            expiries_per_entry_max=limit,
            assignments_per_entry_max=limit,
            audit_first_proofs=first_proofs,
            audit_silence_ms=2_000,
            stake_min=stake_min,
            stake_target=1_500_000,
            safe_errors=2,
            blob_retention_ms=retention_ms,
        )
        self.twin = MemoryStore()
        self.twin.commit(initial_writes(self.ledger.genesis))
        self.tasks: list[bytes] = []
        self.proofs: list[bytes] = []
        self.queue: list[bytes] = []
        self.sent: list[bytes] = []
        self.measure()

    def measure(self) -> None:
        """Three machines with some stake and work, so that most examples get somewhere."""
        for worker in WORKERS:
            self.queue.append(self.ledger.transaction(worker, RegisterNode("pc", 2)))
        self.flush(1)
        for worker in WORKERS:
            self.send("ada", forms.report(self.ledger, worker))
            self.send("alice", Transfer(key(worker), 2_000_000))
            self.send(worker, Stake(1_000))
        self.flush(1)
        self.send("bob", *[forms.task(self.ledger, 10**6, deadline_ms=3_000)] * 4)
        self.flush(1)

    def send(self, sender: str, *operations: AnyOperation) -> None:
        """Put a transaction into the next entry, and apply that when it is full."""
        self.queue.append(self.ledger.transaction(sender, *operations))
        if len(self.queue) == QUEUE_MAX:
            self.flush(1)

    def flush(self, after_ms: int) -> None:
        """Apply an entry with everything that waits."""
        queue, self.queue = self.queue, []
        self.sent = (self.sent + queue)[-20:]
        self.apply(encode(Entry(1, self.ledger.now_ms + after_ms, tuple(queue))))

    def apply(self, data: bytes) -> None:
        """Apply bytes here and at the twin."""
        applied = self.ledger.apply_bytes(data)
        twin = apply(self.twin, data, verify_entry(data))
        self.twin.commit(twin.writes)
        assert twin == applied
        content = blake3()
        for name, value in self.ledger.store.iterate(b""):
            content.update(encode((name, value)))
        held = content.digest()
        assert _STATES.setdefault(applied.head.state_root, held) == held
        self.tasks = [name[1:] for name, _ in self.ledger.store.iterate(b"t")]
        self.proofs = [name[1:] for name, _ in self.ledger.store.iterate(b"p")]

    @rule(after_ms=durations_ms)
    def entry(self, after_ms: int) -> None:
        """Time passes, seldom long enough."""
        self.flush(after_ms)

    @rule(steps=st.integers(1, 12))
    def idle(self, steps: int) -> None:
        """Active time passes."""
        for _ in range(steps):
            self.flush(1_000)

    def settle_queue(self, is_delayed: bool) -> None:
        """Before what depends on the present state: apply what waits, except now and then."""
        if self.queue and not is_delayed:
            self.flush(1)

    @rule(sender=people, recipient=people, amount=amounts, kind=st.integers(0, 4))
    def money(self, sender: str, recipient: str, amount: int, kind: int) -> None:
        """Any movement of any amount, alone or with a second one."""
        operations: list[AnyOperation] = [
            Transfer(key(recipient), amount),
            Stake(amount),
            Unstake(amount),
            Mint(key(recipient), amount),
        ]
        if kind == 4:
            self.send(sender, Transfer(key(recipient), 1), Stake(amount), Unstake(1))
        else:
            self.send(GOVERNOR if kind == 3 else sender, operations[kind])

    @rule(sender=people, capacity=st.sampled_from((0, 1, 64, 65)))
    def register(self, sender: str, capacity: int) -> None:
        """Anyone may be a compute node."""
        self.send(sender, RegisterNode("pc", capacity))

    @rule(member=members, worker=workers, celsius=st.sampled_from((40, 40, 90)), gone=seldom)
    def report(self, member: str, worker: str, celsius: int, gone: bool) -> None:
        """A node is well, hot, or silent."""
        report = forms.report(
            self.ledger, worker, is_online=not gone, temperature_mc=celsius * 1_000
        )
        self.send(member, report)

    @rule(
        sender=st.sampled_from(tuple(CLIENTS)),
        reward=st.sampled_from((1, 999, 10**6, 10**8, 2**62)),
        deadline_ms=st.sampled_from((1, 3_000, 20_000)),
        open_ms=st.sampled_from((1, 4_000, 60_000)),
        copies=st.integers(1, 3),
    )
    def submit(self, sender: str, reward: int, deadline_ms: int, open_ms: int, copies: int) -> None:
        """Tasks, up to three in a transaction."""
        task = forms.task(self.ledger, reward, deadline_ms=deadline_ms, open_ms_max=open_ms)
        self.send(sender, *[task] * copies)

    @rule(sender=people, pick=picks)
    def cancel(self, sender: str, pick: int) -> None:
        """Anyone tries to cancel any task."""
        if self.tasks:
            self.send(sender, CancelTask(self.tasks[pick % len(self.tasks)]))

    @rule(pick=picks, kind=st.integers(0, 6), intruder=seldom, who=people, delayed=seldom)
    def prove(self, pick: int, kind: int, intruder: bool, who: str, delayed: bool) -> None:
        """A result of a task that runs: honest, a lie, a trap, or nothing. Sometimes a stranger's."""
        self.settle_queue(delayed)
        identity = self.pick_running(pick, is_past_too=intruder)
        if identity is None:
            return
        commitment = (forms.commitment, forms.lie, forms.trap)[kind % 3](self.ledger, identity)
        owner = next(name for name in EVERYONE if key(name) == commitment.node)
        sender = who if intruder else owner
        if kind == 6:
            self.send(sender, ReportFailure(identity, commitment.attempt, 1, "no"))
        else:
            self.send(sender, forms.prove(self.ledger, owner, commitment))

    def pick_running(self, pick: int, *, is_past_too: bool = False) -> bytes | None:
        """A task that runs, or ran."""
        running = [
            identity
            for identity in self.tasks
            if (task := self.ledger.state.get_task(identity)) is not None
            and task.assignments
            and (is_past_too or task.status == TaskStatus.ASSIGNED)
        ]
        return running[pick % len(running)] if running else None

    @rule(pick=picks, is_lie=st.booleans(), member=members)
    def carry_through(self, pick: int, is_lie: bool, member: str) -> None:
        """A result, its audit by honest members, and the sealing: the road that most should go."""
        self.flush(1)
        identity = self.pick_running(pick)
        if identity is None:
            return
        commitment = (forms.lie if is_lie else forms.commitment)(self.ledger, identity)
        owner = next(name for name in EVERYONE if key(name) == commitment.node)
        self.send(owner, forms.prove(self.ledger, owner, commitment))
        self.flush(1)
        self.flush(1)
        if self.ledger.state.get_proof(proof_id(commitment)) is None:
            return  # its deadline was in the entry that should have carried it
        finding = Finding.DISAGREE if is_lie else Finding.AGREE
        for voice in MEMBERS:
            verdict = forms.verdict(self.ledger, voice, proof_id(commitment), finding)
            self.send(voice, verdict)
        self.flush(1)
        self.send(member, SealBatch(self.ledger.state.get_settlement().batch))

    @rule(pick=picks, findings=st.lists(st.sampled_from(Finding), min_size=1, max_size=3))
    def verdicts(self, pick: int, findings: list[Finding]) -> None:
        """Some members speak, with one voice or with several."""
        self.flush(1)
        under_audit = [
            identity
            for identity in self.proofs
            if (proof := self.ledger.state.get_proof(identity)) is not None
            and proof.status in (1, 2)
        ]
        if not under_audit:
            return
        identity = under_audit[pick % len(under_audit)]
        for number, member in enumerate(MEMBERS):
            finding = findings[number % len(findings)]
            self.send(member, forms.verdict(self.ledger, member, identity, finding))

    @rule(member=members, off=seldom, delayed=seldom)
    def seal(self, member: str, off: bool, delayed: bool) -> None:
        """The open batch, or not quite."""
        self.settle_queue(delayed)
        self.send(member, SealBatch(self.ledger.state.get_settlement().batch + off))

    @rule(member=members, step=st.integers(0, 2))
    def anchor(self, member: str, step: int) -> None:
        """Any step of the notary's anchor, in any order."""
        self.settle_queue(False)
        if step == 0:
            self.send(member, anchoring.intent(self.ledger))
        elif step == 1 and self.ledger.state.get_settlement().headers:
            self.send(member, anchoring.notary_observed(self.ledger))
        else:
            self.send(member, anchoring.final(self.ledger))

    @rule(
        member=st.sampled_from(("ada", "ada", "ben")),
        steps=st.lists(st.integers(0, 8), min_size=1, max_size=5),
        pick=picks,
        fee=st.sampled_from((200, 400, 800, 5_001)),
    )
    def bitcoin(self, member: str, steps: list[int], pick: int, fee: int) -> None:
        """Any steps of the anchor on Bitcoin, in any order, after a lease."""
        self.send(member, anchoring.lease(self.ledger))
        for step in steps:
            self.flush(1)
            self.send(member, self.bitcoin_step(step, pick, fee))
        self.flush(1)

    def bitcoin_step(self, step: int, pick: int, fee: int) -> AnyOperation:
        """What a member does next: mostly the next thing, or takes something back."""
        ledger = self.ledger
        headers = ledger.state.get_settlement().headers
        if step in (0, 1, 2):
            anchor = anchoring.pending(ledger, BITCOIN)
            if anchor is None:
                return anchoring.intent(ledger, BITCOIN)
            if anchor.status == AnchorStatus.PENDING:
                return anchoring.bitcoin_observed(ledger, pick % len(anchor.raws))
            return anchoring.final(ledger, BITCOIN)
        if step == 3:
            return SealBatch(ledger.state.get_settlement().batch)
        if step == 4:
            return anchoring.bump(ledger, fee)
        if step == 5:
            return anchoring.reseat(ledger, fee)
        if step == 6:
            return anchoring.retract(pick % (headers + 1))
        if step == 7:
            return anchoring.bitcoin_observed(ledger, pick)
        return anchoring.halt(ledger, reason="" if pick % 2 else "look")

    @rule(pick=picks)
    def replay(self, pick: int) -> None:
        """Something that was sent already."""
        if self.sent:
            self.queue.append(self.sent[pick % len(self.sent)])

    @rule(pick=picks, position=st.integers(0, 400), value=st.integers(1, 255))
    def damage(self, pick: int, position: int, value: int) -> None:
        """Something that was sent already, with one byte changed."""
        if self.sent:
            data = bytearray(self.sent[pick % len(self.sent)] or b"\x00")
            data[position % len(data)] ^= value
            self.queue.append(bytes(data))

    @rule(data=st.binary(max_size=40))
    def junk(self, data: bytes) -> None:
        """Bytes for a transaction, and the same bytes for an entry."""
        self.queue.append(data)
        self.apply(data)


TestAnythingGoes = AnythingGoes.TestCase
TestAnythingGoes.settings = settings(
    max_examples=40,
    stateful_step_count=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
