"""What may be said about etcd, medians, and documents from outside."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from vcp_cluster.benchmarks.compare import compare_documents
from vcp_cluster.benchmarks.document import (
    Row,
    merge_runs,
    read_document,
    set_ratios,
    write_document,
)
from vcp_cluster.cluster.errors import InvalidRequest

from .samples import make_document, make_row


def ratio(ours: Row, etcd: Row, *, is_disk: bool = True) -> tuple[float | None, str]:
    set_ratios([etcd, ours], is_disk=is_disk)
    return ours.ratio_to_etcd, ours.ratio_note


def test_a_ratio_between_equal_promises_needs_no_label() -> None:
    assert ratio(make_row("vcp-cluster", 500.0, fsync=True), make_row("etcd", 1000.0)) == (0.5, "")


def test_a_ratio_without_fsync_is_labelled() -> None:
    ours = make_row("vcp-cluster", 500.0, fsync=False)
    assert ratio(ours, make_row("etcd", 1000.0)) == (0.5, "without fsync, etcd with")


def test_without_throughput_the_ratio_is_of_time() -> None:
    ours = make_row("vcp-cluster", None, fsync=True, p50_ms=300.0)
    assert ratio(ours, make_row("etcd", None, p50_ms=1200.0)) == (0.25, "")
    assert ours.ratio_of == "p50_ms"


@pytest.mark.parametrize(
    ("ours", "etcd", "is_disk", "why"),
    [
        ({"cores_share": 0.79}, {}, True, "79% of the cores"),
        ({}, {"cores_share": 0.5}, True, "50% of the cores"),
        ({"client_cpu_share": 0.71}, {}, True, "client took 71%"),
        ({}, {"client_cpu_share": 0.9}, True, "client took 90%"),
        ({}, {}, False, "in memory"),
    ],
)
def test_a_ratio_is_withheld(
    ours: dict[str, float], etcd: dict[str, float], is_disk: bool, why: str
) -> None:
    value, note = ratio(
        make_row("vcp-cluster", 500.0, **ours), make_row("etcd", 1000.0, **etcd), is_disk=is_disk
    )
    assert value is None
    assert note.startswith("withheld") and why in note


def test_without_etcd_there_is_no_ratio() -> None:
    row = make_row("vcp-cluster", 500.0)
    set_ratios([row], is_disk=True)
    assert (row.ratio_to_etcd, row.ratio_note) == (None, "no figure of etcd")


def test_runs_merge_to_their_medians() -> None:
    rows = [
        make_row("etcd", rate, p50_ms=p50, cores_share=share, ops=10)
        for rate, p50, share in ((100.0, 3.0, 0.9), (300.0, 1.0, 1.0), (200.0, 2.0, 0.7))
    ]
    merged = merge_runs(rows)
    assert (merged.ops_per_s, merged.p50_ms, merged.cores_share) == (200.0, 2.0, 0.9)
    assert (merged.ops, merged.runs) == (30, 3)
    assert merge_runs([make_row("etcd", None)]).ops_per_s is None


def test_a_document_survives_its_file(tmp_path: Path) -> None:
    document = make_document([make_row("etcd", 1000.0)])
    write_document(document, tmp_path / "a.json")
    assert read_document(tmp_path / "a.json") == document


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "malformed"),
        (b"{}", "missing required field"),
        (b"[]", "expected `object`"),
        (b'{"x":' + b"[" * 200_000, "recursion"),
    ],
)
def test_what_is_no_document_is_refused(tmp_path: Path, content: bytes | None, why: str) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidRequest, match=f"(?i)not the document of a benchmark.*({why})"):
        read_document(path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    document = make_document([])
    document.schema = "vcp/benchmark/v9"
    write_document(document, tmp_path / "a.json")
    with pytest.raises(InvalidRequest, match="v9"):
        read_document(tmp_path / "a.json")


def test_a_comparison_names_what_changed_and_what_differs() -> None:
    first = make_document([make_row("etcd", 1000.0), make_row("pysyncobj", 10.0)])
    second = make_document([make_row("etcd", 1500.0), make_row("vcp-cluster", 5.0)])
    second.members = 5
    second.machine = msgspec.structs.replace(second.machine, cores=4)
    comparison = compare_documents(first, second)
    (row,) = comparison["rows"]
    assert row["ops_per_s"] == {"before": 1000.0, "after": 1500.0, "factor": 1.5}
    assert comparison["differences"] == ["members: 3 before, 5 after", "cores: 2 before, 4 after"]
    assert comparison["only_first"] == ["single-64 pysyncobj"]
    assert comparison["only_second"] == ["single-64 vcp-cluster"]


def test_a_change_from_nothing_has_no_factor() -> None:
    first = make_document([make_row("etcd", None)])
    second = make_document([make_row("etcd", 5.0)])
    (row,) = compare_documents(first, second)["rows"]
    assert row["ops_per_s"] == {"before": None, "after": 5.0, "factor": None}
