"""A toy member on a disk that loses what was not synced, and fails on demand.

Run as `python faulty_member.py '{…}'` with the configuration of `raft_toy` and `boot`, the number of
times that the machine was started. When the process is killed, so is its machine: of what the
journal wrote and did not sync, a random part is on the disk.

A file `fault` in the member's directory says what the next fdatasync of the journal does: `EIO`,
`ENOSPC`, or `hold` (wait until the file is gone). `held` appears while one waits.
"""

from __future__ import annotations

import errno
import json
import os
import random
import sys
import time
from pathlib import Path

from vcp_cluster.cluster.files import SystemFiles

sys.path.insert(0, str(Path(__file__).parent.parent / "cluster"))

import raft_toy

SECTOR_BYTES = 512
POLL_S = 0.005
STALL_S = 1.5


class FaultyFiles(SystemFiles):
    """Keeps what is not synced to itself, except for sectors that chance picks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._unsynced: dict[int, list[tuple[int, bytes]]] = {}
        self._rng = random.Random()

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        self._unsynced.setdefault(os.fstat(file).st_ino, []).append((offset, data))
        for start in range(0, len(data), SECTOR_BYTES):
            if self._rng.random() < 0.3:
                super().pwrite(file, data[start : start + SECTOR_BYTES], offset + start)

    def pread(self, file: int, length: int, offset: int) -> bytes:
        data = bytearray(super().pread(file, length, offset))
        for start, written in self._unsynced.get(os.fstat(file).st_ino, ()):
            low, high = max(start, offset), min(start + len(written), offset + length)
            if low < high:
                data[low - offset : high - offset] = written[low - start : high - start]
        return bytes(data)

    def fdatasync(self, file: int) -> None:
        self._fail_if_told()
        for offset, data in self._unsynced.pop(os.fstat(file).st_ino, ()):
            super().pwrite(file, data, offset)
        super().fdatasync(file)

    def _fail_if_told(self) -> None:
        fault = self._directory / "fault"
        try:
            kind = fault.read_text()
        except FileNotFoundError:
            return
        if kind == "hold":
            held = self._directory / "held"
            held.touch()
            while fault.exists():
                time.sleep(POLL_S)
            held.unlink()
        else:
            code = getattr(errno, kind)
            raise OSError(code, os.strerror(code))


def main() -> int:
    config = json.loads(sys.argv[1])
    return raft_toy.run(
        config,
        boot_id=f"boot {config['boot']}",
        files=FaultyFiles(Path(config["root"]) / config["name"]),
        disk_stall_s=STALL_S,
    )


if __name__ == "__main__":
    sys.exit(main())
