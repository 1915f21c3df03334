"""Static admission: one row for every way to be refused, and nothing but ModuleError for any bytes."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wasmtime import wat2wasm

from vcp_cluster.examples import EXAMPLES
from vcp_cluster.executor import Limits, ModuleError, check_module
from vcp_cluster.executor.errors import MODULE_CODES
from vcp_cluster.executor.limits import MODULE_BYTES_MAX
from vcp_cluster.executor.wasm.limits import (
    BLOCKS_TIMES_LOCALS_MAX,
    BODY_BYTES_MAX,
    BRANCHES_TIMES_LOCALS_MAX,
    CUSTOM_SECTIONS_MAX,
    ELEMENTS_MAX,
    EXPORTS_MAX,
    FUNCTIONS_MAX,
    GLOBALS_MAX,
    LOCALS_MAX,
    NAME_BYTES_MAX,
    NESTING_MAX,
    SEGMENTS_MAX,
    TABLE_ELEMENTS_MAX,
    TABLES_MAX,
    TYPE_VALUES_MAX,
    TYPES_MAX,
)

HEADER = b"\0asm\1\0\0\0"


def leb(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes((*out, number))


def section(number: int, content: bytes) -> bytes:
    return bytes((number,)) + leb(len(content)) + content


def vector(*items: bytes) -> bytes:
    return leb(len(items)) + b"".join(items)


def name(text: str) -> bytes:
    return leb(len(text.encode())) + text.encode()


def body(code: bytes = b"", groups: bytes = b"\0") -> bytes:
    content = groups + code + b"\x0b"
    return leb(len(content)) + content


TYPES = section(1, vector(b"\x60\1\x7f\1\x7f", b"\x60\2\x7f\x7f\1\x7e"))
FUNCTIONS = section(3, vector(b"\0", b"\1"))
MEMORY = section(5, vector(b"\0\1"))
MEMORY_EXPORT = name("memory") + b"\2\0"
ALLOC_EXPORT = name("vcp_alloc") + b"\0\0"
RUN_EXPORT = name("vcp_run") + b"\0\1"
EXPORTS = section(7, vector(MEMORY_EXPORT, ALLOC_EXPORT, RUN_EXPORT))
CODE = section(10, vector(body(b"\0"), body(b"\0")))
GOOD = HEADER + TYPES + FUNCTIONS + MEMORY + EXPORTS + CODE


def with_code(one: bytes) -> bytes:
    return HEADER + TYPES + FUNCTIONS + MEMORY + EXPORTS + section(10, vector(one, body(b"\0")))


def with_export(one: bytes) -> bytes:
    exports = vector(MEMORY_EXPORT, ALLOC_EXPORT, RUN_EXPORT, one)
    return HEADER + TYPES + FUNCTIONS + MEMORY + section(7, exports) + CODE


def with_types(*more: bytes) -> bytes:
    types = vector(b"\x60\1\x7f\1\x7f", b"\x60\2\x7f\x7f\1\x7e", *more)
    return HEADER + section(1, types) + FUNCTIONS + MEMORY + EXPORTS + CODE


def with_memory(*memories: bytes) -> bytes:
    return HEADER + TYPES + FUNCTIONS + section(5, vector(*memories)) + EXPORTS + CODE


def with_globals(*items: bytes, export: bytes = b"") -> bytes:
    exports = [MEMORY_EXPORT, ALLOC_EXPORT, RUN_EXPORT, *([export] if export else [])]
    head = HEADER + TYPES + FUNCTIONS + MEMORY
    return head + section(6, vector(*items)) + section(7, vector(*exports)) + CODE


def with_tables(*tables: bytes) -> bytes:
    return HEADER + TYPES + FUNCTIONS + section(4, vector(*tables)) + MEMORY + EXPORTS + CODE


def with_elements(*segments: bytes) -> bytes:
    head = HEADER + TYPES + FUNCTIONS + section(4, vector(b"\x70\0\1")) + MEMORY + EXPORTS
    return head + section(9, vector(*segments)) + CODE


def with_data(*segments: bytes) -> bytes:
    return GOOD + section(11, vector(*segments))


def nested(depth: int) -> bytes:
    return with_code(body(b"\x02\x40" * depth + b"\x0b" * depth + b"\0"))


def blocks_and_locals(blocks: int, locals_: int) -> bytes:
    """One function with so many blocks, one of whose locals is the parameter."""
    return with_code(body(b"\x02\x40\x0b" * blocks + b"\0", b"\1" + leb(locals_ - 1) + b"\x7f"))


def importing(origin: str, item: str) -> bytes:
    imports = section(2, vector(name(origin) + name(item) + b"\0\0"))
    return HEADER + TYPES + imports + FUNCTIONS + MEMORY + EXPORTS + CODE


IF_BOMB = body(b"\x41\0\x04\x40\x0b" * 30_000, b"\1" + leb(1_000) + b"\x7f")

REFUSED: dict[str, tuple[str, bytes]] = {
    # Not a module at all.
    "empty": ("bad_module", b""),
    "prose": ("bad_module", b"hello"),
    "text": ("bad_module", b"(module)"),
    "text after white space": ("bad_module", b"  \n(module)"),
    "magic alone": ("bad_module", b"\0asm"),
    "half a version": ("bad_module", b"\0asm\1\0"),
    "version 2": ("bad_module", b"\0asm\2\0\0\0"),
    "component": ("bad_module", b"\0asm\x0d\0\1\0"),
    # Damaged.
    "truncated": ("bad_module", GOOD[:-1]),
    "one byte more": ("bad_module", GOOD + b"\x0b"),
    "unknown section": ("bad_module", GOOD + section(14, b"")),
    "section twice": ("bad_module", HEADER + TYPES + TYPES),
    "sections out of order": ("bad_module", HEADER + FUNCTIONS + TYPES),
    "bytes left in a section": ("bad_module", HEADER + section(1, b"\0\0")),
    "section longer than the file": ("bad_module", HEADER + b"\1\x7f\0"),
    "number of six bytes": ("bad_module", HEADER + b"\1\x80\x80\x80\x80\x80\0"),
    "number above 32 bits": ("bad_module", HEADER + b"\1\xff\xff\xff\xff\x7f"),
    "name not UTF-8": ("bad_module", HEADER + section(0, b"\1\xff")),
    "unknown value type": ("bad_module", with_types(b"\x60\1\x40\0")),
    "unknown type form": ("bad_module", with_types(b"\x61")),
    "type out of range": ("bad_module", HEADER + TYPES + section(3, vector(b"\2"))),
    "functions without bodies": ("bad_module", HEADER + TYPES + FUNCTIONS + MEMORY + EXPORTS),
    "bodies without functions": ("bad_module", HEADER + section(10, vector(body()))),
    "table of numbers": ("bad_module", with_tables(b"\x7f\0\1")),
    "memory flags": ("bad_module", with_memory(b"\x10\1")),
    "memory maximum below minimum": ("bad_module", with_memory(b"\1\2\1")),
    "mutability": ("bad_module", with_globals(b"\x7f\4\x41\0\x0b")),
    "initial value by a call": ("bad_module", with_globals(b"\x7f\1\x10\0\x0b")),
    "initial value by a vector sum": ("bad_module", with_globals(b"\x7b\1\xfd\xae\1\x0b")),
    "initial value too long": (
        "bad_module",
        with_globals(b"\x7f\1\x41\x80\x80\x80\x80\x80\0\x0b"),
    ),
    "initial value too large": ("bad_module", with_globals(b"\x7f\1\x41\xff\xff\xff\xff\x0f\x0b")),
    "export twice": ("bad_module", with_export(MEMORY_EXPORT)),
    "export of nothing": ("bad_module", with_export(name("x") + b"\0\2")),
    "export of unknown kind": ("bad_module", with_export(name("x") + b"\5\0")),
    # Too large.
    "file": ("module_limit", HEADER + b"\0" * MODULE_BYTES_MAX),
    "types": ("module_limit", HEADER + section(1, leb(TYPES_MAX + 1))),
    "parameters": ("module_limit", with_types(b"\x60" + leb(TYPE_VALUES_MAX + 1))),
    "functions": ("module_limit", HEADER + TYPES + section(3, leb(FUNCTIONS_MAX + 1))),
    "tables": ("module_limit", with_tables(*[b"\x70\0\1"] * (TABLES_MAX + 1))),
    "globals": ("module_limit", HEADER + section(6, leb(GLOBALS_MAX + 1))),
    "exports": ("module_limit", HEADER + section(7, leb(EXPORTS_MAX + 1))),
    "name of an export": ("module_limit", with_export(name("x" * (NAME_BYTES_MAX + 1)) + b"\0\0")),
    "element segments": ("module_limit", HEADER + section(9, leb(SEGMENTS_MAX + 1))),
    "data segments": ("module_limit", HEADER + section(11, leb(SEGMENTS_MAX + 1))),
    "data count": ("module_limit", HEADER + section(12, leb(SEGMENTS_MAX + 1))),
    "custom sections": ("module_limit", HEADER + section(0, b"\0") * (CUSTOM_SECTIONS_MAX + 1)),
    "body": ("module_limit", with_code(body(b"\1" * BODY_BYTES_MAX))),
    "locals": ("module_limit", with_code(body(b"\0", b"\1" + leb(LOCALS_MAX) + b"\x7f"))),
    "locals that wrap": (
        "module_limit",
        with_code(body(b"\0", b"\2" + leb(2**32 - 1) + b"\x7f" + leb(1) + b"\x7f")),
    ),
    "groups of no locals": (
        "module_limit",
        with_code(body(b"\0", leb(LOCALS_MAX + 1) + b"\0\x7f" * (LOCALS_MAX + 1))),
    ),
    "bomb of ifs and locals": ("module_limit", with_code(IF_BOMB)),
    "blocks times locals": (
        "module_limit",
        blocks_and_locals(BLOCKS_TIMES_LOCALS_MAX // 500 + 1, 500),
    ),
    "entries of branch tables times locals": (
        "module_limit",
        with_code(body(b"\x0e" + leb(4000) + b"\0" * 4001, b"\1" + leb(499) + b"\x7f")),
    ),
    "branches times locals": (
        "module_limit",
        with_code(
            body(b"\x0d\0" * (BRANCHES_TIMES_LOCALS_MAX // 500 + 1), b"\1" + leb(499) + b"\x7f")
        ),
    ),
    "nesting": ("module_limit", nested(NESTING_MAX + 1)),
    "elements": ("module_limit", with_elements(b"\1\0" + leb(ELEMENTS_MAX + 1))),
    "elements in two segments": (
        "module_limit",
        with_elements(b"\1\0" + leb(ELEMENTS_MAX) + b"\0" * ELEMENTS_MAX, b"\1\0\1\0"),
    ),
    "types of a select": (
        "module_limit",
        with_code(body(b"\x1c" + leb(TYPE_VALUES_MAX + 1))),
    ),
    # Bodies that are not well-formed.
    "body without an end": ("bad_module", with_code(leb(2) + b"\0\0")),
    "body that goes on": ("bad_module", with_code(body(b"\0\x0b"))),
    "empty body": ("bad_module", with_code(b"\0")),
    "block without an end": ("bad_module", with_code(body(b"\x02\x40"))),
    "constant that is cut": ("bad_module", with_code(leb(4) + b"\0\x44\0\0")),
    "unknown instruction": ("bad_module", with_code(body(b"\xff"))),
    "unknown bulk instruction": ("bad_module", with_code(body(b"\xfc\x20"))),
    "hole among vector instructions": ("bad_module", with_code(body(b"\xfd\x9a\1"))),
    "vector instruction beyond the last": ("bad_module", with_code(body(b"\xfd\xff\x7f"))),
    "index of six bytes": ("bad_module", with_code(body(b"\x20\x80\x80\x80\x80\x80\0"))),
    "index above 32 bits": ("bad_module", with_code(body(b"\x20\xff\xff\xff\xff\x7f"))),
    "constant of 33 bits": ("bad_module", with_code(body(b"\x41\xff\xff\xff\xff\x0f"))),
    "constant of six bytes": ("bad_module", with_code(body(b"\x41\x80\x80\x80\x80\x80\0"))),
    "constant of 65 bits": ("bad_module", with_code(body(b"\x42" + b"\xff" * 9 + b"\1"))),
    "block of a negative type": ("bad_module", with_code(body(b"\x02\xff\x7f\x0b"))),
    "block of an unknown type": ("bad_module", with_code(body(b"\x02\x41\x0b"))),
    "branch table longer than the body": ("bad_module", with_code(body(b"\x0e\xff\x7f\0"))),
    "element segment of unknown flags": ("bad_module", with_elements(b"\x08")),
    "element segment of unknown kind": ("bad_module", with_elements(b"\1\1\0")),
    "data segment of unknown flags": ("bad_module", with_data(b"\3")),
    "data longer than its section": ("bad_module", with_data(b"\1\x7f")),
    # Features that are off.
    "external reference": ("feature_denied", with_types(b"\x60\1\x6f\0")),
    "typed reference": ("feature_denied", with_types(b"\x60\1\x64\x70\0")),
    "structure type": ("feature_denied", with_types(b"\x5f\0")),
    "recursive types": ("feature_denied", with_types(b"\x4e\0")),
    "shared memory": ("feature_denied", with_memory(b"\3\1\1")),
    "memory of 64 bits": ("feature_denied", with_memory(b"\4\1")),
    "custom page size": ("feature_denied", with_memory(b"\x08\1\0")),
    "two memories": ("feature_denied", with_memory(b"\0\1", b"\0\1")),
    "shared table": ("feature_denied", with_tables(b"\x70\2\1")),
    "shared global": ("feature_denied", with_globals(b"\x7f\2\x41\0\x0b")),
    "exception tag": ("feature_denied", HEADER + section(13, b"\0")),
    "atomic instruction": ("feature_denied", with_code(body(b"\xfe\x10\2\0"))),
    "tail call": ("feature_denied", with_code(body(b"\x12\0"))),
    "exception": ("feature_denied", with_code(body(b"\x08\0"))),
    "garbage collection": ("feature_denied", with_code(body(b"\xfb\0\0"))),
    "relaxed vectors": ("feature_denied", with_code(body(b"\xfd\x80\2"))),
    "wide arithmetic": ("feature_denied", with_code(body(b"\xfc\x13"))),
    "null of another kind": ("feature_denied", with_code(body(b"\xd0\x6f"))),
    "load from a second memory": ("feature_denied", with_code(body(b"\x28\x42\1\0"))),
    "growth of a second memory": ("feature_denied", with_code(body(b"\x40\1"))),
    "data of a second memory": ("feature_denied", with_data(b"\2\1\x41\0\x0b\0")),
    "block with an external reference": ("feature_denied", with_code(body(b"\x02\x6f\x0b"))),
    "export of a tag": ("feature_denied", with_export(name("x") + b"\4\0")),
    "exported mutable reference": (
        "feature_denied",
        with_globals(b"\x70\1\xd0\x70\x0b", export=name("x") + b"\3\0"),
    ),
    # Imports and names.
    "unknown import": ("import_denied", importing("env", "print")),
    "WASI": ("import_denied", importing("wasi_snapshot_preview1", "fd_write")),
    "import of ours": ("reserved_name", importing("vcp", "checkpoint")),
    "import of a part of ours": ("reserved_name", importing("vcp.trace", "x")),
    "export of ours": ("reserved_name", with_export(name("__vcp_gas") + b"\0\0")),
    "start function": ("start_denied", HEADER + TYPES + FUNCTIONS + section(8, b"\0")),
    # Minimum sizes.
    "memory of 1 GiB": ("resource_min", with_memory(b"\0" + leb(16384))),
    "table of ten million": ("resource_min", with_tables(b"\x70\0" + leb(10_000_000))),
    # The calling convention.
    "no section at all": ("export_missing", HEADER),
    "no memory": ("export_missing", HEADER + TYPES + FUNCTIONS + CODE),
    "memory is a function": (
        "export_missing",
        HEADER + TYPES + FUNCTIONS + section(7, vector(name("memory") + b"\0\0")) + CODE,
    ),
    "no vcp_alloc": (
        "export_missing",
        HEADER + TYPES + FUNCTIONS + MEMORY + section(7, vector(MEMORY_EXPORT, RUN_EXPORT)) + CODE,
    ),
    "no vcp_run": (
        "export_missing",
        HEADER
        + TYPES
        + FUNCTIONS
        + MEMORY
        + section(7, vector(MEMORY_EXPORT, ALLOC_EXPORT))
        + CODE,
    ),
    "vcp_run of another type": (
        "export_missing",
        HEADER
        + TYPES
        + FUNCTIONS
        + MEMORY
        + section(7, vector(MEMORY_EXPORT, ALLOC_EXPORT, name("vcp_run") + b"\0\0"))
        + CODE,
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case: str) -> None:
    code, module = REFUSED[case]
    with pytest.raises(ModuleError) as caught:
        check_module(module)
    assert caught.value.code == code
    assert re.fullmatch(rf"{code}: .+\. Next: .+", str(caught.value))


def test_the_table_hits_every_static_code() -> None:
    assert {code for code, _ in REFUSED.values()} == set(MODULE_CODES) - {"input_limit"}


def test_at_the_limits() -> None:
    types = section(1, vector(b"\x60\1\x7f\1\x7f", b"\x60\2\x7f\x7f\1\x7e", b"\x60\0\0"))
    functions = section(3, vector(b"\0", b"\1", *[b"\2"] * (FUNCTIONS_MAX - 2)))
    # One parameter and the rest in one group: exactly the limit.
    full = body(b"\0", b"\1" + leb(LOCALS_MAX - 1) + b"\x7f")
    longest = body(b"\1" * (BODY_BYTES_MAX - 3) + b"\0")
    code = section(10, vector(full, longest, *[body()] * (FUNCTIONS_MAX - 2)))
    table = section(4, vector(b"\x70\0" + leb(TABLE_ELEMENTS_MAX)))
    memory = section(5, vector(b"\0" + leb(8192)))
    check_module(HEADER + types + functions + table + memory + EXPORTS + code)


def test_at_the_limits_of_bodies() -> None:
    check_module(nested(NESTING_MAX))
    check_module(blocks_and_locals(BLOCKS_TIMES_LOCALS_MAX // 500, 500))
    check_module(with_elements(b"\1\0" + leb(ELEMENTS_MAX) + b"\0" * ELEMENTS_MAX))


def test_every_form_of_a_segment() -> None:
    check_module(
        bytes(
            wat2wasm("""(module (memory (export "memory") 1) (table $t 4 funcref) (table $u 4 funcref)
              (elem (i32.const 0) $run) (elem func $run) (elem declare func $run)
              (elem (table $u) (i32.const 0) func $run)
              (elem (i32.const 1) funcref (ref.func $run) (ref.null func))
              (elem funcref (ref.func $run)) (elem declare funcref (ref.func $run))
              (elem (table $u) (i32.const 1) funcref (item (ref.null func)))
              (data (i32.const 0) "active") (data "passive") (data (memory 0) (i32.const 1) "")
              (func (export "vcp_alloc") (param i32) (result i32) (i32.const 0))
              (func $run (export "vcp_run") (param i32 i32) (result i64) (i64.const 0)))""")
        )
    )


def test_memory_minimum_is_judged_by_the_limit_of_the_task() -> None:
    check_module(GOOD, Limits(memory_bytes_max=65536))
    with pytest.raises(ModuleError, match="resource_min"):
        check_module(with_memory(b"\0\2"), Limits(memory_bytes_max=2 * 65536 - 1))


def test_entry_point_is_chosen_by_the_task() -> None:
    check_module(with_export(name("other") + b"\0\1"), entry_point="other")
    for entry_point, code in (("other", "export_missing"), ("memory", "export_missing")):
        with pytest.raises(ModuleError, match=code):
            check_module(GOOD, entry_point=entry_point)
    with pytest.raises(ModuleError, match="reserved_name"):
        check_module(GOOD, entry_point="__vcp_run")


def test_every_form_of_initial_value() -> None:
    check_module(
        bytes(
            wat2wasm("""(module (memory (export "memory") 1)
              (global i32 (i32.add (i32.const -1) (i32.const 2147483647)))
              (global (mut i64) (i64.const -9223372036854775808))
              (global f32 (f32.const 1.5)) (global f64 (f64.const -0))
              (global v128 (v128.const i64x2 1 2)) (global funcref (ref.func $run))
              (global (mut funcref) (ref.null func)) (global i32 (global.get 0))
              (func (export "vcp_alloc") (param i32) (result i32) (i32.const 0))
              (func $run (export "vcp_run") (param i32 i32) (result i64) (i64.const 0)))""")
        )
    )


def test_hostile_names_are_quoted() -> None:
    with pytest.raises(ModuleError) as caught:
        check_module(importing("\x1b[2J" + "x" * 10_000, "\n"))
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def check_total(module: bytes) -> None:
    """Admission answers or raises ModuleError; anything else fails the test."""
    try:
        check_module(module)
    except ModuleError as error:
        assert error.code in MODULE_CODES


@given(st.binary(max_size=200))
def test_any_bytes_after_the_header(data: bytes) -> None:
    check_total(data)
    check_total(HEADER + data)


@given(st.binary(max_size=60))
def test_any_bytes_as_a_body(data: bytes) -> None:
    check_total(with_code(leb(len(data)) + data))


@given(st.lists(st.sampled_from(range(256)), max_size=30), st.binary(max_size=8))
def test_any_instructions(codes: list[int], tail: bytes) -> None:
    check_total(with_code(body(bytes(codes) + tail)))


@given(st.lists(st.tuples(st.integers(0, 14), st.binary(max_size=40)), max_size=8))
def test_any_sections(sections: list[tuple[int, bytes]]) -> None:
    check_total(HEADER + b"".join(section(number, content) for number, content in sections))


@given(st.integers(0, len(GOOD)), st.integers(0, len(GOOD)), st.binary(max_size=6))
def test_any_splice_of_a_good_module(start: int, end: int, data: bytes) -> None:
    check_total(GOOD[:start] + data + GOOD[end:])


@pytest.mark.parametrize("path", [example.module for example in EXAMPLES], ids=lambda p: p.stem)
def test_every_truncation_and_flipped_byte_of_an_example(path: Path) -> None:
    module = path.read_bytes()
    check_module(module)
    for position in range(len(module)):
        with pytest.raises(ModuleError):
            check_module(module[:position])
        flipped = bytearray(module)
        flipped[position] ^= 0xFF
        check_total(bytes(flipped))
