"""Directories, key files and the profile: what is made, and what is refused when it is read."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from vcp_cluster.cluster.directory import (
    CLIENT_ALLOCATION,
    ClientDirectory,
    MemberDirectory,
    initialise,
    load_directory,
    load_genesis,
    load_seed,
    write_seed,
)
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.cluster.profile import (
    Profile,
    profile_path,
    read_profile,
    remove_profile,
    write_profile,
)
from vcp_cluster.executor.profile import PROFILE_ID
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id, default_parameters
from vcp_cluster.ledger.keys import public_key

MEMBERS = [("c", "10.0.0.3", 7100), ("a", "10.0.0.1", 7100), ("b", "[::1]", 7100)]
CREATED_MS = 1_795_348_800_000


def make(path: Path) -> Genesis:
    return initialise(path, MEMBERS, cluster_name="paris-1", created_ms=CREATED_MS)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_layout_modes_and_content(tmp_path: Path) -> None:
    path = tmp_path / "new" / "paris"
    genesis = make(path)
    files = {str(one.relative_to(path)): one for one in path.rglob("*") if one.is_file()}
    assert sorted(files) == [
        *("a/ca.crt", "a/genesis.json", "a/member.key", "a/tls.pem"),
        *("b/ca.crt", "b/genesis.json", "b/member.key", "b/tls.pem"),
        *("c/ca.crt", "c/genesis.json", "c/member.key", "c/tls.pem"),
        *("ca.crt", "ca.key", "client/client.key", "client/genesis.json"),
        *("genesis.json", "governance.key"),
    ]
    for name, file in files.items():
        if name.endswith("genesis.json"):
            assert load_genesis(file) == genesis
        elif not name.endswith("ca.crt"):
            assert mode_of(file) == 0o600
    assert all(mode_of(path / name) == 0o700 for name in ("a", "b", "c", "client"))
    keys = {name: file.read_text() for name, file in files.items() if mode_of(file) == 0o600}
    assert len(set(keys.values())) == len(keys), "no two share a key"
    assert all(len(text) == 65 for name, text in keys.items() if name.endswith(".key"))
    authorities = {file.read_text() for name, file in files.items() if name.endswith("ca.crt")}
    assert len(authorities) == 1


def test_genesis_says_who_is_who(tmp_path: Path) -> None:
    genesis = make(tmp_path / "paris")
    assert [member.name for member in genesis.members] == ["a", "b", "c"]
    assert [member.address for member in genesis.members] == [
        *("10.0.0.1:7100", "[::1]:7100", "10.0.0.3:7100"),
    ]
    assert (genesis.cluster_name, genesis.created_ms) == ("paris-1", CREATED_MS)
    assert genesis.parameters == default_parameters((PROFILE_ID,))
    seed = load_seed(tmp_path / "paris" / "governance.key")
    assert genesis.governance.keys == (public_key(seed),)
    client = ClientDirectory.load(tmp_path / "paris" / "client")
    assert [(one.account, one.amount) for one in genesis.allocations] == [
        (client.key, CLIENT_ALLOCATION)
    ]
    assert client.endpoints.split(",")[1] == "http://[::1]:7101"


def test_two_clusters_differ(tmp_path: Path) -> None:
    first, second = make(tmp_path / "1"), make(tmp_path / "2")
    assert compute_chain_id(first) != compute_chain_id(second)


def test_member_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    genesis = make(tmp_path / "paris")
    monkeypatch.chdir(tmp_path)
    member = MemberDirectory.load(Path("paris") / "a")
    assert member.path == tmp_path / "paris" / "a"
    assert (member.name, member.host, member.port) == ("a", "10.0.0.1", 7100)
    assert member.address == "10.0.0.1:7100"
    assert member.key == public_key(member.seed) == genesis.members[0].key
    assert member.tls_path.name == "tls.pem"
    assert member.peers == {"b": "[::1]:7100", "c": "10.0.0.3:7100"}
    assert {member.store_path, member.journal_path, member.blobs_path} == {
        member.path / name for name in ("store", "journal", "blobs")
    }


def test_directories_are_told_apart(tmp_path: Path) -> None:
    make(tmp_path / "paris")
    assert isinstance(load_directory(tmp_path / "paris" / "a"), MemberDirectory)
    assert isinstance(load_directory(tmp_path / "paris" / "client"), ClientDirectory)
    for path in (tmp_path / "paris", tmp_path / "none"):
        with pytest.raises(ConfigError, match="not a directory of a member or a client"):
            load_directory(path)


def test_socket_path_is_short_and_always_the_same(tmp_path: Path) -> None:
    make(tmp_path / "s")
    short = MemberDirectory.load(tmp_path / "s" / "a")
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    make(deep)
    paths = [MemberDirectory.load(deep / name).socket_path for name in ("a", "b", "a")]
    assert paths[0] == paths[2] != paths[1]
    assert all(len(os.fsencode(path)) < 100 for path in (short.socket_path, *paths))
    assert paths[0].parent == Path(f"/tmp/vcp-cluster-{os.getuid()}")
    if len(os.fsencode(short.path)) < 80:
        assert short.socket_path == short.path / "run" / "raft.sock"


@pytest.mark.parametrize(
    "members",
    [
        [],
        [("a", "h", 7100)] * 2,
        [("a", "h", 7100), ("b", "h", 7102)],
        [("a", "h", 7100), ("b", "H", 7100)],
        [(f"m{number}", f"h{number}", 7100) for number in range(17)],
        *([(name, "h", 7100)] for name in ("", "A", "a/b", "..", "client", "a" * 33)),
        *([("a", host, 7100)] for host in ("", "0.0.0.0", "[::]", "a b", "a,b", "::1", "h" * 300)),
        *([("a", "h", port)] for port in (-1, 0, 65_534, 65_536)),
    ],
)
def test_members_that_cannot_be(members: list[tuple[str, str, int]], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Next: "):
        initialise(tmp_path / "new", members, cluster_name="x", created_ms=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "ü"])
def test_cluster_names_that_cannot_be(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        initialise(tmp_path / "new", MEMBERS, cluster_name=name, created_ms=1)


def test_allocation_above_the_greatest_amount(tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        initialise(
            tmp_path / "new", MEMBERS, cluster_name="x", created_ms=1, client_allocation=2**63
        )


def test_init_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thing").write_text("")
    (tmp_path / "empty").mkdir()
    for name in ("file", "full", "file/inside"):
        with pytest.raises(ConfigError):
            make(tmp_path / name)
    make(tmp_path / "empty")
    assert os.listdir(tmp_path / "full") == ["thing"]


def test_key_file_is_never_overwritten_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_seed(path, b"\x07" * 32)
    assert load_seed(path) == b"\x07" * 32
    with pytest.raises(ConfigError, match="not overwritten"):
        write_seed(path, b"\x08" * 32)
    with pytest.raises(ConfigError, match="cannot write it"):
        write_seed(tmp_path / "none" / "a.key", b"\x08" * 32)
    with pytest.raises(ValueError, match="32 bytes"):
        write_seed(tmp_path / "b.key", b"short")
    assert os.listdir(tmp_path) == ["a.key"]
    assert load_seed(path) == b"\x07" * 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660, 0o610])
def test_key_file_that_others_can_read(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    write_seed(path, bytes(32))
    path.chmod(mode)
    with pytest.raises(ConfigError) as caught:
        load_seed(path)
    assert caught.value.hint == f"chmod 600 {path}"
    assert f"{mode:04o}" in str(caught.value)
    path.chmod(0o400)
    assert load_seed(path) == bytes(32)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b"00" * 31 + b"\n", b"00" * 33, b"0g" * 32, b"00" * 32 + b"\n\n"),
        *(b" " + b"00" * 32, b"\xff" * 64, "٠".encode() * 64, b"0" * 1_000_000, b"00" * 32 + b"\0"),
    ],
)
def test_key_file_that_is_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.key"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.key"):
        load_seed(path)


def test_key_file_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for name, word in (("none", "does not exist"), ("fifo", "regular"), (".", "directory")):
        with pytest.raises(ConfigError, match=word):
            load_seed(tmp_path / name)


def spoil_json(change: Callable[[dict[str, object]], object]) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps(document))

    return spoil


@pytest.mark.parametrize(
    "spoil",
    [
        Path.unlink,
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: path.write_bytes(b"\xff\xfe"),
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_text(" " * (5 << 20)),
        spoil_json(lambda document: document.update(cluster_name="other")),
        spoil_json(lambda document: document.pop("members")),
        spoil_json(lambda document: document.update(more=1)),
        spoil_json(lambda document: document.update(chain_id=7)),
    ],
)
def test_genesis_file_that_is_none(spoil: Callable[[Path], object], tmp_path: Path) -> None:
    make(tmp_path / "paris")
    spoil(tmp_path / "paris" / "a" / "genesis.json")
    with pytest.raises(ConfigError, match=r"genesis\.json .*Next: "):
        MemberDirectory.load(tmp_path / "paris" / "a")


def test_key_of_another_cluster_is_not_a_members(tmp_path: Path) -> None:
    make(tmp_path / "1")
    make(tmp_path / "2")
    (tmp_path / "2" / "a" / "member.key").replace(tmp_path / "1" / "a" / "member.key")
    with pytest.raises(ConfigError, match="not the key of a member"):
        MemberDirectory.load(tmp_path / "1" / "a")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty configuration directory."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


PROFILE = Profile(cluster="http://a:7101,http://b:7101", directory="/c", chain_id="0f" * 16)


def test_profile_is_written_read_replaced_and_removed(home: Path) -> None:
    assert read_profile() is None
    path = write_profile(PROFILE)
    assert path == home / "vcp-cluster" / "profile.json"
    assert json.loads(path.read_text()) == {
        "schema": "vcp/profile/v1",
        "cluster": "http://a:7101,http://b:7101",
        "dir": "/c",
        "chain_id": "0f" * 16,
    }
    assert read_profile() == PROFILE
    other = Profile(cluster="http://z:1", directory="/z", chain_id="aa" * 16)
    write_profile(other)
    remove_profile(PROFILE)
    assert read_profile() == other
    remove_profile(other)
    assert read_profile() is None
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{}", b"[]", b"\xff", b"[" * 10_000, b" " * 70_000),
        b'{"schema":"vcp/profile/v2","cluster":"c","dir":"d","chain_id":"' + b"0f" * 16 + b'"}',
        b'{"schema":"vcp/profile/v1","cluster":"c","dir":"d","chain_id":"0f"}',
        b'{"schema":"vcp/profile/v1","cluster":7,"dir":"d","chain_id":"' + b"0f" * 16 + b'"}',
    ],
)
def test_profile_that_is_none(content: bytes, home: Path) -> None:
    path = profile_path()
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"remove the file"):
        read_profile()
    remove_profile(PROFILE)
    assert path.read_bytes() == content


def test_profile_where_nothing_can_be_written(home: Path) -> None:
    home.write_text("a file")
    assert read_profile() is None
    with pytest.raises(ConfigError, match="cannot write it"):
        write_profile(PROFILE)


def test_relative_configuration_home_counts_as_unset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", "config")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert profile_path() == tmp_path / ".config" / "vcp-cluster" / "profile.json"
