"""Static admission: what a module must look like before anything is compiled.

Compiling is the attack surface (a module of 438 KB can take the engine 31 CPU seconds), so
sizes and counts are bounded here, in our own reader, before the engine sees a byte. Bodies and
types are not validated here; the engine does that, in the task's own process.
"""

from dataclasses import dataclass, field
from typing import Final

from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.limits import MODULE_BYTES_MAX, PAGE_BYTES, Limits
from vcp_cluster.executor.profile import TABLE_ELEMENTS_MAX, TABLES_MAX
from vcp_cluster.executor.wasm_binary import Reader

FUNCTIONS_MAX: Final = 20_000
BODY_BYTES_MAX: Final = 128 << 10
LOCALS_MAX: Final = 1_000
TYPES_MAX: Final = 10_000
TYPE_VALUES_MAX: Final = 128
GLOBALS_MAX: Final = 1_000
EXPORTS_MAX: Final = 1_000
SEGMENTS_MAX: Final = 10_000
NAME_BYTES_MAX: Final = 256
CUSTOM_SECTIONS_MAX: Final = 100

_MAGIC: Final = b"\0asm"
_VERSION_1: Final = b"\1\0\0\0"
_I32: Final = 0x7F
_I64: Final = 0x7E
_VALUE_TYPES: Final = frozenset((_I32, _I64, 0x7D, 0x7C, 0x7B, 0x70))
_FUNCREF: Final = 0x70
# Prefixes and codes of types that belong to features which the profile switches off.
_DENIED_TYPES: Final = frozenset((*range(0x63, 0x70), 0x71, 0x72, 0x73, 0x74))
_DENIED_FORMS: Final = frozenset((0x4E, 0x4F, 0x50, 0x5D, 0x5E, 0x5F))
_FUNCTION, _TABLE, _MEMORY, _GLOBAL = range(4)

_Signature = tuple[tuple[int, ...], tuple[int, ...]]
_ALLOC_SIGNATURE: Final[_Signature] = ((_I32,), (_I32,))
_RUN_SIGNATURE: Final[_Signature] = ((_I32, _I32), (_I64,))


@dataclass
class _Module:
    """What the sections said so far."""

    limits: Limits
    types: list[_Signature] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    tables: int = 0
    memories: int = 0
    globals: list[tuple[int, bool]] = field(default_factory=list)
    exports: dict[str, tuple[int, int]] = field(default_factory=dict)
    bodies: int = 0


def check_module(
    module: bytes, limits: Limits | None = None, *, entry_point: str = "vcp_run"
) -> None:
    """Check that `module` may be handed to the engine under `limits` (default: `Limits()`).

    Raises `ModuleError`, and nothing else, whatever the bytes are. Passing does not mean that the
    module is valid: the engine may still answer `bad_module` or `feature_denied` when it runs.
    """
    if len(module) > MODULE_BYTES_MAX:
        found = f"the module has {len(module)} bytes, the most is {MODULE_BYTES_MAX}"
        raise ModuleError("module_limit", found)
    _check_header(module)
    found_in = _Module(limits=limits or Limits())
    reader = Reader(module, 8, len(module))
    last_rank = 0
    custom_sections = 0
    while reader.remaining:
        section = reader.byte()
        content = reader.sub(reader.u32())
        if section == 0:
            custom_sections += 1
            _check_count("custom sections", custom_sections, CUSTOM_SECTIONS_MAX)
            content.name()
            continue
        if section == 13:
            raise ModuleError("feature_denied", "the module declares exception tags")
        if section not in _SECTIONS:
            raise reader.error(f"section {section} does not exist")
        rank, read = _SECTIONS[section]
        if rank <= last_rank:
            raise reader.error(f"section {section} is repeated or out of order")
        last_rank = rank
        read(content, found_in)
        content.finish(f"section {section}")
    if found_in.bodies != len(found_in.functions):
        raise reader.error(f"{len(found_in.functions)} functions have {found_in.bodies} bodies")
    _check_exports(found_in, entry_point)


def _check_header(module: bytes) -> None:
    if module[:4] != _MAGIC:
        text = module[:64].lstrip().startswith(b"(")
        what = "WebAssembly text" if text else f"bytes {module[:4].hex() or '(none)'}"
        raise ModuleError("bad_module", f"this is not a WebAssembly binary: it starts with {what}")
    version = module[4:8]
    if version != _VERSION_1:
        component = version[2:4] == b"\1\0"
        what = "a component" if component else f"version bytes {version.hex() or '(none)'}"
        raise ModuleError("bad_module", f"only core modules of version 1 can run, this is {what}")


def _check_count(what: str, count: int, most: int) -> None:
    if count > most:
        raise ModuleError("module_limit", f"{count} {what}, the most is {most}")


def _count(reader: Reader, what: str, most: int) -> int:
    count = reader.u32()
    _check_count(what, count, most)
    return count


def _value_type(reader: Reader) -> int:
    code = reader.byte()
    if code in _DENIED_TYPES:
        found = f"value type 0x{code:02x} belongs to a feature that is off"
        raise ModuleError("feature_denied", found)
    if code not in _VALUE_TYPES:
        raise reader.error(f"value type 0x{code:02x} does not exist")
    return code


def _size_limits(reader: Reader, what: str) -> int:
    """Read the limits of a table or memory; returns the declared minimum."""
    flags = reader.byte()
    if 2 <= flags <= 15:
        found = f"a {what} is shared, 64-bit or of a custom page size (flags {flags})"
        raise ModuleError("feature_denied", found)
    if flags > 15:
        raise reader.error(f"{what} flags {flags} do not exist")
    low = reader.u32()
    if flags == 1 and reader.u32() < low:
        raise reader.error(f"the maximum of a {what} is below its minimum")
    return low


def _read_types(reader: Reader, module: _Module) -> None:
    for _ in range(_count(reader, "types", TYPES_MAX)):
        form = reader.byte()
        if form in _DENIED_FORMS:
            raise ModuleError("feature_denied", f"type form 0x{form:02x} needs garbage collection")
        if form != 0x60:
            raise reader.error(f"type form 0x{form:02x} does not exist")
        parameters, results = (
            tuple(
                _value_type(reader)
                for _ in range(_count(reader, f"{what} of a type", TYPE_VALUES_MAX))
            )
            for what in ("parameters", "results")
        )
        module.types.append((parameters, results))


def _read_imports(reader: Reader, module: _Module) -> None:
    if reader.u32() == 0:
        return
    origin, name = reader.name(), reader.name()
    # Names are quoted and cut, because they come from outside and end up on a terminal.
    shown = f"{origin[:64]!a}.{name[:64]!a}"
    if origin == "vcp" or origin.startswith(("vcp.", "__vcp")):
        raise ModuleError("reserved_name", f"the module imports {shown}")
    raise ModuleError("import_denied", f"the module imports {shown}; a task imports nothing")


def _read_functions(reader: Reader, module: _Module) -> None:
    for _ in range(_count(reader, "functions", FUNCTIONS_MAX)):
        index = reader.u32()
        if index >= len(module.types):
            raise reader.error(f"a function has type {index} of {len(module.types)}")
        module.functions.append(index)


def _read_tables(reader: Reader, module: _Module) -> None:
    module.tables = _count(reader, "tables", TABLES_MAX)
    for _ in range(module.tables):
        if _value_type(reader) != _FUNCREF:
            raise reader.error("the elements of a table are not references")
        elements = _size_limits(reader, "table")
        if elements > TABLE_ELEMENTS_MAX:
            found = f"a table starts with {elements} elements, the most is {TABLE_ELEMENTS_MAX}"
            raise ModuleError("resource_min", found)


def _read_memories(reader: Reader, module: _Module) -> None:
    module.memories = reader.u32()
    if module.memories > 1:
        raise ModuleError("feature_denied", f"the module has {module.memories} memories")
    for _ in range(module.memories):
        size = _size_limits(reader, "memory") * PAGE_BYTES
        if size > module.limits.memory_bytes_max:
            most = module.limits.memory_bytes_max
            raise ModuleError(
                "resource_min", f"memory starts with {size} bytes, the most is {most}"
            )


def _read_globals(reader: Reader, module: _Module) -> None:
    for _ in range(_count(reader, "globals", GLOBALS_MAX)):
        value_type = _value_type(reader)
        mutable = reader.byte()
        if mutable in (2, 3):
            raise ModuleError("feature_denied", "a global is shared")
        if mutable > 3:
            raise reader.error(f"mutability {mutable} does not exist")
        reader.const_expression()
        module.globals.append((value_type, mutable == 1))


def _read_exports(reader: Reader, module: _Module) -> None:
    for _ in range(_count(reader, "exports", EXPORTS_MAX)):
        name, kind, index = reader.name(), reader.byte(), reader.u32()
        _check_count("bytes in the name of an export", len(name.encode()), NAME_BYTES_MAX)
        if name.startswith("__vcp"):
            raise ModuleError("reserved_name", f"the module exports {name[:64]!a}")
        if name in module.exports:
            raise reader.error(f"{name[:64]!a} is exported twice")
        sizes = (len(module.functions), module.tables, module.memories, len(module.globals))
        if kind == 4:
            raise ModuleError("feature_denied", f"the module exports a tag, {name[:64]!a}")
        if kind > 4 or index >= sizes[kind]:
            raise reader.error(f"export {name[:64]!a} names what does not exist")
        if kind == _GLOBAL and module.globals[index] == (_FUNCREF, True):
            # A reference has no bit pattern that two hosts share, so it cannot be committed to.
            found = f"{name[:64]!a} is an exported mutable reference"
            raise ModuleError("feature_denied", found)
        module.exports[name] = (kind, index)


def _read_start(reader: Reader, module: _Module) -> None:
    raise ModuleError("start_denied", "the module has a start function")


def _read_segments(reader: Reader, module: _Module) -> None:
    """Element and data segments: bounded here, read by the engine."""
    _count(reader, "segments", SEGMENTS_MAX)
    reader.skip(reader.remaining)


def _read_data_count(reader: Reader, module: _Module) -> None:
    _count(reader, "segments", SEGMENTS_MAX)


def _read_code(reader: Reader, module: _Module) -> None:
    module.bodies = _count(reader, "bodies", FUNCTIONS_MAX)
    if module.bodies != len(module.functions):
        raise reader.error(f"{len(module.functions)} functions have {module.bodies} bodies")
    for type_index in module.functions:
        size = _count(reader, "bytes in a function body", BODY_BYTES_MAX)
        body = reader.sub(size)
        total = len(module.types[type_index][0])
        # Groups are bounded as well: a group of no locals costs time and adds nothing.
        for _ in range(_count(body, "groups of locals", LOCALS_MAX)):
            total += body.u32()
            _check_count("locals in a function", total, LOCALS_MAX)
            _value_type(body)


# Sections by id: rank in the required order, and the reader of the content.
_SECTIONS: Final = {
    1: (1, _read_types),
    2: (2, _read_imports),
    3: (3, _read_functions),
    4: (4, _read_tables),
    5: (5, _read_memories),
    6: (6, _read_globals),
    7: (7, _read_exports),
    8: (8, _read_start),
    9: (9, _read_segments),
    12: (10, _read_data_count),
    10: (11, _read_code),
    11: (12, _read_segments),
}


def _check_exports(module: _Module, entry_point: str) -> None:
    """Check the calling convention: names, kinds and signatures."""
    if entry_point.startswith("__vcp"):
        raise ModuleError("reserved_name", f"the entry point is called {entry_point[:64]!a}")
    if module.exports.get("memory") != (_MEMORY, 0):
        raise ModuleError("export_missing", "the module exports no memory called 'memory'")
    for name, expected in (("vcp_alloc", _ALLOC_SIGNATURE), (entry_point, _RUN_SIGNATURE)):
        kind, index = module.exports.get(name, (-1, -1))
        if kind != _FUNCTION:
            found = f"the module exports no function called {name[:64]!a}"
            raise ModuleError("export_missing", found)
        if module.types[module.functions[index]] != expected:
            found = f"the exported function {name[:64]!a} has another type"
            raise ModuleError("export_missing", found)
