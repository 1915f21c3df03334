"""What strangers send to a member's HTTP port: one clear answer each, and nothing is harmed."""

from __future__ import annotations

import base64
import secrets
import socket
import time
from typing import Any

import httpx2
import msgspec
import pytest

from vcp_cluster.cluster.addresses import http_url, split_address
from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.directory import ClientDirectory
from vcp_cluster.cluster.errors import InvalidTransaction
from vcp_cluster.cluster.local import LocalCluster
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.domains import DOMAIN_UPLOAD
from vcp_cluster.ledger.encoding import decode, encode
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.keys import hash_content, public_key, sign
from vcp_cluster.ledger.operations import CancelTask, Mint, Stake, Transfer
from vcp_cluster.ledger.transactions import SignedTransaction, sign_transaction

pytestmark = pytest.mark.cluster

STRANGER = bytes(31) + b"\x07"
FRIEND = public_key(STRANGER)


@pytest.fixture
def http(cluster: LocalCluster) -> Any:
    with httpx2.Client(base_url=http_url(cluster.genesis.members[0].address)) as http:
        yield http


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def build(cluster: LocalCluster, **changes: Any) -> bytes:
    """A right transaction of the funded client, with changes."""
    directory = ClientDirectory.load(cluster.client_directory)
    fields: dict[str, Any] = {
        "seed": directory.seed,
        "chain_id": compute_chain_id(directory.genesis),
        "nonce": secrets.randbits(63),
        "valid_until_ms": now_ms() + 30_000,
        "operations": [Transfer(FRIEND, 1)],
        **changes,
    }
    return sign_transaction(fields.pop("seed"), **fields)


def resign(data: bytes, **changes: Any) -> bytes:
    return encode(msgspec.structs.replace(decode(SignedTransaction, data), **changes))


REFUSED = {
    "unsigned": lambda c: resign(build(c), signature=b""),
    "signature_invalid": lambda c: resign(build(c), signature=bytes(64)),
    "chain_mismatch": lambda c: build(c, chain_id=bytes(16)),
    "account_not_found": lambda c: build(c, seed=bytes(31) + b"\x63"),
    "key_not_authorised": lambda c: build(
        c, account=ClientDirectory.load(c.client_directory).key, seed=STRANGER
    ),
    "expired": lambda c: build(c, valid_until_ms=1),
    "validity_too_long": lambda c: build(c, valid_until_ms=now_ms() + 10_000_000),
    "too_many_operations": lambda c: build(c, operations=[Transfer(FRIEND, 1)] * 129),
    "malformed": lambda c: build(c)[:-1],
    "too_large": lambda c: bytes(256 * 1024 + 1),
}


@pytest.mark.parametrize("code", REFUSED)
def test_admission_refuses_each_kind_of_junk_with_its_code(
    cluster: LocalCluster, http: httpx2.Client, code: str
) -> None:
    before = http.get("/v1/status").json()["supply"]
    body = msgspec.msgpack.encode([build(cluster), REFUSED[code](cluster)])
    answer = http.post("/v1/transactions", content=body)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["index"]) == (code, 1)
    # The right transaction beside it was not taken either: a request is taken whole or not at all.
    assert http.get("/v1/status").json()["supply"] == before


@pytest.mark.parametrize("padding", [b"\x00", b"\xc0", b"garbage"])
def test_a_padded_body_is_malformed(
    cluster: LocalCluster, http: httpx2.Client, padding: bytes
) -> None:
    body = msgspec.msgpack.encode([build(cluster) + padding])
    assert http.post("/v1/transactions", content=body).json()["error"]["code"] == "malformed"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("POST", "/v1/transactions", b"", 400, "bad_request"),
        ("POST", "/v1/transactions", b"\x90", 400, "bad_request"),
        ("POST", "/v1/transactions", b"\xc1garbage", 400, "bad_request"),
        ("POST", "/v1/transactions", b"\x91" * 5000, 400, "bad_request"),
        ("POST", "/v1/transactions", bytes(5 << 20), 413, "too_large"),
        ("GET", "/v1/tasks/zzzz", b"", 400, "bad_request"),
        ("GET", "/v1/tasks/ab", b"", 400, "bad_request"),
        ("GET", "/v1/tasks/" + "0" * 64, b"", 404, "not_found"),
        ("GET", "/v1/tasks?limit=-1", b"", 400, "bad_request"),
        ("GET", "/v1/tasks?limit=" + "9" * 400, b"", 400, "bad_request"),
        ("GET", "/v1/proofs/" + "0" * 64, b"", 404, "not_found"),
        ("GET", "/v1/accounts/" + "f" * 63, b"", 404, "not_found"),
        ("GET", "/v1/nodes/" + "0" * 64, b"", 404, "not_found"),
        ("GET", "/v1/batches/x", b"", 400, "bad_request"),
        ("GET", "/v1/batches/" + "9" * 30, b"", 400, "bad_request"),
        ("GET", "/v1/batches/999", b"", 404, "not_found"),
        ("GET", "/v1/receipts/" + "0" * 64, b"", 404, "not_found"),
        ("GET", "/v1/transactions/" + "0" * 64, b"", 404, "not_found"),
        ("GET", "/v1/blobs/" + "0" * 64, b"", 404, "not_found"),
        ("GET", "/v1/blobs/../../etc/passwd", b"", 404, "not_found"),
        ("GET", "/v1/blobs/short", b"", 400, "bad_request"),
        ("PUT", "/v1/blobs/" + "0" * 64, b"x", 401, "unauthorised"),
        ("PUT", "/v1/member/blobs/" + "0" * 64, b"x", 401, "unauthorised"),
        ("POST", "/v1/member/cosign", b'{"size": 1}', 401, "unauthorised"),
        ("POST", "/v1/member/transactions", b"\x90", 400, "bad_request"),
        ("POST", "/v1/nodes/" + "0" * 64 + "/heartbeat", b"{}", 400, "bad_request"),
        ("POST", "/v1/nodes/" + "0" * 64 + "/heartbeat", b"[" * 100_000, 400, "bad_request"),
        ("POST", "/v1/nodes/" + "0" * 64 + "/echo", b'{"echo": "x"}', 404, "not_found"),
        ("DELETE", "/v1/status", b"", 405, "bad_request"),
        ("GET", "/nothing", b"", 404, "not_found"),
    ],
)
def test_every_bad_request_has_a_document(
    http: httpx2.Client, method: str, path: str, body: bytes, status: int, code: str
) -> None:
    answer = http.request(method, path, content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), answer.text
    assert answer.json()["schema"] == "vcp/error/v1"
    assert answer.json()["error"]["message"]
    assert http.get("/livez").text == "ok\n"


def test_a_request_that_is_not_http_and_one_that_never_ends(cluster: LocalCluster) -> None:
    host, port = split_address(cluster.genesis.members[0].address)
    for data in (b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nHost:", bytes(100_000)):
        with socket.create_connection((host, port + 1)) as connection:
            connection.sendall(data)
    url = http_url(cluster.genesis.members[0].address)
    assert httpx2.get(f"{url}/livez").text == "ok\n"


def test_an_upload_must_be_signed_for_its_content_by_somebody_with_a_balance(
    cluster: LocalCluster, client: Client, http: httpx2.Client
) -> None:
    data = b"some input"
    seed = ClientDirectory.load(cluster.client_directory).seed

    def put(seed: bytes, signed: bytes, sent: bytes, time_ms: int) -> int:
        blob = hash_content(signed)
        message = encode((client.chain_id, blob, len(signed), time_ms))
        headers = {
            "VCP-Account": public_key(seed).hex(),
            "VCP-Time": str(time_ms),
            "VCP-Signature": sign(seed, DOMAIN_UPLOAD, message).hex(),
        }
        return http.put(f"/v1/blobs/{blob.hex()}", content=sent, headers=headers).status_code

    assert put(seed, data, data, now_ms()) == 200
    assert put(seed, data, b"else input", now_ms()) == 400
    assert put(seed, data, data + b"x", now_ms()) == 401
    assert put(seed, data, data, now_ms() - 120_000) == 401
    assert put(bytes(31) + b"\x63", data, data, now_ms()) == 401


def test_the_same_bytes_sent_to_every_member_take_effect_once(
    cluster: LocalCluster, client: Client
) -> None:
    recipient = public_key(bytes(31) + b"\x21")
    data = build(cluster, operations=[Transfer(recipient, 3)])
    receipts = []
    for member in cluster.genesis.members:
        url = f"{http_url(member.address)}/v1/transactions"
        document = {"transactions": [base64.b64encode(data).decode()]}
        answer = httpx2.post(url, json=document, timeout=10)
        assert answer.status_code == 200, answer.text
        receipts.append(answer.json()["receipts"][0])
    assert receipts[0] == receipts[1] == receipts[2]
    assert client.account(recipient)["available"] == "3"


@pytest.mark.parametrize(
    ("operation", "code"),
    [
        (Transfer(FRIEND, 2**62), Code.BALANCE_INSUFFICIENT),
        (Transfer(FRIEND, 0), Code.AMOUNT_ZERO),
        (Stake(2**63 - 1), Code.BALANCE_INSUFFICIENT),
        (Mint(FRIEND, 1), Code.NOT_GOVERNANCE),
        (CancelTask(bytes(32)), Code.TASK_NOT_FOUND),
    ],
)
def test_what_the_ledger_rejects_reaches_the_client_as_its_code(
    client: Client, operation: Any, code: Code
) -> None:
    with pytest.raises(InvalidTransaction) as raised:
        client.submit(operation)
    assert raised.value.code is code


def test_a_followers_answer_to_a_write_can_be_read_there_at_once(
    cluster: LocalCluster, client: Client
) -> None:
    status = client.status()
    followers = [member for member in status["members"] if member["role"] == "follower"]
    directory = ClientDirectory.load(cluster.client_directory)
    recipient = public_key(bytes(31) + b"\x22")
    for round_number in range(1, 6):
        for follower in followers:
            with Client(http_url(follower["address"]), seed=directory.seed) as local:
                before = round_number if follower is followers[0] else 0
                local.transfer(recipient, 1)
                assert int(local.account(recipient)["available"]) >= before
    assert client.account(recipient)["available"] == str(5 * len(followers))


def test_who_is_no_member_is_refused_before_a_blob_is_read(http: Any) -> None:
    """Sixteen MiB of each of a thousand connections would be held else."""
    url = http.base_url
    claimed = {"VCP-Member": "ab" * 32, "VCP-Time": "1", "VCP-Signature": "cd" * 64}
    head = [f"PUT /v1/member/blobs/{'00' * 32} HTTP/1.1", "Host: x", f"Content-Length: {16 << 20}"]
    head += [f"{name}: {value}" for name, value in claimed.items()]
    with socket.create_connection((url.host, url.port), timeout=5) as connection:
        connection.sendall("\r\n".join([*head, "", ""]).encode())
        assert connection.recv(1_024).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("path", ["/v1/nodes", "/v1/tasks"])
def test_a_list_of_nothing_is_a_list_of_one_at_most(http: Any, path: str) -> None:
    assert http.get(path, params={"limit": 0}).status_code == 200
