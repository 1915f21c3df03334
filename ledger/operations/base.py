"""What every operation is: a record with a check and an effect.

`check` reads and answers with a code; `effect` writes and cannot fail once `check` said OK. An
operation that carries signatures of others names them in `signatures`, so that they are verified
outside `apply`, in parallel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import Attestation
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id, majority, member_names
from vcp_cluster.ledger.records import Head
from vcp_cluster.ledger.state import State

# (key, domain, message, signature), as `keys.is_signed` takes them.
SignatureClaim = tuple[bytes, bytes, bytes, bytes]


@dataclass(frozen=True, slots=True)
class Context:
    """All that an operation may know. `root` is the state root before this entry."""

    state: State
    head: Head
    root: bytes
    account: bytes
    signers: frozenset[bytes]
    tx_id: bytes
    index: int
    position: int
    is_inner_signed: bool

    @property
    def genesis(self) -> Genesis:
        """The cluster's genesis."""
        return self.state.genesis

    @property
    def chain_id(self) -> bytes:
        """The cluster's chain id."""
        return compute_chain_id(self.genesis)

    @property
    def is_member(self) -> bool:
        """Whether the sender is a member of the cluster."""
        return self.account in member_names(self.genesis)

    @property
    def is_governance(self) -> bool:
        """Whether enough governance keys signed."""
        governance = self.genesis.governance
        return sum(key in self.signers for key in governance.keys) >= governance.threshold

    def check_attestations(self, attestations: tuple[Attestation, ...]) -> Code:
        """Whether a majority of distinct members attests to a blob."""
        members = [attestation.member for attestation in attestations]
        names = member_names(self.genesis)
        if len(set(members)) != len(members) or any(member not in names for member in members):
            return Code.ATTESTATION_INVALID
        if len(members) < majority(self.genesis):
            return Code.BLOB_NOT_AVAILABLE
        return Code.OK


class Operation(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of all operations; the tag of a subclass is its number on the wire."""

    def signatures(self, chain_id: bytes) -> Iterator[SignatureClaim]:
        """The signatures inside this operation."""
        return iter(())

    def check(self, context: Context) -> Code:
        """Why the operation cannot be done now, or OK. Changes nothing."""
        raise NotImplementedError

    def effect(self, context: Context) -> None:
        """Do it. Only called when `check` said OK on the same state."""
        raise NotImplementedError
