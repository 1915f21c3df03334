"""Ed25519 by the formulas of RFC 8032, in whole numbers: slow, and free to make what no signer makes.

Only for building test vectors. Points are affine (x, y) modulo P.
"""

from __future__ import annotations

import hashlib

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
IDENTITY = (0, 1)

Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """The sum of two points (RFC 8032 §5.1.4, in affine form)."""
    product = D * a[0] * b[0] * a[1] * b[1] % P
    x = (a[0] * b[1] + b[0] * a[1]) * pow(1 + product, -1, P)
    y = (a[1] * b[1] + a[0] * b[0]) * pow(1 - product, -1, P)
    return x % P, y % P


def multiply(scalar: int, point: Point) -> Point:
    """`scalar` times a point."""
    result = IDENTITY
    while scalar:
        if scalar & 1:
            result = add(result, point)
        point = add(point, point)
        scalar >>= 1
    return result


def lift(y: int, sign: int) -> Point:
    """The point with this y whose x has this lowest bit; raises ValueError when there is none."""
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    if x * x % P != square:
        raise ValueError("no point of the curve has this y")
    return (P - x if x % 2 != sign else x) % P, y


BASE = lift(4 * pow(5, -1, P) % P, 0)


def encode(point: Point) -> bytes:
    """The 32 bytes of a point."""
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def secret_scalar(seed: bytes) -> int:
    """The scalar of a 32-byte seed."""
    scalar = int.from_bytes(hashlib.sha512(seed).digest()[:32], "little")
    return scalar & ~(1 << 255) & ~7 | 1 << 254


def challenge(commitment: bytes, key: bytes, message: bytes) -> int:
    """SHA-512(R | A | M) modulo L."""
    return int.from_bytes(hashlib.sha512(commitment + key + message).digest(), "little") % L


def torsion_points() -> list[Point]:
    """The eight points of small order, the identity first."""
    y = 3
    while True:
        try:
            generator = multiply(L, lift(y, 0))
        except ValueError:
            y += 1
            continue
        if multiply(4, generator) != IDENTITY:
            return [multiply(number, generator) for number in range(8)]
        y += 1
