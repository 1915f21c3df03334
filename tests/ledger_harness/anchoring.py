"""The anchor operations of either backend as the honest would fill them in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ledger_harness.cast import MEMBERS, seed
from ledger_harness.ledger import Ledger
from ledger_harness.seals import SCRIPT, SETTINGS, SIGNER, WORK, mine
from vcp_cluster.ledger import anchors
from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY
from vcp_cluster.ledger.anchors.bitcoin import (
    BlockEvidence,
    SignedAnchor,
    find_seal,
    parse_variant,
)
from vcp_cluster.ledger.anchors.notary import NotaryEvidence, compute_checkpoints, compute_raw
from vcp_cluster.ledger.bitcoin.seal import build_anchor
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.notes import format_note, sign_cosignature
from vcp_cluster.ledger.operations import (
    AnchorBump,
    AnchorFinal,
    AnchorHalt,
    AnchorIntent,
    AnchorLease,
    AnchorObserved,
    AnchorReseat,
    AnchorRetract,
)
from vcp_cluster.ledger.records import Anchor

FEE = 200  # satoshi

_replace = msgspec.structs.replace


def pending(ledger: Ledger, backend: str) -> Anchor | None:
    """The anchor of a backend that is not final yet."""
    size = ledger.state.get_lane(backend).pending
    return ledger.state.get_anchor(backend, size) if size else None


def lease(ledger: Ledger, **changes: Any) -> AnchorLease:
    """To act on Bitcoin, with a node on the right network."""
    return _replace(AnchorLease(BITCOIN, SETTINGS.network, WORK), **changes)


def sealed(ledger: Ledger, payload: bytes, fee: int = FEE) -> bytes:
    """A signed transaction that publishes `payload` from the present seal."""
    state = ledger.state
    previous = anchors.find_previous(state, BITCOIN, state.get_lane(BITCOIN))
    coins = [find_seal(SETTINGS, previous)]
    unsigned = build_anchor(coins, SCRIPT, payload, fee)
    return encode(SignedAnchor(SIGNER.sign(unsigned, coins, SCRIPT).full, (), 7))


def intent(
    ledger: Ledger, backend: str = NOTARY, fee: int = FEE, /, **changes: Any
) -> AnchorIntent:
    """The intent to publish the batch log as it stands."""
    state = ledger.state
    size, payload = state.get_settlement().headers, anchors.compute_payload(state)
    if backend == BITCOIN:
        raw = sealed(ledger, payload, fee)
    else:
        raw = compute_raw(state) if size else b""
    return _replace(AnchorIntent(backend, size, payload, raw), **changes)


def bump(ledger: Ledger, fee: int, **changes: Any) -> AnchorBump:
    """The pending anchor at another fee; of an empty payload when none is pending."""
    anchor = pending(ledger, BITCOIN)
    raw = sealed(ledger, anchor.payload if anchor else bytes(40), fee)
    return _replace(AnchorBump(BITCOIN, anchor.size if anchor else 0, raw), **changes)


def reseat(ledger: Ledger, fee: int = FEE, **changes: Any) -> AnchorReseat:
    """The pending anchor on the present seal; of an empty payload when none is pending."""
    anchor = pending(ledger, BITCOIN)
    raw = sealed(ledger, anchor.payload if anchor else bytes(40), fee)
    return _replace(AnchorReseat(BITCOIN, anchor.size if anchor else 0, raw), **changes)


def notary_observed(
    ledger: Ledger, cosigners: Sequence[str] = MEMBERS, **changes: Any
) -> AnchorObserved:
    """Both checkpoints, cosigned."""
    batch, transactions = (
        format_note(
            checkpoint,
            [sign_cosignature(seed(name), name, checkpoint, 1_700_000_000) for name in cosigners],
        )
        for checkpoint in compute_checkpoints(ledger.state)
    )
    size = ledger.state.get_lane(NOTARY).pending
    evidence = encode(NotaryEvidence(batch, transactions))
    return _replace(AnchorObserved(NOTARY, size, evidence, b""), **changes)


def bitcoin_observed(ledger: Ledger, variant: int = 0, **changes: Any) -> AnchorObserved:
    """One variant in a block; no evidence when none is pending. The block is found at once."""
    anchor = pending(ledger, BITCOIN)
    if anchor is None:
        return _replace(AnchorObserved(BITCOIN, 0, b"", WORK), **changes)
    raw = anchor.raws[variant % len(anchor.raws)]
    evidence = BlockEvidence(variant, 0, b"", mine(parse_variant(raw))[0], 100)
    return _replace(AnchorObserved(BITCOIN, anchor.size, encode(evidence), WORK), **changes)


def final(ledger: Ledger, backend: str = NOTARY, /, **changes: Any) -> AnchorFinal:
    """The pending anchor is deep enough."""
    anchor = pending(ledger, backend)
    if backend == NOTARY or anchor is None:
        operation = AnchorFinal(backend, anchor.size if anchor else 0, b"", b"")
    else:
        headers = mine(parse_variant(anchor.raws[anchor.variant]))
        operation = AnchorFinal(backend, anchor.size, b"".join(headers[1:]), WORK)
    return _replace(operation, **changes)


def retract(size: int, backend: str = BITCOIN, position: bytes = WORK) -> AnchorRetract:
    """The block of an anchor is gone."""
    return AnchorRetract(backend, size, position)


def halt(
    ledger: Ledger, backend: str = BITCOIN, reason: str = "look", **changes: Any
) -> AnchorHalt:
    """Stop a backend, or with an empty reason let it go on."""
    revision = ledger.state.get_lane(backend).revision
    return _replace(AnchorHalt(backend, reason, revision), **changes)
