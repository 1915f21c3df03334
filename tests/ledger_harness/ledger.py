"""A whole ledger in memory: sign, submit, let time pass; every entry is checked afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ledger_harness import invariants
from ledger_harness.cast import key, make_genesis, seed
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.operations import AnyOperation
from vcp_cluster.ledger.records import AnchorLane
from vcp_cluster.ledger.state import MemoryStore, Overlay, State
from vcp_cluster.ledger.tasks import compute_task_id
from vcp_cluster.ledger.transactions import (
    Entry,
    TransactionReceipt,
    parse_transaction,
    sign_transaction,
    verify_entry,
)
from vcp_cluster.ledger.transition import Applied, apply, initial_writes


class Ledger:
    """The ledger of `cast.make_genesis` over a memory store; `parameters` go to the genesis."""

    def __init__(self, **parameters: Any) -> None:
        self.genesis = make_genesis(**parameters)
        self.chain_id = compute_chain_id(self.genesis)
        self.store = MemoryStore()
        self.store.commit(initial_writes(self.genesis))
        self.now_ms = self.genesis.created_ms
        self.entries: list[bytes] = []
        # When each task ended: the one thing that an index needs and no record holds.
        self.finished_ms: dict[bytes, int] = {}
        # Every backend's lane as the entry before left it: what may change depends on that.
        self.lanes: dict[str, AnchorLane] = {}
        self._nonce = 0
        invariants.check(self)

    @property
    def state(self) -> State:
        """The present state, over a throw-away overlay."""
        return State(Overlay(self.store))

    def transaction(
        self,
        sender: str,
        *operations: AnyOperation,
        nonce: int | None = None,
        valid_ms: int = 60_000,
        signer: str | None = None,
        chain_id: bytes | None = None,
        cosigners: Sequence[str] = (),
    ) -> bytes:
        """A signed transaction, valid for `valid_ms` from now; nonces count up unless given."""
        self._nonce += 1
        return sign_transaction(
            seed(signer or sender),
            chain_id=chain_id or self.chain_id,
            nonce=1_000_000 + self._nonce if nonce is None else nonce,
            valid_until_ms=self.now_ms + valid_ms,
            operations=operations,
            account=key(sender),
            cosigner_seeds=[seed(name) for name in cosigners],
        )

    def try_entry(self, *transactions: bytes, after_ms: int = 1) -> Applied:
        """What an entry would do now; nothing changes, since `apply` is a function."""
        data = encode(Entry(1, self.now_ms + after_ms, transactions))
        return apply(self.store, data, verify_entry(data))

    def entry(self, *transactions: bytes, after_ms: int = 1) -> tuple[TransactionReceipt, ...]:
        """Apply one entry, `after_ms` later than the one before."""
        return self.apply_bytes(encode(Entry(1, self.now_ms + after_ms, transactions))).receipts

    def apply_bytes(self, data: bytes) -> Applied:
        """Apply the bytes of an entry, whatever they are, and check everything."""
        applied = apply(self.store, data, verify_entry(data))
        self.store.commit(applied.writes)
        self.entries.append(data)
        self.now_ms = applied.head.time_ms
        invariants.check_writes(applied.writes)
        invariants.check(self)
        return applied

    def submit(self, sender: str, *operations: AnyOperation, **options: Any) -> Code:
        """One transaction in an entry of its own; the code that it came to."""
        return self.send(self.transaction(sender, *operations, **options))

    def send(self, transaction: bytes) -> Code:
        """The bytes of one transaction in an entry of its own."""
        (receipt,) = self.entry(transaction)
        return Code(receipt.code)

    def submit_task(self, sender: str, operation: AnyOperation) -> bytes:
        """Submit a task that must be accepted; returns its id."""
        transaction = self.transaction(sender, operation)
        code = self.send(transaction)
        assert code is Code.OK, code
        return compute_task_id(parse_transaction(transaction).tx_id, 0)

    def wait(self, duration_ms: int, *, step_ms: int = 1_000) -> None:
        """Let active time pass, in empty entries as an idle leader makes them."""
        while duration_ms > 0:
            self.entry(after_ms=min(step_ms, duration_ms))
            duration_ms -= step_ms
