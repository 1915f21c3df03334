"""A whole cluster on this machine: real members and real workers in processes of their own.

What `demo` and `dev` run, and what the cluster tests kill. Nothing is simulated: every process is
started with the command that its operator would use, and dies with the one that started it.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Self

import httpx2
import msgspec

from vcp_cluster.cluster.addresses import NATIVE_OFFSET, http_url
from vcp_cluster.cluster.directory import CLIENT_DIRECTORY, initialise, load_genesis
from vcp_cluster.cluster.errors import Timeout
from vcp_cluster.cluster.processes import following_environment, interrupts_deferred
from vcp_cluster.executor.profile import PROFILE_ID
from vcp_cluster.ledger.anchor_settings import AnchorSettings
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id, default_parameters

HOST = "127.0.0.1"
PORTS_PER_MEMBER = NATIVE_OFFSET + 1
FIRST_PORT = 7100
PLACES = 400
PLACE_PORTS = 60
LAST_PORT = 32_000  # below the ports that the kernel gives to outgoing connections
SETTLE_INTERVAL_MS = 1_000
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.05


def get_own_port() -> int:
    """Where this process begins its search for ports.

    Two clusters that are made at the same time would else find the same ports free.
    """
    return FIRST_PORT + os.getpid() % PLACES * PLACE_PORTS


def find_ports(members: int, first_port: int = FIRST_PORT) -> int:
    """The first port of a free range for so many members on loopback, `first_port` or above.

    The range may be taken by somebody else before it is used; the member then says which port.
    """
    width = members * PORTS_PER_MEMBER
    for first in range(first_port, LAST_PORT, width):
        if all(_is_free(first + offset) for offset in range(width)):
            return first
    raise Timeout("no free range of ports on loopback", next_step="stop some other servers")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
        return True


class LocalCluster:
    """Members and workers of one directory made by `init`. Use as a context manager."""

    def __init__(self, directory: Path, genesis: Genesis) -> None:
        """Use `LocalCluster.create` or `LocalCluster.open`."""
        self.directory = directory
        self.genesis = genesis
        self.names = [member.name for member in genesis.members]
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    @classmethod
    def create(
        cls,
        directory: Path,
        *,
        members: int,
        cluster_name: str,
        attempts_max: int = 3,
        settle_interval_ms: int = SETTLE_INTERVAL_MS,
        first_port: int | None = None,
        anchors: AnchorSettings | None = None,
    ) -> LocalCluster:
        """Make the directories of a new cluster on free ports of this machine.

        The search begins at `first_port`, or at this process's own place.
        """
        first = find_ports(members, get_own_port() if first_port is None else first_port)
        genesis = initialise(
            directory,
            [
                (chr(ord("a") + number), HOST, first + number * PORTS_PER_MEMBER)
                for number in range(members)
            ],
            cluster_name=cluster_name,
            created_ms=time.time_ns() // 1_000_000,
            parameters=msgspec.structs.replace(
                default_parameters((PROFILE_ID,)),
                attempts_max=attempts_max,
                settle_interval_ms=settle_interval_ms,
            ),
            anchors=anchors,
        )
        return cls(directory, genesis)

    @classmethod
    def open(cls, directory: Path) -> LocalCluster:
        """A cluster that was made before; raises `ConfigError`."""
        return cls(directory, load_genesis(directory / "genesis.json"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoints(self) -> str:
        """HTTP doors of all members, as `--cluster` takes them."""
        return ",".join(http_url(member.address) for member in self.genesis.members)

    @property
    def client_directory(self) -> Path:
        """Where the funded client's key is."""
        return self.directory / CLIENT_DIRECTORY

    def log_path(self, name: str) -> Path:
        """What a process wrote to its standard error."""
        return self.directory / f"{name}.log"

    # --- processes -----------------------------------------------------------------------------

    def start_member(self, name: str) -> None:
        """Start a member with `vcp-cluster join`."""
        self._start(name, ["join", "--dir", str(self.directory / name)])

    def start_members(self) -> None:
        """Start all members."""
        for name in self.names:
            self.start_member(name)

    def start_worker(self, name: str, *, device: str, fault: str | None = None) -> None:
        """Start a worker with `vcp-cluster worker run`; its key is made if it is missing."""
        arguments = ["worker", "run", "--cluster", self.endpoints, "--device", device]
        arguments += ["--key", str(self.worker_key_path(name))]
        self._start(name, [*arguments, *(["--fault", fault] if fault else [])])

    def worker_key_path(self, name: str) -> Path:
        """Key file of a worker."""
        return self.directory / f"{name}.key"

    def _start(self, name: str, arguments: Sequence[str]) -> None:
        assert not self.is_running(name), f"{name} runs already"
        with self.log_path(name).open("ab") as log, interrupts_deferred():
            self._processes[name] = subprocess.Popen(
                [sys.executable, "-m", "vcp_cluster.cli.main", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=following_environment(),
            )

    def is_running(self, name: str) -> bool:
        """Whether a process of this name runs."""
        process = self._processes.get(name)
        return process is not None and process.poll() is None

    def pid(self, name: str) -> int:
        """Process id of the supervisor of a member, or of a worker."""
        return self._processes[name].pid

    def kill(self, *names: str) -> None:
        """kill -9, all at once, and wait until they are gone."""
        for name in names:
            self._processes[name].kill()
        for name in names:
            self._processes.pop(name).wait()
        for name in names:
            if name in self.names:
                self._await_ports_free(name)

    def _await_ports_free(self, name: str) -> None:
        """The kernel ends a killed member's children a moment after it."""
        member = next(member for member in self.genesis.members if member.name == name)
        first = int(member.address.rpartition(":")[2])
        self.wait_until(
            lambda: all(_is_free(first + offset) for offset in range(PORTS_PER_MEMBER)),
            f"the ports of {name} to be free",
        )

    def terminate(self, name: str) -> int:
        """SIGTERM one process and return its exit code."""
        process = self._processes.pop(name)
        process.terminate()
        return process.wait(STOP_TIMEOUT_S)

    def stop(self) -> None:
        """Stop everything, workers first; what does not stop in time is killed."""
        names = sorted(self._processes, key=lambda name: name in self.names)
        for group in (
            [name for name in names if name not in self.names],
            [name for name in names if name in self.names],
        ):
            for name in group:
                if self._processes[name].poll() is None:
                    self._processes[name].send_signal(signal.SIGTERM)
            deadline = time.monotonic() + STOP_TIMEOUT_S
            for name in group:
                try:
                    self._processes[name].wait(max(0.1, deadline - time.monotonic()))
                except subprocess.TimeoutExpired:
                    self._processes[name].kill()
                    self._processes[name].wait()
        self._processes.clear()

    # --- waiting -------------------------------------------------------------------------------

    def wait_ready(self, *names: str, timeout_s: float = READY_TIMEOUT_S) -> None:
        """Wait until members answer and know a leader; raise `Timeout` with the log's last line."""
        for member in self.genesis.members:
            if not names or member.name in names:
                url = http_url(member.address)
                self.wait_until(
                    partial(self._is_ready, member.name, url),
                    f"member {member.name} to be ready",
                    timeout_s,
                )

    def _is_ready(self, name: str, url: str) -> bool:
        if not self.is_running(name):
            raise Timeout(
                f"member {name} ended before it was ready: {self.last_line(name)}",
                next_step=f"read {self.log_path(name)}",
            )
        try:
            # Another cluster may have taken the port between the search for it and its use.
            chain_id = httpx2.get(f"{url}/v1/genesis", timeout=1.0).json()["chain_id"]
            if chain_id != compute_chain_id(self.genesis).hex():
                return False
            return httpx2.get(f"{url}/readyz", timeout=1.0).status_code == 200
        except (httpx2.HTTPError, ValueError, KeyError):
            return False

    def last_line(self, name: str) -> str:
        """The last line of a process's log."""
        path = self.log_path(name)
        lines = path.read_text(errors="replace").splitlines() if path.exists() else []
        return lines[-1] if lines else "it wrote nothing"

    def wait_until(
        self, condition: Callable[[], bool], what: str, timeout_s: float = READY_TIMEOUT_S
    ) -> None:
        """Poll a condition; raise `Timeout` naming what was waited for."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > deadline:
                raise Timeout(
                    f"waited {timeout_s:.0f} s for {what}", next_step=f"see {self.directory}/*.log"
                )
            time.sleep(_POLL_S)
