"""Real members that anchor in Bitcoin over HTTP: from a task to a receipt, through a kill.

The node is `node.NodeServer`; blocks are mined by the test. What a user types is docs/anchoring.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.directory import ClientDirectory, write_seed
from vcp_cluster.cluster.local import LocalCluster
from vcp_cluster.examples import EXAMPLES
from vcp_cluster.ledger.anchor_settings import AnchorSettings
from vcp_cluster.ledger.bitcoin.transaction import OutPoint

from .node import CREDENTIALS, CoreNode, Faults, NodeHandler, NodeServer, spenders_of
from .regtest import RegtestChain, make_chain
from .world import SCRIPT, SECRET, make_settings

pytestmark = pytest.mark.cluster

MEMBERS = ("a", "b", "c")


class Anchored:
    """Three members; a and b hold the key, c has only a node."""

    def __init__(
        self, directory: Path, chain: RegtestChain, handler: NodeHandler, url: str
    ) -> None:
        self.chain = chain
        self.handler = handler
        self.url = url
        self.funding = chain.pay(SCRIPT, 900_000)
        chain.mine(6)
        settings = make_settings(self.funding, confirmations=2)
        self.cluster = LocalCluster.create(
            directory / "cluster",
            members=3,
            cluster_name="anchored",
            anchors=AnchorSettings(("bitcoin", "notary"), (settings,)),
        )
        self.cookie = directory / "cookie"
        self.cookie.write_text(CREDENTIALS)
        self.cookie.chmod(0o600)
        for name in MEMBERS:
            member = self.cluster.directory / name
            text = f'url = "{url}"\ncookie_file = "{self.cookie}"\npoll_seconds = 0.2\n'
            (member / "bitcoin.toml").write_text(text)
            if name != "c":
                write_seed(member / "bitcoin.key", SECRET)
        directory_of_client = ClientDirectory.load(self.cluster.client_directory)
        self.client = Client(
            self.cluster.endpoints,
            seed=directory_of_client.seed,
            genesis=directory_of_client.genesis,
            timeout_s=30.0,
        )

    def lane(self) -> Any:
        return next(one for one in self.client.anchors()["backends"] if one["backend"] == "bitcoin")

    def wait(self, condition: Any, what: str) -> None:
        self.cluster.wait_until(condition, what, 60.0)

    def mine(self) -> None:
        with self.handler.lock:
            self.chain.mine()

    def mempool(self) -> list[bytes]:
        with self.handler.lock:
            return list(self.chain.mempool)

    def pay_task(self, name: str) -> str:
        """A task that is run, accepted and in a sealed batch."""
        example = EXAMPLES[0]
        task = self.client.submit_task(
            example.module.read_bytes(), example.input.read_bytes() + name.encode(), reward=1_000
        )
        self.client.wait_task(task, until=("settled",), timeout_s=60)
        return task

    def run(self, *arguments: object) -> Any:
        """A command in a process of its own, as JSON."""
        result = subprocess.run(
            [sys.executable, "-m", "vcp_cluster.cli.main", *map(str, arguments), "--json"],
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert result.returncode == 0, result.stderr.decode()
        return json.loads(result.stdout)


@pytest.fixture
def anchored(tmp_path: Path) -> Iterator[Anchored]:
    chain = make_chain()
    handler = NodeHandler(CoreNode(chain), Faults())
    with NodeServer(handler) as server:
        one = Anchored(tmp_path, chain, handler, server.url)
        with one.cluster, one.client:
            one.cluster.start_members()
            one.cluster.wait_ready()
            one.cluster.start_worker("steady", device="pc")
            one.wait(lambda: one.client.status()["nodes"]["online"] == 1, "a worker")
            yield one
    chain.close()


def test_from_a_task_to_a_receipt_in_a_block_through_a_kill(
    anchored: Anchored, tmp_path: Path
) -> None:
    task = anchored.pay_task("first")
    anchored.wait(anchored.mempool, "the anchor in the mempool")
    (txid,) = anchored.mempool()
    holder = anchored.lane()["holder"]
    assert holder in ("a", "b")
    anchored.cluster.kill(holder)
    with anchored.handler.lock:
        anchored.chain.mempool.clear()  # Whoever is left broadcasts the same bytes again.
        anchored.chain.fees.clear()
    anchored.wait(lambda: txid in anchored.mempool(), "the same anchor again")
    anchored.cluster.start_member(holder)
    anchored.cluster.wait_ready()
    anchored.mine()
    anchored.mine()
    anchored.wait(lambda: anchored.lane()["final"] >= 1, "the anchor to be final")
    with anchored.handler.lock:
        published = spenders_of(anchored.chain, OutPoint(anchored.funding.txid, 0))
    assert [one.txid for one in published] == [txid]

    receipt = tmp_path / "payout.receipt"
    client = anchored.cluster.client_directory
    wanted = ("--anchor", "bitcoin", "--wait")
    anchored.run("receipt", "export", task, *wanted, "--out", receipt, "--dir", client)
    genesis = anchored.cluster.directory / "genesis.json"
    node = ("--rpc", anchored.url, "--rpc-cookie", anchored.cookie)
    verified = anchored.run("receipt", "verify", receipt, "--genesis", genesis, *node)
    assert (verified["valid"], verified["level"]) == (True, "node-confirmed")
    assert verified["bitcoin"]["txid"] == txid[::-1].hex()

    listed = anchored.run("anchor", "list", "--dir", client)["anchors"]
    assert {one["backend"] for one in listed} == {"bitcoin", "notary"}
    size = anchored.lane()["final"]
    shown = anchored.run("anchor", "show", size, "--dir", client)
    assert shown["bitcoin"]["block"]["txid"] == txid[::-1].hex()
    audited = anchored.run(
        "anchor", "audit", "--genesis", genesis, *node, "--from", 1, "--compare", "--dir", client
    )
    assert audited["problems"] == []
    assert [one["ledger"] for one in audited["anchors"]] == ["equal"]
    _check_secrets(anchored)


def test_paused_published_and_resumed(anchored: Anchored) -> None:
    client = anchored.cluster.client_directory
    member = anchored.cluster.directory / "b"
    anchored.run("anchor", "pause", "bitcoin", "--reason", "look", "--dir", member)
    anchored.pay_task("second")
    anchored.wait(lambda: anchored.client.status()["anchor"]["final"] >= 1, "the notary's anchor")
    assert (anchored.lane()["halt"], anchored.lane()["pending"]) == ("look", None)
    anchored.run("anchor", "resume", "bitcoin", "--dir", member)
    anchored.wait(anchored.mempool, "the anchor in the mempool")
    with anchored.handler.lock:
        anchored.chain.mempool.clear()
        anchored.chain.fees.clear()
    node = ("--rpc", anchored.url, "--rpc-cookie", anchored.cookie)
    published = anchored.run("anchor", "publish", "--dir", client, *node)
    assert published["outcome"] == "accepted"
    assert bytes.fromhex(published["txid"])[::-1] in anchored.mempool()


def _check_secrets(anchored: Anchored) -> None:
    """Neither the key nor the password is in a log, a store or a journal of any member."""
    secrets = (SECRET, SECRET.hex().encode(), CREDENTIALS.partition(":")[2].encode())
    for path in anchored.cluster.directory.rglob("*"):
        if path.is_file() and path.name != "bitcoin.key":
            data = path.read_bytes()
            for secret in secrets:
                assert secret not in data, f"{path} holds a secret"
