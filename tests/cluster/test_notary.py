"""What a member cosigns, and what it never does."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import msgspec
import pytest

from vcp_cluster.cluster.anchors import notary
from vcp_cluster.cluster.anchors.notary import CosignRefused, NotaryKeeper
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchors import compute_payload
from vcp_cluster.ledger.anchors.notary import batch_origin, compute_raw, transaction_origin
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.notes import (
    Checkpoint,
    SignatureLine,
    check_cosignature,
    match_cosignatures,
)
from vcp_cluster.ledger.operations import AnchorFinal, AnchorIntent, AnchorObserved, SealBatch
from vcp_cluster.ledger.state import Overlay, State

from .fake_ledger import MEMBER_SEEDS, FakeChain, asynchronous, make_evidence, make_genesis

A = MEMBER_SEEDS["a"]


def make_chain(batches: int = 1) -> FakeChain:
    """A chain with sealed batches, each of one accepted task."""
    chain = FakeChain(make_genesis(audit_first_proofs=0, audit_rate_min_bp=1))
    chain.bring_online()
    for _ in range(batches):
        seal_one(chain)
    return chain


def seal_one(chain: FakeChain) -> None:
    batch = chain.settlement().batch
    while chain.settlement().count == 0:
        proof = chain.submit_proof(chain.submit_task())
        chain.accept(proof)
    chain.send(A, SealBatch(batch))


def intend(chain: FakeChain) -> int:
    state = State(Overlay(chain.store), chain.genesis)
    size = state.get_settlement().headers
    chain.send(A, AnchorIntent("notary", size, compute_payload(state), compute_raw(state)))
    return size


def finish(chain: FakeChain, size: int) -> None:
    chain.send(A, AnchorObserved("notary", size, encode(make_evidence(chain, size)), b""))
    chain.send(A, AnchorFinal("notary", size, b"", b""))


def checkpoints(chain: FakeChain) -> tuple[Checkpoint, Checkpoint]:
    return notary.parse_checkpoints(chain.genesis, chain.anchor(chain.lane().pending))


def check_lines(chain: FakeChain, lines: tuple[str, str], name: str = "a") -> None:
    """Both lines are right cosignatures of the pending anchor."""
    member = next(one for one in chain.genesis.members if one.name == name)
    for checkpoint, line in zip(checkpoints(chain), lines, strict=True):
        (found,) = match_cosignatures([SignatureLine.parse(line)], {name: member.key})
        check_cosignature(checkpoint, found)


@asynchronous
async def test_a_member_cosigns_every_anchor_that_extends_the_last(tmp_path: Path) -> None:
    chain = make_chain()
    path = tmp_path / "notary.json"
    keeper = NotaryKeeper(path, chain.member("a"), now_s=lambda: 1_800_000_000.5)
    for _ in range(4):
        size = intend(chain)
        check_lines(chain, await keeper.cosign(size))
        check_lines(chain, await keeper.cosign(size))  # A new leader may ask again.
        signed = json.loads(path.read_text())["checkpoints"]
        for checkpoint in checkpoints(chain):
            assert signed[checkpoint.origin] == {
                "size": checkpoint.size,
                "root": checkpoint.root.hex(),
            }
        finish(chain, size)
        seal_one(chain)
        seal_one(chain)
        keeper = NotaryKeeper(path, chain.member("a"))  # It remembers across restarts.


@asynchronous
async def test_it_waits_until_its_own_ledger_has_the_intent(tmp_path: Path) -> None:
    chain = make_chain()
    keeper = NotaryKeeper(tmp_path / "notary.json", chain.member("a"))
    waiting = asyncio.create_task(keeper.cosign(1))
    await asyncio.sleep(0)
    intend(chain)
    check_lines(chain, await waiting)


@asynchronous
async def test_what_is_not_pending_is_refused(tmp_path: Path) -> None:
    chain = make_chain()
    keeper = NotaryKeeper(tmp_path / "notary.json", chain.member("a"))
    for size in (0, -1, 2**63, 2):
        with pytest.raises(CosignRefused, match="Next:"):
            await keeper.cosign(size, timeout_s=0)
    size = intend(chain)
    finish(chain, size)
    with pytest.raises(CosignRefused, match="final"):
        await keeper.cosign(size, timeout_s=0)
    assert not (tmp_path / "notary.json").exists()


def remember(path: Path, **checkpoints: tuple[int, bytes]) -> None:
    document = {
        "schema": "vcp/notary/v1",
        "checkpoints": {
            origin: {"size": size, "root": root.hex()}
            for origin, (size, root) in checkpoints.items()
        },
    }
    path.write_text(json.dumps(document))


@pytest.mark.parametrize("which", ["batch", "transaction"])
@pytest.mark.parametrize(
    ("shift", "what"),
    [(0, "two roots|does not"), (-1, "does not extend"), (1, "will not cosign the smaller")],
)
def test_it_cosigns_nothing_that_does_not_extend_what_it_signed(
    tmp_path: Path, which: str, shift: int, what: str
) -> None:
    """It once signed another history: of the same size, smaller, larger."""

    @asynchronous
    async def play() -> None:
        chain = make_chain(batches=3)
        size = intend(chain)
        batch, transaction = checkpoints(chain)
        signed = batch if which == "batch" else transaction
        path = tmp_path / "notary.json"
        remember(path, **{signed.origin: (signed.size + shift, b"\x55" * 32)})
        before = path.read_bytes()
        with pytest.raises(CosignRefused, match=what):
            await NotaryKeeper(path, chain.member("a")).cosign(size)
        assert path.read_bytes() == before

    play()


@pytest.mark.parametrize("prefix", [schema.HEADER_TREE, schema.LOG_TREE])
@pytest.mark.parametrize("is_missing", [True, False])
def test_its_own_tree_must_give_the_root_even_the_first_time(
    tmp_path: Path, prefix: bytes, is_missing: bool
) -> None:
    @asynchronous
    async def play() -> None:
        chain = make_chain(batches=3)
        size = intend(chain)
        for key, _ in list(chain.store.iterate(prefix)):
            chain.store.commit([(key, None if is_missing else b"\x55" * 32)])
        path = tmp_path / "notary.json"
        with pytest.raises(CosignRefused, match="does not hold" if is_missing else "not extend"):
            await NotaryKeeper(path, chain.member("a")).cosign(size)
        assert not path.exists()

    play()


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b'{"schema": "vcp/notary/v2", "checkpoints": {}}',
        b'{"schema": "vcp/notary/v1"}',
        b'{"schema": "vcp/notary/v1", "checkpoints": {"x": {"size": -1, "root": ""}}}',
        b'{"schema": "vcp/notary/v1", "checkpoints": {}, "more": 1}',
        b" " * 20_000,
    ],
)
def test_a_damaged_memory_signs_nothing(tmp_path: Path, damaged: bytes) -> None:
    @asynchronous
    async def play() -> None:
        chain = make_chain()
        size = intend(chain)
        path = tmp_path / "notary.json"
        path.write_bytes(damaged)
        with pytest.raises(CosignRefused, match=r"cannot know what it cosigned\. Next: restore"):
            await NotaryKeeper(path, chain.member("a")).cosign(size)
        assert path.read_bytes() == damaged

    play()


@asynchronous
async def test_what_cannot_be_remembered_is_not_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain()
    size = intend(chain)
    path = tmp_path / "notary.json"

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(CosignRefused, match="No space left"):
            await NotaryKeeper(path, chain.member("a")).cosign(size)
    assert not path.exists()
    check_lines(chain, await NotaryKeeper(path, chain.member("a")).cosign(size))


@asynchronous
async def test_it_is_durable_before_it_is_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = make_chain()
    size = intend(chain)
    order: list[str] = []
    fsync, signing = os.fsync, notary.sign_cosignature

    def flush(descriptor: int) -> None:
        order.append("flush")
        fsync(descriptor)

    def sign(*args: object, **kwargs: object) -> object:
        order.append("sign")
        return signing(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(notary, "sign_cosignature", sign)
    await NotaryKeeper(tmp_path / "notary.json", chain.member("a")).cosign(size)
    assert order == ["flush", "flush", "sign", "sign"]  # file, directory; both logs


def test_only_a_notary_anchor_of_this_cluster_is_read() -> None:
    chain = make_chain()
    anchor = chain.anchor(intend(chain))
    batch, transaction = notary.parse_checkpoints(chain.genesis, anchor)
    assert batch.origin == batch_origin(chain.genesis)
    assert transaction.origin == transaction_origin(chain.genesis)
    changed = msgspec.structs.replace
    for wrong in (
        changed(anchor, backend="bitcoin"),
        changed(anchor, size=anchor.size + 1),
        changed(anchor, raws=(b"",)),
        changed(anchor, raws=(anchor.raws[0] + b"\n",)),
        changed(anchor, raws=(transaction.body() + batch.body(),)),
        changed(anchor, raws=(batch.body() + batch.body(),)),
    ):
        with pytest.raises(CosignRefused):
            notary.parse_checkpoints(chain.genesis, wrong)
