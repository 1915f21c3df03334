"""What `vcp-cluster bench` shows."""

from __future__ import annotations

from typing import Any

from vcp_cluster.benchmarks.document import CLIENT_SHARE_MAX
from vcp_cluster.cli.page import (
    TEXT,
    Column,
    Document,
    Field,
    Fields,
    Kind,
    Line,
    Part,
    Table,
    View,
)
from vcp_cluster.cli.values import format_number


def _figure(value: float) -> str:
    """Three digits that mean something: 0.123, 4.56, 78.9, 1 234."""
    if value >= 100:
        return format_number(round(value))
    return f"{value:.{1 if value >= 10 else 2}f}"


FIGURE = Kind(_figure, _figure, str, is_right=True)


def _share(value: float) -> str:
    return f"{value:.0%}"


SHARE_OF_ONE = Kind(_share, _share, str, is_right=True)


def _ratio(row: Document) -> str | None:
    """With the label of what the two do not have in common, which is a part of the ratio."""
    if row["ratio_to_etcd"] is None:
        return None if not row["ratio_note"] else "withheld"
    kind = "time" if row["ratio_of"] == "p50_ms" else ""
    label = "no fsync" if row["ratio_note"] else ""
    words = [f"{row['ratio_to_etcd']:.2f}", *(word for word in (kind, label) if word)]
    return " ".join(words)


def _result(document: Document) -> list[Part]:
    machine, limits = document["machine"], document["limits"]
    rows, notes = document["rows"], _notes(document)
    return [
        Line("LIMITS OF THIS MACHINE"),
        Fields(
            (
                Field("machine", f"{machine['processor']}, {machine['cores']} cores", TEXT),
                Field("directory", f"on {machine['file_system']}", TEXT),
                Field("fdatasync 4 KiB", _latency(limits["fdatasync"])),
                Field("loopback 256 B", _latency(limits["loopback"])),
                Field("verifications", _verifications(document)),
                Field("LevelDB batches", _store(limits)),
                Field("commit", machine["commit"]),
            )
        ),
        Line(),
        Line("PROMISES"),
        *(
            Line(f"{name} {one['version']}: {one['durability']}; verifies: {one['verification']}")
            for name, one in document["settings"].items()
        ),
        Line(),
        Line(f"RESULTS, {document['members']} members, windows of {document['seconds']:g} s"),
        Table(
            (
                Column("WORKLOAD", "workload"),
                Column("SYSTEM", "system"),
                Column("OPS/S", "ops_per_s", FIGURE),
                Column("P50 MS", "p50_ms", FIGURE),
                Column("P99 MS", "p99_ms", FIGURE),
                Column("CPU µS", "cpu_us_per_op", FIGURE),
                Column("RSS", "rss_mb", FIGURE),
                Column("SYNC", lambda row: "yes" if row["fsync"] else "NO"),
                Column("CORES", "cores_share", SHARE_OF_ONE),
                Column("TO ETCD", _ratio),
            ),
            rows,
            empty="nothing was measured",
        ),
        *notes,
        *(Line(f"FAILED, no figures: {text}", "red") for text in document["failed"]),
        Line(),
        Line("READ BACK"),
        *(Line(text) for text in document["checked"]),
        *(Line(f"fault of a peer: {text}", "red") for text in document["faults"]),
        Line(),
        Line("ABSENT"),
        *(
            Line(f"{one['workload']} {one['system']}".rstrip() + f": {one['reason']}")
            for one in document["absent"]
        ),
    ]


def _notes(document: Document) -> list[Part]:
    """What the table's words mean, and why ratios are missing."""
    reasons = [
        Line(f"{row['workload']} {row['system']}: {row['ratio_note']}")
        for row in document["rows"]
        if row["ratio_note"].startswith("withheld")
    ]
    client = max((row["client_cpu_share"] for row in document["rows"]), default=0.0)
    parts: list[Part] = [
        Line(),
        Line(
            "CPU µS: of all members, for a record. RSS: MB of the largest member. SYNC: acknowledged"
        ),
        Line(
            "only when on disk. CORES: what other processes left of the machine. TO ETCD: of OPS/S,"
        ),
        Line("above 1 is better; marked time: of P50 MS, below 1 is better."),
        Line(f"The client took {client:.0%} of one core at most, so it was not what was measured.")
        if client <= CLIENT_SHARE_MAX
        else Line(f"The client took {client:.0%} of one core: it may be what was measured.", "red"),
    ]
    if any(row["ratio_note"] and row["ratio_to_etcd"] is not None for row in document["rows"]):
        parts.append(
            Line(
                "no fsync: it acknowledges before what it wrote is on the disk; etcd syncs first.",
                "red",
            )
        )
    return [*parts, *reasons]


def _latency(one: Document) -> str:
    rate, p50, p99 = (_figure(one[name]) for name in ("ops_per_s", "p50_us", "p99_us"))
    return f"{rate}/s, p50 {p50} µs, p99 {p99} µs"


def _verifications(document: Document) -> str:
    """With the bound that follows: every member verifies every signature on the same cores."""
    limits = document["limits"]
    one, every = limits["verify_per_s_one_core"], limits["verify_per_s_all_cores"]
    bound = every / document["members"]
    return (
        f"{_figure(one)}/s on one core, {_figure(every)}/s on all: "
        f"{_figure(bound)}/s when {document['members']} members verify"
    )


def _store(limits: Document) -> str:
    fast, synced = (
        _figure(limits[name])
        for name in ("store_batch_records_per_s", "store_batch_synced_records_per_s")
    )
    return f"{fast} records/s, {synced} synced (100 of 232 B in a batch)"


def _row_ids(document: Document) -> list[str]:
    return [f"{row['workload']} {row['system']}" for row in document["rows"]]


RESULT = View(_result, _row_ids)


def _pair(name: str) -> Any:
    def show(row: Document) -> str | None:
        one = row[name]
        if one["before"] is None or one["after"] is None:
            return None
        return f"{_figure(one['before'])} → {_figure(one['after'])}"

    return show


def _factor(name: str) -> Any:
    def show(row: Document) -> str | None:
        factor = row[name]["factor"]
        return None if factor is None else f"× {factor:.2f}"

    return show


def _comparison(document: Document) -> list[Part]:
    first, second = document["commits"]
    return [
        Line(f"{first} → {second}"),
        *(Line(f"not the same: {text}", "red") for text in document["differences"]),
        Line(),
        Table(
            (
                Column("WORKLOAD", "workload"),
                Column("SYSTEM", "system"),
                Column("OPS/S", _pair("ops_per_s")),
                Column("", _factor("ops_per_s")),
                Column("P50 MS", _pair("p50_ms")),
                Column("CPU µS/OP", _pair("cpu_us_per_op")),
                Column("", _factor("cpu_us_per_op")),
            ),
            document["rows"],
            empty="the two have no row in common",
        ),
        *(Line(f"only in the first: {text}") for text in document["only_first"]),
        *(Line(f"only in the second: {text}") for text in document["only_second"]),
    ]


COMPARISON = View(_comparison, _row_ids)
