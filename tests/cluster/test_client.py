"""The client against a cluster in memory: exactly once, whatever the network does."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import msgspec
import pytest

import vcp_cluster
from vcp_cluster.cluster import errors
from vcp_cluster.cluster.client import Client, parse_endpoints
from vcp_cluster.examples import EXAMPLES
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.genesis import to_document
from vcp_cluster.ledger.keys import hash_content, public_key
from vcp_cluster.ledger.operations import Transfer
from vcp_cluster.ledger.transactions import parse_transaction

from .fake_cluster import (
    ALLOCATION,
    CLIENT_SEED,
    ENDPOINTS,
    GOVERNANCE_SEED,
    FakeCluster,
    Hook,
    answer,
    problem,
)

BOB = public_key(b"bob".ljust(32, b"\0"))
WORDCOUNT = EXAMPLES[0].module.read_bytes()


@pytest.fixture
def fake() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def client(fake: FakeCluster) -> Iterator[Client]:
    with make_client(fake) as client:
        yield client


def make_client(
    fake: FakeCluster, seed: bytes | None = CLIENT_SEED, timeout_s: float = 5.0
) -> Client:
    return Client(ENDPOINTS, seed=seed, timeout_s=timeout_s, transport=fake.transport)


def balance(fake: FakeCluster, account: bytes) -> int:
    record = fake.state.get_account(account)
    return 0 if record is None else record.available


def sent(fake: FakeCluster) -> list[httpx2.Request]:
    """The submissions that reached a member."""
    return [request for request in fake.requests if request.url.path == "/v1/transactions"]


def on_submit(*steps: Hook) -> Hook:
    """One step for each submission in turn; the last one stays."""
    left = list(steps)

    def hook(request: httpx2.Request) -> httpx2.Response | None:
        if request.url.path != "/v1/transactions":
            return None
        return (left.pop(0) if len(left) > 1 else left[0])(request)

    return hook


def ok(request: httpx2.Request) -> None:
    return None


def lose(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ReadTimeout("no answer", request=request)


def refuse(request: httpx2.Request) -> httpx2.Response:
    raise httpx2.ConnectError("refused", request=request)


# --- endpoints, genesis, keys ------------------------------------------------------------------


def test_endpoints() -> None:
    assert parse_endpoints(" http://a:1, https://b:2/,http://a:1") == ("http://a:1", "https://b:2")
    assert parse_endpoints(["http://[::1]:7101"]) == ("http://[::1]:7101",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a:7101",
        "ftp://a:1",
        "http://a",
        "http://:1",
        "http://a:0",
        "http://a:99999",
        "http://a:1/v1",
        "http://a:1?x",
        "http://u:p@a:1",
        "http://a b:1",
        "http://a:1,",
        ",".join(f"http://a:{port}" for port in range(1, 18)),
    ],
)
def test_bad_endpoints(text: str) -> None:
    with pytest.raises(errors.ConfigError, match=r"cluster .*Next:"):
        parse_endpoints(text)


def test_genesis_is_fetched_once_and_checked(fake: FakeCluster, client: Client) -> None:
    assert client.chain_id == fake.chain_id
    assert client.genesis == fake.genesis
    assert len(fake.requests) == 1


def test_a_changed_genesis_is_refused(fake: FakeCluster, client: Client) -> None:
    document = to_document(fake.genesis)
    document["cluster_name"] = "other"
    fake.before = lambda request: answer(document)
    with pytest.raises(errors.BadAnswer, match="chain id"):
        _ = client.genesis


def test_without_a_key_it_only_reads(fake: FakeCluster) -> None:
    with make_client(fake, seed=None) as client:
        assert client.account(public_key(CLIENT_SEED))["available"] == str(ALLOCATION)
        with pytest.raises(errors.NotAuthorised, match="--key"):
            client.transfer(BOB, 1)


# --- transactions ------------------------------------------------------------------------------


def test_transfer_and_read_your_writes(fake: FakeCluster, client: Client) -> None:
    receipt = client.transfer(BOB.hex(), 7)
    assert receipt.code == Code.OK
    assert client.account(BOB)["available"] == "7"
    assert fake.requests[-1].url.params["min_height"] == str(receipt.height)


def test_a_rejection_has_its_code_operation_and_receipt(client: Client) -> None:
    with pytest.raises(errors.InvalidTransaction, match="balance_insufficient") as caught:
        client.submit(Transfer(BOB, 1), Transfer(BOB, 2 * ALLOCATION))
    error = caught.value
    assert (error.code, error.operation, error.exit_code) == (Code.BALANCE_INSUFFICIENT, 1, 4)
    assert error.receipt is not None and error.receipt.tx_id == error.tx_id


def test_a_refusal_at_the_door_has_no_receipt(fake: FakeCluster) -> None:
    with (
        make_client(fake, seed=b"stranger".ljust(32)) as client,
        pytest.raises(errors.InvalidTransaction) as caught,
    ):
        client.transfer(BOB, 1)
    assert (caught.value.code, caught.value.receipt) == (Code.ACCOUNT_NOT_FOUND, None)


def test_mint_needs_the_governance(fake: FakeCluster, client: Client) -> None:
    with pytest.raises(errors.InvalidTransaction, match="not_governance"):
        client.mint(BOB, 5)
    with make_client(fake, seed=GOVERNANCE_SEED) as governance:
        governance.mint(BOB, 5)
    assert balance(fake, BOB) == 5


def test_stake_and_unstake(client: Client) -> None:
    client.stake(10)
    client.unstake(4)
    assert client.account()["stake"] == "6"


def test_many_transactions_are_rejected_one_by_one(fake: FakeCluster, client: Client) -> None:
    groups = [[Transfer(BOB, 1)], [Transfer(BOB, 0)], [Transfer(BOB, 2)]]
    codes = [receipt.code for receipt in client.submit_many(groups)]
    assert codes == [Code.OK, Code.AMOUNT_ZERO, Code.OK]
    assert (len(sent(fake)), balance(fake, BOB)) == (1, 3)


def test_more_than_a_request_holds_is_split(fake: FakeCluster, client: Client) -> None:
    receipts = client.submit_many([[Transfer(BOB, 1)]] * 1_030)
    assert [receipt.log_index for receipt in receipts] == list(range(1_030))
    assert (len(sent(fake)), balance(fake, BOB)) == (2, 1_030)


def test_bytes_that_are_no_transaction_are_not_sent(fake: FakeCluster, client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match=r"Client\.sign"):
        client.send([b"junk"])
    assert not fake.requests


def test_threads_share_a_client(fake: FakeCluster, client: Client) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda amount: client.transfer(BOB, amount), range(1, 41)))
    assert balance(fake, BOB) == sum(range(1, 41))


# --- faults of the network -----------------------------------------------------------------------


def test_it_moves_on_and_stays_with_who_answers(fake: FakeCluster, client: Client) -> None:
    fake.before = lambda request: refuse(request) if request.url.host in "ab" else None
    client.transfer(BOB, 1)
    client.transfer(BOB, 1)
    assert [request.url.host for request in sent(fake)] == ["c", "c"]
    assert balance(fake, BOB) == 2


@pytest.mark.parametrize(
    "failure",
    [
        lambda request: problem(503, "no_leader"),
        lambda request: problem(503, "unavailable"),
        lambda request: problem(429, "busy"),
        lambda request: problem(504, "unknown"),
        lambda request: httpx2.Response(502, content=b"<html>"),
        lambda request: answer({"schema": "vcp/receipts/v1", "receipts": []}),
        lose,
        refuse,
    ],
)
def test_the_same_bytes_are_sent_until_one_answers(
    fake: FakeCluster, client: Client, failure: Hook
) -> None:
    fake.before = on_submit(failure, failure, ok)
    client.transfer(BOB, 1)
    assert len({request.content for request in sent(fake)}) == 1
    assert (len(sent(fake)), balance(fake, BOB)) == (3, 1)


def test_a_lost_answer_is_not_a_second_transfer(fake: FakeCluster, client: Client) -> None:
    fake.after = on_submit(lose, ok)
    receipt = client.transfer(BOB, 5)
    assert (len(sent(fake)), balance(fake, BOB)) == (2, 5)
    assert receipt.height == 1  # that of the first sending


@pytest.mark.parametrize("is_applied", [True, False])
def test_the_outcome_is_unknown_when_nobody_confirms(fake: FakeCluster, is_applied: bool) -> None:
    setattr(fake, "after" if is_applied else "before", on_submit(lose))
    with (
        make_client(fake, timeout_s=0.3) as client,
        pytest.raises(errors.UnknownOutcome, match="tx show") as caught,
    ):
        client.transfer(BOB, 5)
    (data,) = {request.content for request in sent(fake)}
    (transaction,) = msgspec.msgpack.decode(data, type=list[bytes])
    assert caught.value.tx_id == parse_transaction(transaction).tx_id
    assert balance(fake, BOB) == (5 if is_applied else 0)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (refuse, errors.Unavailable),
        (lambda request: problem(503, "no_leader"), errors.NoLeader),
        (lambda request: problem(429, "busy"), errors.Unavailable),
    ],
)
def test_it_is_unavailable_when_nothing_was_sent(
    fake: FakeCluster, failure: Hook, kind: type[errors.VcpError]
) -> None:
    fake.before = on_submit(failure)
    with make_client(fake, timeout_s=0.3) as client, pytest.raises(kind) as caught:
        client.transfer(BOB, 5)
    assert (type(caught.value), caught.value.exit_code) == (kind, 3)


def test_an_expired_repeat_finds_the_first_receipt(fake: FakeCluster, client: Client) -> None:
    def expire(request: httpx2.Request) -> httpx2.Response:
        later = fake.clock_ms() + 120_000
        fake.clock_ms = lambda: later
        fake.enter()
        raise httpx2.ReadTimeout("no answer", request=request)

    fake.after = on_submit(expire, ok)
    receipt = client.transfer(BOB, 5)
    assert (receipt.code, receipt.height, balance(fake, BOB)) == (Code.OK, 1, 5)


def test_an_expired_repeat_in_the_log_finds_the_first_receipt(
    fake: FakeCluster, client: Client
) -> None:
    later = fake.clock_ms() + 120_000

    def repeat_too_late(request: httpx2.Request) -> httpx2.Response:
        fake.clock_ms = lambda: later  # admission still thinks that it is valid
        raise httpx2.ReadTimeout("no answer", request=request)

    fake.after = on_submit(repeat_too_late, ok)
    receipt = client.transfer(BOB, 5)
    assert (receipt.code, receipt.height, balance(fake, BOB)) == (Code.OK, 1, 5)


def test_an_expired_repeat_of_what_never_arrived_is_expired(
    fake: FakeCluster, client: Client
) -> None:
    def lose_and_expire(request: httpx2.Request) -> httpx2.Response:
        later = fake.clock_ms() + 120_000
        fake.clock_ms = lambda: later
        fake.enter()
        raise httpx2.ReadTimeout("no answer", request=request)

    fake.before = on_submit(lose_and_expire, ok)
    with pytest.raises(errors.InvalidTransaction) as caught:
        client.transfer(BOB, 5)
    assert caught.value.code == Code.EXPIRED


def test_a_refused_repeat_is_no_outcome_while_the_first_may_be_under_way(
    fake: FakeCluster,
) -> None:
    fake.before = on_submit(lose, lambda request: problem(422, "account_not_found", index=0))
    with make_client(fake, timeout_s=0.3) as client, pytest.raises(errors.UnknownOutcome):
        client.transfer(BOB, 5)


def test_receipts_of_others_are_not_believed(fake: FakeCluster) -> None:
    other = FakeCluster()
    with make_client(other) as second:
        second.transfer(BOB, 1)
        (lie,) = [
            other._route(request)
            for request in other.requests
            if request.url.path == "/v1/transactions"
        ]
    fake.before = on_submit(lambda request: httpx2.Response(200, content=lie.content))
    with make_client(fake, timeout_s=0.3) as client, pytest.raises(errors.UnknownOutcome):
        client.transfer(BOB, 5)


# --- answers that are wrong ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "response",
    [
        lambda: httpx2.Response(200, content=b""),
        lambda: httpx2.Response(200, content=b"<html>"),
        lambda: httpx2.Response(200, content=b"\xff"),
        lambda: httpx2.Response(200, content=b"[]"),
        lambda: httpx2.Response(200, content=b"[" * 100_000),
        lambda: httpx2.Response(200, content=b'{"schema":"vcp/task/v1"}'),
        lambda: httpx2.Response(
            200, stream=httpx2.ByteStream(b"{}"), headers={"Content-Encoding": "gzip"}
        ),
        lambda: httpx2.Response(200, content=bytes(17 << 20)),
        lambda: httpx2.Response(302, headers={"Location": "http://evil:1/"}),
        lambda: httpx2.Response(404, content=b"not ours"),
        lambda: answer({"schema": "vcp/error/v1", "error": {"code": 5}}, 404),
    ],
)
def test_what_is_not_the_api_is_a_bad_answer_at_once(
    fake: FakeCluster, client: Client, response: object
) -> None:
    fake.before = lambda request: response()  # type: ignore[operator]
    with pytest.raises(errors.BadAnswer):
        client.account(BOB)
    assert len(fake.requests) == 3  # each endpoint was asked once


@pytest.mark.parametrize(
    ("status", "code", "kind", "exit_code"),
    [
        (400, "bad_request", errors.InvalidRequest, 2),
        (401, "unauthorised", errors.NotAuthorised, 7),
        (404, "not_found", errors.NotFound, 6),
        (409, "ambiguous", errors.Ambiguous, 2),
        (409, "not_ready", errors.NotReady, 1),
        (413, "too_large", errors.InvalidRequest, 2),
    ],
)
def test_final_errors(
    fake: FakeCluster,
    client: Client,
    status: int,
    code: str,
    kind: type[errors.VcpError],
    exit_code: int,
) -> None:
    fake.before = lambda request: problem(status, code)
    with pytest.raises(kind) as caught:
        client.receipt("abcd")
    assert (type(caught.value), caught.value.exit_code) == (kind, exit_code)
    assert len(fake.requests) == 1


def test_text_from_outside_cannot_steer_the_terminal(fake: FakeCluster, client: Client) -> None:
    error = {"code": "not_found", "message": "\x1b[2Jgone\r\n", "next": "\x07"}
    fake.before = lambda request: answer({"error": error}, 404)
    with pytest.raises(errors.NotFound) as caught:
        client.account(BOB)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("identity", ["", "xyz", "../status", "a" * 65, "ab cd", b"\0" * 40])
def test_ids_are_checked_before_they_are_in_a_path(client: Client, identity: str | bytes) -> None:
    with pytest.raises(errors.InvalidRequest):
        client.account(identity)
    with pytest.raises(errors.InvalidRequest):
        client.transfer(identity, 1)


# --- blobs -----------------------------------------------------------------------------------------


def test_a_blob_is_attested_and_comes_back(fake: FakeCluster, client: Client) -> None:
    blob = client.upload(b"data")
    assert (blob.hash, blob.size) == (hash_content(b"data"), 4)
    assert len(blob.attestations) == 3
    assert client.download(blob.hash) == client.download(blob.hash.hex()) == b"data"
    empty = client.upload(b"")
    assert client.download(empty.hash) == b""


def test_too_few_right_attestations_are_refused(fake: FakeCluster, client: Client) -> None:
    good = {}

    def forge(request: httpx2.Request) -> httpx2.Response | None:
        if request.method != "PUT":
            return None
        document = msgspec.json.decode(fake._route(request).content)
        one, two, _ = document["attestations"]
        good.update(one)
        forged = {"member": two["member"], "signature": one["signature"]}
        stranger = {"member": BOB.hex(), "signature": one["signature"]}
        return answer(document | {"attestations": [one, one, forged, stranger]})

    fake.before = forge
    with pytest.raises(errors.BadAnswer, match="1 valid attestations"):
        client.upload(b"data")
    fake.before = lambda request: forge(request) if request.url.host != "c" else None
    assert good["member"] in {item.member.hex() for item in client.upload(b"data").attestations}


def test_a_damaged_blob_is_fetched_elsewhere(fake: FakeCluster) -> None:
    with make_client(fake, timeout_s=0.5) as client:
        blob = client.upload(b"data")
        damaged = httpx2.Response(200, content=b"dada")
        fake.before = lambda request: damaged if request.url.host in "ab" else None
        assert client.download(blob.hash) == b"data"
        fake.before = lambda request: httpx2.Response(200, content=b"dada")
        asked = len(fake.requests)
        with pytest.raises(errors.InvalidBlob) as caught:
            client.download(blob.hash)
        assert (caught.value.exit_code, len(fake.requests) - asked) == (5, 3)
        fake.before = ok
        with pytest.raises(errors.BadAnswer, match="more than 3 bytes"):
            client.download(blob.hash, size_max=3)
        with pytest.raises(errors.NotFound):
            client.download(hash_content(b"other"))


def test_an_oversized_blob_is_not_sent(fake: FakeCluster, client: Client) -> None:
    with pytest.raises(errors.InvalidRequest):
        client.upload(bytes((16 << 20) + 1))
    assert not fake.requests


# --- tasks -----------------------------------------------------------------------------------------


def test_submit_wait_cancel(fake: FakeCluster, client: Client) -> None:
    task = client.submit_task(WORDCOUNT, b"one two", reward=100)
    assert client.task(task)["status"] == "open"
    assert client.account()["available"] == str(ALLOCATION - 100)
    with pytest.raises(errors.NotReady):
        client.output(task)
    with pytest.raises(errors.Timeout, match="still open"):
        client.wait_task(task, timeout_s=0.1)

    statuses = []

    def on_change(document: dict[str, object]) -> None:
        statuses.append(document["status"])
        if document["status"] == "open":
            client.cancel_task(task)

    document = client.wait_task(task, until=("accepted",), on_change=on_change)
    assert document["status"] == "cancelled"
    assert statuses == ["open", "cancelled"]
    assert client.account()["available"] == str(ALLOCATION)


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (b"(module)", "bad_module"),
        (b"", "bad_module"),
        (b"\0asm\1\0\0\0", "export_missing"),
        (bytes((4 << 20) + 1), "module_limit"),
    ],
)
def test_a_module_that_can_never_run_costs_nothing(
    fake: FakeCluster, client: Client, module: bytes, code: str
) -> None:
    with pytest.raises(errors.InvalidModule, match="Next:") as caught:
        client.submit_task(module, b"", reward=1)
    assert caught.value.code == code
    assert all(request.url.path == "/v1/genesis" for request in fake.requests)


def test_limits_that_can_never_be_met_cost_nothing(fake: FakeCluster, client: Client) -> None:
    with pytest.raises(errors.InvalidRequest, match="memory_bytes_max"):
        client.submit_task(WORDCOUNT, b"", reward=1, memory_bytes_max=1)
    with pytest.raises(errors.InvalidRequest, match="input"):
        client.submit_task(WORDCOUNT, bytes((16 << 20) + 1), reward=1)
    assert all(request.url.path == "/v1/genesis" for request in fake.requests)


# --- threads ---------------------------------------------------------------------------------------

_AFTER_IMPORT = """
import msgspec
import vcp_cluster.cluster.client
from vcp_cluster.cluster.client import documents
from vcp_cluster.cluster.client.sender import parse_transaction
from vcp_cluster.ledger.encoding import Record, decode, encode
from vcp_cluster.ledger.anchor_settings import default_anchors
from vcp_cluster.ledger.genesis import Genesis, Governance, Member, default_parameters
from vcp_cluster.ledger.operations import Operation, Transfer
from vcp_cluster.ledger.transactions import sign_transaction

def spoil(kind):
    kind.__annotations__ = dict.fromkeys(kind.__annotations__, "Gone")
    for other in kind.__subclasses__():
        spoil(other)

spoil(Record), spoil(Operation)
for kind in vars(documents).values():
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        spoil(kind)

data = sign_transaction(
    bytes(32), chain_id=bytes(16), nonce=7, valid_until_ms=1, operations=[Transfer(bytes(32), 1)]
)
print(parse_transaction(data).envelope.nonce)
key = bytes(32)
parameters = default_parameters((key,))
members = (Member("a", "a:1", key),)
genesis = Genesis(1, "x", 0, Governance(1, (key,)), members, parameters, default_anchors(), ())
print(decode(Genesis, encode(genesis)) == genesis)
for kind in documents._DECODERS:
    try:
        documents.read_typed(kind, b"{}")
    except documents.BadAnswer:
        pass
"""


def test_types_are_known_before_threads_use_them() -> None:
    """msgspec crashes when two threads use a struct for the first time: the import must do it.

    What it looks at then are the annotations, so without them only what was done still works.
    """
    run = subprocess.run(
        [sys.executable, "-c", _AFTER_IMPORT], capture_output=True, text=True, check=False
    )
    assert (run.returncode, run.stdout) == (0, "7\nTrue\n"), run.stderr


# --- the package -----------------------------------------------------------------------------------


def test_the_error_tree_is_drawn_and_every_leaf_says_what_next() -> None:
    kinds = {
        name: kind
        for name, kind in vars(errors).items()
        if isinstance(kind, type) and issubclass(kind, errors.VcpError)
    }
    drawn = re.findall(r"^ {4}[│├└─ ]*([A-Z]\w+)", errors.__doc__ or "", re.MULTILINE)
    assert set(drawn) == set(kinds)
    assert {kind.exit_code for kind in kinds.values()} == {1, 2, 3, 4, 5, 6, 7, 8}
    for code in Code:
        assert "Next: " in str(errors.InvalidTransaction(code, tx_id=bytes(32)))


def test_public_names_are_sorted_complete_and_lazy() -> None:
    assert vcp_cluster.__all__ == sorted(vcp_cluster.__all__)
    tree = {name for name, kind in vars(errors).items() if isinstance(kind, type)}
    assert {name for name in tree if issubclass(getattr(errors, name), errors.VcpError)} <= set(
        vcp_cluster.__all__
    )
    for name in vcp_cluster.__all__:
        assert getattr(vcp_cluster, name)
    with pytest.raises(AttributeError):
        _ = vcp_cluster.nothing
    code = "import sys, vcp_cluster; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "vcp_cluster" in loaded
    assert not {"httpx2", "wasmtime", "msgspec", "nacl"} & set(loaded)
