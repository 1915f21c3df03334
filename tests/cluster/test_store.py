"""The store: a view in key order, whole entries only, one owner, and clear refusals."""

import errno
import os
import random
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import plyvel
import pytest

from vcp_cluster.cluster.files import SystemFiles
from vcp_cluster.cluster.store import SCHEMA, Store, StoreError
from vcp_cluster.cluster.store_session import Session, read_session, write_session

WRITER = """
import sys
from pathlib import Path
from vcp_cluster.cluster.store import Store
store = Store.open(Path(sys.argv[1]))
print("open", flush=True)
while True:
    index = store.raft_index + 1
    value = index.to_bytes(8, "big") * 50
    store.commit([(b"k%d" % each, value) for each in range(20)], raft_index=index)
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "deep" / "store")
    yield store
    store.close()


def test_get_and_iterate_agree_with_a_sorted_dictionary(store: Store) -> None:
    rng = random.Random(7)
    keys = [bytes(rng.choices(b"\x00a\xfe\xff", k=rng.randint(1, 4))) for _ in range(120)]
    keys = [key for key in keys if key[:1] != b"\xff"]
    model: dict[bytes, bytes] = {}
    for index in range(1, 40):
        writes = [(key, rng.choice([None, rng.randbytes(5)])) for key in rng.sample(keys, 6)]
        store.commit(writes, raft_index=index)
        for key, value in writes:
            if value is None:
                model.pop(key, None)
            else:
                model[key] = value
    assert model
    for prefix in {key[:length] for key in keys for length in range(4)} | {b"", b"zz"}:
        rows = sorted((k, v) for k, v in model.items() if k.startswith(prefix))
        assert list(store.iterate(prefix)) == rows
        assert list(store.iterate(prefix, reverse=True)) == rows[::-1]
        for start in [b"", b"\xff", *rng.sample(keys, 10)]:
            upward = [row for row in rows if row[0] >= start]
            downward = [row for row in rows[::-1] if row[0] <= start]
            assert list(store.iterate(prefix, start=start)) == upward
            assert list(store.iterate(prefix, start=start, reverse=True)) == downward
    assert all(store.get(key) == model.get(key) for key in keys)


def test_an_iterator_does_not_see_later_commits(store: Store) -> None:
    store.commit([(b"a", b"1"), (b"b", b"1")], raft_index=1)
    rows = store.iterate(b"")
    assert next(rows) == (b"a", b"1")
    store.commit([(b"b", None), (b"c", b"2")], raft_index=2)
    assert list(rows) == [(b"b", b"1")]


def test_the_last_write_of_a_key_in_an_entry_counts(store: Store) -> None:
    store.commit([(b"a", b"1"), (b"a", None), (b"b", None), (b"b", b"2")], raft_index=1)
    assert (store.get(b"a"), store.get(b"b")) == (None, b"2")


@pytest.mark.parametrize("index", [0, 1, 3, 2**40])
def test_an_index_that_is_not_the_next_changes_nothing(store: Store, index: int) -> None:
    store.commit([(b"a", b"1")], raft_index=1)
    with pytest.raises(StoreError, match="stands at Raft index 1"):
        store.commit([(b"a", b"2")], raft_index=index)
    assert (store.raft_index, store.get(b"a")) == (1, b"1")


def test_the_stores_own_keys_cannot_be_written_nor_listed(store: Store) -> None:
    with pytest.raises(StoreError, match="belongs to the store"):
        store.commit([(b"a", b"1"), (b"\xffraft", b"2")], raft_index=1)
    assert (store.raft_index, store.get(b"a")) == (0, None)
    assert list(store.iterate(b"\xff")) == []


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    store.commit([(b"a", b"1")], raft_index=1)
    store.close()
    store.close()
    again = Store.open(tmp_path / "store")
    assert (again.raft_index, list(again.iterate(b""))) == (1, [(b"a", b"1")])
    again.close()


def test_a_process_killed_while_writing_leaves_whole_entries(tmp_path: Path) -> None:
    reached = 0
    for _ in range(5):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None and writer.stdout.readline() == b"open\n"
            with pytest.raises(subprocess.TimeoutExpired):
                writer.wait(0.15)
            writer.kill()
        store = Store.open(tmp_path / "store")
        assert store.raft_index > reached
        reached = store.raft_index
        values = {value for _, value in store.iterate(b"k")}
        assert values == {reached.to_bytes(8, "big") * 50}
        store.close()


def test_a_log_cut_anywhere_in_its_last_entry_opens_without_it(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")
    (log,) = (tmp_path / "store").glob("*.log")
    store.commit([(b"a", b"1"), (b"b", b"1")], raft_index=1)
    before = log.stat().st_size
    store.commit([(b"a", b"2"), (b"b", b"2")], raft_index=2)
    after = log.stat().st_size
    shutil.copytree(tmp_path / "store", tmp_path / "killed")
    store.close()
    for size in range(before, after):
        shutil.copytree(tmp_path / "killed", tmp_path / "cut")
        with (tmp_path / "cut" / log.name).open("r+b") as file:
            file.truncate(size)
        cut = Store.open(tmp_path / "cut")
        assert (cut.raft_index, cut.get(b"a"), cut.get(b"b")) == (1, b"1", b"1")
        cut.close()
        shutil.rmtree(tmp_path / "cut")


def test_a_second_owner_is_refused(store: Store, tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "deep" / "store")]
    other = subprocess.run(command, capture_output=True, text=True, check=False)
    assert other.returncode == 1
    assert "in use by another process" in other.stderr
    store.commit([(b"a", b"1")], raft_index=1)


def test_a_newer_schema_is_refused_untouched(tmp_path: Path) -> None:
    content = {b"\xffschema": (SCHEMA + 1).to_bytes(4, "big"), b"a": b"of a later release"}
    _fill(tmp_path, content)
    with pytest.raises(StoreError, match=f"has schema {SCHEMA + 1}"):
        _fill_header(tmp_path)
    database = plyvel.DB(str(tmp_path))
    assert dict(database.iterator())[b"a"] == b"of a later release"
    assert database.get(b"\xffschema") == (SCHEMA + 1).to_bytes(4, "big")
    database.close()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({b"a": b"1"}, "not a store of a member"),
        ({b"\xffschema": b"\0\0\0\1"}, "damaged"),
        ({b"\xffschema": b"\0\0\0\1", b"\xffraft": b"1"}, "damaged"),
        ({b"\xffschema": b"1", b"\xffraft": bytes(8)}, "damaged"),
    ],
)
def test_a_foreign_or_damaged_header_is_refused(
    tmp_path: Path, content: dict[bytes, bytes], complaint: str
) -> None:
    _fill(tmp_path, content)
    with pytest.raises(StoreError, match=complaint):
        Store.open(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "how"),
    [
        ("CURRENT", "flip"),
        ("CURRENT", "remove"),
        ("MANIFEST-*", "flip"),
        ("MANIFEST-*", "remove"),
        ("*.log", "flip"),
    ],
)
def test_damage_is_refused(tmp_path: Path, pattern: str, how: str) -> None:
    store = Store.open(tmp_path / "store")
    for index in range(1, 50):
        store.commit([(b"k%d" % index, bytes(100))], raft_index=index)
    store.close()
    (victim,) = (tmp_path / "store").glob(pattern)
    data = bytearray(victim.read_bytes())
    data[len(data) // 3] ^= 0x40
    if how == "flip":
        victim.write_bytes(data)
    else:
        victim.unlink()
    with pytest.raises(StoreError, match=r"damaged|cannot open"):
        Store.open(tmp_path / "store")


def test_a_path_that_cannot_be_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot open store"):
        Store.open(tmp_path / "file" / "store")


# Loss of power


BOOT = "5b1c9a9e-0000-4000-8000-000000000001"
NEXT_BOOT = "5b1c9a9e-0000-4000-8000-000000000002"


def leave_killed(tmp_path: Path, *, count: int = 3, flushed: int = 0) -> Path:
    """What a process leaves that applied `count` entries and was killed, `flushed` of them before
    a flush."""
    store = Store.open(tmp_path / "running", boot_id=BOOT)
    for index in range(1, count + 1):
        store.commit([(b"k%d" % index, b"%d" % index * 1_000)], raft_index=index)
        if index == flushed:
            store.flush()
    path = tmp_path / "store"
    shutil.copytree(tmp_path / "running", path)
    store.close()
    return path


def aside(path: Path) -> Path:
    return path.with_name("store.untrusted")


def test_a_store_is_trusted_after_a_kill_or_an_orderly_stop(tmp_path: Path) -> None:
    path = leave_killed(tmp_path)
    store = Store.open(path, boot_id=BOOT)
    assert (store.raft_index, store.known_index, store.durable_index) == (3, 3, 0)
    store.close()
    store = Store.open(path, boot_id=NEXT_BOOT)
    assert (store.raft_index, store.known_index, store.durable_index) == (3, 3, 3)
    assert [key for key, _ in store.iterate(b"")] == [b"k1", b"k2", b"k3"]
    store.close()
    assert not aside(path).exists()


@pytest.mark.parametrize("boot_id", [NEXT_BOOT, ""])
def test_after_a_loss_of_power_a_store_is_begun_anew(
    tmp_path: Path, boot_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = leave_killed(tmp_path, flushed=2)
    store = Store.open(path, boot_id=boot_id)
    assert "it is rebuilt from the journal" in caplog.text
    assert (store.raft_index, store.known_index, store.durable_index) == (0, 2, 0)
    assert list(store.iterate(b"")) == []
    for index in (1, 2):
        assert aside(path).is_dir()
        store.commit([], raft_index=index)
    store.flush()
    assert (store.known_index, store.durable_index) == (2, 2)
    assert not aside(path).exists()
    store.close()
    again = Store.open(path, boot_id=BOOT)
    assert again.raft_index == 2
    again.close()


def test_a_rebuild_survives_kills_and_further_losses_of_power(tmp_path: Path) -> None:
    path = leave_killed(tmp_path, flushed=3)
    store = Store.open(path, boot_id=NEXT_BOOT)
    store.commit([], raft_index=1)
    store.close()
    store = Store.open(path, boot_id=BOOT)
    assert (store.raft_index, store.known_index) == (1, 3)
    shutil.copytree(path, tmp_path / "again" / "store")
    shutil.copytree(aside(path), aside(tmp_path / "again" / "store"))
    store.close()
    store = Store.open(tmp_path / "again" / "store", boot_id=NEXT_BOOT)
    assert (store.raft_index, store.known_index) == (0, 3)
    rows = dict(plyvel.DB(str(aside(tmp_path / "again" / "store"))).iterator(prefix=b"k"))
    assert list(rows) == [b"k1", b"k2", b"k3"]
    store.close()


def test_an_unclean_store_without_its_database_is_still_known(tmp_path: Path) -> None:
    """The power went between setting the old one aside and beginning the new one."""
    path = leave_killed(tmp_path, flushed=3)
    path.rename(aside(path))
    store = Store.open(path, boot_id=NEXT_BOOT)
    assert (store.raft_index, store.known_index) == (0, 3)
    store.close()


def test_a_store_that_cannot_be_synced_after_a_kill_is_not_trusted(tmp_path: Path) -> None:
    """The kernel failed to write a page in the background, and tells whoever syncs next."""

    class Failing(SystemFiles):
        def __init__(self, victim: int) -> None:
            self.victim = victim

        def fdatasync(self, file: int) -> None:
            if os.fstat(file).st_ino == self.victim:
                raise OSError(errno.EIO, "Input/output error")
            super().fdatasync(file)

    path = leave_killed(tmp_path)
    (log,) = path.glob("*.log")
    store = Store.open(path, boot_id=BOOT, files=Failing(log.stat().st_ino))
    assert store.raft_index == 0
    assert aside(path).is_dir()
    store.close()


def test_below_the_durable_mark_nothing_depends_on_a_log(tmp_path: Path) -> None:
    """All logs are lost, which is the worst that a power cut can do; what was flushed is there."""
    path = leave_killed(tmp_path, count=40, flushed=30)
    for log in path.glob("*.log"):
        log.write_bytes(b"")
    database = plyvel.DB(str(path))
    rows = dict(database.iterator(prefix=b"k"))
    assert set(rows) == {b"k%d" % index for index in range(1, 31)}
    assert database.get(b"\xffraft") == (30).to_bytes(8, "big")
    database.close()


def test_a_flush_that_fails_does_not_advance_the_mark(tmp_path: Path) -> None:
    """Files may not grow beyond 64 KiB: LevelDB cannot write its table, and keeps it to itself."""
    store = Store.open(tmp_path / "store")
    rng = random.Random(1)
    store.commit([(b"a", b"1")], raft_index=1)
    store.flush()
    store.commit([(b"k", rng.randbytes(200_000))], raft_index=2)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 10, hard))
    try:
        with pytest.raises(StoreError, match="cannot write"):
            store.flush()
        assert store.durable_index == 1
        with pytest.raises(StoreError, match="cannot write"):
            store.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    again = Store.open(tmp_path / "store")
    assert (again.raft_index, again.durable_index) == (2, 1)
    again.close()


def test_a_store_behind_its_durable_mark_is_refused(tmp_path: Path) -> None:
    path = leave_killed(tmp_path, count=2, flushed=2)
    session = read_session(SystemFiles(), path)
    write_session(SystemFiles(), path, msgspec.structs.replace(session, durable_index=9))
    with pytest.raises(StoreError, match="stands at index 2, but everything up to 9"):
        Store.open(path, boot_id=BOOT)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "no file SESSION"),
        (b"", "cannot be understood"),
        (b"\xff" * 5_000, "cannot be understood"),
        (b'{"format":2}', "cannot be understood"),
        (msgspec.json.encode(Session(2, SCHEMA, "", True, 0, 0)), "has format 2"),
        (
            msgspec.json.encode(Session(1, SCHEMA + 1, "", False, 0, 0)),
            "has schema 2; this release knows 1. Nothing was changed",
        ),
    ],
)
def test_a_session_that_is_not_understood_is_refused(
    tmp_path: Path, content: bytes | None, complaint: str
) -> None:
    path = leave_killed(tmp_path)
    if content is None:
        (path / "SESSION").unlink()
    else:
        (path / "SESSION").write_bytes(content)
    with pytest.raises(StoreError, match=complaint):
        Store.open(path, boot_id=BOOT)
    assert not aside(path).exists()
    database = plyvel.DB(str(path))
    assert database.get(b"k3") is not None
    database.close()


def _fill(path: Path, content: dict[bytes, bytes]) -> None:
    database = plyvel.DB(str(path), create_if_missing=True)
    for key, value in content.items():
        database.put(key, value)
    database.close()


def _fill_header(path: Path) -> None:
    database = plyvel.DB(str(path))
    database.put(b"\xffraft", bytes(8))
    database.close()
    Store.open(path)
