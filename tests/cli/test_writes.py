"""Commands that sign: what reaches the client, what is printed, what never gets that far."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vcp_cluster.cli.values import GROUP_SPACE
from vcp_cluster.cluster.directory import ClientDirectory, MemberDirectory, load_seed, write_seed
from vcp_cluster.cluster.errors import NotReady, Timeout
from vcp_cluster.cluster.profile import Profile, write_profile
from vcp_cluster.ledger.keys import public_key
from vcp_cluster.ledger.operations import SealBatch

from .conftest import NODE, TASK, FakeClient, Run

RECEIPT = f"vcp-cluster receipt export {TASK[:12]} --out {TASK[:12]}.receipt"


@pytest.fixture
def client_arguments(directory: Path) -> tuple[str, str]:
    """`--dir` of the funded client."""
    return ("--dir", str(directory / "client"))


@pytest.fixture
def module(tmp_path: Path) -> Path:
    """A file to submit; whether it is WebAssembly is the client's to find out."""
    path = tmp_path / "task.wasm"
    path.write_bytes(b"\0asm\1\0\0\0")
    return path


def submit(run: Run, module: Path, *arguments: object, **options: Any) -> Any:
    return run("task", "submit", "--module", module, "--reward", "10.5", *arguments, **options)


def test_submit_passes_limits_on_and_prints_the_id(
    run: Run, fake: FakeClient, module: Path, client_arguments: tuple[str, str]
) -> None:
    limits = ("--entry-point", "go", "--gas", 5, "--memory", "1MiB", "--time", "2s")
    more = ("--deadline", "9s", "--output-size", "1KiB", "--input", "-")
    result = submit(run, module, *limits, *more, *client_arguments, "-q", input=b"in")
    assert (result.exit_code, result.stdout) == (0, f"{TASK}\n"), result.stderr
    _, code, data, passed = fake.calls[0]
    assert (code, data) == (module.read_bytes(), b"in")
    assert passed == {
        "reward": 10_500_000,
        "entry_point": "go",
        "gas_limit": 5,
        "memory_bytes_max": 1 << 20,
        "run_ms_max": 2_000,
        "output_bytes_max": 1_024,
        "deadline_ms": 9_000,
    }


def test_submit_without_waiting_says_how_to_follow(
    run: Run, fake: FakeClient, module: Path, client_arguments: tuple[str, str]
) -> None:
    result = submit(run, module, *client_arguments)
    assert f"next: vcp-cluster task watch {TASK[:12]}" in result.stdout


def test_submit_and_wait_prints_text_and_the_receipts_command(
    run: Run, fake: FakeClient, module: Path, client_arguments: tuple[str, str]
) -> None:
    fake.output_bytes = "grüße\tund\r\nzeilen\n".encode()
    result = submit(run, module, "--wait", *client_arguments, "--timeout", "90s")
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.replace(GROUP_SPACE, " ").splitlines()
    assert lines[1] == "status  settled, 1 250.500000 VCP to node 9c9c9c9c9c9c"
    assert lines[-4:] == ["grüße\tund", "zeilen", "", f"receipt: {RECEIPT}"]
    assert fake.calls[1] == ("wait_task", TASK, 90.0)


@pytest.mark.parametrize("data", [b"\xff\x00" * 2_000, b"\x1b[2Jtext", b"a\rb"])
def test_output_that_is_not_text_is_shown_in_hexadecimal(
    data: bytes, run: Run, fake: FakeClient, module: Path, client_arguments: tuple[str, str]
) -> None:
    fake.output_bytes = data
    result = submit(run, module, "--wait", *client_arguments)
    assert data[:4].hex() in result.stdout
    assert "\x1b" not in result.stdout
    assert f"vcp-cluster task output {TASK[:12]} --out" in result.stdout
    assert RECEIPT in result.stdout


def test_long_text_is_cut_and_says_so(
    run: Run, fake: FakeClient, module: Path, client_arguments: tuple[str, str]
) -> None:
    fake.output_bytes = "é".encode() * 20_000
    result = submit(run, module, "--wait", *client_arguments)
    assert result.stdout.count("é") == 16 * 1024
    assert f"vcp-cluster task output {TASK[:12]} --out" in result.stdout


def test_submit_and_wait_in_json_is_one_document(
    run: Run, fake: FakeClient, module: Path, client_arguments: tuple[str, str]
) -> None:
    document = json.loads(submit(run, module, "--wait", *client_arguments, "--json").stdout)
    assert (document["schema"], document["id"]) == ("vcp/task/v1", TASK)


def test_task_that_ends_without_a_result_is_a_failure(
    run: Run, fake: FakeClient, module: Path, client_arguments: tuple[str, str]
) -> None:
    task = fake.documents["task"]
    task.update(status="expired", assignments=task["assignments"][:1], attempts=1)
    result = submit(run, module, "--wait", *client_arguments)
    assert result.exit_code == 1
    assert "the reward came back" in result.stdout
    assert "ended as failed (timeout:" in result.stdout


def test_waiting_too_long_does_not_invite_a_second_submission(
    run: Run,
    fake: FakeClient,
    module: Path,
    client_arguments: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wait_task(task: str, **_: object) -> None:
        raise Timeout(f"task {task[:12]} is still open", next_step="wait longer")

    monkeypatch.setattr(fake, "wait_task", wait_task)
    result = submit(run, module, "--wait", *client_arguments)
    assert result.exit_code == 3
    assert f"Next: vcp-cluster task watch {TASK[:12]}" in result.stderr


@pytest.mark.parametrize("case", ["missing", "directory", "large"])
def test_file_that_cannot_be_submitted(
    case: str,
    run: Run,
    fake: FakeClient,
    tmp_path: Path,
    module: Path,
    client_arguments: tuple[str, str],
) -> None:
    path = {"missing": tmp_path / "none", "directory": tmp_path, "large": module}[case]
    if case == "large":
        module.write_bytes(bytes((4 << 20) + 1))
    result = submit(run, path, *client_arguments)
    assert result.exit_code == 2
    assert "--module" in result.stderr
    assert fake.calls == []


def test_transfer_signs_with_the_directorys_key(
    run: Run, fake: FakeClient, directory: Path, client_arguments: tuple[str, str]
) -> None:
    result = run("account", "transfer", NODE, "1250.5", *client_arguments)
    assert result.exit_code == 0, result.stderr
    client = ClientDirectory.load(directory / "client")
    assert fake.made == [
        {
            "endpoints": "http://10.0.0.1:7101,http://10.0.0.2:7101,http://10.0.0.3:7101",
            "seed": client.seed,
            "genesis": client.genesis,
            "timeout_s": 30.0,
        }
    ]
    assert fake.calls == [("transfer", NODE, 1_250_500_000)]
    assert "outcome      ok, applied" in result.stdout


def test_transfer_resolves_a_shortened_account(
    run: Run, fake: FakeClient, client_arguments: tuple[str, str]
) -> None:
    result = run("account", "transfer", "abab", "1", *client_arguments, "--json")
    assert json.loads(result.stdout)["schema"] == "vcp/receipt/v1"
    assert fake.calls == [("account", "abab"), ("transfer", "ab" * 32, 1_000_000)]


@pytest.mark.parametrize(
    "arguments",
    [
        ("account", "transfer", NODE, "12.5"),
        ("account", "mint", NODE, "12.5"),
        ("task", "cancel", "7d7d"),
    ],
)
def test_dry_run_sends_nothing(
    arguments: tuple[str, ...], run: Run, fake: FakeClient, client_arguments: tuple[str, str]
) -> None:
    result = run(*arguments, *client_arguments, "--dry-run", "--json")
    assert json.loads(result.stdout)["schema"] == "vcp/plan/v1"
    assert {call[0] for call in fake.calls} <= {"task"}


def test_dry_run_of_a_submission_needs_no_cluster(run: Run, fake: FakeClient, module: Path) -> None:
    result = submit(run, module, "--dry-run")
    assert "10.500000 VCP" in result.stdout
    assert fake.made == []


def test_mint_takes_the_governance_keys(run: Run, fake: FakeClient, directory: Path) -> None:
    key, other = directory / "governance.key", directory / "client" / "client.key"
    arguments = ("--key", key, "--cosigner", other, "--dir", directory / "client")
    assert run("account", "mint", NODE, "1", *arguments).exit_code == 0
    assert fake.made[0]["seed"] == load_seed(key)
    assert fake.calls == [("mint", NODE, 1_000_000, load_seed(other))]


def test_cancel_names_the_whole_task(
    run: Run, fake: FakeClient, client_arguments: tuple[str, str]
) -> None:
    assert run("task", "cancel", "7d7d", *client_arguments).exit_code == 0
    assert fake.calls[-1] == ("cancel_task", TASK)


def test_seal_takes_the_open_batch_and_a_members_key(
    run: Run, fake: FakeClient, directory: Path
) -> None:
    assert run("batch", "seal", "--dir", directory / "a").exit_code == 0
    assert fake.made[0]["seed"] == MemberDirectory.load(directory / "a").seed
    assert fake.calls == [("batches",), ("submit", SealBatch(2))]


def test_account_create_makes_a_key_once(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "alice.key"
    result = run("account", "create", "--out", path, "-q")
    assert result.stdout == f"{public_key(load_seed(path)).hex()}\n"
    assert path.stat().st_mode & 0o777 == 0o600
    again = run("account", "create", "--out", path)
    assert again.exit_code == 2
    assert "not overwritten" in again.stderr


def test_order_in_which_a_cluster_is_found(
    run: Run, fake: FakeClient, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = ClientDirectory.load(directory / "client")
    write_profile(
        Profile(cluster="http://profile:1", directory=str(directory / "client"), chain_id="0f" * 16)
    )
    run("task", "list", "--mine")
    run("task", "list", "--mine", "--dir", directory / "a")
    monkeypatch.setenv("VCP_CLUSTER", "http://variable:1")
    run("task", "list", "--mine", "--dir", directory / "client")
    run("task", "list", "--mine", "--cluster", "http://flag:1")
    found = [one["endpoints"] for one in fake.made]
    assert found == ["http://profile:1", client.endpoints, "http://variable:1", "http://flag:1"]
    member = MemberDirectory.load(directory / "a")
    assert [one["seed"] for one in fake.made] == [client.seed, member.seed, *[client.seed] * 2]
    # A genesis is given where it belongs to the cluster that was named, and not by accident.
    given = [one["genesis"] for one in fake.made]
    assert given == [client.genesis, client.genesis, client.genesis, None]


def test_nothing_names_a_cluster(run: Run, fake: FakeClient) -> None:
    result = run("status")
    assert result.exit_code == 2
    assert "--cluster" in result.stderr


def test_nothing_gives_a_key(run: Run, fake: FakeClient) -> None:
    result = run("account", "show", "--cluster", "http://127.0.0.1:1")
    assert result.exit_code == 2
    assert "--key FILE" in result.stderr
    assert run("account", "show", "abab", "--cluster", "http://127.0.0.1:1").exit_code == 0


def test_key_that_others_can_read_is_refused(run: Run, fake: FakeClient, tmp_path: Path) -> None:
    key = tmp_path / "alice.key"
    write_seed(key, bytes(32))
    key.chmod(0o640)
    result = run("account", "show", "--cluster", "http://127.0.0.1:1", "--key", key)
    assert result.exit_code == 2
    assert f"Next: chmod 600 {key}" in result.stderr
    assert fake.made == []


@pytest.mark.parametrize("given", ["nothing", "parent"])
def test_directory_that_is_none(
    given: str, run: Run, fake: FakeClient, directory: Path, tmp_path: Path
) -> None:
    path = directory if given == "parent" else tmp_path / "none"
    result = run("status", "--dir", path)
    assert result.exit_code == 2
    hint = f"--dir {directory / 'client'}" if given == "parent" else "vcp-cluster init --members"
    assert hint in result.stderr


def test_export_writes_the_receipt(run: Run, fake: FakeClient, tmp_path: Path) -> None:
    out, cluster = tmp_path / "payout.receipt", ("--cluster", "http://127.0.0.1:1")
    result = run("receipt", "export", "7d7d", "--out", out, *cluster)
    assert result.exit_code == 0, result.stderr
    assert out.read_text() == "-----BEGIN\n"
    assert f"vcp-cluster receipt verify {out}" in result.stdout
    assert run("receipt", "export", "7d7d", "--out", "-", *cluster).stdout == "-----BEGIN\n"


def test_export_waits_only_when_asked(
    run: Run, fake: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[Any] = [NotReady("not sealed", next_step="wait")] * 2 + ["text\n"]

    def receipt(_task: str) -> str:
        answer = answers.pop(0)
        if isinstance(answer, NotReady):
            raise answer
        return str(answer)

    monkeypatch.setattr(fake, "receipt", receipt)
    monkeypatch.setattr("vcp_cluster.cli.receipt.POLL_S", 0.001)
    export = ("receipt", "export", "7d7d", "--out", tmp_path / "r", "--cluster", "http://h:1")
    assert run(*export).exit_code == 1
    assert len(answers) == 2
    assert run(*export, "--wait").exit_code == 0
    assert (tmp_path / "r").read_text() == "text\n"
