"""What durable files need of the operating system, behind a protocol.

The journal and the session file of the store touch the disk through `Files` only, so that tests can
cut the power at any call, tear a write at any byte, and let any call fail.
"""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path
from typing import Protocol


class Files(Protocol):
    """System calls on files. Every method raises OSError when the call fails.

    A file is an open descriptor. What was written is sure to be on the disk only after
    `fdatasync` of its file; a name, new or changed, after `fsync_directory` of its directory.
    """

    def make_directory(self, path: Path) -> None:
        """Make `path` for the owner alone, with its parents; it may exist."""

    def names(self, path: Path) -> list[str]:
        """What is in the directory `path`, in no order."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open for reading and writing; with `create` a missing file is made, mode 0600."""

    def close(self, file: int) -> None:
        """Close; says nothing about the disk."""

    def lock(self, file: int) -> None:
        """Own the file until it is closed; BlockingIOError when another process does."""

    def size(self, file: int) -> int:
        """Length in bytes."""

    def pread(self, file: int, length: int, offset: int) -> bytes:
        """At most `length` bytes from `offset`; fewer only at the end of the file."""

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        """Write all of `data` at `offset`; a short write is an error."""

    def fdatasync(self, file: int) -> None:
        """Return when everything written to the file, and its length, is on the disk."""

    def fsync_directory(self, path: Path) -> None:
        """Return when the names in the directory `path` are on the disk."""

    def rename(self, source: Path, target: Path) -> None:
        """Give `source` the name `target`, replacing a file of that name."""

    def unlink(self, path: Path) -> None:
        """Remove a name."""


class SystemFiles:
    """`Files` of this machine."""

    def make_directory(self, path: Path) -> None:
        """See `Files`."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, path: Path) -> list[str]:
        """See `Files`."""
        return os.listdir(path)

    def open(self, path: Path, *, create: bool = False) -> int:
        """See `Files`."""
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT if create else 0), 0o600)

    def close(self, file: int) -> None:
        """See `Files`."""
        os.close(file)

    def lock(self, file: int) -> None:
        """See `Files`."""
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def size(self, file: int) -> int:
        """See `Files`."""
        return os.fstat(file).st_size

    def pread(self, file: int, length: int, offset: int) -> bytes:
        """See `Files`."""
        data = os.pread(file, length, offset)
        while len(data) < length:  # One call returns at most 2 GiB, and less when interrupted.
            more = os.pread(file, length - len(data), offset + len(data))
            if not more:
                break
            data += more
        return data

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        """See `Files`."""
        written = os.pwrite(file, data, offset)
        if written != len(data):
            raise OSError(errno.EIO, f"only {written} of {len(data)} bytes were written")

    def fdatasync(self, file: int) -> None:
        """See `Files`."""
        os.fdatasync(file)

    def fsync_directory(self, path: Path) -> None:
        """See `Files`."""
        directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def rename(self, source: Path, target: Path) -> None:
        """See `Files`."""
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See `Files`."""
        os.unlink(path)


def replace_file(files: Files, path: Path, data: bytes) -> None:
    """Give `path` the content `data`, durably: after a loss of power it has the old or the new one.

    Raises OSError.
    """
    fresh = path.with_name(path.name + ".new")
    if fresh.name in files.names(path.parent):  # An earlier attempt was cut short.
        files.unlink(fresh)
    file = files.open(fresh, create=True)
    try:
        files.pwrite(file, data, 0)
        files.fdatasync(file)
    finally:
        files.close(file)
    files.rename(fresh, path)
    files.fsync_directory(path.parent)
