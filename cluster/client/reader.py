"""The reading half of the client: documents of the API, as of the newest height seen."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx2

from vcp_cluster.cluster.client.documents import get_height, read_document, read_typed
from vcp_cluster.cluster.client.endpoints import parse_endpoints
from vcp_cluster.cluster.client.link import Link, Request
from vcp_cluster.cluster.errors import BadAnswer, InvalidRequest
from vcp_cluster.ledger.genesis import Genesis, GenesisInvalid, compute_chain_id, from_document

RECEIPT_BYTES_MAX = 1 << 20
POLL_MS_MAX = 10_000
BEHIND_S_MAX = 5.0
"""How long a member waits for the height that a read asks for."""

Document = dict[str, Any]


class Reader:
    """Reads from one cluster, without a key.

    Every read waits until the member has applied the greatest height that this object has seen, so
    that it never goes back in time when it changes from one member to another.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        genesis: Genesis | None,
        timeout_s: float,
        transport: httpx2.BaseTransport | None,
    ) -> None:
        self._link = Link(parse_endpoints(endpoints), transport=transport)
        self._genesis = genesis
        self._timeout_s = timeout_s
        self._height = 0
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close all connections."""
        self._link.close()

    def interrupt(self) -> None:
        """End the retries of other threads' calls for good: they raise what they last met."""
        self._link.interrupt()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def genesis(self) -> Genesis:
        """The cluster's genesis; fetched once when it was not given."""
        if self._genesis is None:
            request = Request(method="GET", path="/v1/genesis")
            genesis = self._link.request(request, _read_genesis, deadline=self._deadline(None))
            with self._lock:
                self._genesis = self._genesis or genesis
        return self._genesis

    @property
    def chain_id(self) -> bytes:
        """16 bytes, recomputed from the genesis."""
        return compute_chain_id(self.genesis)

    @property
    def height(self) -> int:
        """The greatest ledger height that this client has seen."""
        return self._height

    def task(self, task: str | bytes) -> Document:
        """One task (`vcp/task/v1`), by id or unique prefix."""
        return self._get_task(task, None, 0, self._deadline(None))

    def tasks(self, *, limit: int = 50, client: str | None = None) -> Document:
        """The newest tasks (`vcp/tasks/v1`), of one account if `client` is given."""
        params = {"limit": str(limit)} | ({} if client is None else {"client": client})
        return self._read("/v1/tasks", "vcp/tasks/v1", params)

    def _get_task(
        self, task: str | bytes, after_height: int | None, wait_ms: int, deadline: float
    ) -> Document:
        params = {}
        if after_height is not None:
            wait_ms = min(wait_ms, POLL_MS_MAX)
            params = {"after_height": str(after_height), "wait_ms": str(wait_ms)}
        return self._read(
            f"/v1/tasks/{_id(task)}", "vcp/task/v1", params, deadline, wait_s=wait_ms / 1000
        )

    def status(self) -> Document:
        """The cluster, its members and its money (`vcp/status/v1`)."""
        return self._read("/v1/status", "vcp/status/v1")

    def account(self, account: str | bytes) -> Document:
        """An account (`vcp/account/v1`)."""
        return self._read(f"/v1/accounts/{_id(account)}", "vcp/account/v1")

    def nodes(self, *, limit: int = 100) -> Document:
        """Compute nodes (`vcp/nodes/v1`)."""
        return self._read("/v1/nodes", "vcp/nodes/v1", {"limit": str(limit)})

    def node(self, node: str | bytes) -> Document:
        """One compute node (`vcp/node/v1`)."""
        return self._read(f"/v1/nodes/{_id(node)}", "vcp/node/v1")

    def proof(self, proof: str | bytes) -> Document:
        """A proof with its verdicts (`vcp/proof/v1`)."""
        return self._read(f"/v1/proofs/{_id(proof)}", "vcp/proof/v1")

    def batches(self) -> Document:
        """The open batch and the sealed ones (`vcp/batches/v1`)."""
        return self._read("/v1/batches", "vcp/batches/v1")

    def batch(self, number: int) -> Document:
        """One sealed batch (`vcp/batch/v1`)."""
        return self._read(f"/v1/batches/{number:d}", "vcp/batch/v1")

    def anchors(self, *, limit: int = 100) -> Document:
        """Every anchor backend and its newest anchors (`vcp/anchors/v1`)."""
        return self._read("/v1/anchors", "vcp/anchors/v1", {"limit": str(limit)})

    def anchor(self, backend: str, size: int) -> Document:
        """One anchor with its variants (`vcp/anchor/v1`)."""
        if not backend.isascii() or not backend.isalnum():
            raise InvalidRequest(
                f"{backend[:20]!r} is not an anchor's name", next_step="see `anchor status`"
            )
        return self._read(f"/v1/anchors/{backend}/{size:d}", "vcp/anchor/v1")

    def transaction(self, tx_id: str | bytes) -> Document:
        """A transaction and its receipt (`vcp/transaction/v1`)."""
        return self._read(f"/v1/transactions/{_id(tx_id)}", "vcp/transaction/v1")

    def receipt(self, task: str | bytes) -> str:
        """The settlement receipt of a task; raises `NotReady` until it is anchored."""
        request = Request(
            method="GET",
            path=f"/v1/receipts/{_id(task)}",
            params=self._min_height(),
            wait_s=BEHIND_S_MAX,
            answer_bytes_max=RECEIPT_BYTES_MAX,
        )
        return self._link.request(request, _read_text, deadline=self._deadline(None))

    def _read(
        self,
        path: str,
        schema: str,
        params: dict[str, str] | None = None,
        deadline: float | None = None,
        *,
        wait_s: float = 0.0,
    ) -> Document:
        request = Request(
            method="GET",
            path=path,
            params=(params or {}) | self._min_height(),
            wait_s=wait_s + BEHIND_S_MAX,
        )
        document = self._link.request(
            request,
            lambda body: read_document(body, schema),
            deadline=self._deadline(None) if deadline is None else deadline,
        )
        self._observe(get_height(document))
        return document

    def _min_height(self) -> dict[str, str]:
        return {"min_height": str(self._height)} if self._height else {}

    def _observe(self, height: int) -> None:
        with self._lock:
            self._height = max(self._height, height)

    def _deadline(self, timeout_s: float | None) -> float:
        return time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)


def to_identity(value: str | bytes) -> bytes:
    """A full id, key or hash as 32 bytes; raises `InvalidRequest`."""
    try:
        identity = bytes.fromhex(value) if isinstance(value, str) else value
    except ValueError:
        identity = b""
    if len(identity) != 32:
        raise InvalidRequest(
            f"{shorten(value)!r} is not a full id", next_step="give all 64 hex digits"
        )
    return identity


def _id(value: str | bytes) -> str:
    """An id or prefix for a path; raises `InvalidRequest` for what is none."""
    text = value.hex() if isinstance(value, bytes) else value.lower()
    if not text or len(text) > 64 or not set(text) <= set("0123456789abcdef"):
        raise InvalidRequest(
            f"{shorten(value)!r} is not an id", next_step="give hex digits, 4 to 64 of them"
        )
    return text


def shorten(value: str | bytes) -> str:
    """An id as it is shown in messages."""
    return (value.hex() if isinstance(value, bytes) else value)[:12]


def _read_text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise BadAnswer("the answer is not text") from None


def _read_genesis(body: bytes) -> Genesis:
    try:
        return from_document(read_typed(dict[str, Any], body))
    except GenesisInvalid as error:
        raise BadAnswer(f"the endpoint's genesis is not valid: {error}") from None
