"""A disk in memory that behaves as badly as a disk may.

Everything written is seen at once by the process, as through the kernel's cache. It survives a
power cut only if its file was synced; of what was not, each sector survives or not as chance has it,
and one of them may be torn at any byte. A name survives only if its directory was synced; of later
changes of names, the first few may survive. A sync that fails forgets what it was to write, as Linux
does: the process still sees it, a second sync succeeds, the disk does not have it.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

SECTOR_BYTES = 512


class PowerCut(BaseException):
    """The machine is off; nothing of the program runs on."""


@dataclass
class _File:
    current: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    unsynced: list[tuple[int, bytes]] = field(default_factory=list)


class SimulatedDisk:
    """`Files` with a plug that can be pulled.

    `cut_at` is the number of the call, counted from 1, in which the power goes; `fail_at` gives
    calls that fail, with their error numbers. Only calls that change or sync something count.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.cut_at: int | None = None
        self.fail_at: dict[int, int] = {}
        self.is_off = False
        self.before_call: Callable[[str], None] = lambda _: None
        self._rng = random.Random(0)
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._unsynced_names: list[tuple[Path | None, Path | None, _File | None]] = []
        self._open: dict[int, tuple[_File, Path]] = {}
        self._locked: dict[Path, int] = {}
        self._next = 100

    # What tests do

    def cut_power(self, *, survives: str, seed: int = 0) -> None:
        """The power goes, and comes back. Of what was not synced survives `nothing`, `everything`,
        or `chance` with `seed`."""
        rng = random.Random(seed)
        names = dict(self._durable_names)
        count = len(self._unsynced_names)
        kept = {"nothing": 0, "everything": count, "chance": rng.randint(0, count)}[survives]
        for source, target, file in self._unsynced_names[:kept]:
            _change(names, source, target, file)
        for file in {id(each): each for each in [*names.values()]}.values():
            for offset, data in file.unsynced:
                _survive(file.durable, offset, data, survives, rng)
            file.current, file.unsynced = bytearray(file.durable), []
        self._names, self._durable_names, self._unsynced_names = names, dict(names), []
        self._start_again()

    def kill(self) -> None:
        """The process ends; the machine goes on, and its cache with it."""
        self._start_again()

    def damage(self, path: Path, offset: int, mask: int) -> None:
        """Flip the bits of `mask` in one byte."""
        for content in (self._names[path].current, self._names[path].durable):
            content[offset] ^= mask

    def content(self, path: Path) -> bytes:
        """What a process reads in the file."""
        return bytes(self._names[path].current)

    def _start_again(self) -> None:
        self.is_off, self.cut_at, self.fail_at = False, None, {}
        self._open, self._locked = {}, {}

    # Files

    def make_directory(self, path: Path) -> None:
        self._step("make_directory")

    def names(self, path: Path) -> list[str]:
        self._check_power()
        return [each.name for each in self._names if each.parent == path]

    def open(self, path: Path, *, create: bool = False) -> int:
        self._check_power()
        if path not in self._names:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
            self._step("create")
            self._rename(None, path, _File())
        self._next += 1
        self._open[self._next] = (self._names[path], path)
        return self._next

    def close(self, file: int) -> None:
        _, path = self._open.pop(file)
        if self._locked.get(path) == file:
            del self._locked[path]

    def lock(self, file: int) -> None:
        path = self._open[file][1]
        if self._locked.setdefault(path, file) != file:
            raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    def size(self, file: int) -> int:
        self._check_power()
        return len(self._open[file][0].current)

    def pread(self, file: int, length: int, offset: int) -> bytes:
        self._check_power()
        return bytes(self._open[file][0].current[offset : offset + length])

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        target = self._open[file][0]
        try:
            self._step("pwrite")
        except PowerCut:
            _write(target, offset, data)
            raise
        except OSError:
            _write(target, offset, data[: len(data) // 2])
            raise
        _write(target, offset, data)

    def fdatasync(self, file: int) -> None:
        target = self._open[file][0]
        try:
            self._step("fdatasync")
        except OSError:
            target.unsynced = []
            raise
        for offset, data in target.unsynced:
            _put(target.durable, offset, data)
        target.unsynced = []

    def fsync_directory(self, path: Path) -> None:
        self._step("fsync_directory")
        kept = []
        for change in self._unsynced_names:
            source, target, file = change
            if path in {each.parent for each in (source, target) if each is not None}:
                _change(self._durable_names, source, target, file)
            else:
                kept.append(change)
        self._unsynced_names = kept

    def rename(self, source: Path, target: Path) -> None:
        self._step("rename")
        self._rename(source, target, self._names[source])

    def unlink(self, path: Path) -> None:
        self._step("unlink")
        self._rename(path, None, None)

    def _rename(self, source: Path | None, target: Path | None, file: _File | None) -> None:
        self._unsynced_names.append((source, target, file))
        _change(self._names, source, target, file)

    def _check_power(self) -> None:
        if self.is_off:
            raise PowerCut

    def _step(self, call: str) -> None:
        self._check_power()
        self.calls.append(call)
        self.before_call(call)
        number = len(self.calls)
        if number == self.cut_at:
            self.is_off = True
            raise PowerCut
        if number in self.fail_at:
            code = self.fail_at[number]
            raise OSError(code, os.strerror(code))


def _change(
    names: dict[Path, _File], source: Path | None, target: Path | None, file: _File | None
) -> None:
    if source is not None:
        names.pop(source, None)
    if target is not None and file is not None:
        names[target] = file


def _write(file: _File, offset: int, data: bytes) -> None:
    _put(file.current, offset, data)
    file.unsynced.append((offset, data))


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def _survive(
    content: bytearray, offset: int, data: bytes, survives: str, rng: random.Random
) -> None:
    """Put what survives of one write that was not synced."""
    if survives == "nothing":
        return
    torn_at = rng.randrange(len(data) + 1)
    for start in range(0, len(data), SECTOR_BYTES):
        piece = data[start : start + SECTOR_BYTES]
        if survives == "chance":
            if start <= torn_at < start + len(piece):
                piece = piece[: torn_at - start]
            elif rng.random() < 0.5:
                continue
        _put(content, offset + start, piece)
