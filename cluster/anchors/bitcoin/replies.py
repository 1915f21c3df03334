"""What a node's answer to a broadcast means, and so what is to be done (docs/anchoring.md)."""

from __future__ import annotations

import enum

from vcp_cluster.cluster.anchors.bitcoin.rpc import BitcoinNode, NodeRefused

_INPUTS_OR_CAP = -25
_REJECTED = -26
_IN_CHAIN = -27
_UNDECODABLE = -22

# Parts of Core's reasons. Wording differs between versions, hence several for one thing.
_KNOWN = (
    "already in mempool",
    "txn-already",
    "already known",
    "already in block chain",
    "utxo set",
)
_CAP = ("exceeds maximum", "max-fee", "maxfeerate", "max-burn", "maxburn")
_FEE = ("insufficient fee", "min relay fee", "min fee not met", "mempool full", "mempool-full")
_CROWDED = ("too-long-mempool-chain", "too-large-cluster", "too many descendants", "conflict")


class Outcome(enum.Enum):
    """What a broadcast came to. Unavailable nodes raise instead: nothing is known then."""

    ACCEPTED = "in the mempool, now or before"
    CONFIRMED = "in a block already"
    MISSING = "an input is not there: confirmed and spent on, its parent is missing, or lost a race"
    FEE_LOW = "the fee is too low for this node now"
    WAIT = "the mempool has no room for it beside others"
    INVALID = "the node will never take it: a defect of ours, or a limit of the node's"


async def broadcast(node: BitcoinNode, transaction: bytes) -> Outcome:
    """Send a transaction; raise `NodeUnavailable` or `NodeMisconfigured`."""
    try:
        # 0: no limit of the node's on the fee. Every member checked it against genesis's.
        await node.call("sendrawtransaction", transaction.hex(), 0)
    except NodeRefused as refused:
        return classify(refused)
    return Outcome.ACCEPTED


def classify(refused: NodeRefused) -> Outcome:
    """The meaning of an error of `sendrawtransaction`.

    Code -25 is never taken for failure: an anchor whose output the next one has spent gives it too.
    """
    text = refused.message.lower()
    if refused.code == _IN_CHAIN:
        in_mempool = "mempool" in text
        return Outcome.ACCEPTED if in_mempool else Outcome.CONFIRMED
    if refused.code == _INPUTS_OR_CAP:
        return Outcome.INVALID if _has(text, _CAP) else Outcome.MISSING
    if refused.code == _REJECTED:
        if _has(text, _KNOWN):
            return Outcome.ACCEPTED
        if _has(text, _FEE):
            return Outcome.FEE_LOW
        return Outcome.WAIT if _has(text, _CROWDED) else Outcome.INVALID
    return Outcome.INVALID if refused.code == _UNDECODABLE else Outcome.WAIT


def _has(text: str, parts: tuple[str, ...]) -> bool:
    return any(part in text for part in parts)
