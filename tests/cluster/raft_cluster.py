"""Three toy members as real processes, with what the tests do to them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from blake3 import blake3

from vcp_cluster.cluster.certificate_files import make_tls
from vcp_cluster.cluster.certificates import make_authority, to_pem, utc_now
from vcp_cluster.cluster.config_files import replace_file
from vcp_cluster.cluster.directory import AUTHORITY_FILE, TLS_FILE
from vcp_cluster.cluster.link import LinkClosed, LinkError, RaftLink

from .raft_toy import TOY_CHAIN_ID, toy_identity, toy_seed

TOY = Path(__file__).with_name("raft_toy.py")
PATIENCE_S = 15.0
POLL_S = 0.02

Found = TypeVar("Found")


def free_addresses(count: int) -> list[str]:
    """Loopback addresses nobody listens on now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]


def transaction_key(transaction: bytes) -> bytes:
    """Where a toy member keeps the heights at which `transaction` was applied."""
    return b"t" + blake3(transaction).digest()


class Cluster:
    """Member directories under `root`; processes are started and killed one by one."""

    def __init__(self, root: Path, names: str = "abc") -> None:
        self.root = root
        self.members = dict(zip(names, free_addresses(len(names)), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.is_pickle_poisoned = False
        self.authority = make_authority(TOY_CHAIN_ID, bytes(32), now=utc_now())

    def start(self, *names: str) -> None:
        for name in names or self.members:
            self.certify(name)
            config = {
                "name": name,
                "root": str(self.root),
                "members": self.members,
                "is_pickle_poisoned": self.is_pickle_poisoned,
            }
            with (self.root / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, str(TOY), json.dumps(config)], stderr=log
                )

    def certify(self, name: str) -> None:
        """Give a member its certificates, unless it has some for its address."""
        directory = self.root / name
        directory.mkdir(mode=0o700, exist_ok=True)
        if not (directory / TLS_FILE).exists():
            replace_file(directory / TLS_FILE, self.tls_file(name), 0o600)
            authority = to_pem(self.authority.certificate)
            replace_file(directory / AUTHORITY_FILE, authority, 0o644)

    def tls_file(self, name: str, *, now: datetime | None = None, days: int = 365) -> bytes:
        """A new key and certificate for a member."""
        identity = toy_identity(name, self.members[name])
        return make_tls(self.authority, identity, toy_seed(name), now=now or utc_now(), days=days)

    def kill(self, *names: str) -> None:
        """kill -9, all of them before the first is waited for."""
        for name in names or list(self.processes):
            self.processes[name].kill()
        for name in names or list(self.processes):
            self.processes.pop(name).wait()

    def terminate(self, name: str) -> int:
        """SIGTERM; the exit code."""
        process = self.processes.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(PATIENCE_S)

    def socket_path(self, name: str) -> Path:
        return self.root / name / "run" / "raft.sock"

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text()

    @contextlib.asynccontextmanager
    async def link(self, name: str) -> AsyncIterator[RaftLink]:
        """A link to `name`, waiting for the process to be up."""
        link = await until(lambda: self._try_connect(name))
        try:
            yield link
        finally:
            await link.close()

    async def _try_connect(self, name: str) -> RaftLink | None:
        try:
            return await RaftLink.connect(self.socket_path(name), 2.0)
        except LinkClosed:
            assert self.processes[name].poll() is None, self.log(name)
            return None

    async def leader(self) -> str:
        """The name of a leader that knows it is one."""
        return await until(self._find_leader)

    async def _find_leader(self) -> str | None:
        for name in list(self.processes):
            try:
                link = await RaftLink.connect(self.socket_path(name), 2.0)
            except LinkClosed:
                continue
            try:
                if (await link.status())["role"] == "leader":
                    return name
            except LinkError:
                continue
            finally:
                await link.close()
        return None

    async def same_state(self, *, height_min: int = 1) -> tuple[int, bytes]:
        """Wait until all running members stand at one height with one root; both."""

        async def look() -> tuple[int, bytes] | None:
            states = set()
            for name in self.processes:
                async with self.link(name) as link:
                    status = await link.status()
                    states.add((status["height"], status["state_root"]))
            height, root = next(iter(states))
            return (height, root) if len(states) == 1 and height >= height_min else None

        return await until(look)

    async def applied(self, name: str, transactions: list[bytes]) -> list[int]:
        """How often each transaction was applied at `name`."""
        counts = []
        async with self.link(name) as link:
            for start in range(0, len(transactions), 5_000):
                keys = [transaction_key(each) for each in transactions[start : start + 5_000]]
                _, values = await link.get(keys)
                counts += [len(value or b"") // 8 for value in values]
        return counts


async def until(look: Callable[[], Awaitable[Found | None]]) -> Found:
    """Look again and again until there is something; fail after `PATIENCE_S`."""
    deadline = time.monotonic() + PATIENCE_S
    while (found := await look()) is None:
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(POLL_S)
    return found


@contextlib.contextmanager
def running_cluster(
    root: Path, names: str = "abc", *, start: str | None = None
) -> Iterator[Cluster]:
    """A cluster whose processes do not outlive the block; `start` names those to start at once."""
    cluster = Cluster(root, names)
    if start != "":
        cluster.start(*(names if start is None else start))
    try:
        yield cluster
    finally:
        cluster.kill()
