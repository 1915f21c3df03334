"""Strict reading of a whole module: every section, within the static limits of the profile.

Source: WebAssembly core specification 2.0, chapter 5.5. What the profile never runs is refused
where it is read: imports, start functions, and everything of a feature that is off.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.wasm.code import Body, read_body
from vcp_cluster.executor.wasm.limits import (
    BLOCKS_TIMES_LOCALS_MAX,
    BODY_BYTES_MAX,
    BRANCHES_TIMES_LOCALS_MAX,
    CUSTOM_SECTIONS_MAX,
    ELEMENTS_MAX,
    EXPORTS_MAX,
    FUNCTIONS_MAX,
    GLOBALS_MAX,
    NAME_BYTES_MAX,
    SEGMENTS_MAX,
    TABLES_MAX,
    TYPE_VALUES_MAX,
    TYPES_MAX,
)
from vcp_cluster.executor.wasm.reader import FUNCREF, Reader, check_count, count, value_type

HEADER: Final = b"\0asm\1\0\0\0"
FUNCTION, TABLE, MEMORY, GLOBAL = range(4)
"""Kinds of exports."""

TYPES_SECTION: Final = 1
FUNCTIONS_SECTION: Final = 3
TABLES_SECTION: Final = 4
MEMORIES_SECTION: Final = 5
GLOBALS_SECTION: Final = 6
EXPORTS_SECTION: Final = 7
ELEMENTS_SECTION: Final = 9
CODE_SECTION: Final = 10
DATA_SECTION: Final = 11
DATA_COUNT_SECTION: Final = 12
_TAGS_SECTION: Final = 13

# Forms of types that belong to garbage collection.
_DENIED_FORMS: Final = frozenset((0x4E, 0x4F, 0x50, 0x5D, 0x5E, 0x5F))

Signature = tuple[tuple[int, ...], tuple[int, ...]]
"""Types of parameters and of results."""


@dataclass
class Module:
    """What the sections say. Indices are those of the file; nothing is imported."""

    types: list[Signature] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    """The type of each function."""
    tables: list[int] = field(default_factory=list)
    """The least number of elements of each table."""
    memories: list[int] = field(default_factory=list)
    """The least number of pages of each memory, of which there is one at most."""
    globals: list[tuple[int, bool]] = field(default_factory=list)
    """Type and mutability."""
    exports: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Kind and index by name."""
    referenced: set[int] = field(default_factory=set)
    """Functions whose reference a segment or an initial value holds; unchecked indices."""
    code: list[tuple[int, bytes]] = field(default_factory=list)
    """Place in the file and content of each body, unread."""
    sections: dict[int, bytes] = field(default_factory=dict)
    """Content by number of section, without custom sections."""

    def signature(self, function: int) -> Signature:
        """The type of a function."""
        return self.types[self.functions[function]]


def read_module(data: bytes) -> Module:
    """Everything but the instructions of `data`, whose size the caller bounds.

    Raises `ModuleError`, and nothing else, whatever the bytes are.
    """
    _check_header(data)
    module = Module()
    reader = Reader(data, len(HEADER), len(data))
    last_rank = custom_sections = 0
    while reader.remaining:
        number = reader.byte()
        content = reader.sub(reader.u32())
        if number == 0:
            custom_sections += 1
            check_count("custom sections", custom_sections, CUSTOM_SECTIONS_MAX)
            content.name()
            continue
        if number == _TAGS_SECTION:
            raise ModuleError("feature_denied", "the module declares exception tags")
        if number not in _SECTIONS:
            raise reader.error(f"section {number} does not exist")
        rank, read = _SECTIONS[number]
        if rank <= last_rank:
            raise reader.error(f"section {number} is repeated or out of order")
        last_rank = rank
        module.sections[number] = data[content.position : content.end]
        read(content, module)
        content.finish(f"section {number}")
    if len(module.code) != len(module.functions):
        raise reader.error(f"{len(module.functions)} functions have {len(module.code)} bodies")
    return module


def read_bodies(module: Module) -> list[Body]:
    """The instructions of every function. Raises `ModuleError`, and nothing else."""
    bodies = []
    of_blocks = of_branches = 0
    for function, (offset, code) in enumerate(module.code):
        body = read_body(code, offset, len(module.signature(function)[0]))
        of_blocks += body.blocks * body.locals
        of_branches += body.branches * body.locals
        check_count("blocks times locals", of_blocks, BLOCKS_TIMES_LOCALS_MAX)
        check_count("branches times locals", of_branches, BRANCHES_TIMES_LOCALS_MAX)
        bodies.append(body)
    return bodies


def _check_header(data: bytes) -> None:
    if data[:4] != HEADER[:4]:
        text = data[:64].lstrip().startswith(b"(")
        what = "WebAssembly text" if text else f"bytes {data[:4].hex() or '(none)'}"
        raise ModuleError("bad_module", f"this is not a WebAssembly binary: it starts with {what}")
    version = data[4:8]
    if version != HEADER[4:]:
        component = version[2:4] == b"\1\0"
        what = "a component" if component else f"version bytes {version.hex() or '(none)'}"
        raise ModuleError("bad_module", f"only core modules of version 1 can run, this is {what}")


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


def _read_types(reader: Reader, module: Module) -> None:
    for _ in range(count(reader, "types", TYPES_MAX)):
        form = reader.byte()
        if form in _DENIED_FORMS:
            raise ModuleError("feature_denied", f"type form 0x{form:02x} needs garbage collection")
        if form != 0x60:
            raise reader.error(f"type form 0x{form:02x} does not exist")
        parameters, results = (
            tuple(
                value_type(reader)
                for _ in range(count(reader, f"{what} of a type", TYPE_VALUES_MAX))
            )
            for what in ("parameters", "results")
        )
        module.types.append((parameters, results))


def _read_imports(reader: Reader, module: Module) -> None:
    if reader.u32() == 0:
        return
    origin, name = reader.name(), reader.name()
    # Names are quoted and cut, because they come from outside and end up on a terminal.
    shown = f"{origin[:64]!a}.{name[:64]!a}"
    if origin == "vcp" or origin.startswith(("vcp.", "__vcp")):
        raise ModuleError("reserved_name", f"the module imports {shown}")
    raise ModuleError("import_denied", f"the module imports {shown}; a task imports nothing")


def _read_functions(reader: Reader, module: Module) -> None:
    for _ in range(count(reader, "functions", FUNCTIONS_MAX)):
        index = reader.u32()
        if index >= len(module.types):
            raise reader.error(f"a function has type {index} of {len(module.types)}")
        module.functions.append(index)


def _read_tables(reader: Reader, module: Module) -> None:
    for _ in range(count(reader, "tables", TABLES_MAX)):
        element = value_type(reader)
        if element != FUNCREF:
            raise reader.error("the elements of a table are not references")
        module.tables.append(_size_limits(reader, "table"))


def _read_memories(reader: Reader, module: Module) -> None:
    memories = reader.u32()
    if memories > 1:
        raise ModuleError("feature_denied", f"the module has {memories} memories")
    if memories:
        module.memories.append(_size_limits(reader, "memory"))


def _read_globals(reader: Reader, module: Module) -> None:
    for _ in range(count(reader, "globals", GLOBALS_MAX)):
        kind = value_type(reader)
        mutable = reader.byte()
        if mutable in (2, 3):
            raise ModuleError("feature_denied", "a global is shared")
        if mutable > 3:
            raise reader.error(f"mutability {mutable} does not exist")
        module.referenced.update(reader.const_expression())
        module.globals.append((kind, mutable == 1))


def _read_exports(reader: Reader, module: Module) -> None:
    for _ in range(count(reader, "exports", EXPORTS_MAX)):
        name, kind, index = reader.name(), reader.byte(), reader.u32()
        check_count("bytes in the name of an export", len(name.encode()), NAME_BYTES_MAX)
        if name.startswith("__vcp"):
            raise ModuleError("reserved_name", f"the module exports {name[:64]!a}")
        if name in module.exports:
            raise reader.error(f"{name[:64]!a} is exported twice")
        spaces = (module.functions, module.tables, module.memories, module.globals)
        if kind == 4:
            raise ModuleError("feature_denied", f"the module exports a tag, {name[:64]!a}")
        if kind > 4 or index >= len(spaces[kind]):
            raise reader.error(f"export {name[:64]!a} names what does not exist")
        module.exports[name] = (kind, index)


def _read_start(reader: Reader, module: Module) -> None:
    raise ModuleError("start_denied", "the module has a start function")


def _read_elements(reader: Reader, module: Module) -> None:
    total = 0
    for _ in range(count(reader, "segments", SEGMENTS_MAX)):
        flags = reader.u32()
        if flags > 7:
            raise reader.error(f"flags {flags} of an element segment do not exist")
        active, explicit, expressions = not flags & 1, flags & 2, flags & 4
        if active and explicit:
            reader.u32()  # the table
        if active:
            module.referenced.update(reader.const_expression())
        if flags & 3:
            kind = value_type(reader) if expressions else reader.byte()
            if kind != (FUNCREF if expressions else 0):
                raise reader.error(f"an element segment of kind 0x{kind:02x} does not exist")
        items = reader.u32()
        total += items
        check_count("elements in segments", total, ELEMENTS_MAX)
        for _ in range(items):
            if expressions:
                module.referenced.update(reader.const_expression())
            else:
                module.referenced.add(reader.u32())


def _read_data_count(reader: Reader, module: Module) -> None:
    count(reader, "segments", SEGMENTS_MAX)


def _read_code(reader: Reader, module: Module) -> None:
    bodies = count(reader, "bodies", FUNCTIONS_MAX)
    if bodies != len(module.functions):
        raise reader.error(f"{len(module.functions)} functions have {bodies} bodies")
    for _ in range(bodies):
        size = count(reader, "bytes in a function body", BODY_BYTES_MAX)
        start = reader.position
        module.code.append((start, reader.take(size)))


def _read_data(reader: Reader, module: Module) -> None:
    for _ in range(count(reader, "segments", SEGMENTS_MAX)):
        flags = reader.u32()
        if flags > 2:
            raise reader.error(f"flags {flags} of a data segment do not exist")
        if flags == 2 and reader.u32() != 0:
            raise ModuleError("feature_denied", "a data segment names a second memory")
        if flags != 1:
            reader.const_expression()
        reader.skip(reader.u32())


# Sections by number: rank in the required order, and the reader of the content.
_SECTIONS: Final[dict[int, tuple[int, Callable[[Reader, Module], None]]]] = {
    TYPES_SECTION: (1, _read_types),
    2: (2, _read_imports),
    FUNCTIONS_SECTION: (3, _read_functions),
    TABLES_SECTION: (4, _read_tables),
    MEMORIES_SECTION: (5, _read_memories),
    GLOBALS_SECTION: (6, _read_globals),
    EXPORTS_SECTION: (7, _read_exports),
    8: (8, _read_start),
    ELEMENTS_SECTION: (9, _read_elements),
    DATA_COUNT_SECTION: (10, _read_data_count),
    CODE_SECTION: (11, _read_code),
    DATA_SECTION: (12, _read_data),
}
