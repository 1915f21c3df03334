"""The result of a run: one JSON document, and what may be said about etcd in it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

from vcp_cluster.benchmarks.machine.describe import Machine
from vcp_cluster.benchmarks.machine.limits import Limits
from vcp_cluster.benchmarks.systems.base import Settings
from vcp_cluster.cluster.errors import InvalidRequest

SCHEMA = "vcp/benchmark/v1"
REFERENCE = "etcd"
CORES_SHARE_MIN = 0.8
"""Of the machine's cores; a run that got less says nothing about how two systems compare."""
CLIENT_SHARE_MAX = 0.7
"""Of one core; beyond it the client may be what is measured."""
DOCUMENT_BYTES_MAX = 16 << 20


class Row(msgspec.Struct, kw_only=True):
    """One workload on one system: medians over its runs.

    Times in milliseconds, memory in 10^6 bytes of the largest member, CPU in microseconds of all
    members together for each record. `latency_quantiles_ms` are the quantiles 0.01, 0.02, … 0.99.
    """

    workload: str
    system: str
    clients: int
    ops_per_s: float | None
    p50_ms: float
    p99_ms: float
    cpu_us_per_op: float | None
    rss_mb: float
    fsync: bool
    ops: int
    runs: int = 1
    cores_share: float
    client_cpu_share: float = 0.0
    repeats: int = 0
    latency_quantiles_ms: list[float] = []
    detail: dict[str, float] = {}
    ratio_to_etcd: float | None = None
    ratio_of: str = "ops_per_s"
    ratio_note: str = ""


class Absent(msgspec.Struct, frozen=True):
    """A workload without a row, and why. `system` is empty when no system has one."""

    workload: str
    system: str
    reason: str


class Document(msgspec.Struct, kw_only=True):
    """Everything about a run that is needed to judge its figures.

    `checked` says what was read back and how, `failed` which sessions have no figures because
    something in them was not true, `faults` what a peer did wrong.
    """

    schema: str = SCHEMA
    created: str
    seed: int
    members: int
    seconds: float
    is_quick: bool
    machine: Machine
    limits: Limits
    settings: dict[str, Settings]
    rows: list[Row]
    absent: list[Absent]
    checked: list[str]
    faults: list[str] = []
    failed: list[str] = []


_MEDIANS = ("ops_per_s", "p50_ms", "p99_ms", "cpu_us_per_op", "rss_mb")


def merge_runs(rows: Sequence[Row]) -> Row:
    """One row from the rows of several runs: medians, and sums of what was counted.

    The distribution of latencies and the details are those of the run with the median p50.
    """
    middle = sorted(rows, key=lambda row: row.p50_ms)[(len(rows) - 1) // 2]
    medians = {}
    for name in _MEDIANS:
        values = [value for row in rows if (value := getattr(row, name)) is not None]
        medians[name] = statistics.median(values) if values else None
    return msgspec.structs.replace(
        middle,
        **medians,
        ops=sum(row.ops for row in rows),
        runs=len(rows),
        cores_share=statistics.median(row.cores_share for row in rows),
        client_cpu_share=max(row.client_cpu_share for row in rows),
        repeats=sum(row.repeats for row in rows),
    )


def set_ratios(rows: Sequence[Row], *, is_disk: bool) -> None:
    """Compare each row with etcd's of the same workload, where that may be done.

    A ratio is of throughput, above 1 when better than etcd's, or, where a row has none, of the
    median time, below 1 when better. Where it may not be said, `ratio_note` has the reason; where
    the two promise different things, the label.
    """
    references = {row.workload: row for row in rows if row.system == REFERENCE}
    for row in rows:
        if row.system == REFERENCE:
            continue
        reference = references.get(row.workload)
        if reference is None:
            row.ratio_note = "no figure of etcd"
            continue
        row.ratio_of = "p50_ms" if row.ops_per_s is None else "ops_per_s"
        row.ratio_note = _why_withheld((row, reference), is_disk=is_disk)
        if not row.ratio_note:
            row.ratio_to_etcd = _divide(row, reference)
            if row.fsync != reference.fsync:
                row.ratio_note = "without fsync, etcd with"


def _why_withheld(rows: Sequence[Row], *, is_disk: bool) -> str:
    share = min(row.cores_share for row in rows)
    if share < CORES_SHARE_MIN:
        return f"withheld: {share:.0%} of the cores, {CORES_SHARE_MIN:.0%} needed"
    client = max(row.client_cpu_share for row in rows)
    if client > CLIENT_SHARE_MAX:
        return f"withheld: the client took {client:.0%} of a core"
    return "" if is_disk else "withheld: the directory is in memory, syncing costs nothing"


def _divide(row: Row, reference: Row) -> float:
    if row.ops_per_s is None or reference.ops_per_s is None:
        return row.p50_ms / reference.p50_ms
    return row.ops_per_s / reference.ops_per_s


def write_document(document: Document, path: Path) -> None:
    """Write a document as JSON; raises `OSError`."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=1) + b"\n")


def read_document(path: Path) -> Document:
    """Read a document of a run; raises `InvalidRequest`."""
    try:
        with path.open("rb") as file:
            data = file.read(DOCUMENT_BYTES_MAX + 1)
        if len(data) > DOCUMENT_BYTES_MAX:
            raise ValueError(f"it has more than {DOCUMENT_BYTES_MAX} bytes")
        document = msgspec.json.decode(data, type=Document)
    except OSError as error:
        raise _not_a_document(path, error.strerror or str(error)) from None
    except (ValueError, msgspec.MsgspecError, RecursionError) as error:
        raise _not_a_document(path, str(error)) from None
    if document.schema != SCHEMA:
        raise _not_a_document(path, f"its schema is {document.schema[:40]!r}, not {SCHEMA}")
    return document


def _not_a_document(path: Path, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"{path} is not the document of a benchmark: {why}",
        next_step="make one: vcp-cluster bench run --json FILE",
    )
