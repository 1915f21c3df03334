"""Every code, by descending precedence.

A ladder sends something with all the faults it can have, repairs the one that was named, sends it
again, and so on until it is accepted. The codes on the way must come in the order of their numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from ledger_harness import anchoring, forms
from ledger_harness.cast import key, seed
from ledger_harness.ledger import Ledger
from ledger_harness.seals import FEE_MAX, SCRIPT, SETTINGS, SIGNER

from vcp_cluster.cluster.anchors.bitcoin.signer import KeySigner, compute_seal_script
from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY, first_coin
from vcp_cluster.ledger.anchors.bitcoin import SignedAnchor
from vcp_cluster.ledger.bitcoin.seal import Coin, build_anchor
from vcp_cluster.ledger.bitcoin.transaction import OutPoint
from vcp_cluster.ledger.codes import CODE_MEANINGS, Code
from vcp_cluster.ledger.commitments import Finding, proof_id
from vcp_cluster.ledger.domains import DOMAIN_TRANSACTION
from vcp_cluster.ledger.encoding import INTEGER_MAX, encode
from vcp_cluster.ledger.keys import sign
from vcp_cluster.ledger.operations import (
    CancelTask,
    Mint,
    NodeReport,
    RegisterNode,
    ReportFailure,
    SealBatch,
    Stake,
    SubmitTask,
    Transfer,
    Unstake,
)
from vcp_cluster.ledger.operations.anchors import LEASE_MS, VARIANTS_MAX
from vcp_cluster.ledger.transactions import (
    OPERATIONS_MAX,
    TRANSACTION_BYTES_MAX,
    Envelope,
    SignedTransaction,
)

Rung = tuple[Code, Code]
Ladder = Callable[[], Iterator[Rung]]
_replace = msgspec.structs.replace

NOBODY = bytes(32)
NO_SIGNATURE = bytes(64)
OTHER = KeySigner(b"\x22" * 32)


@dataclass(frozen=True)
class Sent:
    """An envelope with all its faults."""

    chain_id: bytes = bytes(16)
    account: str = "carol"
    key: str = "bob"
    nonce: int = 7
    valid_ms: int = -1
    operations: int = OPERATIONS_MAX + 1
    signature: bytes = b""
    is_signed: bool = False

    def encode(self, ledger: Ledger) -> bytes:
        """The bytes of the transaction."""
        operations = (Transfer(key("bob"), 1),) * self.operations
        until_ms = ledger.now_ms + 1 + self.valid_ms
        envelope = encode(
            Envelope(
                1,
                self.chain_id,
                key(self.account),
                key(self.key),
                self.nonce,
                until_ms,
                operations,
            )
        )
        signature = self.signature
        if self.is_signed:
            signature = sign(seed(self.key), DOMAIN_TRANSACTION, envelope)
        return encode(SignedTransaction(envelope, signature, ()))


def envelope() -> Iterator[Rung]:
    """What is wrong before any operation is looked at."""
    ledger = Ledger()
    assert ledger.submit("alice", Transfer(key("bob"), 1), nonce=7) is Code.OK
    yield Code.TOO_LARGE, ledger.send(bytes(TRANSACTION_BYTES_MAX + 1))
    yield Code.MALFORMED, ledger.send(bytes(TRANSACTION_BYTES_MAX))
    sent = Sent()
    for code, repair in (
        (Code.CHAIN_MISMATCH, {"chain_id": ledger.chain_id}),
        (Code.UNSIGNED, {"signature": NO_SIGNATURE}),
        (Code.SIGNATURE_INVALID, {"is_signed": True}),
        (Code.ACCOUNT_NOT_FOUND, {"account": "alice"}),
        (Code.KEY_NOT_AUTHORISED, {"key": "alice"}),
        (Code.EXPIRED, {"valid_ms": 600_001}),
        (Code.VALIDITY_TOO_LONG, {"valid_ms": 0}),
        (Code.NONCE_REUSED, {"nonce": 8}),
        (Code.TOO_MANY_OPERATIONS, {"nonce": 9, "operations": OPERATIONS_MAX}),
    ):
        yield code, ledger.send(sent.encode(ledger))
        sent = Sent(**{**vars(sent), **repair})
    yield Code.OK, ledger.send(sent.encode(ledger))


def transfer() -> Iterator[Rung]:
    """Transfer; the amounts of one operation cannot be both zero and too large."""
    ledger = Ledger()
    yield Code.AMOUNT_ZERO, ledger.submit("alice", Transfer(key("bob"), 0))
    yield Code.BALANCE_INSUFFICIENT, ledger.submit("alice", Transfer(key("bob"), INTEGER_MAX))
    yield Code.OK, ledger.submit("alice", Transfer(key("bob"), 1))


def stake() -> Iterator[Rung]:
    """Stake and Unstake."""
    ledger = Ledger()
    yield Code.AMOUNT_ZERO, ledger.submit("alice", Stake(0))
    yield Code.AMOUNT_ZERO, ledger.submit("alice", Unstake(0))
    yield Code.BALANCE_INSUFFICIENT, ledger.submit("alice", Stake(INTEGER_MAX))
    assert ledger.submit("alice", Transfer(key("pc"), 10)) is Code.OK
    assert ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
    assert ledger.submit("ada", forms.report(ledger, "pc")) is Code.OK
    assert ledger.submit("pc", Stake(5)) is Code.OK
    task = ledger.submit_task("alice", forms.task(ledger, open_ms_max=1))
    yield Code.STAKE_INSUFFICIENT, ledger.submit("pc", Unstake(6))
    yield Code.STAKE_LOCKED, ledger.submit("pc", Unstake(5))
    assert ledger.submit("pc", ReportFailure(task, 0, 1, "")) is Code.OK
    yield Code.OK, ledger.submit("pc", Unstake(5))


def mint() -> Iterator[Rung]:
    """Mint, by two of two governors."""
    ledger = Ledger(governors=("governor", "regent"), threshold=2)
    yield Code.NOT_GOVERNANCE, ledger.submit("governor", Mint(key("bob"), 0))
    yield Code.NOT_GOVERNANCE, ledger.submit("governor", Mint(key("bob"), 0), cosigners=["alice"])
    both = {"cosigners": ["regent"]}
    yield Code.AMOUNT_ZERO, ledger.submit("governor", Mint(key("bob"), 0), **both)
    yield Code.AMOUNT_OVERFLOW, ledger.submit("governor", Mint(key("bob"), INTEGER_MAX), **both)
    yield Code.OK, ledger.submit("governor", Mint(key("bob"), 1), **both)


def register() -> Iterator[Rung]:
    """RegisterNode, where there is room for one."""
    ledger = Ledger(nodes_max=1)
    assert ledger.submit("phone", RegisterNode("phone", 1)) is Code.OK
    yield Code.NODE_EXISTS, ledger.submit("phone", RegisterNode("phone", 0))
    yield Code.NODE_LIMIT, ledger.submit("pc", RegisterNode("pc", 0))
    roomy = Ledger()
    yield Code.CAPACITY_INVALID, roomy.submit("pc", RegisterNode("pc", 0))
    yield Code.OK, roomy.submit("pc", RegisterNode("pc", 64))


def node_report() -> Iterator[Rung]:
    """NodeReport about a node that another member talks to."""
    ledger = Ledger()
    late = ledger.now_ms - 1

    def report(worker: str, about: str, **changes: object) -> NodeReport:
        declared = forms.report(ledger, worker, is_online=False, **changes)
        return _replace(declared, node=key(about))

    unsigned = report("phone", "pc", time_ms=late)
    unsigned = _replace(unsigned, declared=_replace(unsigned.declared, signature=NO_SIGNATURE))
    yield Code.NOT_A_MEMBER, ledger.submit("alice", unsigned)
    yield Code.INNER_SIGNATURE_INVALID, ledger.submit("ada", unsigned)
    yield Code.NODE_NOT_FOUND, ledger.submit("ada", report("phone", "pc", time_ms=late))
    assert ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
    assert ledger.submit("ben", forms.report(ledger, "pc")) is Code.OK
    yield Code.REPORT_NOT_FOR_NODE, ledger.submit("ada", report("phone", "pc", time_ms=late))
    elsewhere = report("pc", "pc", time_ms=late, chain_id=bytes(16))
    yield Code.REPORT_NOT_FOR_NODE, ledger.submit("ada", elsewhere)
    yield Code.REPORT_STALE, ledger.submit("ada", report("pc", "pc", time_ms=late))
    ahead = ledger.now_ms + 60_002
    yield Code.REPORT_STALE, ledger.submit("ada", report("pc", "pc", time_ms=ahead))
    yield Code.REPORTER_MISMATCH, ledger.submit("ada", report("pc", "pc"))
    yield Code.OK, ledger.submit("ben", report("pc", "pc"))


def submit_task() -> Iterator[Rung]:
    """SubmitTask with wrong attestations, no reward, no limit and two replicas."""
    ledger = Ledger()
    good = forms.task(ledger)
    unsigned = tuple(_replace(item, signature=NO_SIGNATURE) for item in good.module_attestations)
    stranger = forms.attest(ledger, good.input_hash, good.input_size, ["bob"])
    task = _replace(
        good,
        module_attestations=unsigned,
        input_attestations=stranger,
        reward=0,
        gas_limit=0,
        replicas=2,
    )

    def send(**repairs: object) -> Code:
        nonlocal task
        task = _replace(task, **repairs)
        return ledger.submit("alice", task)

    yield Code.INNER_SIGNATURE_INVALID, send()
    yield Code.AMOUNT_ZERO, send(module_attestations=())
    yield Code.BALANCE_INSUFFICIENT, send(reward=INTEGER_MAX)
    yield Code.LIMIT_INVALID, send(reward=1)
    yield Code.LIMIT_INVALID, send(gas_limit=INTEGER_MAX)
    yield Code.LIMIT_INVALID, send(gas_limit=1, entry_point="")
    yield Code.REPLICAS_UNSUPPORTED, send(entry_point="vcp_run")
    yield Code.ATTESTATION_INVALID, send(replicas=1)
    twice = good.input_attestations[:1] * 2
    yield Code.ATTESTATION_INVALID, send(input_attestations=twice)
    yield Code.BLOB_NOT_AVAILABLE, send(input_attestations=good.input_attestations)
    yield Code.BLOB_NOT_AVAILABLE, send(module_attestations=good.module_attestations[:1])
    yield Code.OK, send(module_attestations=good.module_attestations[1:])


def cancel_task() -> Iterator[Rung]:
    """CancelTask."""
    ledger = Ledger()
    yield Code.TASK_NOT_FOUND, ledger.submit("bob", CancelTask(NOBODY))
    task = ledger.submit_task("alice", forms.task(ledger))
    other = ledger.submit_task("alice", forms.task(ledger))
    assert ledger.submit("alice", CancelTask(task)) is Code.OK
    yield Code.TASK_NOT_OWNED, ledger.submit("bob", CancelTask(task))
    yield Code.TASK_NOT_OPEN, ledger.submit("alice", CancelTask(task))
    yield Code.OK, ledger.submit("alice", CancelTask(other))


def _working(**parameters: int) -> tuple[Ledger, bytes]:
    """A ledger with a task that `pc` runs."""
    ledger = Ledger(**parameters)
    assert ledger.submit("pc", RegisterNode("pc", 1)) is Code.OK
    assert ledger.submit("ada", forms.report(ledger, "pc")) is Code.OK
    return ledger, ledger.submit_task("alice", forms.task(ledger))


def submit_proof() -> Iterator[Rung]:
    """SubmitProof. The order is that of the numbers, but for the two exceptions of `Code`."""
    ledger, task = _working()
    honest = forms.commitment(ledger, task)
    claim = _replace(
        honest,
        task=NOBODY,
        attempt=1,
        node=key("bob"),
        gas=honest.gas_limit + 1,
        output_length=1_001,
        profile=NOBODY,
        waypoints=0,
    )
    attesting: tuple[str, ...] = ()

    def send(sender: str, **repairs: object) -> Code:
        nonlocal claim
        claim = _replace(claim, **repairs)
        return ledger.submit(sender, forms.prove(ledger, "bob", claim, attesting))

    unsigned = _replace(forms.prove(ledger, "bob", claim), signature=NO_SIGNATURE)
    yield Code.INNER_SIGNATURE_INVALID, ledger.submit("bob", unsigned)
    yield Code.TASK_NOT_FOUND, send("bob")
    yield Code.ASSIGNMENT_NOT_YOURS, send("bob", task=task)
    yield Code.ATTEMPT_STALE, send("pc")
    yield Code.COMMITMENT_MISMATCH, send("pc", attempt=0)
    # From here on the proof names its sender, and signs for it.
    claim = _replace(claim, node=key("pc"))

    def prove(**repairs: object) -> Code:
        nonlocal claim
        claim = _replace(claim, **repairs)
        return ledger.submit("pc", forms.prove(ledger, "pc", claim, attesting))

    yield Code.COMMITMENT_MISMATCH, prove(chain_id=bytes(16))
    yield Code.PROFILE_NOT_ALLOWED, prove(chain_id=ledger.chain_id)
    yield Code.GAS_OVER_LIMIT, prove(profile=honest.profile)
    yield Code.OUTPUT_OVER_LIMIT, prove(gas=honest.gas)
    yield Code.RESULT_INVALID, prove(output_length=honest.output_length)
    yield Code.BLOB_NOT_AVAILABLE, prove(waypoints=1)
    attesting = ("ada", "alice")
    yield Code.ATTESTATION_INVALID, prove()
    attesting = ("ada", "ben")
    yield Code.OK, prove()
    yield Code.TASK_NOT_ASSIGNED, prove()


def report_failure() -> Iterator[Rung]:
    """ReportFailure; the first attempt is stale once the second one began."""
    ledger, task = _working()
    yield Code.TASK_NOT_FOUND, ledger.submit("pc", ReportFailure(NOBODY, 1, 1, ""))
    yield Code.ASSIGNMENT_NOT_YOURS, ledger.submit("bob", ReportFailure(task, 1, 1, ""))
    yield Code.ATTEMPT_STALE, ledger.submit("pc", ReportFailure(task, 1, 1, ""))
    yield Code.OK, ledger.submit("pc", ReportFailure(task, 0, 1, ""))
    yield Code.ATTEMPT_STALE, ledger.submit("pc", ReportFailure(task, 0, 1, ""))


def submit_verdict() -> Iterator[Rung]:
    """SubmitVerdict, until the second and last one that is needed."""
    ledger, task = _working()
    lie = forms.lie(ledger, task)
    proof = proof_id(lie)
    assert ledger.submit("pc", forms.prove(ledger, "pc", lie)) is Code.OK
    good = forms.verdict(ledger, "ada", proof, Finding.DISAGREE)
    unsigned = _replace(good, signature=NO_SIGNATURE)
    yield Code.NOT_A_MEMBER, ledger.submit("ben", unsigned)
    yield Code.INNER_SIGNATURE_INVALID, ledger.submit("ada", unsigned)
    early = ledger.state.get_proof(proof)
    assert early is not None and early.verifier != b"", "the entry before drew a verifier"
    drawn, first, second = sorted(
        ("ada", "ben", "cyd"), key=lambda name: key(name) != early.verifier
    )

    def say(member: str, finding: Finding, **changes: object) -> Code:
        return ledger.submit(member, forms.verdict(ledger, member, proof, finding, **changes))

    unknown = forms.verdict(ledger, drawn, proof, Finding.AGREE, proof=NOBODY)
    yield Code.PROOF_NOT_FOUND, ledger.submit(drawn, unknown)
    agreeing = {"execution_root": lie.execution_root}
    yield Code.VERIFIER_NOT_DRAWN, say(first, Finding.DISAGREE, **agreeing)
    assert say(drawn, Finding.DISAGREE) is Code.OK
    yield Code.VERDICT_EXISTS, say(drawn, Finding.DISAGREE, **agreeing)
    yield Code.VERDICT_INCONSISTENT, say(first, Finding.DISAGREE, **agreeing)
    yield Code.VERDICT_INCONSISTENT, say(first, Finding.AGREE, gas=1)
    yield Code.OK, say(first, Finding.DISAGREE)
    yield Code.PROOF_NOT_IN_AUDIT, say(second, Finding.AGREE)


def settlement() -> Iterator[Rung]:
    """SealBatch and the anchor, one after the other."""
    ledger, task = _working(audit_first_proofs=0, audit_rate_min_bp=1, reputation_initial=10_000)
    yield Code.NOT_A_MEMBER, ledger.submit("alice", SealBatch(2))
    yield Code.BATCH_NOT_OPEN, ledger.submit("ada", SealBatch(2))
    yield Code.BATCH_EMPTY, ledger.submit("ada", SealBatch(1))
    claim = forms.commitment(ledger, task)
    assert ledger.submit("pc", forms.prove(ledger, "pc", claim)) is Code.OK
    ledger.wait(1)
    yield Code.OK, ledger.submit("ada", SealBatch(1))


def _sealed() -> Ledger:
    """A ledger with one batch that is not anchored."""
    ledger, task = _working(audit_first_proofs=0, audit_rate_min_bp=1, reputation_initial=10_000)
    claim = forms.commitment(ledger, task)
    assert ledger.submit("pc", forms.prove(ledger, "pc", claim)) is Code.OK
    ledger.wait(1)
    assert ledger.submit("ada", SealBatch(1)) is Code.OK
    return ledger


def anchor() -> Iterator[Rung]:
    """AnchorIntent of the notary."""
    ledger = _sealed()
    good = anchoring.intent(ledger)
    bad = _replace(good, backend="heaven", size=2, payload=bytes(40))
    yield Code.NOT_A_MEMBER, ledger.submit("alice", bad)
    yield Code.ANCHOR_BACKEND_UNKNOWN, ledger.submit("ada", bad)
    bad = _replace(bad, backend=NOTARY)
    assert ledger.submit("ben", anchoring.halt(ledger, NOTARY)) is Code.OK
    yield Code.ANCHOR_HALTED, ledger.submit("ada", bad)
    assert ledger.submit("ben", anchoring.halt(ledger, NOTARY, "")) is Code.OK
    yield Code.ANCHOR_STALE, ledger.submit("ada", bad)
    yield Code.ANCHOR_INTENT_MISMATCH, ledger.submit("ada", _replace(bad, size=1))
    yield Code.ANCHOR_INTENT_MISMATCH, ledger.submit("ada", _replace(good, raw=good.raw[1:]))
    yield Code.OK, ledger.submit("ada", good)


def anchor_pending() -> Iterator[Rung]:
    """What a pending anchor of the notary refuses and needs; it is never taken back."""
    ledger = _sealed()
    assert ledger.submit("ada", anchoring.intent(ledger)) is Code.OK
    early, unknown = anchoring.final(ledger), anchoring.final(ledger, size=2)
    yield Code.NOT_A_MEMBER, ledger.submit("alice", unknown)
    stale = anchoring.intent(ledger, size=2, payload=bytes(40))
    yield Code.ANCHOR_PENDING, ledger.submit("ben", stale)
    yield Code.ANCHOR_NOT_PENDING, ledger.submit("ada", unknown)
    yield Code.ANCHOR_NOT_FINAL, ledger.submit("ada", anchoring.retract(1, NOTARY))
    yield Code.ANCHOR_NOT_OBSERVED, ledger.submit("ada", early)
    observed = anchoring.notary_observed(ledger, ["ada", "ben"])
    alone = anchoring.notary_observed(ledger, ["ada"])
    yield Code.ANCHOR_EVIDENCE_INVALID, ledger.submit("ada", alone)
    yield Code.ANCHOR_EVIDENCE_INVALID, ledger.submit("ada", _replace(observed, evidence=b""))
    assert ledger.submit("ada", observed) is Code.OK
    finality = _replace(early, finality=b"more")
    yield Code.ANCHOR_EVIDENCE_INVALID, ledger.submit("ada", finality)
    yield Code.OK, ledger.submit("ada", early)


def anchor_lease() -> Iterator[Rung]:
    """AnchorLease, from a member whose node is on another chain and behind."""
    ledger = Ledger()
    bad = anchoring.lease(ledger, backend=NOTARY, network=NOBODY, position=b"\x01")
    yield Code.NOT_A_MEMBER, ledger.submit("alice", bad)
    yield Code.ANCHOR_BACKEND_UNKNOWN, ledger.submit("ben", bad)
    bad = _replace(bad, backend=BITCOIN)
    assert ledger.submit("ada", anchoring.lease(ledger)) is Code.OK
    assert ledger.submit("cyd", anchoring.halt(ledger)) is Code.OK
    yield Code.ANCHOR_HALTED, ledger.submit("ben", bad)
    assert ledger.submit("cyd", anchoring.halt(ledger, reason="")) is Code.OK
    assert ledger.submit("ada", anchoring.lease(ledger)) is Code.OK
    yield Code.ANCHOR_LEASE_HELD, ledger.submit("ben", bad)
    ledger.entry(after_ms=LEASE_MS)
    yield Code.ANCHOR_NETWORK_MISMATCH, ledger.submit("ben", bad)
    bad = anchoring.lease(ledger, position=b"\x01")
    yield Code.ANCHOR_NODE_BEHIND, ledger.submit("ben", bad)
    yield Code.OK, ledger.submit("ben", anchoring.lease(ledger))


def anchor_intent() -> Iterator[Rung]:
    """AnchorIntent on Bitcoin, whose transaction has every fault that it can have at once."""
    ledger = _sealed()
    good = anchoring.intent(ledger, BITCOIN)
    bad = _replace(good, size=2, payload=bytes(40), raw=b"")
    yield Code.NOT_A_MEMBER, ledger.submit("alice", bad)
    yield Code.ANCHOR_LEASE_MISSING, ledger.submit("ada", bad)
    assert ledger.submit("ada", anchoring.lease(ledger)) is Code.OK
    yield Code.ANCHOR_STALE, ledger.submit("ada", bad)
    yield Code.ANCHOR_MALFORMED, ledger.submit("ada", _replace(good, raw=b""))
    coin, stranger = first_coin(SETTINGS), compute_seal_script(OTHER.public_key)
    wrong: dict[str, Any] = {"coin": Coin(OutPoint(NOBODY, 0), coin.value), "script": stranger}
    wrong |= {"payload": bytes(40), "fee": 0, "signer": OTHER}

    def send(**repairs: Any) -> Code:
        wrong.update(repairs)
        return ledger.submit("ada", _replace(good, raw=_spoilt(**wrong)))

    yield Code.ANCHOR_SEAL_MISMATCH, send()
    yield Code.ANCHOR_NEXT_SEAL_MISMATCH, send(coin=coin)
    yield Code.ANCHOR_INTENT_MISMATCH, send(script=SCRIPT)
    yield Code.ANCHOR_FEE_INVALID, send(payload=good.payload)
    yield Code.ANCHOR_FEE_OVER_CAP, send(fee=FEE_MAX + 1)
    yield Code.ANCHOR_SIGNATURE_INVALID, send(fee=FEE_MAX)
    yield Code.OK, send(signer=SIGNER)


def _spoilt(coin: Coin, script: bytes, payload: bytes, fee: int, signer: KeySigner) -> bytes:
    """A variant that spends `coin`, pays `script` and is signed by whomever."""
    unsigned = build_anchor([coin], script, payload, fee)
    return encode(SignedAnchor(signer.sign(unsigned, [coin], SCRIPT).full, (), 7))


def anchor_variants() -> Iterator[Rung]:
    """AnchorBump and AnchorReseat, of an anchor that is pending, full or observed."""
    ledger = _sealed()
    assert ledger.submit("ada", anchoring.lease(ledger)) is Code.OK
    yield Code.ANCHOR_NOT_PENDING, ledger.submit("ada", anchoring.bump(ledger, 400))
    yield Code.ANCHOR_NOT_PENDING, ledger.submit("ada", anchoring.reseat(ledger))
    assert ledger.submit("ada", anchoring.intent(ledger, BITCOIN)) is Code.OK
    assert ledger.submit("ada", anchoring.bitcoin_observed(ledger)) is Code.OK
    yield Code.ANCHOR_OBSERVED, ledger.submit("ada", anchoring.bump(ledger, 400))
    yield Code.ANCHOR_OBSERVED, ledger.submit("ada", anchoring.bitcoin_observed(ledger))
    full = _sealed()
    assert full.submit("ada", anchoring.lease(full)) is Code.OK
    assert full.submit("ada", anchoring.intent(full, BITCOIN)) is Code.OK
    bumps = [anchoring.bump(full, anchoring.FEE + 2 * number) for number in range(1, VARIANTS_MAX)]
    assert full.submit("ada", *bumps) is Code.OK
    yield Code.ANCHOR_VARIANTS_LIMIT, full.submit("ada", anchoring.bump(full, 0, raw=b""))
    yield Code.ANCHOR_VARIANTS_LIMIT, full.submit("ada", anchoring.reseat(full, raw=b""))
    assert ledger.submit("ada", anchoring.retract(1)) is Code.OK
    yield Code.ANCHOR_SEAL_ALIVE, ledger.submit("ada", anchoring.reseat(ledger, raw=b""))
    yield Code.ANCHOR_MALFORMED, ledger.submit("ada", anchoring.bump(ledger, 0, raw=b""))
    yield Code.ANCHOR_FEE_INVALID, ledger.submit("ada", anchoring.bump(ledger, anchoring.FEE))
    yield Code.ANCHOR_FEE_OVER_CAP, ledger.submit("ada", anchoring.bump(ledger, FEE_MAX + 1))
    yield Code.OK, ledger.submit("ada", anchoring.bump(ledger, FEE_MAX))


def anchor_retract() -> Iterator[Rung]:
    """AnchorRetract by a node that is behind, of an anchor that nobody observed."""
    ledger = _sealed()
    assert ledger.submit("ada", anchoring.lease(ledger)) is Code.OK
    behind = anchoring.retract(1, position=b"\x01")
    yield Code.NOT_A_MEMBER, ledger.submit("alice", behind)
    yield Code.ANCHOR_LEASE_MISSING, ledger.submit("ben", behind)
    yield Code.ANCHOR_NODE_BEHIND, ledger.submit("ada", behind)
    yield Code.ANCHOR_NOT_FINAL, ledger.submit("ada", anchoring.retract(1))
    assert ledger.submit("ada", anchoring.intent(ledger, BITCOIN)) is Code.OK
    yield Code.ANCHOR_NOT_FINAL, ledger.submit("ada", anchoring.retract(1))
    assert ledger.submit("ada", anchoring.bitcoin_observed(ledger)) is Code.OK
    assert ledger.submit("ada", anchoring.final(ledger, BITCOIN)) is Code.OK
    yield Code.ANCHOR_NOT_FINAL, ledger.submit("ada", anchoring.retract(2))
    yield Code.OK, ledger.submit("ada", anchoring.retract(1))


def anchor_halt() -> Iterator[Rung]:
    """AnchorHalt by someone who looked before the lane changed."""
    ledger = Ledger()
    late = anchoring.halt(ledger)
    yield Code.NOT_A_MEMBER, ledger.submit("alice", _replace(late, backend="heaven"))
    yield Code.ANCHOR_BACKEND_UNKNOWN, ledger.submit("ada", _replace(late, backend="heaven"))
    assert ledger.submit("ben", late) is Code.OK
    yield Code.ANCHOR_LANE_CHANGED, ledger.submit("ada", late)
    yield Code.OK, ledger.submit("ada", anchoring.halt(ledger, reason=""))


IN_ORDER: tuple[Ladder, ...] = (
    envelope,
    transfer,
    stake,
    mint,
    register,
    node_report,
    submit_task,
    cancel_task,
    settlement,
    anchor,
    anchor_pending,
    anchor_lease,
    anchor_intent,
    anchor_variants,
    anchor_retract,
    anchor_halt,
)
# SubmitProof prefers the more telling of two codes; the others end with what an OK makes possible.
IN_OWN_ORDER: tuple[Ladder, ...] = (submit_proof, report_failure, submit_verdict)


@pytest.mark.parametrize("ladder", IN_ORDER + IN_OWN_ORDER, ids=lambda ladder: ladder.__name__)
def test_ladder(ladder: Ladder) -> None:
    """Each fault gets its code, the most important one first."""
    expected = []
    for number, (code, actual) in enumerate(ladder()):
        assert actual is code, f"rung {number}"
        expected.append(code)
    if ladder in IN_ORDER:
        assert expected == [*sorted(expected[:-1]), Code.OK]


def test_every_code_is_on_a_ladder() -> None:
    """A code that no test provokes is a code that nobody knows to work."""
    provoked = {code for ladder in IN_ORDER + IN_OWN_ORDER for code, _ in ladder()}
    assert provoked == set(Code)


def test_every_code_has_a_meaning() -> None:
    """Words for people, one line each, none twice."""
    assert list(CODE_MEANINGS) == list(Code)
    assert len(set(CODE_MEANINGS.values())) == len(Code)
    assert all(text and "\n" not in text for text in CODE_MEANINGS.values())


def test_a_task_that_fits_within_every_limit_at_once() -> None:
    """The limits are inclusive: the largest task of the parameters is accepted."""
    ledger = Ledger()
    limits = ledger.genesis.parameters
    largest: SubmitTask = forms.task(
        ledger,
        gas_limit=limits.gas_max,
        memory_bytes_max=limits.memory_bytes_max,
        run_ms_max=limits.run_ms_max,
        output_bytes_max=limits.output_bytes_max,
        deadline_ms=limits.deadline_ms_max,
        open_ms_max=limits.open_ms_max,
    )
    for field in ("gas_limit", "memory_bytes_max", "run_ms_max", "deadline_ms", "open_ms_max"):
        above = _replace(largest, **{field: getattr(largest, field) + 1})
        assert ledger.submit("alice", above) is Code.LIMIT_INVALID
    assert ledger.submit("alice", largest) is Code.OK
