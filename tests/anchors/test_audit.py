"""The audit: the whole list of anchors from blocks alone, and what it says when something is wrong."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vcp_cluster.cli.main import cli
from vcp_cluster.cluster.anchors.bitcoin.audit import Audit, audit_chain, find_first_height
from vcp_cluster.cluster.anchors.bitcoin.rpc import NodeMisconfigured, NodeUnavailable
from vcp_cluster.ledger.bitcoin.script import payload_script
from vcp_cluster.ledger.bitcoin.seal import Coin, build_anchor
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction, TxOutput
from vcp_cluster.ledger.genesis import to_document

from .node import CREDENTIALS, CoreNode, Faults, NodeHandler, NodeServer
from .regtest import ANYONE, RegtestChain
from .world import SCRIPT, SEAL_VALUE, SIGNER, World


@pytest.fixture
def anchored(world: World) -> World:
    """Three anchors, of 2, 5 and 6 batches."""
    for count in (2, 3, 1):
        world.seal(count)
        asyncio.run(world.finish())
    return world


def audit(world: World, first: int = 1) -> Audit:
    node = world.nodes["b"]
    return asyncio.run(audit_chain(node, world.settings, first, lambda height, tip: None))


def spend(world: World, *outputs: TxOutput) -> Transaction:
    """The present seal spent by its key, in a block, as the ledger never would."""
    published = world.published()
    seal = OutPoint(published[-1].txid, 0) if published else OutPoint(world.funding.txid, 0)
    value = published[-1].outputs[0].value if published else SEAL_VALUE
    coin = Coin(seal, value)
    inputs = build_anchor([coin], SCRIPT, bytes(40), 500).inputs
    made = SIGNER.sign(Transaction(2, inputs, outputs, 0), [coin], SCRIPT)
    world.chain.mine(transactions=[made])
    return made


def test_the_list_is_what_was_anchored(anchored: World) -> None:
    found = audit(anchored)
    assert [one.size for one in found.anchors] == [2, 5, 6]
    assert found.problems == []
    for one in found.anchors:
        assert one.size is not None and one.root is not None
        assert anchored.payload_at(one.size)[8:] == one.root
    assert found.seal == OutPoint(anchored.published()[-1].txid, 0)


def test_anchors_in_one_block_are_all_found(anchored: World) -> None:
    chain = anchored.chain
    published = anchored.published()
    depth = 1 + chain.height - chain.blocks[chain.confirmed[published[0].txid]].height
    chain.reorganise(depth, transactions=published)
    found = audit(anchored)
    assert [one.size for one in found.anchors] == [2, 5, 6]
    assert len({one.height for one in found.anchors}) == 1


def test_a_rewrite_is_shown(anchored: World) -> None:
    root = payload_script(b"VCP1" + (4).to_bytes(4, "big") + bytes(32))
    spend(anchored, TxOutput(500_000, SCRIPT), TxOutput(0, root))
    (problem,) = audit(anchored).problems
    assert "4 batches after one that committed to 6" in problem


def test_a_seal_that_was_taken_out_is_shown(anchored: World) -> None:
    stolen = spend(anchored, TxOutput(900_000, ANYONE))
    found = audit(anchored)
    assert "without a commitment" in found.problems[0]
    assert found.anchors[-1].txid == stolen.txid


def test_an_audit_that_begins_too_late_says_so(anchored: World) -> None:
    first = anchored.chain.blocks[anchored.chain.confirmed[anchored.published()[0].txid]].height
    (problem,) = audit(anchored, first + 1).problems
    assert "begin at or below" in problem
    with pytest.raises(NodeMisconfigured, match="tip"):
        audit(anchored, anchored.chain.height + 1)


def test_a_chain_that_moves_meanwhile_is_no_audit(anchored: World) -> None:
    def reorganise(height: int, tip: int) -> None:
        if height == tip:
            anchored.chain.reorganise(2)

    with pytest.raises(NodeUnavailable, match="moved"):
        asyncio.run(audit_chain(anchored.nodes["a"], anchored.settings, 1, reorganise))


def test_the_first_block_is_known_while_the_coin_is_unspent(world: World) -> None:
    first = asyncio.run(find_first_height(world.nodes["a"], world.settings))
    assert first is not None
    assert world.chain.active[first] == world.chain.confirmed[world.funding.txid]
    world.seal()
    asyncio.run(world.finish())
    assert asyncio.run(find_first_height(world.nodes["a"], world.settings)) is None


# --- the command -------------------------------------------------------------------------------------


@pytest.fixture
def node(anchored: World, tmp_path: Path) -> Iterator[list[str]]:
    """Options that name a node and the cluster's genesis."""
    cookie, genesis = tmp_path / "cookie", tmp_path / "genesis.json"
    cookie.write_text(CREDENTIALS)
    cookie.chmod(0o600)
    genesis.write_text(json.dumps(to_document(anchored.ledger.genesis)))
    with NodeServer(NodeHandler(CoreNode(anchored.chain), Faults())) as server:
        yield ["--genesis", str(genesis), "--rpc", server.url, "--rpc-cookie", str(cookie)]


def run(*arguments: str) -> Any:
    return CliRunner().invoke(cli, ["anchor", "audit", *arguments])


def test_the_command_lists_anchors_and_needs_no_cluster(anchored: World, node: list[str]) -> None:
    result = run(*node, "--from", "1", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == "vcp/anchor-audit/v1"
    assert [one["size"] for one in document["anchors"]] == [2, 5, 6]
    assert (document["problems"], document["is_compared"]) == ([], False)
    page = run(*node, "--from", "1").stdout
    assert "one chain, no gap, nothing rewritten" in page
    assert "not checked" in page
    assert run(*node).exit_code == 2  # The first coin is spent: nobody knows where to begin.


def test_problems_are_exit_code_5(anchored: World, node: list[str], chain: RegtestChain) -> None:
    spend(anchored, TxOutput(900_000, ANYONE))
    result = run(*node, "--from", "1")
    assert result.exit_code == 5
    assert "1 problems" in result.stdout
    assert run(*node, "--from", str(chain.height + 1)).exit_code == 2
