"""Upload and download of blobs: modules, inputs and outputs, named by their BLAKE3 hash."""

from __future__ import annotations

import time
from dataclasses import dataclass

from vcp_cluster.cluster.client.documents import BlobDocument, read_typed
from vcp_cluster.cluster.client.link import Link, Request
from vcp_cluster.cluster.errors import BadAnswer, InvalidBlob
from vcp_cluster.ledger.commitments import Attestation, blob_message
from vcp_cluster.ledger.domains import DOMAIN_BLOB, DOMAIN_UPLOAD
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id, majority, member_names
from vcp_cluster.ledger.keys import hash_content, is_signed, public_key, sign

BLOB_BYTES_MAX = 16 << 20
UPLOAD_WAIT_S = 10.0
"""How long a member may take to copy a blob to a majority."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A blob that a majority of members holds. `size` in bytes; the hash has 32."""

    hash: bytes
    size: int
    attestations: tuple[Attestation, ...]


def sign_upload(seed: bytes, *, chain_id: bytes, content_hash: bytes, size: int) -> dict[str, str]:
    """Headers that authorise sending a body of this hash and size (bytes), for 60 s."""
    time_ms = time.time_ns() // 1_000_000
    message = encode((chain_id, content_hash, size, time_ms))
    return {
        "VCP-Account": public_key(seed).hex(),
        "VCP-Time": str(time_ms),
        "VCP-Signature": sign(seed, DOMAIN_UPLOAD, message).hex(),
    }


def upload_blob(link: Link, data: bytes, *, genesis: Genesis, seed: bytes, deadline: float) -> Blob:
    """Store `data` with a majority of members and return their attestations, checked.

    Raises `Unavailable` when no majority attested until `deadline` (monotonic seconds).
    """
    chain_id = compute_chain_id(genesis)
    content_hash = hash_content(data)
    request = Request(
        method="PUT",
        path=f"/v1/blobs/{content_hash.hex()}",
        headers=sign_upload(seed, chain_id=chain_id, content_hash=content_hash, size=len(data)),
        content=data,
        wait_s=UPLOAD_WAIT_S,
    )

    def parse(body: bytes) -> Blob:
        document = read_typed(BlobDocument, body)
        attestations = [
            Attestation(bytes.fromhex(item.member), bytes.fromhex(item.signature))
            for item in document.attestations
        ]
        valid = _get_valid(attestations, genesis, content_hash, len(data))
        if len(valid) < majority(genesis):
            raise BadAnswer(
                f"{len(valid)} valid attestations of blob {content_hash.hex()[:12]}, "
                f"{majority(genesis)} are needed"
            )
        return Blob(content_hash, len(data), valid)

    return link.request(request, parse, deadline=deadline)


def _get_valid(
    attestations: list[Attestation], genesis: Genesis, content_hash: bytes, size: int
) -> tuple[Attestation, ...]:
    """The attestations of distinct members that are signed rightly; the ledger takes no others."""
    message = blob_message(compute_chain_id(genesis), content_hash, size)
    names = member_names(genesis)
    by_member = {
        item.member: item
        for item in attestations
        if item.member in names and is_signed(item.member, DOMAIN_BLOB, message, item.signature)
    }
    return tuple(by_member.values())


def download_blob(
    link: Link, content_hash: bytes, *, size_max: int = BLOB_BYTES_MAX, deadline: float
) -> bytes:
    """Fetch a blob of at most `size_max` bytes and check it against its hash.

    Raises `NotFound` when the member and its peers do not have it, `InvalidBlob` when what every
    endpoint sends has another hash.
    """
    request = Request(
        method="GET",
        path=f"/v1/blobs/{content_hash.hex()}",
        wait_s=UPLOAD_WAIT_S,
        answer_bytes_max=size_max,
    )

    def parse(body: bytes) -> bytes:
        if hash_content(body) != content_hash:
            raise InvalidBlob(
                f"the bytes of blob {content_hash.hex()[:12]} have another hash",
                next_step="ask another member with --cluster, and tell the operator of this one",
            )
        return body

    return link.request(request, parse, deadline=deadline)
