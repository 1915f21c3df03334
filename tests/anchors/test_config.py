"""A member's bitcoin.toml, the seal's key, and the commands that set a new cluster up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from vcp_cluster.cli.main import cli
from vcp_cluster.cluster.anchors.bitcoin.config import load_config
from vcp_cluster.cluster.directory import load_genesis, write_seed
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.ledger.anchor_settings import first_coin

from .regtest import ANYONE, RegtestChain
from .world import SCRIPT, SECRET, SIGNER, make_settings

GOOD = 'url = "http://127.0.0.1:18443"\ncookie_file = "cookie"\n'


@pytest.fixture
def funding(chain: RegtestChain) -> Any:
    return chain.pay(SCRIPT, 500_000)


def write(directory: Path, text: str) -> None:
    (directory / "bitcoin.toml").write_text(text)


def test_a_member_without_the_file_has_no_node(tmp_path: Path, funding: Any) -> None:
    assert load_config(tmp_path, make_settings(funding)) is None


def test_a_file_without_a_key_only_broadcasts(tmp_path: Path, funding: Any) -> None:
    settings = make_settings(funding)
    write(tmp_path, GOOD)
    config = load_config(tmp_path, settings)
    assert config is not None and config.signer is None
    write_seed(tmp_path / "bitcoin.key", SECRET)
    config = load_config(tmp_path, settings)
    assert config is not None and config.signer is not None
    assert config.signer.public_key == SIGNER.public_key
    assert SECRET.hex() not in repr(config)


def test_another_key_or_one_that_others_can_read_is_refused(tmp_path: Path, funding: Any) -> None:
    write(tmp_path, GOOD)
    path = tmp_path / "bitcoin.key"
    write_seed(path, b"\x22" * 32)
    with pytest.raises(ConfigError, match="not the key of the seals") as error:
        load_config(tmp_path, make_settings(funding))
    assert "22" * 8 not in str(error.value)
    path.unlink()
    write_seed(path, SECRET)
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_config(tmp_path, make_settings(funding))
    path.unlink()
    write_seed(path, bytes(32))
    with pytest.raises(ConfigError, match="not a private key"):
        load_config(tmp_path, make_settings(funding))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("url = ", "Invalid value"),
        ('url = "http://h:1"\n', "cookie_file"),
        (GOOD + "fee_rat_max = 1\n", "fee_rat_max"),
        (GOOD + "fee_rate_max = 0\n", "fee_rate_max"),
        (GOOD + "fee_rate_max = 99\n", "above fee_rate_max"),
        (GOOD + 'top_ups = ["none"]\n', "FILE:OUTPUT"),
        (GOOD + 'top_ups = ["none:0"]\n', "cannot read"),
        (GOOD.replace("http://", "http://user:secret@"), "holds a password"),
        (GOOD.replace("http://", "ftp://"), "not http"),
    ],
)
def test_a_wrong_file_is_named(text: str, message: str, tmp_path: Path, funding: Any) -> None:
    write(tmp_path, text)
    with pytest.raises(ConfigError, match=message) as error:
        load_config(tmp_path, make_settings(funding))
    assert "secret" not in str(error.value)


def test_top_ups_pay_the_seal_s_address(tmp_path: Path, funding: Any, chain: RegtestChain) -> None:
    settings = make_settings(funding)
    for value, script in ((70_000, SCRIPT), (80_000, ANYONE)):
        transaction = chain.pay(script, value)
        (tmp_path / f"{value}.hex").write_text(transaction.full.hex() + "\n")
    write(tmp_path, GOOD + 'top_ups = ["70000.hex:0"]\nfee_rate_max = 7000\npoll_seconds = 0.5\n')
    config = load_config(tmp_path, settings)
    assert config is not None
    (top_up,) = config.options.top_ups
    assert top_up.parent.outputs[top_up.output].value == 70_000
    assert (config.options.policy.rate_max, config.options.poll_s) == (7_000, 0.5)
    for name in ("80000.hex:0", "70000.hex:1", "70000.hex:9"):
        write(tmp_path, GOOD + f'top_ups = ["{name}"]\n')
        with pytest.raises(ConfigError, match="does not exist, or does not pay"):
            load_config(tmp_path, settings)


# --- commands ----------------------------------------------------------------------------------------


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(one) for one in arguments])


def test_from_a_key_to_a_genesis(
    chain: RegtestChain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    key, funding, anchors = (
        tmp_path / name for name in ("seal.key", "funding.hex", "anchors.json")
    )
    result = run("anchor", "key", "--network", "regtest", "--out", key, "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["address"].startswith("bcrt1q")
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.read_text().strip() not in result.output
    paid = chain.pay(bytes.fromhex(document["script"]), 400_000)
    funding.write_text(paid.full.hex())
    made = ("anchor", "settings", "--network", "regtest", "--funding", funding, "--out", anchors)
    result = run(*made, "--key", key, "--confirmations", 2)
    assert result.exit_code == 0, result.stderr
    members = "a=127.0.0.1:7100,b=127.0.0.1:7110,c=127.0.0.1:7120"
    result = run("init", "--members", members, "--dir", tmp_path / "new", "--anchors", anchors)
    assert result.exit_code == 0, result.stderr
    genesis = load_genesis(tmp_path / "new" / "genesis.json")
    assert genesis.anchors.backends == ("bitcoin", "notary")
    (settings,) = genesis.anchors.bitcoin
    assert settings.confirmations == 2
    assert first_coin(settings).value == 400_000
    assert run("anchor", "key", "--network", "regtest", "--out", key).exit_code == 2
    anchors.write_text(anchors.read_text().replace('"fee_max": 20000', '"fee_max": 1'))
    result = run("init", "--members", members, "--dir", tmp_path / "x", "--anchors", anchors)
    assert (result.exit_code, "fee_max" in result.stderr) == (2, True)
    other = chain.pay(SCRIPT, 10_000)
    funding.write_text(other.full.hex())
    result = run(*made, "--key", key)
    assert (result.exit_code, "does not pay" in result.stderr) == (2, True)
