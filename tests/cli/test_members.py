"""`init`, `join` and `worker run`: the commands that make and start things."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from vcp_cluster.cluster.directory import MemberDirectory, load_seed
from vcp_cluster.cluster.errors import Unavailable
from vcp_cluster.cluster.profile import read_profile
from vcp_cluster.cluster.worker.events import EventKind, WorkerEvent
from vcp_cluster.cluster.worker.faults import Fault

from .conftest import TASK, Run

MEMBERS = "c=10.0.0.3:7100,a=10.0.0.1:7100,b=10.0.0.2:7100"
PEERS = "10.0.0.1:7100,10.0.0.2:7100,10.0.0.3:7100"


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Directories that `join` started a member in; the member ends with code 9."""
    paths: list[Path] = []

    def run_member(path: Path) -> int:
        paths.append(path)
        return 9

    monkeypatch.setattr("vcp_cluster.cluster.member.run_member", run_member)
    return paths


def test_init_makes_a_cluster_and_the_profile(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "paris"
    result = run("init", "--members", MEMBERS, "--dir", path, "--name", "paris-1", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == "vcp/init/v1"
    assert [one["id"] for one in document["members"]] == ["a", "b", "c"]
    member = MemberDirectory.load(path / "b")
    assert (member.name, member.address) == ("b", "10.0.0.2:7100")
    profile = read_profile()
    assert profile is not None
    assert profile.chain_id == document["chain_id"]
    assert profile.directory == str(path / "client")
    assert profile.cluster.split(",")[0] == "http://10.0.0.1:7101"


def test_init_prints_the_next_commands(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "paris"
    text = run("init", "--members", MEMBERS, "--dir", path).stdout
    for name in ("a", "b", "c"):
        assert f"next: vcp-cluster join --dir {path / name}\n" in text
    assert "1\u202f000\u202f000.000000 VCP" in text


def test_init_goes_on_without_a_home(run: Run, tmp_path: Path, home: Path) -> None:
    home.write_text("a file where the directory should be")
    result = run("init", "--members", MEMBERS, "--dir", tmp_path / "paris", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["profile"] is None
    assert "--dir" in result.stderr


@pytest.mark.parametrize(
    ("members", "word"),
    [
        ("a", "NAME=HOST:PORT"),
        ("a=10.0.0.1:7100,a=10.0.0.2:7100", "share one name"),
        ("A=10.0.0.1:7100", "members"),
        ("client=10.0.0.1:7100", "client"),
        ("a=10.0.0.1:7100,b=10.0.0.1:7102", "port 7102"),
        ("a=0.0.0.0:7100", "0.0.0.0"),
        ("a=h:65534", "65534"),
        ("a=h:0", "not 1 to"),
        ("a=ho st:7100", "ho st"),
    ],
)
def test_init_refuses_members_that_cannot_be(
    members: str, word: str, run: Run, tmp_path: Path
) -> None:
    result = run("init", "--members", members, "--dir", tmp_path / "new")
    assert result.exit_code == 2
    assert word in result.stderr
    assert not (tmp_path / "new").exists()


def test_init_refuses_a_directory_with_something_in_it(run: Run, directory: Path) -> None:
    before = sorted(directory.rglob("*"))
    result = run("init", "--members", MEMBERS, "--dir", directory)
    assert result.exit_code == 2
    assert "not empty" in result.stderr
    assert sorted(directory.rglob("*")) == before


def test_join_starts_the_member_and_ends_with_its_code(
    run: Run, directory: Path, started: list[Path]
) -> None:
    result = run("join", "--dir", directory / "a", "--peers", PEERS.replace(",", " , "))
    assert result.exit_code == 9, result.stderr
    assert started == [directory / "a"]


@pytest.mark.parametrize(
    "peers",
    [
        "10.0.0.1:7100,10.0.0.2:7100",
        f"{PEERS},10.0.0.4:7100",
        PEERS.replace("10.0.0.3", "10.0.0.4"),
        "",
    ],
)
def test_join_refuses_other_peers_than_genesis(
    peers: str, run: Run, directory: Path, started: list[Path]
) -> None:
    result = run("join", "--dir", directory / "a", "--peers", peers)
    assert result.exit_code == 2
    assert f"--peers {PEERS}" in result.stderr
    assert started == []


def test_join_finds_the_only_directory_here(
    run: Run,
    directory: Path,
    tmp_path: Path,
    started: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = tmp_path / "machine"
    machine.mkdir()
    (directory / "b").rename(machine / "b")
    monkeypatch.chdir(machine)
    assert run("join", "--peers", PEERS).exit_code == 9
    monkeypatch.chdir(machine / "b")
    assert run("join").exit_code == 9
    assert started == [machine / "b"] * 2


def test_join_without_a_directory_says_how_to_make_one(
    run: Run,
    directory: Path,
    tmp_path: Path,
    started: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    result = run("join", "--peers", PEERS)
    assert result.exit_code == 2
    assert "vcp-cluster init --members" in result.stderr
    monkeypatch.chdir(directory)
    result = run("join")
    assert result.exit_code == 2
    assert "a, b, c" in result.stderr
    result = run("join", "--dir", empty)
    assert result.exit_code == 2
    assert "vcp-cluster init --members" in result.stderr
    assert started == []


def test_join_refuses_a_key_that_others_can_read(
    run: Run, directory: Path, started: list[Path]
) -> None:
    for name in ("member.key",):
        path = directory / "a" / name
        path.chmod(0o644)
        result = run("join", "--dir", directory / "a")
        assert result.exit_code == 2
        assert f"Next: chmod 600 {path}" in result.stderr
        path.chmod(0o600)
    assert started == []


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """How `run_worker` was called; it reports one event and returns."""
    calls: list[dict[str, Any]] = []

    def run_worker(**arguments: Any) -> None:
        calls.append(arguments)
        arguments["on_event"](WorkerEvent(EventKind.PROVEN, TASK, "ok\x1b"))

    monkeypatch.setattr("vcp_cluster.cluster.worker.run_worker", run_worker)
    # The handlers of this test process stay as they are.
    monkeypatch.setattr("vcp_cluster.cli.worker._stop_on_signals", threading.Event)
    return calls


def test_worker_makes_its_key_once(run: Run, tmp_path: Path, worker: list[dict[str, Any]]) -> None:
    key = tmp_path / "worker.key"
    arguments = ("worker", "run", "--cluster", "http://h:1", "--key", key, "--device", "gateway")
    for _ in range(2):
        result = run(*arguments, "--capacity", "3")
        assert result.exit_code == 0, result.stderr
    first, second = worker
    assert first["seed"] == second["seed"] == load_seed(key)
    assert (first["endpoints"], first["capacity"], first["fault"]) == ("http://h:1", 3, None)
    assert first["device"].name == "gateway"
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1] == "task 7d7d7d7d7d7d proven: ok\ufffd"


def test_worker_as_ndjson(run: Run, tmp_path: Path, worker: list[dict[str, Any]]) -> None:
    arguments = ("--cluster", "http://h:1", "--key", tmp_path / "k", "--fault", "wrong-output")
    result = run("worker", "run", *arguments, "-o", "ndjson")
    event = json.loads(result.stdout)
    assert event == {
        "schema": "vcp/worker-event/v1",
        "event": "proven",
        "task": TASK,
        "detail": "ok\x1b",
    }
    assert worker[0]["fault"] is Fault.WRONG_OUTPUT
    assert "lies on purpose" in result.stderr
    assert "--fault" not in run("worker", "run", "--help").stdout


@pytest.mark.parametrize(
    "arguments",
    [("--device", "toaster"), ("--capacity", "0"), ("--capacity", "65"), ("--fault", "none")],
)
def test_worker_refuses_what_it_does_not_know(
    arguments: tuple[str, str], run: Run, tmp_path: Path, worker: list[dict[str, Any]]
) -> None:
    key = tmp_path / "worker.key"
    result = run("worker", "run", "--cluster", "http://h:1", "--key", key, *arguments)
    assert result.exit_code == 2
    assert worker == []
    assert not key.exists()


def test_worker_passes_errors_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: list[dict[str, Any]]
) -> None:
    def fail(**_: Any) -> None:
        raise Unavailable("nobody answers")

    monkeypatch.setattr("vcp_cluster.cluster.worker.run_worker", fail)
    result = run("worker", "run", "--cluster", "http://h:1", "--key", tmp_path / "k")
    assert result.exit_code == 3
