"""Reading and writing of the small files that operators handle: keys, certificates, genesis.

All raise `ConfigError` with the file's path and what to do.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from vcp_cluster.cluster.errors import ConfigError


def read_file(path: Path, size_max: int, *, if_missing: str) -> tuple[bytes, int]:
    """Content and permission bits of a regular file; raise `ConfigError`."""
    try:
        # A FIFO would block the open.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            data = os.read(descriptor, size_max + 1)
        finally:
            os.close(descriptor)
    except FileNotFoundError:
        raise wrong_file(path, "it does not exist", if_missing) from None
    except OSError as error:
        message, hint = f"cannot read it: {error.strerror}", "check path, owner and permissions"
        raise wrong_file(path, message, hint) from None
    if not stat.S_ISREG(status.st_mode):
        raise wrong_file(path, "it is not a regular file", "give the path of a file")
    if len(data) > size_max:
        raise wrong_file(path, f"it is larger than {size_max} bytes", "give the right file")
    return data, stat.S_IMODE(status.st_mode)


def read_secret_file(path: Path, size_max: int, *, if_missing: str) -> bytes:
    """Content of a file that nobody but its owner may read; raise `ConfigError`."""
    data, mode = read_file(path, size_max, if_missing=if_missing)
    if mode & 0o077:
        raise wrong_file(path, f"others can read it (mode {mode:04o})", f"chmod 600 {path}")
    return data


def write_new(path: Path, data: bytes, mode: int) -> None:
    """Make a file that appears whole or not at all, and replaces nothing; raise `ConfigError`."""
    try:
        temporary = _write_temporary(path, data, mode)
        try:
            os.link(temporary, path)  # unlike a rename, this refuses an existing file
        finally:
            temporary.unlink()
    except FileExistsError:
        hint = "choose another file"
        raise wrong_file(path, "it exists, and is not overwritten", hint) from None
    except OSError as error:
        raise _cannot_write(path, error) from error


def replace_file(path: Path, data: bytes, mode: int) -> None:
    """Write a file in one step, over an older one if there is one; raise `ConfigError`."""
    try:
        temporary = _write_temporary(path, data, mode)
        try:
            temporary.replace(path)
        except OSError:
            temporary.unlink()
            raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def wrong_file(path: Path, message: str, hint: str) -> ConfigError:
    """The error of a file that is not what it must be."""
    return ConfigError(message, key=path.name or "file", origin=str(path), hint=hint)


def _write_temporary(path: Path, data: bytes, mode: int) -> Path:
    """Bring `data` to disk under another name in the same directory."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        temporary.unlink()
        raise
    return temporary


def _cannot_write(path: Path, error: OSError) -> ConfigError:
    hint = "check the directory, its owner and the free space"
    return wrong_file(path, f"cannot write it: {error.strerror}", hint)
