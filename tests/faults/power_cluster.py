"""Three members, each on a machine of its own that can lose its power."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from ..cluster.raft_cluster import Cluster

MEMBER = Path(__file__).with_name("faulty_member.py")


class PowerCluster(Cluster):
    """Like `Cluster`, but a killed member has lost its power, and starts as after that."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._boots = dict.fromkeys(self.members, 0)
        self._rng = random.Random(3)

    def start(self, *names: str) -> None:
        for name in names or self.members:
            self.certify(name)
            self._boots[name] += 1
            config = {
                "name": name,
                "root": str(self.root),
                "members": self.members,
                "is_pickle_poisoned": self.is_pickle_poisoned,
                "boot": self._boots[name],
            }
            with (self.root / f"{name}.log").open("ab") as log:
                self.processes[name] = subprocess.Popen(
                    [sys.executable, str(MEMBER), json.dumps(config)], stderr=log
                )

    def kill(self, *names: str) -> None:
        victims = names or tuple(self.processes)
        super().kill(*victims)
        for name in victims:
            self._spoil_store(self.root / name / "store")

    def set_fault(self, name: str, kind: str) -> None:
        """Let the member's disk fail from its next sync on; the file appears with its content."""
        fresh = self.root / name / "fault.new"
        fresh.write_text(kind)
        fresh.rename(self.root / name / "fault")

    def clear_fault(self, name: str) -> None:
        (self.root / name / "fault").unlink()

    def held_file(self, name: str) -> Path:
        return self.root / name / "held"

    def _spoil_store(self, store: Path) -> None:
        """A hole in a log of LevelDB, as when one page was not written and a later one was."""
        for log in store.glob("*.log"):
            data = bytearray(log.read_bytes())
            start = self._rng.randrange(len(data) + 1)
            hole = data[start : start + 4_096]
            data[start : start + len(hole)] = bytes(len(hole))
            log.write_bytes(data)


@contextlib.contextmanager
def running_power_cluster(root: Path) -> Iterator[PowerCluster]:
    """A started cluster whose processes do not outlive the block."""
    cluster = PowerCluster(root)
    cluster.start()
    try:
        yield cluster
    finally:
        cluster.kill()
