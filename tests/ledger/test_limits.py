"""Corners where a bound, a limit per entry or a long run of luck meets the rules."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from ledger_harness import forms
from ledger_harness.cast import key, make_genesis
from ledger_harness.ledger import Ledger

from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import Finding, proof_id
from vcp_cluster.ledger.encoding import INTEGER_MAX
from vcp_cluster.ledger.genesis import (
    DURATION_MS_MAX,
    GenesisInvalid,
    check_genesis,
    from_document,
    to_document,
)
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.operations import (
    CancelTask,
    Mint,
    RegisterNode,
    SealBatch,
    Transfer,
    Unstake,
)
from vcp_cluster.ledger.records import ProofStatus, TaskStatus
from vcp_cluster.ledger.transition import is_due

TRUSTED = {"audit_first_proofs": 0, "audit_rate_min_bp": 1, "reputation_initial": 10_000}
_replace = msgspec.structs.replace


def machine(ledger: Ledger, name: str, capacity: int) -> None:
    """A machine that is well."""
    assert ledger.submit(name, RegisterNode("pc", capacity)) is Code.OK
    assert ledger.submit("ada", forms.report(ledger, name)) is Code.OK


def reject(ledger: Ledger, task: bytes, worker: str) -> None:
    """The worker lies about its task, and a majority says so."""
    claim = forms.lie(ledger, task)
    assert ledger.submit(worker, forms.prove(ledger, worker, claim)) is Code.OK
    ledger.wait(1)
    for member in ("ada", "ben", "cyd", "ada"):
        ledger.submit(member, forms.verdict(ledger, member, proof_id(claim), Finding.DISAGREE))
    proof = ledger.state.get_proof(proof_id(claim))
    assert proof is not None and proof.status == ProofStatus.REJECTED


def test_a_capacity_does_not_outrun_the_first_audits() -> None:
    """A new node that submits twelve proofs in one entry is audited twelve times, not by chance."""
    ledger = Ledger(audit_first_proofs=10, audit_rate_min_bp=1, reputation_initial=10_000)
    machine(ledger, "pc", 12)
    tasks = [ledger.submit_task("alice", forms.task(ledger)) for _ in range(12)]
    proofs = [
        ledger.transaction("pc", forms.prove(ledger, "pc", forms.commitment(ledger, task)))
        for task in tasks
    ]
    assert {receipt.code for receipt in ledger.entry(*proofs)} == {Code.OK}
    ledger.wait(1)
    statuses = {ledger.state.get_proof(name[1:]).status for name, _ in ledger.store.iterate(b"p")}
    assert statuses == {ProofStatus.AUDITED_BY_ONE}


def test_the_blobs_of_a_rejected_proof_are_forgotten_too() -> None:
    """Output of a lie and output of the truth: after the retention time, nothing is referenced."""
    ledger = Ledger(blob_retention_ms=1_000)
    machine(ledger, "pc", 1)
    task = ledger.submit_task("alice", forms.task(ledger))
    reject(ledger, task, "pc")
    machine(ledger, "phone", 1)
    claim = forms.commitment(ledger, task)
    assert ledger.submit("phone", forms.prove(ledger, "phone", claim)) is Code.OK
    ledger.wait(1)
    proof = ledger.state.get_proof(proof_id(claim))
    assert proof is not None
    drawn = next(name for name in ("ada", "ben", "cyd") if key(name) == proof.verifier)
    verdict = forms.verdict(ledger, drawn, proof_id(claim), Finding.AGREE)
    assert ledger.submit(drawn, verdict) is Code.OK
    lie = schema.BLOB_REFERENCE + hash_content(b"a lie") + task
    assert ledger.store.get(lie) is not None
    assert len(list(ledger.store.iterate(schema.BLOB_REFERENCE))) == 4
    ledger.wait(1_002)
    assert not list(ledger.store.iterate(schema.BLOB_REFERENCE))


def test_a_batch_total_beyond_every_integer() -> None:
    """Retained stake, taken back and spent again in the same batch, counts a second time.

    With a supply near the limit the sum has no encoding; the batch must be sealed all the same.
    """
    ledger = Ledger(**TRUSTED)
    machine(ledger, "pc", 1)
    supply = ledger.state.get_supply()
    assert ledger.submit("bob", Transfer(key("alice"), 50_000_000)) is Code.OK
    assert ledger.submit("governor", Mint(key("alice"), INTEGER_MAX - supply.minted)) is Code.OK
    for reward in (INTEGER_MAX, 10_000_000):
        task = ledger.submit_task("alice", forms.task(ledger, reward))
        claim = forms.commitment(ledger, task)
        assert ledger.submit("pc", forms.prove(ledger, "pc", claim)) is Code.OK
        ledger.wait(1)
        stake = ledger.state.get_account(key("pc")).stake
        assert ledger.submit("pc", Unstake(stake)) is Code.OK
        assert ledger.submit("pc", Transfer(key("alice"), stake)) is Code.OK
    assert ledger.state.get_settlement().total == INTEGER_MAX
    assert ledger.submit("ada", SealBatch(1)) is Code.OK
    assert ledger.state.get_supply().pending == 0


@pytest.mark.parametrize("limit", [1, 3])
def test_what_a_limit_leaves_is_done_by_the_next_entries(limit: int) -> None:
    """Seven assignments, seven expiries: `has_more` until all are through, and none is lost."""
    ledger = Ledger(expiries_per_entry_max=limit, assignments_per_entry_max=limit, attempts_max=1)
    machine(ledger, "pc", 64)
    tasks = [forms.task(ledger, deadline_ms=5_000)] * 7
    assert ledger.submit("alice", *tasks) is Code.OK

    def statuses() -> list[int]:
        return [
            ledger.state.get_task(name[1:]).status for name, _ in ledger.store.iterate(schema.TASK)
        ]

    entries = 1
    while ledger.state.get_head().has_more:
        assert is_due(ledger.store, ledger.now_ms)
        assert statuses().count(TaskStatus.ASSIGNED) == entries * limit
        ledger.entry()
        entries += 1
    assert statuses() == [TaskStatus.ASSIGNED] * 7
    ledger.wait(6_000)
    while ledger.state.get_head().has_more:
        ledger.entry()
    assert statuses() == [TaskStatus.EXPIRED] * 7


def test_tasks_that_nobody_may_take_are_no_reason_for_entries() -> None:
    """The only machine is excluded from both tasks; an idle leader has nothing to do at once."""
    ledger = Ledger(assignments_per_entry_max=1)
    machine(ledger, "pc", 2)
    tasks = [ledger.submit_task("alice", forms.task(ledger)) for _ in range(2)]
    for task in tasks:
        reject(ledger, task, "pc")
    assert len(list(ledger.store.iterate(schema.OPEN_TASK))) == 2
    assert not ledger.state.get_head().has_more
    assert not is_due(ledger.store, ledger.now_ms)


def test_an_idle_leader_knows_when_something_is_due() -> None:
    """Nothing on an empty ledger; a draw at once; a deadline in time, and the ticks before it."""
    ledger = Ledger(**TRUSTED, blob_retention_ms=1_000)
    assert not is_due(ledger.store, ledger.now_ms + 10**9)
    machine(ledger, "pc", 1)
    task = ledger.submit_task("alice", forms.task(ledger, deadline_ms=2_000))
    assert not is_due(ledger.store, ledger.now_ms + 1_499)
    assert is_due(ledger.store, ledger.now_ms + 1_500), "active time must be kept running"
    ledger.wait(1_000)
    assert not is_due(ledger.store, ledger.now_ms + 999)
    assert is_due(ledger.store, ledger.now_ms + 1_000)
    claim = forms.commitment(ledger, task)
    assert ledger.submit("pc", forms.prove(ledger, "pc", claim)) is Code.OK
    assert is_due(ledger.store, ledger.now_ms), "the draw"
    ledger.wait(1)
    assert not is_due(ledger.store, ledger.now_ms + 1_000)
    assert is_due(ledger.store, ledger.now_ms + 1_001), "blobs may go"


def test_a_task_waits_its_turn() -> None:
    """The oldest first, within an entry in the order of operations; a repeat keeps its place."""
    ledger = Ledger()
    old = ledger.submit_task("alice", forms.task(ledger))
    young = ledger.submit_task("alice", forms.task(ledger))
    machine(ledger, "pc", 1)
    first = ledger.state.get_task(old)
    assert first is not None and first.status == TaskStatus.ASSIGNED
    silent = forms.report(ledger, "pc", is_online=False)
    assert ledger.submit("ada", silent) is Code.OK
    assert ledger.submit("ada", forms.report(ledger, "pc")) is Code.OK
    first, second = ledger.state.get_task(old), ledger.state.get_task(young)
    assert first is not None and first.status == TaskStatus.ASSIGNED
    assert second is not None and second.status == TaskStatus.OPEN
    assert ledger.submit("alice", CancelTask(young)) is Code.OK


@pytest.mark.parametrize(
    "spoil",
    [
        lambda document: document | {"created_ms": 2**70},
        lambda document: document | {"created_ms": -1},
        lambda document: document | {"created_ms": "now"},
        lambda document: document | {"parameters": None},
        lambda document: document | {"parameters": {}},
        lambda document: document | {"members": [None]},
        lambda document: document | {"members": document["members"][::-1]},
        lambda document: document | {"members": document["members"][:1] * 2},
        lambda document: document | {"members": []},
        lambda document: document | {"allocations": document["allocations"] * 2},
        lambda document: document | {"cluster_name": "../up"},
        lambda document: document | {"cluster_name": "other"},
        lambda document: document | {"chain_id": "00" * 16},
        lambda document: document | {"extra": 1},
        lambda document: {name: document[name] for name in list(document)[1:]},
        lambda document: [],
        lambda document: None,
        lambda document: "genesis",
    ],
)
def test_a_genesis_document_that_is_none(spoil: Any) -> None:
    """Every fault of the file is one error, with words."""
    document = to_document(make_genesis())
    assert from_document(document) == make_genesis()
    with pytest.raises(GenesisInvalid, match=r"\w"):
        from_document(spoil(document))


def test_a_parameter_of_a_thousand_years_is_refused() -> None:
    """Its deadlines could pass the largest integer, and stop every member."""
    check_genesis(make_genesis(deadline_ms_max=DURATION_MS_MAX))
    with pytest.raises(GenesisInvalid, match="deadline_ms_max"):
        check_genesis(make_genesis(deadline_ms_max=DURATION_MS_MAX + 1))


def test_governance_that_cannot_sign() -> None:
    """More signatures than keys, or one key for two."""
    with pytest.raises(GenesisInvalid, match="threshold"):
        check_genesis(make_genesis(threshold=2))
    with pytest.raises(GenesisInvalid, match="twice"):
        check_genesis(make_genesis(governors=("governor", "governor")))
