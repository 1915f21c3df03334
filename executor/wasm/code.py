"""Strict reading of function bodies: every instruction of the profile, one pass, no types.

Whether operands fit is the engine's business. What leaves here is well-formed: every byte belongs to
an instruction of the profile, blocks are balanced and within the static limits. Of the instructions
only the *events* are listed, those that the rewriter acts on, with the gas of the run before each.

Source: WebAssembly core specification 2.0, chapters 5.4 and 5.5.13.
"""

from dataclasses import dataclass
from typing import Final

from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.wasm import opcodes as op
from vcp_cluster.executor.wasm.lanes import LaneWatch
from vcp_cluster.executor.wasm.limits import LOCALS_MAX, NESTING_MAX, TYPE_VALUES_MAX
from vcp_cluster.executor.wasm.reader import Reader, check_count, count, value_type

_EMPTY_BLOCK: Final = 0x40
_VALUE_TYPES: Final = frozenset((0x7F, 0x7E, 0x7D, 0x7C, 0x7B, 0x70))
_FUNCREF: Final = 0x70
_MEMORY_INDEX_FLAG: Final = 0x40
_NONE: Final[tuple[int, ...]] = ()
_VISIBLE: Final[tuple[int, ...]] = (0,)

Event = tuple[int, int, int, int, tuple[int, ...]]
"""Opcode, first byte, byte behind it, gas since the event before (without its own), operands.

Operands are labels of branches, indices of functions, types and globals. What observes a float has
none when the value on top comes straight from a load or a constant, vector arithmetic has none when
nothing but more of its kind sees the result (lanes.py); otherwise both have one, which is 0.
"""


@dataclass(frozen=True, slots=True)
class Body:
    """One function body."""

    code: bytes
    """Declarations of locals, then instructions."""
    groups: int
    """Number of declarations of locals (each a count and a type)."""
    groups_start: int
    start: int
    """Where the instructions begin."""
    locals: int
    """Parameters and locals."""
    blocks: int
    """Blocks and entries of branch tables."""
    branches: int
    """Branches, conditional or not, other than tables."""
    instructions: int
    events: tuple[Event, ...]
    """In order; the last one is the `end` of the body."""


def read_body(code: bytes, offset: int, parameters: int) -> Body:
    """The body `code`, which lies at `offset` of its file, of a function with `parameters`.

    Raises `ModuleError` with `bad_module`, `module_limit` or `feature_denied`, and nothing else.
    """
    reader = Reader(code, 0, len(code), offset)
    try:
        groups, groups_start, total = _read_locals(reader, parameters)
        return _read_instructions(code, reader.position, groups, groups_start, total)
    except IndexError:
        raise _bad("the body ends inside an instruction", offset + len(code)) from None
    except _Malformed as error:
        raise _bad(error.why, offset + error.position) from None


class _Malformed(Exception):
    def __init__(self, why: str, position: int) -> None:
        self.why = why
        self.position = position


def _bad(why: str, position: int) -> ModuleError:
    return ModuleError("bad_module", f"{why} (at byte {position})")


def _read_locals(reader: Reader, parameters: int) -> tuple[int, int, int]:
    """Number of declarations, where they start, and all locals with the parameters."""
    total = parameters
    # Groups are bounded as well: a group of no locals costs time and adds nothing.
    groups = count(reader, "groups of locals", LOCALS_MAX)
    start = reader.position
    for _ in range(groups):
        total += reader.u32()
        check_count("locals in a function", total, LOCALS_MAX)
        value_type(reader)
    return groups, start, total


def _read_instructions(code: bytes, start: int, groups: int, groups_start: int, total: int) -> Body:
    kinds, costs, is_event = op.KINDS, op.COSTS, op.IS_EVENT
    events: list[Event] = []
    position, depth, gas, previous = start, 1, 0, op.NOP
    instructions = blocks = branches = 0
    watch = LaneWatch()
    while depth:
        first = position
        opcode = code[position]
        kind = kinds[opcode]
        position += 1
        instructions += 1
        operands = _NONE
        # The common kinds are read here, the others in a function: this loop decides how long
        # a module of a million instructions takes.
        if kind <= op.INDEX:
            if kind:
                index = code[position]
                position += 1
                if index >= 0x80:
                    index, position = _u32(code, position - 1)
                operands = (index,)
        elif kind == op.MEMORY:
            if code[position] < _MEMORY_INDEX_FLAG and code[position + 1] < 0x80:
                position += 2
            else:
                position = _skip_memory_argument(code, position)
        elif kind == op.CONST_I32 and code[position] < 0x80:
            position += 1
        elif kind == op.BULK_PREFIX or kind == op.VECTOR_PREFIX:
            minor, position = _u32(code, position)
            position = _skip_prefixed(code, position, opcode, minor)
            opcode = opcode << 8 | minor
            if watch.active:
                watch.step(opcode)
            if opcode in op.EVENTS:
                if opcode in op.F32X4_ARITHMETIC or opcode in op.F64X2_ARITHMETIC:
                    operands = _VISIBLE
                    watch.watch(len(events), opcode)
                elif opcode not in op.BULK and previous not in op.RAW_FLOATS:
                    operands = _VISIBLE
                events.append((opcode, first, position, gas, operands))
                gas = 0
            else:
                gas += 1
            previous = opcode
            continue
        else:
            operands, position = _read_operands(code, position, opcode, kind)
        if watch.active:
            watch.step(opcode)
        if not is_event[opcode]:
            gas += costs[opcode]
            previous = opcode
            continue
        if opcode == op.END:
            depth -= 1
        elif op.BLOCK <= opcode <= op.IF:
            depth += 1
            blocks += 1
            if depth > NESTING_MAX + 1:  # the body itself counts as one
                check_count("blocks inside one another", depth - 1, NESTING_MAX)
        elif opcode == op.BR_IF or opcode == op.BR:
            branches += 1
        elif opcode == op.BR_TABLE:
            blocks += len(operands)
        elif opcode in op.F32_OBSERVERS or opcode in op.F64_OBSERVERS:
            operands = _NONE if previous in op.RAW_FLOATS else _VISIBLE
        events.append((opcode, first, position, gas, operands))
        gas, previous = 0, opcode
    for place in watch.unseen:
        events[place] = (*events[place][:4], _NONE)
    if position != len(code):
        raise _Malformed("bytes follow the end of a function", position)
    return Body(
        code=code,
        groups=groups,
        groups_start=groups_start,
        start=start,
        locals=total,
        blocks=blocks,
        branches=branches,
        instructions=instructions,
        events=tuple(events),
    )


def _read_operands(
    code: bytes, position: int, opcode: int, kind: int
) -> tuple[tuple[int, ...], int]:
    """What follows `opcode` if it is one of the rarer kinds, and the byte behind it."""
    if kind == op.CONST_I32:
        return _NONE, _skip_signed(code, position, 32)
    if kind == op.CONST_I64:
        return _NONE, _skip_signed(code, position, 64)
    if kind == op.CONST_F32:
        return _NONE, position + 4
    if kind == op.CONST_F64:
        return _NONE, position + 8
    if kind == op.BLOCK_TYPE:
        return _NONE, _skip_block_type(code, position)
    if kind == op.TABLE_OF_LABELS:
        return _read_labels(code, position)
    if kind == op.TWO_INDICES:
        first, position = _u32(code, position)
        _, position = _u32(code, position)
        return (first,), position
    if kind == op.ZERO:
        return _NONE, _skip_zero(code, position)
    if kind == op.HEAP_TYPE:
        if code[position] != _FUNCREF:
            raise ModuleError("feature_denied", "a reference is of another type than funcref")
        return _NONE, position + 1
    if kind == op.SELECT_TYPES:
        return _NONE, _skip_value_types(code, position)
    raise _refused(f"0x{opcode:02x}", kind, position - 1)


def _skip_prefixed(code: bytes, position: int, prefix: int, minor: int) -> int:
    """Step over what follows opcode `minor` behind `prefix`."""
    kinds = op.VECTOR_KINDS if prefix == op.PREFIX_VECTOR else op.BULK_KINDS
    if minor < len(kinds):
        kind = kinds[minor]
    elif prefix == op.PREFIX_VECTOR and minor in op.VECTOR_RELAXED:
        kind = op.DENIED
    else:
        kind = op.UNKNOWN
    if kind == op.PLAIN:
        return position
    if kind == op.MEMORY:
        return _skip_memory_argument(code, position)
    if kind == op.MEMORY_LANE:
        return _skip_memory_argument(code, position) + 1
    if kind == op.LANE:
        return position + 1
    if kind == op.BYTES_16:
        return position + 16
    if kind == op.ZERO:
        return _skip_zero(code, position)
    if kind == op.TWO_ZEROS:
        return _skip_zero(code, _skip_zero(code, position))
    if kind in (op.INDEX, op.INDEX_ZERO, op.TWO_INDICES):
        _, position = _u32(code, position)
        if kind == op.TWO_INDICES:
            _, position = _u32(code, position)
        return _skip_zero(code, position) if kind == op.INDEX_ZERO else position
    raise _refused(f"0x{prefix:02x} {minor}", kind, position)


def _refused(shown: str, kind: int, position: int) -> Exception:
    if kind == op.DENIED:
        found = f"instruction {shown} belongs to a feature that is off"
        return ModuleError("feature_denied", found)
    return _Malformed(f"instruction {shown} does not exist", position)


def _u32(code: bytes, position: int) -> tuple[int, int]:
    """An unsigned number below 2^32 in at most five bytes, and the byte behind it."""
    value = 0
    for shift in range(0, 35, 7):
        piece = code[position]
        position += 1
        value |= (piece & 0x7F) << shift
        if piece < 0x80:
            if value >> 32:
                break
            return value, position
    raise _Malformed("a number exceeds 32 bits or five bytes", position)


def _skip_signed(code: bytes, position: int, bits: int) -> int:
    """Step over a signed number of `bits` bits in as few bytes as can hold them."""
    first = position
    while code[position] >= 0x80:
        position += 1
    longest = (bits + 6) // 7
    length = position - first + 1
    if length == longest:
        # The last byte holds a few bits of the number and the sign; the rest repeats the sign.
        spare = 7 - bits % 7 + 1
        top = code[position] >> (7 - spare)
        if top not in (0, (1 << spare) - 1):
            raise _Malformed(f"a number exceeds {bits} bits", position)
    elif length > longest:
        raise _Malformed(f"a number of {bits} bits is too long", position)
    return position + 1


def _skip_zero(code: bytes, position: int) -> int:
    if code[position] != 0:
        raise ModuleError("feature_denied", "an instruction names a second memory")
    return position + 1


def _skip_memory_argument(code: bytes, position: int) -> int:
    """Step over alignment and offset."""
    alignment, position = _u32(code, position)
    if alignment & _MEMORY_INDEX_FLAG:
        raise ModuleError("feature_denied", "an instruction names a second memory")
    _, position = _u32(code, position)
    return position


def _skip_block_type(code: bytes, position: int) -> int:
    """Step over a block's type: nothing, one result, or the index of a type."""
    first = code[position]
    if first == _EMPTY_BLOCK or first in _VALUE_TYPES:
        return position + 1
    if first < _EMPTY_BLOCK:
        return position + 1
    if first < 0x80:
        value_type(Reader(code, position, len(code)))  # raises: no type of the profile
    behind = _skip_signed(code, position, 33)
    if code[behind - 1] & 0x40:
        raise _Malformed("the type of a block is negative", position)
    return behind


def _skip_value_types(code: bytes, position: int) -> int:
    reader = Reader(code, position, len(code))
    for _ in range(count(reader, "types of a select", TYPE_VALUES_MAX)):
        value_type(reader)
    return reader.position


def _read_labels(code: bytes, position: int) -> tuple[tuple[int, ...], int]:
    """The labels of a branch table, the default one last."""
    entries, position = _u32(code, position)
    # Each entry takes a byte at least, so the length of the body bounds this loop.
    if entries > len(code) - position:
        raise _Malformed(f"a branch table announces {entries} entries", position)
    labels: list[int] = []
    for _ in range(entries + 1):
        label, position = _u32(code, position)
        labels.append(label)
    return tuple(labels), position
