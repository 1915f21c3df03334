"""Routes of the member's services: blobs, workers' sessions, and requests between members."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vcp_cluster.cluster.anchors.notary import CosignRefused, NotaryKeeper
from vcp_cluster.cluster.clock import wall_ms
from vcp_cluster.cluster.door.app import (
    decode_json,
    guarded_route,
    read_body,
    read_json,
)
from vcp_cluster.cluster.door.blobs import BlobService
from vcp_cluster.cluster.door.peers import ACCOUNT_HEADER, check_request, read_credentials
from vcp_cluster.cluster.door.problems import Problem, bad_request, json_response, not_found
from vcp_cluster.cluster.door.sessions import PROBE_BYTES, Sessions
from vcp_cluster.cluster.door.submission import FORWARDED_HEADER
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.keys import hash_content

COSIGN_BYTES_MAX = 4_096


class ServiceApi:
    """Handlers in front of the services. One for each door process."""

    def __init__(
        self, genesis: Genesis, blobs: BlobService, sessions: Sessions, notary: NotaryKeeper
    ) -> None:
        parameters = genesis.parameters
        self._genesis = genesis
        self._blobs = blobs
        self._sessions = sessions
        self._notary = notary
        self._blob_bytes_max = max(
            parameters.module_bytes_max, parameters.input_bytes_max, parameters.output_bytes_max
        )

    def routes(self) -> list[Route]:
        """All routes of the services."""
        return [
            guarded_route("/v1/blobs/{id}", self.put_blob, "PUT"),
            guarded_route("/v1/blobs/{id}", self.get_blob, "GET"),
            guarded_route("/v1/nodes/{id}/probe", self.probe, "POST"),
            guarded_route("/v1/nodes/{id}/heartbeat", self.heartbeat, "POST"),
            guarded_route("/v1/nodes/{id}/echo", self.echo, "POST"),
            guarded_route("/v1/member/blobs/{id}", self.receive_blob, "PUT"),
            guarded_route("/v1/member/cosign", self.cosign, "POST"),
        ]

    async def put_blob(self, request: Request) -> Response:
        """Upload a blob; the answer carries the members' attestations."""
        blob = read_identity(request)
        credentials = read_credentials(request.headers, ACCOUNT_HEADER)
        # The length is signed: who may not upload is refused before the body is read.
        size = read_length(request, self._blob_bytes_max)
        await self._blobs.check_uploader(blob, size, credentials)
        data = await read_body(request, self._blob_bytes_max)
        return json_response(await self._blobs.upload(blob, data, credentials))

    async def get_blob(self, request: Request) -> Response:
        """Fetch a blob by its hash."""
        blob = read_identity(request)
        is_forwarded = FORWARDED_HEADER in request.headers
        data = await self._blobs.fetch(blob, is_forwarded=is_forwarded)
        if data is None:
            raise not_found("blob", blob.hex())
        return Response(data, media_type="application/octet-stream")

    async def probe(self, request: Request) -> Response:
        """Measure a worker's upload bandwidth: from the first byte of the body to the last."""
        node = read_identity(request)
        credentials = read_credentials(request.headers, ACCOUNT_HEADER)
        if credentials.key != node:
            raise bad_request("a probe is signed by the node that it measures")
        start = time.monotonic()
        data = await read_body(request, PROBE_BYTES)
        seconds = time.monotonic() - start
        await self._blobs.check_uploader(hash_content(data), len(data), credentials)
        return json_response(await self._sessions.probe(node, len(data), seconds))

    async def heartbeat(self, request: Request) -> Response:
        """A worker's heartbeat; the answer has its assignments."""
        node = read_identity(request)
        return json_response(await self._sessions.heartbeat(node, await read_json(request)))

    async def echo(self, request: Request) -> Response:
        """A worker returns a token: one round trip is measured."""
        node = read_identity(request)
        match await read_json(request):
            case {"echo": str(token)}:
                await self._sessions.echo(node, token)
            case _:
                raise bad_request('the body is {"echo": token}')
        return Response(status_code=204)

    async def receive_blob(self, request: Request) -> Response:
        """Another member pushes a blob."""
        blob = read_identity(request)
        # The path names the content: who is no member is refused before the body is read.
        self._check_member(request, blob)
        data = await read_body(request, self._blob_bytes_max)
        return json_response(await self._blobs.receive(blob, data))

    async def cosign(self, request: Request) -> Response:
        """Another member, which leads, asks for cosignatures of the pending anchor."""
        body = await read_body(request, COSIGN_BYTES_MAX)
        self._check_member(request, hash_content(body))
        match decode_json(body):
            case {"size": int(size)} if 0 < size < 2**32:
                try:
                    batch, transaction = await self._notary.cosign(size)
                except CosignRefused as error:
                    raise Problem(409, "not_ready", str(error)) from None
            case _:
                raise bad_request('the body is {"size": number}')
        return json_response({"batch": batch, "transaction": transaction})

    def _check_member(self, request: Request, body_hash: bytes) -> None:
        """Raise `Problem` 401 unless a member signed a request with this body."""
        check_request(
            request.headers,
            genesis=self._genesis,
            method=request.method,
            path=request.url.path,
            body_hash=body_hash,
            now_ms=wall_ms(),
        )


def read_identity(request: Request) -> bytes:
    """The 32 bytes in the path."""
    text = request.path_params["id"]
    try:
        identity = bytes.fromhex(text)
    except ValueError:
        identity = b""
    if len(identity) != 32 or text != identity.hex():
        raise bad_request("the path needs all 64 lower-case hex digits of the id or hash")
    return identity


def read_length(request: Request, bytes_max: int) -> int:
    """The declared length of the body, which uploads must give."""
    text = request.headers.get("content-length", "")
    if not text.isascii() or not text.isdigit():
        raise bad_request("an upload declares its length", "send a Content-Length header")
    if int(text) > bytes_max:
        raise Problem(413, "too_large", f"a blob has at most {bytes_max} bytes")
    return int(text)
