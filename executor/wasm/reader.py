"""Strict reading of the atoms of the WebAssembly binary format.

Source: WebAssembly core specification 2.0, chapter 5 (binary format). Everything here raises
`ModuleError` on bytes that the format or the profile does not allow, and nothing else.
"""

from typing import Final

from vcp_cluster.executor.errors import ModuleError

_CONST_OPERATORS: Final[frozenset[int]] = frozenset((0x6A, 0x6B, 0x6C, 0x7C, 0x7D, 0x7E))
"""Integer add, sub and mul, which constant expressions may use."""

I32: Final = 0x7F
I64: Final = 0x7E
F32: Final = 0x7D
F64: Final = 0x7C
FUNCREF: Final = 0x70
_VALUE_TYPES: Final = frozenset((I32, I64, F32, F64, 0x7B, FUNCREF))

# Codes of types that belong to features which the profile switches off.
_DENIED_TYPES: Final = frozenset((*range(0x63, 0x70), 0x71, 0x72, 0x73, 0x74))


class Reader:
    """A cursor over `data[start:end]` that never leaves it; `data` lies at `offset` of its file."""

    def __init__(self, data: bytes, start: int, end: int, offset: int = 0) -> None:
        self.data = data
        self.position = start
        self.end = end
        self.offset = offset

    @property
    def remaining(self) -> int:
        """Bytes left."""
        return self.end - self.position

    def byte(self) -> int:
        """The next byte."""
        if self.position >= self.end:
            raise self.error("unexpected end")
        value = self.data[self.position]
        self.position += 1
        return value

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        self.skip(count)
        return self.data[self.position - count : self.position]

    def skip(self, count: int) -> None:
        """Step over the next `count` bytes."""
        if count > self.remaining:
            raise self.error(f"{count} bytes are announced and {self.remaining} are left")
        self.position += count

    def sub(self, count: int) -> "Reader":
        """A reader of exactly the next `count` bytes, which this reader steps over."""
        start = self.position
        self.skip(count)
        return Reader(self.data, start, self.position, self.offset)

    def u32(self) -> int:
        """An unsigned LEB128 number below 2^32, in at most five bytes."""
        value = 0
        for shift in range(0, 35, 7):
            piece = self.byte()
            value |= (piece & 0x7F) << shift
            if piece < 0x80:
                if value >> 32:
                    raise self.error("a number exceeds 32 bits")
                return value
        raise self.error("a number is longer than five bytes")

    def signed(self, bits: int) -> int:
        """A signed LEB128 number of `bits` bits (32 or 64), in as few bytes as can hold them."""
        value = 0
        for shift in range(0, bits, 7):
            piece = self.byte()
            value |= (piece & 0x7F) << shift
            if piece < 0x80:
                if piece & 0x40:
                    value -= 1 << (shift + 7)
                if not -(1 << (bits - 1)) <= value < 1 << (bits - 1):
                    raise self.error(f"a number exceeds {bits} bits")
                return value
        raise self.error(f"a number of {bits} bits is too long")

    def name(self) -> str:
        """A length-prefixed UTF-8 string."""
        raw = self.take(self.u32())
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError:
            raise self.error("a name is not UTF-8") from None

    def const_expression(self) -> list[int]:
        """Step over a constant expression, up to and with its `end`; functions that it names."""
        functions = []
        while (opcode := self.byte()) != 0x0B:
            if opcode == 0x41:
                self.signed(32)
            elif opcode == 0x42:
                self.signed(64)
            elif opcode == 0x43:
                self.skip(4)
            elif opcode == 0x44:
                self.skip(8)
            elif opcode == 0x23:  # global.get
                self.u32()
            elif opcode == 0xD2:  # ref.func
                functions.append(self.u32())
            elif opcode == 0xD0:  # ref.null
                value_type(self)
            elif opcode == 0xFD:
                if self.u32() != 12:
                    raise self.error("an initial value uses a vector operator")
                self.skip(16)
            elif opcode not in _CONST_OPERATORS:
                raise self.error(f"an initial value uses operator 0x{opcode:02x}")
        return functions

    def finish(self, what: str) -> None:
        """Check that nothing is left of `what`."""
        if self.remaining:
            raise self.error(f"{self.remaining} bytes are left over in {what}")

    def error(self, why: str) -> ModuleError:
        """A `bad_module` error that names the place."""
        return ModuleError("bad_module", f"{why} (at byte {self.offset + self.position})")


def check_count(what: str, found: int, most: int) -> None:
    """Raise `ModuleError` with `module_limit` when `found` is more than `most`."""
    if found > most:
        raise ModuleError("module_limit", f"{found} {what}, the most is {most}")


def count(reader: Reader, what: str, most: int) -> int:
    """The number of items of a vector, at most `most`."""
    found = reader.u32()
    check_count(what, found, most)
    return found


def value_type(reader: Reader) -> int:
    """A value type of the profile."""
    code = reader.byte()
    if code in _DENIED_TYPES:
        found = f"value type 0x{code:02x} belongs to a feature that is off"
        raise ModuleError("feature_denied", found)
    if code not in _VALUE_TYPES:
        raise reader.error(f"value type 0x{code:02x} does not exist")
    return code
