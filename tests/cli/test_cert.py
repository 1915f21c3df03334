"""`vcp-cluster cert`: its documents, its pages and its refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vcp_cluster.cli.main import cli

MEMBERS = "a=127.0.0.1:7100,b=127.0.0.1:7110"


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(cli, arguments)
    return result.exit_code, result.stdout, result.stderr


def read(*arguments: str) -> dict[str, Any]:
    code, output, messages = run(*arguments, "--json")
    assert code == 0, messages
    document: dict[str, Any] = json.loads(output)
    return document


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    path = tmp_path / "c"
    document = read("init", "--members", MEMBERS, "--dir", str(path), "--certificate-days", "100")
    assert document["authority_key"] == str(path / "ca.key")
    return path


def test_show_lists_the_ca_and_the_members(cluster: Path) -> None:
    document = read("cert", "show", "--dir", str(cluster))
    assert document["schema"] == "vcp/certificates/v1"
    rows = document["certificates"]
    assert [row["name"] for row in rows] == ["CA", "a", "b"]
    assert {row["status"] for row in rows} == {"valid"}
    assert all(len(row["fingerprint"]) == 64 for row in rows)
    one = read("cert", "show", "--dir", str(cluster / "a"))["certificates"]
    assert [row["fingerprint"] for row in one] == [row["fingerprint"] for row in rows[:2]]
    code, output, _ = run("cert", "show", "--dir", str(cluster))
    assert code == 0 and "FINGERPRINT" in output and rows[1]["fingerprint"][:12] in output
    assert rows[1]["not_after"][:10] in output


def test_rotate_replaces_key_and_certificate(cluster: Path) -> None:
    before = read("cert", "show", "--dir", str(cluster / "a"))["certificates"][1]
    document = read("cert", "rotate", "--dir", str(cluster / "a"), "--days", "400")
    after = read("cert", "show", "--dir", str(cluster / "a"))["certificates"][1]
    assert document["fingerprint"] == after["fingerprint"] != before["fingerprint"]
    assert document["not_after"] == after["not_after"] > before["not_after"]


def test_request_issue_and_install_on_two_machines(cluster: Path, tmp_path: Path) -> None:
    member, request, certificate = cluster / "a", tmp_path / "a.csr", tmp_path / "a.crt"
    asked = read("cert", "rotate", "--dir", str(member), "--request", str(request))
    assert asked["next"].startswith("vcp-cluster cert issue a --ca DIR --request a.csr")
    issued = read(
        *("cert", "issue", "a", "--ca", str(cluster)),
        *("--request", str(request), "--out", str(certificate)),
    )
    installed = read("cert", "rotate", "--dir", str(member), "--certificate", str(certificate))
    assert installed["fingerprint"] == issued["fingerprint"]
    shown = read("cert", "show", "--dir", str(member))["certificates"][1]
    assert shown["fingerprint"] == issued["fingerprint"] and shown["status"] == "valid"


def test_the_ca_is_replaced(cluster: Path) -> None:
    document = read("cert", "replace-ca", "--ca", str(cluster))
    rows = read("cert", "show", "--dir", str(cluster))["certificates"]
    assert [row["name"] for row in rows] == ["CA", "CA", "a", "b"]
    assert rows[1]["fingerprint"] == document["fingerprint"]
    assert {row["status"] for row in rows} == {"valid"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("show", "--dir", "{dir}/nothing"), "it does not exist"),
        (("issue", "z", "--ca", "{dir}", "--out", "{dir}/x"), "there is no member 'z'"),
        (("issue", "a", "--ca", "{dir}/a", "--out", "{dir}/x"), "ca.key"),
        (("issue", "a", "--ca", "{dir}", "--out", "{dir}/x", "--days", "0"), "--days"),
        (("replace-ca", "--ca", "{dir}/a"), "ca.key"),
        (("rotate", "--dir", "{dir}/client"), "member.key"),
        (("rotate", "--dir", "{dir}/a", "--ca", "{dir}/b"), "ca.key"),
        (("rotate", "--dir", "{dir}/a", "--ca", "{dir}", "--request", "x"), "only one of"),
        (("rotate", "--dir", "{dir}/a", "--certificate", "{dir}/ca.crt"), "not for a TLS key"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    cluster: Path, arguments: tuple[str, ...], words: str
) -> None:
    code, output, messages = run("cert", *(one.format(dir=cluster) for one in arguments))
    assert (code, output) == (2, "")
    assert words in messages and "Next: " in messages and "Traceback" not in messages
    assert not (cluster / "x").exists()


def test_a_member_with_a_wrong_certificate_does_not_start(cluster: Path) -> None:
    (cluster / "a" / "tls.pem").write_bytes((cluster / "b" / "tls.pem").read_bytes())
    code, _, messages = run("join", "--dir", str(cluster / "a"))
    assert code == 2 and "it is of member 'b', not of a" in messages
