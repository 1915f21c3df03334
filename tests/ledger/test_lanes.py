"""Any sequence of anchor operations of two backends: the lanes stay chains (`check_lanes`).

Members seal, publish, pay more, observe, take back, build again and halt, in any order and also
when it makes no sense. A second store that is given the same entries has the same roots.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule
from ledger_harness import anchoring, forms
from ledger_harness.ledger import Ledger

from vcp_cluster.ledger.anchor_settings import BITCOIN
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.operations import AnyOperation, RegisterNode, SealBatch
from vcp_cluster.ledger.operations.anchors import LEASE_MS
from vcp_cluster.ledger.records import AnchorStatus
from vcp_cluster.ledger.state import MemoryStore
from vcp_cluster.ledger.transactions import verify_entry
from vcp_cluster.ledger.transition import apply, initial_writes

picks = st.integers(0, 7)
fees = st.sampled_from((0, 200, 400, 800, 5_001))


class AnyAnchors(RuleBasedStateMachine):
    """One worker makes batches; two members act for Bitcoin, mostly the one with the lease."""

    @initialize()
    def begin(self) -> None:
        """No audits: every proof fills a batch. Two final anchors and a pending one are undone."""
        self.ledger = Ledger(
            audit_first_proofs=0, audit_rate_min_bp=1, reputation_initial=10_000, stake_min=0
        )
        self.twin = MemoryStore()
        self.twin.commit(initial_writes(self.ledger.genesis))
        self.caught_up = 0
        assert self.ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
        assert self.ledger.submit("ada", forms.report(self.ledger, "pc")) is Code.OK
        self.finish()
        self.finish()
        self.batch()
        assert self.ledger.state.get_lane(BITCOIN).final == 2, "the third batch is not anchored"
        self.submit("ada", anchoring.intent(self.ledger, BITCOIN))
        assert self.ledger.submit("ada", anchoring.bump(self.ledger, 300)) is Code.OK
        assert self.ledger.submit("ada", anchoring.retract(1)) is Code.OK
        assert self.ledger.state.get_lane(BITCOIN).retracted == (2, 3)

    @rule()
    def finish(self) -> None:
        """A batch that is anchored for good, if nothing is in the way."""
        self.batch()
        self.go_on(3)

    @rule()
    def batch(self) -> None:
        """One more sealed batch."""
        ledger = self.ledger
        task = ledger.submit_task("alice", forms.task(ledger))
        claim = forms.commitment(ledger, task)
        assert ledger.submit("pc", forms.prove(ledger, "pc", claim)) is Code.OK
        ledger.wait(1)
        open_batch = ledger.state.get_settlement().batch
        ledger.submit("ada", SealBatch(open_batch))

    @rule(times=st.integers(1, 3))
    def go_on(self, times: int) -> None:
        """What an honest holder of the lease does next."""
        self.submit("ada", anchoring.lease(self.ledger))
        for _ in range(times):
            anchor = anchoring.pending(self.ledger, BITCOIN)
            if anchor is None:
                self.submit("ada", anchoring.intent(self.ledger, BITCOIN))
            elif anchor.status == AnchorStatus.OBSERVED:
                self.submit("ada", anchoring.final(self.ledger, BITCOIN))
            else:
                newest = len(anchor.raws) - 1
                self.submit("ada", anchoring.bitcoin_observed(self.ledger, newest))

    @rule(member=st.sampled_from(("ada", "ada", "ben")), pick=picks, fee=fees)
    def price(self, member: str, pick: int, fee: int) -> None:
        """Another variant, of the present seal or of none; or one of them observed."""
        self.submit(member, anchoring.lease(self.ledger))
        self.submit(member, anchoring.intent(self.ledger, BITCOIN))
        self.submit(member, anchoring.bump(self.ledger, fee))
        self.submit(member, anchoring.reseat(self.ledger, fee))
        self.submit(member, anchoring.bitcoin_observed(self.ledger, pick))

    @rule(pick=picks)
    def take_back(self, pick: int) -> None:
        """A reorganisation, as deep as it may be."""
        headers = self.ledger.state.get_settlement().headers
        self.submit("ada", anchoring.lease(self.ledger))
        self.submit("ada", anchoring.retract(pick % headers + 1))

    @rule(pick=picks)
    def look(self, pick: int) -> None:
        """Halted, which is seldom; else going on."""
        self.submit("cyd", anchoring.halt(self.ledger, reason="" if pick else "look"))

    @rule(member=st.sampled_from(("ada", "ben")))
    def lease_ends(self, member: str) -> None:
        """Another member may act after that."""
        self.ledger.entry(after_ms=LEASE_MS)
        self.submit(member, anchoring.lease(self.ledger))

    @rule()
    def notary(self) -> None:
        """The other lane, beside it."""
        self.submit("ben", anchoring.intent(self.ledger))
        self.submit("ben", anchoring.notary_observed(self.ledger))
        self.submit("ben", anchoring.final(self.ledger))

    def submit(self, member: str, operation: AnyOperation) -> None:
        """Any answer is right, as long as the invariants hold and the twin gives it too."""
        self.ledger.submit(member, operation)
        for data in self.ledger.entries[self.caught_up :]:
            applied = apply(self.twin, data, verify_entry(data))
            self.twin.commit(applied.writes)
        self.caught_up = len(self.ledger.entries)
        assert dict(self.twin.iterate(b"")) == dict(self.ledger.store.iterate(b""))


TestAnyAnchors = AnyAnchors.TestCase
TestAnyAnchors.settings = settings(
    max_examples=15,
    stateful_step_count=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
