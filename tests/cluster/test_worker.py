"""The worker against a cluster in memory: real modules, real ledger, one worker thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx2
import msgspec
import pytest
from wasmtime import wat2wasm

from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.devices import DEVICES, get_device, read_temperature_mc
from vcp_cluster.cluster.errors import ConfigError, InvalidTransaction
from vcp_cluster.cluster.execution import (
    Execution,
    ModuleError,
    TaskSpec,
    commitment_of,
    compute_binding,
    execute,
)
from vcp_cluster.cluster.worker import EventKind, Fault, WorkerEvent, run_worker
from vcp_cluster.cluster.worker.faults import apply_fault
from vcp_cluster.cluster.worker.session import Session
from vcp_cluster.examples import EXAMPLES
from vcp_cluster.executor import PROFILE_ID, Status, TrapClass
from vcp_cluster.ledger import money
from vcp_cluster.ledger.commitments import is_consistent
from vcp_cluster.ledger.encoding import decode
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.keys import hash_content, public_key
from vcp_cluster.ledger.operations import NodeReport, SubmitProof
from vcp_cluster.ledger.records import Proof, ProofStatus
from vcp_cluster.ledger.schema import PROOF
from vcp_cluster.ledger.transactions import parse_transaction

from .fake_cluster import (
    CLIENT_SEED,
    ENDPOINTS,
    MEMBER_SEEDS,
    FakeCluster,
    make_genesis,
    problem,
)

NODE_SEED = b"node".ljust(32, b"\0")
NODE = public_key(NODE_SEED)
WAIT_S = 30.0
WORDCOUNT = EXAMPLES[0].module.read_bytes()
FEDAVG = EXAMPLES[1].module.read_bytes()
SPEC = TaskSpec(
    entry_point="vcp_run",
    gas_limit=1_000_000,
    memory_bytes_max=1 << 20,
    run_ms_max=10_000,
    output_bytes_max=1_000,
)


def guest(run: str) -> bytes:
    """A module whose `vcp_run` has this body."""
    return bytes(
        wat2wasm(
            f"""(module (memory (export "memory") 1)
            (func (export "vcp_alloc") (param i32) (result i32) i32.const 1024)
            (func (export "vcp_run") (param i32 i32) (result i64) {run}))"""
        )
    )


FOREVER = guest("(loop $again (br $again)) (i64.const 0)")
SILENT = guest("(i64.const 0)")


class Events:
    """What a worker told, and waiting for it."""

    def __init__(self) -> None:
        self.all: list[WorkerEvent] = []
        self._told = threading.Condition()

    def tell(self, event: WorkerEvent) -> None:
        with self._told:
            self.all.append(event)
            self._told.notify_all()

    def of(self, kind: EventKind) -> list[WorkerEvent]:
        """All events of a kind."""
        return [event for event in self.all if event.kind is kind]

    def wait(self, kind: EventKind, number: int = 1) -> WorkerEvent:
        """The `number`-th event of a kind, as soon as there is one."""
        with self._told:
            done = self._told.wait_for(lambda: len(self.of(kind)) >= number, WAIT_S)
            assert done, self.all
            return self.of(kind)[number - 1]


@pytest.fixture
def fake() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def client(fake: FakeCluster) -> Iterator[Client]:
    with Client(ENDPOINTS, seed=CLIENT_SEED, transport=fake.transport) as client:
        yield client


@contextmanager
def working(
    fake: FakeCluster, *, seed: bytes = NODE_SEED, capacity: int = 1, fault: Fault | None = None
) -> Iterator[Events]:
    """A worker in a thread; it has stopped, and told so, afterwards."""
    events, stop = Events(), threading.Event()
    thread = threading.Thread(
        target=run_worker,
        kwargs={
            "endpoints": ENDPOINTS,
            "seed": seed,
            "device": DEVICES["pc"],
            "capacity": capacity,
            "stop": stop,
            "on_event": events.tell,
            "fault": fault,
            "transport": fake.transport,
        },
    )
    thread.start()
    try:
        yield events
    finally:
        stop.set()
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert events.all[-1].kind is EventKind.STOPPED


def proofs(fake: FakeCluster) -> list[Proof]:
    return [decode(Proof, value) for _, value in fake.store.iterate(PROOF)]


def carries_proof(request: httpx2.Request) -> bool:
    if request.url.path != "/v1/transactions":
        return False
    (data,) = msgspec.msgpack.decode(request.content, type=list[bytes])
    return isinstance(parse_transaction(data).envelope.operations[0], SubmitProof)


def refusing(*hosts: str) -> Callable[[httpx2.Request], None]:
    def hook(request: httpx2.Request) -> None:
        if request.url.host in hosts:
            raise httpx2.ConnectError("refused", request=request)

    return hook


# --- stories -----------------------------------------------------------------------------------


def test_a_task_is_run_verified_and_paid(fake: FakeCluster, client: Client) -> None:
    with working(fake) as events:
        task = client.submit_task(WORDCOUNT, b"one two two\n", reward=1_000)
        assert events.wait(EventKind.PROVEN).task == task
        fake.verify_proofs()
        assert client.wait_task(task)["status"] == "accepted"
        fake.seal()
    document = client.task(task)
    assert (document["status"], document["result"], document["node"]) == (
        "settled",
        "ok",
        NODE.hex(),
    )
    assert b"words 3" in client.output(task)
    account = money.get_account(fake.state, NODE)
    assert account is not None and account.available + account.stake == 1_000
    node = client.node(NODE)
    assert (node["device"], node["telemetry"]["power_mw"]) == ("pc", DEVICES["pc"].power_mw)
    kinds = [event.kind for event in events.all]
    assert kinds[:2] == [EventKind.REGISTERED, EventKind.CONNECTED]


def test_a_liar_is_caught(fake: FakeCluster, client: Client) -> None:
    with working(fake, fault=Fault.WRONG_OUTPUT) as events:
        task = client.submit_task(WORDCOUNT, b"one two two\n", reward=1_000)
        events.wait(EventKind.PROVEN)
        fake.verify_proofs()
        fake.verify_proofs()  # the drawn member disagreed, so now all are asked
    (proof,) = proofs(fake)
    assert proof.status == ProofStatus.REJECTED
    assert client.task(task)["status"] == "open"  # waits for another node
    assert client.node(NODE)["rejected"] == 1


def test_a_trap_is_a_result(fake: FakeCluster, client: Client) -> None:
    with working(fake) as events:
        task = client.submit_task(FEDAVG, b"not a model", reward=1)
        events.wait(EventKind.PROVEN)
        fake.verify_proofs()
        document = client.wait_task(task)
    assert (document["status"], document["result"]) == ("accepted", "trap:unreachable")
    assert client.output(task) == b""


def test_an_empty_output_needs_no_blob(fake: FakeCluster, client: Client) -> None:
    with working(fake) as events:
        task = client.submit_task(SILENT, b"", reward=1)
        events.wait(EventKind.PROVEN)
    assert (client.task(task)["output_length"], client.output(task)) == (0, b"")
    assert set(fake.blobs) == {hash_content(SILENT), hash_content(b"")}


def test_what_cannot_be_reproduced_is_reported(fake: FakeCluster, client: Client) -> None:
    with working(fake) as events:
        task = client.submit_task(FOREVER, b"", reward=1, run_ms_max=50)
        for number in (1, 2, 3):
            assert events.wait(EventKind.FAILED, number).detail.startswith("timeout: ")
        document = client.wait_task(task)
    assert (document["status"], document["attempts"]) == ("expired", 3)
    assert all(item["detail"].startswith("timeout: ") for item in document["assignments"])
    assert not proofs(fake)


def test_a_module_that_slipped_in_is_refused(fake: FakeCluster, client: Client) -> None:
    blob = client.upload(b"(module)")
    task = prepare_bad_task(fake, client, blob.hash)
    with working(fake) as events:
        assert events.wait(EventKind.FAILED).detail.startswith("module_refused: bad_module")
        assert client.task(task)["assignments"][0]["outcome"] == "failed"


def prepare_bad_task(fake: FakeCluster, client: Client, module_hash: bytes) -> str:
    """A task on the ledger whose module the client would not have let pass."""
    task = client.submit_task(SILENT, b"", reward=1)
    record = fake.state.get_task(bytes.fromhex(task))
    assert record is not None
    size = len(fake.blobs[module_hash])
    state = fake.state
    changed = msgspec.structs.replace(record, module_hash=module_hash, module_size=size)
    state.put_task(bytes.fromhex(task), changed)
    fake.store.commit(list(state.overlay.changes.items()))
    return task


@pytest.mark.parametrize("found", [None, b"dada"])
def test_a_blob_that_is_gone_or_changed_is_reported(
    fake: FakeCluster, client: Client, found: bytes | None
) -> None:
    task = client.submit_task(SILENT, b"data", reward=1)
    del fake.blobs[hash_content(b"data")]
    if found is not None:
        fake.blobs[hash_content(b"data")] = found
    with working(fake) as events:
        assert events.wait(EventKind.FAILED).detail.startswith("blob_unavailable: ")
        assert client.task(task)["assignments"][0]["outcome"] == "failed"


def test_an_attempt_is_run_once_even_if_its_proof_is_refused(
    fake: FakeCluster, client: Client
) -> None:
    fake.before = lambda request: (
        problem(422, "attempt_stale", index=0) if carries_proof(request) else None
    )
    beats = threading.Semaphore(0)

    def count(request: httpx2.Request) -> None:
        if request.url.path.endswith("/heartbeat"):
            beats.release()

    with working(fake) as events:
        client.submit_task(SILENT, b"", reward=1)
        assert "attempt_stale" in events.wait(EventKind.REFUSED).detail
        fake.after = count
        for _ in range(2):  # it is still in the ledger's list, and is not taken again
            fake.enter()
            assert beats.acquire(timeout=WAIT_S)
    assert len(events.of(EventKind.ASSIGNED)) == 1


def test_a_run_that_is_not_ours_any_more_is_cancelled(fake: FakeCluster, client: Client) -> None:
    with working(fake) as events:
        task = client.submit_task(FOREVER, b"", reward=1)
        events.wait(EventKind.ASSIGNED)
        go_silent(fake)
        assert events.wait(EventKind.CANCELLED).task == task
        events.wait(EventKind.ASSIGNED, 2)  # the next attempt is ours again
    assert "the worker was stopped" in events.of(EventKind.FAILED)[0].detail
    outcomes = [item["outcome"] for item in client.task(task)["assignments"]]
    assert outcomes[:2] == ["released", "failed"]


def go_silent(fake: FakeCluster) -> None:
    """The member takes the node for silent, and its assignments away."""
    session = Session(
        tuple(ENDPOINTS.split(",")),
        seed=NODE_SEED,
        chain_id=fake.chain_id,
        device=DEVICES["pc"],
        measure_temperature=False,
        transport=fake.transport,
    )
    report = NodeReport(NODE, False, 1, 1, session.sign_telemetry())
    session.close()
    assert fake.submit(MEMBER_SEEDS["a"], report).code == 0


def test_the_session_moves_to_another_member(fake: FakeCluster, client: Client) -> None:
    fake.before = refusing("a")
    with working(fake) as events:
        assert events.wait(EventKind.CONNECTED).detail == "http://b:7101"
        fake.before = refusing("a", "b")
        assert events.wait(EventKind.CONNECTED, 2).detail == "http://c:7101"
        task = client.submit_task(WORDCOUNT, b"x", reward=1)
        assert events.wait(EventKind.PROVEN).task == task


def test_a_member_that_lies_about_its_height_is_believed_for_a_moment_only(
    fake: FakeCluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vcp_cluster.cluster.worker.worker.BEHIND_S_MAX", 0.3)
    lie = {"schema": "vcp/heartbeat/v1", "height": 2**60, "time": "", "is_online": True}
    lied = threading.Event()

    def before(request: httpx2.Request) -> httpx2.Response | None:
        if request.url.host != "a" or not request.url.path.endswith("/heartbeat"):
            return None
        if lied.is_set():
            raise httpx2.ConnectError("refused", request=request)
        lied.set()
        return httpx2.Response(200, json={**lie, "echo": None, "assignments": []})

    fake.before = before
    with working(fake) as events:
        assert events.wait(EventKind.CONNECTED, 2).detail == "http://b:7101"
        task = client.submit_task(WORDCOUNT, b"x", reward=1)
        assert events.wait(EventKind.PROVEN).task == task


def test_it_waits_for_a_cluster_that_is_not_there_yet(fake: FakeCluster) -> None:
    fake.before = refusing("a", "b", "c")
    events, stop = Events(), threading.Event()
    thread = threading.Thread(
        target=run_worker,
        kwargs={
            "endpoints": ENDPOINTS,
            "seed": NODE_SEED,
            "device": DEVICES["gateway"],
            "stop": stop,
            "on_event": events.tell,
            "transport": fake.transport,
        },
    )
    thread.start()
    events.wait(EventKind.DISCONNECTED)
    fake.before = lambda request: None
    events.wait(EventKind.CONNECTED)
    stop.set()
    thread.join(WAIT_S)
    assert not thread.is_alive()


def test_a_restarted_worker_is_the_same_node(fake: FakeCluster, client: Client) -> None:
    for number in (1, 2):
        with working(fake) as events:
            client.submit_task(WORDCOUNT, b"same", reward=1)
            events.wait(EventKind.PROVEN)
        assert len(proofs(fake)) == number
    first, second = (proof.commitment for proof in proofs(fake))
    assert first.execution_root == second.execution_root
    assert first.trace_root != second.trace_root


def test_several_tasks_at_a_time(fake: FakeCluster, client: Client) -> None:
    with working(fake, capacity=2) as events:
        for text in (b"a", b"b", b"c"):
            client.submit_task(WORDCOUNT, text, reward=1)
        events.wait(EventKind.PROVEN, 3)
    assert client.node(NODE)["capacity"] == 2
    assert len(proofs(fake)) == 3


def test_a_registration_that_is_rejected_ends_it() -> None:
    genesis = make_genesis(lambda same: msgspec.structs.replace(same, nodes_max=1))
    fake = FakeCluster(genesis)
    assert fake.chain_id == compute_chain_id(genesis)
    with working(fake) as events:
        events.wait(EventKind.REGISTERED)
    with pytest.raises(InvalidTransaction, match="node_limit"):
        run_worker(
            endpoints=ENDPOINTS,
            seed=b"second".ljust(32, b"\0"),
            device=DEVICES["server"],
            stop=threading.Event(),
            on_event=lambda event: None,
            transport=fake.transport,
        )


# --- parts -------------------------------------------------------------------------------------


def make_execution(status: Status, output: bytes) -> Execution:
    return Execution(
        status=status,
        trap=TrapClass.UNREACHABLE if status is Status.TRAP else TrapClass.NONE,
        output=output,
        gas=SPEC.gas_limit if status is Status.OUT_OF_GAS else 5,
        execution_root=bytes(32),
        trace_root=bytes(32),
        waypoints=1,
        profile_id=PROFILE_ID,
        engine="engine",
        wall_ms=1,
        cpu_ms=1,
    )


@pytest.mark.parametrize(
    ("status", "output"),
    [(Status.OK, b"data"), (Status.OK, b"")]
    + [(status, b"") for status in Status if status is not Status.OK],
)
def test_a_lie_is_well_formed(status: Status, output: bytes) -> None:
    truth = make_execution(status, output)
    lie = apply_fault(Fault.WRONG_OUTPUT, truth, binding=b"binding")
    assert lie.output != truth.output
    assert len({truth.execution_root, lie.execution_root, lie.trace_root}) == 3
    for told in (truth, lie):
        commitment = commitment_of(
            told,
            SPEC,
            chain_id=bytes(16),
            task=bytes(32),
            attempt=0,
            node=NODE,
            module_hash=bytes(32),
            input_hash=bytes(32),
        )
        assert is_consistent(commitment)


def test_bindings_differ_by_each_part() -> None:
    bindings = {
        compute_binding(task=task, attempt=attempt, node=node)
        for task in (bytes(32), b"\1" * 32)
        for attempt in (0, 1)
        for node in (bytes(32), b"\1" * 32)
    }
    assert len(bindings) == 8


def test_execution_is_bound_and_repeatable() -> None:
    first = execute(WORDCOUNT, b"x", SPEC, binding=b"1" * 32)
    second = execute(WORDCOUNT, b"x", SPEC, binding=b"2" * 32)
    assert first.execution_root == second.execution_root
    assert first.trace_root != second.trace_root


def test_limits_that_no_executor_offers_are_a_module_error() -> None:
    with pytest.raises(ModuleError, match="memory_bytes_max") as caught:
        execute(WORDCOUNT, b"", replace(SPEC, memory_bytes_max=1), binding=b"")
    assert caught.value.code == "resource_min"


def test_devices() -> None:
    assert list(DEVICES) == ["gateway", "smartphone", "pc", "server"]
    assert get_device("server").name == "server"
    with pytest.raises(ConfigError, match="smartphone"):
        get_device("toaster")


def test_temperature_is_read_where_there_is_a_sensor(tmp_path: Path) -> None:
    assert read_temperature_mc(tmp_path) is None
    for number, text in enumerate(("41000\n", "47500\n", "-5000\n", "junk\n", "999999\n")):
        (tmp_path / f"thermal_zone{number}").mkdir()
        (tmp_path / f"thermal_zone{number}" / "temp").write_text(text)
    assert read_temperature_mc(tmp_path) == 47_500
