"""The demonstration: a real cluster on loopback runs the example tasks, checks, pays and anchors.

`run` drives it and returns one document; printing is the command line's. Everything goes through the
public client and the commands that users have: nothing is asked of a member that a stranger could
not ask.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.directory import ClientDirectory, load_seed
from vcp_cluster.cluster.local import LocalCluster
from vcp_cluster.examples import EXAMPLES, Example, describe_output
from vcp_cluster.executor import run as run_locally
from vcp_cluster.ledger.genesis import UNITS_PER_VCP
from vcp_cluster.ledger.keys import hash_content, public_key

Document = dict[str, Any]

DEVICES = ("gateway", "smartphone", "pc")
REWARD = 10 * UNITS_PER_VCP
DEADLINE_MS = 20_000
ONLINE_TIMEOUT_S = 30.0
TASK_TIMEOUT_S = 120.0
RECEIPT_TIMEOUT_S = 60.0
VERIFY_TIMEOUT_S = 60.0
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large the demonstration is."""

    members: int = 3
    nodes: int = 3
    tasks: int = 5
    liars: int = 0


@dataclass(frozen=True)
class Step:
    """Progress, for people: a stage, and what just happened in it."""

    stage: str
    text: str


@dataclass
class _Node:
    name: str
    device: str
    is_liar: bool
    id: str = ""


@dataclass
class _Task:
    example: Example
    id: str
    final: Document = field(default_factory=dict)


class Demonstration:
    """One run over a `LocalCluster` whose members are not started yet."""

    def __init__(self, cluster: LocalCluster, plan: Plan, on_step: Callable[[Step], None]) -> None:
        self._cluster = cluster
        self._plan = plan
        self._on_step = on_step
        self._nodes = [
            _Node(f"node-{number + 1}", DEVICES[number % len(DEVICES)], number < plan.liars)
            for number in range(plan.nodes)
        ]
        directory = ClientDirectory.load(cluster.client_directory)
        self._client = Client(
            cluster.endpoints, seed=directory.seed, genesis=directory.genesis, timeout_s=30.0
        )

    def run(self) -> Document:
        """Run it to the end; raises the errors of the library when the cluster does not answer."""
        with self._client:
            self._start_members()
            tasks = self._submit_while_only_liars_work()
            self._start_workers([node for node in self._nodes if not node.is_liar])
            tasks += [self._submit(number) for number in range(len(tasks), self._plan.tasks)]
            for task in tasks:
                self._await_settled(task)
            receipts = [self._verify_receipt(task) for task in tasks]
            return self._report(tasks, receipts)

    # --- steps ---------------------------------------------------------------------------------

    def _say(self, stage: str, text: str) -> None:
        self._on_step(Step(stage, text))

    def _start_members(self) -> None:
        self._say("members", f"starting {self._plan.members} members")
        self._cluster.start_members()
        self._cluster.wait_ready()
        leader = self._client.status()["leader"]
        self._say("members", f"{self._plan.members} members agree, {leader} leads")

    def _submit_while_only_liars_work(self) -> list[_Task]:
        """Let every liar take a task before anyone honest can: a draw might pass it by."""
        liars = [node for node in self._nodes if node.is_liar]
        if not liars:
            return []
        self._start_workers(liars)
        tasks = [self._submit(number) for number in range(min(len(liars), self._plan.tasks))]
        wanted = {node.id for node in liars}
        self._wait(
            lambda: wanted <= {n["id"] for n in self._client.nodes()["nodes"] if n["rejected"]},
            "every liar to be caught",
            TASK_TIMEOUT_S,
        )
        self._say("nodes", f"{len(liars)} of them lied and were caught; starting the honest ones")
        return tasks

    def _start_workers(self, nodes: list[_Node]) -> None:
        for node in nodes:
            fault = "wrong-output" if node.is_liar else None
            self._cluster.start_worker(node.name, device=node.device, fault=fault)
        for node in nodes:
            path = self._cluster.worker_key_path(node.name)
            self._wait(path.exists, f"the key of {node.name}", ONLINE_TIMEOUT_S)
            node.id = public_key(load_seed(path)).hex()
        wanted = {node.id for node in nodes}
        self._wait(
            lambda: (
                wanted
                <= {n["id"] for n in self._client.nodes()["nodes"] if n["status"] == "online"}
            ),
            "all workers to be registered and measured",
            ONLINE_TIMEOUT_S,
        )
        names = ", ".join(f"{node.name} ({node.device})" for node in nodes)
        self._say("nodes", f"registered, measured and online: {names}")

    def _submit(self, number: int) -> _Task:
        example = EXAMPLES[number % len(EXAMPLES)]
        identity = self._client.submit_task(
            example.module.read_bytes(),
            example.input.read_bytes(),
            reward=REWARD,
            deadline_ms=DEADLINE_MS,
        )
        self._say("tasks", f"{identity[:12]} {example.name}: submitted, 10 VCP in escrow")
        return _Task(example, identity)

    def _await_settled(self, task: _Task) -> None:
        def changed(document: Document) -> None:
            self._say("tasks", f"{task.id[:12]} {task.example.name}: {document['status']}")

        task.final = self._client.wait_task(
            task.id,
            until=("settled", "expired", "cancelled"),
            timeout_s=TASK_TIMEOUT_S,
            on_change=changed,
        )

    def _verify_receipt(self, task: _Task) -> Document:
        """Export the receipt and verify it in a fresh process that has no network to ask."""
        path = self._cluster.directory / f"{task.example.name}-{task.id[:12]}.receipt"
        if task.final["status"] != "settled":
            return {"task": task.id, "valid": False, "file": None, "bytes": 0}
        self._wait(
            lambda: self._client.task(task.id)["receipt"] == "anchored",
            "the anchor of its batch",
            RECEIPT_TIMEOUT_S,
        )
        path.write_text(self._client.receipt(task.id))
        is_valid = verify_in_fresh_process(path, self._client.chain_id)
        self._say("receipts", f"{task.id[:12]} verified offline" if is_valid else "INVALID")
        return {
            "task": task.id,
            "valid": is_valid,
            "file": path.name,
            "bytes": path.stat().st_size,
        }

    def _wait(self, condition: Callable[[], bool], what: str, timeout_s: float) -> None:
        self._cluster.wait_until(condition, what, timeout_s)

    # --- report --------------------------------------------------------------------------------

    def _report(self, tasks: list[_Task], receipts: list[Document]) -> Document:
        status = self._settled_status()
        nodes = {node["id"]: node for node in self._client.nodes()["nodes"]}
        rows = [self._node_row(node, nodes[node.id]) for node in self._nodes]
        task_rows = [self._task_row(task) for task in tasks]
        supply = {
            "minted": status["supply"]["minted"],
            "accounted": status["supply"]["accounted"],
        }
        honest = all(
            row["rejected"] > 0 and row["balance"] == "0" if row["liar"] else row["rejected"] == 0
            for row in rows
        )
        ok = (
            status["is_agreed"]
            and all(row["status"] == "settled" and row["is_right"] for row in task_rows)
            and all(receipt["valid"] for receipt in receipts)
            and supply["minted"] == supply["accounted"]
            and honest
        )
        return {
            "schema": "vcp/demo/v1",
            "ok": ok,
            "cluster": status["cluster"],
            "chain_id": status["chain_id"],
            "members": status["members"],
            "nodes": rows,
            "tasks": task_rows,
            "batches": self._client.batches()["batches"],
            "anchor": status["anchor"],
            "receipts": receipts,
            "supply": supply,
        }

    def _settled_status(self) -> Document:
        """The status once all members have applied as much as the leader, if they do so soon."""
        deadline = time.monotonic() + 10
        while True:
            status = self._client.status()
            equal = {(m["height"], m["state_root"]) for m in status["members"]}
            if len(equal) == 1 or time.monotonic() > deadline:
                return status
            time.sleep(_POLL_S)

    def _node_row(self, node: _Node, document: Document) -> Document:
        balance = sum(int(document["balance"][name]) for name in ("available", "pending", "stake"))
        return {
            "id": node.id,
            "name": node.name,
            "device": node.device,
            "health": document["health"],
            "reputation": document["reputation"],
            "balance": str(balance),
            "stake": document["balance"]["stake"],
            "liar": node.is_liar,
            "accepted": document["accepted"],
            "rejected": document["rejected"],
            "telemetry": document["telemetry"],
        }

    def _task_row(self, task: _Task) -> Document:
        proofs = [
            self._client.proof(assignment["proof"])
            for assignment in task.final["assignments"]
            if assignment["proof"]
        ]
        output = self._client.output(task.id) if task.final["status"] == "settled" else b""
        return {
            "id": task.id,
            "name": task.example.name,
            "status": task.final["status"],
            "node": task.final["node"],
            "attempts": task.final["attempts"],
            "reward": task.final["reward"],
            "gas": task.final["gas"],
            "result": task.final["result"],
            "output": describe_output(task.example.name, output),
            "is_right": hash_content(output) == reference_output_hash(task.example),
            "proofs": [self._proof_row(task, proof) for proof in proofs],
        }

    def _proof_row(self, task: _Task, proof: Document) -> Document:
        assignment = next(a for a in task.final["assignments"] if a["proof"] == proof["id"])
        node = self._client.node(proof["node"])
        seconds = _seconds_between(assignment["time"], proof["submitted"]["time"])
        joules = node["telemetry"]["power_mw"] / 1000 * seconds
        return {
            "id": proof["id"],
            "node": proof["node"],
            "status": proof["status"],
            "is_audited": proof["is_audited"],
            "verdicts": {item["member"]: item["finding"] for item in proof["verdicts"]},
            "differs": proof["differs"],
            "claimed": proof["commitment"]["output_hash"],
            "recomputed": next(
                (v["output_hash"] for v in proof["verdicts"] if v["finding"] == "disagree"), None
            ),
            "seconds": round(seconds, 3),
            "energy_j": round(joules, 2),
            "carbon_mg": round(joules / 3.6e6 * node["telemetry"]["carbon_g_kwh"] * 1000, 3),
        }


@cache
def reference_output_hash(example: Example) -> bytes:
    """What the example really gives, run here, outside the cluster."""
    execution = run_locally(example.module.read_bytes(), example.input.read_bytes())
    return hash_content(execution.output)


def verify_in_fresh_process(path: Path, chain_id: bytes) -> bool:
    """`vcp-cluster receipt verify FILE --chain-id HEX`, as a stranger would run it."""
    command = [sys.executable, "-m", "vcp_cluster.cli.main", "receipt", "verify", str(path)]
    result = subprocess.run(
        [*command, "--chain-id", chain_id.hex()],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=VERIFY_TIMEOUT_S,
        check=False,
    )
    return result.returncode == 0


def _seconds_between(first: str, second: str) -> float:
    return (datetime.fromisoformat(second) - datetime.fromisoformat(first)).total_seconds()
