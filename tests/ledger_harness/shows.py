"""One line of text about each kind of record, amounts in VCP."""

from __future__ import annotations

from collections.abc import Callable

from ledger_harness.ledger import Ledger
from vcp_cluster.ledger import money, selection
from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY
from vcp_cluster.ledger.commitments import Finding
from vcp_cluster.ledger.genesis import UNITS_PER_VCP
from vcp_cluster.ledger.records import (
    AnchorStatus,
    AssignmentOutcome,
    Node,
    Proof,
    ProofStatus,
    Task,
    compute_node_class,
)
from vcp_cluster.ledger.state import State

Person = Callable[[bytes], str]


def vcp(units: int) -> str:
    """Units as VCP, without zeros at the end."""
    whole, part = divmod(units, UNITS_PER_VCP)
    return f"{whole}.{part:06}".rstrip("0").rstrip(".")


def account(state: State, identity: bytes) -> str:
    """Where the money of an account is."""
    record = money.get_account(state, identity)
    if record is None:
        return "does not exist"
    return (
        f"available={vcp(record.available)} pending={vcp(record.pending)} "
        f"stake={vcp(record.stake)} escrow={vcp(record.escrow)}"
    )


def node(state: State, record: Node) -> str:
    """A compute node: its class, its weight in the draw, and its record."""
    weight = selection.get_weight(state.overlay, record.slot)
    return (
        f"{compute_node_class(record).name.lower()} weight={weight} "
        f"reputation={record.reputation} running={record.running} undecided={record.undecided} "
        f"accepted={record.accepted} rejected={record.rejected} failed={record.failed}"
    )


def task(record: Task, person: Person) -> str:
    """A task's attempts."""
    attempts = [
        f"{person(item.node)} {AssignmentOutcome(item.outcome).name.lower()}"
        + (f" ({item.detail})" if item.outcome == AssignmentOutcome.FAILED else "")
        for item in record.assignments
    ]
    return f"reward={vcp(record.reward)} attempts: {', '.join(attempts) or 'none'}"


def proof(record: Proof, person: Person) -> str:
    """A proof and the verdicts about it."""
    verdicts = [
        f"{person(item.member)} {Finding(item.verdict.finding).name.lower()}"
        for item in record.verdicts
    ]
    status = ProofStatus(record.status).name.lower().replace("_", " ")
    return f"{status} verdicts: {', '.join(verdicts) or 'none'}"


def supply(ledger: Ledger) -> str:
    """Every unit that exists."""
    record = ledger.state.get_supply()
    return (
        f"minted={vcp(record.minted)} available={vcp(record.available)} "
        f"escrow={vcp(record.escrow)} pending={vcp(record.pending)} stake={vcp(record.stake)} "
        f"treasury={vcp(record.treasury)}"
    )


def batch(ledger: Ledger) -> str:
    """The open batch, and how many are sealed."""
    record = ledger.state.get_settlement()
    return (
        f"open={record.batch} tasks={record.count} total={vcp(record.total)} "
        f"pending={vcp(record.pending)} sealed={record.headers}"
    )


def anchor(ledger: Ledger, backend: str = NOTARY) -> str:
    """The anchor of a backend that is pending, or the newest one; and what stops or waits."""
    lane = ledger.state.get_lane(backend)
    record = ledger.state.get_anchor(backend, lane.pending or lane.final)
    if record is None:
        words = ["none"]
    else:
        status = AnchorStatus(record.status).name.lower()
        words = [f"size={record.size} backend={record.backend} {status}"]
        if len(record.raws) > 1:
            words.append(f"variant={record.variant + 1} of {len(record.raws)}")
    if lane.retracted:
        words.append(f"before={','.join(str(size) for size in lane.retracted)}")
    if lane.halt:
        words.append(f"halted: {lane.halt}")
    return " ".join(words)


def bitcoin(ledger: Ledger) -> str:
    """The same of Bitcoin's."""
    return anchor(ledger, BITCOIN)
