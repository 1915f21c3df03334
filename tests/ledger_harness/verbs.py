"""The operations of scenario files: from words to an operation that is filled in and signed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ledger_harness import anchoring, forms
from ledger_harness.cast import MEMBERS, key
from ledger_harness.names import Names
from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY
from vcp_cluster.ledger.commitments import FailureKind, Finding
from vcp_cluster.ledger.encoding import INTEGER_MAX
from vcp_cluster.ledger.genesis import UNITS_PER_VCP
from vcp_cluster.ledger.operations import (
    AnyOperation,
    CancelTask,
    Mint,
    RegisterNode,
    ReportFailure,
    SealBatch,
    Stake,
    Transfer,
    Unstake,
)


class Words:
    """The words after a verb: those with `=` by name, the others in order."""

    def __init__(self, words: list[str]) -> None:
        self.plain = [word for word in words if "=" not in word]
        self.named = dict(word.split("=", 1) for word in words if "=" in word)

    def amount(self, word: str) -> int:
        """Units of an amount in VCP; `max` is the largest integer of the ledger."""
        return INTEGER_MAX if word == "max" else round(float(word) * UNITS_PER_VCP)

    def number(self, name: str, default: int) -> int:
        """A named integer."""
        return int(self.named.get(name, default))


Verb = Callable[[Names, str, Words], AnyOperation]


def _transfer(names: Names, sender: str, words: Words) -> AnyOperation:
    return Transfer(key(words.plain[0]), words.amount(words.plain[1]))


def _stake(names: Names, sender: str, words: Words) -> AnyOperation:
    return Stake(words.amount(words.plain[0]))


def _unstake(names: Names, sender: str, words: Words) -> AnyOperation:
    return Unstake(words.amount(words.plain[0]))


def _mint(names: Names, sender: str, words: Words) -> AnyOperation:
    return Mint(key(words.plain[0]), words.amount(words.plain[1]))


def _register(names: Names, sender: str, words: Words) -> AnyOperation:
    return RegisterNode(words.named.get("device", "pc"), words.number("capacity", 1))


def _report(names: Names, sender: str, words: Words) -> AnyOperation:
    """`report pc celsius=90 latency_ms=10 online=no`: a member about a node."""
    changes: dict[str, Any] = {}
    if "celsius" in words.named:
        changes["temperature_mc"] = words.number("celsius", 0) * 1_000
    if "latency_ms" in words.named:
        changes["latency_us"] = words.number("latency_ms", 0) * 1_000
    if "age_ms" in words.named:
        changes["time_ms"] = names.ledger.now_ms - words.number("age_ms", 0)
    online = words.named.get("online", "yes") == "yes"
    return forms.report(names.ledger, words.plain[0], is_online=online, **changes)


def _task(names: Names, sender: str, words: Words) -> AnyOperation:
    """`task as=t1 reward=1 deadline=10 open=60`: seconds of active time."""
    return forms.task(
        names.ledger,
        words.amount(words.named.get("reward", "1")),
        deadline_ms=words.number("deadline", 10) * 1_000,
        open_ms_max=words.number("open", 60) * 1_000,
    )


def _cancel(names: Names, sender: str, words: Words) -> AnyOperation:
    return CancelTask(names.task(words.plain[0]))


def _prove(names: Names, sender: str, words: Words) -> AnyOperation:
    """`prove t1 as=p1 attempt=2 result=lie node=pc`: by default what an honest run gives."""
    results = {"honest": forms.commitment, "lie": forms.lie, "trap": forms.trap}
    identity = names.task(words.plain[0])
    commitment = results[words.named.get("result", "honest")](names.ledger, identity)
    changes: dict[str, Any] = {"node": key(sender)}
    if "attempt" in words.named:
        changes["attempt"] = words.number("attempt", 1) - 1
    commitment = type(commitment)(
        *(changes.get(name, getattr(commitment, name)) for name in commitment.__struct_fields__)
    )
    return forms.prove(names.ledger, sender, commitment)


def _fail(names: Names, sender: str, words: Words) -> AnyOperation:
    """`fail t1 timeout attempt=1`: a run that gave nothing."""
    identity = names.task(words.plain[0])
    record = names.ledger.state.get_task(identity)
    attempt = words.number("attempt", 1 + (record.attempt if record else 0)) - 1
    kind = FailureKind[words.plain[1].upper()]
    return ReportFailure(identity, attempt, int(kind), "the sandbox says so")


def _verdict(names: Names, sender: str, words: Words) -> AnyOperation:
    """`verdict p1 agree`."""
    proof, finding = words.plain
    return forms.verdict(names.ledger, sender, names.proofs[proof], Finding[finding.upper()])


def _seal(names: Names, sender: str, words: Words) -> AnyOperation:
    return SealBatch(int(words.plain[0]))


def _anchor(names: Names, sender: str, words: Words) -> AnyOperation:
    """`anchor intent`, `anchor observed cosigners=ada,ben`, `anchor final`."""
    step = words.plain[0]
    if step == "intent":
        return anchoring.intent(names.ledger)
    if step == "observed":
        cosigners = words.named.get("cosigners", ",".join(MEMBERS)).split(",")
        return anchoring.notary_observed(names.ledger, cosigners)
    if step == "retract":
        return anchoring.retract(int(words.plain[1]), NOTARY, b"")
    assert step == "final", f"no step {step!r} of an anchor"
    return anchoring.final(names.ledger)


def _bitcoin(names: Names, sender: str, words: Words) -> AnyOperation:
    """`bitcoin lease`, `bitcoin bump fee=400`, `bitcoin observed variant=2`, `bitcoin retract 1` …

    `work=` is how far the sender's node has seen the chain, where an operation says that.
    """
    ledger, step = names.ledger, words.plain[0]
    fee = words.number("fee", anchoring.FEE)
    work = words.number("work", 2).to_bytes(2, "big")
    if step == "lease":
        return anchoring.lease(ledger, position=work)
    if step == "intent":
        return anchoring.intent(ledger, BITCOIN, fee)
    if step == "bump":
        return anchoring.bump(ledger, fee)
    if step == "reseat":
        return anchoring.reseat(ledger, fee)
    if step == "observed":
        return anchoring.bitcoin_observed(ledger, words.number("variant", 1) - 1, position=work)
    if step == "final":
        return anchoring.final(ledger, BITCOIN, position=work)
    if step == "retract":
        return anchoring.retract(int(words.plain[1]), position=work)
    assert step in ("halt", "resume"), f"no step {step!r} of an anchor on Bitcoin"
    return anchoring.halt(ledger, reason="look" if step == "halt" else "")


VERBS: dict[str, Verb] = {
    "anchor": _anchor,
    "bitcoin": _bitcoin,
    "cancel": _cancel,
    "fail": _fail,
    "mint": _mint,
    "prove": _prove,
    "register": _register,
    "report": _report,
    "seal": _seal,
    "stake": _stake,
    "task": _task,
    "transfer": _transfer,
    "unstake": _unstake,
    "verdict": _verdict,
}
