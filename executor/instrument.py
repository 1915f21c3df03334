"""The body of one function with the meter in it: gas, waypoints, path, stack, canonical NaNs.

Gas and path live in two locals of the function and in two globals between functions: loaded at the
entry and behind calls, spilled before calls, at the exit and wherever the run may end by our own
trap. Gas is what is left; it is counted down in one step for each straight run of instructions,
before control goes elsewhere, so at every call, loop and exit it is exact.
"""

import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vcp_cluster.executor.flow import DEAD, LEAVES, SMALL_LOOP_GAS, Flow, compute_flow
from vcp_cluster.executor.wasm import encode
from vcp_cluster.executor.wasm import opcodes as op
from vcp_cluster.executor.wasm.code import Body, Event

ENTRY_GAS: Final = 1
"""What entering a function costs."""
BULK_SHIFT: Final = 4
"""A bulk instruction costs one unit more for each 2^4 bytes or elements."""
PATH_ROTATION: Final = 7
GUEST_TRAP_MARK: Final = -1
"""In `next` before an `unreachable` of the guest; without it the trap is ours."""

_F32_NAN: Final = b"\x43" + struct.pack("<I", 0x7FC00000)
_F64_NAN: Final = b"\x44" + struct.pack("<Q", 0x7FF8 << 48)
_F32X4_NAN: Final = b"\xfd\x0c" + 4 * _F32_NAN[1:]
_F64X2_NAN: Final = b"\xfd\x0c" + 2 * _F64_NAN[1:]

_IF: Final = b"\x04\x40"
_END: Final = b"\x0b"
_UNREACHABLE: Final = b"\x00"
_I32_CONST: Final = b"\x41"
_I64_CONST: Final = b"\x42"
_I32_LT_S: Final = b"\x48"
_I64_LT_S: Final = b"\x53"
_F32_NE: Final = b"\x5c"
_F64_NE: Final = b"\x62"
_I32_ADD: Final = b"\x6a"
_I32_SUB: Final = b"\x6b"
_I64_SUB: Final = b"\x7d"
_I64_XOR: Final = b"\x85"
_I64_SHR_U: Final = b"\x88"
_I64_ROTL: Final = b"\x89"
_I64_EXTEND_I32_U: Final = b"\xad"
_SELECT: Final = b"\x1b"
_F32X4_EQ: Final = b"\xfd\x41"
_F64X2_EQ: Final = b"\xfd\x47"
_V128_BITSELECT: Final = b"\xfd\x52"


@dataclass(frozen=True, slots=True)
class Meter:
    """Indices in the rewritten module: four globals and the function that asks for a waypoint."""

    gas: int
    next: int
    path: int
    stack: int
    waypoint: int


@dataclass(frozen=True, slots=True)
class Frame:
    """What one function is to be given besides gas."""

    results: bytes
    """Its results as the type of a block."""
    counted_bytes: int
    """Of the stack, 0 when it keeps no count."""
    nan_branches: bool
    """Whether NaNs of scalars may be looked for with branches; else with a `select`."""
    f32_globals: frozenset[int]
    f64_globals: frozenset[int]


@dataclass(frozen=True, slots=True)
class Instrumented:
    """A rewritten body: declarations of locals and instructions, as in a code section."""

    content: bytes
    unlikely: tuple[int, ...]
    """Offsets in `content` of every added `if` whose inside hardly ever runs."""


def instrument(body: Body, meter: Meter, frame: Frame) -> Instrumented:
    """The rewritten form of a validated `body`."""
    flow = compute_flow(body)
    writer = _Writer(body, flow, meter, frame)
    writer.enter()
    for event, mark in zip(flow.events[:-1], flow.marks, strict=False):
        writer.write(event, mark)
    writer.leave(flow.events[-1])
    return Instrumented(b"".join(writer.out), tuple(writer.unlikely))


@lru_cache(maxsize=1024)
def _get(local: int) -> bytes:
    return b"\x20" + encode.u32(local)


@lru_cache(maxsize=1024)
def _set(local: int) -> bytes:
    return b"\x21" + encode.u32(local)


@lru_cache(maxsize=1024)
def _tee(local: int) -> bytes:
    return b"\x22" + encode.u32(local)


def _get_global(index: int) -> bytes:
    return b"\x23" + encode.u32(index)


def _set_global(index: int) -> bytes:
    return b"\x24" + encode.u32(index)


@lru_cache(maxsize=1024)
def _minus(gas: int) -> bytes:
    return _I64_CONST + encode.signed(gas) + _I64_SUB


class _Writer:
    """Writes one body from left to right; what no event touches is copied in whole runs."""

    def __init__(self, body: Body, flow: Flow, meter: Meter, frame: Frame) -> None:
        self.out: list[bytes] = []
        self.unlikely: list[int] = []
        self._size = 0
        self._body = body
        self._code = body.code
        self._copied = body.start
        self._pending = ENTRY_GAS
        self._flow = flow
        self._frame = frame
        # Only a function that may run for long looks at the gas when it is entered.
        self._checked = flow.calls or flow.loops or body.instructions > SMALL_LOOP_GAS
        gas, path = body.locals, body.locals + 1
        self._length, self._f32, self._f64, self._v128 = range(body.locals + 2, body.locals + 6)
        self._get_gas, self._set_gas = _get(gas), _set(gas)
        self._spill_gas = _set_global(meter.gas)
        load_gas = _get_global(meter.gas) + _set(gas)
        spill_path = _get(path) + _set_global(meter.path)
        load_path = _get_global(meter.path) + _set(path)
        # A function without checks never touches the path.
        self._load = load_gas + load_path if self._checked else load_gas
        self._spill_path = spill_path if self._checked else b""
        spill = _get(gas) + self._spill_gas + spill_path
        self._mix = (
            _get(path)
            + (_I64_CONST + encode.signed(PATH_ROTATION) + _I64_ROTL)
            + (_get(gas) + _I64_XOR + _set(path))
        )
        ask = spill + b"\x10" + encode.u32(meter.waypoint) + self._load
        self._is_due = _get(gas) + _get_global(meter.next) + _I64_LT_S
        self._ask = _IF + ask + _END
        self._is_empty = _get(gas) + _I64_CONST + b"\0" + _I64_LT_S
        # Nothing is spilled here: a branch straight to a trap is what keeps small loops fast.
        self._stop = _IF + _UNREACHABLE + _END
        mark = encode.signed(GUEST_TRAP_MARK)
        self._mark_own_end = _I64_CONST + mark + _set_global(meter.next)
        self._stack = meter.stack

    def enter(self) -> None:
        """Declare the locals, count the frame, load the meter, look at it."""
        body, frame = self._body, self._frame
        self._emit(encode.u32(body.groups + 5))
        self._emit(self._code[body.groups_start : body.start])
        self._emit(b"\2\x7e\1\x7f\1\x7d\1\x7c\1\x7b")  # gas and path, length, one of each float
        if frame.counted_bytes:
            count = _get_global(self._stack) + _I32_CONST + encode.signed(frame.counted_bytes)
            self._emit(count + _I32_SUB + _tee(self._length) + _set_global(self._stack))
            self._emit(_get(self._length) + _I32_CONST + b"\0" + _I32_LT_S)
            self._emit_unlikely(self._stop)
        self._emit(self._load)
        if self._checked:
            self._emit(self._mix + self._is_due)
            self._emit_unlikely(self._ask)
        if self._flow.leaves_early:
            # Branches out of the function end at this block, behind which the meter is spilled.
            self._emit(b"\x02" + frame.results)

    def leave(self, last: Event) -> None:
        """Spill the meter behind the last instruction and close the body."""
        self._copy(last)
        joined = self._flow.leaves_early
        if joined:
            if last[3] != DEAD:
                self._count()
            self._emit(_END)
        if joined or last[3] != DEAD:
            self._spill()
            self._forget_frame()
        self._emit(_END)

    def write(self, event: Event, mark: bool) -> None:
        """Write up to `event` and, unless it is left for the next run, the event itself."""
        opcode, start, end, before, operands = event
        if before == DEAD:
            self._copied, self._pending = start, 0
        else:
            self._pending += before
        if opcode == op.BLOCK or (opcode == op.END and not mark):
            return
        if opcode not in op.FREE:
            self._pending += 1
        if opcode in (op.BR, op.BR_IF, op.BR_TABLE, op.IF, op.ELSE, op.END):
            self._insert(start)
            self._count()
        elif opcode == op.LOOP:
            self._insert(start)
            self._count()
            if mark:
                self._emit(self._mix)
                self._insert(end)
                self._emit(self._is_empty)
                self._emit_unlikely(self._stop)
            else:
                self._insert(end)
                self._emit(self._mix + self._is_due)
                self._emit_unlikely(self._ask)
        elif opcode in (op.CALL, op.CALL_INDIRECT):
            self._insert(start)
            self._spill()
            self._insert(end)
            self._emit(self._load)
        elif opcode in (op.UNREACHABLE, op.RETURN):
            self._insert(start)
            self._spill()
            if opcode == op.RETURN:
                self._forget_frame()
            else:
                self._emit(self._mark_own_end)
        elif opcode == op.MEMORY_GROW or opcode in op.BULK:
            self._insert(start)
            self._charge_length(0 if opcode == op.MEMORY_GROW else BULK_SHIFT)
        elif operands:
            self._canonicalise(event)
        if opcode in LEAVES:
            self._insert(end)  # what follows is dead and is not copied

    def _copy(self, event: Event) -> None:
        if event[3] == DEAD:
            self._copied, self._pending = event[1], 0
        else:
            self._pending += event[3]
            self._insert(event[1])

    def _emit(self, code: bytes) -> None:
        self.out.append(code)
        self._size += len(code)

    def _emit_unlikely(self, code: bytes) -> None:
        """Write code that begins with an `if` whose inside hardly ever runs."""
        self.unlikely.append(self._size)
        self._emit(code)

    def _insert(self, position: int) -> None:
        """Copy the original up to `position`, where something is to be put in."""
        if position > self._copied:
            self._emit(self._code[self._copied : position])
            self._copied = position

    def _count(self) -> None:
        """Take what is pending from the gas."""
        if self._pending:
            self._emit(self._get_gas + _minus(self._pending) + self._set_gas)
            self._pending = 0

    def _spill(self) -> None:
        """Put gas and path where others see them; the locals are stale from here on."""
        count = _minus(self._pending) if self._pending else b""
        self._emit(self._get_gas + count + self._spill_gas + self._spill_path)
        self._pending = 0

    def _forget_frame(self) -> None:
        """Give the frame's bytes back to the stack."""
        if self._frame.counted_bytes:
            size = _I32_CONST + encode.signed(self._frame.counted_bytes)
            count = _get_global(self._stack) + size + _I32_ADD
            self._emit(count + _set_global(self._stack))

    def _charge_length(self, shift: int) -> None:
        """Charge for the length on top of the stack, and stop before the work if gas is out."""
        length = _get(self._length) + _I64_EXTEND_I32_U
        if shift:
            length += _I64_CONST + encode.signed(shift) + _I64_SHR_U
        self._emit(_tee(self._length) + self._get_gas + _minus(self._pending))
        self._emit(length + _I64_SUB + self._set_gas)
        self._emit(self._get_gas + self._spill_gas + self._is_empty)
        self._emit_unlikely(self._stop)
        self._pending = 0

    def _canonicalise(self, event: Event) -> None:
        """Replace a NaN by the canonical one where its bits may become visible."""
        opcode, start, end, _, operands = event
        frame = self._frame
        global_set = opcode == op.GLOBAL_SET
        if opcode in op.F32_OBSERVERS or (global_set and operands[0] in frame.f32_globals):
            self._canonicalise_scalar(start, self._f32, _F32_NAN, _F32_NE)
        elif opcode in op.F64_OBSERVERS or (global_set and operands[0] in frame.f64_globals):
            self._canonicalise_scalar(start, self._f64, _F64_NAN, _F64_NE)
        elif opcode in op.F32X4_ARITHMETIC:
            self._canonicalise_lanes(end, _F32X4_NAN, _F32X4_EQ)
        elif opcode in op.F64X2_ARITHMETIC:
            self._canonicalise_lanes(end, _F64X2_NAN, _F64X2_EQ)

    def _canonicalise_scalar(self, start: int, local: int, nan: bytes, not_equal: bytes) -> None:
        """Before an instruction that sees the scalar on top.

        A branch that is hardly ever taken costs less at run time than a `select`, which delays the
        value, and more when it is compiled.
        """
        self._insert(start)
        value = _get(local)
        if self._frame.nan_branches:
            self._emit(_set(local) + value + value + not_equal)
            self._emit_unlikely(_IF + nan + _set(local) + _END + value)
        else:
            self._emit(_set(local) + nan + value + value + value + not_equal + _SELECT)

    def _canonicalise_lanes(self, end: int, nan: bytes, equal: bytes) -> None:
        """Behind the instruction that made the vector: who sees its bits later is not known."""
        self._insert(end)
        value = _get(self._v128)
        self._emit(_tee(self._v128) + nan + value + value + equal + _V128_BITSELECT)
