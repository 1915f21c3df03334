"""The Unix socket: one owner, closed to others, and a bad peer harms only itself."""

import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from pysyncobj.poller import createPoller

from vcp_cluster.cluster.raft.frames import FRAME_BYTES_MAX, FrameError, FrameReader, encode_frame
from vcp_cluster.cluster.raft.server import (
    CONNECTIONS_MAX,
    OUTPUT_BYTES_MAX,
    Connection,
    SocketError,
    SocketServer,
)


class Echo:
    """A server that answers every frame with its body, or with as many bytes as it asks for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.poller = createPoller("auto")
        self.server = SocketServer(path, self.poller, self.answer)

    def answer(self, connection: Connection, body: bytes) -> None:
        match msgspec.msgpack.decode(body):
            case int(size):
                connection.send([bytes(size)])
            case str() as text:
                connection.send([text])
            case _:
                raise FrameError("not for me")

    def turn(self, rounds: int = 4) -> None:
        for _ in range(rounds):
            self.poller.poll(0)
            self.server.flush()

    def connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX)
        peer.settimeout(5)
        peer.connect(str(self.path))
        return peer


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Echo]:
    echo = Echo(tmp_path / "run" / "raft.sock")
    yield echo
    echo.server.close()


def test_directory_and_socket_are_for_the_owner_only(echo: Echo) -> None:
    assert stat.S_IMODE(echo.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(echo.path.stat().st_mode) == 0o600


def test_frames_are_answered_in_order_however_they_arrive(echo: Echo) -> None:
    data = b"".join(encode_frame(text) for text in ("one", "two", "three"))
    with echo.connect() as peer:
        for byte in data:
            peer.sendall(bytes([byte]))
            echo.turn(2)
        expected = b"".join(encode_frame([text]) for text in ("one", "two", "three"))
        assert peer.recv(1000) == expected


@pytest.mark.parametrize(
    "data",
    [
        struct.pack(">I", 0),
        struct.pack(">I", FRAME_BYTES_MAX + 1),
        b"\xff\xff\xff\xff",
        encode_frame(["not for me"]),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
def test_a_malformed_frame_closes_its_connection_only(echo: Echo, data: bytes) -> None:
    with echo.connect() as good, echo.connect() as bad:
        bad.sendall(encode_frame("first") + data)
        echo.turn()
        good.sendall(encode_frame("still here"))
        echo.turn()
        assert good.recv(1000) == encode_frame(["still here"])
        assert b"still" not in bad.recv(1000)
        assert len(echo.server.connections) == 1


def test_a_peer_that_does_not_read_is_closed(echo: Echo) -> None:
    size = 8 << 20
    with echo.connect() as good, echo.connect() as deaf:
        echo.turn(2)
        for _ in range(OUTPUT_BYTES_MAX // size + 1):
            assert len(echo.server.connections) == 2
            deaf.sendall(encode_frame(size))
            echo.turn(3)
        assert len(echo.server.connections) == 1
        good.sendall(encode_frame("still here"))
        echo.turn()
        assert good.recv(1000) == encode_frame(["still here"])


def test_a_slow_peer_gets_everything(echo: Echo) -> None:
    expected = encode_frame([bytes(3 << 20)])
    received = b""
    with echo.connect() as slow:
        slow.sendall(encode_frame(3 << 20))
        while len(received) < len(expected):
            echo.turn()
            received += slow.recv(100_000)
        echo.turn()
        assert received == expected
        (connection,) = echo.server.connections
        assert not connection.is_polled_for_write


def test_connections_above_the_bound_are_closed_at_once(echo: Echo) -> None:
    peers = []
    for _ in range(CONNECTIONS_MAX + 1):
        peers.append(echo.connect())
        echo.turn(1)
    assert peers[-1].recv(1) == b""
    assert len(echo.server.connections) == CONNECTIONS_MAX
    for peer in peers:
        peer.close()
    echo.turn(1)
    assert echo.server.connections == []
    with echo.connect() as again:
        echo.turn(1)
        again.sendall(encode_frame("room"))
        echo.turn()
        assert again.recv(1000) == encode_frame(["room"])


def test_a_live_owner_is_respected(echo: Echo) -> None:
    with pytest.raises(SocketError, match="a running member owns the socket"):
        Echo(echo.path)
    assert echo.path.exists()


def test_what_a_killed_owner_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "raft.sock"
    path.parent.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    echo = Echo(path)
    echo.connect().close()
    echo.server.close()
    assert not path.exists()


def test_what_is_not_a_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "raft.sock"
    path.parent.mkdir(mode=0o700)
    path.write_text("precious")
    with pytest.raises(SocketError, match="is not a socket"):
        Echo(path)
    assert path.read_text() == "precious"


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    os.chmod(tmp_path / "run", 0o750)
    with pytest.raises(SocketError, match="chmod 700"):
        Echo(tmp_path / "run" / "raft.sock")


def test_a_path_too_long_for_the_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SocketError, match="shorter path"):
        Echo(tmp_path / ("long" * 30) / "raft.sock")


def test_a_frame_above_the_bound_is_neither_sent_nor_taken() -> None:
    with pytest.raises(ValueError, match="at most"):
        encode_frame([bytes(FRAME_BYTES_MAX)])
    with pytest.raises(FrameError):
        list(FrameReader().feed(struct.pack(">I", FRAME_BYTES_MAX + 1)))
