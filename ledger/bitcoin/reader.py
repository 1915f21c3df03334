"""Reading Bitcoin's serialisation strictly: bounds first, minimal lengths only, nothing left over."""

from __future__ import annotations

import hashlib

HASH_BYTES = 32


class BitcoinInvalid(ValueError):
    """Bytes that are not what they are said to be; the message says what is wrong."""


def hash256(data: bytes) -> bytes:
    """SHA-256 twice: ids of transactions and of headers, and their Merkle trees."""
    return hashlib.sha256(hashlib.sha256(data).digest()).digest()


def to_display(digest: bytes) -> str:
    """A hash as nodes print it: reversed, in hex."""
    return digest[::-1].hex()


def from_display(text: str) -> bytes:
    """The inverse of `to_display`; raise `BitcoinInvalid`."""
    try:
        digest = bytes.fromhex(text)[::-1]
    except ValueError:
        digest = b""
    if len(digest) != HASH_BYTES or len(text) != 2 * HASH_BYTES:
        raise BitcoinInvalid("a hash is 64 hexadecimal digits")
    return digest


def compact_size(value: int) -> bytes:
    """Bitcoin's variable-length integer, in its one minimal form."""
    for limit, marker, width in ((0xFD, b"", 1), (1 << 16, b"\xfd", 2), (1 << 32, b"\xfe", 4)):
        if value < limit:
            return marker + value.to_bytes(width, "little")
    return b"\xff" + value.to_bytes(8, "little")


_WIDTHS = {0xFD: (2, 0xFD), 0xFE: (4, 1 << 16), 0xFF: (8, 1 << 32)}


class Reader:
    """A cursor over bytes; every method raises `BitcoinInvalid` rather than read past the end."""

    def __init__(self, data: bytes, position: int = 0) -> None:
        self._data = data
        self.position = position

    @property
    def left(self) -> int:
        """Bytes that were not read yet."""
        return len(self._data) - self.position

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if count > self.left:
            raise BitcoinInvalid(f"{count} bytes are announced and {self.left} are left")
        self.position += count
        return self._data[self.position - count : self.position]

    def number(self, width: int) -> int:
        """A little-endian unsigned integer of `width` bytes."""
        return int.from_bytes(self.take(width), "little")

    def size(self) -> int:
        """A variable-length integer; a longer spelling than needed is refused."""
        first = self.number(1)
        if first < 0xFD:
            return first
        width, minimum = _WIDTHS[first]
        value = self.number(width)
        if value < minimum:
            raise BitcoinInvalid("a length is not in its shortest form")
        return value

    def count(self, item_bytes_min: int) -> int:
        """A number of items of at least `item_bytes_min` bytes each, which must fit in the rest."""
        value = self.size()
        if value * item_bytes_min > self.left:
            raise BitcoinInvalid(f"{value} items are announced and {self.left} bytes are left")
        return value

    def text(self) -> bytes:
        """Bytes with their length in front."""
        return self.take(self.count(1))

    def end(self) -> None:
        """Check that nothing is left."""
        if self.left:
            raise BitcoinInvalid(f"{self.left} bytes too many")
