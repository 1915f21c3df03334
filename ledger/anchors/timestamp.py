"""Anchors as OpenTimestamps proofs: `batch.header` and `batch.header.ots`, for standard tools.

A batch header begins with 0x00, so that the SHA-256 of its 198 bytes is its leaf hash in the batch
log. From there every step, up to the Merkle root of a block, is one that the format has: append,
prepend, SHA-256. Format: opentimestamps.org, python-opentimestamps `core/serialize.py`, `core/op.py`
and `core/notary.py`.
"""

from __future__ import annotations

from vcp_cluster.ledger.anchors.bitcoin_proof import BitcoinProof
from vcp_cluster.ledger.merkle import inclusion_sides
from vcp_cluster.ledger.settlement import BatchHeader

_MAGIC = b"\x00OpenTimestamps\x00\x00Proof\x00\xbf\x89\xe2\xe8\x84\xe8\x92\x94"
_MAJOR_VERSION = b"\x01"
_SHA256 = b"\x08"
_APPEND = b"\xf0"
_PREPEND = b"\xf1"
_ATTESTATION = b"\x00"
_BITCOIN_BLOCK = bytes.fromhex("0588960d73d71901")
_NODE_PREFIX = b"\x01"


def export_timestamp(header: bytes, proof: BitcoinProof, header_digest: bytes) -> bytes:
    """The `.ots` file for a batch header whose proof was checked.

    `header_digest` is the header's SHA-256. The height in it is the observer's word: whoever
    verifies it looks up the block there.
    """
    steps = [_MAGIC, _MAJOR_VERSION, _SHA256, header_digest]
    sides = inclusion_sides(
        BatchHeader.decode(header).batch - 1, proof.log_size, len(proof.header_path)
    )
    for sibling, is_left in zip(proof.header_path, sides, strict=True):
        if is_left:
            steps += [_prepend(_NODE_PREFIX + sibling), _SHA256]
        else:
            steps += [_append(sibling), _prepend(_NODE_PREFIX), _SHA256]
    start = proof.transaction.index(proof.log_root)
    end = start + len(proof.log_root)
    steps += [_prepend(proof.transaction[:start]), _append(proof.transaction[end:])]
    steps += [_SHA256, _SHA256]
    index = proof.index
    for at in range(0, len(proof.branch), 32):
        sibling = proof.branch[at : at + 32]
        steps += [_prepend(sibling) if index & 1 else _append(sibling), _SHA256, _SHA256]
        index >>= 1
    steps += [_ATTESTATION, _BITCOIN_BLOCK, _bytes(_number(proof.block_height))]
    return b"".join(steps)


def _prepend(data: bytes) -> bytes:
    return _PREPEND + _bytes(data)


def _append(data: bytes) -> bytes:
    return _APPEND + _bytes(data)


def _bytes(data: bytes) -> bytes:
    return _number(len(data)) + data


def _number(value: int) -> bytes:
    """Seven bits in each byte, the lowest first, the high bit set in all but the last."""
    digits = bytearray()
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
