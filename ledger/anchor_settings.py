"""What genesis says about anchors: which backends, and for Bitcoin the key and the first coin.

The chain id commits to all of it, so that an anchor made with another key, from another coin or on
another network is another cluster's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.bitcoin.headers import HEADERS_MAX, decode_target
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid
from vcp_cluster.ledger.bitcoin.script import is_seal_script
from vcp_cluster.ledger.bitcoin.seal import SEAL_VALUE_MIN, Coin, find_coin
from vcp_cluster.ledger.bitcoin.secp256k1 import parse_key
from vcp_cluster.ledger.bitcoin.transaction import Transaction, parse_stripped
from vcp_cluster.ledger.encoding import Hash, Record, ShortText, Unsigned

NOTARY = "notary"
BITCOIN = "bitcoin"
FUNDING_BYTES_MAX = 10_000


class BitcoinSettings(Record, frozen=True):
    """One chain of seals on one network. Amounts are satoshi.

    `network` is the hash of its first block, as computed (nodes print it reversed). `funding` is
    the transaction, without witnesses, whose output number `funding_output` is the first seal.
    `header_bits` is the easiest compact target that a header of a proof may have; `fee_max` the
    most that one anchor may cost; `confirmations` what makes it final.
    """

    network: Hash
    seal_key: Annotated[bytes, Meta(min_length=33, max_length=33)]
    funding: Annotated[bytes, Meta(max_length=FUNDING_BYTES_MAX)]
    funding_output: Annotated[int, Meta(ge=0, le=10_000)]
    confirmations: Annotated[int, Meta(ge=1, le=HEADERS_MAX)]
    fee_max: Unsigned
    header_bits: Annotated[int, Meta(ge=0, le=2**32 - 1)]


class AnchorSettings(Record, frozen=True):
    """The backends of a cluster, by name; `bitcoin` has one entry exactly where it is among them."""

    backends: Annotated[tuple[ShortText, ...], Meta(min_length=1, max_length=8)]
    bitcoin: Annotated[tuple[BitcoinSettings, ...], Meta(max_length=1)]


def default_anchors() -> AnchorSettings:
    """The embedded default: the notary alone."""
    return AnchorSettings((NOTARY,), ())


def check_anchor_settings(settings: AnchorSettings) -> None:
    """Raise `BitcoinInvalid` or `ValueError` where the fields do not fit together."""
    backends = settings.backends
    is_sorted = list(backends) == sorted(set(backends))
    if not backends or not is_sorted or not set(backends) <= {NOTARY, BITCOIN}:
        raise ValueError("anchors: backends are bitcoin, notary or both, sorted, each once")
    if (BITCOIN in backends) != bool(settings.bitcoin):
        raise ValueError("anchors: the bitcoin backend and its settings go together")
    for one in settings.bitcoin:
        parse_key(one.seal_key)
        decode_target(one.header_bits)
        coin = first_coin(one)
        if not is_seal_script(seal_script_of(one)) or coin.value < SEAL_VALUE_MIN:
            raise BitcoinInvalid(
                f"the funding output is not pay-to-witness-key-hash of {SEAL_VALUE_MIN} satoshi "
                "or more"
            )
        if not SEAL_VALUE_MIN <= one.fee_max <= coin.value:
            raise BitcoinInvalid("fee_max is not between 1000 satoshi and the first coin's value")


@lru_cache(maxsize=8)
def funding_of(settings: BitcoinSettings) -> Transaction:
    """The transaction that made the first seal; raise `BitcoinInvalid`."""
    return parse_stripped(settings.funding)


def seal_script_of(settings: BitcoinSettings) -> bytes:
    """The script of every seal: that of the first one; raise `BitcoinInvalid`.

    That it is the script of `seal_key` is the network's to enforce: no other key can spend it.
    """
    outputs = funding_of(settings).outputs
    if settings.funding_output >= len(outputs):
        raise BitcoinInvalid("the funding transaction has no such output")
    return outputs[settings.funding_output].script


def first_coin(settings: BitcoinSettings) -> Coin:
    """The first seal; raise `BitcoinInvalid`."""
    script = seal_script_of(settings)
    return find_coin(funding_of(settings), settings.funding_output, script)
