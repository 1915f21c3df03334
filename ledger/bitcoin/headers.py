"""Block headers: linkage, proof of work and how much of it."""

from __future__ import annotations

from dataclasses import dataclass

from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, hash256

HEADER_BYTES = 80
HEADERS_MAX = 144
_TARGET_BYTES_MAX = 32


@dataclass(frozen=True, slots=True)
class Header:
    """One header; `hash` is its id, `time_s` what its miner's clock said (within two hours)."""

    raw: bytes
    hash: bytes
    previous: bytes
    merkle_root: bytes
    time_s: int
    target: int

    @property
    def work(self) -> int:
        """Expected number of hashes that were needed."""
        return (1 << 256) // (self.target + 1)


def decode_target(bits: int) -> int:
    """The 256-bit target of a compact one; raise `BitcoinInvalid` for what Core refuses."""
    exponent, mantissa = bits >> 24, bits & 0x7FFFFF
    if bits & 0x800000 or mantissa == 0 or exponent > _TARGET_BYTES_MAX + 2:
        raise BitcoinInvalid("the target is negative, zero or too large")
    target = mantissa << 8 * (exponent - 3) if exponent > 3 else mantissa >> 8 * (3 - exponent)
    if not 0 < target < 1 << 256:
        raise BitcoinInvalid("the target is zero or too large")
    return target


def parse_header(raw: bytes, target_max: int) -> Header:
    """A header whose hash meets its target, which is at most `target_max`.

    Raises `BitcoinInvalid`.
    """
    if len(raw) != HEADER_BYTES:
        raise BitcoinInvalid(f"a header has {HEADER_BYTES} bytes, not {len(raw)}")
    target = decode_target(int.from_bytes(raw[72:76], "little"))
    if target > target_max:
        raise BitcoinInvalid("the header asks for less work than this network's least")
    digest = hash256(raw)
    if int.from_bytes(digest, "little") > target:
        raise BitcoinInvalid("the header has no proof of work")
    return Header(raw, digest, raw[4:36], raw[36:68], int.from_bytes(raw[68:72], "little"), target)


def parse_chain(data: bytes, target_max: int) -> list[Header]:
    """Headers one after the other, each naming the one before; raise `BitcoinInvalid`."""
    if not data or len(data) % HEADER_BYTES or len(data) > HEADERS_MAX * HEADER_BYTES:
        raise BitcoinInvalid(f"not 1 to {HEADERS_MAX} headers of {HEADER_BYTES} bytes")
    headers: list[Header] = []
    for start in range(0, len(data), HEADER_BYTES):
        header = parse_header(data[start : start + HEADER_BYTES], target_max)
        if headers and header.previous != headers[-1].hash:
            raise BitcoinInvalid("the headers do not follow one another")
        headers.append(header)
    return headers
