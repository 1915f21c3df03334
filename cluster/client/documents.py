"""Shapes of the API's documents whose content this side acts on.

Fields that are not named here are ignored, because the API only ever adds. What people merely read
stays a plain dict (`read_document`).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from vcp_cluster.cluster.errors import BadAnswer
from vcp_cluster.ledger.encoding import INTEGER_MAX, Unsigned
from vcp_cluster.ledger.genesis import MEMBERS_MAX, Genesis
from vcp_cluster.ledger.nodes import CAPACITY_MAX
from vcp_cluster.ledger.transactions import Envelope, SignedTransaction, TransactionReceipt

HexHash = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
HexSignature = Annotated[str, Meta(pattern="^[0-9a-f]{128}$")]
Text = Annotated[str, Meta(max_length=2_000)]
Moment = Annotated[datetime, Meta(tz=True)]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


class ErrorBody(msgspec.Struct, frozen=True):
    """Why a request was refused."""

    code: Text
    message: Text
    next: Text = ""
    retry_after_ms: Unsigned | None = None
    index: Unsigned | None = None


class ErrorDocument(msgspec.Struct, frozen=True):
    """The body of every answer that is not a success."""

    error: ErrorBody


class ReceiptBody(msgspec.Struct, frozen=True):
    """What happened to one transaction."""

    tx_id: HexHash
    height: Unsigned
    time: Moment
    log_index: Unsigned
    code_number: Unsigned
    operation: Unsigned


class ReceiptsDocument(msgspec.Struct, frozen=True):
    """Receipts of transactions, in the order in which they were sent."""

    schema: Literal["vcp/receipts/v1"]
    receipts: list[ReceiptBody]


class TransactionDocument(msgspec.Struct, frozen=True):
    """A transaction that the ledger remembers."""

    schema: Literal["vcp/transaction/v1"]
    receipt: ReceiptBody


class MemberDocument(msgspec.Struct, frozen=True):
    """Where one member's ledger stands."""

    schema: Literal["vcp/member/v1"]
    height: Unsigned
    time: Moment


class AttestationBody(msgspec.Struct, frozen=True):
    """A member's word that it holds a blob."""

    member: HexHash
    signature: HexSignature


class BlobDocument(msgspec.Struct, frozen=True):
    """The answer to an upload."""

    schema: Literal["vcp/blob/v1"]
    hash: HexHash
    size: Unsigned
    attestations: Annotated[list[AttestationBody], Meta(max_length=MEMBERS_MAX)]


class AssignmentBody(msgspec.Struct, frozen=True):
    """A task that this node is to run. Bytes, milliseconds, gas units; reward in units."""

    task: HexHash
    attempt: Unsigned
    module_hash: HexHash
    module_size: Unsigned
    entry_point: Annotated[str, Meta(max_length=64)]
    input_hash: HexHash
    input_size: Unsigned
    gas_limit: Unsigned
    memory_bytes_max: Unsigned
    run_ms_max: Unsigned
    output_bytes_max: Unsigned
    deadline_left_ms: Unsigned


class HeartbeatDocument(msgspec.Struct, frozen=True):
    """The answer to a heartbeat. `echo` is to be sent back at once: it measures latency."""

    schema: Literal["vcp/heartbeat/v1"]
    height: Unsigned
    is_online: bool
    echo: Annotated[str, Meta(max_length=200)] | None
    assignments: Annotated[list[AssignmentBody], Meta(max_length=CAPACITY_MAX)]


class NodeDocument(msgspec.Struct, frozen=True):
    """What a worker must know about its own registration."""

    schema: Literal["vcp/node/v1"]
    device: Text
    capacity: Annotated[int, Meta(ge=1, le=CAPACITY_MAX)]


T = TypeVar("T")

# Built here, because msgspec 0.22 gathers what it knows of a struct on first use, and two threads
# that do so at once crash the interpreter. An import happens in one thread. Those at the end are
# read elsewhere, as MessagePack; what was gathered stays with the class.
_DECODERS: dict[Any, msgspec.json.Decoder[Any]] = {
    kind: msgspec.json.Decoder(kind)
    for kind in (
        dict[str, Any],
        BlobDocument,
        ErrorDocument,
        HeartbeatDocument,
        MemberDocument,
        NodeDocument,
        ReceiptsDocument,
        TransactionDocument,
    )
}
for _kind in (Envelope, Genesis, SignedTransaction):
    msgspec.msgpack.Decoder(_kind)


def read_typed(kind: type[T], body: bytes) -> T:
    """Decode a JSON document of a known shape; raise `BadAnswer`."""
    try:
        document: T = _DECODERS[kind].decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadAnswer(f"the answer is not a {kind.__name__}: {error}") from None
    return document


def read_document(body: bytes, schema: str) -> dict[str, Any]:
    """Decode a JSON object with this `schema`; raise `BadAnswer`."""
    document = read_typed(dict[str, Any], body)
    if document.get("schema") != schema:
        found = str(document.get("schema"))[:50]
        raise BadAnswer(f"the answer is not a {schema} but {found!r}")
    return document


def to_milliseconds(moment: datetime) -> int:
    """Unix milliseconds of a time of the API."""
    return max(0, (moment - _EPOCH) // _MILLISECOND)


def to_receipt(body: ReceiptBody) -> TransactionReceipt:
    """The ledger's own record of a receipt."""
    return TransactionReceipt(
        1,
        bytes.fromhex(body.tx_id),
        body.height,
        to_milliseconds(body.time),
        body.log_index,
        body.code_number,
        body.operation,
    )


def get_height(document: dict[str, Any]) -> int:
    """The ledger height that a document states, or 0."""
    height = document.get("height")
    return height if type(height) is int and 0 <= height <= INTEGER_MAX else 0
