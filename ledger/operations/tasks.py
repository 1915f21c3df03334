"""SubmitTask, CancelTask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger import money, tasks
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import Attestation, blob_message
from vcp_cluster.ledger.domains import DOMAIN_BLOB
from vcp_cluster.ledger.encoding import Hash, ShortText, Unsigned
from vcp_cluster.ledger.genesis import MEMBERS_MAX
from vcp_cluster.ledger.operations.base import Context, Operation, SignatureClaim
from vcp_cluster.ledger.records import RECORD_VERSION, Task, TaskStatus

Attestations = Annotated[tuple[Attestation, ...], Meta(max_length=MEMBERS_MAX)]


def attestation_claims(
    chain_id: bytes, blob: bytes, size: int, attestations: tuple[Attestation, ...]
) -> Iterator[SignatureClaim]:
    """The signatures of members over a blob."""
    message = blob_message(chain_id, blob, size)
    for attestation in attestations:
        yield attestation.member, DOMAIN_BLOB, message, attestation.signature


class SubmitTask(Operation, tag=20, frozen=True):
    """Ask for one run of a WebAssembly module on an input, and put the reward in escrow.

    Sizes in bytes, times in milliseconds of active time. `deadline_ms` is for one attempt,
    `open_ms_max` for the whole task until its last attempt starts.
    """

    module_hash: Hash
    module_size: Unsigned
    module_attestations: Attestations
    entry_point: ShortText
    input_hash: Hash
    input_size: Unsigned
    input_attestations: Attestations
    gas_limit: Unsigned
    memory_bytes_max: Unsigned
    run_ms_max: Unsigned
    output_bytes_max: Unsigned
    deadline_ms: Unsigned
    open_ms_max: Unsigned
    reward: Unsigned
    replicas: Unsigned

    def signatures(self, chain_id: bytes) -> Iterator[SignatureClaim]:
        """The members' over module and input."""
        yield from attestation_claims(
            chain_id, self.module_hash, self.module_size, self.module_attestations
        )
        yield from attestation_claims(
            chain_id, self.input_hash, self.input_size, self.input_attestations
        )

    def check(self, context: Context) -> Code:
        """INNER_SIGNATURE_INVALID, AMOUNT_ZERO, BALANCE_INSUFFICIENT, LIMIT_…, REPLICAS_…, blobs."""
        if not context.is_inner_signed:
            return Code.INNER_SIGNATURE_INVALID
        if self.reward == 0:
            return Code.AMOUNT_ZERO
        if money.balance(context.state, context.account) < self.reward:
            return Code.BALANCE_INSUFFICIENT
        if not self._is_within_limits(context):
            return Code.LIMIT_INVALID
        if self.replicas != 1:
            return Code.REPLICAS_UNSUPPORTED
        blobs = (self.module_attestations, self.input_attestations)
        codes = [context.check_attestations(attestations) for attestations in blobs]
        # A wrong attestation before a missing one, whichever blob it is of.
        return min((code for code in codes if code is not Code.OK), default=Code.OK)

    def _is_within_limits(self, context: Context) -> bool:
        parameters = context.genesis.parameters
        limits = (
            (self.module_size, parameters.module_bytes_max),
            (self.gas_limit, parameters.gas_max),
            (self.memory_bytes_max, parameters.memory_bytes_max),
            (self.run_ms_max, parameters.run_ms_max),
            (self.output_bytes_max, parameters.output_bytes_max),
            (self.deadline_ms, parameters.deadline_ms_max),
            (self.open_ms_max, parameters.open_ms_max),
        )
        return (
            all(1 <= value <= limit for value, limit in limits)
            and self.input_size <= parameters.input_bytes_max
            and self.entry_point != ""
        )

    def effect(self, context: Context) -> None:
        """available → escrow, and an open task."""
        identity = tasks.compute_task_id(context.tx_id, context.index)
        money.hold_escrow(context.state, context.account, self.reward)
        task = Task(
            version=RECORD_VERSION,
            client=context.account,
            height=context.head.height,
            time_ms=context.head.time_ms,
            module_hash=self.module_hash,
            module_size=self.module_size,
            entry_point=self.entry_point,
            input_hash=self.input_hash,
            input_size=self.input_size,
            gas_limit=self.gas_limit,
            memory_bytes_max=self.memory_bytes_max,
            run_ms_max=self.run_ms_max,
            output_bytes_max=self.output_bytes_max,
            deadline_ms=self.deadline_ms,
            closes_ms=context.head.active_ms + self.open_ms_max,
            reward=self.reward,
            replicas=self.replicas,
            status=int(TaskStatus.OPEN),
            attempt=0,
            assignments=(),
            queue_key=b"",
            proof=b"",
            batch=0,
            leaf=0,
        )
        number = context.position * 128 + context.index
        tasks.open_task(context.state, identity, task, head=context.head, number=number)


class CancelTask(Operation, tag=21, frozen=True):
    """Take an open task back; its escrow returns."""

    task: Hash

    def check(self, context: Context) -> Code:
        """TASK_NOT_FOUND, TASK_NOT_OWNED, TASK_NOT_OPEN."""
        task = context.state.get_task(self.task)
        if task is None:
            return Code.TASK_NOT_FOUND
        if task.client != context.account:
            return Code.TASK_NOT_OWNED
        if task.status != TaskStatus.OPEN:
            return Code.TASK_NOT_OPEN
        return Code.OK

    def effect(self, context: Context) -> None:
        """escrow → available."""
        task = context.state.get_task(self.task)
        assert task is not None, "checked"
        tasks.close(context.state, self.task, task, TaskStatus.CANCELLED, head=context.head)
