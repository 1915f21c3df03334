"""Records of the ledger as JSON documents (docs/http-api.md).

Hashes and keys in lower-case hex, amounts as decimal strings of units, times in RFC 3339, statuses
as lower-case words. Every key is always present.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from vcp_cluster.executor.result import TrapClass
from vcp_cluster.ledger.anchors import BACKENDS
from vcp_cluster.ledger.codes import CODE_MEANINGS, Code
from vcp_cluster.ledger.commitments import Commitment, Finding, ResultStatus, Verdict
from vcp_cluster.ledger.genesis import Genesis, member_names
from vcp_cluster.ledger.records import (
    Account,
    Anchor,
    AnchorLane,
    AnchorStatus,
    AssignmentOutcome,
    Node,
    NodeClass,
    Proof,
    ProofStatus,
    Supply,
    Task,
    TaskStatus,
    compute_node_class,
)
from vcp_cluster.ledger.settlement import BatchHeader
from vcp_cluster.ledger.transactions import Envelope, TransactionReceipt

Document = dict[str, Any]


def format_time(time_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds; times beyond the year 9999 are shown as its last one."""
    seconds, milliseconds = divmod(min(time_ms, 253_402_300_799_999), 1000)
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def word(value: Any) -> str:
    """An enumeration's name as users see it."""
    return str(value.name).lower()


def receipt(value: TransactionReceipt) -> Document:
    """A transaction's receipt."""
    code = Code(value.code)
    return {
        "tx_id": value.tx_id.hex(),
        "height": value.height,
        "time": format_time(value.time_ms),
        "log_index": value.log_index,
        "code": word(code),
        "code_number": value.code,
        "operation": value.operation,
        "message": CODE_MEANINGS[code],
    }


def account(
    identity: bytes, value: Account, *, is_node: bool, member: str | None, height: int
) -> Document:
    """An account with all that is its own."""
    return {
        "schema": "vcp/account/v1",
        "id": identity.hex(),
        "available": str(value.available),
        "pending": str(value.pending),
        "stake": str(value.stake),
        "escrow": str(value.escrow),
        "is_node": is_node,
        "member": member,
        "height": height,
    }


def supply(value: Supply) -> Document:
    """All units. `accounted` is the sum of where they are: it equals what was made."""
    names = [name for name in value.__struct_fields__ if name != "version"]
    held = value.available + value.escrow + value.pending + value.stake + value.treasury
    return {**{name: str(getattr(value, name)) for name in names}, "accounted": str(held)}


def node(identity: bytes, value: Node, balance: Account) -> Document:
    """A compute node."""
    return {
        "id": identity.hex(),
        "device": value.device,
        "status": {
            NodeClass.OFFLINE: "offline",
            NodeClass.ONLINE: "online",
            NodeClass.SAFE_MODE: "safe_mode",
        }[compute_node_class(value)],
        "health": value.health,
        "reputation": value.reputation,
        "capacity": value.capacity,
        "running": value.running,
        "undecided": value.undecided,
        "proofs": value.proofs,
        "accepted": value.accepted,
        "rejected": value.rejected,
        "failed": value.failed,
        "telemetry": {
            "power_mw": value.power_mw,
            "temperature_mc": value.temperature_mc,
            "carbon_g_kwh": value.carbon_g_kwh,
            "bandwidth_kbps": value.bandwidth_kbps,
            "latency_us": value.latency_us,
            "efficiency_mflops_w": value.efficiency_mflops_w,
        },
        "reported": format_time(value.report_ms) if value.report_ms else None,
        "balance": {
            "available": str(balance.available),
            "pending": str(balance.pending),
            "stake": str(balance.stake),
        },
        "registered_height": value.registered_height,
    }


def result_word(status: int, trap: int) -> str:
    """How a run ended, in one word: `ok`, `trap:unreachable`, `out_of_gas`, …"""
    if status == ResultStatus.TRAP:
        return f"trap:{trap_word(trap)}"
    return word(ResultStatus(status))


def trap_word(trap: int) -> str:
    """Name of a trap class; a number for one that this release does not know."""
    try:
        return word(TrapClass(trap))
    except ValueError:
        return str(trap)


def task(
    identity: bytes,
    value: Task,
    *,
    status: TaskStatus,
    proof: Proof | None,
    anchored_batches: int,
    height: int,
) -> Document:
    """A task with all its assignments; `proof` is that of its newest result, if any."""
    settled = status is TaskStatus.SETTLED
    anchored = settled and value.batch <= anchored_batches
    commitment = None if proof is None else proof.commitment
    accepted = value.status == TaskStatus.ACCEPTED
    return {
        "id": identity.hex(),
        "client": value.client.hex(),
        "status": word(status),
        "reward": str(value.reward),
        "node": value.assignments[-1].node.hex() if value.assignments else None,
        "attempts": len(value.assignments),
        "module_hash": value.module_hash.hex(),
        "module_size": value.module_size,
        "entry_point": value.entry_point,
        "input_hash": value.input_hash.hex(),
        "input_size": value.input_size,
        "limits": {
            "gas": value.gas_limit,
            "memory_bytes": value.memory_bytes_max,
            "run_ms": value.run_ms_max,
            "output_bytes": value.output_bytes_max,
            "deadline_ms": value.deadline_ms,
        },
        "submitted": {"height": value.height, "time": format_time(value.time_ms)},
        "assignments": [
            {
                "attempt": item.attempt,
                "node": item.node.hex(),
                "height": item.height,
                "time": format_time(item.time_ms),
                "outcome": word(AssignmentOutcome(item.outcome)),
                "proof": item.proof.hex() or None,
                "detail": item.detail,
            }
            for item in value.assignments
        ],
        "proof": value.proof.hex() or None,
        "output_hash": commitment.output_hash.hex() if commitment else None,
        "output_length": commitment.output_length if commitment else None,
        "result": result_word(commitment.status, commitment.trap) if commitment else None,
        "gas": commitment.gas if commitment else None,
        "batch": value.batch if accepted else None,
        "receipt": "anchored" if anchored else "sealed" if settled else "none",
        "height": height,
    }


def commitment(value: Commitment) -> Document:
    """A commitment, field by field."""
    return _plain(
        value, {"status": word(ResultStatus(value.status)), "trap": trap_word(value.trap)}
    )


def _plain(record: Any, words: Document) -> Document:
    fields = {}
    for name in record.__struct_fields__:
        value = getattr(record, name)
        fields[name] = value.hex() if isinstance(value, bytes) else value
    return {**fields, **words}


_COMPARED = ("status", "trap", "gas", "output_hash", "output_length", "execution_root")


def differing_fields(value: Commitment, verdict: Verdict) -> list[str]:
    """Names of the fields in which a verifier computed something else."""
    return [name for name in _COMPARED if getattr(value, name) != getattr(verdict, name)]


def proof(identity: bytes, value: Proof, genesis: Genesis) -> Document:
    """A proof, its verdicts, whose are missing, and where they differ from the commitment."""
    names = member_names(genesis)
    given = {item.member for item in value.verdicts}
    missing: list[str] = []
    if value.status == ProofStatus.AUDITED_BY_ONE:
        missing = [names[value.verifier]]
    elif value.status == ProofStatus.AUDITED_BY_ALL:
        missing = [name for key, name in names.items() if key not in given]
    differs: list[str] = []
    for item in value.verdicts:
        if item.verdict.finding == Finding.DISAGREE:
            differs = differing_fields(value.commitment, item.verdict)
            break
    return {
        "schema": "vcp/proof/v1",
        "id": identity.hex(),
        "task": value.commitment.task.hex(),
        "node": value.commitment.node.hex(),
        "attempt": value.commitment.attempt,
        "status": word(ProofStatus(value.status)),
        "is_audited": value.is_audited,
        "verifier": names[value.verifier] if value.verifier else None,
        "submitted": {"height": value.height, "time": format_time(value.time_ms)},
        "decided_height": value.decided_height or None,
        "commitment": commitment(value.commitment),
        "signature": value.signature.hex(),
        "verdicts": [
            {
                "member": names[item.member],
                "finding": word(Finding(item.verdict.finding)),
                "height": item.height,
                "time": format_time(item.time_ms),
                "status": word(ResultStatus(item.verdict.status)),
                "trap": trap_word(item.verdict.trap),
                "gas": item.verdict.gas,
                "output_hash": item.verdict.output_hash.hex(),
                "output_length": item.verdict.output_length,
                "execution_root": item.verdict.execution_root.hex(),
                "detail": item.verdict.detail,
            }
            for item in value.verdicts
        ],
        "missing": missing,
        "differs": differs,
    }


def lane(backend: str, value: AnchorLane) -> Document:
    """How far a backend has anchored the batch log."""
    return {
        "backend": backend,
        "label": BACKENDS[backend].label,
        "final": value.final,
        "pending": value.pending or None,
        "halt": value.halt or None,
    }


def _anchor(value: Anchor) -> Document:
    return {
        "backend": value.backend,
        "label": BACKENDS[value.backend].label,
        "size": value.size,
        "status": word(AnchorStatus(value.status)),
        "intent_height": value.intent_height,
        "final_height": value.final_height or None,
    }


def batch(data: bytes, covering: Sequence[Anchor]) -> Document:
    """A sealed batch: its header, and the anchors that cover it, one of each backend."""
    header = BatchHeader.decode(data)
    anchors = [_anchor(one) for one in covering]
    return {
        "batch": header.batch,
        "count": header.count,
        "first": header.first,
        "last": header.last,
        "settlement_root": header.settlement_root.hex(),
        "state_root": header.state_root.hex(),
        "previous": header.previous.hex(),
        "time": format_time(header.time_ms),
        "height": header.height,
        "log_size": header.log_size,
        "log_root": header.log_root.hex(),
        "header": data.hex(),
        "anchor": anchors[0] if anchors else None,
        "anchors": anchors,
    }


def transaction(value: TransactionReceipt, envelope: Envelope) -> Document:
    """A transaction and what happened to it."""
    return {
        "schema": "vcp/transaction/v1",
        "receipt": receipt(value),
        "account": envelope.account.hex(),
        "key": envelope.key.hex(),
        "nonce": str(envelope.nonce),
        "valid_until": format_time(envelope.valid_until_ms),
        "operations": [_operation(operation) for operation in envelope.operations],
    }


def _operation(operation: Any) -> Document:
    kind = type(operation).__name__
    snake = "".join(f"_{c.lower()}" if c.isupper() else c for c in kind).lstrip("_")
    return {"operation": snake, **_nested(operation)}


def _nested(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _nested(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [_nested(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value
