"""Writing of the binary format: numbers in their shortest form, vectors, names, sections.

Source: WebAssembly core specification 2.0, chapter 5. The shortest form of a number is unique, so
what is written here is the same on every host.
"""

from collections.abc import Sequence


def u32(number: int) -> bytes:
    """Unsigned LEB128 of a number from 0 to 2^32 - 1."""
    if number < 0x80:
        return bytes((number,))
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def signed(number: int) -> bytes:
    """Signed LEB128, as constants of 32 and 64 bits are written."""
    out = bytearray()
    while not -0x40 <= number < 0x40:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number & 0x7F)
    return bytes(out)


def name(text: str) -> bytes:
    """A length-prefixed UTF-8 string."""
    raw = text.encode()
    return u32(len(raw)) + raw


def vector(items: Sequence[bytes]) -> bytes:
    """The number of items and the items."""
    return u32(len(items)) + b"".join(items)


def section(number: int, content: bytes) -> bytes:
    """A section with its number and its length in bytes."""
    return bytes((number,)) + u32(len(content)) + content
