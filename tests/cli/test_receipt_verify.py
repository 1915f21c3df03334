"""`receipt verify`: which cluster is trusted, what is said, and the exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vcp_cluster.cluster.directory import load_genesis
from vcp_cluster.cluster.profile import Profile, write_profile
from vcp_cluster.ledger.genesis import compute_chain_id
from vcp_cluster.ledger.receipts import RECEIPT_BYTES_MAX, ReceiptReport

from .conftest import Run

CHAIN_ID = bytes.fromhex("0f" * 16)

PAGE = """\
{file} is valid
  paid         1 250.000000 VCP to node 9c9c9c9c9c9c for task 7d7d7d7d7d7d
  where        paris-1, batch 118, entry 6 of 240
  trusted      0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f (--chain-id)
  in batch     inclusion proof, 8 hashes: ok
  not checked  that the output is right
"""


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Chain ids that a valid receipt was checked against."""
    calls: list[bytes] = []

    def check_receipt(data: bytes, chain_id: bytes) -> ReceiptReport:
        assert data == b"a receipt"
        calls.append(chain_id)
        return ReceiptReport(
            chain_id=chain_id,
            cluster_name="paris-1",
            task=b"\x7d" * 32,
            payee=b"\x9c" * 32,
            amount=1_250_000_000,
            output_hash=b"\x33" * 32,
            batch=118,
            leaf_index=5,
            leaf_count=240,
            log_size=118,
            members=("a", "b"),
            checked=(("in batch", "inclusion proof, 8 hashes"),),
            unchecked=("that the output is right",),
        )

    monkeypatch.setattr("vcp_cluster.ledger.receipts.check_receipt", check_receipt)
    return calls


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file whose content only `trusted` takes for a receipt."""
    path = tmp_path / "payout.receipt"
    path.write_bytes(b"a receipt")
    return path


def test_valid_receipt_says_what_was_checked_and_what_not(
    run: Run, file: Path, trusted: list[bytes]
) -> None:
    result = run("receipt", "verify", file, "--chain-id", CHAIN_ID.hex())
    assert result.exit_code == 0, result.stderr
    assert result.stdout.replace("\u202f", " ") == PAGE.format(file=file)


def test_chain_id_comes_from_flag_genesis_or_profile(
    run: Run, file: Path, trusted: list[bytes], directory: Path
) -> None:
    genesis = directory / "genesis.json"
    chain_id = compute_chain_id(load_genesis(genesis))
    profile = Profile(cluster="http://h:1", directory=str(directory), chain_id="aa" * 16)
    write_profile(profile)
    assert run("receipt", "verify", file).exit_code == 0
    assert run("receipt", "verify", file, "--genesis", genesis).exit_code == 0
    assert run("receipt", "verify", file, "--chain-id", CHAIN_ID.hex()).exit_code == 0
    assert trusted == [b"\xaa" * 16, chain_id, CHAIN_ID]
    both = run("receipt", "verify", file, "--genesis", genesis, "--chain-id", CHAIN_ID.hex())
    assert both.exit_code == 2
    assert len(trusted) == 3


def test_without_a_chain_id_nothing_is_trusted(run: Run, file: Path, trusted: list[bytes]) -> None:
    result = run("receipt", "verify", file)
    assert result.exit_code == 2
    assert "--genesis FILE" in result.stderr
    assert trusted == []


def test_valid_receipt_as_json(run: Run, file: Path, trusted: list[bytes]) -> None:
    result = run("receipt", "verify", file, "--chain-id", CHAIN_ID.hex(), "--json")
    document = json.loads(result.stdout)
    assert document["schema"] == "vcp/verification/v1"
    assert document["valid"] is True
    assert document["amount"] == "1250000000"
    assert document["unchecked"] == ["that the output is right"]


@pytest.mark.parametrize(
    "content",
    [b"", b"a receipt", b"\xff" * 100, bytes(RECEIPT_BYTES_MAX + 1)],
    ids=["empty", "text", "binary", "large"],
)
def test_forged_receipt_is_exit_5(content: bytes, run: Run, file: Path) -> None:
    file.write_bytes(content)
    arguments = ("receipt", "verify", file, "--chain-id", CHAIN_ID.hex())
    result = run(*arguments)
    assert result.exit_code == 5
    assert result.stdout.startswith(f"{file} is NOT valid\n  because")
    document = json.loads(run(*arguments, "--json").stdout)
    assert document["valid"] is False
    assert document["reason"]
    assert document["amount"] is None


def test_both_documents_have_the_same_keys(
    run: Run, file: Path, trusted: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ("receipt", "verify", file, "--chain-id", CHAIN_ID.hex(), "--json")
    valid = json.loads(run(*arguments).stdout)
    monkeypatch.undo()
    invalid = json.loads(run(*arguments).stdout)
    assert (valid["valid"], invalid["valid"]) == (True, False)
    assert valid.keys() == invalid.keys()


def test_missing_file_is_wrong_usage(run: Run, tmp_path: Path) -> None:
    result = run("receipt", "verify", tmp_path / "none", "--chain-id", CHAIN_ID.hex())
    assert result.exit_code == 2
    assert "No such file" in result.stderr


def test_broken_profile_is_named(run: Run, file: Path, home: Path) -> None:
    path = home / "vcp-cluster" / "profile.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"schema":"vcp/profile/v2"}')
    result = run("receipt", "verify", file)
    assert result.exit_code == 2
    assert str(path) in result.stderr
