"""This cluster as its users run it: member processes, their HTTP API, signed transactions.

A record is a transfer of one unit to an account that does not exist yet, so that a record is a new
key here as it is in etcd. Transactions are signed before the clock starts, each client's with a key
of its own. What counts as acknowledged is a receipt with the code OK.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx2

from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.load.closed_loop import Outcome
from vcp_cluster.benchmarks.load.exchange import Exchange
from vcp_cluster.benchmarks.load.http1 import Http1, post
from vcp_cluster.benchmarks.systems.audit import Acknowledged, audit_stores
from vcp_cluster.benchmarks.systems.base import Checked, Settings, Shape
from vcp_cluster.benchmarks.systems.network import drive
from vcp_cluster.cluster.addresses import http_url
from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.client.documents import ReceiptsDocument, read_typed
from vcp_cluster.cluster.directory import ClientDirectory
from vcp_cluster.cluster.errors import InvalidTransaction
from vcp_cluster.cluster.local import HOST, LocalCluster
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.keys import hash_content, public_key
from vcp_cluster.ledger.operations import Transfer
from vcp_cluster.ledger.transactions import OPERATIONS_MAX, parse_transaction, sign_transaction

FSYNC = True
"""Whether members sync what they acknowledge. A test compares this with the journal's source."""

PAYERS = 256
PAYER_UNITS = 1_000_000_000
VALIDITY_MS = 540_000
_WAIT_MS = 10_000


class OurCluster:
    """Members of one cluster of ours (`NetworkSystem`)."""

    name = "vcp-cluster"

    def __init__(self, directory: Path, members: int, seed: int) -> None:
        self.settings = Settings(
            version=version("vcp-cluster"),
            fsync=FSYNC,
            durability=(
                "acknowledged after fdatasync on a majority"
                if FSYNC
                else "acknowledged after a write on a majority; NOT synced, lost with the power"
            ),
            verification="every signature by every member",
            encryption="between members; none to clients",
            clients="own HTTP/1.1 client, one connection each, to the leader",
        )
        self._directory = directory
        self._members = members
        self._salt = hash_content(b"benchmark" + seed.to_bytes(8, "big"))
        self._seeds = [hash_content(self._salt + b"payer%d" % one) for one in range(PAYERS)]
        self._local: LocalCluster | None = None
        self._http = httpx2.Client(trust_env=False, timeout=10.0)
        self._chain_id = b""
        self._nonce = 0
        self._count = 0
        self._firsts: dict[bytes, int] = {}
        self._sent: dict[bytes, list[bytes]] = {}
        self._acknowledged: dict[bytes, Acknowledged] = {}

    @property
    def local(self) -> LocalCluster:
        """The processes."""
        assert self._local is not None, "started"
        return self._local

    # --- processes -----------------------------------------------------------------------------

    def start(self) -> None:
        """Start all members, wait until they serve, and fund the clients' accounts."""
        self._local = LocalCluster.create(
            self._directory, members=self._members, cluster_name="benchmark"
        )
        self._local.start_members()
        self._local.wait_ready()
        self._chain_id = compute_chain_id(self._local.genesis)
        payments = [Transfer(public_key(seed), PAYER_UNITS) for seed in self._seeds]
        with self.open_client() as client:
            for start in range(0, PAYERS, OPERATIONS_MAX):
                client.submit(*payments[start : start + OPERATIONS_MAX])

    def open_client(self) -> Client:
        """A client with the funded key of the cluster's directory."""
        directory = ClientDirectory.load(self.local.client_directory)
        return Client(self.local.endpoints, seed=directory.seed, genesis=directory.genesis)

    def stop(self) -> None:
        """Stop all processes."""
        self._http.close()
        if self._local is not None:
            self._local.stop()

    def member_pids(self) -> dict[str, int]:
        """The supervisor of each running member."""
        return {name: self.local.pid(name) for name in self.local.names if self._runs(name)}

    def _runs(self, name: str) -> bool:
        return self.local.is_running(name)

    def kill(self, name: str) -> None:
        """kill -9 a member."""
        os.kill(self.local.pid(name), signal.SIGKILL)

    def restart(self, name: str) -> float:
        """Start a killed member; wait until it is ready and has applied what the leader had."""
        self.local.kill(name)  # reaps it, and waits until its children are gone
        wanted = self._height(self.leader())
        start_s = time.monotonic()
        self.local.start_member(name)
        self.local.wait_ready(name)
        self.local.wait_until(lambda: self._height(name) >= wanted, f"{name} to catch up")
        return time.monotonic() - start_s

    def leader(self) -> str:
        """The member that leads."""
        for name in self.local.names:
            if self._runs(name):
                try:
                    leader = self._get(name, "/v1/status")["leader"]
                except httpx2.HTTPError:
                    continue
                if leader is not None and self._runs(leader):
                    return str(leader)
        raise BenchmarkFailed("no member of the cluster leads")

    def _height(self, name: str) -> int:
        return int(self._get(name, "/v1/member/status")["height"])

    def _get(self, name: str, path: str) -> dict[str, Any]:
        answer = self._http.get(http_url(self._address(name)) + path)
        if answer.status_code != 200:
            raise BenchmarkFailed(f"{name}: {path} gave {answer.status_code}: {answer.text[:200]}")
        document: dict[str, Any] = answer.json()
        return document

    def _address(self, name: str) -> str:
        return next(one.address for one in self.local.genesis.members if one.name == name)

    # --- load ----------------------------------------------------------------------------------

    def prepare(self, shape: Shape, requests: int) -> list[list[bytes]]:
        """Signed transfers to new accounts, as POST requests."""
        assert shape.clients <= PAYERS
        valid_until_ms = time.time_ns() // 1_000_000 + VALIDITY_MS
        return [
            [self._request(seed, shape, valid_until_ms) for _ in range(requests)]
            for seed in self._seeds[: shape.clients]
        ]

    def _request(self, seed: bytes, shape: Shape, valid_until_ms: int) -> bytes:
        transactions = [
            self._sign(seed, shape.operations, valid_until_ms) for _ in range(shape.transactions)
        ]
        path = f"/v1/transactions?wait_ms={_WAIT_MS}"
        request = post(path, encode(transactions), content_type="application/msgpack")
        self._sent[request] = transactions
        return request

    def _sign(self, seed: bytes, operations: int, valid_until_ms: int) -> bytes:
        first = self._count
        self._count += operations
        self._nonce += 1
        data = sign_transaction(
            seed,
            chain_id=self._chain_id,
            nonce=self._nonce,
            valid_until_ms=valid_until_ms,
            operations=[
                Transfer(self.recipient(number), 1) for number in range(first, self._count)
            ],
        )
        self._firsts[data] = first
        return data

    def recipient(self, number: int) -> bytes:
        """The account that a record makes."""
        return hash_content(self._salt + number.to_bytes(8, "big"))

    async def connect(self, name: str, shape: Shape, number: int) -> Sequence[Exchange]:
        """A connection for each client."""
        port = int(http_url(self._address(name)).rpartition(":")[2])
        return [await Http1.connect(HOST, port) for _ in range(number)]

    def load(self, shape: Shape, requests: int, seconds: float) -> Outcome:
        """Drive transactions at the leader."""
        return drive(self, shape, requests, seconds)

    def acknowledge(self, requests: Sequence[bytes], answers: Sequence[bytes]) -> None:
        """Remember the receipts; each must say OK and be of the transaction that was sent."""
        for request, answer in zip(requests, answers, strict=True):
            transactions = self._sent.pop(request)
            receipts = read_typed(ReceiptsDocument, answer).receipts
            for data, receipt in zip(transactions, receipts, strict=True):
                if receipt.code_number != Code.OK:
                    code = Code(receipt.code_number).name
                    raise BenchmarkFailed(f"transaction {receipt.tx_id[:12]}: {code}")
                parsed = parse_transaction(data)
                if parsed.tx_id.hex() != receipt.tx_id:
                    raise BenchmarkFailed("a receipt is of another transaction")
                self._acknowledged[parsed.tx_id] = Acknowledged(
                    height=receipt.height,
                    log_index=receipt.log_index,
                    first=self._firsts.pop(data),
                    operations=len(parsed.envelope.operations),
                )

    # --- reading back --------------------------------------------------------------------------

    def verify(self) -> Checked:
        """Try forged transactions at every door, then stop the members and read their stores."""
        for name in self.local.names:
            self._check_refuses_forgery(name)
        wanted = self._height(self.leader())
        for name in self.local.names:
            self.local.wait_until(
                partial(self._has_applied, name, wanted), f"{name} to apply what was acknowledged"
            )
        self.local.stop()
        stores = {name: self.local.directory / name / "store" for name in self.local.names}
        return audit_stores(stores, self._acknowledged, self.recipient)

    def _has_applied(self, name: str, height: int) -> bool:
        return self._height(name) >= height

    def _check_refuses_forgery(self, name: str) -> None:
        """A member must refuse a transaction whose signature is of other bytes."""
        operation = Transfer(self.recipient(0), 1)
        with Client(http_url(self._address(name)), seed=self._seeds[0]) as client:
            forged = bytearray(client.sign(operation))
            forged[-2] ^= 1  # the last byte is the empty list of cosignatures
            try:
                client.send([bytes(forged)])
            except InvalidTransaction as error:
                if error.code is Code.SIGNATURE_INVALID:
                    return
        raise BenchmarkFailed(f"member {name} takes a transaction with a forged signature")
