"""A command line without a cluster: the real commands and files, and a client that only answers."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import pytest
from click.testing import CliRunner, Result

from vcp_cluster.cli.main import cli
from vcp_cluster.cluster.directory import initialise
from vcp_cluster.ledger.keys import public_key
from vcp_cluster.ledger.transactions import TransactionReceipt

Document = dict[str, Any]
Run = Callable[..., Result]

TASK, NODE, PROOF, ACCOUNT = "7d" * 32, "9c" * 32, "5a" * 32, "ab" * 32
TIME = "2026-11-22T12:00:00.123Z"

TASK_DOCUMENT: Document = {
    "schema": "vcp/task/v1",
    "id": TASK,
    "client": ACCOUNT,
    "status": "settled",
    "reward": "1250500000",
    "node": NODE,
    "attempts": 2,
    "module_hash": "11" * 32,
    "module_size": 3361,
    "entry_point": "vcp_run",
    "input_hash": "22" * 32,
    "input_size": 0,
    "limits": {
        "gas": 10_000_000_000,
        "memory_bytes": 536_870_912,
        "run_ms": 30_000,
        "output_bytes": 16_777_216,
        "deadline_ms": 60_000,
    },
    "submitted": {"height": 7, "time": TIME},
    "assignments": [
        {
            "attempt": 0,
            "node": "3f" * 32,
            "height": 8,
            "time": TIME,
            "outcome": "failed",
            "proof": None,
            "detail": "timeout: the run took longer than 30,000 ms and was stopped by the sandbox",
        },
        {
            "attempt": 1,
            "node": NODE,
            "height": 9,
            "time": TIME,
            "outcome": "accepted",
            "proof": PROOF,
            "detail": "",
        },
    ],
    "proof": PROOF,
    "output_hash": "33" * 32,
    "output_length": 6,
    "result": "ok",
    "gas": 461_738,
    "batch": 1,
    "receipt": "anchored",
    "height": 20,
}

STATUS_DOCUMENT: Document = {
    "schema": "vcp/status/v1",
    "cluster": "paris-1",
    "chain_id": "0f" * 16,
    "height": 48_211,
    "time": TIME,
    "leader": "b",
    "term": 7,
    "members": [
        {
            "id": "a",
            "address": "10.0.0.1:7100",
            "role": "follower",
            "height": 48_211,
            "lag": 0,
            "state_root": "9f" * 32,
            "term": 7,
        },
        {
            "id": "b",
            "address": "10.0.0.2:7100",
            "role": "leader",
            "height": 48_211,
            "lag": 0,
            "state_root": "9f" * 32,
            "term": 7,
        },
        {
            "id": "c",
            "address": "10.0.0.3:7100",
            "role": "unreachable",
            "height": None,
            "lag": None,
            "state_root": None,
            "term": None,
        },
    ],
    "is_agreed": True,
    "tasks": {
        "open": 12,
        "assigned": 3,
        "proven": 4,
        "accepted": 1,
        "settled": 9_871,
        "expired": 2,
        "cancelled": 0,
    },
    "nodes": {"online": 5, "offline": 1, "safe_mode": 0},
    "supply": {
        "minted": "1000000000000",
        "deposited": "0",
        "withdrawn": "0",
        "available": "999990000000",
        "escrow": "10000000",
        "pending": "0",
        "stake": "0",
        "treasury": "0",
        "accounted": "1000000000000",
    },
    "batch": {"open": 118, "tasks": 1, "sealed": 117},
    "anchor": {
        "backend": "notary",
        "label": "operators only, not Bitcoin",
        "final": 117,
        "pending": None,
    },
    "awaiting": [{"proof": PROOF, "members": ["c"]}],
}

_RUN_RESULT: Document = {
    "status": "ok",
    "trap": "none",
    "gas": 461_738,
    "output_hash": "33" * 32,
    "output_length": 145,
    "execution_root": "44" * 32,
}

PROOF_DOCUMENT: Document = {
    "schema": "vcp/proof/v1",
    "id": PROOF,
    "task": TASK,
    "node": "3f" * 32,
    "attempt": 0,
    "status": "rejected",
    "is_audited": True,
    "verifier": "b",
    "submitted": {"height": 8, "time": TIME},
    "decided_height": 48_190,
    "commitment": {
        "version": 1,
        **_RUN_RESULT,
        "output_hash": "55" * 32,
        "execution_root": "66" * 32,
        "module_hash": "11" * 32,
        "input_hash": "22" * 32,
        "entry_point": "vcp_run",
        "engine": "wasmtime-50.0.1/x86_64",
    },
    "signature": "77" * 64,
    "verdicts": [
        {
            "member": member,
            "finding": "disagree",
            "height": 9,
            "time": TIME,
            **_RUN_RESULT,
            "detail": "differs: output_hash, execution_root",
        }
        for member in ("b", "a")
    ],
    "missing": [],
    "differs": ["output_hash", "execution_root"],
}

NODE_DOCUMENT: Document = {
    "schema": "vcp/node/v1",
    "id": NODE,
    "device": "gateway",
    "status": "online",
    "health": 6416,
    "reputation": 5400,
    "capacity": 2,
    "running": 1,
    "undecided": 0,
    "proofs": 5,
    "accepted": 4,
    "rejected": 1,
    "failed": 0,
    "telemetry": {
        "power_mw": 8_000,
        "temperature_mc": 52_000,
        "carbon_g_kwh": 280,
        "bandwidth_kbps": 100_000,
        "latency_us": 12_000,
        "efficiency_mflops_w": 2_500,
    },
    "reported": TIME,
    "balance": {"available": "8000000", "pending": "0", "stake": "2000000"},
    "registered_height": 3,
}

ACCOUNT_DOCUMENT: Document = {
    "schema": "vcp/account/v1",
    "id": ACCOUNT,
    "available": "9223372036854775807",
    "pending": "0",
    "stake": "0",
    "escrow": "1",
    "is_node": False,
    "member": None,
    "height": 20,
}

BATCH_DOCUMENT: Document = {
    "schema": "vcp/batch/v1",
    "batch": 1,
    "count": 1,
    "first": 9,
    "last": 12,
    "settlement_root": "c9" * 32,
    "state_root": "92" * 32,
    "previous": "00" * 32,
    "time": TIME,
    "height": 13,
    "log_size": 8,
    "log_root": "28" * 32,
    "header": "00",
    "anchor": {
        "backend": "notary",
        "label": "operators only, not Bitcoin",
        "size": 1,
        "status": "final",
        "intent_height": 14,
        "final_height": 16,
    },
    "tasks": [{"task": TASK, "node": NODE, "amount": "1250500000"}],
}

TRANSACTION_DOCUMENT: Document = {
    "schema": "vcp/transaction/v1",
    "receipt": {
        "tx_id": "5e" * 32,
        "height": 38,
        "time": TIME,
        "log_index": 33,
        "code": "balance_insufficient",
        "code_number": 25,
        "operation": 0,
        "message": "the available balance is too small; fund the account",
    },
    "account": ACCOUNT,
    "key": ACCOUNT,
    "nonce": "9007199254740993",
    "valid_until": TIME,
    "operations": [{"operation": "transfer", "recipient": NODE, "amount": 12_500_000}],
}


def make_receipt(code: int = 0) -> TransactionReceipt:
    """A receipt as the client returns it."""
    return TransactionReceipt(1, b"\x5e" * 32, 38, 1_795_348_800_123, 33, code, 0)


class FakeClient:
    """Answers with the documents above; remembers how it was made and what was asked of it.

    `failure` is raised by every call; `documents` may be replaced or spoiled by a test.
    """

    def __init__(self) -> None:
        self.made: list[Document] = []
        self.calls: list[tuple[Any, ...]] = []
        self.failure: BaseException | None = None
        self.output_bytes = b"hello\n"
        self.changes: list[Document] = []
        self.documents: dict[str, Document] = copy.deepcopy(
            {
                "status": STATUS_DOCUMENT,
                "task": TASK_DOCUMENT,
                "tasks": {"schema": "vcp/tasks/v1", "height": 20, "tasks": [TASK_DOCUMENT]},
                "node": NODE_DOCUMENT,
                "nodes": {"schema": "vcp/nodes/v1", "height": 20, "nodes": [NODE_DOCUMENT]},
                "proof": PROOF_DOCUMENT,
                "account": ACCOUNT_DOCUMENT,
                "batch": BATCH_DOCUMENT,
                "batches": {
                    "schema": "vcp/batches/v1",
                    "height": 20,
                    "open": {"batch": 2, "tasks": 0, "total": "0"},
                    "batches": [BATCH_DOCUMENT],
                },
                "transaction": TRANSACTION_DOCUMENT,
            }
        )

    def __call__(self, endpoints: Any, *, seed: Any, genesis: Any, timeout_s: float) -> FakeClient:
        self.made.append(
            {"endpoints": endpoints, "seed": seed, "genesis": genesis, "timeout_s": timeout_s}
        )
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    @property
    def account_id(self) -> str:
        return public_key(self.made[-1]["seed"]).hex()

    def __getattr__(self, name: str) -> Any:
        """A read: remembers its arguments and returns the document of its name."""
        if name not in self.documents:
            raise AttributeError(name)

        def read(*args: Any, **kwargs: Any) -> Document:
            return self._answer(self.documents[name], name, *args, *kwargs.values())

        return read

    def _answer(self, value: Any, *call: Any) -> Any:
        self.calls.append(call)
        if self.failure is not None:
            raise self.failure
        return value

    def submit_task(self, module: bytes, data: bytes, **limits: Any) -> str:
        return str(self._answer(TASK, "submit_task", module, data, limits))

    def wait_task(self, task: str, **options: Any) -> Document:
        for change in self.changes or [self.documents["task"]]:
            options["on_change"](change)
        document: Document = self._answer(
            self.documents["task"], "wait_task", task, options["timeout_s"]
        )
        return document

    def output(self, task: str) -> bytes:
        return bytes(self._answer(self.output_bytes, "output", task))

    def receipt(self, task: str) -> str:
        return str(self._answer("-----BEGIN\n", "receipt", task))

    def transfer(self, to: str, amount: int) -> TransactionReceipt:
        return self._receipt("transfer", to, amount)

    def mint(self, to: str, amount: int, *, cosigner_seeds: Any) -> TransactionReceipt:
        return self._receipt("mint", to, amount, *cosigner_seeds)

    def cancel_task(self, task: str) -> TransactionReceipt:
        return self._receipt("cancel_task", task)

    def submit(self, *operations: Any) -> TransactionReceipt:
        return self._receipt("submit", *operations)

    def _receipt(self, *call: Any) -> TransactionReceipt:
        receipt: TransactionReceipt = self._answer(make_receipt(), *call)
        return receipt


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own configuration directory, and none of the user's variables."""
    path = tmp_path / "config"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(path))
    for name in ("VCP_CLUSTER", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return path


@pytest.fixture
def run() -> Run:
    """Run a command; the result has `exit_code`, `stdout`, `stderr`."""

    def call(*arguments: object, input: bytes | None = None) -> Result:
        return CliRunner().invoke(cli, [str(one) for one in arguments], input=input)

    return call


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    """What commands get when they make a client."""
    client = FakeClient()
    monkeypatch.setattr("vcp_cluster.cluster.client.Client", client)
    return client


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A cluster's directories as `init` makes them."""
    path = tmp_path / "paris"
    members = [("a", "10.0.0.1", 7100), ("b", "10.0.0.2", 7100), ("c", "10.0.0.3", 7100)]
    initialise(path, members, cluster_name="paris-1", created_ms=1_795_348_800_000)
    return path
