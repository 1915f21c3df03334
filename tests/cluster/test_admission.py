"""Admission: what is refused at the door, judged by the state that the member knows."""

from __future__ import annotations

import msgspec
import pytest

from vcp_cluster.cluster.door.admission import Admission, NotCurrent
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import default_anchors
from vcp_cluster.ledger.encoding import decode_stored, encode
from vcp_cluster.ledger.genesis import (
    Allocation,
    Genesis,
    Governance,
    Member,
    compute_chain_id,
    default_parameters,
)
from vcp_cluster.ledger.keys import public_key
from vcp_cluster.ledger.operations import AnyOperation, Transfer
from vcp_cluster.ledger.records import Head
from vcp_cluster.ledger.state import MemoryStore
from vcp_cluster.ledger.transactions import sign_transaction
from vcp_cluster.ledger.transition import initial_writes

from .fake_ledger import asynchronous

SEED = b"client".ljust(32, b"\0")
KEY = public_key(SEED)
START_MS = 1_800_000_000_000
HOUR_MS = 3_600_000


class FakeReader:
    """A member's state at height 0, which may be all it has applied so far."""

    def __init__(self, *, is_current: bool = True) -> None:
        self.genesis = Genesis(
            version=1,
            cluster_name="test",
            created_ms=START_MS,
            governance=Governance(1, (public_key(bytes(32)),)),
            members=(Member("a", "127.0.0.1:7100", public_key(b"a".ljust(32, b"\0"))),),
            parameters=default_parameters((bytes(32),)),
            anchors=default_anchors(),
            allocations=(Allocation(KEY, 1_000),),
        )
        self._store = MemoryStore()
        self._store.commit(initial_writes(self.genesis))
        self._is_current = is_current

    @property
    def height(self) -> int:
        return 0

    @property
    def time_ms(self) -> int:
        return START_MS

    async def get(self, *keys: bytes) -> list[bytes | None]:
        return [self._store.get(key) for key in keys]

    async def scan(
        self,
        prefix: bytes,
        *,
        start: bytes | None = None,
        limit: int = 1000,
        reverse: bool = False,
    ) -> list[tuple[bytes, bytes]]:
        return list(self._store.iterate(prefix))

    async def wait_height(self, above: int, timeout_s: float) -> int:
        return 0

    async def is_current(self) -> bool:
        return self._is_current


def build(reader: FakeReader, now_ms: int, *operations: AnyOperation, seed: bytes = SEED) -> bytes:
    return sign_transaction(
        seed,
        chain_id=compute_chain_id(reader.genesis),
        nonce=1,
        valid_until_ms=now_ms + 60_000,
        operations=operations or (Transfer(KEY, 1),),
    )


@asynchronous
async def test_after_an_idle_hour_a_transaction_is_judged_by_the_clock() -> None:
    """Ledger time stands still while nothing happens; the next entry moves it on."""
    reader, now_ms = FakeReader(), START_MS + HOUR_MS
    head = decode_stored(Head, (await reader.get(schema.HEAD))[0] or b"")
    assert head.time_ms == START_MS
    admission = Admission(reader, now_ms=lambda: now_ms)
    try:
        await admission.admit([build(reader, now_ms)])
        with pytest.raises(Problem, match="validity has ended"):
            await admission.admit([build(reader, START_MS)])
    finally:
        admission.close()


@asynchronous
async def test_who_is_behind_refuses_nobody_for_what_it_may_not_know() -> None:
    stranger = b"stranger".ljust(32, b"\0")
    for is_current, expected in ((True, Problem), (False, NotCurrent)):
        reader = FakeReader(is_current=is_current)
        admission = Admission(reader, now_ms=lambda: START_MS)
        try:
            with pytest.raises(Problem) as raised:
                await admission.admit([build(reader, START_MS, seed=stranger)])
            assert type(raised.value) is expected
            # What no state can make right is refused by anybody.
            good = msgspec.msgpack.decode(build(reader, START_MS))
            bad = encode((good[0], bytes(64), tuple(good[2])))
            with pytest.raises(Problem, match="does not match its key") as raised:
                await admission.admit([bad])
            assert raised.value.status == 422
        finally:
            admission.close()
