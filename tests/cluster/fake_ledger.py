"""The real ledger in memory behind `door.context.Ledger`, for tests of a door's services.

One `FakeChain` is what Raft would replicate: a store, `transition.apply`, a clock that the test
moves. Each member looks at it through a `FakeLedger` of its own.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import msgspec

from vcp_cluster.cluster.errors import InvalidTransaction
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import NOTARY, AnchorSettings, default_anchors
from vcp_cluster.ledger.anchors.notary import NotaryEvidence
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import (
    Attestation,
    Commitment,
    Finding,
    ResultStatus,
    SignedTelemetry,
    Telemetry,
    Verdict,
    attest_blob,
    proof_id,
    sign_commitment,
    sign_telemetry,
    sign_verdict,
)
from vcp_cluster.ledger.encoding import decode_stored, encode
from vcp_cluster.ledger.genesis import (
    Allocation,
    Genesis,
    Governance,
    Member,
    Parameters,
    compute_chain_id,
    default_parameters,
)
from vcp_cluster.ledger.keys import hash_content, public_key
from vcp_cluster.ledger.notes import Checkpoint, format_note, sign_cosignature
from vcp_cluster.ledger.operations import (
    AnyOperation,
    NodeReport,
    RegisterNode,
    SubmitProof,
    SubmitTask,
    SubmitVerdict,
)
from vcp_cluster.ledger.records import (
    Anchor,
    AnchorLane,
    Node,
    Proof,
    ProofStatus,
    Settlement,
    Task,
)
from vcp_cluster.ledger.state import MemoryStore
from vcp_cluster.ledger.tasks import compute_task_id
from vcp_cluster.ledger.transactions import (
    Entry,
    TransactionReceipt,
    sign_transaction,
    verify_entry,
)
from vcp_cluster.ledger.transition import apply, initial_writes

R = TypeVar("R")

PROFILE = b"\x07" * 32
START_MS = 1_800_000_000_000
CLIENT_SEED = b"client".ljust(32, b"\0")
NODE_SEED = b"node".ljust(32, b"\0")
NODE = public_key(NODE_SEED)
MEMBER_SEEDS = {name: name.encode().ljust(32, b"\0") for name in ("a", "b", "c")}
MODULE = b"\0asm module"
INPUT = b"input"


def asynchronous(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run a coroutine test on an event loop of its own; what hangs fails."""

    @functools.wraps(test)
    def run(*args: object, **kwargs: object) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(15):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


async def until(condition: Callable[[], bool]) -> None:
    """Give the loop's other tasks their turns until the condition holds."""
    while not condition():
        await asyncio.sleep(0.001)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self, now_s: float = 1_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def make_genesis(
    profile: bytes = PROFILE, *, anchors: AnchorSettings | None = None, **parameters: int
) -> Genesis:
    """Members a, b, c and a rich client; every proof is audited."""
    changed: Parameters = msgspec.structs.replace(
        default_parameters((profile,)), **{"audit_rate_min_bp": 10_000, **parameters}
    )
    return Genesis(
        version=1,
        cluster_name="test",
        created_ms=START_MS,
        governance=Governance(1, (public_key(b"governance".ljust(32, b"\0")),)),
        members=tuple(
            Member(name, f"{name}.test:7100", public_key(seed))
            for name, seed in MEMBER_SEEDS.items()
        ),
        parameters=changed,
        anchors=anchors or default_anchors(),
        allocations=(Allocation(public_key(CLIENT_SEED), 10**12),),
    )


class FakeChain:
    """The replicated log and its state. `time_ms` is the next entry's time."""

    def __init__(self, genesis: Genesis | None = None) -> None:
        self.genesis = genesis or make_genesis()
        self.chain_id = compute_chain_id(self.genesis)
        self.store = MemoryStore()
        self.store.commit(initial_writes(self.genesis))
        self.time_ms = START_MS
        self.height = 0
        self.news = asyncio.Event()
        self._nonce = 0

    def member(self, name: str) -> FakeLedger:
        """The chain as one member sees it."""
        return FakeLedger(self, name)

    def apply(self, *transactions: bytes) -> tuple[TransactionReceipt, ...]:
        """Append one entry."""
        data = encode(Entry(1, self.time_ms, tuple(transactions)))
        applied = apply(self.store, data, verify_entry(data))
        self.store.commit(applied.writes)
        self.height = applied.head.height
        news, self.news = self.news, asyncio.Event()
        news.set()
        return applied.receipts

    def advance(self, milliseconds: int) -> None:
        """Let ledger time pass with an empty entry."""
        self.time_ms += milliseconds
        self.apply()

    def send(self, seed: bytes, *operations: AnyOperation) -> TransactionReceipt:
        """Sign and apply a transaction; raise `InvalidTransaction` as `Ledger.submit` does."""
        self._nonce += 1
        transaction = sign_transaction(
            seed,
            chain_id=self.chain_id,
            nonce=self._nonce,
            valid_until_ms=self.time_ms + 60_000,
            operations=operations,
        )
        (receipt,) = self.apply(transaction)
        if receipt.code != Code.OK:
            raise InvalidTransaction(
                Code(receipt.code),
                tx_id=receipt.tx_id,
                operation=receipt.operation,
                receipt=receipt,
            )
        return receipt

    # --- what is there -------------------------------------------------------------------------

    def task(self, identity: bytes) -> Task:
        return self._read(Task, schema.TASK + identity)

    def proof(self, identity: bytes) -> Proof:
        return self._read(Proof, schema.PROOF + identity)

    def node(self, identity: bytes = NODE) -> Node:
        return self._read(Node, schema.NODE + identity)

    def settlement(self) -> Settlement:
        return self._read(Settlement, schema.SETTLEMENT)

    def lane(self, backend: str = NOTARY) -> AnchorLane:
        return self._read(AnchorLane, schema.lane_key(backend))

    def anchor(self, size: int, backend: str = NOTARY) -> Anchor:
        return self._read(Anchor, schema.anchor_key(backend, size))

    def _read(self, kind: type[R], key: bytes) -> R:
        data = self.store.get(key)
        assert data is not None
        return decode_stored(kind, data)

    # --- what happens --------------------------------------------------------------------------

    def telemetry(
        self, seed: bytes = NODE_SEED, *, time_ms: int | None = None, **values: int
    ) -> SignedTelemetry:
        """A good node's telemetry, signed; `values` replace single fields."""
        telemetry = Telemetry(
            version=1,
            chain_id=self.chain_id,
            node=public_key(seed),
            time_ms=self.time_ms if time_ms is None else time_ms,
            power_mw=20_000,
            temperature_mc=50_000,
            carbon_g_kwh=100,
            bandwidth_kbps=800_000,
            latency_us=2_000,
            efficiency_mflops_w=5_000,
        )
        return sign_telemetry(seed, msgspec.structs.replace(telemetry, **values))

    def register(self, seed: bytes = NODE_SEED, *, capacity: int = 8) -> bytes:
        """A compute node that nobody has reported yet."""
        self.send(seed, RegisterNode("pc", capacity))
        return public_key(seed)

    def bring_online(self, seed: bytes = NODE_SEED, *, reporter: str = "a") -> bytes:
        """A compute node that takes tasks."""
        node = self.register(seed)
        report = NodeReport(node, True, 800_000, 2_000, self.telemetry(seed))
        self.send(MEMBER_SEEDS[reporter], report)
        return node

    def attest(self, blob: bytes, size: int) -> tuple[Attestation, ...]:
        """Every member's word for a blob."""
        return tuple(
            attest_blob(seed, public_key(seed), self.chain_id, blob, size)
            for seed in MEMBER_SEEDS.values()
        )

    def submit_task(self, *, reward: int = 1_000_000, module: bytes = MODULE) -> bytes:
        """A task; it is assigned at once when a node is free."""
        operation = SubmitTask(
            module_hash=hash_content(module),
            module_size=len(module),
            module_attestations=self.attest(hash_content(module), len(module)),
            entry_point="vcp_run",
            input_hash=hash_content(INPUT),
            input_size=len(INPUT),
            input_attestations=self.attest(hash_content(INPUT), len(INPUT)),
            gas_limit=100_000_000,
            memory_bytes_max=16 << 20,
            run_ms_max=10_000,
            output_bytes_max=1_024,
            deadline_ms=30_000,
            open_ms_max=600_000,
            reward=reward,
            replicas=1,
        )
        return compute_task_id(self.send(CLIENT_SEED, operation).tx_id, 0)

    def submit_proof(self, task: bytes, /, seed: bytes = NODE_SEED, **values: object) -> bytes:
        """The node's proof of its assignment, as `commit` makes it; drawn in the next entry."""
        commitment = self.commit(task, **values)
        attestations = self.attest(commitment.output_hash, commitment.output_length)
        signature = sign_commitment(seed, commitment)
        self.send(seed, SubmitProof(commitment, signature, attestations))
        self.apply()
        return proof_id(commitment)

    def accept(self, identity: bytes) -> None:
        """The drawn member's agreement, if the proof is under audit."""
        proof = self.proof(identity)
        if proof.status != ProofStatus.AUDITED_BY_ONE:
            return
        (name,) = [one.name for one in self.genesis.members if one.key == proof.verifier]
        self.send(MEMBER_SEEDS[name], self.verdict(name, identity))

    def verdict(self, name: str, identity: bytes, /, **values: object) -> SubmitVerdict:
        """A member's agreement with a proof; `values` replace single fields."""
        commitment = self.proof(identity).commitment
        verdict = Verdict(
            version=1,
            chain_id=self.chain_id,
            proof=identity,
            finding=int(Finding.AGREE),
            status=commitment.status,
            trap=commitment.trap,
            gas=commitment.gas,
            output_hash=commitment.output_hash,
            output_length=commitment.output_length,
            execution_root=commitment.execution_root,
            detail="",
        )
        verdict = msgspec.structs.replace(verdict, **values)
        seed = MEMBER_SEEDS[name]
        return SubmitVerdict(public_key(seed), verdict, sign_verdict(seed, verdict))

    def commit(self, identity: bytes, /, **values: object) -> Commitment:
        """The commitment to `EXECUTION_OUTPUT`; `values` replace single fields."""
        task = self.task(identity)
        commitment = Commitment(
            version=1,
            chain_id=self.chain_id,
            task=identity,
            attempt=task.assignments[-1].attempt,
            node=task.assignments[-1].node,
            module_hash=task.module_hash,
            entry_point=task.entry_point,
            input_hash=task.input_hash,
            output_hash=hash_content(OUTPUT),
            output_length=len(OUTPUT),
            status=int(ResultStatus.OK),
            trap=0,
            gas=1_234,
            gas_limit=task.gas_limit,
            profile=PROFILE,
            engine="test",
            waypoints=1,
            execution_root=EXECUTION_ROOT,
            trace_root=TRACE_ROOT,
        )
        return msgspec.structs.replace(commitment, **values)


OUTPUT = b"output"
EXECUTION_ROOT = b"\x11" * 32
TRACE_ROOT = b"\x22" * 32


class FakeLedger:
    """`door.context.Ledger` of one member. `failures` are raised by the next submissions."""

    def __init__(self, chain: FakeChain, name: str) -> None:
        self.chain = chain
        self.genesis = chain.genesis
        self.chain_id = chain.chain_id
        self.member = next(member for member in chain.genesis.members if member.name == name)
        self.seed = MEMBER_SEEDS[name]
        self.leads = True
        self.failures: list[Exception] = []
        self.submitted: list[tuple[AnyOperation, ...]] = []
        self.scans = 0

    @property
    def height(self) -> int:
        return self.chain.height

    @property
    def time_ms(self) -> int:
        return self.chain.time_ms

    async def get(self, *keys: bytes) -> list[bytes | None]:
        await asyncio.sleep(0)
        return [self.chain.store.get(key) for key in keys]

    async def scan(
        self,
        prefix: bytes,
        *,
        start: bytes | None = None,
        limit: int = 1000,
        reverse: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        await asyncio.sleep(0)
        self.scans += 1
        rows = list(self.chain.store.iterate(prefix))
        if reverse:
            rows = [row for row in reversed(rows) if start is None or row[0] <= start]
        else:
            rows = [row for row in rows if start is None or row[0] >= start]
        return rows[:limit]

    async def submit(self, operations: Sequence[AnyOperation]) -> TransactionReceipt:
        await asyncio.sleep(0)
        if self.failures:
            raise self.failures.pop(0)
        self.submitted.append(tuple(operations))
        return self.chain.send(self.seed, *operations)

    async def wait_height(self, above: int, timeout_s: float) -> int:
        try:
            async with asyncio.timeout(timeout_s):
                while self.chain.height <= above:
                    await self.chain.news.wait()
        except TimeoutError:
            pass
        return self.chain.height

    async def is_leader(self) -> bool:
        return self.leads


def make_evidence(chain: FakeChain, size: int) -> NotaryEvidence:
    """Both checkpoints of an anchor, cosigned by all members."""
    lines = chain.anchor(size).raws[0].split(b"\n")
    bodies = (b"\n".join(lines[:3]) + b"\n", b"\n".join(lines[3:]))
    batch, transaction = (
        format_note(
            Checkpoint.parse(body),
            [
                sign_cosignature(seed, name, Checkpoint.parse(body), 1_800_000_000)
                for name, seed in MEMBER_SEEDS.items()
            ],
        )
        for body in bodies
    )
    return NotaryEvidence(batch, transaction)
