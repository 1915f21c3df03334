"""Genesis: the document that two members must share to be one cluster.

The chain id is the first 16 bytes of BLAKE3 over the canonical genesis: it commits the members'
keys, the governance keys, every parameter, the anchors' keys and the first allocations.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vcp_cluster.ledger.anchor_settings import (
    AnchorSettings,
    BitcoinSettings,
    check_anchor_settings,
)
from vcp_cluster.ledger.encoding import (
    INTEGER_MAX,
    Hash,
    Key,
    Record,
    Unsigned,
    decode,
    encode,
)
from vcp_cluster.ledger.keys import hash_content

GENESIS_VERSION = 1
MEMBERS_MAX = 16
UNITS_PER_VCP = 1_000_000
# A hundred years: a deadline that far from any time that a clock shows is still below 2^63.
DURATION_MS_MAX = 100 * 365 * 24 * 3_600_000

MemberName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")]


class Member(Record, frozen=True):
    """A Raft replica: its name, `HOST:PORT` of its Raft port, and its Ed25519 key."""

    name: MemberName
    address: Annotated[str, Meta(min_length=3, max_length=255)]
    key: Key


class Governance(Record, frozen=True):
    """`threshold` of `keys` must sign what only the operators together may do."""

    threshold: Annotated[int, Meta(ge=1, le=MEMBERS_MAX)]
    keys: Annotated[tuple[Key, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]


class Allocation(Record, frozen=True):
    """Units given to an account at height 0."""

    account: Key
    amount: Unsigned


class Parameters(Record, frozen=True):
    """Rules of one cluster. Times are milliseconds, sizes bytes, rates basis points."""

    profiles: Annotated[tuple[Hash, ...], Meta(min_length=1, max_length=16)]
    validity_ms_max: Unsigned
    expiries_per_entry_max: Annotated[int, Meta(ge=1, le=100_000)]
    assignments_per_entry_max: Annotated[int, Meta(ge=1, le=100_000)]
    active_gap_ms_max: Unsigned
    attempts_max: Annotated[int, Meta(ge=1, le=16)]
    deadline_ms_max: Unsigned
    open_ms_max: Unsigned
    module_bytes_max: Unsigned
    input_bytes_max: Unsigned
    output_bytes_max: Unsigned
    memory_bytes_max: Unsigned
    gas_max: Unsigned
    run_ms_max: Unsigned
    nodes_max: Annotated[int, Meta(ge=1, le=100_000)]
    audit_first_proofs: Unsigned
    audit_rate_min_bp: Annotated[int, Meta(ge=1, le=10_000)]
    audit_silence_ms: Unsigned
    stake_min: Unsigned
    stake_target: Unsigned
    stake_retained_bp: Annotated[int, Meta(ge=0, le=10_000)]
    slash_rewards: Unsigned
    reputation_initial: Annotated[int, Meta(ge=0, le=10_000)]
    reputation_accepted: Annotated[int, Meta(ge=0, le=10_000)]
    reputation_rejected: Annotated[int, Meta(ge=0, le=10_000)]
    reputation_failed: Annotated[int, Meta(ge=0, le=10_000)]
    safe_temperature_mc: Unsigned
    safe_latency_us: Unsigned
    safe_errors: Annotated[int, Meta(ge=1)]
    safe_reports: Annotated[int, Meta(ge=1)]
    settle_interval_ms: Unsigned
    blob_retention_ms: Unsigned


# The hash is kept: chain id and members are looked up by it for every transaction.
class Genesis(Record, frozen=True, cache_hash=True):
    """The first document of a cluster; `created_ms` is its ledger time at height 0."""

    version: Annotated[int, Meta(ge=1, le=1)]
    cluster_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    created_ms: Unsigned
    governance: Governance
    members: Annotated[tuple[Member, ...], Meta(min_length=1, max_length=MEMBERS_MAX)]
    parameters: Parameters
    anchors: AnchorSettings
    allocations: Annotated[tuple[Allocation, ...], Meta(max_length=10_000)]


class GenesisInvalid(ValueError):
    """The genesis document cannot start a cluster; the message says why."""


def default_parameters(profiles: tuple[bytes, ...]) -> Parameters:
    """The parameters of FORMATS; `profiles` are the execution profiles whose proofs are paid."""
    return Parameters(
        profiles=profiles,
        validity_ms_max=600_000,
        expiries_per_entry_max=1_000,
        assignments_per_entry_max=1_000,
        active_gap_ms_max=2_000,
        attempts_max=3,
        deadline_ms_max=3_600_000,
        open_ms_max=86_400_000,
        module_bytes_max=4 << 20,
        input_bytes_max=16 << 20,
        output_bytes_max=16 << 20,
        memory_bytes_max=512 << 20,
        gas_max=10_000_000_000,
        run_ms_max=30_000,
        nodes_max=100_000,
        audit_first_proofs=10,
        audit_rate_min_bp=500,
        audit_silence_ms=30_000,
        stake_min=0,
        stake_target=10 * UNITS_PER_VCP,
        stake_retained_bp=2_000,
        slash_rewards=10,
        reputation_initial=5_000,
        reputation_accepted=100,
        reputation_rejected=500,
        reputation_failed=50,
        safe_temperature_mc=85_000,
        safe_latency_us=300_000,
        safe_errors=25,
        safe_reports=3,
        settle_interval_ms=10_000,
        blob_retention_ms=4 * 3_600_000,
    )


def check_genesis(genesis: Genesis) -> None:
    """Raise `GenesisInvalid` where single fields are right but do not fit together."""
    names = [member.name for member in genesis.members]
    keys = [member.key for member in genesis.members]
    addresses = [member.address for member in genesis.members]
    for what, values in (("name", names), ("key", keys), ("address", addresses)):
        if len(set(values)) != len(values):
            raise GenesisInvalid(f"two members share one {what}")
    if names != sorted(names):
        raise GenesisInvalid("members are not sorted by name")
    if genesis.governance.threshold > len(genesis.governance.keys):
        raise GenesisInvalid("the governance threshold is above the number of governance keys")
    if len(set(genesis.governance.keys)) != len(genesis.governance.keys):
        raise GenesisInvalid("a governance key is listed twice")
    for name in Parameters.__struct_fields__:
        if name.endswith(("_ms", "_ms_max")):
            value = getattr(genesis.parameters, name)
            if value > DURATION_MS_MAX:
                raise GenesisInvalid(f"{name} is {value}, more than {DURATION_MS_MAX} (100 years)")
    try:
        check_anchor_settings(genesis.anchors)
    except ValueError as error:
        raise GenesisInvalid(str(error)) from None
    if sum(allocation.amount for allocation in genesis.allocations) > INTEGER_MAX:
        raise GenesisInvalid("the allocations exceed 2^63-1 units")
    if len({allocation.account for allocation in genesis.allocations}) != len(genesis.allocations):
        raise GenesisInvalid("an account is allocated to twice")


@lru_cache(maxsize=8)
def compute_chain_id(genesis: Genesis) -> bytes:
    """The 16 bytes that name the cluster in every signed object."""
    return hash_content(encode(genesis))[:16]


@lru_cache(maxsize=8)
def decode_genesis(data: bytes) -> Genesis:
    """Decode canonical genesis bytes; raise `Malformed` or `GenesisInvalid`."""
    genesis = decode(Genesis, data)
    check_genesis(genesis)
    return genesis


def majority(genesis: Genesis) -> int:
    """The number of members that is more than half of them."""
    return len(genesis.members) // 2 + 1


@lru_cache(maxsize=8)
def member_names(genesis: Genesis) -> dict[bytes, str]:
    """Member key to member name."""
    return {member.key: member.name for member in genesis.members}


def to_document(genesis: Genesis) -> dict[str, Any]:
    """The readable form written to `genesis.json`: keys and hashes in hex, and the chain id."""
    document = name_fields(genesis)
    return {"chain_id": compute_chain_id(genesis).hex(), **document}


def from_document(document: Any) -> Genesis:
    """Read `genesis.json`; raise `GenesisInvalid` when it is not one, or its chain id differs."""
    try:
        fields = dict(document)
        chain_id = fields.pop("chain_id")
        genesis: Genesis = _unnamed(Genesis, fields)
        check_genesis(genesis)
    except GenesisInvalid:
        raise
    except (
        msgspec.MsgspecError,
        AttributeError,
        KeyError,
        OverflowError,  # an integer that MessagePack cannot hold
        RecursionError,
        TypeError,
        ValueError,
    ) as error:
        raise GenesisInvalid(f"not a genesis document: {error}") from None
    if compute_chain_id(genesis).hex() != chain_id:
        raise GenesisInvalid("the chain id does not match the content: the file was changed")
    return genesis


def name_fields(value: Any) -> Any:
    """The readable form of a part of genesis: fields by name, bytes in hex."""
    if isinstance(value, Record):
        return {name: name_fields(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple):
        return [name_fields(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def read_anchor_settings(document: Any) -> AnchorSettings:
    """The anchors' part of genesis in its readable form; raise `GenesisInvalid`."""
    try:
        settings: AnchorSettings = _unnamed(AnchorSettings, dict(document))
        check_anchor_settings(settings)
    except GenesisInvalid:
        raise
    except (msgspec.MsgspecError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise GenesisInvalid(f"not a document of anchors: {error}") from None
    return settings


def _unnamed(kind: type[Record], fields: Any) -> Any:
    """Turn `{name: value}` into the array form of `kind`, with hex back to bytes."""
    nested: dict[str, type[Record]] = {
        "governance": Governance,
        "parameters": Parameters,
        "anchors": AnchorSettings,
    }
    lists: dict[str, type[Record]] = {
        "members": Member,
        "allocations": Allocation,
        "bitcoin": BitcoinSettings,
    }
    binary = {"key", "keys", "account", "profiles", "network", "seal_key", "funding"}
    if set(fields) != set(kind.__struct_fields__):
        wrong = sorted(set(fields) ^ set(kind.__struct_fields__))
        raise GenesisInvalid(f"missing or unknown fields: {', '.join(wrong)}")
    values: list[Any] = []
    for name in kind.__struct_fields__:
        value = fields[name]
        if name in nested:
            value = _unnamed(nested[name], value)
        elif name in lists:
            value = tuple(_unnamed(lists[name], item) for item in value)
        elif name in binary:
            value = (
                tuple(bytes.fromhex(item) for item in value)
                if isinstance(value, list)
                else bytes.fromhex(value)
            )
        values.append(value)
    return decode(kind, encode(kind(*values)))
