"""Names for the tasks and proofs of a scenario, and what becomes of them."""

from __future__ import annotations

from ledger_harness import shows
from ledger_harness.cast import CLIENTS, GOVERNOR, MEMBERS, WORKERS, key
from ledger_harness.ledger import Ledger
from vcp_cluster.ledger import tasks
from vcp_cluster.ledger.commitments import Commitment, proof_id
from vcp_cluster.ledger.records import ProofStatus, Task, TaskStatus

KNOWN = (*MEMBERS, *CLIENTS, *WORKERS, GOVERNOR)


class Names:
    """Tasks and proofs by the name that a scenario gave them with `as=`."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.tasks: dict[str, bytes] = {}
        self.proofs: dict[str, bytes] = {}

    def add_proof(self, label: str, commitment: Commitment) -> None:
        """Remember a proof by name."""
        self.proofs[label] = proof_id(commitment)

    def task(self, label: str) -> bytes:
        """Id of a task; 32 zero bytes for a name that stands for none."""
        return self.tasks.get(label, bytes(32))

    def record(self, label: str) -> Task:
        """The record of a task that exists."""
        task = self.ledger.state.get_task(self.tasks[label])
        assert task is not None, f"{label} was not accepted"
        return task

    def person(self, identity: bytes) -> str:
        """The name of a key."""
        return next((name for name in KNOWN if key(name) == identity), identity.hex()[:8])

    def worker(self, label: str) -> str:
        """Who holds a task, or held it last."""
        return self.person(self.record(label).assignments[-1].node)

    def verifier(self, label: str) -> str:
        """The member that was drawn to verify a proof."""
        proof = self.ledger.state.get_proof(self.proofs[label])
        assert proof is not None and proof.verifier, f"{label} was not drawn"
        return self.person(proof.verifier)

    def heard(self, label: str) -> list[str]:
        """Members whose verdict about a proof is recorded."""
        proof = self.ledger.state.get_proof(self.proofs[label])
        return [self.person(item.member) for item in proof.verdicts] if proof else []

    def show(self, name: str) -> list[str]:
        """A task, a proof, an account, and the node that it may be."""
        state = self.ledger.state
        if name in self.tasks:
            return [f"{name} {shows.task(self.record(name), self.person)}"]
        if name in self.proofs:
            proof = state.get_proof(self.proofs[name])
            return [f"{name} {shows.proof(proof, self.person) if proof else 'unknown'}"]
        node = state.get_node(key(name))
        lines = [f"{name} {shows.node(state, node)}"] if node is not None else []
        return [*lines, f"{name} {shows.account(state, key(name))}"]

    def snapshot(self) -> dict[str, str]:
        """A few words about each named task and proof, to be compared later."""
        state = self.ledger.state
        words = {}
        for label, identity in self.tasks.items():
            task = state.get_task(identity)
            if task is None:
                continue
            words[label] = tasks.get_status(state, task).name.lower()
            if task.status == TaskStatus.ASSIGNED:
                words[label] += f" to {self.person(task.assignments[-1].node)}"
            if task.attempt and task.status in (TaskStatus.OPEN, TaskStatus.ASSIGNED):
                words[label] += f", attempt {task.attempt + 1}"
        for label, identity in self.proofs.items():
            proof = state.get_proof(identity)
            if proof is not None:
                words[label] = ProofStatus(proof.status).name.lower().replace("_", " ")
        return words

    def changes(self, before: dict[str, str]) -> list[str]:
        """`name was -> is` for everything that is not as it was."""
        return [
            f"  {label} {before[label]} -> {words}" if label in before else f"  {label} {words}"
            for label, words in self.snapshot().items()
            if before.get(label) != words
        ]
