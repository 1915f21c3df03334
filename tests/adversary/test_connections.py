"""A stranger with sockets: what cannot be held open, filled up or drawn out for ever."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import Response

from vcp_cluster.cluster.door import connections, traffic
from vcp_cluster.cluster.door.app import build_app, guarded_route, read_body
from vcp_cluster.cluster.door.connections import BoundedProtocol
from vcp_cluster.cluster.door.traffic import Traffic

Scenario = Callable[["Server"], Awaitable[None]]

HELD = 1 << 20


class Server:
    """A door with two routes: one reads a body, one answers with 16 MiB."""

    def __init__(self, port: int, app: Traffic) -> None:
        self.port = port
        self.app = app
        self._writers: list[asyncio.StreamWriter] = []

    async def close(self) -> None:
        """Close all connections."""
        for writer in self._writers:
            writer.close()
        endings = (writer.wait_closed() for writer in self._writers)
        await asyncio.gather(*endings, return_exceptions=True)

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that says nothing yet."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers.append(writer)
        return reader, writer

    async def put(
        self, size: int, sent: bytes
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Begin an upload of `size` bytes and send some of them."""
        reader, writer = await self.connect()
        writer.write(f"PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        writer.write(sent)
        await writer.drain()
        return reader, writer


async def echo_length(request: Request) -> Response:
    """Read a body."""
    return Response(str(len(await read_body(request, 16 << 20))))


async def answer_much(request: Request) -> Response:
    """An answer that fills every buffer of a connection."""
    return Response(bytes(16 << 20))


@asynccontextmanager
async def serving() -> AsyncIterator[Server]:
    """The server on a free port, with nothing left open at the end."""
    app = Traffic(
        build_app(
            [guarded_route("/body", echo_length, "PUT"), guarded_route("/much", answer_much, "GET")]
        )
    )
    config = uvicorn.Config(
        app, http=BoundedProtocol, ws="none", port=0, log_config=None, lifespan="off"
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    place = Server(server.servers[0].sockets[0].getsockname()[1], app)
    try:
        yield place
    finally:
        await place.close()
        server.should_exit = server.force_exit = True
        await running


def run(scenario: Scenario) -> None:
    """Run a scenario against a server; what hangs fails."""

    async def bounded() -> None:
        async with asyncio.timeout(20), serving() as server:
            await scenario(server)

    asyncio.run(bounded())


async def read_head(reader: asyncio.StreamReader) -> int:
    """The status of the answer."""
    return int((await reader.readline()).split()[1])


async def read_code(reader: asyncio.StreamReader) -> tuple[int, str]:
    """Status and code of an error."""
    status = await read_head(reader)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split()[0])
    return status, json.loads(await reader.readexactly(length))["error"]["code"]


async def is_closed(reader: asyncio.StreamReader) -> bool:
    """Read to the end of the connection."""
    with suppress(ConnectionResetError):
        await reader.read(-1)
    return True


@pytest.mark.parametrize(
    "opening",
    [b"", b"GET /much HTT", b"PUT /body HTTP/1.1\r\nHost: x\r\nX-Slow: "],
    ids=["nothing", "half a line", "half a head"],
)
def test_who_never_asks_is_cut_off(opening: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "CHECK_S", 0.05)

    async def scenario(server: Server) -> None:
        reader, writer = await server.connect()
        writer.write(opening)
        assert await is_closed(reader)

    run(scenario)


def test_a_head_that_never_ends_after_a_good_request_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "CHECK_S", 0.05)

    async def scenario(server: Server) -> None:
        reader, writer = await server.put(4, b"good")
        assert await read_head(reader) == 200
        writer.write(b"PUT /body HTTP/1.1\r\nHost")
        assert await is_closed(reader)

    run(scenario)


def test_who_waits_for_an_answer_or_for_the_next_request_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connections, "CHECK_S", 0.02)

    async def scenario(server: Server) -> None:
        reader, writer = await server.put(4, b"go")
        await asyncio.sleep(0.2)  # ten checks, in the middle of a request
        writer.write(b"od")
        assert await read_head(reader) == 200
        await reader.readuntil(b"\r\n\r\n4")
        await asyncio.sleep(0.2)  # and as many between two
        writer.write(b"PUT /body HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        assert await read_head(reader) == 200

    run(scenario)


def test_one_address_cannot_take_every_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "ADDRESS_CONNECTIONS_MAX", 2)
    monkeypatch.setattr(connections, "_is_loopback", lambda address: False)

    async def scenario(server: Server) -> None:
        held = [await server.put(4, b"good") for _ in range(2)]
        assert [await read_head(reader) for reader, _ in held] == [200, 200]
        reader, _ = await server.connect()
        assert await is_closed(reader)
        held[0][1].close()
        while BoundedProtocol._by_address["127.0.0.1"] > 1:
            await asyncio.sleep(0.001)
        reader, _ = await server.put(4, b"good")
        assert await read_head(reader) == 200

    run(scenario)


def test_a_body_that_trickles_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "GRACE_S", 0.2)

    async def scenario(server: Server) -> None:
        reader, _ = await server.put(100, b"x")
        assert await read_code(reader) == (408, "too_slow")

    run(scenario)


def test_all_bodies_together_are_bounded_and_room_comes_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(traffic, "BYTES_MAX", 2 * HELD)
    monkeypatch.setattr(traffic, "ADDRESS_BYTES_MAX", 2 * HELD)

    async def scenario(server: Server) -> None:
        held = [await server.put(HELD + 1, bytes(HELD)) for _ in range(2)]
        while server.app._bytes < 2 * HELD:
            await asyncio.sleep(0.001)
        reader, writer = await server.put(HELD, bytes(HELD))
        assert await read_code(reader) == (429, "busy")
        for _, writer in held:
            writer.write(b"x")
        # A byte more than there is room for: the first is turned away, which makes room for the other.
        assert sorted([await read_head(reader) for reader, _ in held]) == [200, 429]
        while server.app._bytes > 0:
            await asyncio.sleep(0.001)
        reader, writer = await server.put(HELD, bytes(HELD))
        assert await read_head(reader) == 200

    run(scenario)


def test_an_answer_that_nobody_reads_does_not_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "GRACE_S", 0.2)
    monkeypatch.setattr(traffic, "BYTES_PER_S_MIN", 1 << 30)

    async def scenario(server: Server) -> None:
        _, writer = await server.connect()
        writer.write(b"GET /much HTTP/1.1\r\nHost: x\r\n\r\n")
        while server.app._bytes == 0:
            await asyncio.sleep(0.001)
        while server.app._bytes > 0:
            await asyncio.sleep(0.001)

    run(scenario)


def test_a_large_answer_arrives_whole_and_is_refused_when_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(server: Server) -> None:
        for room, status in ((32 << 20, 200), (1 << 20, 429)):
            monkeypatch.setattr(traffic, "ADDRESS_BYTES_MAX", room)
            reader, writer = await server.connect()
            writer.write(b"GET /much HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert await read_head(reader) == status
            _, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
            assert len(body) == 16 << 20 if status == 200 else b'"busy"' in body

    run(scenario)
