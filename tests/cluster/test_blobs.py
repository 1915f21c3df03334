"""Blobs: the store on disk, uploads with attestations, fetching, sweeping, requests of peers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from vcp_cluster.cluster.door import blobs as blobs_module
from vcp_cluster.cluster.door.blob_store import CHARGE_BYTES_MIN, BlobStore
from vcp_cluster.cluster.door.blobs import UNREFERENCED_AGE_S, BlobService, find_referenced
from vcp_cluster.cluster.door.peers import (
    ACCOUNT_HEADER,
    MEMBER_HEADER,
    REQUEST_WINDOW_MS,
    SIGNATURE_HEADER,
    TIME_HEADER,
    Credentials,
    PeerError,
    Peers,
    check_request,
    read_credentials,
    sign_request,
)
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.ledger.commitments import blob_message
from vcp_cluster.ledger.domains import DOMAIN_BLOB, DOMAIN_UPLOAD
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import hash_content, is_signed, public_key, sign

from .fake_ledger import (
    CLIENT_SEED,
    INPUT,
    MEMBER_SEEDS,
    MODULE,
    NODE_SEED,
    START_MS,
    Clock,
    FakeChain,
    asynchronous,
    until,
)

DATA = b"a blob of the tests"
BLOB = hash_content(DATA)
Hook = Callable[[str, httpx2.Request], "httpx2.Response | None"]


def problem_status(caught: pytest.ExceptionInfo[Problem]) -> tuple[int, str]:
    return caught.value.status, caught.value.code


# --- the store ---------------------------------------------------------------------------------


def test_a_blob_is_kept_under_its_hash_and_survives_a_restart(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert store.put(DATA) == BLOB
    name = BLOB.hex()
    assert (tmp_path / name[:2] / name).read_bytes() == DATA
    (tmp_path / "incoming" / "torn").write_bytes(b"half of a blo")

    again = BlobStore(tmp_path)
    assert again.get(BLOB) == DATA
    assert again.bytes_used == CHARGE_BYTES_MIN
    assert list((tmp_path / "incoming").iterdir()) == []
    assert again.get(hash_content(b"another")) is None


def test_everyone_has_the_empty_blob(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert store.get(store.put(b"")) == b""
    assert store.bytes_used == 0


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], DATA[:-1] + b"?", DATA * 100])
def test_a_damaged_file_is_none_and_removed(tmp_path: Path, damaged: bytes) -> None:
    store = BlobStore(tmp_path, blob_bytes_max=1_000)
    store.put(DATA)
    path = tmp_path / BLOB.hex()[:2] / BLOB.hex()
    path.write_bytes(damaged)
    assert store.get(BLOB) is None
    assert not path.exists()
    assert store.put(DATA) == BLOB
    assert store.get(BLOB) == DATA


def test_too_large_is_413_and_leaves_nothing(tmp_path: Path) -> None:
    store = BlobStore(tmp_path, blob_bytes_max=10)
    with pytest.raises(Problem) as caught:
        store.put(b"x" * 11)
    assert problem_status(caught) == (413, "too_large")
    assert store.bytes_used == 0


def test_an_account_has_a_quota_that_ends_with_a_reference_or_removal(tmp_path: Path) -> None:
    clock = Clock()
    store = BlobStore(tmp_path, account_bytes_max=2 * CHARGE_BYTES_MIN, now_s=clock)
    first, second = store.put(b"1", account=b"alice"), store.put(b"2", account=b"alice")
    store.put(b"2", account=b"alice")  # once more is not twice
    with pytest.raises(Problem) as caught:
        store.put(b"3", account=b"alice")
    assert problem_status(caught) == (429, "busy")
    store.put(b"3", account=b"bob")
    store.release(first)
    store.put(b"4", account=b"alice")
    clock.now_s += 1
    assert store.remove_older(second, 1)
    store.put(b"5", account=b"alice")
    with pytest.raises(Problem):
        store.put(b"6", account=b"alice")


def test_the_whole_store_is_bounded_and_room_comes_back(tmp_path: Path) -> None:
    clock = Clock()
    store = BlobStore(tmp_path, store_bytes_max=CHARGE_BYTES_MIN, now_s=clock)
    blob = store.put(b"1")
    with pytest.raises(Problem) as caught:
        store.put(b"2")
    assert problem_status(caught) == (429, "busy")
    clock.now_s += 5
    assert store.remove_older(blob, 5)
    assert store.bytes_used == 0
    store.put(b"2")


def test_a_disk_that_refuses_is_503_and_charges_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = BlobStore(tmp_path)

    def refuse(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(Problem) as caught:
        store.put(DATA, account=b"alice")
    assert problem_status(caught) == (503, "unavailable")
    assert "No space left" in str(caught.value)
    assert store.bytes_used == 0
    assert store.list_charged() == []
    assert store.get(BLOB) is None
    assert list((tmp_path / "incoming").iterdir()) == []


def test_storing_again_starts_the_age_again(tmp_path: Path) -> None:
    clock = Clock()
    store = BlobStore(tmp_path, now_s=clock)
    store.put(DATA)
    clock.now_s += 100
    assert store.list_older(100) == [BLOB]
    store.put(DATA)
    assert store.list_older(100) == []
    assert not store.remove_older(BLOB, 100)
    assert store.get(BLOB) == DATA


# --- a cluster of three doors ------------------------------------------------------------------


class Doors:
    """Blob services of a, b and c over one chain; `hook` may answer instead of a door, or raise."""

    def __init__(self, chain: FakeChain, path: Path) -> None:
        self.chain = chain
        self.hook: Hook = lambda _name, _request: None
        self.requests: list[str] = []
        self.clock = Clock()
        self.services: dict[str, BlobService] = {}
        self.stores: dict[str, BlobStore] = {}
        self.peers: list[Peers] = []
        for name in MEMBER_SEEDS:
            ledger = chain.member(name)
            peers = Peers(
                chain.genesis,
                ledger.member,
                ledger.seed,
                transport=httpx2.MockTransport(self._answer),
                now_ms=lambda: START_MS,
            )
            self.peers.append(peers)
            self.stores[name] = BlobStore(path / name, now_s=self.clock)
            self.services[name] = BlobService(
                self.stores[name], ledger, peers, now_ms=lambda: START_MS
            )

    async def _answer(self, request: httpx2.Request) -> httpx2.Response:
        """As from the network: a body that is not read yet."""
        answer = await self._route(request)
        return httpx2.Response(answer.status_code, stream=httpx2.ByteStream(answer.content))

    async def _route(self, request: httpx2.Request) -> httpx2.Response:
        """What the routes do."""
        name = request.url.host.partition(".")[0]
        path = request.url.path
        self.requests.append(f"{request.method} {name} {path.rpartition('/')[0]}")
        body = await request.aread()
        member = check_request(
            request.headers,
            genesis=self.chain.genesis,
            method=request.method,
            path=path,
            body_hash=hash_content(body),
            now_ms=START_MS,
        )
        assert member.name != name
        answer = self.hook(name, request)
        if answer is not None:
            return answer
        blob = bytes.fromhex(path.rpartition("/")[2])
        if request.method == "PUT":
            return httpx2.Response(200, json=await self.services[name].receive(blob, body))
        data = await self.services[name].fetch(
            blob, is_forwarded=request.headers.get("VCP-Forwarded") == "1"
        )
        return httpx2.Response(404) if data is None else httpx2.Response(200, content=data)

    def has(self, blob: bytes) -> list[str]:
        return [name for name, store in self.stores.items() if store.get(blob) is not None]


@asynccontextmanager
async def running_doors(path: Path) -> Any:
    doors = Doors(FakeChain(), path)
    try:
        yield doors
    finally:
        for service in doors.services.values():
            await service.close()
        for peers in doors.peers:
            await peers.close()


def upload_credentials(
    chain: FakeChain, data: bytes, seed: bytes = CLIENT_SEED, time_ms: int = START_MS
) -> Credentials:
    message = encode((chain.chain_id, hash_content(data), len(data), time_ms))
    return Credentials(public_key(seed), time_ms, sign(seed, DOMAIN_UPLOAD, message))


@asynchronous
async def test_an_upload_reaches_all_members_and_a_majority_attests(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        credentials = upload_credentials(doors.chain, DATA)
        answer = await doors.services["a"].upload(BLOB, DATA, credentials)
        assert (answer["schema"], answer["hash"], answer["size"]) == (
            "vcp/blob/v1",
            BLOB.hex(),
            len(DATA),
        )
        members = {member.key for member in doors.chain.genesis.members}
        assert len(answer["attestations"]) >= 2
        for attestation in answer["attestations"]:
            key = bytes.fromhex(attestation["member"])
            members.remove(key)
            message = blob_message(doors.chain.chain_id, BLOB, len(DATA))
            assert is_signed(key, DOMAIN_BLOB, message, bytes.fromhex(attestation["signature"]))
        await until(lambda: doors.has(BLOB) == ["a", "b", "c"])


@asynchronous
async def test_an_upload_does_not_wait_for_a_slow_member(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        released = asyncio.Event()
        service = doors.services["c"]
        receive = service.receive

        async def slow(blob: bytes, data: bytes) -> dict[str, Any]:
            await released.wait()
            return await receive(blob, data)

        service.receive = slow
        credentials = upload_credentials(doors.chain, DATA)
        answer = await doors.services["a"].upload(BLOB, DATA, credentials)
        assert len(answer["attestations"]) == 2
        assert doors.has(BLOB) == ["a", "b"]
        released.set()
        await until(lambda: doors.has(BLOB) == ["a", "b", "c"])


@asynchronous
async def test_what_slow_members_hold_in_memory_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "BACKGROUND_BYTES_MAX", 2 * len(DATA))
    async with running_doors(tmp_path) as doors:

        async def never(_blob: bytes, _data: bytes) -> dict[str, Any]:
            await asyncio.Event().wait()
            return {}

        doors.services["c"].receive = never
        for number in range(4):
            data = DATA[:-1] + bytes([number])
            credentials = upload_credentials(doors.chain, data)
            await doors.services["a"].upload(hash_content(data), data, credentials)
        assert len(doors.services["a"]._background) == 2


def refuse_connection(_name: str, request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


def wrong_key(_name: str, _request: httpx2.Request) -> httpx2.Response:
    seed = MEMBER_SEEDS["a"]
    document = {"member": public_key(seed).hex(), "signature": "00" * 64}
    return httpx2.Response(200, json={"attestation": document})


def wrong_signature(name: str, _request: httpx2.Request) -> httpx2.Response:
    document = {"member": public_key(MEMBER_SEEDS[name]).hex(), "signature": "00" * 64}
    return httpx2.Response(200, json={"attestation": document})


@pytest.mark.parametrize(
    "hook",
    [
        refuse_connection,
        wrong_key,
        wrong_signature,
        lambda _name, _request: httpx2.Response(200, content=b"not json"),
        lambda _name, _request: httpx2.Response(200, json={"attestation": {}}),
        lambda _name, _request: httpx2.Response(500, content=b"x" * 10_000),
        lambda _name, _request: httpx2.Response(200, content=b" " * 100_000),
    ],
)
def test_without_a_majority_of_right_attestations_an_upload_is_503(
    tmp_path: Path, hook: Hook
) -> None:
    @asynchronous
    async def play() -> None:
        async with running_doors(tmp_path) as doors:
            doors.hook = hook
            with pytest.raises(Problem) as caught:
                await doors.services["a"].upload(BLOB, DATA, upload_credentials(doors.chain, DATA))
            assert problem_status(caught) == (503, "unavailable")
            assert "1 of 3 members" in str(caught.value)
            # One member back is enough, and the same upload may be sent again.
            doors.hook = lambda name, request: hook(name, request) if name == "c" else None
            answer = await doors.services["a"].upload(
                BLOB, DATA, upload_credentials(doors.chain, DATA)
            )
            assert len(answer["attestations"]) == 2

    play()


@asynchronous
async def test_who_may_upload(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        chain, service = doors.chain, doors.services["a"]
        stranger = b"stranger".ljust(32, b"\0")
        with pytest.raises(Problem) as caught:
            await service.upload(BLOB, DATA, upload_credentials(chain, DATA, stranger))
        assert problem_status(caught) == (401, "unauthorised")
        with pytest.raises(Problem):
            await service.upload(BLOB, DATA, upload_credentials(chain, DATA, NODE_SEED))
        chain.register()  # A compute node without a balance uploads its outputs.
        for seed in (NODE_SEED, MEMBER_SEEDS["b"], CLIENT_SEED):
            await service.upload(BLOB, DATA, upload_credentials(chain, DATA, seed))


@pytest.mark.parametrize("off_ms", [-REQUEST_WINDOW_MS - 1, REQUEST_WINDOW_MS + 1])
def test_an_upload_signed_at_another_time_is_401(tmp_path: Path, off_ms: int) -> None:
    @asynchronous
    async def play() -> None:
        async with running_doors(tmp_path) as doors:
            credentials = upload_credentials(doors.chain, DATA, time_ms=START_MS + off_ms)
            with pytest.raises(Problem) as caught:
                await doors.services["a"].upload(BLOB, DATA, credentials)
            assert problem_status(caught) == (401, "unauthorised")

    play()


@asynchronous
async def test_a_signature_is_for_one_content_and_the_content_is_checked(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        service = doors.services["a"]
        credentials = upload_credentials(doors.chain, DATA)
        with pytest.raises(Problem) as caught:
            await service.upload(hash_content(b"other"), b"other", credentials)
        assert problem_status(caught) == (401, "unauthorised")
        with pytest.raises(Problem) as caught:
            await service.upload(BLOB, DATA[:-1] + b"?", credentials)
        assert problem_status(caught) == (400, "bad_request")
        with pytest.raises(Problem) as caught:
            await service.receive(BLOB, DATA + b"?")
        assert problem_status(caught) == (400, "bad_request")
        assert doors.has(BLOB) == []


@asynchronous
async def test_too_many_uploads_at_a_time_are_429(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs_module, "UPLOADS_MAX", 0)
    async with running_doors(tmp_path) as doors:
        with pytest.raises(Problem) as caught:
            await doors.services["a"].upload(BLOB, DATA, upload_credentials(doors.chain, DATA))
        assert problem_status(caught) == (429, "busy")


# --- fetching ----------------------------------------------------------------------------------


@asynchronous
async def test_a_missing_blob_is_fetched_once_for_all_who_ask_and_kept(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        blob = hash_content(INPUT)
        doors.chain.submit_task()
        doors.stores["c"].put(INPUT)
        answers = await asyncio.gather(*(doors.services["a"].fetch(blob) for _ in range(5)))
        assert answers == [INPUT] * 5
        assert len([one for one in doors.requests if " c " in one]) == 1
        assert doors.has(blob) == ["a", "c"]


@asynchronous
async def test_only_what_the_ledger_refers_to_is_asked_for(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        doors.stores["c"].put(DATA)
        assert await doors.services["a"].fetch(BLOB) is None
        assert doors.requests == []


@asynchronous
async def test_a_blob_that_nobody_has_asks_everyone_once_and_no_further(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        doors.chain.submit_task()
        assert await doors.services["a"].fetch(hash_content(INPUT)) is None
        assert sorted(doors.requests) == ["GET b /v1/blobs", "GET c /v1/blobs"]


@asynchronous
async def test_a_lying_or_endless_peer_is_passed_over(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        doors.chain.submit_task()
        blob = hash_content(INPUT)
        doors.stores["c"].put(INPUT)
        for wrong in (b"other bytes", b"\0" * (17 << 20)):
            doors.hook = lambda name, _request, body=wrong: (
                httpx2.Response(200, content=body) if name == "b" else None
            )
            assert await doors.services["a"].fetch(blob) == INPUT
            doors.clock.now_s += 1
            doors.stores["a"].remove_older(blob, 0)


# --- sweeping ----------------------------------------------------------------------------------


@asynchronous
async def test_the_sweep_removes_what_is_old_and_unreferenced(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        service, store = doors.services["a"], doors.stores["a"]
        for data in (MODULE, INPUT, DATA):
            store.put(data, account=b"alice")
        assert await service.sweep() == 0  # all of them are young
        doors.chain.submit_task()
        doors.clock.now_s += UNREFERENCED_AGE_S
        young = store.put(b"young", account=b"alice")
        assert await service.sweep() == 1
        assert store.get(BLOB) is None
        assert store.get(hash_content(MODULE)) == MODULE
        assert store.get(hash_content(INPUT)) == INPUT
        # Who pays for tasks is not charged for their blobs any more.
        assert store.list_charged() == [young]


@asynchronous
async def test_references_are_found_over_many_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blobs_module, "_PAGE", 2)
    chain = FakeChain()
    modules = [b"module %d" % number for number in range(6)]
    for number, module in enumerate(modules):
        for _ in range(1 + number % 3):
            chain.submit_task(module=module)
    unknown = [b"unknown %d" % number for number in range(6)]
    asked = sorted(hash_content(data) for data in (*modules, *unknown))
    found = await find_referenced(chain.member("a"), asked)
    assert found == {hash_content(module) for module in modules}


# --- requests of peers -------------------------------------------------------------------------


def signed_headers(chain: FakeChain, **changes: Any) -> dict[str, str]:
    values = {"method": "PUT", "path": "/v1/x", "body": b"body", "time_ms": START_MS, **changes}
    seed = MEMBER_SEEDS["a"]
    return sign_request(seed, public_key(seed), chain_id=chain.chain_id, **values)


def check(chain: FakeChain, headers: dict[str, str], now_ms: int = START_MS) -> str:
    member = check_request(
        headers,
        genesis=chain.genesis,
        method="PUT",
        path="/v1/x",
        body_hash=hash_content(b"body"),
        now_ms=now_ms,
    )
    return member.name


def test_a_peer_is_recognised_by_its_signature() -> None:
    chain = FakeChain()
    assert check(chain, signed_headers(chain)) == "a"
    assert check(chain, signed_headers(chain), START_MS + REQUEST_WINDOW_MS) == "a"


@pytest.mark.parametrize(
    "spoil",
    [
        lambda chain: {},
        lambda chain: signed_headers(chain, method="POST"),
        lambda chain: signed_headers(chain, path="/v1/y"),
        lambda chain: signed_headers(chain, body=b"other"),
        lambda chain: signed_headers(chain, time_ms=START_MS - REQUEST_WINDOW_MS - 1),
        lambda chain: signed_headers(chain, time_ms=START_MS + REQUEST_WINDOW_MS + 1),
        lambda chain: signed_headers(chain) | {TIME_HEADER: str(START_MS + 1)},
        lambda chain: signed_headers(chain) | {TIME_HEADER: "9" * 100},
        lambda chain: signed_headers(chain) | {TIME_HEADER: "-1"},
        lambda chain: signed_headers(chain) | {TIME_HEADER: "١٢"},
        lambda chain: signed_headers(chain) | {SIGNATURE_HEADER: "00" * 64},
        lambda chain: signed_headers(chain) | {SIGNATURE_HEADER: "zz" * 64},
        lambda chain: signed_headers(chain) | {MEMBER_HEADER: public_key(MEMBER_SEEDS["b"]).hex()},
        lambda chain: signed_headers(chain) | {MEMBER_HEADER: public_key(CLIENT_SEED).hex()},
        lambda chain: signed_headers(chain) | {MEMBER_HEADER: "00" * 32},
    ],
)
def test_anything_else_than_a_member_s_fresh_request_is_401(
    spoil: Callable[[FakeChain], dict[str, str]],
) -> None:
    chain = FakeChain()
    with pytest.raises(Problem) as caught:
        check(chain, spoil(chain))
    assert problem_status(caught) == (401, "unauthorised")
    assert caught.value.next_step


def test_a_stranger_who_signs_well_is_no_member() -> None:
    chain = FakeChain()
    headers = sign_request(
        CLIENT_SEED,
        public_key(CLIENT_SEED),
        chain_id=chain.chain_id,
        method="PUT",
        path="/v1/x",
        body=b"body",
        time_ms=START_MS,
    )
    with pytest.raises(Problem):
        check(chain, headers)


def test_upload_headers_are_read_strictly() -> None:
    headers = {ACCOUNT_HEADER: "ab" * 32, TIME_HEADER: "17", SIGNATURE_HEADER: "cd" * 64}
    assert read_credentials(headers, ACCOUNT_HEADER) == Credentials(b"\xab" * 32, 17, b"\xcd" * 64)
    for name, value in ((ACCOUNT_HEADER, "AB" * 32), (TIME_HEADER, "1.5"), (TIME_HEADER, " 17")):
        with pytest.raises(Problem):
            read_credentials(headers | {name: value}, ACCOUNT_HEADER)


@asynchronous
async def test_a_peer_that_never_ends_its_answer_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.door.peers.COSIGN_TIMEOUT_S", 0.05)

    async def hang(_request: httpx2.Request) -> httpx2.Response:
        await asyncio.Event().wait()
        raise AssertionError

    chain = FakeChain()
    ledger = chain.member("a")
    peers = Peers(chain.genesis, ledger.member, ledger.seed, transport=httpx2.MockTransport(hang))
    with pytest.raises(PeerError, match="member b did not answer POST /v1/member/cosign"):
        await peers.cosign(peers.others[0], 1)
    await peers.close()


@asynchronous
async def test_what_a_peer_sends_is_bounded_even_if_it_is_right(tmp_path: Path) -> None:
    async with running_doors(tmp_path) as doors:
        doors.stores["b"].put(DATA)
        peers = doors.peers[0]
        assert await peers.get_blob(peers.others[0], BLOB, len(DATA)) == DATA
        with pytest.raises(PeerError, match=f"more than {len(DATA) - 1} bytes"):
            await peers.get_blob(peers.others[0], BLOB, len(DATA) - 1)
