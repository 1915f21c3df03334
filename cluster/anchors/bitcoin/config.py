"""A member's `bitcoin.toml`: its node, its limits, its coins. Secrets are named by file, not held.

    url = "http://127.0.0.1:8332"
    cookie_file = "/home/bitcoin/.bitcoin/.cookie"   # one line USER:PASSWORD, mode 0600
    fee_rate_max = 100000                            # satoshi per 1,000 vB
    top_ups = ["top-up.hex:0"]                       # raw transaction in a file, and its output

A member without the file has no node, and takes no part. One with it, and without `bitcoin.key`,
broadcasts what is in the ledger. One with both may hold the lease.
"""

from __future__ import annotations

import os
import stat
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from vcp_cluster.cluster.anchors.bitcoin.fees import FeePolicy
from vcp_cluster.cluster.anchors.bitcoin.rpc import NodeMisconfigured
from vcp_cluster.cluster.anchors.bitcoin.signer import SEAL_KEY_FILE, KeySigner, load_signer
from vcp_cluster.cluster.anchors.bitcoin.variants import POLL_S, AnchorerOptions, TopUp
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.ledger.anchor_settings import BitcoinSettings, seal_script_of
from vcp_cluster.ledger.anchors.bitcoin import PARENT_BYTES_MAX
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid
from vcp_cluster.ledger.bitcoin.seal import COINS_MAX, find_coin
from vcp_cluster.ledger.bitcoin.transaction import Transaction, parse_transaction

CONFIG_FILE = "bitcoin.toml"
_CONFIG_BYTES_MAX = 16 * 1024
_COOKIE_BYTES_MAX = 1024
_HEX_BYTES_MAX = 1 << 20
_HINT = "see docs/anchoring.md for the file"

Rate = Annotated[int, Meta(ge=1, le=10**8)]


class _Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    url: Annotated[str, Meta(max_length=255)]
    cookie_file: Annotated[str, Meta(min_length=1, max_length=4096)]
    fee_rate_min: Rate = FeePolicy().rate_min
    fee_rate_max: Rate = FeePolicy().rate_max
    fee_target_blocks: Annotated[int, Meta(ge=1, le=1008)] = FeePolicy().target_blocks
    fee_budget_per_day: Annotated[int, Meta(ge=0, le=10**12)] = FeePolicy().budget_per_day
    poll_seconds: Annotated[float, Meta(ge=0.05, le=600)] = POLL_S
    top_ups: Annotated[tuple[str, ...], Meta(max_length=COINS_MAX)] = ()


@dataclass(frozen=True)
class BitcoinConfig:
    """A checked `bitcoin.toml` and the key beside it, if there is one."""

    url: str
    cookie_file: Path
    options: AnchorerOptions
    signer: KeySigner | None

    def read_credentials(self) -> str:
        """`USER:PASSWORD` of the moment; raise `NodeMisconfigured`."""
        return read_cookie(self.cookie_file)


def load_config(directory: Path, settings: BitcoinSettings) -> BitcoinConfig | None:
    """The configuration in a member's directory, or None without one; raise `ConfigError`."""
    path = directory / CONFIG_FILE
    if not path.exists():
        return None
    try:
        text = _read(path, _CONFIG_BYTES_MAX).decode()
        config = msgspec.convert(tomllib.loads(text), _Config)
    except (msgspec.ValidationError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise _wrong(path, str(error)) from None
    check_url(config.url, str(path))
    if config.fee_rate_min > config.fee_rate_max:
        raise _wrong(path, "fee_rate_min is above fee_rate_max")
    key = directory / SEAL_KEY_FILE
    return BitcoinConfig(
        url=config.url,
        cookie_file=directory / Path(config.cookie_file).expanduser(),
        options=AnchorerOptions(
            policy=FeePolicy(
                target_blocks=config.fee_target_blocks,
                rate_min=config.fee_rate_min,
                rate_max=config.fee_rate_max,
                budget_per_day=config.fee_budget_per_day,
            ),
            top_ups=tuple(_load_top_up(directory, one, settings) for one in config.top_ups),
            poll_s=config.poll_seconds,
        ),
        signer=load_signer(key, settings) if key.exists() else None,
    )


def check_url(url: str, origin: str) -> None:
    """Raise `ConfigError` unless it is an HTTP address without a password in it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(
            "it is not http://HOST:PORT", key="url", origin=origin, hint="give the RPC address"
        )
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            "it holds a password, which would end up in logs",
            key="url",
            origin=origin,
            hint="put USER:PASSWORD into a file of mode 0600 and name that",
        )


def read_cookie(path: Path) -> str:
    """One line `USER:PASSWORD` of a file that nobody else can read; raise `NodeMisconfigured`."""
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            data = file.read(_COOKIE_BYTES_MAX + 1)
    except OSError as error:
        raise NodeMisconfigured(
            f"cannot read {path}: {error.strerror}. Next: start the node, or correct cookie_file"
        ) from None
    if not stat.S_ISREG(mode) or stat.S_IMODE(mode) & 0o077:
        raise NodeMisconfigured(f"others can read {path}. Next: chmod 600 {path}")
    text = data.decode("ascii", errors="replace").strip()
    is_line = data.isascii() and text.isprintable() and ":" in text
    if len(data) > _COOKIE_BYTES_MAX or not is_line:
        raise NodeMisconfigured(f"{path} is not one line USER:PASSWORD. Next: correct it")
    return text


def load_transaction(path: Path) -> Transaction:
    """A raw transaction in hex, as `getrawtransaction` prints it; raise `ConfigError`."""
    try:
        text = _read(path, _HEX_BYTES_MAX).decode("ascii").strip()
        transaction = parse_transaction(bytes.fromhex(text))
    except (ValueError, BitcoinInvalid) as error:
        raise ConfigError(
            f"it is not one raw transaction in hex: {error}",
            key=path.name,
            origin=str(path),
            hint="write it with `bitcoin-cli getrawtransaction TXID`",
        ) from None
    if len(transaction.stripped) > PARENT_BYTES_MAX:
        raise ConfigError(
            f"without witnesses it has more than {PARENT_BYTES_MAX} bytes",
            key=path.name,
            origin=str(path),
            hint="send the coin to the seal's address in a transaction of its own",
        )
    return transaction


def _load_top_up(directory: Path, text: str, settings: BitcoinSettings) -> TopUp:
    name, _, output = text.rpartition(":")
    path = directory / CONFIG_FILE
    if not name or not output.isascii() or not output.isdigit() or len(output) > 5:
        raise _wrong(path, f"top_ups: {text!r} is not FILE:OUTPUT")
    transaction = load_transaction(directory / Path(name).expanduser())
    try:
        find_coin(transaction, int(output), seal_script_of(settings))
    except BitcoinInvalid as error:
        raise _wrong(path, f"top_ups: {text!r}: {error}") from None
    return TopUp(transaction, int(output))


def _read(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        raise _wrong(path, f"cannot read it: {error.strerror}") from None
    if len(data) > bytes_max:
        raise _wrong(path, f"it is larger than {bytes_max} bytes")
    return data


def _wrong(path: Path, message: str) -> ConfigError:
    return ConfigError(message, key=path.name, origin=str(path), hint=_HINT)
