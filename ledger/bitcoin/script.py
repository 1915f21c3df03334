"""The two scripts of an anchor: pay to a key's hash (BIP 141), and OP_RETURN with 40 bytes."""

from __future__ import annotations

from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid

PAYLOAD_MAGIC = b"VCP1"
PAYLOAD_BYTES = 40
SEAL_SCRIPT_BYTES = 22
_P2WPKH = b"\x00\x14"
_OP_RETURN = 0x6A
_PUSHDATA1 = 0x4C
_DIRECT_PUSH_MAX = 75
_CHARSET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def is_seal_script(script: bytes) -> bool:
    """Whether a script is a version 0 witness program of a key's hash."""
    return len(script) == SEAL_SCRIPT_BYTES and script[:2] == _P2WPKH


def seal_script(key_hash: bytes) -> bytes:
    """P2WPKH of a key's 20-byte hash."""
    return _P2WPKH + key_hash


def payload_script(payload: bytes) -> bytes:
    """OP_RETURN and one direct push."""
    return bytes([_OP_RETURN, len(payload)]) + payload


def read_pushed(script: bytes) -> bytes | None:
    """The one push of an OP_RETURN script, however it is spelled; None when it is not one."""
    if script[:1] != bytes([_OP_RETURN]) or len(script) < 2:
        return None
    start = 2 if script[1] <= _DIRECT_PUSH_MAX else 3
    if start == 3 and (script[1] != _PUSHDATA1 or len(script) < 3):
        return None
    return script[start:] if len(script) - start == script[start - 1] else None


def find_payload(scripts: list[bytes]) -> bytes:
    """The one commitment among the scripts of a transaction; raise `BitcoinInvalid`.

    A second one would let an anchor say two things, and a spelling other than ours is not ours.
    """
    found = [script for script in scripts if PAYLOAD_MAGIC in script and script[0] == _OP_RETURN]
    if len(found) != 1:
        raise BitcoinInvalid(f"{len(found)} outputs carry a VCP1 commitment, not one")
    payload = read_pushed(found[0])
    if payload is None or found[0] != payload_script(payload) or len(payload) != PAYLOAD_BYTES:
        raise BitcoinInvalid("the VCP1 output is not one direct push of 40 bytes")
    if not payload.startswith(PAYLOAD_MAGIC):
        raise BitcoinInvalid("the commitment does not begin with VCP1")
    return payload


def format_address(script: bytes, prefix: str) -> str:
    """The bech32 address (BIP 173) of a seal script; `prefix` is the network's, such as `bc`."""
    bits = int.from_bytes(script[2:], "big")
    words = [0, *((bits >> shift) & 31 for shift in range(155, -1, -5))]
    expanded = [ord(one) >> 5 for one in prefix] + [0] + [ord(one) & 31 for one in prefix]
    checksum = _polymod([*expanded, *words, *([0] * 6)]) ^ 1
    words += [(checksum >> shift) & 31 for shift in range(25, -1, -5)]
    return f"{prefix}1" + "".join(_CHARSET[word] for word in words)


def _polymod(values: list[int]) -> int:
    state = 1
    for value in values:
        top = state >> 25
        state = (state & 0x1FFFFFF) << 5 ^ value
        for number, term in enumerate(_GENERATOR):
            state ^= term if top >> number & 1 else 0
    return state
