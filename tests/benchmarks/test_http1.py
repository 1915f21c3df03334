"""The HTTP/1.1 client against answers that arrive in every form."""

from __future__ import annotations

import asyncio

import pytest

from vcp_cluster.benchmarks.load.exchange import Answer, Failure
from vcp_cluster.benchmarks.load.http1 import Http1, post


def exchange_with(answer: bytes, *, piece: int = 1 << 20, closes: bool = False) -> Answer:
    """What the client makes of an answer that comes in pieces of so many bytes."""

    async def run() -> Answer:
        closed = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"body")
            for start in range(0, len(answer), piece):
                writer.write(answer[start : start + piece])
                await writer.drain()
            if not closes:
                await reader.read()
            writer.close()
            await writer.wait_closed()
            closed.set()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        client = await Http1.connect("127.0.0.1", port)
        result: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        client.start(post("/path", b"body", content_type="text/plain"), result.set_result)
        try:
            return await asyncio.wait_for(result, 5)
        finally:
            client.close()
            await asyncio.wait_for(closed.wait(), 5)
            server.close()
            await server.wait_closed()

    return asyncio.run(run())


OK = b"HTTP/1.1 200 OK\r\nContent-Type: x\r\ncontent-length: 5\r\n\r\nhello"


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_an_answer_in_pieces(piece: int) -> None:
    assert exchange_with(OK, piece=piece) == b"hello"


@pytest.mark.parametrize(("status", "may_repeat"), [(503, True), (429, True), (422, False)])
def test_errors_keep_their_reason(status: int, may_repeat: bool) -> None:
    answer = b"HTTP/1.1 %d No\r\nContent-Length: 4\r\n\r\nwhy?" % status
    assert exchange_with(answer) == Failure(f"{status} why?", may_repeat)


def test_a_lost_connection_may_be_tried_again() -> None:
    answer = exchange_with(OK[:30], closes=True)
    assert isinstance(answer, Failure) and answer.may_repeat


@pytest.mark.parametrize(
    "garbage", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", OK.replace(b": 5", b": -5")]
)
def test_what_is_not_the_api_is_final(garbage: bytes) -> None:
    assert exchange_with(garbage) == Failure("not an answer of the HTTP API", may_repeat=False)


def test_a_request_names_its_length() -> None:
    request = post("/v1/x?y=1", b"12345", content_type="application/msgpack")
    head, _, body = request.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/x?y=1 HTTP/1.1\r\n") and b"Content-Length: 5" in head
    assert body == b"12345"
