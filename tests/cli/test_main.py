"""What all commands have in common: help, near names, exit codes, what an error looks like."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from vcp_cluster.cli.main import cli
from vcp_cluster.cluster import errors
from vcp_cluster.ledger.codes import Code

from .conftest import FakeClient, Run

CLUSTER = ("--cluster", "http://127.0.0.1:7101")
HEAVY = ("httpx2", "wasmtime", "plyvel", "pysyncobj", "starlette", "uvicorn")


def walk(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, (*path, name))


PATHS = list(walk(cli))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_begins_with_examples_of_the_command(path: tuple[str, ...], run: Run) -> None:
    result = run(*path, "--help")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0] == "Examples:"
    assert all(line.startswith("  ") for line in lines[1:3])
    assert f"Usage: {' '.join(('vcp-cluster', *path))}" in result.stdout
    assert run("help", *path).stdout == result.stdout
    assert max(map(len, lines)) <= 100


def test_the_issues_commands_are_there() -> None:
    wanted = {
        *("init", "join", "status", "worker run", "demo", "dev", "help", "version", "tx show"),
        *(f"task {verb}" for verb in ("submit", "list", "show", "watch", "output", "cancel")),
        *("node list", "node show", "proof show", "proof explain"),
        *("account create", "account show", "account transfer", "account mint"),
        *("batch list", "batch show", "batch seal", "receipt export", "receipt verify"),
    }
    assert wanted <= {" ".join(path) for path in PATHS}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["taks"], ["no command 'taks'", "Did you mean task?", "vcp-cluster --help"]),
        (["task", "shwo"], ["Did you mean show?", "vcp-cluster task --help"]),
        (["help", "nothing"], ["no command 'nothing'"]),
        (["help", "status", "more"], ["vcp-cluster status has no commands"]),
        (["status", "--watc"], ["--watc", "--watch"]),
        (["status", "-o", "yaml"], ["'yaml'", "vcp-cluster status --help"]),
        (["status", "-o", "plain", "--json"], ["-o plain and -o json"]),
        (["status", "--timeout", "30"], ["a duration is"]),
        (["task", "show"], ["TASK"]),
        (["task", "show", "xyz"], ["an id is"]),
        (["task", "submit", "--module", "m"], ["--reward"]),
        (["account", "transfer", "7d1f", "1e3"], ["an amount is"]),
        (["tx", "show", "7d1f"], ["64 hexadecimal digits"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_2(
    arguments: list[str], words: list[str], run: Run
) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "  Next: " in result.stderr
    assert all(word in result.stderr for word in words)


def test_no_command_shows_the_help_and_is_wrong_usage(run: Run) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Commands:" in result.stderr


ERRORS = [
    (errors.NotReady("no receipt yet", next_step="wait"), 1, "failed"),
    (errors.ConfigError("wrong", key="k", origin="o", hint="h"), 2, "bad_usage"),
    (errors.Ambiguous("two", next_step="more digits"), 2, "bad_usage"),
    (errors.NoLeader("electing"), 3, "unavailable"),
    (errors.Timeout("too slow"), 3, "unavailable"),
    (errors.InvalidTransaction(Code.TASK_NOT_OPEN, tx_id=b"\1" * 32), 4, "task_not_open"),
    (errors.InvalidReceipt("forged", next_step="ask again"), 5, "not_valid"),
    (errors.NotFound("nothing", next_step="look"), 6, "not_found"),
    (errors.NotAuthorised("no", next_step="key"), 7, "unauthorised"),
    (errors.UnknownOutcome(b"\2" * 32, "cut off"), 8, "unknown"),
]


@pytest.mark.parametrize(
    ("error", "code", "word"), ERRORS, ids=[type(row[0]).__name__ for row in ERRORS]
)
def test_exit_codes(
    error: errors.VcpError, code: int, word: str, run: Run, fake: FakeClient
) -> None:
    fake.failure = error
    result = run("status", *CLUSTER)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == f"error: {error}\n"
    document = json.loads(run("status", *CLUSTER, "--json").stdout)
    assert document["schema"] == "vcp/error/v1"
    assert document["error"]["code"] == word
    assert document["error"]["next"] == error.next_step


def test_internal_error_saves_a_report_and_hides_the_traceback(
    run: Run, fake: FakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    fake.failure = RuntimeError("a bug\nof two lines")
    result = run("status", *CLUSTER)
    assert result.exit_code == 70
    assert result.stderr.count("\n") == 1
    report = Path(result.stderr.rpartition("report ")[2].strip())
    assert report.parent == tmp_path
    assert "Traceback" in report.read_text()
    assert "Traceback" not in result.stderr


def test_debug_shows_the_traceback(run: Run, fake: FakeClient) -> None:
    fake.failure = errors.NoLeader("electing")
    result = run("status", *CLUSTER, "--debug")
    assert result.exit_code == 3
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("error: electing")


def test_interruption_is_130(run: Run, fake: FakeClient) -> None:
    fake.failure = KeyboardInterrupt()
    result = run("status", *CLUSTER)
    assert result.exit_code == 130
    assert result.stderr.strip() == "interrupted"


@pytest.mark.parametrize("spoil", ["missing", "wrong type"])
def test_answer_that_is_not_understood_is_no_traceback(
    spoil: str, run: Run, fake: FakeClient
) -> None:
    if spoil == "missing":
        del fake.documents["status"]["supply"]
    else:
        fake.documents["status"]["members"] = 7
    result = run("status", *CLUSTER)
    assert result.exit_code == 1
    assert "is not understood" in result.stderr
    assert result.stderr.count("\n") == 1


def test_errors_hold_no_control_characters(run: Run, fake: FakeClient) -> None:
    fake.failure = errors.NotFound("\x1b[2Jgone\r", next_step="look\x07")
    assert "\x1b" not in (text := run("status", *CLUSTER).stderr)
    assert "\x07" not in text


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


LIST_MODULES = """
import sys
from vcp_cluster.cli.main import cli
code = cli.main(sys.argv[1:], standalone_mode=False)
print("CODE", code, file=sys.stderr)
print("MODULES", *sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], 0),
        (["task", "submit", "--help"], 0),
        (["receipt", "verify", "FILE", "--chain-id", "0f" * 16], 5),
    ],
)
def test_start_up_loads_no_client_engine_or_store(
    arguments: list[str], code: int, tmp_path: Path
) -> None:
    file = tmp_path / "forged.receipt"
    file.write_text("-----BEGIN VCP SETTLEMENT RECEIPT-----\nAAAA\n")
    arguments = [str(file) if one == "FILE" else one for one in arguments]
    result = run_python("-c", LIST_MODULES, *arguments)
    *_, code_line, modules_line = result.stderr.splitlines()
    assert code_line == f"CODE {code}"
    loaded = {name.partition(".")[0] for name in modules_line.split()[1:]}
    assert "click" in loaded
    assert loaded.isdisjoint(HEAVY)
    if "verify" not in arguments:
        assert loaded.isdisjoint(("rich", "nacl", "msgspec"))


def test_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [sys.executable, "-m", "vcp_cluster.cli.main", "version"],
            stdout=writer,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert result.returncode == 141
    assert result.stderr == b""


def test_terminal_without_unicode_gets_question_marks() -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(
        [sys.executable, "-m", "vcp_cluster.cli.main", "help", "init"],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert b"NAME=HOST:PORT,?" in result.stdout
