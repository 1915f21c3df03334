"""Every instruction of the profile: known to the reader, and the same on every back end and alone.

The engine itself says which instructions there are and what types they have, so that no list of ours
can be wrong in the same way as the code under test.
"""

import struct
from functools import cache
from itertools import product

import pytest
from wasmtime import Config, Engine, Instance, Module, Store, WasmtimeError

from vcp_cluster.executor import ModuleError, Status
from vcp_cluster.executor.engine import set_checked
from vcp_cluster.executor.profile import FEATURES
from vcp_cluster.executor.wasm import encode
from vcp_cluster.executor.wasm import opcodes as op
from vcp_cluster.executor.wasm.module import read_bodies, read_module

I32, I64, F32, F64, V128 = 0x7F, 0x7E, 0x7D, 0x7C, 0x7B
HEADER = b"\0asm\1\0\0\0"

CODES = [bytes((code,)) for code in range(256) if code not in (op.PREFIX_BULK, op.PREFIX_VECTOR)]
CODES += [b"\xfc" + encode.u32(code) for code in range(40)]
CODES += [b"\xfd" + encode.u32(code) for code in range(0x130)]
TAILS = [b"", *(b"\0" * count for count in (1, 2, 3, 8, 16)), b"\x40\x0b", b"\x70", b"\1\x7f"]


@cache
def engine(canonical: bool = False) -> Engine:
    config = Config()
    for name, value in FEATURES:
        set_checked(config, name, value)
    set_checked(config, "cranelift_nan_canonicalization", canonical)
    return Engine(config)


def is_valid(module: bytes) -> bool:
    try:
        Module.validate(engine(), module)
    except WasmtimeError:
        return False
    return True


def in_dead_code(instruction: bytes) -> bytes:
    """A module with `instruction` behind `unreachable`, where operands of any type are at hand."""
    content = b"\1\1\x7f\0" + instruction + b"\0\x0b"
    return HEADER + b"".join(
        (
            encode.section(1, encode.vector([b"\x60\0\0", b"\x60\1\x7f\1\x7f"])),
            encode.section(3, encode.vector([b"\0"])),
            encode.section(4, encode.vector([b"\x70\0\1"])),
            encode.section(5, encode.vector([b"\0\1"])),
            encode.section(6, encode.vector([b"\x7f\1\x41\0\x0b"])),
            encode.section(9, encode.vector([b"\3\0\1\0", b"\1\0\1\0"])),
            encode.section(12, b"\1"),
            encode.section(10, encode.vector([encode.u32(len(content)) + content])),
            encode.section(11, encode.vector([b"\1\0"])),
        )
    )


def test_the_reader_and_the_engine_know_the_same_instructions() -> None:
    """What the engine takes, we take; what it takes in no form is refused by us in every form."""
    accepted = 0
    for code in CODES:
        ours, theirs = set(), False
        for tail in TAILS:
            module = in_dead_code(code + tail)
            valid = is_valid(module)
            theirs = theirs or valid
            try:
                read_bodies(read_module(module))
                ours.add(tail)
            except ModuleError:
                assert not valid, (code.hex(), tail.hex())
        # `else` is well-formed anywhere for a reader that does not look at types.
        assert theirs or not ours or code == b"\x05", code.hex()
        accepted += theirs
    # 182 numeric and parametric ones and 236 vector ones, 18 bulk ones, and control.
    assert accepted > 420


# --- the instructions that take numbers and leave one ------------------------------------------

OPERANDS = {
    I32: [b"\x41" + encode.signed(value) for value in (1, -7, 0x1234567, -(1 << 31))],
    I64: [b"\x42" + encode.signed(value) for value in (2, -9, 0x123456789ABC, 1 << 62)],
    F32: [b"\x43" + struct.pack("<f", value) for value in (1.5, -2.5, 100.75, -0.0)],
    F64: [b"\x44" + struct.pack("<d", value) for value in (2.5, -3.5, 1e9, -0.0)],
    V128: [
        b"\xfd\x0c" + value
        for value in (
            bytes(range(1, 17)),
            struct.pack("<4f", 1.5, -2.25, 3e9, 0.0),
            struct.pack("<2d", -0.0, 2.5),
            struct.pack("<4i", -1, 70000, -(1 << 31), 5),
        )
    ],
}
# Results that the specification leaves open come from these.
WILD = {
    **OPERANDS,
    F32: [b"\x43" + struct.pack("<I", bits) for bits in (0x7F800000, 0xFFA34567, 0x7FC00000)],
    F64: [
        b"\x44" + struct.pack("<Q", bits)
        for bits in (0xFFF0 << 48, 0x7FF4000000000123, 0xFFF8 << 48)
    ],
    V128: [
        b"\xfd\x0c" + struct.pack("<4I", 0xFFA34567, 0x7F800001, 0x7FC00000, 0x80000000),
        b"\xfd\x0c" + struct.pack("<2Q", 0xFFF4000000000123, 0x7FF8 << 48),
        b"\xfd\x0c" + struct.pack("<4I", 0xFF800000, 0x3F800000, 0x7F800000, 0),
    ],
}
STORES = {I32: b"\x36\0\0", I64: b"\x37\0\0", F32: b"\x38\0\0", F64: b"\x39\0\0"}
STORES[V128] = b"\xfd\x0b\0\0"
TRAPS_ON_RANGE = (b"\xa8", b"\xa9", b"\xae", b"\xaf", b"\xaa", b"\xab", b"\xb0", b"\xb1")

Signature = tuple[tuple[int, ...], int]


def signature_of(instruction: bytes) -> Signature | None:
    """The types of an instruction, found by asking the engine."""
    types = (I32, I64, F32, F64, V128)
    taken = [(one,) for one in types] + [(one, one) for one in types]
    taken += [(V128, one) for one in (I32, I64, F32, F64)] + [(V128, V128, V128)]
    for parameters, result in product(taken, types):
        content = b"\0" + b"".join(b"\x20" + encode.u32(i) for i in range(len(parameters)))
        content += instruction + b"\x0b"
        kind = b"\x60" + encode.vector([bytes((t,)) for t in parameters]) + bytes((1, result))
        module = HEADER + encode.section(1, encode.vector([kind]))
        module += encode.section(3, b"\1\0")
        module += encode.section(10, encode.vector([encode.u32(len(content)) + content]))
        if is_valid(module):
            return parameters, result
    return None


@cache
def pure_instructions() -> list[tuple[bytes, Signature]]:
    plain = [bytes((code,)) for code in range(0x45, 0xC5)]
    plain += [b"\xfc" + bytes((code,)) for code in range(8)]
    plain += [
        b"\xfd" + encode.u32(code) + (b"\0" if kind == op.LANE else b"")
        for code, kind in enumerate(op.VECTOR_KINDS)
        if kind in (op.PLAIN, op.LANE)
    ]
    plain.append(b"\xfd\x0d" + bytes((0, 31, 5, 17, *range(12))))  # shuffle
    found = [(code, signature_of(code)) for code in plain]
    return [(code, signature) for code, signature in found if signature is not None]


def program(
    codes: list[tuple[bytes, Signature]], operands: dict[int, list[bytes]]
) -> tuple[bytes, int]:
    """A module that stores what each instruction makes of operands; and how many bytes it fills."""
    place = 0
    code = bytearray()
    for instruction, (parameters, result) in codes:
        combinations = list(product(*(operands[kind] for kind in parameters)))
        for values in combinations[: 4 if len(parameters) == 1 else 16]:
            code += b"\x41" + encode.signed(place) + b"".join(values) + instruction
            code += STORES[result]
            place += 16
    run = b"\0" + bytes(code) + b"\x42" + encode.signed(place) + b"\x0b"
    alloc = b"\0\x41" + encode.signed(65000) + b"\x0b"
    types = [b"\x60\2\x7f\x7f\1\x7e", b"\x60\1\x7f\1\x7f"]
    exports = [(2, "memory", 0), (0, "vcp_run", 0), (0, "vcp_alloc", 1)]
    names = [encode.name(name) + bytes((kind,)) + encode.u32(i) for kind, name, i in exports]
    module = HEADER + b"".join(
        encode.section(number, encode.vector(items))
        for number, items in (
            (1, types),
            (3, [b"\0", b"\1"]),
            (5, [b"\0\1"]),
            (7, names),
            (10, [encode.u32(len(body)) + body for body in (run, alloc)]),
        )
    )
    return module, place


GROUP, GROUPS = 60, 6


def group(number: int) -> list[tuple[bytes, Signature]]:
    codes = [one for one in pure_instructions() if one[0] not in TRAPS_ON_RANGE]
    return codes[number * GROUP : (number + 1) * GROUP]


def test_there_is_a_program_for_every_pure_instruction() -> None:
    """128 on numbers, 8 saturating conversions and those on vectors; the groups cover them."""
    codes = {code for code, _ in pure_instructions()}
    assert {bytes((code,)) for code in range(0x45, 0xC5)} <= codes
    assert len(codes) == len(pure_instructions()) == 128 + 8 + 213
    assert group(GROUPS - 1) != [] == group(GROUPS)


@pytest.mark.parametrize("number", range(GROUPS))
@pytest.mark.parametrize("operands", ["tame", "wild"])
def test_every_pure_instruction(number: int, operands: str, in_process) -> None:
    module, size = program(group(number), OPERANDS if operands == "tame" else WILD)
    one, *others = [
        in_process(module, backend=backend, opt_level=opt_level)
        for backend, opt_level in (
            ("cranelift", "speed"),
            ("cranelift", "none"),
            ("pulley", "speed"),
            ("pulley", "none"),
        )
    ]
    assert one.status == Status.OK
    for other in others:
        assert (one.output, one.gas, one.states) == (other.output, other.gas, other.states)
    if operands == "tame":
        store = Store(engine(canonical=True))
        exports = Instance(store, Module(engine(canonical=True), module), []).exports(store)
        exports["vcp_run"](store, 0, 0)
        assert one.output == bytes(exports["memory"].read(store, 0, size))


@pytest.mark.parametrize("code", TRAPS_ON_RANGE, ids=bytes.hex)
def test_conversions_that_may_trap(code: bytes, in_process) -> None:
    signature = dict(pure_instructions())[code]
    values = {F32: [b"\x43" + struct.pack("<f", 42.9)], F64: [b"\x44" + struct.pack("<d", 42.9)]}
    module, _ = program([(code, signature)], values)
    for backend in ("cranelift", "pulley"):
        result = in_process(module, backend=backend)
        assert (result.status, result.output[0]) == (Status.OK, 42)
