"""The member's store: LevelDB, one write batch for each Raft entry.

This is the only file that imports plyvel. The layout is the ledger's: its keys are stored as they
are. Two keys of the store's own begin with 0xFF, which no ledger key does:

    ff 'raft'     u64 big endian   index of the last Raft entry in this store (0: none)
    ff 'schema'   u32 big endian   version of this layout

Writes are not synced to the disk. A process killed at any instant leaves whole batches only,
because the kernel keeps what was written; a machine that loses power may lose the newest ones.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import plyvel

SCHEMA = 1
BLOOM_BITS = 10
CACHE_BYTES = 64 << 20
WRITE_BUFFER_BYTES = 16 << 20

_RESERVED = b"\xff"
_RAFT_KEY = _RESERVED + b"raft"
_SCHEMA_KEY = _RESERVED + b"schema"
_U64 = struct.Struct(">Q")
_U32 = struct.Struct(">I")


class StoreError(Exception):
    """The store cannot be opened, read or written. The message says why and what to do."""


class Store:
    """An ordered key-value store that remembers which Raft entry it stands at.

    A store is a ledger view (`get`, `iterate`). One process owns a store directory at a time.
    """

    def __init__(self, database: plyvel.DB, path: Path, raft_index: int) -> None:
        """Use `Store.open`."""
        self._database = database
        self._path = path
        self._raft_index = raft_index

    @classmethod
    def open(cls, path: Path) -> Store:
        """Open the store in directory `path`, creating it (and its parents) when it is missing.

        Raises `StoreError` when another process holds it, when it is damaged, when it is not a
        store of ours, and when a newer release wrote it. The content is changed in none of these.
        """
        _check_not_beheaded(path)
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            database = plyvel.DB(
                str(path),
                create_if_missing=True,
                paranoid_checks=True,
                bloom_filter_bits=BLOOM_BITS,
                lru_cache_size=CACHE_BYTES,
                write_buffer_size=WRITE_BUFFER_BYTES,
            )
        except plyvel.CorruptionError as error:
            raise _damaged(path, str(error)) from error
        except (OSError, plyvel.Error) as error:
            if "lock" in str(error).lower():
                raise StoreError(
                    f"store {path} is in use by another process. "
                    "Next: stop the member that runs on this directory, then start again."
                ) from error
            raise StoreError(
                f"cannot open store {path}: {error}. Next: check the path, its permissions and "
                "the free space of its disk."
            ) from error
        try:
            return cls(database, path, _read_header(database, path))
        except BaseException:
            database.close()
            raise

    @property
    def raft_index(self) -> int:
        """Index of the last Raft entry whose writes are in the store; 0 in a new store."""
        return self._raft_index

    def get(self, key: bytes) -> bytes | None:
        """The value of `key`, or None. Raises `StoreError` when LevelDB finds damage."""
        try:
            value: bytes | None = self._database.get(key)
        except plyvel.Error as error:
            raise _damaged(self._path, str(error)) from error
        return value

    def iterate(
        self, prefix: bytes, *, start: bytes | None = None, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) of every key that begins with `prefix`, in byte order.

        `start` is a full key to begin at, itself included; with `reverse` the order is descending
        and `start` is the highest key wanted. The iterator sees the store as it was at the first
        step; later commits do not disturb it. The store's own keys never appear.
        """
        low, high = prefix, _next_prefix(prefix)
        if start is not None and not reverse:
            low = max(low, start)
        if start is not None and reverse:
            high = min(high, start + b"\0")
        if low >= high:
            return
        try:
            if not reverse:
                with self._database.iterator(start=low, stop=high) as rows:
                    yield from rows
                return
            # Without `start`: plyvel 1.5.1 yields nothing backwards when the only key in the range
            # is `start` itself.
            with self._database.iterator(stop=high, reverse=True) as rows:
                for key, value in rows:
                    if key < low:
                        return
                    yield key, value
        except plyvel.Error as error:
            raise _damaged(self._path, str(error)) from error

    def initialise(self, writes: Sequence[tuple[bytes, bytes | None]]) -> None:
        """Write the state before the first Raft entry, or nothing.

        Raises `StoreError` when the store has taken an entry already.
        """
        if self._raft_index != 0:
            raise StoreError(f"store {self._path} has a state already. Report it.")
        self._write(writes, 0)

    def commit(self, writes: Sequence[tuple[bytes, bytes | None]], *, raft_index: int) -> None:
        """Write everything of one Raft entry, or nothing: `writes` in order (None deletes) and
        the index.

        Raises `StoreError` when `raft_index` is not the next one, when a key belongs to the store
        itself, and when the write fails; the first two leave the store as it was.
        """
        if raft_index != self._raft_index + 1:
            raise StoreError(
                f"store {self._path} stands at Raft index {self._raft_index} and cannot take "
                f"index {raft_index}. Next: this is a defect; keep the directory and report it."
            )
        self._write(writes, raft_index)

    def _write(self, writes: Sequence[tuple[bytes, bytes | None]], raft_index: int) -> None:
        batch = self._database.write_batch()
        for key, value in writes:
            if key[:1] == _RESERVED:
                raise StoreError(f"key {key.hex()} belongs to the store itself. Report it.")
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        batch.put(_RAFT_KEY, _U64.pack(raft_index))
        try:
            batch.write()
        except (OSError, plyvel.Error) as error:
            raise StoreError(
                f"cannot write to store {self._path}: {error}. "
                "Next: check the disk and its free space, then start the member again."
            ) from error
        self._raft_index = raft_index

    def close(self) -> None:
        """Release the directory. Closing twice is harmless; any other use afterwards raises."""
        self._database.close()


def _next_prefix(prefix: bytes) -> bytes:
    """The lowest key above every key with `prefix`, no higher than the store's own keys."""
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return _RESERVED
    return stem[:-1] + bytes([stem[-1] + 1])


def _check_not_beheaded(path: Path) -> None:
    """Refuse a directory with data but without CURRENT: LevelDB would start an empty store in it."""
    if not path.is_dir() or (path / "CURRENT").exists():
        return
    if any(path.glob("*.ldb")) or any(path.glob("*.sst")) or any(path.glob("*.log")):
        raise _damaged(path, "the file CURRENT is missing")


def _read_header(database: plyvel.DB, path: Path) -> int:
    """Check the schema and return the Raft index; stamp a store that is still empty."""
    try:
        schema, index = database.get(_SCHEMA_KEY), database.get(_RAFT_KEY)
        if schema is None:
            if next(database.iterator(include_value=False), None) is not None:
                raise StoreError(
                    f"{path} holds a LevelDB database that is not a store of a member. "
                    "Next: give the member a directory of its own."
                )
            with database.write_batch(transaction=True) as batch:
                batch.put(_SCHEMA_KEY, _U32.pack(SCHEMA))
                batch.put(_RAFT_KEY, _U64.pack(0))
            return 0
    except plyvel.Error as error:
        raise _damaged(path, str(error)) from error
    if len(schema) != _U32.size or index is None or len(index) != _U64.size:
        raise _damaged(path, "its header has a wrong length")
    version: int = _U32.unpack(schema)[0]
    if version != SCHEMA:
        raise StoreError(
            f"store {path} has schema {version}; this release knows {SCHEMA}. Nothing was changed. "
            "Next: start the member with the release that wrote it, or a newer one."
        )
    raft_index: int = _U64.unpack(index)[0]
    return raft_index


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(
        f"store {path} is damaged: {what}. Next: keep a copy, move the directory away and start "
        "the member again; it rebuilds its state from its journal."
    )
