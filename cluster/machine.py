"""The ledger as the Raft process replicates it: pure transition over the member's store."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from vcp_cluster.cluster.claims import Claims
from vcp_cluster.cluster.raft.machine import View
from vcp_cluster.cluster.store import Store
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.encoding import decode_stored, encode
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.records import Head
from vcp_cluster.ledger.transactions import (
    OPERATIONS_MAX,
    Entry,
    SignatureCheck,
    verify_entry,
    verify_transaction_bytes,
)
from vcp_cluster.ledger.transition import apply, initial_writes, is_due

# As many as can be in flight between admission and apply, and some more.
VERIFIED_MAX = 65_536
_ALL_VALID = SignatureCheck(True, (True,) * OPERATIONS_MAX)


class GenesisMismatch(Exception):
    """The store was made for another genesis than the one the member is started with."""


class LedgerMachine:
    """`raft.machine.StateMachine` of the ledger.

    One entry is one write batch: its changes, the head (height, times, root) and the Raft index
    land together, so that a crash leaves all of an entry or nothing of it, and none is applied
    twice.
    """

    def __init__(self, store: Store, genesis: Genesis) -> None:
        """Raises `GenesisMismatch` when the store is another cluster's; a new one gets the state
        of the genesis."""
        self._chain_id = compute_chain_id(genesis)
        self._store = store
        self._verified: OrderedDict[bytes, None] = OrderedDict()
        self._claims = Claims()
        stored = store.get(schema.GENESIS)
        if stored is None:
            store.initialise(initial_writes(genesis))
        elif stored != encode(genesis):
            raise GenesisMismatch(
                "the store belongs to another cluster than genesis.json. "
                "Next: restore the directory's own genesis.json, or give the member a new directory"
            )
        self._head = self._read_head()

    def _read_head(self) -> Head:
        data = self._store.get(schema.HEAD)
        assert data is not None, "the head is written at height 0"
        return decode_stored(Head, data)

    @property
    def raft_index(self) -> int:
        """Index of the last entry that is in the store."""
        return self._store.raft_index

    @property
    def chain_id(self) -> bytes:
        """Identity of the cluster."""
        return self._chain_id

    @property
    def known_index(self) -> int:
        """Highest index known to have been applied here."""
        return self._store.known_index

    @property
    def durable_index(self) -> int:
        """The store's durable mark."""
        return self._store.durable_index

    @property
    def height(self) -> int:
        """Number of entries applied."""
        return self._head.height

    @property
    def state_root(self) -> bytes:
        """Root at `height`."""
        return self._head.state_root

    @property
    def ledger_time_ms(self) -> int:
        """Ledger time."""
        return self._head.time_ms

    @property
    def view(self) -> View:
        """The store."""
        return self._store

    def apply(self, index: int, entry: bytes) -> list[bytes]:
        """Verify, apply and write one entry; the encoded receipts in order."""
        applied = apply(self._store, entry, verify_entry(entry, self._verify))
        self._store.commit(applied.writes, raft_index=index)
        self._head = applied.head
        return [encode(receipt) for receipt in applied.receipts]

    def _verify(self, transaction: bytes) -> SignatureCheck:
        """A member does not verify twice what its own door admitted."""
        if self._verified.pop(hash_content(transaction), self) is None:
            return _ALL_VALID
        return verify_transaction_bytes(transaction, self._claims.is_true)

    def skip(self, index: int) -> None:
        """Record an index that carries nothing for the ledger."""
        self._store.commit([], raft_index=index)

    def is_due(self, now_ms: int) -> bool:
        """Whether an empty entry at `now_ms` would do something."""
        return is_due(self._store, now_ms)

    def empty_entry(self, time_ms: int) -> bytes:
        """An entry without transactions."""
        return encode(Entry(1, time_ms, ()))

    def pack(self, time_ms: int, transactions: Sequence[bytes]) -> bytes:
        """An entry with transactions that this member's door admitted, all signatures checked.

        They are remembered by the hash of the whole signed transaction: another signature over the
        same envelope is another hash, and is verified.
        """
        for transaction in transactions:
            self._verified[hash_content(transaction)] = None
        while len(self._verified) > VERIFIED_MAX:
            self._verified.popitem(last=False)
        return encode(Entry(1, time_ms, tuple(transactions)))

    def status(self) -> dict[str, Any]:
        """Height, time and root, for `status`."""
        return {
            "height": self._head.height,
            "time_ms": self._head.time_ms,
            "state_root": self._head.state_root,
        }

    def flush(self) -> None:
        """Put the store on the disk."""
        self._store.flush()

    def close(self) -> None:
        """Put the store on the disk and release it."""
        self._store.close()
