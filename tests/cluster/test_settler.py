"""Batches are sealed and anchored, whoever leads and whoever is missing."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest

from vcp_cluster.cluster.anchors.notary import CosignRefused, NotaryKeeper
from vcp_cluster.cluster.door.peers import Peers, check_request
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.settler import Settler
from vcp_cluster.cluster.errors import InvalidTransaction, UnknownOutcome
from vcp_cluster.ledger.anchors.notary import NotaryEvidence, check_note
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import decode
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.operations import SealBatch
from vcp_cluster.ledger.records import AnchorStatus

from .fake_ledger import (
    MEMBER_SEEDS,
    START_MS,
    Clock,
    FakeChain,
    FakeLedger,
    asynchronous,
    make_genesis,
    until,
)

INTERVAL_S = 10.0
Answer = Callable[[str], "httpx2.Response | None"]


class Members:
    """A settler and a notary for each member; `answer` may stand in for a member's notary."""

    def __init__(self, path: Path) -> None:
        self.chain = FakeChain(make_genesis(audit_first_proofs=0, audit_rate_min_bp=1))
        self.chain.bring_online()
        self.clock = Clock()
        self.answer: Answer = lambda _name: None
        self.ledgers: dict[str, FakeLedger] = {}
        self.keepers: dict[str, NotaryKeeper] = {}
        self.settlers: dict[str, Settler] = {}
        self.peers: list[Peers] = []
        for name in MEMBER_SEEDS:
            ledger = self.ledgers[name] = self.chain.member(name)
            keeper = self.keepers[name] = NotaryKeeper(path / f"{name}.json", ledger)
            peers = Peers(
                self.chain.genesis,
                ledger.member,
                ledger.seed,
                transport=httpx2.MockTransport(self._cosign),
                now_ms=lambda: START_MS,
            )
            self.peers.append(peers)
            self.settlers[name] = Settler(ledger, peers, keeper, clock=self.clock)

    async def _cosign(self, request: httpx2.Request) -> httpx2.Response:
        name = request.url.host.partition(".")[0]
        body = await request.aread()
        check_request(
            request.headers,
            genesis=self.chain.genesis,
            method=request.method,
            path=request.url.path,
            body_hash=hash_content(body),
            now_ms=START_MS,
        )
        answer = self.answer(name)
        if answer is None:
            try:
                batch, transaction = await self.keepers[name].cosign(json.loads(body)["size"])
                answer = httpx2.Response(200, json={"batch": batch, "transaction": transaction})
            except CosignRefused as error:
                answer = httpx2.Response(409, text=str(error))
        return httpx2.Response(answer.status_code, stream=httpx2.ByteStream(answer.content))

    def accept_one(self) -> None:
        count = self.chain.settlement().count
        while self.chain.settlement().count == count:
            self.chain.accept(self.chain.submit_proof(self.chain.submit_task()))

    def cosigners(self, size: int) -> list[list[str]]:
        evidence = decode(NotaryEvidence, self.chain.anchor(size).evidence)
        return [
            check_note(self.chain.genesis, note)[1]
            for note in (evidence.batch_note, evidence.transaction_note)
        ]

    async def seal_and_announce(self, name: str = "a") -> None:
        self.accept_one()
        await self.settlers[name].seal_now()
        assert await self.settlers[name].step()


@asynccontextmanager
async def running_members(path: Path) -> AsyncIterator[Members]:
    members = Members(path)
    try:
        yield members
    finally:
        for peers in members.peers:
            await peers.close()


@asynchronous
async def test_a_batch_is_sealed_after_the_interval_and_not_before(tmp_path: Path) -> None:
    async with running_members(tmp_path) as members:
        settler, chain = members.settlers["a"], members.chain
        assert not await settler.step()  # Nothing was accepted.
        members.accept_one()
        assert not await settler.step()
        members.clock.now_s += INTERVAL_S - 0.1
        members.accept_one()
        assert not await settler.step()
        members.clock.now_s += 0.1
        assert await settler.step()
        settlement = chain.settlement()
        assert (settlement.batch, settlement.headers, settlement.count) == (2, 1, 0)


@asynchronous
async def test_from_leaves_to_a_final_anchor_with_everyone_s_cosignature(tmp_path: Path) -> None:
    async with running_members(tmp_path) as members:
        settler, chain = members.settlers["a"], members.chain
        for size in (1, 2, 3):
            members.accept_one()
            assert not await settler.step()
            members.clock.now_s += INTERVAL_S
            seen = []
            while await settler.step():
                pending = chain.lane().pending
                seen.append(AnchorStatus(chain.anchor(pending).status).name if pending else "")
            assert seen == ["", "PENDING", "OBSERVED", ""]
            assert chain.lane().final == size
            assert members.cosigners(size) == [["a", "b", "c"]] * 2


@asynchronous
async def test_every_step_may_be_another_leader_s(tmp_path: Path) -> None:
    async with running_members(tmp_path) as members:
        await members.seal_and_announce("a")
        assert await members.settlers["b"].step()
        assert await members.settlers["c"].step()
        assert not await members.settlers["a"].step()
        assert members.chain.lane().final == 1


def refuse_connection(name: str) -> httpx2.Response:
    raise httpx2.ConnectError(f"{name} is down")


def other_line(_name: str) -> httpx2.Response:
    return httpx2.Response(200, json={"batch": "— x AAAAAAA=", "transaction": "— x AAAAAAA="})


@pytest.mark.parametrize(
    "wrong",
    [
        refuse_connection,
        other_line,
        lambda _name: httpx2.Response(409, text="no"),
        lambda _name: httpx2.Response(200, json={"batch": "", "transaction": ""}),
        lambda _name: httpx2.Response(200, json={"batch": "x" * 70_000, "transaction": ""}),
    ],
)
def test_a_majority_is_enough_and_less_is_not(tmp_path: Path, wrong: Answer) -> None:
    @asynchronous
    async def play() -> None:
        async with running_members(tmp_path) as members:
            await members.seal_and_announce()
            members.answer = wrong
            with pytest.raises(CosignRefused, match=r"1 of 2 cosignatures: .*[bc]: "):
                await members.settlers["a"].step()
            assert members.chain.anchor(1).status == AnchorStatus.PENDING
            members.answer = lambda name: wrong(name) if name == "b" else None
            assert await members.settlers["a"].step()
            assert members.cosigners(1) == [["a", "c"]] * 2

    play()


@asynchronous
async def test_another_member_s_cosignature_does_not_count_twice(tmp_path: Path) -> None:
    async with running_members(tmp_path) as members:
        await members.seal_and_announce()
        batch, transaction = await members.keepers["a"].cosign(1)
        document = {"batch": batch, "transaction": transaction}
        members.answer = lambda _name: httpx2.Response(200, json=document)
        with pytest.raises(CosignRefused, match="not a cosignature by this member's key"):
            await members.settlers["a"].step()


@asynchronous
async def test_a_swapped_or_stale_cosignature_does_not_count(tmp_path: Path) -> None:
    async with running_members(tmp_path) as members:
        await members.seal_and_announce()
        batch, transaction = await members.keepers["b"].cosign(1)
        document = {"batch": transaction, "transaction": batch}
        members.answer = lambda name: (
            httpx2.Response(200, json=document)
            if name == "b"
            else httpx2.Response(500, content=b"")
        )
        with pytest.raises(CosignRefused, match="does not match checkpoint"):
            await members.settlers["a"].step()


@asynchronous
async def test_the_own_member_may_refuse_and_the_others_decide(tmp_path: Path) -> None:
    async with running_members(tmp_path) as members:
        await members.seal_and_announce()
        (tmp_path / "a.json").write_text("damaged")
        assert await members.settlers["a"].step()
        assert members.cosigners(1) == [["b", "c"]] * 2


@asynchronous
async def test_a_slow_member_is_not_waited_for_beyond_the_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.door.settler.GRACE_S", 0.01)
    async with running_members(tmp_path) as members:
        await members.seal_and_announce()

        async def hang(_size: int) -> tuple[str, str]:
            await asyncio.Event().wait()
            raise AssertionError

        members.keepers["c"].cosign = hang
        assert await members.settlers["a"].step()
        assert members.cosigners(1) == [["a", "b"]] * 2


@asynchronous
async def test_seal_now_works_on_any_member_and_says_when_there_is_nothing(tmp_path: Path) -> None:
    async with running_members(tmp_path) as members:
        members.ledgers["b"].leads = False
        with pytest.raises(InvalidTransaction) as caught:
            await members.settlers["b"].seal_now()
        assert caught.value.code is Code.BATCH_EMPTY
        members.accept_one()
        assert await members.settlers["b"].seal_now() == 1
        members.accept_one()
        assert await members.settlers["a"].seal_now() == 2


@asynchronous
async def test_seal_now_looks_again_when_another_sealed_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.door.settler.IDLE_WAIT_S", 0.001)
    async with running_members(tmp_path) as members:
        members.accept_one()
        ledger, chain = members.ledgers["b"], members.chain
        submit = ledger.submit

        async def late(operations: list[SealBatch]) -> object:
            ledger.submit = submit
            chain.send(MEMBER_SEEDS["a"], SealBatch(1))
            members.accept_one()
            return await submit(operations)

        ledger.submit = late
        assert await members.settlers["b"].seal_now() == 2
        # A view that stays behind is not asked for ever.
        stale = chain.settlement()
        members.accept_one()
        chain.send(MEMBER_SEEDS["a"], SealBatch(3))

        async def read() -> object:
            return stale

        monkeypatch.setattr(members.settlers["b"], "_read_settlement", read)
        members.accept_one()
        chain.send(MEMBER_SEEDS["a"], SealBatch(4))
        with pytest.raises(Problem) as caught:
            await members.settlers["b"].seal_now()
        assert (caught.value.status, caught.value.code) == (503, "behind")


@asynchronous
async def test_it_runs_on_the_leader_alone_and_survives_failures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STEP_GAP_S", "RETRY_PAUSE_S", "IDLE_WAIT_S"):
        monkeypatch.setattr(f"vcp_cluster.cluster.door.settler.{name}", 0.001)
    async with running_members(tmp_path) as members:
        for ledger in members.ledgers.values():
            ledger.leads = False
        members.ledgers["b"].failures = [
            UnknownOutcome(bytes(32), "the test says so"),
            Problem(503, "no_leader", "the test says so"),
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one.run()) for one in members.settlers.values()]
            members.accept_one()
            await asyncio.sleep(0)
            members.ledgers["b"].leads = True
            await until(lambda: members.settlers["b"]._open_batch == 1)
            members.clock.now_s += INTERVAL_S
            await until(lambda: members.chain.lane().final == 1)
            for task in tasks:
                task.cancel()
        assert members.ledgers["b"].failures == []
        submitted = members.ledgers["b"].submitted
        names = [type(one).__name__ for operations in submitted for one in operations]
        assert names == ["SealBatch", "AnchorIntent", "AnchorObserved", "AnchorFinal"]
        assert members.ledgers["a"].submitted == members.ledgers["c"].submitted == []
