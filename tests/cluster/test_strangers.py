"""What a stranger's transactions cost: no more work and no more of the log than they are worth."""

from __future__ import annotations

import pytest

from vcp_cluster.cluster import claims
from vcp_cluster.cluster.claims import Claims
from vcp_cluster.cluster.door import admission
from vcp_cluster.cluster.door.admission import Admission
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.strangers import BURST, PER_S, Strangers
from vcp_cluster.ledger.commitments import Attestation, attest_blob
from vcp_cluster.ledger.domains import DOMAIN_BLOB
from vcp_cluster.ledger.keys import is_signed, public_key, sign
from vcp_cluster.ledger.operations import AnyOperation, RegisterNode, SubmitTask, Transfer
from vcp_cluster.ledger.transactions import sign_transaction

from .fake_ledger import (
    CLIENT_SEED,
    MEMBER_SEEDS,
    START_MS,
    Clock,
    FakeChain,
    FakeLedger,
    asynchronous,
    make_genesis,
)

STRANGER_SEED = b"stranger".ljust(32, b"\0")
GOVERNANCE_SEED = b"governance".ljust(32, b"\0")
BLOB = b"\x01" * 32


class Door:
    """The admission of member a; `asked` counts the inner signatures that it looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, chain: FakeChain | None = None) -> None:
        self.chain = chain or FakeChain()
        self.asked = 0
        self.admission = Admission(CurrentLedger(self.chain, "a"), now_ms=lambda: START_MS)
        monkeypatch.setattr(claims, "is_signed", self._is_signed)

    def _is_signed(self, *claim: bytes) -> bool:
        self.asked += 1
        return is_signed(*claim)

    async def send(
        self, seed: bytes, *operations: AnyOperation, cosigners: tuple[bytes, ...] = ()
    ) -> None:
        """Admit one transaction; raise `Problem`."""
        transaction = sign_transaction(
            seed,
            chain_id=self.chain.chain_id,
            nonce=1,
            valid_until_ms=START_MS + 60_000,
            operations=operations,
            cosigner_seeds=cosigners,
        )
        await self.admission.admit([transaction])


class CurrentLedger(FakeLedger):
    """A member that leads."""

    async def is_current(self) -> bool:
        """Whether it may say what is not in the ledger."""
        return True


def attest(chain: FakeChain, seed: bytes) -> Attestation:
    """The word of any key for a blob."""
    return attest_blob(seed, public_key(seed), chain.chain_id, BLOB, 10)


def make_task(*attestations: Attestation) -> SubmitTask:
    """A task with these attestations of both blobs."""
    return SubmitTask(
        module_hash=BLOB,
        module_size=10,
        module_attestations=attestations,
        entry_point="vcp_run",
        input_hash=BLOB,
        input_size=10,
        input_attestations=attestations,
        gas_limit=1,
        memory_bytes_max=1,
        run_ms_max=1,
        output_bytes_max=1,
        deadline_ms=1,
        open_ms_max=1,
        reward=1,
        replicas=1,
    )


async def refusal_of(door: Door, seed: bytes, *operations: AnyOperation) -> str:
    """The code with which a transaction is refused."""
    with pytest.raises(Problem) as caught:
        await door.send(seed, *operations)
    return caught.value.code


@asynchronous
async def test_signatures_of_who_has_no_account_are_not_worth_a_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch)
    task = make_task(attest(door.chain, STRANGER_SEED))
    assert await refusal_of(door, STRANGER_SEED, *[task] * 100) == "account_not_found"
    assert door.asked == 0


@asynchronous
async def test_a_client_cannot_make_members_check_signatures_of_its_own_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch)
    own, a = attest(door.chain, STRANGER_SEED), attest(door.chain, MEMBER_SEEDS["a"])
    for attestations in ((own,), (a, own), (a, a)):
        code = await refusal_of(door, CLIENT_SEED, make_task(*attestations))
        assert code == "attestation_invalid"
    assert door.asked == 0


@asynchronous
async def test_cosignatures_of_keys_that_count_for_nothing_are_refused_unchecked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch)
    monkeypatch.setattr(admission, "verify_envelope", None)  # it would be called in vain
    for cosigners in ((STRANGER_SEED,), (GOVERNANCE_SEED, GOVERNANCE_SEED)):
        with pytest.raises(Problem) as caught:
            await door.send(CLIENT_SEED, Transfer(BLOB, 1), cosigners=cosigners)
        assert caught.value.code == "not_governance"


@asynchronous
async def test_the_same_attestation_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    door = Door(monkeypatch)
    task = make_task(*(attest(door.chain, MEMBER_SEEDS[name]) for name in ("a", "b")))
    await door.send(CLIENT_SEED, *[task] * 100)
    assert door.asked == 2
    wrong = Attestation(public_key(MEMBER_SEEDS["c"]), bytes(64))
    for _ in range(2):
        code = await refusal_of(door, CLIENT_SEED, make_task(*task.module_attestations, wrong))
        assert code == "inner_signature_invalid"
    assert door.asked == 4  # what is false is not remembered


def test_what_is_remembered_is_the_whole_claim_and_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(claims, "REMEMBERED_MAX", 2)
    known, key = Claims(), public_key(STRANGER_SEED)
    signature = sign(STRANGER_SEED, DOMAIN_BLOB, b"message")
    assert known.is_true(key, DOMAIN_BLOB, b"message", signature)
    assert not known.is_true(key, DOMAIN_BLOB, b"messagf", signature)
    assert not known.is_true(key, b"vcp/other/v1", b"message", signature)
    assert not known.is_true(public_key(CLIENT_SEED), DOMAIN_BLOB, b"message", signature)
    for number in range(10):
        message = bytes([number])
        assert known.is_true(key, DOMAIN_BLOB, message, sign(STRANGER_SEED, DOMAIN_BLOB, message))
        assert len(known._true) <= 2


@asynchronous
async def test_a_registration_that_would_fail_leaves_nothing_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    door = Door(monkeypatch, FakeChain(make_genesis(nodes_max=1)))
    assert await refusal_of(door, STRANGER_SEED, RegisterNode("pc", 0)) == "capacity_invalid"
    await door.send(STRANGER_SEED, RegisterNode("pc", 1))
    door.chain.register()
    assert await refusal_of(door, STRANGER_SEED, RegisterNode("pc", 1)) == "node_limit"


@asynchronous
async def test_a_flood_of_new_nodes_is_let_in_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    strangers = Strangers(CurrentLedger(FakeChain(), "a"), clock=clock)
    strangers.take(BURST)
    with pytest.raises(Problem) as caught:
        strangers.take(1)
    assert (caught.value.status, caught.value.code) == (429, "busy")
    clock.now_s += 2
    strangers.take(2 * PER_S)
    clock.now_s += 1_000_000
    strangers.take(BURST)
    with pytest.raises(Problem):
        strangers.take(1)

    monkeypatch.setattr(admission, "Strangers", lambda _: strangers)
    door = Door(monkeypatch)
    assert await refusal_of(door, STRANGER_SEED, RegisterNode("pc", 1)) == "busy"
