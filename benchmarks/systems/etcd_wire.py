"""The few messages of etcd's API that are used, as protobuf for the load and as JSON to read back.

Protobuf (api/etcdserverpb/rpc.proto of etcd 3.5):

    PutRequest   { bytes key = 1; bytes value = 2; }
    TxnRequest   { repeated Compare compare = 1; repeated RequestOp success = 2; }
    RequestOp    { oneof { RangeRequest request_range = 1; PutRequest request_put = 2; } }
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable

import msgspec

from vcp_cluster.benchmarks.load.grpc import message
from vcp_cluster.ledger.keys import hash_content

VALUE_BYTES = 256
RANGE_KEYS = 5_000
_PREFIX = b"b/"
_RANGE_END = b"b0"  # the first key after all that begin with the prefix
_BYTES_1, _BYTES_2 = b"\x0a", b"\x12"  # field 1 or 2, with a length


class EtcdStatus(msgspec.Struct):
    """Where one member stands."""

    is_leader: bool
    applied: int


class KeyValue(msgspec.Struct):
    """A key with its value."""

    key: bytes
    value: bytes


class KeyRange(msgspec.Struct):
    """A page of keys. JSON of protobuf leaves out what is empty."""

    kvs: list[KeyValue] = []
    more: bool = False
    count: int = 0


def key_of(number: int) -> bytes:
    """The key of a record; keys are in the order of numbers."""
    return _PREFIX + b"%016d" % number


def value_of(number: int) -> bytes:
    """The value of a record: 256 bytes that nothing else has."""
    return hash_content(struct.pack("<Q", number)) * (VALUE_BYTES // 32)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(tag: bytes, data: bytes) -> bytes:
    return tag + _varint(len(data)) + data


def _put(number: int) -> bytes:
    return _field(_BYTES_1, key_of(number)) + _field(_BYTES_2, value_of(number))


def put_request(number: int) -> bytes:
    """A put of one record, as gRPC sends it."""
    return message(_put(number))


def transaction_request(numbers: Iterable[int]) -> bytes:
    """One transaction without conditions that puts records, as gRPC sends it."""
    puts = (_field(_BYTES_2, _field(_BYTES_2, _put(number))) for number in numbers)
    return message(b"".join(puts))


def range_query(start: bytes, limit: int) -> bytes:
    """JSON for a page of keys from `start` on; with limit 0 only their number, of this member."""
    query = {
        "key": base64.b64encode(start).decode(),
        "range_end": base64.b64encode(_RANGE_END).decode(),
        **({"limit": limit} if limit else {"count_only": True, "serializable": True}),
    }
    return msgspec.json.encode(query)


def decode_range(body: bytes) -> KeyRange:
    """The answer to `range_query`: numbers are strings in the JSON of protobuf."""
    return msgspec.json.decode(body, type=KeyRange, strict=False)


def decode_status(body: bytes) -> EtcdStatus:
    """The answer of `/v3/maintenance/status`."""
    document = msgspec.json.decode(body)
    leader = document.get("leader", "0")
    return EtcdStatus(
        is_leader=leader == document["header"]["member_id"],
        applied=int(document.get("raftAppliedIndex", 0)),
    )
