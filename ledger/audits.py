"""Which proofs are run again, by whom, and what follows.

The draw happens in the entry after the proof's, from a root that the worker could not know when it
signed. A drawn proof is run again by one member; if that one disagrees or stays silent, all members
are asked and a majority of them decides. Nothing is accepted by time alone.
"""

from __future__ import annotations

import msgspec

from vcp_cluster.ledger import money, nodes, schema, settlement, tasks
from vcp_cluster.ledger.commitments import Finding
from vcp_cluster.ledger.domains import DOMAIN_AUDIT
from vcp_cluster.ledger.genesis import Genesis, majority
from vcp_cluster.ledger.keys import hash_domain
from vcp_cluster.ledger.nodes import BASIS_POINTS
from vcp_cluster.ledger.records import (
    AssignmentOutcome,
    Head,
    Node,
    Proof,
    ProofStatus,
    RecordedVerdict,
    TaskStatus,
)
from vcp_cluster.ledger.schema import DeadlineKind
from vcp_cluster.ledger.state import State

_replace = msgspec.structs.replace
_PRESENT = b"\x01"
_ALL_MEMBERS = b""


def compute_audit_rate_bp(genesis: Genesis, node: Node) -> int:
    """How often a node's proofs are run again: always at first, then by reputation.

    minimum + (1 - reputation) / 2, in basis points: it rises as reputation falls and never
    reaches zero.
    """
    parameters = genesis.parameters
    # Decided proofs count, not submitted ones: a node with a large capacity could submit more than
    # the first ones in one entry, before any of them is drawn.
    if node.accepted + node.rejected < parameters.audit_first_proofs:
        return BASIS_POINTS
    return min(BASIS_POINTS, parameters.audit_rate_min_bp + (BASIS_POINTS - node.reputation) // 2)


def draw(state: State, identity: bytes, proof: Proof, *, head: Head, root: bytes) -> None:
    """Decide whether a proof is audited. `root` is the state root at the proof's height."""
    genesis = state.genesis
    node = state.get_node(proof.commitment.node)
    assert node is not None, "a proof belongs to a node"
    randomness = hash_domain(DOMAIN_AUDIT, root, identity)
    point = int.from_bytes(randomness[:16], "big") % BASIS_POINTS
    if point >= compute_audit_rate_bp(genesis, node):
        accept(state, identity, proof, head=head)
        return
    members = genesis.members
    verifier = members[int.from_bytes(randomness[16:], "big") % len(members)]
    silence = head.active_ms + genesis.parameters.audit_silence_ms
    state.overlay.put(schema.deadline_key(silence, DeadlineKind.AUDIT_SILENCE, identity), _PRESENT)
    state.overlay.put(schema.AUDIT + identity, verifier.key)
    state.put_proof(
        identity,
        _replace(
            proof,
            status=int(ProofStatus.AUDITED_BY_ONE),
            is_audited=True,
            verifier=verifier.key,
            silence_ms=silence,
        ),
    )


def escalate(state: State, identity: bytes, proof: Proof) -> Proof:
    """Ask all members."""
    _forget_silence(state, identity, proof)
    proof = _replace(proof, status=int(ProofStatus.AUDITED_BY_ALL))
    state.overlay.put(schema.AUDIT + identity, _ALL_MEMBERS)
    state.put_proof(identity, proof)
    return proof


def record_verdict(
    state: State, identity: bytes, proof: Proof, recorded: RecordedVerdict, *, head: Head
) -> None:
    """Add a member's verdict and draw the consequences."""
    proof = _replace(proof, verdicts=(*proof.verdicts, recorded))
    finding = Finding(recorded.verdict.finding)
    if proof.status == ProofStatus.AUDITED_BY_ONE:
        if finding is Finding.AGREE:
            accept(state, identity, proof, head=head)
            return
        proof = escalate(state, identity, proof)
    needed = majority(state.genesis)
    findings = [Finding(item.verdict.finding) for item in proof.verdicts]
    if findings.count(Finding.AGREE) >= needed:
        accept(state, identity, proof, head=head)
    elif findings.count(Finding.DISAGREE) >= needed:
        reject(state, identity, proof, head=head)
    elif len(findings) == len(state.genesis.members):
        void(state, identity, proof, head=head)
    else:
        state.put_proof(identity, proof)


def _forget_silence(state: State, identity: bytes, proof: Proof) -> None:
    state.overlay.delete(
        schema.deadline_key(proof.silence_ms, DeadlineKind.AUDIT_SILENCE, identity)
    )


def _decide(state: State, identity: bytes, proof: Proof, status: ProofStatus, head: Head) -> None:
    _forget_silence(state, identity, proof)
    state.overlay.delete(schema.AUDIT + identity)
    state.put_proof(identity, _replace(proof, status=int(status), decided_height=head.height))


def accept(state: State, identity: bytes, proof: Proof, *, head: Head) -> None:
    """Pay: escrow → pending (and stake), a leaf in the open batch, reputation up."""
    _decide(state, identity, proof, ProofStatus.ACCEPTED, head)
    commitment = proof.commitment
    task = state.get_task(commitment.task)
    node = state.get_node(commitment.node)
    assert task is not None and node is not None, "a proof belongs to a task and a node"
    parameters = state.genesis.parameters
    batch, leaf = settlement.add_leaf(state, task, proof, head=head)
    task = tasks.set_outcome(task, AssignmentOutcome.ACCEPTED, proof=identity)
    task = _replace(task, status=int(TaskStatus.ACCEPTED), proof=identity, batch=batch, leaf=leaf)
    tasks.finish(state, commitment.task, task, head=head)
    node = nodes.record_success(node, parameters)
    node = _replace(node, accepted=node.accepted + 1, undecided=node.undecided - 1)
    nodes.put_node(state, commitment.node, node)


def reject(state: State, identity: bytes, proof: Proof, *, head: Head) -> None:
    """Do not pay: slash, reputation down, and the task goes to another node."""
    _decide(state, identity, proof, ProofStatus.REJECTED, head)
    commitment = proof.commitment
    task = state.get_task(commitment.task)
    node = state.get_node(commitment.node)
    assert task is not None and node is not None, "a proof belongs to a task and a node"
    parameters = state.genesis.parameters
    at_stake = money.stake(state, commitment.node)
    money.slash(state, commitment.node, min(at_stake, task.reward * parameters.slash_rewards))
    node = nodes.record_error(node, parameters, parameters.reputation_rejected)
    node = _replace(node, rejected=node.rejected + 1, undecided=node.undecided - 1)
    nodes.put_node(state, commitment.node, node)
    task = tasks.set_outcome(task, AssignmentOutcome.REJECTED, proof=identity)
    tasks.reopen(state, commitment.task, task, head=head)


def void(state: State, identity: bytes, proof: Proof, *, head: Head) -> None:
    """All members spoke and no majority agreed: nobody is paid or blamed, the task goes on.

    Without this a reward could stay in escrow for ever.
    """
    _decide(state, identity, proof, ProofStatus.VOID, head)
    commitment = proof.commitment
    task = state.get_task(commitment.task)
    node = state.get_node(commitment.node)
    assert task is not None and node is not None, "a proof belongs to a task and a node"
    nodes.put_node(state, commitment.node, _replace(node, undecided=node.undecided - 1))
    task = tasks.set_outcome(task, AssignmentOutcome.VOID, proof=identity)
    tasks.reopen(state, commitment.task, task, head=head)
