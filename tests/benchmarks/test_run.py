"""A run over systems that exist in memory only, and the command that prints it."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vcp_cluster.benchmarks import run as running
from vcp_cluster.benchmarks.document import write_document
from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.load.closed_loop import Outcome
from vcp_cluster.benchmarks.run import Order, run
from vcp_cluster.benchmarks.systems.bare import BarePysyncobj
from vcp_cluster.benchmarks.systems.base import Checked, Settings, Shape
from vcp_cluster.benchmarks.workloads.base import get_quantile
from vcp_cluster.benchmarks.workloads.table import NAMES, QUICK_LEAVES_OUT, make_sessions
from vcp_cluster.cli.main import cli

from .samples import make_document, make_row


class FakeSystem:
    """Acknowledges everything in 2 ms; `fault` makes its verification fail."""

    def __init__(self, name: str, *, fault: str = "") -> None:
        self.name = name
        self.settings = Settings("1", name == "etcd", "none", "none", "none", "none")
        self._fault = fault
        self.loads: list[tuple[Shape, int]] = []
        self.is_stopped = False

    def start(self) -> None:
        pass

    def stop(self) -> None:
        self.is_stopped = True

    def member_pids(self) -> dict[str, int]:
        return {"a": 1}

    def load(self, shape: Shape, requests: int, seconds: float) -> Outcome:
        self.loads.append((shape, requests))
        count = shape.clients * requests
        return Outcome(
            [[b""] * requests for _ in range(shape.clients)],
            counted=count,
            elapsed_s=1.0,
            latencies_ns=array("q", [2_000_000] * count),
            members_cpu_s=0.5,
        )

    def verify(self) -> Checked:
        if self._fault:
            raise BenchmarkFailed(self._fault)
        return Checked(7, "all of it")


@pytest.fixture(autouse=True)
def quiet_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other tests run beside these: what they leave of the cores is not what is tested."""
    monkeypatch.setattr(running, "measure_cores_share", lambda: 1.0)
    limits = make_document([]).limits
    monkeypatch.setattr(running, "measure_limits", lambda directory: limits)


@contextmanager
def systems(monkeypatch: pytest.MonkeyPatch, *fakes: FakeSystem) -> Iterator[None]:
    """etcd, ours and the bare one, in this order."""
    with monkeypatch.context() as patch:
        etcd, ours, bare = fakes
        patch.setattr(running, "find_etcd", lambda: Path("etcd"))
        patch.setattr(running, "Etcd", lambda *_: etcd)
        patch.setattr(running, "OurCluster", lambda *_: ours)
        patch.setattr(running, "BarePysyncobj", lambda *_: bare)
        yield


def test_a_run_has_a_row_for_each_system_and_ratios(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = [FakeSystem(name) for name in ("etcd", "vcp-cluster", "pysyncobj")]
    lines: list[str] = []
    with systems(monkeypatch, *fakes):
        document = run(Order(names=["single-64"], is_quick=True), tmp_path, lines.append)
    assert [(row.workload, row.system) for row in document.rows] == [
        ("single-64", name) for name in ("vcp-cluster", "etcd", "pysyncobj")
    ]
    ours, etcd, _ = document.rows
    assert (etcd.p50_ms, etcd.ratio_to_etcd) == (2.0, None)
    assert etcd.ops_per_s == etcd.ops == 64 * fakes[0].loads[1][1]
    assert etcd.cpu_us_per_op == pytest.approx(0.5e6 / etcd.ops)
    assert ours.ratio_to_etcd == 1.0 or not document.machine.is_disk
    assert all(fake.is_stopped for fake in fakes)
    assert len(document.checked) == 3 and document.failed == []
    assert {"snapshot", "nodes-10k", "hand-over"} <= {one.workload for one in document.absent}


def test_what_cannot_be_read_back_gives_no_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes = [FakeSystem("etcd"), FakeSystem("vcp-cluster", fault="lost 3"), FakeSystem("pysyncobj")]
    with systems(monkeypatch, *fakes):
        document = run(Order(names=["single-64"], runs=2), tmp_path, lambda _: None)
    assert {row.system for row in document.rows} == {"etcd", "pysyncobj"}
    assert document.failed == ["vcp-cluster (single-64): lost 3"] * 2
    assert {row.runs for row in document.rows} == {2}
    assert fakes[1].is_stopped


def test_a_quick_run_begins_nothing_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "QUICK_RESERVE_S", 1e9)
    fakes = [FakeSystem(name) for name in ("etcd", "vcp-cluster", "pysyncobj")]
    with systems(monkeypatch, *fakes):
        document = run(Order(names=["single-64"], is_quick=True), tmp_path, lambda _: None)
    assert document.rows == [] and fakes[0].loads == []
    assert sum("no time was left" in one.reason for one in document.absent) == 3


def test_every_workload_is_in_a_session_and_kills_are_alone() -> None:
    sessions = [[one.name for one in session] for session in make_sessions(NAMES)]
    assert [name for names in sessions for name in names] == list(NAMES)
    assert sessions[1:] == [["lifecycle"], ["leader-kill"], ["restart"], ["growth"]]
    assert [[one.name for one in names] for names in make_sessions(["growth"])] == [["growth"]]
    assert make_sessions([]) == []
    assert not set(QUICK_LEAVES_OUT) & set(Order(is_quick=True).workloads)


@pytest.mark.parametrize(
    ("share", "value"), [(0.0, 1.0), (0.25, 1.0), (0.5, 2.0), (0.51, 3.0), (0.99, 4.0), (1.0, 4.0)]
)
def test_quantiles(share: float, value: float) -> None:
    assert get_quantile([1.0, 2.0, 3.0, 4.0], share) == value


def test_an_unknown_workload_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["bench", "run", "singel-64"], standalone_mode=False)
    captured = capsys.readouterr()
    assert code == 2 and captured.out == ""
    assert "no workload 'singel-64'" in captured.err and "single-64" in captured.err


def test_a_directory_with_something_in_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").touch()
    code = cli.main(["bench", "run", "--dir", str(tmp_path)], standalone_mode=False)
    assert code == 2 and "is not empty" in capsys.readouterr().err


@pytest.mark.parametrize("fault", ["", "lost 3"])
def test_the_command_prints_and_writes_what_it_measured(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fakes = [FakeSystem("etcd"), FakeSystem("vcp-cluster", fault=fault), FakeSystem("pysyncobj")]
    arguments = ["bench", "run", "single-64", "--quick", "--json", str(tmp_path / "a.json")]
    with systems(monkeypatch, *fakes):
        code = cli.main(arguments, standalone_mode=False)
    captured = capsys.readouterr()
    assert code == (1 if fault else 0), captured.err
    assert max(map(len, captured.out.split("READ BACK")[0].splitlines())) <= 100
    assert ("FAILED, no figures: vcp-cluster (single-64): lost 3" in captured.out) == bool(fault)
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["schema"] == "vcp/benchmark/v1"
    wanted = {"workload", "system", "ops_per_s", "p50_ms", "p99_ms", "cpu_us_per_op", "rss_mb"}
    assert all({*wanted, "ratio_to_etcd", "fsync"} <= set(row) for row in document["rows"])


def test_the_label_of_a_ratio_is_printed_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from vcp_cluster.benchmarks.document import set_ratios
    from vcp_cluster.cli.bench import _as_builtins
    from vcp_cluster.cli.bench_views import RESULT
    from vcp_cluster.cli.output import Output
    from vcp_cluster.cli.settings import Settings as CommandSettings

    rows = [make_row("etcd", 1000.0), make_row("vcp-cluster", 210.0)]
    set_ratios(rows, is_disk=True)
    Output(CommandSettings()).emit(_as_builtins(make_document(rows)), RESULT)
    printed = capsys.readouterr().out
    assert "0.21 no fsync" in printed
    assert "no fsync: it acknowledges before" in printed


def test_two_documents_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, rate in (("a.json", 1000.0), ("b.json", 1500.0)):
        write_document(make_document([make_row("etcd", rate)]), tmp_path / name)
    files = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert cli.main(["bench", "compare", *files], standalone_mode=False) == 0
    assert "× 1.50" in capsys.readouterr().out
    assert cli.main(["bench", "compare", *files, "--json"], standalone_mode=False) == 0
    assert json.loads(capsys.readouterr().out)["rows"][0]["ops_per_s"]["factor"] == 1.5


@pytest.mark.cluster
def test_our_cluster_is_measured_and_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "find_etcd", lambda: None)
    order = Order(names=["operations-1x128"], is_quick=True, members=1, seconds=0.5)
    document = run(order, tmp_path, lambda _: None)
    assert document.failed == []
    ours, bare = document.rows
    assert (ours.system, bare.system) == ("vcp-cluster", "pysyncobj")
    assert ours.ops_per_s is not None and ours.ops_per_s > 0 and ours.rss_mb > 10
    assert ours.ratio_note == "no figure of etcd"
    assert any("signatures of the log verified again" in line for line in document.checked)


@pytest.mark.cluster
def test_bare_pysyncobj_ends_with_its_requests_or_its_time(tmp_path: Path) -> None:
    bare = BarePysyncobj(tmp_path / "bare", 1)
    try:
        bare.start()
        assert set(bare.member_pids()) == {"bare-0"}
        few = bare.load(Shape(2, operations=10), 3, 60.0)
        assert (few.answered, few.elapsed_s < 30) == (6, True)
        assert bare.load(Shape(1), 1_000_000, 0.2).answered < 1_000_000
        assert bare.verify().records > 60
    finally:
        bare.stop()
