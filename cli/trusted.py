"""Which cluster a verifier trusts: never what the thing to verify says itself."""

from __future__ import annotations

from pathlib import Path


def get_chain_id(genesis: Path | None, chain_id: bytes | None) -> tuple[bytes, str]:
    """The chain id to trust, and where it is from; raise `ConfigError`."""
    from vcp_cluster.cluster.errors import ConfigError

    if genesis is not None:
        from vcp_cluster.cluster.directory import load_genesis
        from vcp_cluster.ledger.genesis import compute_chain_id

        computed = compute_chain_id(load_genesis(genesis))
        if chain_id not in (None, computed):
            raise ConfigError(
                f"its chain id is {computed.hex()}, not that of --chain-id",
                key="--genesis",
                origin=str(genesis),
                hint="give one of the two",
            )
        return computed, str(genesis)
    if chain_id is not None:
        return chain_id, "--chain-id"
    from vcp_cluster.cluster.profile import profile_path, read_profile

    profile = read_profile()
    if profile is None:
        raise ConfigError(
            "nothing says which cluster to trust",
            key="chain id",
            origin="no --genesis, --chain-id or profile",
            hint="give --genesis FILE, the cluster's genesis.json, from a source that you trust",
        )
    return bytes.fromhex(profile.chain_id), f"profile {profile_path()}"
