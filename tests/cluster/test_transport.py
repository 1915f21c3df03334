"""The parts of the transport, and two transports in one process: messages, bounds, slow peers."""

from __future__ import annotations

import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pysyncobj.node import TCPNode
from pysyncobj.poller import createPoller

from vcp_cluster.cluster.certificates import make_authority, to_pem, utc_now
from vcp_cluster.cluster.config_files import replace_file
from vcp_cluster.cluster.raft.engine import SEND_BYTES_MAX
from vcp_cluster.cluster.raft.transport import transport as transport_module
from vcp_cluster.cluster.raft.transport.addresses import Resolver
from vcp_cluster.cluster.raft.transport.channel import DEAD_AFTER_MS, explain
from vcp_cluster.cluster.raft.transport.log import KINDS_MAX, WINDOW_S, RationedLog
from vcp_cluster.cluster.raft.transport.messages import (
    COMMAND_BYTES_MAX,
    FRAME_BYTES_MAX,
    PIECE_BYTES,
    Append,
    Hello,
    MessageError,
    Ping,
    decode_message,
    encode_message,
    to_library,
)
from vcp_cluster.cluster.raft.transport.security import Security
from vcp_cluster.cluster.raft.transport.transport import (
    FEED_BYTES_MAX,
    QUEUE_BYTES_MAX,
    MemberTransport,
)

from .raft_cluster import Cluster
from .raft_peer import Peer, client_context, dial
from .raft_toy import TOY_CHAIN_ID, toy_credentials

PATIENCE_S = 15.0
pack = msgspec.msgpack.encode


# Messages


def append(*commands: bytes, previous: int | None = 5) -> dict[str, Any]:
    first = (previous or 0) + 1
    return {
        "type": "append_entries",
        "term": 7,
        "commit_index": 4,
        "prevLogIdx": previous,
        "prevLogTerm": None if previous is None else 6,
        "entries": [(command, index, 7) for index, command in enumerate(commands, first)],
    }


def bodies(message: dict[str, Any]) -> list[bytes]:
    frames = list(encode_message(message))
    assert all(int.from_bytes(frame[:4], "big") == len(frame) - 4 for frame in frames)
    return [frame[4:] for frame in frames]


@pytest.mark.parametrize(
    "message",
    [
        append(),
        append(b"\0a", b"\0b"),
        append(previous=None),
        {"type": "request_vote", "term": 1, "last_log_index": 2, "last_log_term": 1},
        {"type": "response_vote", "term": 2**63 - 1},
        {
            "type": "next_node_idx",
            "term": 3,
            "next_node_idx": 9,
            "reset": False,
            "success": True,
        },
    ],
)
def test_a_message_arrives_as_it_was_sent(message: dict[str, Any]) -> None:
    (body,) = bodies(message)
    received = decode_message(body)
    assert not isinstance(received, Hello | Ping)
    assert to_library(received) == message


def test_a_request_for_a_snapshot_becomes_a_sign_of_life() -> None:
    """The library asks for one that does not exist; the follower says where its log ends."""
    message = {"type": "append_entries", "term": 7, "commit_index": 4, "serialized": None}
    (body,) = bodies(message)
    received = decode_message(body)
    assert isinstance(received, Append)
    assert to_library(received) == append(previous=None)


def test_many_entries_are_sent_in_pieces_that_each_stand_alone() -> None:
    commands = [bytes([0, n % 256]) * 5_000 for n in range(200)]
    message = append(*commands)
    pieces = [to_library(decode_message(body)) for body in bodies(message)]  # type: ignore[arg-type]
    assert len(pieces) > 2_000_000 // PIECE_BYTES
    assert [entry for piece in pieces for entry in piece["entries"]] == message["entries"]
    for before, piece in pairwise(pieces):
        assert piece["prevLogIdx"] == before["entries"][-1][1]
        assert piece["prevLogTerm"] == before["entries"][-1][2]
        assert sum(len(command) for command, _, _ in piece["entries"]) <= PIECE_BYTES


def test_the_largest_entry_fits_a_frame_and_a_larger_one_does_not() -> None:
    (body,) = bodies(append(bytes(COMMAND_BYTES_MAX)))
    assert len(body) <= FRAME_BYTES_MAX
    decode_message(body)
    with pytest.raises(MessageError):
        decode_message(bodies(append(bytes(COMMAND_BYTES_MAX + 1)))[0])
    with pytest.raises(ValueError, match="a message of"):
        list(encode_message(append(bytes(FRAME_BYTES_MAX))))


def test_the_library_never_cuts_an_entry() -> None:
    assert COMMAND_BYTES_MAX < SEND_BYTES_MAX
    for fields in ({"transmission": "start", "data": b""}, {"serialized": (b"", True, True)}):
        with pytest.raises(ValueError, match="cut"):
            list(encode_message({**append(), **fields}))
    for kind in ("apply_command", "timeout_now"):
        with pytest.raises(ValueError, match="is not sent"):
            list(encode_message({"type": kind}))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xc1",
        b"\x80",
        b"\x91" * 5_000,
        pack([]),
        pack([6]),
        pack([-1]),
        pack(["0"]),
        pack({"term": 1}),
        pack([1, 1]),
        pack([5]),
        pack([5, -1]),
        pack([5, 2**63]),
        pack([5, 1.0]),
        pack([5, True]),
        pack([5, 1, 1]),
        pack([4, 1, 1]),
        pack([3, 1, 1, 0, 1]),
        pack([3, 1, 1, None, True]),
        pack([2, 1, 1, 1, 1]),
        pack([2, 1, 1, 1, 1, [b"x"]]),
        pack([2, 1, 1, 1, 1, [[1, b""]]]),
        pack([2, 1, 1, 1, 1, [[1, "x"]]]),
        pack([2, 1, 1, 1, 1, [[1, 1, b"x"]]]),
        pack([2, 1, 1, "1", 1, []]),
        pack([2, 1, 1, 0, 1, []]),
        pack([2, 1, 1, None, None, [[1, b"x"]]]),
        pack([2, 1, 1, 1, None, []]),
        pack([0, 1, bytes(15), "a"]),
        pack([0, 1, bytes(16), "a" * 65]),
        b"\x94\x00\x01\xc4\x10" + bytes(16) + b"\xa1\xff",
        pack([5, 1]) + b"\0",
        b"cposix\nsystem\n(S'true'\ntR.",
    ],
)
def test_anything_else_is_no_message(body: bytes) -> None:
    with pytest.raises(MessageError):
        message = decode_message(body)
        assert not isinstance(message, Hello | Ping)
        to_library(message)


# Log lines and names


def test_strangers_cannot_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    rationed = RationedLog(logging.getLogger("test"))
    for _ in range(500):
        rationed.report("one", "a stranger", 100.0)
    assert caplog.messages == ["a stranger"]
    rationed.flush(100.0 + WINDOW_S)
    assert caplog.messages == ["a stranger", "a stranger (and 499 more like it)"]
    rationed.report("one", "a stranger", 101.0 + WINDOW_S)
    assert len(caplog.messages) == 3
    for number in range(10 * KINDS_MAX):
        rationed.report(f"kind {number}", "x", 102.0 + WINDOW_S)
    assert len(caplog.messages) == 2 + KINDS_MAX
    rationed.report("later", "later", 102.0 + 2 * WINDOW_S)
    assert caplog.messages[-1] == "later"


def test_a_name_is_looked_up_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = Resolver()
    assert resolver.lookup("127.0.0.1:7100") == (socket.AF_INET, ("127.0.0.1", 7100))
    assert resolver.lookup("[::1]:7100") == (socket.AF_INET6, ("::1", 7100, 0, 0))

    def look(address: str) -> Any:
        deadline = time.monotonic() + PATIENCE_S
        while (found := resolver.lookup(address)) is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return found

    assert look("localhost:7100")[1][1] == 7100

    def fail(*_: object, **__: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match=r"cannot look up nowhere\.invalid:7100"):
        look("nowhere.invalid:7100")


# Two transports in one process


class Engine:
    """What a transport needs of the library's engine."""

    def __init__(self) -> None:
        self._poller = createPoller("auto")
        self.tick_callbacks: list[Callable[[], None]] = []

    def addOnTickCallback(self, callback: Callable[[], None]) -> None:
        self.tick_callbacks.append(callback)

    def tick(self) -> None:
        for callback in self.tick_callbacks:
            callback()
        self._poller.poll(0.005)


class End:
    """A transport, and what it told the library."""

    def __init__(self, cluster: Cluster, name: str) -> None:
        cluster.certify(name)
        self.engine = Engine()
        self.nodes = {other: TCPNode(cluster.members[other]) for other in cluster.members}
        self.security = Security(toy_credentials(cluster.root, name, cluster.members))
        others = [node for other, node in self.nodes.items() if other != name]
        self.transport = MemberTransport(
            self.engine, self.nodes[name], others, security=self.security
        )
        self.connected: list[str] = []
        self.received: list[dict[str, Any]] = []
        names = {address: other for other, address in cluster.members.items()}
        self.transport.setOnNodeConnectedCallback(
            lambda node: self.connected.append(names[node.id])
        )
        self.transport.setOnNodeDisconnectedCallback(
            lambda node: self.connected.remove(names[node.id])
        )
        self.transport.setOnMessageReceivedCallback(
            lambda _node, message: self.received.append(message)
        )
        self.transport.tryGetReady()

    def send(self, name: str, message: dict[str, Any]) -> bool:
        return self.transport.send(self.nodes[name], message)


class Net:
    """Members of one cluster that run in this process."""

    def __init__(self, root: Path) -> None:
        self.cluster = Cluster(root, "abc")
        self.ends: dict[str, End] = {}

    def start(self, *names: str) -> list[End]:
        for name in names:
            self.ends[name] = End(self.cluster, name)
        return [self.ends[name] for name in names]

    def run_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "waited in vain"
            for end in self.ends.values():
                end.engine.tick()

    @contextmanager
    def peer(self, name: str, member: str) -> Iterator[Peer]:
        """A connection to `member` with the certificate of `name`, both of which say hello."""
        context = client_context(self.cluster.tls_file(name))
        with dial(self.cluster.members[member]) as raw:
            raw.setblocking(False)
            stream = context.wrap_socket(raw, server_hostname="x", do_handshake_on_connect=False)

            def shake() -> bool:
                try:
                    stream.do_handshake()
                except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                    return False
                return True

            self.run_until(shake)
            stream.setblocking(True)
            stream.settimeout(PATIENCE_S)
            peer = Peer(stream)
            peer.hello(name)
            self.run_until(lambda: name in self.ends[member].connected)
            with stream:
                yield peer


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    net = Net(tmp_path)
    yield net
    for end in net.ends.values():
        end.transport.destroy()


def test_two_members_connect_once_and_talk_both_ways(net: Net) -> None:
    one, two = net.start("a", "b")
    net.run_until(lambda: one.connected == ["b"] and two.connected == ["a"])
    vote = {"type": "response_vote", "term": 3}
    large = append(*(bytes([0, number]) * (1 << 20) for number in range(3)))
    assert one.send("b", large) and one.send("b", vote) and two.send("a", vote)
    net.run_until(lambda: len(two.received) == 4 and len(one.received) == 1)
    assert [entry for each in two.received[:3] for entry in each["entries"]] == large["entries"]
    assert (two.received[3], one.received) == (vote, [vote])
    assert not one.send("c", vote)


def test_a_member_that_ends_is_lost_and_found_again(net: Net) -> None:
    one, two = net.start("a", "b")
    net.run_until(lambda: one.connected == ["b"] and two.connected == ["a"])
    two.transport.destroy()
    del net.ends["b"]
    net.run_until(lambda: one.connected == [])
    (again,) = net.start("b")
    net.run_until(lambda: one.connected == ["b"] and again.connected == ["a"])


def test_idle_members_stay_connected(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "PING_AFTER_S", 0.1)
    monkeypatch.setattr(transport_module, "SILENCE_S_MAX", 0.5)
    one, two = net.start("a", "b")
    net.run_until(lambda: one.connected == ["b"] and two.connected == ["a"])
    (channel,) = one.transport._open.values()
    age_s = channel.timers.age_s
    net.run_until(lambda: channel.timers.age_s > age_s + 1.5)
    assert not channel.is_closed and one.received == two.received == []


def test_a_silent_peer_is_noticed(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport_module, "SILENCE_S_MAX", 0.5)
    (member,) = net.start("b")
    with net.peer("a", "b"):
        net.run_until(lambda: member.connected == [])
    assert "it said nothing for" in caplog.text


def test_silence_that_is_our_own_is_not_held_against_peers(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member that was stopped for a minute reads first what came meanwhile."""
    one, two = net.start("a", "b")
    net.run_until(lambda: one.connected == ["b"] and two.connected == ["a"])
    (channel,) = one.transport._open.values()
    real = time.monotonic
    monkeypatch.setattr(transport_module.time, "monotonic", lambda: real() + 60)
    net.run_until(lambda: one.transport._checked_s > real() + 59)
    assert not channel.is_closed


def test_a_peer_that_does_not_read_is_fed_no_more_and_dropped(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(transport_module, "STALL_S_MAX", 0.5)
    (member,) = net.start("b")
    node = member.nodes["a"]
    with net.peer("a", "b") as peer:
        (channel,) = member.transport._open.values()
        size = 0
        message = append(bytes(1 << 20))
        # Fill what the kernel takes, and then the queue; the peer says something all the time.
        while not channel.is_closed:
            if not member.transport.is_full(node):
                member.send("a", message)
            size = max(size, channel.queued_bytes)
            peer.send(Ping())
            member.engine.tick()
        assert FEED_BYTES_MAX <= size <= FEED_BYTES_MAX + (1 << 20) + 1024
        assert member.connected == [] and not member.send("a", message)
    assert "it read nothing for" in caplog.text


def test_answers_that_nobody_reads_are_bounded_too(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    (member,) = net.start("b")
    with net.peer("a", "b"):
        (channel,) = member.transport._open.values()
        message = append(bytes(2 << 20))
        for _ in range(QUEUE_BYTES_MAX // (2 << 20) + 1):
            member.send("a", message)
        net.run_until(lambda: channel.is_closed)
        assert channel.queued_bytes == 0 and member.connected == []
    assert "it does not read" in caplog.text


def test_a_peer_that_reads_again_is_fed_again(net: Net) -> None:
    (member,) = net.start("b")
    node = member.nodes["a"]
    with net.peer("a", "b") as peer:
        while not member.transport.is_full(node):
            member.send("a", append(bytes(1 << 20)))
        assert not member.transport.take_has_room_again()
        assert isinstance(peer.receive(), Hello)
        peer.stream.setblocking(False)

        def read() -> bool:
            try:
                while peer.stream.recv(1 << 20):
                    pass
            except ssl.SSLWantReadError:
                pass
            return member.transport.take_has_room_again()

        net.run_until(read)
        assert not member.transport.is_full(node) and not member.transport.take_has_room_again()


def test_a_member_that_connects_again_replaces_its_old_connection(
    net: Net, caplog: pytest.LogCaptureFixture
) -> None:
    (member,) = net.start("b")
    with net.peer("a", "b"):
        (old,) = member.transport._open.values()
        with net.peer("a", "b"):
            net.run_until(lambda: old.is_closed)
            assert member.connected == ["a"]
    assert "it connected again" in caplog.text


def test_a_new_certificate_is_used_without_a_restart(
    net: Net, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    one, two = net.start("a", "b")
    net.run_until(lambda: one.connected == ["b"] and two.connected == ["a"])
    path, before = net.cluster.root / "a" / "tls.pem", one.security.certificate
    replace_file(path, b"not a certificate", 0o600)
    net.run_until(lambda: "went on with the certificate of before" in caplog.text)
    assert one.security.certificate == before and one.connected == ["b"]
    replace_file(path, net.cluster.tls_file("a"), 0o600)
    net.run_until(lambda: one.security.certificate != before)
    assert one.connected == ["b"], "the connection that stands goes on"
    (old,) = two.transport._open.values()
    assert old.certificate == before
    two.transport._drop(old, "the test ended it")
    assert two.connected == []
    net.run_until(lambda: bool(two.connected))
    (new,) = two.transport._open.values()
    assert new.certificate == one.security.certificate


def test_two_members_whose_certificates_are_of_two_cas_talk(net: Net) -> None:
    """As they do while the CA is being replaced."""
    old = net.cluster.authority
    new = make_authority(TOY_CHAIN_ID, b"\7" * 32, now=utc_now())
    both = to_pem(old.certificate) + to_pem(new.certificate)
    for name, authority in (("a", old), ("b", new)):
        net.cluster.authority = authority
        net.cluster.certify(name)
        replace_file(net.cluster.root / name / "ca.crt", both, 0o644)
    one, two = net.start("a", "b")
    net.run_until(lambda: one.connected == ["b"] and two.connected == ["a"])


def test_the_kernel_gives_up_on_dead_machines_as_soon_as_we_do() -> None:
    assert DEAD_AFTER_MS == transport_module.SILENCE_S_MAX * 1000


def test_reasons_are_words() -> None:
    assert explain(ConnectionResetError(104, "x")) == "connection reset by peer"
    assert explain(ssl.SSLEOFError(8, "x")) == "it closed the connection"
    assert explain(OSError("odd")) == "odd"
