"""The state as `apply` sees it: a view to read from, and an overlay that collects writes.

A view is anything with `get` and `iterate`: the memory store below, the LevelDB store of a member,
or an overlay over another view. A discarded overlay leaves no trace.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import merge
from typing import Protocol, TypeVar

from vcp_cluster.ledger import schema
from vcp_cluster.ledger.encoding import Record, decode_stored, encode
from vcp_cluster.ledger.genesis import Genesis, decode_genesis
from vcp_cluster.ledger.records import (
    Account,
    Anchor,
    AnchorLane,
    Head,
    LogState,
    Node,
    NonceRecord,
    Proof,
    Settlement,
    Supply,
    Task,
    compute_node_class,
)
from vcp_cluster.ledger.schema import CountKind

Write = tuple[bytes, bytes | None]
R = TypeVar("R", bound=Record)


class View(Protocol):
    """An ordered key-value state that can be read."""

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, or None."""
        ...

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key starts with `prefix`, in key order."""
        ...


class MemoryStore:
    """A view in memory, for tests and for replaying a log."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}

    def get(self, key: bytes) -> bytes | None:
        """The value under a key, or None."""
        return self._values.get(key)

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key starts with `prefix`, in key order."""
        keys = sorted(key for key in self._values if key.startswith(prefix))
        return iter([(key, self._values[key]) for key in keys])

    def commit(self, writes: list[Write]) -> None:
        """Apply the writes of one entry."""
        for key, value in writes:
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value


class Overlay:
    """Writes over a view; reads see them. Last write to a key wins."""

    def __init__(self, base: View) -> None:
        self.base = base
        self.changes: dict[bytes, bytes | None] = {}

    def get(self, key: bytes) -> bytes | None:
        """The newest value under a key, or None."""
        if key in self.changes:
            return self.changes[key]
        return self.base.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        """Set a value."""
        self.changes[key] = value

    def delete(self, key: bytes) -> None:
        """Remove a key; removing a missing one is nothing."""
        self.changes[key] = None

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs whose key starts with `prefix`, in key order, as of this moment's changes."""
        mine = sorted(key for key in self.changes if key.startswith(prefix))
        theirs = (key for key, _ in self.base.iterate(prefix) if key not in self.changes)
        for key in merge(mine, theirs):
            value = self.get(key)
            if value is not None:
                yield key, value

    def merge_into(self, other: Overlay) -> None:
        """Give all changes to another overlay."""
        other.changes.update(self.changes)


class State:
    """Typed access to records over an overlay. Returns None where there is no record."""

    def __init__(self, overlay: Overlay, genesis: Genesis | None = None) -> None:
        self.overlay = overlay
        self._genesis = genesis

    def over(self, overlay: Overlay) -> State:
        """The same state with further writes in `overlay`."""
        return State(overlay, self._genesis)

    def _read(self, kind: type[R], key: bytes) -> R | None:
        data = self.overlay.get(key)
        return None if data is None else decode_stored(kind, data)

    def _require(self, kind: type[R], key: bytes) -> R:
        record = self._read(kind, key)
        assert record is not None, f"{kind.__name__} is written at height 0"
        return record

    def get_count(self, kind: CountKind, class_: int) -> int:
        """How many tasks or nodes are in a class."""
        data = self.overlay.get(schema.count_key(kind, class_))
        return 0 if data is None else int.from_bytes(data, "big")

    def _count(self, kind: CountKind, old: int | None, new: int) -> None:
        if old == new:
            return
        if old is not None:
            number = self.get_count(kind, old) - 1
            self.overlay.put(schema.count_key(kind, old), schema.u64(number))
        number = self.get_count(kind, new) + 1
        self.overlay.put(schema.count_key(kind, new), schema.u64(number))

    @property
    def genesis(self) -> Genesis:
        """The genesis of this cluster."""
        if self._genesis is None:
            data = self.overlay.get(schema.GENESIS)
            assert data is not None, "the genesis is written at height 0"
            self._genesis = decode_genesis(data)
        return self._genesis

    def get_head(self) -> Head:
        """Height, times and root after the last entry."""
        return self._require(Head, schema.HEAD)

    def get_supply(self) -> Supply:
        """All units, by where they are."""
        return self._require(Supply, schema.SUPPLY)

    def put_supply(self, supply: Supply) -> None:
        """Replace the supply counters."""
        self.overlay.put(schema.SUPPLY, encode(supply))

    def get_log(self) -> LogState:
        """Size and frontier of the transaction log."""
        return self._require(LogState, schema.LOG_STATE)

    def put_log(self, log: LogState) -> None:
        """Replace the transaction log's state."""
        self.overlay.put(schema.LOG_STATE, encode(log))

    def get_settlement(self) -> Settlement:
        """The open batch and the batch log."""
        return self._require(Settlement, schema.SETTLEMENT)

    def put_settlement(self, settlement: Settlement) -> None:
        """Replace the settlement state."""
        self.overlay.put(schema.SETTLEMENT, encode(settlement))

    def get_account(self, account: bytes) -> Account | None:
        """An account, as stored: `money.get_account` folds in what sealed batches paid."""
        return self._read(Account, schema.ACCOUNT + account)

    def put_account(self, account: bytes, record: Account) -> None:
        """Write an account."""
        self.overlay.put(schema.ACCOUNT + account, encode(record))

    def get_node(self, node: bytes) -> Node | None:
        """A compute node."""
        return self._read(Node, schema.NODE + node)

    def put_node(self, node: bytes, record: Node) -> None:
        """Write a compute node; use `nodes.put_node`, which keeps the selection tree right."""
        old = self.get_node(node)
        self._count(
            CountKind.NODE,
            None if old is None else compute_node_class(old),
            compute_node_class(record),
        )
        self.overlay.put(schema.NODE + node, encode(record))

    def get_task(self, task: bytes) -> Task | None:
        """A task."""
        return self._read(Task, schema.TASK + task)

    def put_task(self, task: bytes, record: Task) -> None:
        """Write a task."""
        old = self.get_task(task)
        self._count(CountKind.TASK, None if old is None else old.status, record.status)
        self.overlay.put(schema.TASK + task, encode(record))

    def get_proof(self, proof: bytes) -> Proof | None:
        """A proof."""
        return self._read(Proof, schema.PROOF + proof)

    def put_proof(self, proof: bytes, record: Proof) -> None:
        """Write a proof."""
        self.overlay.put(schema.PROOF + proof, encode(record))

    def get_lane(self, backend: str) -> AnchorLane:
        """A configured backend's lane."""
        return self._require(AnchorLane, schema.lane_key(backend))

    def put_lane(self, backend: str, lane: AnchorLane) -> None:
        """Replace a backend's lane."""
        self.overlay.put(schema.lane_key(backend), encode(lane))

    def get_anchor(self, backend: str, size: int) -> Anchor | None:
        """A backend's anchor of the batch log at `size`."""
        return self._read(Anchor, schema.anchor_key(backend, size))

    def put_anchor(self, anchor: Anchor) -> None:
        """Write an anchor."""
        self.overlay.put(schema.anchor_key(anchor.backend, anchor.size), encode(anchor))

    def get_nonce(self, account: bytes, nonce: int) -> NonceRecord | None:
        """What a transaction of this account and nonce came to, while it is remembered."""
        return self._read(NonceRecord, schema.nonce_key(account, nonce))
