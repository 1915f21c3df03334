"""Verifying ECDSA over secp256k1, in plain integers (SEC 1 §4.1.4, BIP 66, BIP 146).

Every member checks the signature of an anchor before it enters the log: one that no node would take
would block the anchors behind it. Only public values pass through here, so nothing has to run in
constant time, and plain integers give the same answer on every machine. Signing is done elsewhere,
by a library. One verification takes about 4 ms, and there is one for each input of an anchor.
"""

from __future__ import annotations

from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid

P = 2**256 - 2**32 - 977
N = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
_G = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
)
KEY_BYTES = 33
SIGNATURE_BYTES_MAX = 72

Affine = tuple[int, int]
Jacobian = tuple[int, int, int]  # the point at infinity has z = 0
_INFINITY: Jacobian = (1, 1, 0)


def parse_key(key: bytes) -> Affine:
    """The point of a compressed public key; raise `BitcoinInvalid`."""
    if len(key) != KEY_BYTES or key[0] not in (2, 3):
        raise BitcoinInvalid("a public key is 33 bytes and begins with 02 or 03")
    x = int.from_bytes(key[1:], "big")
    square = (x * x * x + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if x >= P or y * y % P != square:
        raise BitcoinInvalid("the public key is not a point of secp256k1")
    return x, y if y & 1 == key[0] & 1 else P - y


def parse_signature(data: bytes) -> tuple[int, int]:
    """(r, s) of a strict DER signature (BIP 66) with the lower of the two s (BIP 146).

    Raises `BitcoinInvalid` for any other spelling, since nodes relay no other.
    """
    if not 8 <= len(data) <= SIGNATURE_BYTES_MAX or data[0] != 0x30 or data[1] != len(data) - 2:
        raise BitcoinInvalid("the signature is not strict DER")
    r, rest = _parse_integer(data[2:])
    s, rest = _parse_integer(rest)
    if rest:
        raise BitcoinInvalid("the signature has bytes after it")
    if not 0 < r < N or not 0 < s <= N // 2:
        raise BitcoinInvalid("the signature's numbers are out of range, or s is not the lower one")
    return r, s


def encode_signature(r: int, s: int) -> bytes:
    """Strict DER of (r, s), with the lower of the two s."""
    s = min(s, N - s)
    body = b"".join(_encode_integer(value) for value in (r, s))
    return bytes([0x30, len(body)]) + body


def check_signature(key: bytes, digest: bytes, signature: bytes) -> None:
    """Check a DER signature over a 32-byte digest; raise `BitcoinInvalid`."""
    point = parse_key(key)
    r, s = parse_signature(signature)
    inverse = pow(s, -1, N)
    first = int.from_bytes(digest, "big") * inverse % N
    second = r * inverse % N
    x, _, z = _multiply_two(first, _G, second, point)
    if z == 0 or x * pow(z, -2, P) % P % N != r:
        raise BitcoinInvalid("the signature is not this key's over this transaction")


def _parse_integer(data: bytes) -> tuple[int, bytes]:
    if len(data) < 3 or data[0] != 2 or not 1 <= data[1] <= len(data) - 2:
        raise BitcoinInvalid("the signature is not strict DER")
    value = data[2 : 2 + data[1]]
    if value[0] & 0x80 or (len(value) > 1 and value[0] == 0 and not value[1] & 0x80):
        raise BitcoinInvalid("the signature has a negative or padded number")
    return int.from_bytes(value, "big"), data[2 + data[1] :]


def _encode_integer(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "big")
    return bytes([2, len(data)]) + data


def _multiply_two(a: int, first: Affine, b: int, second: Affine) -> Jacobian:
    """a * first + b * second, both multiplied in one pass (Shamir's trick)."""
    both = _to_affine(_add((*first, 1), second))
    result = _INFINITY
    for bit in range(max(a.bit_length(), b.bit_length()) - 1, -1, -1):
        result = _double(result)
        choice = (a >> bit & 1) + 2 * (b >> bit & 1)
        if choice:
            addend = (first, second, both)[choice - 1]
            if addend is not None:
                result = _add(result, addend)
    return result


def _double(point: Jacobian) -> Jacobian:
    x, y, z = point
    if z == 0 or y == 0:
        return _INFINITY
    square = y * y % P
    four = 4 * x * square % P
    slope = 3 * x * x % P
    new_x = (slope * slope - 2 * four) % P
    return new_x, (slope * (four - new_x) - 8 * square * square) % P, 2 * y * z % P


def _add(point: Jacobian, other: Affine) -> Jacobian:
    """Sum of a Jacobian and an affine point."""
    x, y, z = point
    if z == 0:
        return (*other, 1)
    zz = z * z % P
    u = other[0] * zz % P
    v = other[1] * zz * z % P
    if u == x:
        return _double(point) if v == y else _INFINITY
    h = (u - x) % P
    r = (v - y) % P
    hh = h * h % P
    hhh = h * hh % P
    w = x * hh % P
    new_x = (r * r - hhh - 2 * w) % P
    return new_x, (r * (w - new_x) - y * hhh) % P, z * h % P


def _to_affine(point: Jacobian) -> Affine | None:
    x, y, z = point
    if z == 0:
        return None
    inverse = pow(z, -1, P)
    return x * inverse * inverse % P, y * pow(inverse, 3, P) % P
