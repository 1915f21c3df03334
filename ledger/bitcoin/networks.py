"""The networks an anchor can be on, and the least work a header of each must show."""

from __future__ import annotations

from dataclasses import dataclass

from vcp_cluster.ledger.bitcoin.reader import from_display


@dataclass(frozen=True, slots=True)
class Network:
    """A network: its first block, its address prefix, and defaults for a cluster's genesis.

    `header_bits` is the easiest compact target that a header may have in a proof. On mainnet it is
    difficulty 2^40, about a hundredth of the real one: without a floor, headers at the difficulty
    of 2009 would cost minutes on a laptop.
    """

    name: str
    genesis_hash: bytes
    address_prefix: str
    header_bits: int
    confirmations: int
    has_security: bool


NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(
            "mainnet",
            from_display("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f"),
            "bc",
            0x1800FFFF,
            6,
            True,
        ),
        Network(
            "testnet4",
            from_display("00000000da84f2bafbbc53dee25a72ae507ff4914b867c565be350b0da8bf043"),
            "tb",
            0x1D00FFFF,
            3,
            False,
        ),
        Network(
            "signet",
            from_display("00000008819873e925422c1ff0f99f7cc9bbb232af63a077a480a3633bee1ef6"),
            "tb",
            0x1E0377AE,
            3,
            False,
        ),
        Network(
            "regtest",
            from_display("0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"),
            "bcrt",
            0x207FFFFF,
            1,
            False,
        ),
    )
}


def find_network(genesis_hash: bytes) -> Network | None:
    """The network with this first block, if it is one of the known."""
    return next((one for one in NETWORKS.values() if one.genesis_hash == genesis_hash), None)
