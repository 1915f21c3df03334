"""What machine, disk and commit a document's figures are of."""

from __future__ import annotations

import os
import platform
import subprocess
from pathlib import Path

import msgspec

_IN_MEMORY = ("tmpfs", "ramfs")


class Machine(msgspec.Struct, frozen=True):
    """Where a run took place. Memory in 10^6 bytes."""

    processor: str
    cores: int
    memory_mb: int
    kernel: str
    python: str
    file_system: str
    is_disk: bool
    commit: str


def describe_machine(directory: Path) -> Machine:
    """This machine, and the file system that `directory` is on."""
    file_system = _file_system(directory.resolve())
    return Machine(
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)),
        memory_mb=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 1_000_000,
        kernel=platform.release(),
        python=platform.python_version(),
        file_system=file_system,
        is_disk=file_system not in _IN_MEMORY,
        commit=_commit(),
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _file_system(path: Path) -> str:
    """Type of the mount that a path is below: the one with the longest name."""
    best, found = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if path.is_relative_to(mount) and len(mount) >= len(best):
            best, found = mount, kind
    return found


def _commit() -> str:
    """The commit of the source tree, with + when it was changed; `unknown` outside of one."""
    root = Path(__file__).resolve().parents[2]
    try:
        commit = _git(root, "rev-parse", "--short=12", "HEAD")
        is_changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return commit + ("+" if is_changed else "")


def _git(root: Path, *arguments: str) -> str:
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()
