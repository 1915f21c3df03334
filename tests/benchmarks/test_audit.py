"""The audit of members' stores finds what a run may lose, repeat or forge."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest

from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.systems import cluster
from vcp_cluster.benchmarks.systems.audit import Acknowledged, audit_stores
from vcp_cluster.cluster import raft
from vcp_cluster.cluster.directory import ClientDirectory, initialise
from vcp_cluster.cluster.machine import LedgerMachine
from vcp_cluster.cluster.store import Store
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.encoding import decode_stored, encode
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.operations import Transfer
from vcp_cluster.ledger.records import Account, Head, LogLeaf
from vcp_cluster.ledger.transactions import (
    TransactionReceipt,
    compute_envelope_hash,
    sign_transaction,
)

TIME_MS = 1_700_000_000_000


def recipient(number: int) -> bytes:
    return hash_content(b"recipient" + number.to_bytes(8, "big"))


@dataclass
class Run:
    """Two members' stores with three transactions of two records each, all acknowledged."""

    stores: dict[str, Path]
    acknowledged: dict[bytes, Acknowledged]

    def audit(self) -> None:
        audit_stores(self.stores, self.acknowledged, recipient)

    def spoil(self, name: str, change: Callable[[Store], list[tuple[bytes, bytes | None]]]) -> None:
        """Write into a member's store what its ledger would never write."""
        store = Store.open(self.stores[name])
        store.commit(change(store), raft_index=store.raft_index + 1)
        store.close()


@pytest.fixture
def run(tmp_path: Path) -> Run:
    genesis = initialise(
        tmp_path / "c", [("a", "127.0.0.1", 7100)], cluster_name="audit", created_ms=TIME_MS
    )
    seed = ClientDirectory.load(tmp_path / "c" / "client").seed
    transactions = [
        sign_transaction(
            seed,
            chain_id=compute_chain_id(genesis),
            nonce=number,
            valid_until_ms=TIME_MS + 60_000,
            operations=[Transfer(recipient(2 * number + one), 1) for one in range(2)],
        )
        for number in range(3)
    ]
    stores = {name: tmp_path / name for name in ("a", "b")}
    acknowledged = {}
    for path in stores.values():
        machine = LedgerMachine(Store.open(path), genesis)
        machine.skip(1)
        receipts = machine.apply(2, machine.pack(TIME_MS + 1, transactions))
        machine.close()
        for number, data in enumerate(receipts):
            receipt = decode_stored(TransactionReceipt, data)
            acknowledged[receipt.tx_id] = Acknowledged(
                receipt.height, receipt.log_index, 2 * number, 2
            )
    return Run(stores, acknowledged)


def test_what_was_acknowledged_is_found(run: Run) -> None:
    checked = audit_stores(run.stores, run.acknowledged, recipient)
    assert checked.records == 6
    assert "2 members' stores" in checked.text and "3 signatures" in checked.text
    assert checked.faults == ()


def test_a_lost_transaction(run: Run) -> None:
    run.acknowledged[bytes(32)] = Acknowledged(1, 9, 0, 1)
    with pytest.raises(BenchmarkFailed, match="a lost 1 of 4 transactions"):
        run.audit()


def test_a_receipt_that_says_something_else(run: Run) -> None:
    tx_id, receipt = next(iter(run.acknowledged.items()))
    run.acknowledged[tx_id] = replace(receipt, height=receipt.height + 1)
    with pytest.raises(BenchmarkFailed, match="differs from its receipt"):
        run.audit()


def test_a_record_without_effect(run: Run) -> None:
    tx_id, receipt = next(iter(run.acknowledged.items()))
    run.acknowledged[tx_id] = replace(receipt, first=100)
    with pytest.raises(BenchmarkFailed, match="record 100 took effect 0 times"):
        run.audit()


def test_a_record_with_two_effects(run: Run) -> None:
    def double(store: Store) -> list[tuple[bytes, bytes | None]]:
        key = schema.ACCOUNT + recipient(0)
        data = store.get(key)
        assert data is not None
        account = decode_stored(Account, data)
        return [(key, encode(msgspec.structs.replace(account, available=2)))]

    run.spoil("b", double)
    with pytest.raises(BenchmarkFailed, match="b: record 0 took effect 2 times"):
        run.audit()


def test_another_state_root(run: Run) -> None:
    def change(store: Store) -> list[tuple[bytes, bytes | None]]:
        data = store.get(schema.HEAD)
        assert data is not None
        head = decode_stored(Head, data)
        return [(schema.HEAD, data.replace(head.state_root, bytes(32)))]

    run.spoil("b", change)
    with pytest.raises(BenchmarkFailed, match="b has another state root"):
        run.audit()


def _forge(store: Store) -> list[tuple[bytes, bytes | None]]:
    """A transaction whose signature is of other bytes, with a leaf that fits it."""
    rows = list(store.iterate(schema.ENVELOPE))
    key, data = rows[0]
    forged = bytearray(data)
    forged[-2] ^= 1
    leaf_key = schema.LOG_LEAF + key[len(schema.ENVELOPE) :]
    leaf_data = store.get(leaf_key)
    assert leaf_data is not None
    leaf = decode_stored(LogLeaf, leaf_data)
    leaf_data = leaf_data.replace(leaf.envelope_hash, compute_envelope_hash(bytes(forged)))
    return [(key, bytes(forged)), (leaf_key, leaf_data)]


def test_a_forged_signature(run: Run) -> None:
    run.spoil("a", _forge)
    with pytest.raises(BenchmarkFailed, match="a: transaction 0 has a wrong signature"):
        run.audit()


def test_logs_that_differ(run: Run) -> None:
    run.spoil("b", _forge)
    with pytest.raises(BenchmarkFailed, match="b: transaction 0 differs from other members'"):
        run.audit()


def test_bytes_that_a_leaf_does_not_name(run: Run) -> None:
    run.spoil("b", lambda store: _forge(store)[:1])
    with pytest.raises(BenchmarkFailed, match="b: transaction 0 is not what its leaf names"):
        run.audit()


def test_a_transaction_that_is_twice_in_the_log(run: Run) -> None:
    def repeat(store: Store) -> list[tuple[bytes, bytes | None]]:
        envelopes = list(store.iterate(schema.ENVELOPE))
        leaves = list(store.iterate(schema.LOG_LEAF))
        index = schema.u64(len(leaves))
        return [
            (schema.LOG_LEAF + index, leaves[0][1]),
            (schema.ENVELOPE + index, envelopes[0][1]),
        ]

    run.spoil("a", repeat)
    with pytest.raises(BenchmarkFailed, match="a: transaction 3 is twice in the log"):
        run.audit()


def test_the_promise_of_a_sync_is_that_of_the_journal() -> None:
    """Whoever makes the journal sync, or not, must say so to readers of the benchmarks."""
    sources = (
        Path(raft.__file__).parent.glob("**/journal*/*.py"),
        Path(raft.__file__).parent.glob("journal*.py"),
    )
    text = "".join(path.read_text() for paths in sources for path in paths)
    assert text, "the journal is where it was"
    assert ("fdatasync(" in text) == cluster.FSYNC
