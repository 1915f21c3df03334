"""Bare pysyncobj: the consensus library that this cluster embeds, used as its README shows.

Its defaults and its file journal, no signatures, no ledger, no disk sync. It says what the library
costs by itself, and what its defaults give.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from array import array
from importlib.metadata import version
from pathlib import Path
from typing import Any

from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.load.closed_loop import Outcome
from vcp_cluster.benchmarks.machine.usage import Meter
from vcp_cluster.benchmarks.systems.base import Checked, Settings, Shape
from vcp_cluster.benchmarks.systems.ports import HOST, free_ports
from vcp_cluster.cluster.processes import following_environment

START_S_MAX = 30.0
STOP_S_MAX = 5.0
_POLL_S = 0.02


class BarePysyncobj:
    """Processes of one replicated dictionary (`System`)."""

    name = "pysyncobj"

    def __init__(self, directory: Path, members: int) -> None:
        self.settings = Settings(
            version=version("pysyncobj"),
            fsync=False,
            durability="memory and a file journal, NOT synced",
            verification="none",
            encryption="none",
            clients="inside the leader's process: no connection",
        )
        self._directory = directory
        self._members = members
        self._processes: dict[str, subprocess.Popen[str]] = {}
        self._next = 0
        self._answered = 0

    def start(self) -> None:
        """Start all members and wait for a leader that is ready."""
        self._directory.mkdir(parents=True, exist_ok=True)
        addresses = [f"{HOST}:{port}" for port in free_ports(self._members)]
        for number, address in enumerate(addresses):
            peers = ",".join(one for one in addresses if one != address)
            name = f"bare-{number}"
            with (self._directory / f"{name}.log").open("ab") as log:
                self._processes[name] = subprocess.Popen(
                    [
                        *(sys.executable, "-m", "vcp_cluster.benchmarks.systems.bare_member"),
                        *(address, peers, str(self._directory / f"{name}.journal")),
                    ],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    env=following_environment(),
                )
        deadline = time.monotonic() + START_S_MAX
        while not all(self._ask(name, {"do": "status"})["ready"] for name in self._processes):
            if time.monotonic() > deadline:
                raise BenchmarkFailed(f"pysyncobj was not ready within {START_S_MAX:.0f} s")
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End all members."""
        for process in self._processes.values():
            process.terminate()
        for process in self._processes.values():
            try:
                process.communicate(timeout=STOP_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        self._processes.clear()

    def member_pids(self) -> dict[str, int]:
        """The process of each member."""
        return {name: process.pid for name, process in self._processes.items()}

    def _ask(self, name: str, order: dict[str, Any]) -> dict[str, Any]:
        process = self._processes[name]
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise BenchmarkFailed(f"{name} has ended, see {name}.log") from None
        line = process.stdout.readline()
        if not line:
            raise BenchmarkFailed(f"{name} has ended, see {name}.log")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BenchmarkFailed(f"{name}: {answer['error']}")
        return answer

    def load(self, shape: Shape, requests: int, seconds: float) -> Outcome:
        """Let the leader drive itself; it makes its requests on the way."""
        leader = next(
            (one for one in self._processes if self._ask(one, {"do": "status"})["leads"]), None
        )
        if leader is None:
            raise BenchmarkFailed("no member of pysyncobj leads")
        meter = Meter(self.member_pids().values())
        report = self._ask(
            leader,
            {
                "do": "load",
                "clients": shape.clients,
                "requests": requests,
                "records": shape.records,
                "seconds": seconds,
                "first": self._next,
            },
        )
        usage = meter.read()
        answered = report["answered"]
        self._next += answered * shape.records
        self._answered += answered * shape.records
        latencies = array("q", report["latencies_ns"])
        return Outcome(
            answers=[[b""] * answered],
            counted=len(latencies),
            elapsed_s=report["elapsed_ns"] / 1e9,
            latencies_ns=latencies,
            members_cpu_s=usage.members_cpu_s,
            cores_share=usage.cores_share,
        )

    def verify(self) -> Checked:
        """Compare every member's dictionary with what was acknowledged."""
        deadline = time.monotonic() + START_S_MAX
        for name in self._processes:
            while True:
                answer = self._ask(name, {"do": "count"})
                if answer["wrong"]:
                    raise BenchmarkFailed(f"pysyncobj: {answer['wrong']} values of {name} differ")
                if answer["keys"] == list(range(self._next)):
                    break
                if time.monotonic() > deadline:
                    missing = self._next - len(answer["keys"])
                    raise BenchmarkFailed(f"pysyncobj: {name} lacks {missing} records")
                time.sleep(_POLL_S)
        return Checked(self._answered, "every value read back from every member's memory")
