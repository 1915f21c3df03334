"""A peer made by hand: what somebody who reaches a member's Raft port could send."""

from __future__ import annotations

import socket
import ssl
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vcp_cluster.cluster.raft.transport.messages import (
    LENGTH_BYTES,
    PROTOCOL_VERSION,
    Hello,
    Message,
    decode_message,
    encode_frame,
    frame_length,
)

from .raft_toy import TOY_CHAIN_ID

PATIENCE_S = 10.0


def dial(address: str) -> socket.socket:
    """A plain connection."""
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE_S)


def client_context(tls_file: bytes | None) -> ssl.SSLContext:
    """TLS with the key and certificate of a `tls.pem`; it believes every server."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls_file is not None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "tls.pem"
            path.write_bytes(tls_file)
            context.load_cert_chain(path)
    return context


class Peer:
    """A TLS connection to a member."""

    def __init__(self, stream: ssl.SSLSocket) -> None:
        self.stream = stream

    def hello(
        self, name: str, *, version: int = PROTOCOL_VERSION, chain_id: bytes = TOY_CHAIN_ID
    ) -> None:
        self.send(Hello(version, chain_id, name))

    def send(self, message: Message) -> None:
        self.stream.sendall(encode_frame(message))

    def receive(self) -> Message:
        """The next message; raises EOFError when the member has closed the connection."""
        return decode_message(self._exactly(frame_length(self._exactly(LENGTH_BYTES))))

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                more = self.stream.recv(count - len(data))
            except (ssl.SSLError, ConnectionError):
                more = b""
            if not more:
                raise EOFError
            data += more
        return data

    def is_closed_by_member(self) -> bool:
        """Read until the member closes; False when it says nothing more for `PATIENCE_S`."""
        try:
            while True:
                self.receive()
        except EOFError:
            return True
        except TimeoutError:
            return False


@contextmanager
def connect(address: str, tls_file: bytes | None) -> Iterator[Peer]:
    """A TLS connection with some certificate; the handshake is done as far as this side knows."""
    with (
        dial(address) as raw,
        client_context(tls_file).wrap_socket(raw, server_hostname="x") as stream,
    ):
        yield Peer(stream)
