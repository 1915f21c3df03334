"""SubmitProof, ReportFailure, SubmitVerdict."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from vcp_cluster.ledger import audits, nodes, schema, tasks
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import (
    Commitment,
    FailureKind,
    Finding,
    Verdict,
    is_consistent,
    is_same_result,
    proof_id,
)
from vcp_cluster.ledger.domains import DOMAIN_COMMITMENT, DOMAIN_VERDICT
from vcp_cluster.ledger.encoding import DetailText, Hash, Key, Signature, Unsigned, encode
from vcp_cluster.ledger.operations.base import Context, Operation, SignatureClaim
from vcp_cluster.ledger.operations.tasks import Attestations, attestation_claims
from vcp_cluster.ledger.records import (
    RECORD_VERSION,
    AssignmentOutcome,
    Proof,
    ProofStatus,
    RecordedVerdict,
    Task,
    TaskStatus,
)

_replace = msgspec.structs.replace
_CLIENTS_FAULT = (FailureKind.MODULE_REFUSED, FailureKind.BLOB_UNAVAILABLE)


def _check_assignment(context: Context, task: Task | None, attempt: int) -> Code:
    """Whether the sender is the node that this attempt of the task waits for."""
    if task is None:
        return Code.TASK_NOT_FOUND
    mine = [item for item in task.assignments if item.node == context.account]
    if task.status != TaskStatus.ASSIGNED:
        stale = any(item.attempt == attempt for item in mine)
        ended = (AssignmentOutcome.MISSED, AssignmentOutcome.RELEASED, AssignmentOutcome.FAILED)
        if stale and any(item.attempt == attempt and item.outcome in ended for item in mine):
            return Code.ATTEMPT_STALE
        return Code.TASK_NOT_ASSIGNED
    if task.assignments[-1].node != context.account:
        return Code.ATTEMPT_STALE if mine else Code.ASSIGNMENT_NOT_YOURS
    if task.assignments[-1].attempt != attempt:
        return Code.ATTEMPT_STALE
    return Code.OK


class SubmitProof(Operation, tag=30, frozen=True):
    """A worker's signed commitment to a run, with attestations that its output is kept."""

    commitment: Commitment
    signature: Signature
    output_attestations: Attestations

    def signatures(self, chain_id: bytes) -> Iterator[SignatureClaim]:
        """The worker's over its commitment, and the members' over the output."""
        commitment = self.commitment
        yield commitment.node, DOMAIN_COMMITMENT, encode(commitment), self.signature
        yield from attestation_claims(
            chain_id, commitment.output_hash, commitment.output_length, self.output_attestations
        )

    def check(self, context: Context) -> Code:
        """INNER_SIGNATURE_INVALID, the assignment's codes, the commitment's, the output's."""
        if not context.is_inner_signed:
            return Code.INNER_SIGNATURE_INVALID
        commitment = self.commitment
        task = context.state.get_task(commitment.task)
        code = _check_assignment(context, task, commitment.attempt)
        if code is not Code.OK:
            return code
        assert task is not None, "checked"
        return self._check_commitment(context, task)

    def _check_commitment(self, context: Context, task: Task) -> Code:
        commitment = self.commitment
        promised = (task.module_hash, task.entry_point, task.input_hash, task.gas_limit)
        claimed = (
            commitment.module_hash,
            commitment.entry_point,
            commitment.input_hash,
            commitment.gas_limit,
        )
        if (
            promised != claimed
            or commitment.chain_id != context.chain_id
            or commitment.node != context.account
        ):
            return Code.COMMITMENT_MISMATCH
        if commitment.profile not in context.genesis.parameters.profiles:
            return Code.PROFILE_NOT_ALLOWED
        if commitment.gas > task.gas_limit:
            return Code.GAS_OVER_LIMIT
        if commitment.output_length > task.output_bytes_max:
            return Code.OUTPUT_OVER_LIMIT
        if not is_consistent(commitment):
            return Code.RESULT_INVALID
        if commitment.output_length == 0:
            return Code.OK  # everyone has the empty blob
        return context.check_attestations(self.output_attestations)

    def effect(self, context: Context) -> None:
        """The task is PROVEN, and its proof waits for the draw of the next entry."""
        state, commitment = context.state, self.commitment
        identity = proof_id(commitment)
        task = state.get_task(commitment.task)
        assert task is not None, "checked"
        task = tasks.end_assignment(
            state, commitment.task, task, AssignmentOutcome.PROVEN, proof=identity
        )
        state.put_task(
            commitment.task, _replace(task, status=int(TaskStatus.PROVEN), proof=identity)
        )
        if commitment.output_length > 0:
            tasks.reference_blob(state, commitment.output_hash, commitment.task)
        node = state.get_node(context.account)
        assert node is not None, "an assignment belongs to a node"
        node = _replace(node, proofs=node.proofs + 1, undecided=node.undecided + 1)
        nodes.put_node(state, context.account, node)
        height = context.head.height
        state.overlay.put(schema.DRAW + schema.u64(height) + identity, b"\x01")
        state.put_proof(
            identity,
            Proof(
                version=RECORD_VERSION,
                commitment=commitment,
                signature=self.signature,
                height=height,
                time_ms=context.head.time_ms,
                status=int(ProofStatus.COMMITTED),
                is_audited=False,
                verifier=b"",
                silence_ms=0,
                verdicts=(),
                decided_height=0,
            ),
        )


class ReportFailure(Operation, tag=31, frozen=True):
    """A worker says that its run gave nothing reproducible: the next attempt begins at once."""

    task: Hash
    attempt: Unsigned
    failure: Annotated[int, Meta(ge=1, le=6)]
    detail: DetailText

    def check(self, context: Context) -> Code:
        """The assignment's codes."""
        return _check_assignment(context, context.state.get_task(self.task), self.attempt)

    def effect(self, context: Context) -> None:
        """The next attempt; a small cost in reputation unless the client is to blame.

        A module that no executor takes, or blobs that nobody has any more, are the client's doing:
        if they cost reputation, a client could ruin a node with tasks made to fail.
        """
        task = context.state.get_task(self.task)
        assert task is not None, "checked"
        kind = FailureKind(self.failure).name.lower()
        detail = f"{kind}: {self.detail}"[:200]
        task = tasks.end_assignment(
            context.state,
            self.task,
            task,
            AssignmentOutcome.FAILED,
            detail=detail,
            is_nodes_fault=self.failure not in _CLIENTS_FAULT,
        )
        tasks.reopen(context.state, self.task, task, head=context.head)


class SubmitVerdict(Operation, tag=32, frozen=True):
    """A member's finding about a proof under audit."""

    member: Key
    verdict: Verdict
    signature: Signature

    def signatures(self, chain_id: bytes) -> Iterator[SignatureClaim]:
        """The member's over its verdict."""
        yield self.member, DOMAIN_VERDICT, encode(self.verdict), self.signature

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, INNER_SIGNATURE_INVALID, PROOF_…, VERIFIER_NOT_DRAWN, VERDICT_…."""
        if not context.is_member or self.member != context.account:
            return Code.NOT_A_MEMBER
        if not context.is_inner_signed or self.verdict.chain_id != context.chain_id:
            return Code.INNER_SIGNATURE_INVALID
        proof = context.state.get_proof(self.verdict.proof)
        if proof is None:
            return Code.PROOF_NOT_FOUND
        if proof.status not in (ProofStatus.AUDITED_BY_ONE, ProofStatus.AUDITED_BY_ALL):
            return Code.PROOF_NOT_IN_AUDIT
        if proof.status == ProofStatus.AUDITED_BY_ONE and proof.verifier != context.account:
            return Code.VERIFIER_NOT_DRAWN
        if any(item.member == context.account for item in proof.verdicts):
            return Code.VERDICT_EXISTS
        finding = Finding(self.verdict.finding)
        agrees = is_same_result(proof.commitment, self.verdict)
        if finding is not Finding.UNABLE and agrees != (finding is Finding.AGREE):
            return Code.VERDICT_INCONSISTENT
        return Code.OK

    def effect(self, context: Context) -> None:
        """Accept, reject, or ask the others."""
        proof = context.state.get_proof(self.verdict.proof)
        assert proof is not None, "checked"
        recorded = RecordedVerdict(
            member=context.account,
            verdict=self.verdict,
            signature=self.signature,
            height=context.head.height,
            time_ms=context.head.time_ms,
        )
        audits.record_verdict(context.state, self.verdict.proof, proof, recorded, head=context.head)
