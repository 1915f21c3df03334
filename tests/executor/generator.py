"""Random valid modules of the calling convention, the same ones from the same seed on every host.

Types are tracked while code is written, so every module is valid; loops count down and calls go to
functions of a higher number, or by a budget that a global holds, so every run ends soon or runs out
of gas. What a run does to numbers, memory, globals and tables shows in its output and final state.
"""

import random
import struct
from dataclasses import dataclass
from typing import Final

from vcp_cluster.executor.wasm import encode

I32, I64, F32, F64, V128 = 0x7F, 0x7E, 0x7D, 0x7C, 0x7B
NUMBERS: Final = (I32, I64, F32, F64)
DEPTH_MAX: Final = 4

Signature = tuple[tuple[int, ...], tuple[int, ...]]

# Opcodes by (types taken, type left); those of floats give NaNs now and then.
OPERATORS: Final[dict[int, list[tuple[tuple[int, ...], bytes]]]] = {
    I32: [
        *(((I32,), bytes((c,))) for c in (0x45, 0x67, 0x68, 0x69, 0xC0, 0xC1)),
        *(((I32, I32), bytes((c,))) for c in (*range(0x46, 0x50), *range(0x6A, 0x6D))),
        *(((I32, I32), bytes((c,))) for c in range(0x71, 0x79)),
        ((I64,), b"\x50"),
        *(((I64, I64), bytes((c,))) for c in range(0x51, 0x5B)),
        *(((F32, F32), bytes((c,))) for c in range(0x5B, 0x61)),
        *(((F64, F64), bytes((c,))) for c in range(0x61, 0x67)),
        ((I64,), b"\xa7"),
        *(((F32,), bytes((0xFC, c))) for c in (0, 1)),
        *(((F64,), bytes((0xFC, c))) for c in (2, 3)),
    ],
    I64: [
        *(((I64,), bytes((c,))) for c in (0x79, 0x7A, 0x7B, 0xC2, 0xC3, 0xC4)),
        *(((I64, I64), bytes((c,))) for c in (*range(0x7C, 0x7F), *range(0x83, 0x8B))),
        *(((I32,), bytes((c,))) for c in (0xAC, 0xAD)),
        *(((F32,), bytes((0xFC, c))) for c in (4, 5)),
        *(((F64,), bytes((0xFC, c))) for c in (6, 7)),
    ],
    F32: [
        *(((F32,), bytes((c,))) for c in range(0x8B, 0x92)),
        *(((F32, F32), bytes((c,))) for c in range(0x92, 0x99)),
        *(((I32,), bytes((c,))) for c in (0xB2, 0xB3)),
        *(((I64,), bytes((c,))) for c in (0xB4, 0xB5)),
        ((F64,), b"\xb6"),
    ],
    F64: [
        *(((F64,), bytes((c,))) for c in range(0x99, 0xA0)),
        *(((F64, F64), bytes((c,))) for c in range(0xA0, 0xA7)),
        *(((I32,), bytes((c,))) for c in (0xB7, 0xB8)),
        *(((I64,), bytes((c,))) for c in (0xB9, 0xBA)),
        ((F32,), b"\xbb"),
    ],
    V128: [
        *(((I32,), b"\xfd" + bytes((c,))) for c in (0x0F, 0x10, 0x11)),
        ((I64,), b"\xfd\x12"),
        ((F32,), b"\xfd\x13"),
        ((F64,), b"\xfd\x14"),
        *(((V128, V128), b"\xfd" + encode.u32(c)) for c in (0x6E, 0x8E, 0xAE, 0xCE, 0xB5, 0x4E)),
        *(((V128, V128), b"\xfd" + encode.u32(c)) for c in range(0xE4, 0xEC)),
        *(((V128, V128), b"\xfd" + encode.u32(c)) for c in range(0xF0, 0xF8)),
        *(((V128,), b"\xfd" + encode.u32(c)) for c in (0x5E, 0x5F, 0xE3, 0xEF, 0x67, 0x94)),
        ((V128, V128, V128), b"\xfd\x52"),
    ],
}
TRAPPING: Final = {
    I32: [((I32, I32), bytes((c,))) for c in range(0x6D, 0x71)]
    + [((F32,), b"\xa8"), ((F64,), b"\xab")],
    I64: [((I64, I64), bytes((c,))) for c in range(0x7F, 0x83)]
    + [((F32,), b"\xaf"), ((F64,), b"\xb0")],
}
# Bits that no arithmetic made: with these, payloads that a guest chose come into play.
RAW: Final = {
    I32: [((F32,), b"\xbc")],
    I64: [((F64,), b"\xbd")],
    F32: [((I32,), b"\xbe")],
    F64: [((I64,), b"\xbf")],
}
EXTRACTS: Final = {I32: b"\xfd\x1b\1", I64: b"\xfd\x1d\1", F32: b"\xfd\x1f\2", F64: b"\xfd\x21\0"}
LOADS: Final = {I32: b"\x28\2", I64: b"\x29\3", F32: b"\x2a\2", F64: b"\x2b\3", V128: b"\xfd\0\4"}
STORES: Final = {I32: b"\x36\2", I64: b"\x37\3", F32: b"\x38\2", F64: b"\x39\3"}
STORES_ALL: Final = {**STORES, V128: b"\xfd\x0b\4"}


@dataclass(frozen=True)
class Options:
    """What modules may contain."""

    raw_floats: bool = True
    vectors: bool = True
    bulk: bool = True
    traps: bool = True


def make_module(seed: int, options: Options = Options()) -> bytes:
    """The module of `seed`."""
    return _Generator(random.Random(seed), options).module()


class _Generator:
    """Writes one module."""

    def __init__(self, rng: random.Random, options: Options) -> None:
        self.rng = rng
        self.options = options
        self.kinds = (*NUMBERS, V128) if options.vectors and rng.random() < 0.4 else NUMBERS
        self.types: list[Signature] = [((), ()), ((I32,), (I32,)), ((I32, I32), (I64,))]
        self.functions = [2, 1]  # vcp_run and vcp_alloc come first
        for _ in range(rng.randrange(1, 7)):
            parameters = tuple(rng.choice(self.kinds) for _ in range(rng.randrange(4)))
            results = tuple(rng.choice(self.kinds) for _ in range(rng.choice((0, 1, 1, 1, 2))))
            self.functions.append(self.type_index((parameters, results)))
        self.entries = [rng.randrange(2, len(self.functions)) for _ in range(5)]  # from 1 on
        # Global 0 is the budget of calls that may go anywhere.
        self.globals = [I32, *(rng.choice(self.kinds) for _ in range(rng.randrange(1, 5)))]

    def type_index(self, signature: Signature) -> int:
        if signature not in self.types:
            self.types.append(signature)
        return self.types.index(signature)

    def module(self) -> bytes:
        bodies = [_Body(self, index).write() for index in range(len(self.functions))]
        exports = [(b"\2", "memory", 0), (b"\0", "vcp_run", 0), (b"\0", "vcp_alloc", 1)]
        targets = [encode.u32(function) for function in self.entries]
        types = [
            b"\x60"
            + encode.vector([bytes((t,)) for t in p])
            + encode.vector([bytes((t,)) for t in r])
            for p, r in self.types
        ]
        data = self.rng.randbytes(300)
        sections = [
            (1, types),
            (3, [encode.u32(index) for index in self.functions]),
            (4, [b"\x70\1\x08\x10"]),
            (5, [b"\1\1\4"]),
            (
                6,
                [
                    bytes((kind, 1)) + self.initial(i) + b"\x0b"
                    for i, kind in enumerate(self.globals)
                ],
            ),
            (7, [encode.name(name) + kind + encode.u32(index) for kind, name, index in exports]),
            (9, [b"\0\x41\1\x0b" + encode.vector(targets)]),
        ]
        parts = [encode.section(number, encode.vector(items)) for number, items in sections]
        parts.append(encode.section(12, b"\2"))
        parts.append(encode.section(10, encode.vector(bodies)))
        active = b"\0\x41" + encode.signed(64) + b"\x0b" + encode.u32(len(data)) + data
        parts.append(encode.section(11, encode.vector([active, b"\1\x05hello"])))
        return b"\0asm\1\0\0\0" + b"".join(parts)

    def initial(self, index: int) -> bytes:
        return b"\x41\xc0\0" if index == 0 else self.constant(self.globals[index])

    def constant(self, kind: int) -> bytes:
        rng = self.rng
        if kind == I32:
            small, wide = rng.randrange(-3, 40), rng.randrange(-(1 << 31), 1 << 31)
            return b"\x41" + encode.signed(rng.choice((small, small, wide)))
        if kind == I64:
            return b"\x42" + encode.signed(rng.choice((rng.randrange(9), rng.getrandbits(63))))
        value = rng.choice((0.0, -0.0, 1.5, -2.25, 1e30, float("inf"), rng.random()))
        if kind == F32:
            return b"\x43" + struct.pack("<f", value)
        if kind == F64:
            return b"\x44" + struct.pack("<d", value)
        return b"\xfd\x0c" + rng.randbytes(16)


class _Body:
    """Writes one function: statements, expressions and whatever control there is between them."""

    def __init__(self, generator: _Generator, index: int) -> None:
        self.of = generator
        self.rng = generator.rng
        self.index = index
        self.parameters, self.results = generator.types[generator.functions[index]]
        extra = [self.rng.choice(generator.kinds) for _ in range(self.rng.randrange(1, 5))]
        # One counter for each level of loops, at the end.
        self.locals = [*self.parameters, *extra, *([I32] * DEPTH_MAX)]
        self.counters = len(self.locals) - DEPTH_MAX
        self.labels: list[tuple[int, ...]] = []  # types that a branch takes along
        self.loops = 0
        self.out = bytearray()

    def write(self) -> bytes:
        if self.index == 1:
            code = b"\x41\x80\x10\x0b"  # vcp_alloc: 2048
            return encode.u32(len(code) + 1) + b"\0" + code
        self.labels.append(self.results)
        for _ in range(self.rng.randrange(2, 9)):
            self.statement(0)
        if self.index == 0:
            self.call_all()
            self.out += b"\x42" + encode.signed(2048)
        else:
            for kind in self.results:
                self.expression(kind, 1)
        self.out += b"\x0b"
        groups = [b"\1" + bytes((kind,)) for kind in self.locals[len(self.parameters) :]]
        content = encode.vector(groups) + bytes(self.out)
        return encode.u32(len(content)) + content

    def call_all(self) -> None:
        """Call every function and keep what it leaves, several times over."""
        counter = encode.u32(self.counters)
        self.out += (
            b"\x41" + encode.signed(self.rng.randrange(1, 30)) + b"\x21" + counter + b"\x03\x40"
        )
        self.labels.append((V128, V128, V128))
        for index, number in enumerate(self.of.functions[2:], 2):
            parameters, results = self.of.types[number]
            for kind in parameters:
                self.expression(kind, 2)
            self.out += b"\x10" + encode.u32(index)
            for kind in reversed(results):
                places = self.of_kind(self.locals[: self.counters], kind)
                self.out += b"\x21" + encode.u32(places[-1]) if places else b"\x1a"
        self.labels.pop()
        self.out += b"\x20" + counter + b"\x41\1\x6b\x22" + counter + b"\x0d\0\x0b"

    def of_kind(self, kinds: list[int], kind: int) -> list[int]:
        return [i for i, one in enumerate(kinds) if one == kind]

    def address(self, depth: int) -> None:
        """An address that is nearly always inside memory."""
        self.expression(I32, depth + 1)
        if not (self.of.options.traps and self.rng.random() < 0.02):
            self.out += b"\x41" + encode.signed(0x7FF) + b"\x71"

    def expression(self, kind: int, depth: int) -> None:
        """Code that leaves one value of `kind`."""
        rng, out = self.rng, self.out
        choice = rng.random()
        if depth >= DEPTH_MAX or choice < 0.2:
            self.leaf(kind)
        elif choice < 0.62:
            operators = list(OPERATORS[kind])
            if self.of.options.traps and rng.random() < 0.05:
                operators = TRAPPING.get(kind, operators)
            elif self.of.options.raw_floats and rng.random() < 0.15:
                operators = RAW.get(kind, operators)
            taken, code = rng.choice(operators)
            for one in taken:
                self.expression(one, depth + 1)
            out += code
        elif choice < 0.7 and (self.of.options.raw_floats or kind in (I32, I64)):
            self.address(depth)
            out += LOADS[kind] + encode.u32(rng.randrange(200))
        elif choice < 0.74 and V128 in self.of.kinds and kind in EXTRACTS:
            if self.of.options.raw_floats or kind in (I32, I64):
                self.expression(V128, depth + 1)
                out += EXTRACTS[kind]
            else:
                self.leaf(kind)
        elif choice < 0.8:
            self.expression(I32, depth + 1)
            out += b"\x04" + bytes((kind,))
            self.inside((kind,), lambda: self.expression(kind, depth + 1))
            out += b"\x05"
            self.inside((kind,), lambda: self.expression(kind, depth + 1))
            out += b"\x0b"
        elif choice < 0.86:
            out += b"\x02" + bytes((kind,))
            self.inside((kind,), lambda: self.leaving(kind, depth))
            out += b"\x0b"
        elif choice < 0.9:
            self.expression(kind, depth + 1)
            self.expression(kind, depth + 1)
            self.expression(I32, depth + 1)
            out += b"\x1c\1" + bytes((kind,)) if kind == V128 else b"\x1b"
        else:
            self.call(kind, depth)

    def inside(self, carried: tuple[int, ...], write: object) -> None:
        self.labels.append(carried)
        assert callable(write)
        write()
        self.labels.pop()

    def leaving(self, kind: int, depth: int) -> None:
        """An expression in a block that a branch may leave early, with dead code behind it."""
        self.expression(kind, depth + 1)
        if self.rng.random() < 0.6:
            self.expression(I32, depth + 1)
            self.out += b"\x0d\0"
        if self.rng.random() < 0.5:
            self.out += b"\x0c\0"
            self.dead(depth)

    def dead(self, depth: int) -> None:
        """Code that never runs: types are free in it."""
        for _ in range(self.rng.randrange(4)):
            self.out += self.rng.choice(
                (b"\x6a\x1a", b"\x01", b"\x00", b"\x10\1\x1a", b"\x02\x40\x0c\0\x0b", b"\x0f")
            )
        if self.rng.random() < 0.3:
            self.statement(depth + 1)

    def leaf(self, kind: int) -> None:
        places = self.of_kind(self.locals, kind)
        spaces = self.of_kind(self.of.globals, kind)
        choice = self.rng.random()
        if places and choice < 0.5:
            self.out += b"\x20" + encode.u32(self.rng.choice(places))
        elif spaces and choice < 0.65:
            self.out += b"\x23" + encode.u32(self.rng.choice(spaces))
        elif kind == I32 and choice < 0.7:
            self.out += b"\x3f\0"
        else:
            self.out += self.of.constant(kind)

    def call(self, kind: int, depth: int) -> None:
        """A call that leaves one value of `kind`, if there is a function for it."""
        rng, of = self.rng, self.of
        fitting = [
            (index, of.types[number][0])
            for index, number in enumerate(of.functions)
            if index > 1 and of.types[number][1] == (kind,)
        ]
        if not fitting:
            self.leaf(kind)
            return
        index, parameters = rng.choice(fitting)
        wrong = of.options.traps and rng.random() < 0.1
        places = [i for i, f in enumerate(of.entries, 1) if of.functions[f] == of.functions[index]]
        indirect = rng.random() < 0.3 and (wrong or bool(places))
        free = index <= self.index or indirect
        if free:  # back or anywhere: only while the budget lasts
            self.out += b"\x23\0\x41\1\x6b\x24\0\x23\0\x41\0\x4a\x04" + bytes((kind,))
            self.labels.append((kind,))
        for one in parameters:
            self.expression(one, depth + 2)
        if indirect:
            self.out += b"\x41" + encode.signed(rng.randrange(9) if wrong else rng.choice(places))
            self.out += b"\x11" + encode.u32(of.functions[index]) + b"\0"
        else:
            self.out += b"\x10" + encode.u32(index)
        if free:
            self.labels.pop()
            self.out += b"\x05" + of.constant(kind) + b"\x0b"

    def statement(self, depth: int) -> None:
        """Code that leaves nothing."""
        rng, out = self.rng, self.out
        choice = rng.random()
        if depth >= DEPTH_MAX or choice < 0.2:
            self.assign(depth)
        elif choice < 0.36:
            kind = rng.choice(self.of.kinds)
            self.address(depth)
            self.expression(kind, depth + 1)
            out += STORES_ALL[kind] + encode.u32(rng.randrange(300))
        elif choice < 0.5 and self.loops < DEPTH_MAX:
            self.loop(depth)
        elif choice < 0.6:
            self.expression(I32, depth + 1)
            out += b"\x04\x40"
            self.inside((), lambda: self.statements(depth))
            if rng.random() < 0.5:
                out += b"\x05"
                self.inside((), lambda: self.statements(depth))
            out += b"\x0b"
        elif choice < 0.7:
            out += b"\x02\x40"
            self.inside((), lambda: self.branches(depth))
            out += b"\x0b"
        elif choice < 0.76:
            self.leave(depth)
        elif choice < 0.84 and self.of.options.bulk:
            self.bulk(depth)
        elif choice < 0.87 and self.of.options.bulk:
            self.expression(I32, depth + 1)
            out += b"\x41\1\x71\x40\0\x1a"  # memory.grow by 0 or 1
        else:
            self.expression(rng.choice(self.of.kinds), depth + 1)
            out += b"\x1a\x01"

    def statements(self, depth: int) -> None:
        for _ in range(self.rng.randrange(1, 4)):
            self.statement(depth + 1)

    def assign(self, depth: int) -> None:
        if self.rng.random() < 0.7:
            place = self.rng.randrange(self.counters)
            self.expression(self.locals[place], depth + 1)
            self.out += self.rng.choice((b"\x21%b", b"\x22%b\x1a")) % encode.u32(place)
        else:
            space = self.rng.randrange(1, len(self.of.globals))
            self.expression(self.of.globals[space], depth + 1)
            self.out += b"\x24" + encode.u32(space)

    def loop(self, depth: int) -> None:
        counter = encode.u32(self.counters + self.loops)
        self.loops += 1
        self.out += b"\x41" + encode.signed(self.rng.randrange(1, 20)) + b"\x21" + counter
        self.out += b"\x03\x40"
        # A branch to a loop repeats it, so only the count at its end may: its label is taken by none.
        self.labels.append((V128, V128, V128))
        self.statements(depth)
        self.labels.pop()
        self.out += b"\x20" + counter + b"\x41\1\x6b\x22" + counter + b"\x0d\0\x0b"
        self.loops -= 1

    def branches(self, depth: int) -> None:
        self.statements(depth)
        open_labels = [i for i, carried in enumerate(reversed(self.labels)) if carried == ()]
        label = encode.u32(self.rng.choice(open_labels))
        self.expression(I32, depth + 1)
        if self.rng.random() < 0.6:
            self.out += b"\x0d" + label
            self.statements(depth)
        else:
            self.out += b"\x0e" + encode.vector([label, b"\0", label]) + b"\0"
            self.dead(depth)

    def leave(self, depth: int) -> None:
        """A way out of the function, taken now and then."""
        self.expression(I32, depth + 1)
        self.out += b"\x41\x07\x71\x45\x04\x40"  # one time in eight
        for kind in self.results:
            if self.index == 0:
                self.out += b"\x42" + encode.signed(2048)  # vcp_run: 2048 bytes at 0
            else:
                self.expression(kind, depth + 2)
        if self.of.options.traps and self.rng.random() < 0.1:
            self.out += b"\x00"
        elif self.rng.random() < 0.5:
            self.out += b"\x0f"
        else:
            self.out += b"\x0c" + encode.u32(len(self.labels))
        self.labels.append(())
        self.dead(depth)
        self.labels.pop()
        self.out += b"\x0b"

    def bulk(self, depth: int) -> None:
        kind = self.rng.randrange(4)
        self.address(depth)
        if kind == 3:
            self.out += b"\x41\0\x41\x05\xfc\x08\1\0"  # memory.init of the passive segment
            return
        if kind == 2:
            self.out += b"\x1a\xd0\x70\x41\1\xfc\x0f\0\x1a"  # table.grow
            return
        self.address(depth)
        self.out += b"\x41" + encode.signed(self.rng.randrange(600))
        self.out += (b"\xfc\x0a\0\0", b"\xfc\x0b\0")[kind]
