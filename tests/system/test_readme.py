"""README, as a newcomer follows it: its commands are taken from the file and run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vcp_cluster.cluster.local import PORTS_PER_MEMBER, find_ports, get_own_port

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PATIENCE_S = 60.0


def commands(start: str) -> list[str]:
    """The indented lines of README that begin with some words."""
    found = re.findall(rf"^    ({re.escape(start)}.*)$", README, re.MULTILINE)
    assert found, f"README has no command that begins with {start!r}"
    return [line.partition("  #")[0].strip() for line in found]


def argv(line: str, **changes: str) -> list[str]:
    """A line of README as this interpreter runs it."""
    for old, new in changes.items():
        line = line.replace(old, new)
    words = shlex.split(line)
    assert words[0] == "vcp-cluster"
    return [sys.executable, "-m", "vcp_cluster.cli.main", *words[1:]]


@contextmanager
def running(command: list[str], home: Path) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until it is told to stop."""
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(home),
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("VCP_")}
    kept.pop("XDG_CONFIG_HOME", None)
    return {**kept, "HOME": str(home), "TMPDIR": str(home)}


def run(command: list[str], home: Path) -> str:
    """A command that must succeed; its standard output."""
    result = subprocess.run(
        command,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=ROOT,
        env=environment(home),
        check=False,
    )
    assert result.returncode == 0, f"{command}: {result.stderr}"
    return result.stdout


def run_until_it_succeeds(command: list[str], home: Path) -> str:
    """For what a newcomer would try again: the cluster is still starting."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            cwd=ROOT,
            env=environment(home),
            check=False,
        )
        if result.returncode == 0:
            return result.stdout
        assert time.monotonic() < deadline, f"{command}: {result.stderr}"


def test_the_make_targets_of_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for line in commands("make "):
        assert re.search(rf"^{line.split()[1]}:.*##", makefile, re.MULTILINE), line


def test_links_in_the_documents_resolve() -> None:
    for document in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", document.read_text()):
            if "://" not in target:
                assert (document.parent / target).exists(), f"{document.name}: {target}"


@pytest.mark.cluster
def test_dev_and_a_task_in_another_terminal(tmp_path: Path) -> None:
    (dev,) = commands("vcp-cluster dev")
    (status,) = [line for line in commands("vcp-cluster status") if "--" not in line]
    submit = next(line for line in commands("vcp-cluster task submit") if "--dir" not in line)
    export, verify = commands("vcp-cluster receipt")
    with running(argv(dev), tmp_path) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "In another terminal" in line:
                break
        assert "leader" in run(argv(status), tmp_path)
        printed = run(argv(submit), tmp_path)
        assert "lines" in printed and "words" in printed
        task = re.search(r"receipt export (\w+)", printed)
        assert task is not None, printed
        file = str(tmp_path / "payment.receipt")
        run_until_it_succeeds(argv(export, TASK=task[1], **{"payment.receipt": file}), tmp_path)
        assert "valid" in run(argv(verify, **{"payment.receipt": file}), tmp_path)
    assert not list(tmp_path.glob("vcp-dev-*"))


@pytest.mark.cluster
def test_three_machines(tmp_path: Path) -> None:
    """The addresses become loopback ports; the rest is as written."""
    first = find_ports(3, get_own_port())
    ports = [first + number * PORTS_PER_MEMBER for number in range(3)]
    changes = {
        **{f"10.0.0.{n + 1}:7100": f"127.0.0.1:{port}" for n, port in enumerate(ports)},
        "http://10.0.0.1:7101": f"http://127.0.0.1:{ports[0] + 1}",
        "cluster/": f"{tmp_path}/cluster/",
        "--dir cluster ": f"--dir {tmp_path}/cluster ",
        "worker.key": f"{tmp_path}/worker.key",
        "task.wasm": "examples/wordcount.wasm",
        "data.bin": "README.md",
    }
    (init,) = commands("vcp-cluster init")
    (join,) = commands("vcp-cluster join")
    (worker,) = commands("vcp-cluster worker run")
    submit = next(line for line in commands("vcp-cluster task submit") if "--dir" in line)
    run(argv(f"{init} ", **changes), tmp_path)
    members = [
        running(argv(join.replace("cluster/a", f"cluster/{name}"), **changes), tmp_path)
        for name in ("c", "a", "b")
    ]
    with members[0], members[1], members[2], running(argv(worker, **changes), tmp_path):
        printed = run_until_it_succeeds(argv(submit, **changes), tmp_path)
        assert "words" in printed and "receipt export" in printed
