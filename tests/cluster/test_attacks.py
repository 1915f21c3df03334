"""Who reaches the Raft ports without being a member: nothing gets in, and the cluster goes on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle  # noqa: TID251  # what an attacker of the library would send
import resource
import signal
import socket
import ssl
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pysyncobj
import pysyncobj.journal
import pysyncobj.pickle
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vcp_cluster.cluster.certificate_files import load_tls
from vcp_cluster.cluster.certificates import (
    Authority,
    MemberIdentity,
    issue_certificate,
    make_authority,
    make_request,
    private_to_pem,
    to_pem,
    utc_now,
)
from vcp_cluster.cluster.config_files import replace_file
from vcp_cluster.cluster.link import LinkError, NotLeader, Unknown
from vcp_cluster.cluster.raft import engine
from vcp_cluster.cluster.raft.transport.messages import (
    FRAME_BYTES_MAX,
    HELLO_BYTES_MAX,
    Append,
    Appended,
    Campaign,
    Hello,
    Ping,
    Vote,
)
from vcp_cluster.cluster.raft.transport.transport import ADMISSION_S_MAX, STRANGERS_MAX
from vcp_cluster.ledger.keys import public_key

from .raft_cluster import Cluster, running_cluster, until
from .raft_peer import Peer, client_context, connect, dial
from .raft_toy import TOY_CHAIN_ID, toy_identity, toy_seed

pytestmark = pytest.mark.cluster

ATTACKER_SEED = bytes(31) + b"\x66"
CONNECTIONS = 500
PATIENCE_S = 15.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Members a and b run; c exists in name, and the tests speak for it."""
    with running_cluster(tmp_path_factory.mktemp("attacked"), "abc", start="ab") as cluster:
        asyncio.run(cluster.leader())
        yield cluster


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def wait_for_line(cluster: Cluster, name: str, words: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while words not in cluster.log(name):
        assert time.monotonic() < deadline, f"{words!r} is not in:\n{cluster.log(name)}"
        time.sleep(0.02)


def assert_commits(cluster: Cluster) -> None:
    async def write() -> None:
        async with cluster.link(await cluster.leader()) as link:
            await link.submit([os.urandom(16)], 10)

    asyncio.run(write())
    for name, process in cluster.processes.items():
        assert process.poll() is None, cluster.log(name)


def certify(
    authority: Authority, identity: MemberIdentity, seed: bytes, *, ago: timedelta = timedelta()
) -> bytes:
    """A `tls.pem` for whoever, valid for 5 days from a while ago."""
    key = Ed25519PrivateKey.generate()
    request = make_request(identity, seed, key)
    certificate = issue_certificate(authority, identity, request, now=utc_now() - ago, days=5)
    return private_to_pem(key) + to_pem(certificate)


# Certificates that are not believed


def impostors(cluster: Cluster) -> dict[str, tuple[bytes | None, str]]:
    """Certificates, and what the member says of each."""
    c = toy_identity("c", cluster.members["c"])
    attacker_key = public_key(ATTACKER_SEED)
    other = make_authority(TOY_CHAIN_ID, ATTACKER_SEED, now=utc_now())
    own = cluster.authority
    self_made = MemberIdentity(c.chain_id, c.name, c.address, attacker_key)
    other_chain = MemberIdentity(b"another cluster!", c.name, c.address, c.key)
    unknown = MemberIdentity(c.chain_id, "z", c.address, attacker_key)
    elsewhere = MemberIdentity(c.chain_id, "c", "10.9.9.9:7100", c.key)
    return {
        "none": (None, "it has no certificate"),
        "other ca": (certify(other, c, toy_seed("c")), "is not of this cluster's CA"),
        "expired": (
            certify(own, c, toy_seed("c"), ago=timedelta(days=6)),
            "its certificate has expired",
        ),
        "not yet": (
            certify(own, c, toy_seed("c"), ago=timedelta(days=-6)),
            "its certificate is not valid yet",
        ),
        "by the ca alone": (
            certify(own, self_made, ATTACKER_SEED),
            "its TLS key is not signed by the key that genesis has for member c",
        ),
        "other cluster": (
            certify(own, other_chain, toy_seed("c")),
            "it is of another cluster",
        ),
        "no member": (certify(own, unknown, ATTACKER_SEED), "there is no member 'z'"),
        "elsewhere": (certify(own, elsewhere, toy_seed("c")), "it does not name 127.0.0.1"),
        "own": (cluster.tls_file("a"), "its certificate is our own"),
    }


@pytest.mark.parametrize(
    "kind",
    [
        "none",
        "other ca",
        "expired",
        "not yet",
        "by the ca alone",
        "other cluster",
        "no member",
        "elsewhere",
        "own",
    ],
)
def test_a_wrong_certificate_is_refused_with_a_line(cluster: Cluster, kind: str) -> None:
    tls_file, line = impostors(cluster)[kind]
    refusals = contextlib.suppress(ssl.SSLError, ConnectionError)
    with refusals, connect(cluster.members["a"], tls_file) as peer:
        assert peer.is_closed_by_member()
    wait_for_line(cluster, "a", line)
    assert_commits(cluster)


def test_an_older_tls_is_refused(cluster: Cluster) -> None:
    context = client_context(cluster.tls_file("c"))
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with dial(cluster.members["a"]) as raw, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(raw, server_hostname="x")
    wait_for_line(cluster, "a", "it does not speak TLS 1.3 (unsupported_protocol)")


class Exploit:
    """What the library, as shipped, would run on arrival."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("false",)


def library_frame(message: object) -> bytes:
    """A message as the library's own transport sends it."""
    data = zlib.compress(pickle.dumps(message))
    return struct.pack("i", len(data)) + data


@pytest.mark.parametrize(
    "data",
    [
        b"GET /v1/status HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:7100 HTTP/1.1\r\n\r\n",
        b"\0" * 64,
        b"\xff" * 4096,
        struct.pack(">I", 2**31) + b"x" * 100,
        library_frame("readonly"),
        library_frame(Exploit()),
        os.urandom(65_536),
        b"\x16\x03\x01\x40\x00" + b"\x01" * 16_384,
        b"\x16\x03\x03\x00\x04\x0e\x00\x00\x00",
    ],
)
def test_what_is_not_tls_is_refused_at_once(cluster: Cluster, data: bytes) -> None:
    with dial(cluster.members["a"]) as raw:
        raw.sendall(data)
        with contextlib.suppress(ConnectionError):
            while raw.recv(4096):
                pass
    assert_commits(cluster)


# Connections with a member's certificate that do not behave


@contextlib.contextmanager
def as_member_c(cluster: Cluster, member: str = "a") -> Iterator[Peer]:
    """Connected to a member as c, hello said by both."""
    with connect(cluster.members[member], cluster.tls_file("c")) as peer:
        hello = peer.receive()
        assert isinstance(hello, Hello) and hello.name == member
        peer.hello("c")
        yield peer


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"name": "b"}, "it calls itself 'b' with the certificate of c"),
        ({"name": "c", "version": 2}, "it speaks version 2 of the protocol, this member 1"),
        ({"name": "c", "chain_id": bytes(16)}, "it is of another cluster, 0000"),
    ],
)
def test_a_wrong_hello_is_refused(cluster: Cluster, fields: dict[str, Any], line: str) -> None:
    with connect(cluster.members["a"], cluster.tls_file("c")) as peer:
        peer.hello(**fields)
        assert peer.is_closed_by_member()
    wait_for_line(cluster, "a", line)


def test_nothing_is_taken_before_the_hello(cluster: Cluster) -> None:
    with connect(cluster.members["a"], cluster.tls_file("c")) as peer:
        peer.send(Campaign(10**6, 10**6, 10**6))
        assert peer.is_closed_by_member()
    wait_for_line(cluster, "a", "it did not begin with a hello")
    with connect(cluster.members["a"], cluster.tls_file("c")) as peer:
        peer.stream.sendall(struct.pack(">I", HELLO_BYTES_MAX + 1))
        assert peer.is_closed_by_member()
    wait_for_line(
        cluster, "a", f"a frame of {HELLO_BYTES_MAX + 1} bytes, at most {HELLO_BYTES_MAX}"
    )
    assert_commits(cluster)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (struct.pack(">I", FRAME_BYTES_MAX + 1), "announced a frame of"),
        (struct.pack(">I", 2**32 - 1), "announced a frame of 4294967295 bytes"),
        (struct.pack(">I", 0), "announced a frame of 0 bytes"),
        (struct.pack(">I", 2) + b"\x91\x09", "it sent something that is no message"),
        (struct.pack(">I", 5) + b"\xff" * 5, "it sent something that is no message"),
    ],
)
def test_a_member_that_sends_rubbish_is_cut_off(cluster: Cluster, data: bytes, line: str) -> None:
    with as_member_c(cluster) as peer:
        peer.send(Ping())
        peer.stream.sendall(data)
        assert peer.is_closed_by_member()
    wait_for_line(cluster, "a", line)
    assert_commits(cluster)


def test_half_a_frame_is_waited_for_and_forgotten(cluster: Cluster) -> None:
    with as_member_c(cluster) as peer:
        peer.stream.sendall(struct.pack(">I", 1_000_000) + b"x" * 500_000)
        assert_commits(cluster)
    assert_commits(cluster)


def test_stale_and_invented_acknowledgements_commit_nothing(tmp_path: Path) -> None:
    """The leader is alone with a "member" that acknowledges what it never got."""

    async def scenario(cluster: Cluster) -> None:
        leader = await cluster.leader()
        async with cluster.link(leader) as link:
            await link.submit([b"with a majority"], 10)
            status = await link.status()
            term, last = status["term"], status["commit_index"]
            cluster.kill(*(name for name in "ab" if name != leader))
            submission = asyncio.create_task(link.submit([b"alone"], 1.0))
            with as_member_c(cluster, leader) as peer:
                for _ in range(20):
                    peer.send(Appended(term - 1, last + 2, False, True))
                    peer.send(Appended(term, last + 1_000, False, True))
                    peer.send(Vote(term))
                    peer.send(Append(term - 1, 10**6, last, term, [(term - 1, b"\0stale")]))
                    await asyncio.sleep(0.05)
                with pytest.raises((Unknown, NotLeader)):
                    await submission
            assert (await link.status())["height"] == status["height"]
            assert (await cluster.applied(leader, [b"alone"])) == [0]

    with running_cluster(tmp_path, "abc", start="ab") as cluster:
        asyncio.run(scenario(cluster))


def test_a_vote_counts_once(tmp_path: Path) -> None:
    """Two of five is no majority, however often the second says so."""

    async def scenario(cluster: Cluster) -> None:
        async with cluster.link("a") as link:
            with as_member_c(cluster) as peer:
                campaigns = 0
                while campaigns < 2:
                    message = peer.receive()
                    assert not isinstance(message, Append), "it leads"
                    if isinstance(message, Campaign):
                        campaigns += 1
                        for _ in range(4):
                            peer.send(Vote(message.term))
                        peer.send(Ping())
                assert (await link.status())["role"] == "candidate"

    with running_cluster(tmp_path, "abcde", start="a") as cluster:
        asyncio.run(scenario(cluster))


# Many, slow and for ever


def rss_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise AssertionError("no VmRSS")


def test_five_hundred_connections_stop_nothing(tmp_path: Path) -> None:
    """Some say nothing, some say it slowly; meanwhile a member is killed and comes back."""
    written = 0

    async def write(cluster: Cluster, done: asyncio.Event) -> None:
        nonlocal written
        while not done.is_set():
            with contextlib.suppress(LinkError):
                async with cluster.link(await cluster.leader()) as link:
                    while not done.is_set():
                        await link.submit([os.urandom(16)], 5)
                        written += 1

    async def progress() -> None:
        target = written + 50

        async def look() -> bool | None:
            return written >= target or None

        await until(look)

    async def attack(cluster: Cluster, held: contextlib.ExitStack) -> list[socket.socket]:
        sockets = []
        for number in range(CONNECTIONS):
            peer = held.enter_context(socket.socket())
            peer.setblocking(False)
            host, _, port = cluster.members["a" if number % 2 else "b"].rpartition(":")
            peer.connect_ex((host, int(port)))
            sockets.append(peer)
            if number % 50 == 0:
                await asyncio.sleep(0)
        return sockets

    async def drip(sockets: list[socket.socket], done: asyncio.Event) -> None:
        """One byte of a hello at a time on each connection."""
        record = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
        for number in range(len(record)):
            for peer in sockets:
                with contextlib.suppress(OSError):
                    peer.send(record[number : number + 1])
            await asyncio.sleep(0.05)
            if done.is_set():
                return

    async def scenario(cluster: Cluster) -> None:
        done = asyncio.Event()
        await cluster.leader()
        before = {name: rss_kib(process.pid) for name, process in cluster.processes.items()}
        writer = asyncio.create_task(write(cluster, done))
        await progress()
        with contextlib.ExitStack() as held:
            sockets = await attack(cluster, held)
            dripping = asyncio.create_task(drip(sockets, done))
            await progress()
            cluster.kill("c")
            cluster.start("c")
            await progress()
            async with cluster.link("c") as link:

                async def is_connected() -> bool | None:
                    peers = (await link.status())["peers"]
                    return all(peer["connected"] for peer in peers) or None

                await until(is_connected)
            for name in "ab":
                descriptors = len(list(Path(f"/proc/{cluster.processes[name].pid}/fd").iterdir()))
                assert descriptors < STRANGERS_MAX + 60
                assert rss_kib(cluster.processes[name].pid) < before[name] + (64 << 10)
            done.set()
            await asyncio.gather(writer, dripping)
        await cluster.same_state()

    with running_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))
        log = cluster.log("a")
        assert f"more than {STRANGERS_MAX} connections without an identity" in log
        assert len(log.splitlines()) < 100, "strangers fill the log"


def test_who_says_nothing_is_shown_out(cluster: Cluster) -> None:
    started = time.monotonic()
    with dial(cluster.members["a"]) as raw:
        assert raw.recv(1) == b""
    with connect(cluster.members["a"], cluster.tls_file("c")) as peer:
        assert peer.is_closed_by_member()
    assert time.monotonic() - started < 2 * (ADMISSION_S_MAX + 2)
    wait_for_line(cluster, "a", f"it did not say who it is within {ADMISSION_S_MAX:.0f} s")
    assert_commits(cluster)


def test_a_member_without_a_free_descriptor_takes_connections_again(cluster: Cluster) -> None:
    process = cluster.processes["a"]
    used = len(list(Path(f"/proc/{process.pid}/fd").iterdir()))
    before = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (used, before[1]))
    try:
        with dial(cluster.members["a"]):
            wait_for_line(cluster, "a", "cannot take connections: too many open files")
    finally:
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, before)
    with as_member_c(cluster) as peer:
        peer.send(Ping())
    assert_commits(cluster)


# Members that hang, certificates that end


def test_a_stopped_follower_is_dropped_and_catches_up(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster) -> None:
        leader = await cluster.leader()
        stopped = next(name for name in cluster.members if name != leader)
        os.kill(cluster.processes[stopped].pid, signal.SIGSTOP)
        async with cluster.link(leader) as link:
            before = rss_kib(cluster.processes[leader].pid)
            size = 0
            large = [os.urandom(60_000) for _ in range(8)]

            async def dropped() -> bool | None:
                nonlocal size
                await link.submit([os.urandom(8) + each for each in large], 10)
                size += 8 * 60_000
                line = f"lost member {stopped} at"
                return line in cluster.log(leader) or None

            await until(dropped)
            grown = rss_kib(cluster.processes[leader].pid) - before
            # The journal keeps every entry in memory, once; what waits for the peer is bounded.
            assert grown < 2 * size // 1024 + (48 << 10), (grown, size)
        os.kill(cluster.processes[stopped].pid, signal.SIGCONT)
        await cluster.same_state()

    with running_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))


def test_an_expired_certificate_ends_links_and_a_new_one_brings_them_back(tmp_path: Path) -> None:
    """No member is restarted. c's certificate ends a few seconds after the start."""
    with running_cluster(tmp_path, start="ab") as cluster:
        asyncio.run(cluster.leader())
        expiring = cluster.tls_file("c", now=utc_now() + timedelta(seconds=6, days=-1), days=1)
        (tmp_path / "c").mkdir(mode=0o700)
        replace_file(tmp_path / "c" / "tls.pem", expiring, 0o600)
        replace_file(tmp_path / "c" / "ca.crt", to_pem(cluster.authority.certificate), 0o644)
        assert_commits(cluster)
        cluster.start("c")
        asyncio.run(cluster.same_state())
        wait_for_line(cluster, "c", "the certificate of c expires on")
        for name in "ab":
            wait_for_line(cluster, name, "its certificate has expired")
        assert_commits(cluster)
        pid = cluster.processes["c"].pid
        fresh = cluster.tls_file("c")
        replace_file(tmp_path / "c" / "tls.pem", fresh, 0o600)
        height, _ = asyncio.run(cluster.same_state())
        assert height >= 1 and cluster.processes["c"].pid == pid
        with connect(cluster.members["c"], cluster.tls_file("b")) as peer:
            shown = peer.stream.getpeercert(binary_form=True)
        assert shown is not None
        path = tmp_path / "c" / "tls.pem"
        assert to_pem(load_tls(path).certificate) == ssl.DER_cert_to_PEM_cert(shown).encode()


# Pickle


def test_no_pickle_is_loaded_by_a_running_cluster(tmp_path: Path) -> None:
    """Writes, a leader killed, all restarted: each process would end at the first pickle."""

    async def scenario(cluster: Cluster) -> None:
        written = [b"%d" % number for number in range(200)]
        leader = await cluster.leader()
        async with cluster.link(leader) as link:
            await asyncio.gather(*(link.submit([each], 10) for each in written[:100]))
            await link.submit([os.urandom(60_000) for _ in range(30)], 10)
        cluster.kill(leader)
        async with cluster.link(await cluster.leader()) as link:
            await asyncio.gather(*(link.submit([each], 10) for each in written[100:]))
        cluster.start(leader)
        await cluster.same_state()
        cluster.kill()
        cluster.start()
        await cluster.same_state()
        for name in cluster.members:
            assert await cluster.applied(name, written) == [1] * 200
            assert cluster.processes[name].poll() is None

    with running_cluster(tmp_path, start="") as cluster:
        cluster.is_pickle_poisoned = True
        cluster.start()
        asyncio.run(scenario(cluster))
        assert all("pickle" not in cluster.log(name) for name in cluster.members)


def test_the_ways_of_the_library_to_load_a_pickle_are_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = [
        (module, name)
        for module in (pysyncobj.pickle, pysyncobj.journal)
        for name in ("load", "loads")
        if hasattr(module, name)
    ]
    assert len(names) == 3
    for module, name in names:  # put back what `forbid_pickle` replaces
        monkeypatch.setattr(module, name, getattr(module, name))
    engine.forbid_pickle()
    for module, name in names:
        with pytest.raises(RuntimeError, match="a pickle was to be loaded"):
            getattr(module, name)(pickle.dumps(1))
