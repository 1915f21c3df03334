"""What workers and members sign about a run: commitments, verdicts, attestations, telemetry.

A commitment is a *signed, re-executable trace commitment*. It shows who said what about a run, and
anyone with module and input can run it again and compare. It is not a proof that spares the run.
"""

from __future__ import annotations

import enum
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.domains import (
    DOMAIN_BLOB,
    DOMAIN_COMMITMENT,
    DOMAIN_PROOF,
    DOMAIN_TELEMETRY,
    DOMAIN_VERDICT,
)
from vcp_cluster.ledger.encoding import (
    ChainId,
    DetailText,
    Hash,
    Key,
    Record,
    ShortText,
    Signature,
    Unsigned,
    encode,
)
from vcp_cluster.ledger.keys import hash_content, hash_domain, sign

COMMITMENT_VERSION = 1
EMPTY_OUTPUT_HASH = hash_content(b"")


class ResultStatus(enum.IntEnum):
    """How a reproducible run ended. Every one of them is committed, audited and paid."""

    OK = 0
    TRAP = 1
    OUT_OF_GAS = 2
    BAD_OUTPUT = 3
    STACK_LIMIT = 4


class FailureKind(enum.IntEnum):
    """Why a run gave nothing that could be reproduced: reported, never committed."""

    TIMEOUT = 1
    HOST_FAILURE = 2
    COMPILE_RESOURCE = 3
    SANDBOX_VIOLATION = 4
    MODULE_REFUSED = 5
    BLOB_UNAVAILABLE = 6


class Commitment(Record, frozen=True):
    """Version 1 of FORMATS: one run of one assignment, as the worker says it went.

    `execution_root` does not depend on the worker, so two honest runs agree on it; `trace_root`
    binds it to this task, attempt and node. It is computed from the former: who sees another's
    commitment can bind its root to himself, which is why outputs are believed by audit and not by
    roots alone.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    chain_id: ChainId
    task: Hash
    attempt: Unsigned
    node: Key
    module_hash: Hash
    entry_point: ShortText
    input_hash: Hash
    output_hash: Hash
    output_length: Unsigned
    status: Annotated[int, Meta(ge=0, le=4)]
    trap: Annotated[int, Meta(ge=0, le=255)]
    gas: Unsigned
    gas_limit: Unsigned
    profile: Hash
    engine: ShortText
    waypoints: Unsigned
    execution_root: Hash
    trace_root: Hash


class Finding(enum.IntEnum):
    """What a verifier found when it ran a task again."""

    AGREE = 0
    DISAGREE = 1
    UNABLE = 2


class Verdict(Record, frozen=True):
    """A member's signed finding, with the values that it computed itself."""

    version: Annotated[int, Meta(ge=1, le=1)]
    chain_id: ChainId
    proof: Hash
    finding: Annotated[int, Meta(ge=0, le=2)]
    status: Annotated[int, Meta(ge=0, le=4)]
    trap: Annotated[int, Meta(ge=0, le=255)]
    gas: Unsigned
    output_hash: Hash
    output_length: Unsigned
    execution_root: Hash
    detail: DetailText


class Attestation(Record, frozen=True):
    """A member's word that it holds a blob on disk: its signature over `blob_message`."""

    member: Key
    signature: Signature


class Telemetry(Record, frozen=True):
    """What a compute node declares about itself, signed by its key.

    Milliwatts, thousandths of a degree Celsius (0 below freezing), gCO2/kWh, kbit/s,
    microseconds, and MFLOPS per watt.
    """

    version: Annotated[int, Meta(ge=1, le=1)]
    chain_id: ChainId
    node: Key
    time_ms: Unsigned
    power_mw: Unsigned
    temperature_mc: Unsigned
    carbon_g_kwh: Unsigned
    bandwidth_kbps: Unsigned
    latency_us: Unsigned
    efficiency_mflops_w: Unsigned


class SignedTelemetry(Record, frozen=True):
    """Telemetry and the node's signature over it."""

    telemetry: Telemetry
    signature: Signature


def commitment_hash(commitment: Commitment) -> bytes:
    """What a settlement leaf names: BLAKE3 with the commitment's domain."""
    return hash_domain(DOMAIN_COMMITMENT, encode(commitment))


def proof_id(commitment: Commitment) -> bytes:
    """The id of the proof that carries this commitment."""
    return hash_domain(DOMAIN_PROOF, encode(commitment))


def sign_commitment(seed: bytes, commitment: Commitment) -> bytes:
    """The worker's signature over its commitment."""
    return sign(seed, DOMAIN_COMMITMENT, encode(commitment))


def sign_verdict(seed: bytes, verdict: Verdict) -> bytes:
    """A member's signature over its verdict."""
    return sign(seed, DOMAIN_VERDICT, encode(verdict))


def sign_telemetry(seed: bytes, telemetry: Telemetry) -> SignedTelemetry:
    """Telemetry with the node's signature."""
    return SignedTelemetry(telemetry, sign(seed, DOMAIN_TELEMETRY, encode(telemetry)))


def blob_message(chain_id: bytes, blob: bytes, size: int) -> bytes:
    """What a member signs when it holds a blob of this hash and size (bytes)."""
    return encode((chain_id, blob, size))


def attest_blob(seed: bytes, key: bytes, chain_id: bytes, blob: bytes, size: int) -> Attestation:
    """A member's attestation that it holds a blob."""
    return Attestation(key, sign(seed, DOMAIN_BLOB, blob_message(chain_id, blob, size)))


def is_consistent(commitment: Commitment) -> bool:
    """Whether status, trap class, gas and output can belong to one run."""
    ok = commitment.status == ResultStatus.OK
    trapped = commitment.status == ResultStatus.TRAP
    empty = commitment.output_length == 0
    return (
        (commitment.trap != 0) == trapped
        and (ok or empty)
        and empty == (commitment.output_hash == EMPTY_OUTPUT_HASH)
        and (commitment.status != ResultStatus.OUT_OF_GAS or commitment.gas == commitment.gas_limit)
        and commitment.waypoints >= 1
    )


def is_same_result(commitment: Commitment, verdict: Verdict) -> bool:
    """Whether a verifier computed just what the worker committed to."""
    return (
        commitment.status == verdict.status
        and commitment.trap == verdict.trap
        and commitment.gas == verdict.gas
        and commitment.output_hash == verdict.output_hash
        and commitment.output_length == verdict.output_length
        and commitment.execution_root == verdict.execution_root
    )
