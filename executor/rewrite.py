"""A module of the profile with the meter in it: the same bytes from the same bytes, on every host.

Added at the end of what is there, so that every index of the original keeps its meaning:
- four mutable globals, exported: `__vcp_gas` (what is left), `__vcp_next` (gas below which the next
  waypoint is due), `__vcp_path` (a fingerprint of the way that control took), `__vcp_stack`;
- a table of one, `__vcp_table`, where the host puts its function, and a function that calls it;
- the export `__vcp_g<index>` of every mutable global that holds a number.
Custom sections and dead code are left out; hints for the engine say which of the added branches are
hardly ever taken, and change no result.

The module must have been validated before: what was invalid might become valid by what is added.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vcp_cluster.executor.callgraph import plan_stack
from vcp_cluster.executor.instrument import Frame, Instrumented, Meter, instrument
from vcp_cluster.executor.wasm import encode
from vcp_cluster.executor.wasm import module as wasm
from vcp_cluster.executor.wasm import opcodes as op
from vcp_cluster.executor.wasm.code import Body
from vcp_cluster.executor.wasm.module import Module, Signature
from vcp_cluster.executor.wasm.reader import F32, F64, FUNCREF, I32, I64, Reader

GAS_EXPORT: Final = "__vcp_gas"
NEXT_EXPORT: Final = "__vcp_next"
PATH_EXPORT: Final = "__vcp_path"
STACK_EXPORT: Final = "__vcp_stack"
TABLE_EXPORT: Final = "__vcp_table"

NAN_BRANCHES_TIMES_LOCALS_MAX: Final = 1_000_000
"""The most branches that the rewriter itself adds for NaNs, counted as those of the module are.

Functions behind that many get the slower form without branches, so that what is cheap to compile
before the rewriting is so behind it.
"""

_NO_RESULT: Final = b"\x40"
_CUSTOM_SECTION: Final = 0
_UNLIKELY: Final = b"\1\0"  # one byte, which is 0
_OBSERVERS: Final = op.F32_OBSERVERS | op.F64_OBSERVERS | {op.GLOBAL_SET}
_ORDER: Final = (
    wasm.TYPES_SECTION,
    wasm.FUNCTIONS_SECTION,
    wasm.TABLES_SECTION,
    wasm.MEMORIES_SECTION,
    wasm.GLOBALS_SECTION,
    wasm.EXPORTS_SECTION,
    wasm.ELEMENTS_SECTION,
    wasm.DATA_COUNT_SECTION,
    _CUSTOM_SECTION,  # the hints, which must stand before the code
    wasm.CODE_SECTION,
    wasm.DATA_SECTION,
)


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A rewritten module and what its host must know about it."""

    wasm: bytes
    globals: tuple[tuple[int, str], ...]
    """Index and added export of every mutable global that holds a number."""


def rewrite(module: Module, bodies: Sequence[Body]) -> Rewritten:
    """The metered form of a validated module and its `bodies`."""
    types = _Types(module.types)
    mutable = tuple(
        (index, f"__vcp_g{index}")
        for index, (kind, is_mutable) in enumerate(module.globals)
        if is_mutable and kind != FUNCREF
    )
    first = len(module.globals)
    meter = Meter(
        gas=first,
        next=first + 1,
        path=first + 2,
        stack=first + 3,
        waypoint=len(module.functions),
    )
    written = _write_bodies(module, bodies, meter, types)
    code = [encode.u32(len(body.content)) + body.content for body in written]
    void = types.index(((), ()))
    code.append(_write_asking(meter, void, table=len(module.tables)))
    contents = dict(module.sections)
    contents[wasm.TYPES_SECTION] = _extend(contents, wasm.TYPES_SECTION, types.added)
    contents[wasm.FUNCTIONS_SECTION] = _extend(contents, wasm.FUNCTIONS_SECTION, [encode.u32(void)])
    contents[wasm.TABLES_SECTION] = _extend(
        contents, wasm.TABLES_SECTION, [bytes((FUNCREF, 1, 1, 1))]
    )
    contents[wasm.GLOBALS_SECTION] = _extend(contents, wasm.GLOBALS_SECTION, _added_globals())
    contents[wasm.EXPORTS_SECTION] = _extend(
        contents, wasm.EXPORTS_SECTION, _added_exports(meter, mutable, len(module.tables))
    )
    contents[wasm.CODE_SECTION] = encode.vector(code)
    contents[_CUSTOM_SECTION] = _write_hints(written)
    sections = [encode.section(number, contents[number]) for number in _ORDER if number in contents]
    return Rewritten(wasm.HEADER + b"".join(sections), mutable)


class _Types:
    """The types of a module, by index, and those that had to be added."""

    def __init__(self, types: Sequence[Signature]) -> None:
        self._indices: dict[Signature, int] = {}
        for index, signature in enumerate(types):
            self._indices.setdefault(signature, index)
        self._next = len(types)
        self.added: list[bytes] = []

    def index(self, signature: Signature) -> int:
        """The index of a type, which is added if the module has none such."""
        if signature not in self._indices:
            self._indices[signature] = self._next
            self._next += 1
            parts = [encode.u32(len(part)) + bytes(part) for part in signature]
            self.added.append(b"\x60" + b"".join(parts))
        return self._indices[signature]

    def block(self, results: tuple[int, ...]) -> bytes:
        """The type of a block that takes nothing and leaves `results`."""
        if not results:
            return _NO_RESULT
        if len(results) == 1:
            return bytes(results)
        return encode.signed(self.index(((), results)))


def _write_bodies(
    module: Module, bodies: Sequence[Body], meter: Meter, types: _Types
) -> list[Instrumented]:
    plan = plan_stack(module, bodies)
    f32, f64 = (
        frozenset(i for i, (kind, _) in enumerate(module.globals) if kind == wanted)
        for wanted in (F32, F64)
    )
    written = []
    weight = 0
    for function, body in enumerate(bodies):
        weight += body.locals * sum(
            1 for event in body.events if event[0] in _OBSERVERS and event[4]
        )
        frame = Frame(
            results=types.block(module.signature(function)[1]),
            counted_bytes=plan.frames[function] if function in plan.counted else 0,
            nan_branches=weight <= NAN_BRANCHES_TIMES_LOCALS_MAX,
            f32_globals=f32,
            f64_globals=f64,
        )
        written.append(instrument(body, meter, frame))
    return written


def _write_hints(written: Sequence[Instrumented]) -> bytes:
    """The content of the custom section that tells unlikely branches (branch hinting proposal)."""
    functions = []
    for function, body in enumerate(written):
        if body.unlikely:
            hints = [encode.u32(offset) + _UNLIKELY for offset in body.unlikely]
            functions.append(encode.u32(function) + encode.vector(hints))
    return encode.name("metadata.code.branch_hint") + encode.vector(functions)


def _write_asking(meter: Meter, void: int, table: int) -> bytes:
    """The body of the function that asks the host for a waypoint, or stops when gas is out."""
    content = (
        b"\0"  # no locals
        + (b"\x23" + encode.u32(meter.gas) + b"\x42\0\x53")  # gas < 0
        + b"\x04\x40\x00\x0b"  # if unreachable end
        + (b"\x41\0\x11" + encode.u32(void) + encode.u32(table))  # call_indirect the host's
        + b"\x0b"
    )
    return encode.u32(len(content)) + content


def _added_globals() -> list[bytes]:
    wide, narrow = bytes((I64, 1, 0x42, 0, 0x0B)), bytes((I32, 1, 0x41, 0, 0x0B))
    return [wide, wide, wide, narrow]


def _added_exports(meter: Meter, mutable: Sequence[tuple[int, str]], table: int) -> list[bytes]:
    exports = [
        (GAS_EXPORT, wasm.GLOBAL, meter.gas),
        (NEXT_EXPORT, wasm.GLOBAL, meter.next),
        (PATH_EXPORT, wasm.GLOBAL, meter.path),
        (STACK_EXPORT, wasm.GLOBAL, meter.stack),
        (TABLE_EXPORT, wasm.TABLE, table),
        *((name, wasm.GLOBAL, index) for index, name in mutable),
    ]
    return [encode.name(name) + bytes((kind,)) + encode.u32(index) for name, kind, index in exports]


def _extend(contents: dict[int, bytes], number: int, items: Sequence[bytes]) -> bytes:
    """The content of a section that is a vector, with `items` added at its end."""
    content = contents.get(number, b"\0")
    reader = Reader(content, 0, len(content))
    present = reader.u32()
    return encode.u32(present + len(items)) + content[reader.position :] + b"".join(items)
