"""Pages of the reading commands, to the letter, and the same documents for programs."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from vcp_cluster.cli.output import render_table
from vcp_cluster.cli.page import Column, Table
from vcp_cluster.cli.values import GROUP_SPACE

from .conftest import NODE, PROOF, TASK, Document, FakeClient, Run

CLUSTER = ("--cluster", "http://127.0.0.1:7101")

STATUS = """\
cluster paris-1   height 48 211   leader b (term 7)

MEMBER  ADDRESS        ROLE         TERM  APPLIED  LAG  STATE ROOT
a       10.0.0.1:7100  follower        7   48 211    0  9f9f9f9f9f9f
b       10.0.0.2:7100  leader          7   48 211    0  9f9f9f9f9f9f
c       10.0.0.3:7100  unreachable     –        –    –  –

proof 5a5a5a5a5a5a waits for the verdict of c

tasks   12 open · 3 assigned · 4 proven · 1 accepted · 9 871 settled · 2 expired · 0 cancelled
nodes   5 online · 1 offline · 0 safe mode
money   1 000 000.000000 VCP = 999 990.000000 available + 10.000000 escrow
batch   118 open with 1 tasks · 117 sealed
anchor  notary (operators only, not Bitcoin) · final up to batch 117
chain   0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f
"""

TASKS = """\
TASK          STATUS         REWARD  NODE          ATTEMPTS  RESULT  RECEIPT   SUBMITTED
7d7d7d7d7d7d  settled  1 250.500000  9c9c9c9c9c9c         2  ok      anchored  11-22 12:00:00
"""

NODES = """\
NODE          DEVICE   STATUS   HEALTH  REPUTATION  RUNNING  ACCEPTED  REJECTED  FAILED
9c9c9c9c9c9c  gateway  online  64.16 %     54.00 %  1/2             4         1       0
"""

EXPLANATION = """\
REJECTED at height 48 190, not paid; task 7d7d7d7d7d7d went to node 9c9c9c9c9c9c (attempt 2)

claimed     ok, output 555555555555 (145 bytes), gas 461 738, root 666666666666
            by node 3f3f3f3f3f3f, signed, 2026-11-22T12:00:00.123Z
recomputed  ok, output 333333333333 (145 bytes), gas 461 738, root 444444444444
            by members b, a: disagree
differs     output hash, execution root
cause       the same module and input give another output
check it    vcp-cluster proof show 5a5a5a5a5a5a --json
            or run module 111111111111, vcp_run,
            on input 222222222222 with wasmtime-50.0.1/x86_64
"""

TRANSACTION = f"""\
transaction  {"5e" * 32}
outcome      balance_insufficient, the available balance is too small; fund the account
failed at    operation 1 of 1
height       38
time         2026-11-22 12:00:00 UTC
log index    33
account      {"ab" * 32}
valid until  2026-11-22 12:00:00 UTC

OPERATION  DETAIL
transfer   recipient 9c9c9c9c9c9c, amount 12.500000 VCP
"""

BATCHES = """\
batch 2 is open: 0 tasks, 0.000000 VCP

BATCH  TASKS  HEIGHTS  SEALED          ROOT          ANCHOR  STATUS
    1      1  9–12     11-22 12:00:00  c9c9c9c9c9c9  notary  final
"""

READS: dict[tuple[str, ...], str] = {
    ("status",): "vcp/status/v1",
    ("task", "list"): "vcp/tasks/v1",
    ("task", "show", "7d7d"): "vcp/task/v1",
    ("task", "watch", "7d7d"): "vcp/task/v1",
    ("task", "output", "7d7d"): "vcp/output/v1",
    ("node", "list"): "vcp/nodes/v1",
    ("node", "show", "9c9c"): "vcp/node/v1",
    ("proof", "show", "5a5a"): "vcp/proof/v1",
    ("proof", "explain", "5a5a"): "vcp/explanation/v1",
    ("account", "show", "abab"): "vcp/account/v1",
    ("batch", "list"): "vcp/batches/v1",
    ("batch", "show", "1"): "vcp/batch/v1",
    ("tx", "show", "5e" * 32): "vcp/transaction/v1",
}


@pytest.mark.parametrize(
    ("arguments", "page"),
    [
        (("status",), STATUS),
        (("task", "list"), TASKS),
        (("node", "list"), NODES),
        (("proof", "explain", "5a5a"), EXPLANATION),
        (("tx", "show", "5e" * 32), TRANSACTION),
        (("batch", "list"), BATCHES),
    ],
)
def test_page(arguments: tuple[str, ...], page: str, run: Run, fake: FakeClient) -> None:
    result = run(*arguments, *CLUSTER)
    assert result.exit_code == 0, result.stderr
    assert result.stdout.replace(GROUP_SPACE, " ") == page


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_documents_are_passed_on_untouched(
    arguments: tuple[str, ...], run: Run, fake: FakeClient
) -> None:
    before = copy.deepcopy(fake.documents)
    result = run(*arguments, *CLUSTER, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["schema"] == READS[arguments]
    known = [one for one in before.values() if one["schema"] == document["schema"]]
    assert document in known or not known


@pytest.mark.parametrize("arguments", READS, ids=" ".join)
@pytest.mark.parametrize("form", ["table", "plain", "ndjson"])
def test_every_form_of_every_read(
    arguments: tuple[str, ...], form: str, run: Run, fake: FakeClient
) -> None:
    result = run(*arguments, *CLUSTER, "-o", form)
    assert result.exit_code == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines
    if form == "ndjson":
        assert all(json.loads(line)["schema"].startswith("vcp/") for line in lines)
    if form == "table":
        assert max(map(len, lines)) <= 100


def test_a_list_as_ndjson_is_one_item_a_line(run: Run, fake: FakeClient) -> None:
    fake.documents["tasks"]["tasks"] *= 3
    lines = run("task", "list", *CLUSTER, "-o", "ndjson").stdout.splitlines()
    assert [json.loads(line)["schema"] for line in lines] == ["vcp/task/v1"] * 3


def test_plain_lists_have_whole_ids_tabs_and_no_title(run: Run, fake: FakeClient) -> None:
    line = run("task", "list", *CLUSTER, "-o", "plain").stdout.rstrip("\n")
    expected = [TASK, "settled", "1250.500000", NODE, "2", "ok", "anchored"]
    assert line.split("\t") == [*expected, "2026-11-22T12:00:00.123Z"]


def test_quiet_prints_ids_only(run: Run, fake: FakeClient) -> None:
    assert run("task", "list", *CLUSTER, "-q").stdout == f"{TASK}\n"
    assert run("proof", "show", "5a5a", *CLUSTER, "--quiet").stdout == f"{PROOF}\n"


def test_empty_list_says_what_to_do(run: Run, fake: FakeClient) -> None:
    fake.documents["tasks"]["tasks"] = []
    assert "vcp-cluster task submit" in run("task", "list", *CLUSTER).stdout
    assert run("task", "list", *CLUSTER, "-q").stdout == ""
    assert run("task", "list", *CLUSTER, "-o", "plain").stdout == ""


@pytest.mark.parametrize(
    ("field", "value", "code", "words"),
    [("is_agreed", False, 71, "DIVERGED"), ("leader", None, 3, "NO LEADER")],
)
def test_status_tells_trouble_by_its_exit_code(
    field: str, value: object, code: int, words: str, run: Run, fake: FakeClient
) -> None:
    fake.documents["status"][field] = value
    result = run("status", *CLUSTER)
    assert result.exit_code == code
    assert words in result.stdout


def test_text_of_strangers_is_cleaned_and_cut(run: Run, fake: FakeClient) -> None:
    fake.documents["nodes"]["nodes"][0]["device"] = "\x1b]0;owned\x07" + "x" * 500
    result = run("node", "list", *CLUSTER)
    assert "\x1b" not in result.stdout
    assert "\x07" not in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 100
    assert "9c9c9c9c9c9c" in result.stdout


def explain(run: Run, fake: FakeClient, **changes: object) -> str:
    fake.documents["proof"].update(changes)
    result = run("proof", "explain", "5a5a", *CLUSTER)
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


def verdict(fake: FakeClient, **changes: object) -> Document:
    return {**fake.documents["proof"]["verdicts"][0], **changes}


def test_explanation_of_an_accepted_proof(run: Run, fake: FakeClient) -> None:
    same = {**fake.documents["proof"]["commitment"], "member": "b", "finding": "agree"}
    text = explain(run, fake, status="accepted", differs=[], verdicts=[{**same, "detail": ""}])
    assert text.startswith("ACCEPTED at height 48\u202f190, checked by running it again")
    assert "by member b: agree" in text
    assert "equal in every field" in text


def test_explanation_of_a_proof_that_was_not_drawn(run: Run, fake: FakeClient) -> None:
    text = explain(run, fake, status="accepted", is_audited=False, differs=[], verdicts=[])
    assert "not drawn for audit" in text
    assert "recomputed" not in text


def test_explanation_of_a_disagreement_among_members(run: Run, fake: FakeClient) -> None:
    verdicts = [
        verdict(fake, member="a"),
        verdict(fake, member="b", gas=1),
        verdict(fake, member="c", finding="unable", detail="the input is gone"),
    ]
    text = explain(
        run, fake, status="audited_by_all", decided_height=None, verdicts=verdicts, missing=["d"]
    )
    assert text.startswith("UNDER AUDIT, waits for the verdict of d")
    assert text.count("recomputed  ") == 2
    assert "unable      member c: the input is gone" in text


@pytest.mark.parametrize(
    ("differs", "cause"),
    [
        (["status", "gas"], "ends in another way"),
        (["gas"], "the gas is not"),
        (["execution_root"], "the execution root is not"),
    ],
)
def test_cause_names_the_difference_that_says_most(
    differs: list[str], cause: str, run: Run, fake: FakeClient
) -> None:
    assert cause in explain(run, fake, differs=differs)


def test_output_goes_out_byte_for_byte(run: Run, fake: FakeClient, tmp_path: Path) -> None:
    fake.output_bytes = bytes(range(256))
    assert run("task", "output", "7d7d", *CLUSTER).stdout_bytes == fake.output_bytes
    out = tmp_path / "out.bin"
    assert run("task", "output", "7d7d", "--out", out, *CLUSTER).exit_code == 0
    assert out.read_bytes() == fake.output_bytes
    result = run("task", "output", "7d7d", "--out", tmp_path / "no" / "out", *CLUSTER)
    assert result.exit_code == 2
    assert "cannot write it" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (("task", "watch", "7d7d"), "task"),
        (("task", "cancel", "7d7d"), "task"),
        (("proof", "explain", "5a5a"), "proof"),
        (("account", "transfer", "abab", "1"), "account"),
        (("batch", "seal"), "batches"),
    ],
)
def test_document_without_what_is_needed_is_no_defect_of_ours(
    arguments: tuple[str, ...], name: str, run: Run, fake: FakeClient, directory: Path
) -> None:
    fake.documents[name] = {"schema": fake.documents[name]["schema"]}
    result = run(*arguments, "--dir", directory / "client")
    assert result.exit_code == 1
    assert "is not understood" in result.stderr


def test_watch_tells_each_change_and_fails_without_a_result(run: Run, fake: FakeClient) -> None:
    task = fake.documents["task"]
    fake.changes = [{**task, "status": "assigned"}, {**task, "status": "expired"}]
    task["status"] = "expired"
    result = run("task", "watch", "7d7d", *CLUSTER, "--timeout", "2m")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "task 7d7d7d7d7d7d assigned to node 9c9c9c9c9c9c (attempt 2)",
        "task 7d7d7d7d7d7d expired",
    ]
    assert fake.calls[-1] == ("wait_task", "7d7d", 120.0)


def test_colours_are_for_terminals() -> None:
    table = Table([Column("STATUS", "status")], [{"status": "rejected"}], "none")
    assert "\x1b[" in render_table(table, is_colored=True)
    assert render_table(table, is_colored=False) == "STATUS\nrejected"


def test_only_the_elastic_column_is_cut() -> None:
    columns = [Column("NAME", "name"), Column("DETAIL", "detail", is_elastic=True)]
    item = {"name": "n" * 60, "detail": "d" * 90}
    lines = render_table(Table(columns, [item], "none"), is_colored=False).splitlines()
    assert "n" * 60 in lines[1]
    assert lines[1].endswith("…")
    assert len(lines[1]) <= 100
