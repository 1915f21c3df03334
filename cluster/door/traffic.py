"""Bounds on what requests and answers take: memory of all together, and time of each.

Every route bounds the size of one body. Hundreds of bodies within that bound would still be more
than the machine has, and each could take for ever to arrive or to be read.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vcp_cluster.cluster.door.connections import get_transport
from vcp_cluster.cluster.door.problems import Problem, json_response

BYTES_MAX = 256 << 20
ADDRESS_BYTES_MAX = BYTES_MAX // 2
CHARGE_BYTES_MIN = 64 << 10
"""Less than this is not counted: the number of connections bounds it."""
GRACE_S = 10.0
BYTES_PER_S_MIN = 16 << 10
"""How slowly a body may come or an answer be read, after `GRACE_S`: 128 kbit/s."""
PIECE_BYTES = 64 << 10


class Traffic:
    """ASGI middleware that counts and times the bodies of all requests and answers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._bytes = 0
        self._by_address: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = _Exchange(self, scope, receive, send)
        try:
            await self._app(scope, exchange.receive, exchange.send)
        finally:
            self._release(exchange.address, exchange.charged)

    def charge(self, address: str, size: int) -> bool:
        """Count bytes that are held for an address; False when there is no room for them."""
        if self._bytes + size > BYTES_MAX or self._by_address[address] + size > ADDRESS_BYTES_MAX:
            return False
        self._bytes += size
        self._by_address[address] += size
        return True

    def _release(self, address: str, size: int) -> None:
        self._bytes -= size
        self._by_address[address] -= size
        if self._by_address[address] <= 0:
            del self._by_address[address]


class _Exchange:
    """One request and its answer."""

    def __init__(self, traffic: Traffic, scope: Scope, receive: Receive, send: Send) -> None:
        self.address: str = scope["client"][0] if scope.get("client") else ""
        self.charged = 0
        self._traffic = traffic
        self._transport = get_transport(scope)
        self._receive = receive
        self._send = send
        self._received = 0
        self._waited_s = 0.0
        self._is_received = False
        self._start: Message | None = None

    async def receive(self) -> Message:
        """The next piece of the body. Raises `Problem`: 408 too slow, 429 no room for it."""
        if self._is_received:
            return await self._receive()  # what comes now is the end of the connection
        started_s = time.monotonic()
        left_s = GRACE_S + self._received / BYTES_PER_S_MIN - self._waited_s
        try:
            async with asyncio.timeout(left_s):
                message = await self._receive()
        except TimeoutError:
            self._is_received = True
            raise Problem(
                408,
                "too_slow",
                f"the body came more slowly than {BYTES_PER_S_MIN} bytes/s",
                next_step="send the request again over a faster connection",
            ) from None
        self._waited_s += time.monotonic() - started_s
        self._received += len(message.get("body", b""))
        self._is_received = not message.get("more_body", False)
        self._charge(self._received)
        return message

    def _charge(self, held: int) -> None:
        if held < CHARGE_BYTES_MIN:
            return
        if not self._traffic.charge(self.address, held - self.charged):
            raise Problem(
                429,
                "busy",
                "this member holds as many bytes of requests as it may",
                next_step="send the same request again, here or to another member",
                retry_after_ms=500,
            )
        self.charged = held

    async def send(self, message: Message) -> None:
        """Pass an answer on in pieces; give the connection up when it is not read."""
        if message["type"] == "http.response.start":
            self._start = message
            return
        start, self._start = self._start, None
        body: bytes = message.get("body", b"")
        if start is not None:
            try:
                self._charge(self.charged + len(body))
            except Problem as problem:
                response = json_response(problem.document(), problem.status)
                start = {**start, "status": response.status_code, "headers": response.raw_headers}
                body = bytes(response.body)
                message = {**message, "body": body, "more_body": False}
            await self._send(start)
        if len(body) <= PIECE_BYTES:
            await self._send(message)
            return
        try:
            async with asyncio.timeout(GRACE_S + len(body) / BYTES_PER_S_MIN):
                await self._send_pieces(message, body)
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()
                await asyncio.sleep(0)  # the server learns of it in the loop's next turn

    async def _send_pieces(self, message: Message, body: bytes) -> None:
        last = len(body) - 1 - (len(body) - 1) % PIECE_BYTES
        for begin in range(0, last, PIECE_BYTES):
            piece = body[begin : begin + PIECE_BYTES]
            await self._send({**message, "body": piece, "more_body": True})
        await self._send({**message, "body": body[last:]})
