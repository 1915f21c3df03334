"""The RPC client: every way a node can answer, or not, and what each answer to a broadcast means."""

from __future__ import annotations

import asyncio
import json
import logging
from decimal import Decimal
from pathlib import Path

import httpx2
import pytest

from vcp_cluster.cluster.anchors.bitcoin.asking import ask_node
from vcp_cluster.cluster.anchors.bitcoin.chain import NodeBehind, check_health
from vcp_cluster.cluster.anchors.bitcoin.config import read_cookie
from vcp_cluster.cluster.anchors.bitcoin.replies import Outcome, broadcast, classify
from vcp_cluster.cluster.anchors.bitcoin.rpc import (
    ANSWER_BYTES_MAX,
    NodeError,
    NodeMisconfigured,
    NodeRefused,
    NodeUnavailable,
    RpcClient,
)
from vcp_cluster.cluster.errors import ConfigError, Unavailable
from vcp_cluster.ledger.bitcoin.networks import NETWORKS

from ..cluster.fake_ledger import asynchronous
from .node import CREDENTIALS, CoreNode, Faults, NodeHandler, NodeServer
from .regtest import ANYONE, RegtestChain

REGTEST = NETWORKS["regtest"].genesis_hash
PASSWORD = CREDENTIALS.partition(":")[2]


def make_handler(chain: RegtestChain) -> NodeHandler:
    return NodeHandler(CoreNode(chain), Faults())


def make_client(transport: httpx2.AsyncBaseTransport, credentials: str = CREDENTIALS) -> RpcClient:
    return RpcClient("http://node.test:8332", lambda: credentials, transport=transport)


def answering(status: int, body: bytes) -> httpx2.MockTransport:
    return httpx2.MockTransport(lambda request: httpx2.Response(status, content=body))


def body_of(**fields: object) -> bytes:
    return json.dumps({"id": 1, "result": None, "error": None, **fields}).encode()


def call(transport: httpx2.AsyncBaseTransport, credentials: str = CREDENTIALS) -> object:
    async def run() -> object:
        client = make_client(transport, credentials)
        try:
            return await client.call("getblockcount")
        finally:
            await client.close()

    return asyncio.run(run())


def test_amounts_are_decimal() -> None:
    answer = call(answering(200, b'{"id": 1, "error": null, "result": {"feerate": 0.00001001}}'))
    assert answer == {"feerate": Decimal("0.00001001")}


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b""),
        (200, b"<html>proxy error</html>"),
        (200, b'{"id": 1, "resu'),
        (200, b"[]"),
        (200, b"[" * 100_000),
        (200, b'{"id": 1, "error": null, "result": NaN}'),
        (200, b'{"id": 1, "error": null}'),
        (200, body_of(id=2, result=7)),
        (200, body_of(id="1", result=7)),
        (200, body_of(error="wrong")),
        (200, body_of(error={"code": "-5"})),
        (200, b"x" * (ANSWER_BYTES_MAX + 1)),
        (404, b"no such page"),
        (500, body_of(error={"code": -28, "message": "Loading block index…"})),
        (500, body_of(error={"code": -9, "message": "Bitcoin is not connected!"})),
        (503, b"Work queue depth exceeded"),
        (302, b""),
        (204, body_of(result=7)),
    ],
    ids=range(18),
)
def test_whatever_is_no_answer_is_unavailable(status: int, body: bytes) -> None:
    with pytest.raises(NodeUnavailable):
        call(answering(status, body))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (401, b""),
        (403, b"Forbidden"),
        (404, body_of(error={"code": -32601, "message": "Method not found"})),
        (500, body_of(error={"code": -18, "message": "Requested wallet does not exist"})),
    ],
    ids=["401", "403", "method", "wallet"],
)
def test_what_will_not_change_is_a_matter_of_configuration(status: int, body: bytes) -> None:
    with pytest.raises(NodeMisconfigured, match="Next: "):
        call(answering(status, body))


@pytest.mark.parametrize("status", [200, 500], ids=["JSON-RPC 2.0", "JSON-RPC 1.0"])
def test_a_node_s_own_error_keeps_its_code(status: int) -> None:
    error = {"code": -5, "message": "Block\x1b[31m not found" + "x" * 1_000}
    with pytest.raises(NodeRefused) as refused:
        call(answering(status, body_of(error=error)))
    assert refused.value.code == -5
    assert refused.value.message.startswith("Block?[31m not found")
    assert len(refused.value.message) <= 200


@pytest.mark.parametrize(
    "error",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadTimeout("timeout"),
        httpx2.RemoteProtocolError("closed"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_unavailable(error: httpx2.TransportError) -> None:
    def fail(request: httpx2.Request) -> httpx2.Response:
        raise error

    with pytest.raises(NodeUnavailable):
        call(httpx2.MockTransport(fail))


# --- what an answer to a broadcast means -----------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "message", "outcome"),
    [
        (-27, "Transaction outputs already in utxo set", Outcome.CONFIRMED),
        (-27, "Transaction already in block chain", Outcome.CONFIRMED),
        (-27, "txn-already-in-mempool", Outcome.ACCEPTED),
        (-25, "bad-txns-inputs-missingorspent", Outcome.MISSING),
        (-25, "Missing inputs", Outcome.MISSING),
        (
            -25,
            "Fee exceeds maximum configured by user (e.g. -maxtxfee, maxfeerate)",
            Outcome.INVALID,
        ),
        (
            -25,
            "Unspendable output exceeds maximum configured by user (maxburnamount)",
            Outcome.INVALID,
        ),
        (-26, "min relay fee not met, 5 < 17", Outcome.FEE_LOW),
        (-26, "mempool min fee not met, 17 < 170", Outcome.FEE_LOW),
        (-26, "insufficient fee, rejecting replacement 00ff; new fee 1 < 2", Outcome.FEE_LOW),
        (-26, "mempool full", Outcome.FEE_LOW),
        (-26, "too-large-cluster", Outcome.WAIT),
        (-26, "too-long-mempool-chain, too many unconfirmed ancestors", Outcome.WAIT),
        (-26, "txn-mempool-conflict", Outcome.WAIT),
        (-26, "txn-already-known", Outcome.ACCEPTED),
        (-26, "mempool-script-verify-flag-failed", Outcome.INVALID),
        (-26, "bad-txns-in-belowout", Outcome.INVALID),
        (-26, "dust", Outcome.INVALID),
        (-26, "datacarrier", Outcome.INVALID),
        (-22, "TX decode failed", Outcome.INVALID),
        (-1, "something else", Outcome.WAIT),
    ],
    ids=lambda value: str(value)[:30],
)
def test_each_refusal_has_its_meaning(code: int, message: str, outcome: Outcome) -> None:
    assert classify(NodeRefused(code, message)) is outcome


@asynchronous
async def test_a_reply_that_is_lost_changes_nothing(chain: RegtestChain) -> None:
    handler = make_handler(chain)
    client = make_client(handler.transport())
    raw = chain.pay(ANYONE, 10_000).full
    chain.reorganise(1)  # It is in the mempool again.
    chain.mempool.clear()
    for kind in Faults.KINDS:
        handler.faults.plan(kind, "sendrawtransaction")
        with pytest.raises(NodeUnavailable):
            await broadcast(client, raw)
    assert await broadcast(client, raw) is Outcome.ACCEPTED
    assert await broadcast(client, raw) is Outcome.ACCEPTED
    chain.mine()
    assert await broadcast(client, raw) is Outcome.CONFIRMED
    await client.close()


# --- health ----------------------------------------------------------------------------------------


@asynchronous
async def test_only_a_node_on_the_chain_and_in_sync_is_asked(chain: RegtestChain) -> None:
    handler = make_handler(chain)
    client = make_client(handler.transport())
    tip = await check_health(client, REGTEST, b"")
    assert (tip.height, tip.hash) == (chain.height, chain.tip)
    assert int.from_bytes(tip.work, "big") == chain.work_at(chain.height)
    handler.node.lag = 1
    with pytest.raises(NodeBehind):
        await check_health(client, REGTEST, tip.work)
    handler.node.lag, handler.node.is_downloading = 0, True
    with pytest.raises(NodeBehind):
        await check_health(client, REGTEST, b"")
    handler.node.is_downloading = False
    with pytest.raises(NodeMisconfigured, match="follows the chain"):
        await check_health(client, NETWORKS["mainnet"].genesis_hash, b"")
    await client.close()


# --- secrets ---------------------------------------------------------------------------------------


def test_the_password_is_in_no_error_and_no_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen = []
    for transport in (
        answering(401, b""),
        answering(503, b""),
        answering(200, body_of(error={"code": -5})),
    ):
        with pytest.raises(NodeError) as error:
            call(transport)
        seen.append(repr(error.value) + str(error.value.__dict__))
    assert PASSWORD not in "".join(seen) + caplog.text
    assert "Basic" not in "".join(seen) + caplog.text


def test_a_cookie_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / ".cookie"
    with pytest.raises(NodeMisconfigured, match="start the node"):
        read_cookie(path)
    path.write_text(f"{CREDENTIALS}\n")
    path.chmod(0o644)
    with pytest.raises(NodeMisconfigured, match="chmod 600"):
        read_cookie(path)
    path.chmod(0o600)
    assert read_cookie(path) == CREDENTIALS
    for text in ("", "no-colon", "a:b\nc:d", "é:b", "a:" + "b" * 2_000):
        path.write_text(text)
        with pytest.raises(NodeMisconfigured) as error:
            read_cookie(path)
        assert not text or text not in str(error.value)


def test_a_new_cookie_is_read_after_the_node_s_restart(chain: RegtestChain, tmp_path: Path) -> None:
    path = tmp_path / ".cookie"
    path.write_text("vcp:old")
    path.chmod(0o600)
    with NodeServer(make_handler(chain)) as server:
        with pytest.raises(ConfigError, match="refuses the credentials"):
            ask_node(server.url, path, lambda node: node.call("getblockhash", 0))
        path.write_text(CREDENTIALS)
        asked = ask_node(server.url, path, lambda node: node.call("getblockhash", 0))
        assert asked == REGTEST[::-1].hex()
    with pytest.raises(Unavailable):
        ask_node(server.url, path, lambda node: node.call("getblockhash", 0))
    with pytest.raises(ConfigError, match="password"):
        ask_node("http://a:b@127.0.0.1:1", path, lambda node: node.call("getblockhash", 0))
