"""The demo, as a user runs it: its document, its manners, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.cluster

COMMAND = [sys.executable, "-m", "vcp_cluster.cli.main"]


def processes_below(directory: Path) -> list[str]:
    """Command lines of all processes that name a directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except (OSError, UnicodeDecodeError):
                continue
            if str(directory) in line:
                found.append(line)
    return found


def run_demo(home: Path, *arguments: str) -> tuple[int, str, str]:
    environment = {**os.environ, "TMPDIR": str(home), "HOME": str(home)}
    result = subprocess.run(
        [*COMMAND, "demo", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
        env=environment,
        check=False,
    )
    return result.returncode, result.stdout, result.stderr


def test_a_demo_with_a_liar_is_one_document_that_adds_up(tmp_path: Path) -> None:
    code, output, messages = run_demo(tmp_path, "--json", "--liars", "1", "--tasks", "4")
    assert code == 0, messages
    document: dict[str, Any] = json.loads(output)
    assert document["ok"] is True
    assert [member["id"] for member in document["members"]] == ["a", "b", "c"]
    assert len({member["state_root"] for member in document["members"]}) == 1
    assert {member["role"] for member in document["members"]} == {"leader", "follower"}
    liars = [node for node in document["nodes"] if node["liar"]]
    honest = [node for node in document["nodes"] if not node["liar"]]
    assert len(liars) == 1 and len(honest) == 2
    assert liars[0]["balance"] == "0" and liars[0]["rejected"] >= 1
    assert sum(int(node["balance"]) for node in honest) == 4 * 10_000_000
    assert {task["status"] for task in document["tasks"]} == {"settled"}
    assert document["tasks"][0]["attempts"] >= 2
    assert all(receipt["valid"] for receipt in document["receipts"])
    assert {receipt["task"] for receipt in document["receipts"]} == {
        task["id"] for task in document["tasks"]
    }
    assert document["supply"]["minted"] == document["supply"]["accounted"]
    assert all(batch["anchor"]["status"] == "final" for batch in document["batches"])
    assert not list(tmp_path.glob("vcp-demo-*"))
    assert not processes_below(tmp_path)


def test_wrong_numbers_are_refused_before_anything_starts(tmp_path: Path) -> None:
    for arguments in (
        ("--nodes", "0"),
        ("--liars", "3", "--nodes", "3"),
        ("--members", "99"),
        ("--tasks", "x"),
        ("--liars", "2", "--tasks", "1"),
    ):
        code, output, messages = run_demo(tmp_path, *arguments)
        assert code == 2 and output == "" and "Traceback" not in messages, messages
        assert not list(tmp_path.glob("vcp-demo-*"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_in_the_middle_it_removes_everything(
    tmp_path: Path, number: signal.Signals
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path), "HOME": str(tmp_path)}
    with subprocess.Popen(
        [*COMMAND, "demo"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "leads" in line:
                process.send_signal(number)
                break
        messages = process.stderr.read()
        assert process.wait(30) != 0
    assert "Traceback" not in messages
    assert not list(tmp_path.glob("vcp-demo-*"))
    assert not processes_below(tmp_path)
