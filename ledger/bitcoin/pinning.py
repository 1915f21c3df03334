"""Headers that the verifier trusts: a file of them, or one block's hash and height."""

from __future__ import annotations

from dataclasses import dataclass

from vcp_cluster.ledger.bitcoin.headers import HEADER_BYTES
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, from_display, hash256, to_display


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A block that the verifier knows to be in the best chain."""

    hash: bytes
    height: int


def parse_checkpoint(text: str) -> Checkpoint:
    """`HASH:HEIGHT`, the hash as nodes print it; raise `BitcoinInvalid`."""
    digest, _, height = text.partition(":")
    if not height.isascii() or not height.isdigit() or len(height) > 9:
        raise BitcoinInvalid("a checkpoint is HASH:HEIGHT")
    return Checkpoint(from_display(digest), int(height))


def check_checkpoint(hashes: tuple[bytes, ...], height: int, checkpoint: Checkpoint) -> int:
    """Which of the headers, the first at `height`, is the checkpoint; its number.

    Raises `BitcoinInvalid` when none is, or it is at another height.
    """
    if checkpoint.hash not in hashes:
        raise BitcoinInvalid(
            f"block {to_display(checkpoint.hash)} is not among the {len(hashes)} headers; give a "
            "header file that ends with it"
        )
    number = hashes.index(checkpoint.hash)
    if height + number != checkpoint.height:
        raise BitcoinInvalid(
            f"the checkpoint is at height {height + number} of these headers, "
            f"not {checkpoint.height}"
        )
    return number


def find_in_headers(data: bytes, block_hash: bytes) -> tuple[bytes, ...]:
    """Hashes of the headers in a trusted file, from the block's on.

    The file is headers of 80 bytes, each naming the one before, from any height on. Raises
    `BitcoinInvalid`; the work in it is not added up: whoever gives the file trusts it.
    """
    if not data or len(data) % HEADER_BYTES:
        raise BitcoinInvalid(f"the file is not headers of {HEADER_BYTES} bytes")
    found: list[bytes] = []
    last: bytes | None = None
    for start in range(0, len(data), HEADER_BYTES):
        header = data[start : start + HEADER_BYTES]
        if last is not None and header[4:36] != last:
            raise BitcoinInvalid(f"header {start // HEADER_BYTES} of the file does not follow")
        last = hash256(header)
        if found or last == block_hash:
            found.append(last)
    if not found:
        raise BitcoinInvalid(f"block {to_display(block_hash)} is not in the file")
    return tuple(found)
