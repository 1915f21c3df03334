"""Blobs on a member's disk, each under its BLAKE3 hash: `blobs/ab/abcdef…`.

A blob is there entirely or not at all: it is written aside, flushed, renamed, and the directory is
flushed before anyone is told, because what follows is a signed attestation that it is kept.
"""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from vcp_cluster.cluster.door.problems import Problem, unavailable
from vcp_cluster.ledger.keys import hash_content

BLOB_BYTES_MAX = 16 << 20
STORE_BYTES_MAX = 16 << 30
ACCOUNT_BYTES_MAX = 1 << 30
# What the smallest file costs on disk; it also bounds the number of blobs.
CHARGE_BYTES_MIN = 4_096
EMPTY_BLOB = hash_content(b"")

_INCOMING = "incoming"

logger = logging.getLogger(__name__)


class BlobStore:
    """Content-addressed files below `path`, bounded in size, for each account and in all.

    An account is charged for what it stored until the charge is released: when the ledger refers
    to the blob, which somebody paid for, or when it is removed. Charges are kept in memory only:
    a restart forgives them, and the sweep bounds what that can be worth. Safe for use by several
    threads; every method blocks on the disk.
    """

    def __init__(
        self,
        path: Path,
        *,
        blob_bytes_max: int = BLOB_BYTES_MAX,
        store_bytes_max: int = STORE_BYTES_MAX,
        account_bytes_max: int = ACCOUNT_BYTES_MAX,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        self.blob_bytes_max = blob_bytes_max
        self._path = path
        self._store_bytes_max = store_bytes_max
        self._account_bytes_max = account_bytes_max
        self._now_s = now_s
        self._lock = threading.Lock()
        self._charges: dict[bytes, tuple[bytes, int]] = {}  # blob -> account, bytes
        self._account_bytes: dict[bytes, int] = {}
        self._incoming = path / _INCOMING
        self._incoming.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self._incoming.iterdir():
            leftover.unlink()
        self._bytes = sum(_charge(entry.stat().st_size) for entry in self._entries())

    @property
    def bytes_used(self) -> int:
        """Bytes of disk that all blobs take, each counted as at least one page."""
        return self._bytes

    def put(self, data: bytes, *, account: bytes = b"") -> bytes:
        """Keep a blob and return its hash once it is durable; its age starts again if it is there.

        Raises `Problem`: 413 too large, 429 when the account's quota or the store is full, 503
        when the disk refuses.
        """
        if len(data) > self.blob_bytes_max:
            raise Problem(
                413,
                "too_large",
                f"a blob of {len(data)} bytes, the most is {self.blob_bytes_max}",
                next_step="make it smaller, or split it over several tasks",
            )
        blob = hash_content(data)
        if blob == EMPTY_BLOB:
            return blob
        if self.get(blob) is not None:
            with self._lock:
                if self._touch(blob):
                    return blob
        charge = _charge(len(data))
        self._reserve(blob, charge, account)
        try:
            is_new = self._write(blob, data)
        except OSError as error:
            self._unreserve(blob, charge)
            raise unavailable(f"this member's disk refused a blob: {error.strerror}") from None
        if not is_new:  # Somebody stored it meanwhile, and it counts once.
            with self._lock:
                self._bytes -= charge
        return blob

    def get(self, blob: bytes) -> bytes | None:
        """The bytes of a blob, or None. A damaged file is removed: it is as good as none.

        Everyone has the empty blob, without a file.
        """
        if blob == EMPTY_BLOB:
            return b""
        path = self._file(blob)
        try:
            is_too_large = path.stat().st_size > self.blob_bytes_max
            data = b"" if is_too_large else path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.error("blob %s cannot be read: %s", blob.hex(), error)
            return None
        if hash_content(data) == blob:
            return data
        logger.error("blob %s was damaged on disk and is removed", blob.hex())
        self._remove(blob)
        return None

    def list_older(self, age_s: float) -> list[bytes]:
        """Hashes of blobs that were stored at least `age_s` seconds ago, in order."""
        limit = self._now_s() - age_s
        blobs = []
        for entry in self._entries():
            try:
                if entry.stat().st_mtime <= limit:
                    blobs.append(bytes.fromhex(entry.name))
            except FileNotFoundError:
                continue
        return sorted(blobs)

    def list_charged(self) -> list[bytes]:
        """Hashes of blobs for which an account is charged."""
        with self._lock:
            return list(self._charges)

    def release(self, blob: bytes) -> None:
        """End the charge for a blob; nothing if there is none."""
        with self._lock:
            self._release(blob)

    def remove_older(self, blob: bytes, age_s: float) -> bool:
        """Remove a blob unless it was stored again within `age_s`; whether it is gone."""
        with self._lock:
            try:
                if self._file(blob).stat().st_mtime > self._now_s() - age_s:
                    return False
            except FileNotFoundError:
                return True
            self._unlink(blob)
        return True

    def _file(self, blob: bytes) -> Path:
        name = blob.hex()
        return self._path / name[:2] / name

    def _entries(self) -> Iterator[os.DirEntry[str]]:
        """Every file that is named like a blob."""
        with os.scandir(self._path) as folders:
            names = [entry.path for entry in folders if len(entry.name) == 2]
        for name in names:
            with os.scandir(name) as files:
                yield from (entry for entry in files if _is_blob_name(entry.name))

    def _touch(self, blob: bytes) -> bool:
        now_s = self._now_s()
        try:
            os.utime(self._file(blob), (now_s, now_s))
        except FileNotFoundError:
            return False
        return True

    def _reserve(self, blob: bytes, charge: int, account: bytes) -> None:
        with self._lock:
            if self._bytes + charge > self._store_bytes_max:
                raise _full("this member's blob store is full")
            if account and blob not in self._charges:
                used = self._account_bytes.get(account, 0)
                if used + charge > self._account_bytes_max:
                    raise _full(
                        f"the account has {used} bytes of blobs that no task refers to, the most "
                        f"is {self._account_bytes_max}"
                    )
                self._account_bytes[account] = used + charge
                self._charges[blob] = (account, charge)
            self._bytes += charge

    def _unreserve(self, blob: bytes, charge: int) -> None:
        with self._lock:
            self._bytes -= charge
            self._release(blob)

    def _release(self, blob: bytes) -> None:
        account, charge = self._charges.pop(blob, (b"", 0))
        left = self._account_bytes.pop(account, 0) - charge
        if left > 0:
            self._account_bytes[account] = left

    def _write(self, blob: bytes, data: bytes) -> bool:
        """Write durably; False when the blob is there already, with a new age."""
        final = self._file(blob)
        temporary = self._incoming / secrets.token_hex(16)
        try:
            with open(temporary, "xb", opener=_open_private) as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            with self._lock:
                if not final.parent.exists():
                    final.parent.mkdir(mode=0o700)
                    _sync_directory(self._path)
                is_new = not self._touch(blob)
                if is_new:
                    os.replace(temporary, final)
                    self._touch(blob)
            _sync_directory(final.parent)
        finally:
            temporary.unlink(missing_ok=True)
        return is_new

    def _remove(self, blob: bytes) -> None:
        with self._lock:
            self._unlink(blob)

    def _unlink(self, blob: bytes) -> None:
        path = self._file(blob)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            return
        self._bytes -= _charge(size)
        self._release(blob)


def _charge(size: int) -> int:
    return max(size, CHARGE_BYTES_MIN)


def _full(message: str) -> Problem:
    return Problem(
        429,
        "busy",
        message,
        next_step="submit the tasks that need the uploaded blobs, or wait: unused ones are removed",
        retry_after_ms=60_000,
    )


def _is_blob_name(name: str) -> bool:
    return len(name) == 64 and all(character in "0123456789abcdef" for character in name)


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
