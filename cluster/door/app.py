"""The HTTP API of a member: routes, bounds on requests, and errors as documents."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from vcp_cluster.cluster.door import documents
from vcp_cluster.cluster.door.admission import REQUEST_BYTES_MAX
from vcp_cluster.cluster.door.context import Reader
from vcp_cluster.cluster.door.documents import Document
from vcp_cluster.cluster.door.problems import Problem, bad_request, json_response, unavailable
from vcp_cluster.cluster.door.queries import LIST_MAX, Queries
from vcp_cluster.cluster.door.submission import FORWARDED_HEADER, Submission
from vcp_cluster.cluster.errors import (
    InvalidRequest,
    InvalidTransaction,
    NotAuthorised,
    NotFound,
    NotReady,
    Unavailable,
    VcpError,
)
from vcp_cluster.cluster.link import LinkError
from vcp_cluster.ledger.genesis import to_document

BODY_SLACK = 64 * 1024
JSON_BYTES_MAX = 1 << 20
WAIT_MS_MAX = 30_000
LONG_POLL_MS_MAX = 10_000
MIN_HEIGHT_WAIT_S = 5.0
# Each is built in a thread, of the few that blobs and verification need as well.
RECEIPTS_MAX = 2

logger = logging.getLogger(__name__)
Handler = Callable[[Request], Awaitable[Response]]


class Services(Protocol):
    """What the routes call besides reads and submissions. One object of the door process."""

    async def status(self) -> Document:
        """The whole cluster."""
        ...

    async def own_status(self) -> Document:
        """This member alone."""
        ...

    async def is_ready(self) -> bool:
        """Whether this member can serve."""
        ...


async def read_body(request: Request, bytes_max: int) -> bytes:
    """The body, or 413 as soon as it is longer than `bytes_max`."""
    declared = request.headers.get("content-length", "0")
    too_large = Problem(413, "too_large", f"the body is larger than {bytes_max} bytes")
    if not declared.isascii() or not declared.isdigit() or int(declared) > bytes_max:
        raise too_large
    pieces, size = [], 0
    async for piece in request.stream():
        size += len(piece)
        if size > bytes_max:
            raise too_large
        pieces.append(piece)
    return b"".join(pieces)


async def read_json(request: Request, bytes_max: int = JSON_BYTES_MAX) -> Any:
    """The body as JSON."""
    return decode_json(await read_body(request, bytes_max))


def decode_json(body: bytes) -> Any:
    """JSON from outside; raise `Problem` 400."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise bad_request(f"the body is not JSON: {error}") from None


def read_number(request: Request, name: str, default: int, maximum: int) -> int:
    """A query parameter that is a number, 0 to `maximum`."""
    text = request.query_params.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise bad_request(f"{name} is not a number")
    return min(int(text), maximum)


def read_limit(request: Request, default: int) -> int:
    """The query parameter `limit`: how many rows of a list, at least one."""
    return max(1, read_number(request, "limit", default, LIST_MAX))


async def await_height(reader: Reader, request: Request) -> None:
    """Read-your-writes: wait for the height that the client has seen elsewhere."""
    wanted = read_number(request, "min_height", 0, 2**62)
    if wanted > reader.height:
        reached = await reader.wait_height(wanted - 1, MIN_HEIGHT_WAIT_S)
        if reached < wanted:
            raise Problem(
                503,
                "behind",
                f"this member has applied {reached} entries, not {wanted} yet",
                next_step="try again, or another member",
                retry_after_ms=500,
            )


def as_problem(error: Exception) -> Problem:
    """Any error of the library as an answer."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InvalidTransaction):
        return Problem(
            422, error.code.name.lower(), error.message, next_step=error.next_step, index=0
        )
    if isinstance(error, VcpError):
        statuses = (
            (NotFound, 404, "not_found"),
            (NotAuthorised, 401, "unauthorised"),
            (NotReady, 409, "not_ready"),
            (InvalidRequest, 400, "bad_request"),
            (Unavailable, 503, "unavailable"),
        )
        for kind, status, code in statuses:
            if isinstance(error, kind):
                return Problem(status, code, error.message, next_step=error.next_step)
        return Problem(500, "internal", error.message, next_step=error.next_step)
    if isinstance(error, LinkError):
        return unavailable(str(error))
    raise error


class Api:
    """The handlers. Every one either answers or raises; `_guard` turns errors into documents."""

    def __init__(self, queries: Queries, submission: Submission, services: Services) -> None:
        self._queries = queries
        self._submission = submission
        self._services = services
        self._reader = queries.reader
        self._receipts = asyncio.Semaphore(RECEIPTS_MAX)

    def routes(self) -> list[Route]:
        """All routes that read the ledger or submit to it."""
        get = [
            ("/v1/genesis", self.genesis),
            ("/v1/status", self.status),
            ("/v1/member/status", self.member_status),
            ("/v1/accounts/{id}", self.account),
            ("/v1/nodes", self.nodes),
            ("/v1/nodes/{id}", self.node),
            ("/v1/tasks", self.tasks),
            ("/v1/tasks/{id}", self.task),
            ("/v1/proofs/{id}", self.proof),
            ("/v1/batches", self.batches),
            ("/v1/batches/{id}", self.batch),
            ("/v1/receipts/{id}", self.receipt),
            ("/v1/transactions/{id}", self.transaction),
            ("/livez", self.livez),
            ("/readyz", self.readyz),
        ]
        post = [
            ("/v1/transactions", self.submit),
            ("/v1/member/transactions", self.submit_forwarded),
        ]
        return [
            *(guarded_route(path, handler, "GET") for path, handler in get),
            *(guarded_route(path, handler, "POST") for path, handler in post),
        ]

    # --- writes --------------------------------------------------------------------------------

    async def submit(self, request: Request) -> Response:
        """Submit transactions; the receipts in order."""
        receipts = await self._submit(request, is_forwarded=False)
        return json_response(
            {
                "schema": "vcp/receipts/v1",
                "receipts": [documents.receipt(receipt) for receipt in receipts],
            }
        )

    async def submit_forwarded(self, request: Request) -> Response:
        """The same from another member's door: not sent on again, receipts in MessagePack."""
        if FORWARDED_HEADER not in request.headers:
            raise bad_request("this path is for members", "POST to /v1/transactions")
        receipts = await self._submit(request, is_forwarded=True)
        return Response(msgspec.msgpack.encode(receipts))

    async def _submit(self, request: Request, *, is_forwarded: bool) -> list[Any]:
        body = await read_body(request, REQUEST_BYTES_MAX * 2 + BODY_SLACK)
        transactions = _decode_transactions(request, body)
        wait_ms = read_number(request, "wait_ms", 10_000, WAIT_MS_MAX)
        return await self._submission.submit(
            transactions, wait_s=max(wait_ms, 1) / 1000, is_forwarded=is_forwarded
        )

    # --- reads ---------------------------------------------------------------------------------

    async def _await_height(self, request: Request) -> None:
        await await_height(self._reader, request)

    async def genesis(self, request: Request) -> Response:
        """The genesis document."""
        return json_response(to_document(self._reader.genesis))

    async def status(self, request: Request) -> Response:
        """The whole cluster."""
        return json_response(await self._services.status())

    async def member_status(self, request: Request) -> Response:
        """This member alone."""
        return json_response(await self._services.own_status())

    async def account(self, request: Request) -> Response:
        """One account."""
        await self._await_height(request)
        return json_response(await self._queries.account(request.path_params["id"]))

    async def nodes(self, request: Request) -> Response:
        """Compute nodes."""
        await self._await_height(request)
        return json_response(await self._queries.nodes(read_limit(request, 100)))

    async def node(self, request: Request) -> Response:
        """One compute node."""
        await self._await_height(request)
        return json_response(await self._queries.node(request.path_params["id"]))

    async def tasks(self, request: Request) -> Response:
        """Tasks, newest first."""
        await self._await_height(request)
        client = request.query_params.get("client")
        return json_response(await self._queries.tasks(read_limit(request, 50), client))

    async def task(self, request: Request) -> Response:
        """One task; with `after_height` and `wait_ms` as soon as the ledger has moved on."""
        await self._await_height(request)
        wait_ms = read_number(request, "wait_ms", 0, LONG_POLL_MS_MAX)
        after = read_number(request, "after_height", 0, 2**62)
        if wait_ms:
            await self._reader.wait_height(after, wait_ms / 1000)
        return json_response(await self._queries.task(request.path_params["id"]))

    async def proof(self, request: Request) -> Response:
        """One proof."""
        await self._await_height(request)
        return json_response(await self._queries.proof(request.path_params["id"]))

    async def batches(self, request: Request) -> Response:
        """Batches, newest first."""
        await self._await_height(request)
        return json_response(await self._queries.batches())

    async def batch(self, request: Request) -> Response:
        """One batch."""
        await self._await_height(request)
        return json_response(await self._queries.batch(request.path_params["id"]))

    async def receipt(self, request: Request) -> Response:
        """A task's settlement receipt, as the file."""
        await self._await_height(request)
        async with self._receipts:
            text = await self._queries.receipt(request.path_params["id"])
        return PlainTextResponse(text)

    async def transaction(self, request: Request) -> Response:
        """One transaction."""
        await self._await_height(request)
        return json_response(await self._queries.transaction(request.path_params["id"]))

    async def livez(self, request: Request) -> Response:
        """Whether the process answers."""
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """Whether the member can serve."""
        if not await self._services.is_ready():
            raise unavailable("no leader is known, or this member is behind")
        return PlainTextResponse("ok\n")


def _decode_transactions(request: Request, body: bytes) -> list[bytes]:
    """MessagePack array of bin, or JSON `{"transactions": [base64, …]}`."""
    try:
        if request.headers.get("content-type", "").startswith("application/json"):
            document = msgspec.json.decode(body, type=dict[str, list[str]])
            return [base64.b64decode(text, validate=True) for text in document["transactions"]]
        return msgspec.msgpack.decode(body, type=list[bytes])
    except (msgspec.MsgspecError, KeyError, binascii.Error, UnicodeDecodeError) as error:
        raise bad_request(f"the body is not a list of transactions: {error}") from None


def guarded_route(path: str, handler: Handler, method: str) -> Route:
    """A route whose errors become documents; a defect becomes 500 and a line in the log."""

    async def guarded(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:
            return Response(status_code=499)
        except (Problem, VcpError, LinkError) as error:
            problem = as_problem(error)
        except Exception:
            logger.exception("defect in %s %s", method, path)
            problem = Problem(500, "internal", "a defect in this member; its log has the details")
        return json_response(problem.document(), problem.status)

    return Route(path, guarded, methods=[method])


async def _not_found(request: Request, error: Exception) -> Response:
    problem = Problem(
        404, "not_found", f"no such path: {request.url.path}", next_step="see docs/http-api.md"
    )
    return json_response(problem.document(), 404)


async def _wrong_method(request: Request, error: Exception) -> Response:
    problem = Problem(
        405,
        "bad_request",
        f"{request.method} is not for {request.url.path}",
        next_step="see docs/http-api.md",
    )
    return json_response(problem.document(), 405)


def build_app(routes: list[Route]) -> Starlette:
    """The ASGI application."""
    return Starlette(routes=routes, exception_handlers={404: _not_found, 405: _wrong_method})
