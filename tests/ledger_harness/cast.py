"""The people and machines of the tests: everyone's key comes from their name."""

from __future__ import annotations

from typing import Any

import msgspec

from ledger_harness.seals import BOTH
from vcp_cluster.ledger.anchor_settings import AnchorSettings
from vcp_cluster.ledger.genesis import (
    UNITS_PER_VCP,
    Allocation,
    Genesis,
    Governance,
    Member,
    default_parameters,
)
from vcp_cluster.ledger.keys import hash_content, public_key

MEMBERS = ("ada", "ben", "cyd")
CLIENTS = {"alice": 1_000, "bob": 50}  # VCP at height 0
WORKERS = ("pc", "phone", "gateway")
GOVERNOR = "governor"

CREATED_MS = 1_700_000_000_000
PROFILE = hash_content(b"the execution profile of the tests")


def seed(name: str) -> bytes:
    """The 32-byte secret of a name."""
    return hash_content(b"seed of " + name.encode())


def key(name: str) -> bytes:
    """The public key of a name, which is its account too."""
    return public_key(seed(name))


def make_genesis(
    *,
    governors: tuple[str, ...] = (GOVERNOR,),
    threshold: int = 1,
    anchors: AnchorSettings = BOTH,
    **parameters: Any,
) -> Genesis:
    """Three members, two funded clients, both backends, the default parameters with changes."""
    return Genesis(
        version=1,
        cluster_name="play",
        created_ms=CREATED_MS,
        governance=Governance(threshold, tuple(key(name) for name in governors)),
        members=tuple(
            Member(name, f"127.0.0.1:{7100 + 10 * number}", key(name))
            for number, name in enumerate(MEMBERS)
        ),
        parameters=msgspec.structs.replace(default_parameters((PROFILE,)), **parameters),
        anchors=anchors,
        allocations=tuple(
            Allocation(key(name), amount * UNITS_PER_VCP) for name, amount in CLIENTS.items()
        ),
    )
