"""Operations as the honest would fill them in; any field can be given otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ledger_harness.cast import MEMBERS, PROFILE, key, seed
from ledger_harness.ledger import Ledger
from vcp_cluster.ledger.commitments import (
    EMPTY_OUTPUT_HASH,
    Attestation,
    Commitment,
    Finding,
    ResultStatus,
    Telemetry,
    Verdict,
    attest_blob,
    sign_commitment,
    sign_telemetry,
    sign_verdict,
)
from vcp_cluster.ledger.genesis import UNITS_PER_VCP
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.operations import (
    NodeReport,
    SubmitProof,
    SubmitTask,
    SubmitVerdict,
)

MODULE = b"the module of every task in the tests"
INPUT = b"the input of every task in the tests"
OUTPUT = b"what an honest run of it gives"

_replace = msgspec.structs.replace


def attest(
    ledger: Ledger, blob: bytes, size: int, members: Sequence[str] = MEMBERS
) -> tuple[Attestation, ...]:
    """Members' words that they hold a blob (its hash)."""
    return tuple(
        attest_blob(seed(member), key(member), ledger.chain_id, blob, size) for member in members
    )


def task(ledger: Ledger, reward: int = UNITS_PER_VCP, **changes: Any) -> SubmitTask:
    """A task that keeps every limit: 10 s for an attempt, 60 s for the whole."""
    module, input_ = hash_content(MODULE), hash_content(INPUT)
    operation = SubmitTask(
        module_hash=module,
        module_size=len(MODULE),
        module_attestations=attest(ledger, module, len(MODULE)),
        entry_point="vcp_run",
        input_hash=input_,
        input_size=len(INPUT),
        input_attestations=attest(ledger, input_, len(INPUT)),
        gas_limit=1_000_000,
        memory_bytes_max=16 << 20,
        run_ms_max=5_000,
        output_bytes_max=1_000,
        deadline_ms=10_000,
        open_ms_max=60_000,
        reward=reward,
        replicas=1,
    )
    return _replace(operation, **changes)


def report(
    ledger: Ledger, worker: str, *, is_online: bool = True, measured: int = 500_000, **changes: Any
) -> NodeReport:
    """A member's report of a healthy machine; `changes` go to its telemetry."""
    telemetry = Telemetry(
        version=1,
        chain_id=ledger.chain_id,
        node=key(worker),
        time_ms=ledger.now_ms,
        power_mw=15_000,
        temperature_mc=40_000,
        carbon_g_kwh=300,
        bandwidth_kbps=500_000,
        latency_us=10_000,
        efficiency_mflops_w=2_000,
    )
    signed = sign_telemetry(seed(worker), _replace(telemetry, **changes))
    return NodeReport(key(worker), is_online, measured, 10_000, signed)


def commitment(ledger: Ledger, task_id: bytes, **changes: Any) -> Commitment:
    """What an honest worker of the newest assignment commits to."""
    record = ledger.state.get_task(task_id)
    assert record is not None and record.assignments
    assignment = record.assignments[-1]
    honest = Commitment(
        version=1,
        chain_id=ledger.chain_id,
        task=task_id,
        attempt=assignment.attempt,
        node=assignment.node,
        module_hash=record.module_hash,
        entry_point=record.entry_point,
        input_hash=record.input_hash,
        output_hash=hash_content(OUTPUT),
        output_length=len(OUTPUT),
        status=int(ResultStatus.OK),
        trap=0,
        gas=1_000,
        gas_limit=record.gas_limit,
        profile=PROFILE,
        engine="wasmtime 50",
        waypoints=1,
        execution_root=hash_content(b"the run"),
        trace_root=hash_content(task_id + assignment.node),
    )
    return _replace(honest, **changes)


def prove(
    ledger: Ledger, worker: str, signed: Commitment, members: Sequence[str] = MEMBERS
) -> SubmitProof:
    """A proof with its signature, and attestations of the output."""
    output = signed.output_hash
    attestations = attest(ledger, output, signed.output_length, members)
    return SubmitProof(signed, sign_commitment(seed(worker), signed), attestations)


def lie(ledger: Ledger, task_id: bytes) -> Commitment:
    """A commitment to an output that no honest run gives."""
    return commitment(ledger, task_id, output_hash=hash_content(b"a lie"), output_length=5)


def trap(ledger: Ledger, task_id: bytes) -> Commitment:
    """A commitment to a trap: paid as any other result."""
    return commitment(
        ledger,
        task_id,
        status=int(ResultStatus.TRAP),
        trap=3,
        output_hash=EMPTY_OUTPUT_HASH,
        output_length=0,
    )


def verdict(
    ledger: Ledger, member: str, proof: bytes, finding: Finding, /, **changes: Any
) -> SubmitVerdict:
    """A member's finding with values that fit it."""
    record = ledger.state.get_proof(proof)
    assert record is not None
    said = record.commitment
    root = said.execution_root if finding is Finding.AGREE else hash_content(b"my own run")
    mine = Verdict(
        version=1,
        chain_id=ledger.chain_id,
        proof=proof,
        finding=int(finding),
        status=said.status,
        trap=said.trap,
        gas=said.gas,
        output_hash=said.output_hash,
        output_length=said.output_length,
        execution_root=root,
        detail="",
    )
    mine = _replace(mine, **changes)
    return SubmitVerdict(key(member), mine, sign_verdict(seed(member), mine))
