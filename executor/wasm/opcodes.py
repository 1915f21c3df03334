"""The instructions of the profile: what follows each opcode, and which ones the rewriter acts on.

Source: WebAssembly core specification 2.0, chapter 5.4 and the index of instructions: version 1
with sign extension, saturating conversion, multiple values, bulk memory, reference types and fixed
SIMD. Codes behind a prefix are written `prefix << 8 | code`.
"""

from typing import Final

UNREACHABLE: Final = 0x00
NOP: Final = 0x01
BLOCK: Final = 0x02
LOOP: Final = 0x03
IF: Final = 0x04
ELSE: Final = 0x05
END: Final = 0x0B
BR: Final = 0x0C
BR_IF: Final = 0x0D
BR_TABLE: Final = 0x0E
RETURN: Final = 0x0F
CALL: Final = 0x10
CALL_INDIRECT: Final = 0x11
DROP: Final = 0x1A
GLOBAL_SET: Final = 0x24
F32_STORE: Final = 0x38
F64_STORE: Final = 0x39
MEMORY_GROW: Final = 0x40
F32_COPYSIGN: Final = 0x98
F64_COPYSIGN: Final = 0xA6
I32_REINTERPRET_F32: Final = 0xBC
I64_REINTERPRET_F64: Final = 0xBD
REF_FUNC: Final = 0xD2
F32X4_SPLAT: Final = 0xFD13
F64X2_SPLAT: Final = 0xFD14
F32X4_REPLACE_LANE: Final = 0xFD20
F64X2_REPLACE_LANE: Final = 0xFD22
PREFIX_BULK: Final = 0xFC
PREFIX_VECTOR: Final = 0xFD

BULK: Final = frozenset(0xFC00 | code for code in (8, 10, 11, 12, 14, 15, 17))
"""memory.init/copy/fill, table.init/copy/grow/fill: work in proportion to the length on top."""

F32_OBSERVERS: Final = frozenset(
    (F32_STORE, F32_COPYSIGN, I32_REINTERPRET_F32, F32X4_SPLAT, F32X4_REPLACE_LANE)
)
F64_OBSERVERS: Final = frozenset(
    (F64_STORE, F64_COPYSIGN, I64_REINTERPRET_F64, F64X2_SPLAT, F64X2_REPLACE_LANE)
)
"""Instructions that make bits of the scalar on top visible (of copysign: its sign)."""

RAW_FLOATS: Final = frozenset((0x2A, 0x2B, 0x43, 0x44, 0xBE, 0xBF, 0xFD1F, 0xFD21))
"""Load, const, reinterpret and extract_lane push bits that are canonical or the guest's own."""

F32X4_ARITHMETIC: Final = frozenset(
    # demote, ceil, floor, trunc, nearest; sqrt, add, sub, mul, div, min, max. Not pmin and pmax,
    # which leave one of their operands as it is.
    0xFD00 | code
    for code in (0x5E, 0x67, 0x68, 0x69, 0x6A, *range(0xE3, 0xEA))
)
F64X2_ARITHMETIC: Final = frozenset(
    # promote, and the same
    0xFD00 | code
    for code in (0x5F, 0x74, 0x75, 0x7A, 0x94, *range(0xEF, 0xF6))
)
"""Vector instructions whose lanes may be NaNs with bits that the specification leaves open."""

# Of a NaN lane on top these see no more than that it is one: arithmetic, comparisons, conversions.
F32X4_BLIND: Final = frozenset(
    (F32X4_ARITHMETIC - {0xFD5E}) | {0xFD5F, 0xFDF8, 0xFDF9, *range(0xFD41, 0xFD47)}
)
F64X2_BLIND: Final = frozenset(
    (F64X2_ARITHMETIC - {0xFD5F}) | {0xFD5E, 0xFDFC, 0xFDFD, *range(0xFD47, 0xFD4D)}
)

# What follows an opcode, as small numbers for the reader's loop.
PLAIN: Final = 0  # nothing
INDEX: Final = 1  # one number of 32 bits
MEMORY: Final = 2  # alignment and offset
CONST_I32: Final = 3
CONST_I64: Final = 4
CONST_F32: Final = 5
CONST_F64: Final = 6
BLOCK_TYPE: Final = 7
TABLE_OF_LABELS: Final = 8
TWO_INDICES: Final = 9
ZERO: Final = 10  # the index of the only memory
TWO_ZEROS: Final = 11
INDEX_ZERO: Final = 12
HEAP_TYPE: Final = 13
SELECT_TYPES: Final = 14
BULK_PREFIX: Final = 15
VECTOR_PREFIX: Final = 16
LANE: Final = 17  # one byte
MEMORY_LANE: Final = 18
BYTES_16: Final = 19
DENIED: Final = 20  # belongs to a feature that the profile switches off
UNKNOWN: Final = 21


def _table(size: int, *rows: tuple[int, list[int]]) -> bytes:
    """Kinds by opcode; what no row names is unknown."""
    kinds = bytearray([UNKNOWN]) * size
    for kind, codes in rows:
        for code in codes:
            kinds[code] = kind
    return bytes(kinds)


KINDS: Final = _table(
    256,
    (PLAIN, [0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B, *range(0x45, 0xC5), 0xD1]),
    (INDEX, [0x0C, 0x0D, 0x10, *range(0x20, 0x27), 0xD2]),
    (MEMORY, [*range(0x28, 0x3F)]),
    (CONST_I32, [0x41]),
    (CONST_I64, [0x42]),
    (CONST_F32, [0x43]),
    (CONST_F64, [0x44]),
    (BLOCK_TYPE, [0x02, 0x03, 0x04]),
    (TABLE_OF_LABELS, [0x0E]),
    (TWO_INDICES, [0x11]),
    (ZERO, [0x3F, 0x40]),
    (HEAP_TYPE, [0xD0]),
    (SELECT_TYPES, [0x1C]),
    (BULK_PREFIX, [0xFC]),
    (VECTOR_PREFIX, [0xFD]),
    # Exceptions, tail calls, typed references, stack switching, garbage collection, threads.
    (DENIED, [*range(0x06, 0x0B), 0x18, 0x19, 0x1F, 0x12, 0x13, 0x14, 0x15]),
    (DENIED, [*range(0xD3, 0xD7), *range(0xE0, 0xE7), 0xFB, 0xFE]),
)

BULK_KINDS: Final = _table(
    23,
    (PLAIN, [*range(8)]),
    (INDEX_ZERO, [8]),
    (INDEX, [9, 13, 15, 16, 17]),
    (TWO_ZEROS, [10]),
    (ZERO, [11]),
    (TWO_INDICES, [12, 14]),
    (DENIED, [*range(18, 23)]),  # memory control, wide arithmetic
)

_VECTOR_HOLES: Final = frozenset(
    bytes.fromhex("9a a2a5a6afb0b2b3b4bb c2c5c6cfd0d2d3d4 e2ee")  # codes that were never given out
)

VECTOR_KINDS: Final = _table(
    256,
    (PLAIN, [code for code in range(0x0E, 0x100) if code not in _VECTOR_HOLES]),
    (MEMORY, [*range(0x0C), 0x5C, 0x5D]),
    (BYTES_16, [0x0C, 0x0D]),
    (LANE, [*range(0x15, 0x23)]),
    (MEMORY_LANE, [*range(0x54, 0x5C)]),
)

VECTOR_RELAXED: Final = range(0x100, 0x130)
"""Codes of relaxed SIMD."""

FREE: Final = frozenset((UNREACHABLE, NOP, BLOCK, LOOP, ELSE, END, RETURN, DROP))
"""Instructions that cost no gas; every other one costs one unit."""

COSTS: Final = bytes(0 if code in FREE else 1 for code in range(256))

EVENTS: Final = frozenset(
    (
        *(UNREACHABLE, BLOCK, LOOP, IF, ELSE, END, BR, BR_IF, BR_TABLE, RETURN),
        *(CALL, CALL_INDIRECT, REF_FUNC, MEMORY_GROW, GLOBAL_SET),
        *F32_OBSERVERS,
        *F64_OBSERVERS,
        *F32X4_ARITHMETIC,
        *F64X2_ARITHMETIC,
        *BULK,
    )
)
"""Instructions that the reader reports one by one; runs of all others are copied as they are."""

IS_EVENT: Final = bytes(code in EVENTS for code in range(256))
