"""The gRPC client against a peer that is scripted frame by frame."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from vcp_cluster.benchmarks.load.exchange import Answer, Failure
from vcp_cluster.benchmarks.load.grpc import GrpcChannel, message

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
END_STREAM = 1


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    head = len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big")
    return head + payload


class Peer:
    """The server's side of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def greet(self) -> None:
        """Take the preface, the settings and the first window."""
        assert await self._reader.readexactly(len(PREFACE)) == PREFACE
        assert (await self.read())[0] == SETTINGS
        assert (await self.read())[0] == WINDOW_UPDATE

    async def read(self) -> tuple[int, int, int, bytes]:
        """Kind, flags, stream and payload of the next frame."""
        head = await self._reader.readexactly(9)
        payload = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:9], "big"), payload

    async def send(self, *frames: bytes) -> None:
        self._writer.write(b"".join(frames))
        await self._writer.drain()


class Calls:
    """What a channel answered, in the order of its answers."""

    def __init__(self) -> None:
        self.answers: asyncio.Queue[Answer] = asyncio.Queue()

    async def next(self) -> Answer:
        return await asyncio.wait_for(self.answers.get(), 5)


def talk(script: Callable[[GrpcChannel, Peer, Calls], Awaitable[None]]) -> None:
    """Run a script between a channel and a peer."""

    async def run() -> None:
        arrived: asyncio.Queue[Peer] = asyncio.Queue()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            arrived.put_nowait(Peer(reader, writer))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        channel = await GrpcChannel.connect("127.0.0.1", port, "/test.Service/Call")
        peer = await asyncio.wait_for(arrived.get(), 5)
        try:
            await peer.greet()
            await asyncio.wait_for(script(channel, peer, Calls()), 20)
        finally:
            channel.close()
            peer._writer.close()
            await peer._writer.wait_closed()
            server.close()
            await server.wait_closed()

    asyncio.run(run())


def test_a_call_is_headers_and_one_message_and_so_is_its_answer() -> None:
    async def script(channel: GrpcChannel, peer: Peer, calls: Calls) -> None:
        channel.start(message(b"question"), calls.answers.put_nowait)
        kind, _, stream, headers = await peer.read()
        assert (kind, stream) == (HEADERS, 1)
        assert b"/test.Service/Call" in headers and b"application/grpc" in headers
        assert await peer.read() == (DATA, END_STREAM, 1, b"\0\0\0\0\x08question")
        await peer.send(
            frame(HEADERS, 4, 1, b"\x88"),
            frame(DATA, 0, 1, message(b"answer")),
            frame(HEADERS, 4 | END_STREAM, 1, b"\x88"),
        )
        assert await calls.next() == b"answer"

    talk(script)


def test_later_calls_name_their_headers_by_index() -> None:
    async def script(channel: GrpcChannel, peer: Peer, calls: Calls) -> None:
        for stream in (1, 3, 5):
            channel.start(message(b""), calls.answers.put_nowait)
            kind, _, found, headers = await peer.read()
            assert (kind, found) == (HEADERS, stream)
            assert len(headers) == 6 or stream == 1
            assert (await peer.read())[0] == DATA

    talk(script)


def test_an_answer_may_come_byte_by_byte() -> None:
    async def script(channel: GrpcChannel, peer: Peer, calls: Calls) -> None:
        channel.start(message(b"q"), calls.answers.put_nowait)
        whole = frame(DATA, 0, 1, message(b"answer")) + frame(HEADERS, 5, 1, b"\x88")
        for position in range(len(whole)):
            channel.data_received(whole[position : position + 1])
        assert await calls.next() == b"answer"

    talk(script)


def test_messages_wait_for_the_connections_window() -> None:
    async def script(channel: GrpcChannel, peer: Peer, calls: Calls) -> None:
        for _ in range(2):
            channel.start(message(bytes(40_000)), calls.answers.put_nowait)
        received = 0
        while received < 40_005:
            kind, _, stream, payload = await peer.read()
            if kind == DATA:
                assert stream == 1 and len(payload) <= 16_384
                received += len(payload)
        assert (await peer.read())[:3] == (HEADERS, 4, 3)
        await peer.send(frame(PING, 0, 0, b"12345678"))
        # What comes next is the answer to the ping, not the second message.
        assert (await peer.read())[0] == PING
        await peer.send(frame(WINDOW_UPDATE, 0, 0, (40_005).to_bytes(4, "big")))
        assert (await peer.read())[:3] == (DATA, 0, 3)

    talk(script)


def test_settings_and_pings_are_acknowledged() -> None:
    async def script(channel: GrpcChannel, peer: Peer, calls: Calls) -> None:
        await peer.send(frame(SETTINGS, 0, 0, b"\0\4" + (1 << 20).to_bytes(4, "big")))
        assert await peer.read() == (SETTINGS, 1, 0, b"")
        await peer.send(frame(PING, 0, 0, b"12345678"))
        assert await peer.read() == (PING, 1, 0, b"12345678")

    talk(script)


def test_calls_without_a_whole_message_fail_and_may_be_repeated() -> None:
    async def script(channel: GrpcChannel, peer: Peer, calls: Calls) -> None:
        endings = (
            frame(HEADERS, 4 | END_STREAM, 1, b"\x88"),
            frame(DATA, 0, 3, b"\0\0\0\0\x09short") + frame(HEADERS, 5, 3, b"\x88"),
            frame(RST_STREAM, 0, 5, bytes(4)),
            frame(GOAWAY, 0, 0, bytes(8)),
        )
        for ending in endings:
            channel.start(message(b"q"), calls.answers.put_nowait)
            await peer.send(ending)
            answer = await calls.next()
            assert isinstance(answer, Failure) and answer.may_repeat
        channel.start(message(b"q"), calls.answers.put_nowait)
        assert await calls.next() == Failure("the connection was lost", may_repeat=True)

    talk(script)
