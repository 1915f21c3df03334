"""Processes as /proc shows them, and the machine's description."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vcp_cluster.benchmarks.machine import describe, limits
from vcp_cluster.benchmarks.machine.spinner import spin
from vcp_cluster.benchmarks.machine.usage import Meter, read_cpu_s, read_memory_mb

# Spins in a child of its own, which it waits for: CPU below a root counts, also after its end.
SPIN_IN_CHILD = """
import subprocess, sys
code = "import time\\nwhile time.process_time() < 0.2: pass"
subprocess.run([sys.executable, "-S", "-c", code], check=True)
print("ready", flush=True)
sys.stdin.readline()
"""


def test_cpu_of_a_tree_counts_children_that_have_ended() -> None:
    with subprocess.Popen(
        [sys.executable, "-S", "-c", SPIN_IN_CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert 0.18 <= read_cpu_s([process.pid]) < 5
        assert read_memory_mb(process.pid) > 1
        process.communicate("end\n")
    assert read_cpu_s([process.pid]) == 0


def test_a_meter_knows_its_own_work_from_that_of_others() -> None:
    meter = Meter([os.getpid()])
    used_s = spin(0.2)
    usage = meter.read()
    assert abs(usage.members_cpu_s - used_s) < 0.1
    assert 0 <= usage.cores_share <= 1


def test_limits_are_measured_and_leave_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RUN_S", 0.02)
    measured = limits.measure_limits(tmp_path)
    share = limits.measure_cores_share()
    assert 0 < share <= 1
    assert measured.fdatasync.p50_us <= measured.fdatasync.p99_us
    assert measured.verify_per_s_one_core > 100 and measured.store_batch_records_per_s > 100
    assert measured.loopback.ops_per_s > 10
    assert list(tmp_path.iterdir()) == []


def test_the_machine_is_described(tmp_path: Path) -> None:
    machine = describe.describe_machine(tmp_path)
    assert machine.cores >= 1 and machine.memory_mb > 100
    assert machine.file_system != "unknown"
    assert describe.describe_machine(Path("/dev/shm")).is_disk is False
