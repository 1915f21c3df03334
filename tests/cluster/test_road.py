"""From a signed task to an offline receipt, and what happens when workers die or lie."""

from __future__ import annotations

from pathlib import Path

import pytest
from wasmtime import wat2wasm

from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.demonstration import reference_output_hash, verify_in_fresh_process
from vcp_cluster.cluster.directory import ClientDirectory
from vcp_cluster.cluster.errors import InvalidModule, InvalidTransaction, NotReady
from vcp_cluster.cluster.local import LocalCluster
from vcp_cluster.examples import EXAMPLES
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.receipts import ReceiptInvalid, check_receipt

pytestmark = pytest.mark.cluster

REWARD = 1_000_000

# Runs for as long as its gas lasts, some seconds, and then ends as the input says.
SLOW = """
(module
  (memory (export "memory") 2)
  (func (export "vcp_alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "vcp_run") (param i32 i32) (result i64)
    (local $i i64)
    (loop $again
      (local.set $i (i64.add (local.get $i) (i64.const 1)))
      (br_if $again (i64.lt_u (local.get $i) (i64.const 400000000))))
    (i64.const 0x0000040000000001)))
"""
TRAP = """
(module
  (memory (export "memory") 1)
  (func (export "vcp_alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "vcp_run") (param i32 i32) (result i64) unreachable))
"""
LOOP = """
(module
  (memory (export "memory") 1)
  (func (export "vcp_alloc") (param i32) (result i32) (i32.const 1024))
  (func (export "vcp_run") (param i32 i32) (result i64) (loop $again (br $again)) (i64.const 0)))
"""


def wasm(text: str) -> bytes:
    return bytes(wat2wasm(text))


def is_online(client: Client, count: int) -> bool:
    return client.status()["nodes"]["online"] >= count


def test_examples_are_run_checked_paid_and_proven(cluster: LocalCluster, client: Client) -> None:
    """The first test of the module: it starts the worker that the later ones use."""
    cluster.start_worker("steady", device="pc")
    cluster.wait_until(lambda: is_online(client, 1), "a worker to be online")
    example = EXAMPLES[0]
    task = client.submit_task(
        example.module.read_bytes(), example.input.read_bytes(), reward=REWARD
    )
    with pytest.raises(NotReady):
        client.receipt(task)
    document = client.wait_task(task, until=("settled",), timeout_s=60)
    assert document["result"] == "ok" and document["attempts"] == 1
    assert hash_content(client.output(task)) == reference_output_hash(example)
    node = client.node(document["node"])
    paid = sum(int(node["balance"][name]) for name in ("available", "pending", "stake"))
    assert paid == REWARD
    assert node["balance"]["stake"] == str(REWARD // 5)
    cluster.wait_until(lambda: client.task(task)["receipt"] == "anchored", "the anchor")
    path = cluster.directory / "one.receipt"
    path.write_text(client.receipt(task))
    assert verify_in_fresh_process(path, client.chain_id)
    report = check_receipt(path.read_bytes(), client.chain_id)
    assert (report.amount, report.task.hex()) == (REWARD, task)
    assert len(report.members) >= 2 and report.unchecked


def test_a_spoiled_receipt_is_refused_wherever_it_is_spoiled(
    cluster: LocalCluster, client: Client
) -> None:
    data = (cluster.directory / "one.receipt").read_bytes()
    report = check_receipt(data, client.chain_id)
    unknown_witness = 0
    for position in range(0, len(data), 7):
        for change in (0x01, 0x20):
            spoiled = bytearray(data)
            spoiled[position] ^= change
            try:
                other = check_receipt(bytes(spoiled), client.chain_id)
            except ReceiptInvalid:
                continue
            # A cosignature under an unknown name or key id counts for nothing; a majority is left.
            assert set(other.members) < set(report.members) and len(other.members) == 2
            unknown_witness += 1
    assert unknown_witness < 20
    with pytest.raises(ReceiptInvalid, match="not of"):
        check_receipt(data, bytes(16))
    with pytest.raises(ReceiptInvalid):
        check_receipt(data[:-1], client.chain_id)
    with pytest.raises(ReceiptInvalid):
        check_receipt(data + b"\n", client.chain_id)


def test_a_trap_and_running_out_of_gas_are_results_and_are_paid(
    cluster: LocalCluster, client: Client
) -> None:
    trap = client.submit_task(wasm(TRAP), b"", reward=REWARD)
    loop = client.submit_task(wasm(LOOP), b"", reward=REWARD, gas_limit=1_000_000)
    for task, result in ((trap, "trap:unreachable"), (loop, "out_of_gas")):
        document = client.wait_task(task, until=("settled",), timeout_s=60)
        assert document["result"] == result
        assert client.output(task) == b""
        assert client.proof(document["proof"])["is_audited"]


def test_a_run_that_takes_too_long_is_reported_and_not_paid(
    cluster: LocalCluster, client: Client
) -> None:
    before = int(client.account()["available"])
    task = client.submit_task(wasm(LOOP), b"", reward=REWARD, run_ms_max=300)
    document = client.wait_task(task, until=("expired",), timeout_s=60)
    assert document["attempts"] == 3
    assert all(item["outcome"] == "failed" for item in document["assignments"])
    assert all("timeout" in item["detail"] for item in document["assignments"])
    assert int(client.account()["available"]) == before


@pytest.mark.parametrize(
    ("module", "code"),
    [
        (b"hello", "bad_module"),
        (b"(module)", "bad_module"),
        (b"", "bad_module"),
        (wasm("(module)"), "export_missing"),
        (wasm('(module (import "env" "f" (func)))'), "import_denied"),
        (wasm("(module (memory 9000))"), "resource_min"),
    ],
)
def test_a_module_that_can_never_run_costs_nothing(
    client: Client, module: bytes, code: str
) -> None:
    before = client.account()
    with pytest.raises(InvalidModule) as raised:
        client.submit_task(module, b"", reward=REWARD)
    assert raised.value.code == code
    assert client.account()["available"] == before["available"]


def test_a_worker_killed_in_the_middle_is_replaced_and_the_task_paid_once(
    cluster: LocalCluster, client: Client
) -> None:
    supply = client.status()["supply"]
    task = client.submit_task(wasm(SLOW), b"x", reward=REWARD)
    cluster.wait_until(lambda: client.task(task)["status"] == "assigned", "the assignment")
    with pytest.raises(InvalidTransaction) as raised:
        client.cancel_task(task)
    assert raised.value.code is Code.TASK_NOT_OPEN
    first = client.task(task)["node"]
    cluster.kill("steady")
    cluster.start_worker("spare", device="gateway")
    document = client.wait_task(task, until=("settled",), timeout_s=90)
    outcomes = [item["outcome"] for item in document["assignments"]]
    assert outcomes == ["released", "accepted"]
    assert document["node"] != first
    after = client.status()["supply"]
    assert int(after["escrow"]) == int(supply["escrow"])
    assert after["minted"] == after["accounted"]
    paid = client.node(document["node"])["balance"]
    assert sum(int(paid[name]) for name in ("available", "pending", "stake")) == REWARD
    cluster.start_worker("steady", device="pc")
    cluster.wait_until(lambda: is_online(client, 2), "the killed worker to come back")


def test_workers_survive_the_death_of_the_member_that_they_talk_to(
    cluster: LocalCluster, client: Client
) -> None:
    for name in cluster.names:
        cluster.kill(name)
        task = client.submit_task(wasm(TRAP), b"", reward=REWARD)
        assert client.wait_task(task, until=("accepted", "settled"), timeout_s=90)["proof"]
        cluster.start_member(name)
        cluster.wait_ready(name)


def test_a_liar_alone_earns_nothing(tmp_path: Path) -> None:
    with LocalCluster.create(tmp_path / "c", members=1, cluster_name="liars") as cluster:
        cluster.start_members()
        cluster.wait_ready()
        directory = cluster.client_directory
        opened = ClientDirectory.load(directory)
        with Client(cluster.endpoints, seed=opened.seed, genesis=opened.genesis) as client:
            cluster.start_worker("liar", device="pc", fault="wrong-output")
            cluster.wait_until(lambda: is_online(client, 1), "the liar to be online")
            example = EXAMPLES[0]
            task = client.submit_task(
                example.module.read_bytes(), example.input.read_bytes(), reward=REWARD
            )
            cluster.wait_until(
                lambda: (
                    bool(client.task(task)["assignments"])
                    and client.task(task)["assignments"][0]["outcome"] == "rejected"
                ),
                "the lie to be found out",
            )
            (node,) = client.nodes()["nodes"]
            assert node["rejected"] == 1 and node["reputation"] < 5_000
            assert set(node["balance"].values()) == {"0"}
            proof = client.proof(client.task(task)["assignments"][0]["proof"])
            assert proof["status"] == "rejected" and "output_hash" in proof["differs"]
            # The same task is not given to the liar again: it waits, and can be cancelled.
            assert client.task(task)["status"] == "open"
            client.cancel_task(task)
            assert client.account()["escrow"] == "0"
