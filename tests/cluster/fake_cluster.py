"""A cluster in memory behind the HTTP API, for tests of the client and the worker.

The ledger is the real one: genesis, `transition.apply`, records, documents. Three members share it
and an httpx2 transport stands for the network, so that a test can refuse connections, hold back
answers or lie. Members attest, report nodes and verify proofs at once, in the request's thread.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import msgspec

from vcp_cluster.cluster.door import documents
from vcp_cluster.cluster.door.assignments import NodeView
from vcp_cluster.cluster.execution import TaskSpec, compute_binding, execute
from vcp_cluster.executor import PROFILE_ID
from vcp_cluster.ledger import money, schema, tasks
from vcp_cluster.ledger.anchor_settings import default_anchors
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import (
    Finding,
    SignedTelemetry,
    Verdict,
    attest_blob,
    is_same_result,
    sign_verdict,
)
from vcp_cluster.ledger.domains import DOMAIN_TELEMETRY, DOMAIN_UPLOAD
from vcp_cluster.ledger.encoding import decode, encode
from vcp_cluster.ledger.genesis import (
    Allocation,
    Genesis,
    Governance,
    Member,
    Parameters,
    compute_chain_id,
    default_parameters,
    to_document,
)
from vcp_cluster.ledger.keys import hash_content, is_signed, public_key
from vcp_cluster.ledger.operations import AnyOperation, NodeReport, SealBatch, SubmitVerdict
from vcp_cluster.ledger.records import LogLeaf, Proof, ProofStatus
from vcp_cluster.ledger.state import MemoryStore, Overlay, State
from vcp_cluster.ledger.transactions import (
    Entry,
    TransactionReceipt,
    parse_transaction,
    sign_transaction,
    verify_entry,
)
from vcp_cluster.ledger.transition import apply, check_envelope, initial_writes

ENDPOINTS = "http://a:7101,http://b:7101,http://c:7101"
CLIENT_SEED = b"client".ljust(32, b"\0")
GOVERNANCE_SEED = b"governance".ljust(32, b"\0")
MEMBER_SEEDS = {name: name.encode().ljust(32, b"\0") for name in ("a", "b", "c")}
ALLOCATION = 1_000_000_000
HOLD_MS_MAX = 100
"""A heartbeat is answered sooner than asked for, so that a worker under test stops soon."""

Hook = Callable[[httpx2.Request], httpx2.Response | None]


def now_ms() -> int:
    """Wall time in milliseconds."""
    return time.time_ns() // 1_000_000


def make_genesis(change: Callable[[Parameters], Parameters] = lambda same: same) -> Genesis:
    """Three members, a governance key and a rich client."""
    return Genesis(
        version=1,
        cluster_name="fake",
        created_ms=now_ms(),
        governance=Governance(1, (public_key(GOVERNANCE_SEED),)),
        members=tuple(
            Member(name, f"{name}:7100", public_key(seed)) for name, seed in MEMBER_SEEDS.items()
        ),
        parameters=change(default_parameters((PROFILE_ID,))),
        anchors=default_anchors(),
        allocations=(Allocation(public_key(CLIENT_SEED), ALLOCATION),),
    )


def answer(document: Any, status: int = 200) -> httpx2.Response:
    """A JSON answer."""
    return httpx2.Response(status, content=msgspec.json.encode(document))


def problem(status: int, code: str, *, index: int | None = None) -> httpx2.Response:
    """An error document."""
    error = {"code": code, "message": code, "next": "", "retry_after_ms": None, "index": index}
    return answer({"schema": "vcp/error/v1", "error": error}, status)


class FakeCluster:
    """The cluster. `before` and `after` see each request; what they return is the answer.

    What `after` returns replaces the answer of a request that was carried out.
    """

    def __init__(self, genesis: Genesis | None = None) -> None:
        self.genesis = genesis or make_genesis()
        self.chain_id = compute_chain_id(self.genesis)
        self.store = MemoryStore()
        self.store.commit(initial_writes(self.genesis))
        self.blobs: dict[bytes, bytes] = {}
        self.requests: list[httpx2.Request] = []
        self.before: Hook = lambda request: None
        self.after: Hook = lambda request: None
        self.clock_ms: Callable[[], int] = now_ms
        self.transport = httpx2.MockTransport(self._handle)
        self._changed = threading.Condition(threading.RLock())

    # --- the ledger --------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """The ledger now."""
        return State(Overlay(self.store))

    def enter(self, *transactions: bytes) -> list[TransactionReceipt]:
        """Apply one entry with these transactions, and wake who waits for a height."""
        with self._changed:
            data = encode(Entry(1, self.clock_ms(), transactions))
            applied = apply(self.store, data, verify_entry(data))
            self.store.commit(applied.writes)
            self._changed.notify_all()
            return list(applied.receipts)

    def submit(self, seed: bytes, *operations: AnyOperation) -> TransactionReceipt:
        """Sign and apply operations."""
        nonce = self.state.get_head().height
        data = sign_transaction(
            seed,
            chain_id=self.chain_id,
            nonce=nonce,
            valid_until_ms=self.clock_ms() + 60_000,
            operations=operations,
        )
        (receipt,) = self.enter(data)
        return receipt

    def seal(self) -> None:
        """Seal the open batch."""
        batch = self.state.get_settlement().batch
        assert self.submit(MEMBER_SEEDS["a"], SealBatch(batch)).code == Code.OK

    def verify_proofs(self) -> None:
        """Draw, and give every verdict that is asked for, by running the task again."""
        self.enter()
        for key, value in list(self.store.iterate(schema.PROOF)):
            for seed in MEMBER_SEEDS.values():
                proof = decode(Proof, self.store.get(key) or value)
                is_asked = proof.status == ProofStatus.AUDITED_BY_ALL or (
                    proof.status == ProofStatus.AUDITED_BY_ONE
                    and proof.verifier == public_key(seed)
                )
                if is_asked and all(item.member != public_key(seed) for item in proof.verdicts):
                    self._give_verdict(seed, key[1:], proof)

    def _give_verdict(self, seed: bytes, identity: bytes, proof: Proof) -> None:
        claimed = proof.commitment
        task = self.state.get_task(claimed.task)
        assert task is not None
        spec = TaskSpec(
            entry_point=task.entry_point,
            gas_limit=task.gas_limit,
            memory_bytes_max=task.memory_bytes_max,
            run_ms_max=task.run_ms_max,
            output_bytes_max=task.output_bytes_max,
        )
        binding = compute_binding(task=claimed.task, attempt=claimed.attempt, node=claimed.node)
        run = execute(
            self.blobs[task.module_hash], self.blobs[task.input_hash], spec, binding=binding
        )
        verdict = Verdict(
            version=1,
            chain_id=self.chain_id,
            proof=identity,
            finding=int(Finding.AGREE),
            status=int(run.status),
            trap=int(run.trap),
            gas=run.gas,
            output_hash=hash_content(run.output),
            output_length=len(run.output),
            execution_root=run.execution_root,
            detail="",
        )
        if not is_same_result(claimed, verdict):
            verdict = msgspec.structs.replace(verdict, finding=int(Finding.DISAGREE))
        operation = SubmitVerdict(public_key(seed), verdict, sign_verdict(seed, verdict))
        assert self.submit(seed, operation).code == Code.OK

    # --- the doors ---------------------------------------------------------------------------

    def _handle(self, request: httpx2.Request) -> httpx2.Response:
        request.read()
        with self._changed:
            self.requests.append(request)
        response = self.before(request)
        if response is None:
            done = self._route(request)
            response = self.after(request) or done
        if not response.is_stream_consumed:
            return response
        # A response that is made from bytes has been read; what comes from a network has not.
        return httpx2.Response(
            response.status_code,
            headers=response.headers,
            stream=httpx2.ByteStream(response.content),
        )

    def _route(self, request: httpx2.Request) -> httpx2.Response:
        parts = request.url.path.strip("/").split("/")[1:]
        query = dict(request.url.params)
        with self._changed:
            match request.method, *parts:
                case "GET", "genesis":
                    return answer(to_document(self.genesis))
                case "GET", "member", "status":
                    return self._member_status()
                case "GET", "accounts", identity:
                    return self._account(bytes.fromhex(identity))
                case "GET", "nodes", identity:
                    return self._node(bytes.fromhex(identity))
                case "GET", "tasks", identity:
                    return self._task(bytes.fromhex(identity), query)
                case "GET", "transactions", identity:
                    return self._transaction(bytes.fromhex(identity))
                case "POST", "transactions":
                    return self._submit(msgspec.msgpack.decode(request.content, type=list[bytes]))
                case "PUT", "blobs", identity:
                    return self._store_blob(bytes.fromhex(identity), request)
                case "GET", "blobs", identity:
                    data = self.blobs.get(bytes.fromhex(identity))
                    return httpx2.Response(200, content=data) if data is not None else not_found()
                case "POST", "nodes", identity, "probe":
                    return self._probe(bytes.fromhex(identity), request)
                case "POST", "nodes", identity, "heartbeat":
                    return self._heartbeat(bytes.fromhex(identity), json.loads(request.content))
                case "POST", "nodes", _, "echo":
                    return httpx2.Response(204)
        return not_found()

    def _wait(self, is_done: Callable[[], bool], wait_ms: int) -> None:
        self._changed.wait_for(is_done, wait_ms / 1000)

    def _member_status(self) -> httpx2.Response:
        head = self.state.get_head()
        time_text = documents.format_time(head.time_ms)
        return answer({"schema": "vcp/member/v1", "height": head.height, "time": time_text})

    def _account(self, identity: bytes) -> httpx2.Response:
        record = money.get_account(self.state, identity)
        if record is None:
            return not_found()
        height = self.state.get_head().height
        return answer(
            documents.account(identity, record, is_node=False, member=None, height=height)
        )

    def _node(self, identity: bytes) -> httpx2.Response:
        node, account = self.state.get_node(identity), money.get_account(self.state, identity)
        if node is None or account is None:
            return not_found()
        return answer({"schema": "vcp/node/v1", **documents.node(identity, node, account)})

    def _task(self, identity: bytes, query: dict[str, str]) -> httpx2.Response:
        after = int(query.get("after_height", 0))
        wait_ms = int(query.get("wait_ms", 0))
        self._wait(lambda: self.state.get_head().height > after, wait_ms)
        task = self.state.get_task(identity)
        if task is None:
            return not_found()
        document = documents.task(
            identity,
            task,
            status=tasks.get_status(self.state, task),
            proof=self.state.get_proof(task.proof) if task.proof else None,
            anchored_batches=0,
            height=self.state.get_head().height,
        )
        return answer({"schema": "vcp/task/v1", **document})

    def _transaction(self, tx_id: bytes) -> httpx2.Response:
        index = self.store.get(schema.TRANSACTION + tx_id)
        if index is None:
            return not_found()
        leaf = decode(LogLeaf, self.store.get(schema.LOG_LEAF + index) or b"")
        receipt = TransactionReceipt(
            1,
            tx_id,
            leaf.height,
            leaf.time_ms,
            int.from_bytes(index, "big"),
            leaf.code,
            leaf.operation,
        )
        parsed = parse_transaction(self.store.get(schema.ENVELOPE + index) or b"")
        return answer(documents.transaction(receipt, parsed.envelope))

    def _submit(self, transactions: list[bytes]) -> httpx2.Response:
        state = self.state
        for index, data in enumerate(transactions):
            code = check_envelope(state, state.get_head(), parse_transaction(data), is_valid=True)
            if code is not Code.OK:
                return problem(422, code.name.lower(), index=index)
        receipts = [documents.receipt(receipt) for receipt in self.enter(*transactions)]
        return answer({"schema": "vcp/receipts/v1", "receipts": receipts})

    def _is_authorised(self, request: httpx2.Request, content_hash: bytes) -> bool:
        """Whether the upload headers are signed by an account for just this body."""
        account = bytes.fromhex(request.headers["VCP-Account"])
        time_ms = int(request.headers["VCP-Time"])
        message = encode((self.chain_id, content_hash, len(request.content), time_ms))
        signature = bytes.fromhex(request.headers["VCP-Signature"])
        return (
            is_signed(account, DOMAIN_UPLOAD, message, signature)
            and hash_content(request.content) == content_hash
            and abs(now_ms() - time_ms) < 60_000
            and self.state.get_account(account) is not None
        )

    def _store_blob(self, content_hash: bytes, request: httpx2.Request) -> httpx2.Response:
        if not self._is_authorised(request, content_hash):
            return problem(401, "unauthorised")
        self.blobs[content_hash] = request.content
        size = len(request.content)
        attestations = [
            attest_blob(seed, public_key(seed), self.chain_id, content_hash, size)
            for seed in MEMBER_SEEDS.values()
        ]
        return answer(
            {
                "schema": "vcp/blob/v1",
                "hash": content_hash.hex(),
                "size": size,
                "attestations": [
                    {"member": item.member.hex(), "signature": item.signature.hex()}
                    for item in attestations
                ],
            }
        )

    def _probe(self, node: bytes, request: httpx2.Request) -> httpx2.Response:
        if len(request.content) != 256 << 10 or self.state.get_node(node) is None:
            return problem(400, "bad_request")
        if not self._is_authorised(request, hash_content(request.content)):
            return problem(401, "unauthorised")
        return answer({"schema": "vcp/probe/v1", "bandwidth_kbps": 500_000})

    def _heartbeat(self, node: bytes, body: dict[str, Any]) -> httpx2.Response:
        declared = decode(SignedTelemetry, base64.b64decode(body["telemetry"]))
        message = encode(declared.telemetry)
        if not is_signed(node, DOMAIN_TELEMETRY, message, declared.signature):
            return problem(401, "unauthorised")
        record = self.state.get_node(node)
        if record is None:
            return not_found()
        if not record.is_online:
            report = NodeReport(node, True, 500_000, 2_000, declared)
            assert self.submit(MEMBER_SEEDS["a"], report).code == Code.OK
        running = set(body["running"])
        wait_ms = min(body["wait_ms"], HOLD_MS_MAX)
        self._wait(lambda: {task.hex() for task in self._view(node).tasks} != running, wait_ms)
        view = self._view(node)
        return answer(
            {
                "schema": "vcp/heartbeat/v1",
                "height": view.head.height,
                "time": documents.format_time(view.head.time_ms),
                "is_online": True,
                "echo": f"{view.head.height:032x}",
                "assignments": view.documents(),
            }
        )

    def _view(self, node: bytes) -> NodeView:
        state = self.state
        found = {
            identity: task
            for identity in tasks.get_running(state, node)
            if (task := state.get_task(identity)) is not None
        }
        return NodeView(state.get_head(), state.get_node(node), found)


def not_found() -> httpx2.Response:
    """404."""
    return problem(404, "not_found")
