"""The member's store: LevelDB, one write batch for each Raft entry.

This is the only file that imports plyvel. The layout is the ledger's: its keys are stored as they
are. Two keys of the store's own begin with 0xFF, which no ledger key does:

    ff 'raft'     u64 big endian   index of the last Raft entry in this store (0: none)
    ff 'schema'   u32 big endian   version of this layout

Writes are not synced to the disk. A process killed at any instant leaves whole batches only,
because the kernel keeps what was written. After loss of power a store that was not closed in order
is set aside and begun anew, from the first entry: see `store_session`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import plyvel

from vcp_cluster.cluster.files import Files, SystemFiles
from vcp_cluster.cluster.store_directory import (
    InUse,
    NewerSchema,
    StoreDirectory,
    claim_directory,
)
from vcp_cluster.cluster.store_session import SessionUnknown, read_boot_id

SCHEMA = 1
BLOOM_BITS = 10
CACHE_BYTES = 64 << 20
WRITE_BUFFER_BYTES = 16 << 20

_RESERVED = b"\xff"
_RAFT_KEY = _RESERVED + b"raft"
_SCHEMA_KEY = _RESERVED + b"schema"
_U64 = struct.Struct(">Q")
_U32 = struct.Struct(">I")

_BEYOND_ALL_KEYS = (b"\xff\xff", b"\xff\xff\xff")


class StoreError(Exception):
    """The store cannot be opened, read or written. The message says why and what to do."""


class Store:
    """An ordered key-value store that remembers which Raft entry it stands at.

    A store is a ledger view (`get`, `iterate`). One process owns a store directory at a time.
    """

    def __init__(self, database: plyvel.DB, directory: StoreDirectory) -> None:
        """Use `Store.open`."""
        self._database = database
        self._directory = directory
        self._path = directory.path
        self._raft_index = _read_header(database, directory.path)

    @classmethod
    def open(cls, path: Path, *, files: Files | None = None, boot_id: str | None = None) -> Store:
        """Open the store in directory `path`, creating it (and its parents) when it is missing.

        A store that cannot be trusted after loss of power is set aside, as `path` with the suffix
        `.untrusted`, and begun anew; `known_index` tells up to where it has to be rebuilt, and
        `flush` removes the old one when that was done. `boot_id` names the present boot of the
        machine; the system's own when it is not given.

        Raises `StoreError` when another process holds it, when it is damaged, when it is not a
        store of ours, and when a newer release wrote it. The content is changed in none of these.
        """
        boot_id = read_boot_id() if boot_id is None else boot_id
        directory = _claim(files or SystemFiles(), path, boot_id)
        try:
            database = _open_database(path)
            try:
                store = cls(database, directory)
                if store.raft_index < store.durable_index:
                    raise _damaged(
                        path,
                        f"it stands at index {store.raft_index}, but everything up to "
                        f"{store.durable_index} was on the disk",
                    )
            except BaseException:
                database.close()
                raise
        except BaseException:
            directory.release()
            raise
        return store

    @property
    def raft_index(self) -> int:
        """Index of the last Raft entry whose writes are in the store; 0 in a new store."""
        return self._raft_index

    @property
    def durable_index(self) -> int:
        """The durable mark: everything up to this index is on the disk. 0 in a new store."""
        return self._directory.session.durable_index

    @property
    def known_index(self) -> int:
        """The highest index known to have been applied here; above `raft_index` in a store that is
        to be rebuilt."""
        return max(self._raft_index, self._directory.session.known_index)

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
            raise self._write_error(error) from error
        self._raft_index = raft_index

    def flush(self) -> None:
        """Put everything on the disk and advance the durable mark to `raft_index`.

        The argument that nothing is missing below the mark: asked to compact any range, LevelDB
        first writes its memtable, which is all that is in logs only, into a table; it syncs the
        table, then the directory, then the manifest that names it. The range here is beyond all
        keys, so nothing else is compacted. LevelDB does not say whether that failed, but takes no
        write after it did: hence the write behind it. A synced write alone would not do: it says
        nothing about a log file that was rotated out and is not a table yet.

        Raises `StoreError` when the disk fails; the mark stays where it was.
        """
        low, high = _BEYOND_ALL_KEYS
        try:
            self._database.compact_range(start=low, stop=high)
            with self._database.write_batch(sync=True) as batch:
                batch.put(_RAFT_KEY, _U64.pack(self._raft_index))
            self._directory.note(durable_index=self._raft_index, is_closed=False)
        except (OSError, plyvel.Error) as error:
            raise self._write_error(error) from error

    def close(self) -> None:
        """Put everything on the disk, say so, and release the directory.

        Closing twice is harmless; any other use afterwards raises. Raises `StoreError` when the
        disk fails: the store is not trusted then after a loss of power.
        """
        if self._database.closed:
            return
        try:
            self.flush()
            self._database.close()
            self._directory.note(durable_index=self._raft_index, is_closed=True)
        except OSError as error:
            raise self._write_error(error) from error
        finally:
            self._database.close()
            self._directory.release()

    def _write_error(self, error: Exception) -> StoreError:
        return StoreError(
            f"cannot write to store {self._path}: {error}. "
            "Next: check the disk and its free space, then start the member again."
        )


def _claim(files: Files, path: Path, boot_id: str) -> StoreDirectory:
    try:
        return claim_directory(files, path, boot_id=boot_id, schema=SCHEMA)
    except InUse as error:
        raise StoreError(
            f"store {path} is in use by another process. "
            "Next: stop the member that runs on this directory, then start again."
        ) from error
    except NewerSchema as error:
        raise _other_schema(path, error.schema) from error
    except SessionUnknown as error:
        database = _open_database(path, create=False)
        try:
            _read_header(database, path)  # Better reasons to refuse it come first.
        finally:
            database.close()
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise _cannot_open(path, error) from error


def _open_database(path: Path, *, create: bool = True) -> plyvel.DB:
    _check_not_beheaded(path)
    try:
        return plyvel.DB(
            str(path),
            create_if_missing=create,
            paranoid_checks=True,
            bloom_filter_bits=BLOOM_BITS,
            lru_cache_size=CACHE_BYTES,
            write_buffer_size=WRITE_BUFFER_BYTES,
        )
    except plyvel.CorruptionError as error:
        raise _damaged(path, str(error)) from error
    except (OSError, plyvel.Error) as error:
        raise _cannot_open(path, error) from error


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
        raise _other_schema(path, version)
    raft_index: int = _U64.unpack(index)[0]
    return raft_index


def _other_schema(path: Path, schema: int) -> StoreError:
    return StoreError(
        f"store {path} has schema {schema}; this release knows {SCHEMA}. Nothing was changed. "
        "Next: start the member with the release that wrote it, or a newer one."
    )


def _cannot_open(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"cannot open store {path}: {error}. Next: check the path, its permissions and "
        "the free space of its disk."
    )


def _damaged(path: Path, what: str) -> StoreError:
    return StoreError(
        f"store {path} is damaged: {what}. Next: keep a copy, move the directory away and start "
        "the member again; it rebuilds its state from its journal."
    )
