"""Reading back what this cluster acknowledged: from every member's store, after it has stopped.

Nothing that the members say about themselves is believed: the log is read from disk, every
signature in it is verified again, and the accounts that the transfers made are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.systems.base import Checked
from vcp_cluster.cluster.store import Store
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.records import Account, Head, LogLeaf
from vcp_cluster.ledger.transactions import (
    compute_envelope_hash,
    parse_transaction,
    verify_transaction,
)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """A receipt with the code OK, and the records of its transaction: `first` and the following."""

    height: int
    log_index: int
    first: int
    operations: int


def audit_stores(
    stores: Mapping[str, Path],
    acknowledged: Mapping[bytes, Acknowledged],
    recipient: Callable[[int], bytes],
) -> Checked:
    """Check that every member's store holds each acknowledged transaction once, applied and signed.

    `acknowledged` is by transaction id; `recipient(number)` is the account that a record made.
    Raises `BenchmarkFailed`.
    """
    log: list[bytes] = []
    roots: dict[int, bytes] = {}
    for name, path in stores.items():
        store = Store.open(path)
        try:
            log = _audit_log(name, store, acknowledged, log)
            _audit_accounts(name, store, acknowledged, recipient)
            head = store.get(schema.HEAD)
            assert head is not None, "the head is written at height 0"
            stand = decode_stored(Head, head)
            if roots.setdefault(stand.height, stand.state_root) != stand.state_root:
                raise BenchmarkFailed(f"{name} has another state root at height {stand.height}")
        finally:
            store.close()
    return Checked(
        sum(one.operations for one in acknowledged.values()),
        f"every record read back from {len(stores)} members' stores, equal logs and state roots; "
        f"{len(log)} signatures of the log verified again; forgeries refused at every door",
    )


def _audit_log(
    name: str, store: Store, acknowledged: Mapping[bytes, Acknowledged], other: Sequence[bytes]
) -> list[bytes]:
    """Read the whole log and return its leaves.

    `other` are the leaves of a log that was read before: one of the two must begin the other, since
    a member may have applied something after another one stopped. A signature is verified unless
    the same leaf was: a leaf commits to the signed bytes.
    """
    leaves: list[bytes] = []
    seen: set[bytes] = set()
    found = 0
    envelopes = store.iterate(schema.ENVELOPE)
    for (_, value), (_, data) in zip(store.iterate(schema.LOG_LEAF), envelopes, strict=True):
        leaf, index = decode_stored(LogLeaf, value), len(leaves)
        leaves.append(value)
        if leaf.envelope_hash != compute_envelope_hash(data):
            raise BenchmarkFailed(f"{name}: transaction {index} is not what its leaf names")
        if index < len(other) and other[index] != value:
            raise BenchmarkFailed(f"{name}: transaction {index} differs from other members'")
        parsed = parse_transaction(data)
        if index >= len(other) and not verify_transaction(parsed).is_valid:
            raise BenchmarkFailed(f"{name}: transaction {index} has a wrong signature")
        if parsed.tx_id in seen:
            raise BenchmarkFailed(f"{name}: transaction {index} is twice in the log")
        seen.add(parsed.tx_id)
        receipt = acknowledged.get(parsed.tx_id)
        if receipt is not None:
            found += 1
            if (leaf.code, leaf.height, index) != (Code.OK, receipt.height, receipt.log_index):
                raise BenchmarkFailed(f"{name}: transaction {index} differs from its receipt")
    if found != len(acknowledged):
        raise BenchmarkFailed(
            f"{name} lost {len(acknowledged) - found} of {len(acknowledged)} transactions"
        )
    return max(leaves, list(other), key=len)


def _audit_accounts(
    name: str,
    store: Store,
    acknowledged: Mapping[bytes, Acknowledged],
    recipient: Callable[[int], bytes],
) -> None:
    """Each record's account must have received its unit exactly once."""
    for one in acknowledged.values():
        for number in range(one.first, one.first + one.operations):
            data = store.get(schema.ACCOUNT + recipient(number))
            units = 0 if data is None else decode_stored(Account, data).available
            if units != 1:
                raise BenchmarkFailed(f"{name}: record {number} took effect {units} times")
