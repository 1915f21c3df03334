"""The rewritten bytes, which are the same for ever under one profile, and what is around them.

`python tests/executor/test_rewrite.py` writes the golden files anew. Do that only together with a
new number of the rewriter (profile.py): commitments of the old bytes and of the new ones differ.
"""

import random
from pathlib import Path

import pytest
from wasmtime import Engine, Module, WasmtimeError, wat2wasm

from vcp_cluster.examples import EXAMPLES
from vcp_cluster.executor import ModuleError, Status, TrapClass
from vcp_cluster.executor.callgraph import UNCOUNTED_BYTES_MAX, compute_frame_bytes, plan_stack
from vcp_cluster.executor.engine import make_engine
from vcp_cluster.executor.rewrite import NAN_BRANCHES_TIMES_LOCALS_MAX, Rewritten, rewrite
from vcp_cluster.executor.wasm.module import read_bodies, read_module

GOLDEN = Path(__file__).parent / "golden"
SOURCES = {
    "all": lambda: bytes(wat2wasm((GOLDEN / "all.wat").read_text())),
    **{example.name: example.module.read_bytes for example in EXAMPLES},
}


def rewritten(module: bytes) -> Rewritten:
    read = read_module(module)
    return rewrite(read, read_bodies(read))


def hex_lines(data: bytes) -> str:
    """Thirty-two bytes a line, so that a change shows where it is."""
    return "".join(data[at : at + 32].hex() + "\n" for at in range(0, len(data), 32))


@pytest.mark.parametrize("name", SOURCES)
def test_golden_bytes(name: str) -> None:
    output = rewritten(SOURCES[name]()).wasm
    Module.validate(Engine(), output)
    assert hex_lines(output) == (GOLDEN / f"{name}.hex").read_text()


def test_rewriting_twice_gives_equal_bytes_and_custom_sections_do_not_matter() -> None:
    module = SOURCES["all"]()
    named = module + b"\0\x0a\4name" + b"\0\3\2hi"
    assert rewritten(module).wasm == rewritten(module).wasm == rewritten(named).wasm


def test_a_golden_module_runs_alike_everywhere(in_process) -> None:
    module = SOURCES["all"]()
    one, *others = [
        in_process(module, b"abc", backend=backend, opt_level=opt_level)
        for backend in ("cranelift", "pulley")
        for opt_level in ("speed", "none")
    ]
    assert (one.status, len(one.output)) == (Status.OK, 128)
    for other in others:
        assert (one.output, one.gas, one.states) == (other.output, other.gas, other.states)


def test_the_globals_that_are_watched() -> None:
    """Mutable numbers, by index; not the constant one."""
    assert rewritten(SOURCES["all"]()).globals == ((0, "__vcp_g0"), (1, "__vcp_g1"))


@pytest.mark.parametrize("name", SOURCES)
def test_whatever_is_valid_stays_valid(name: str) -> None:
    """Damaged modules that the engine still takes: the rewriter must neither raise nor break them."""
    engine = make_engine(1 << 20)
    rng = random.Random(name)
    original = SOURCES[name]()
    valid = 0
    for _ in range(400):
        module = bytearray(original)
        module[rng.randrange(8, len(module))] = rng.randrange(256)
        try:
            read = read_module(bytes(module))
            bodies = read_bodies(read)
            Module.validate(engine, bytes(module))
        except (ModuleError, WasmtimeError):
            continue
        valid += 1
        Module.validate(engine, rewrite(read, bodies).wasm)
    assert valid > 20


# --- NaNs --------------------------------------------------------------------------------------

CANONICAL_32, CANONICAL_64 = b"\0\0\xc0\x7f", b"\0\0\0\0\0\0\xf8\x7f"
NAN_32, NAN_64 = "(f32.const -nan:0x234567)", "(f64.const -nan:0x4123456789abc)"
STORE_32, STORE_64 = "(f32.store (i32.const 0) {})", "(f64.store (i32.const 0) {})"
NANS = {
    "arithmetic": (STORE_32.format("(f32.add (f32.const inf) (f32.const -inf))"), CANONICAL_32),
    "arithmetic of 64 bits": (STORE_64.format("(f64.sqrt (f64.const -1))"), CANONICAL_64),
    "through a local": (
        f"(local.set $x {NAN_32}) {STORE_32.format('(local.get $x)')}",
        CANONICAL_32,
    ),
    "negated": (STORE_32.format(f"(f32.neg {NAN_32})"), CANONICAL_32),
    "demoted": (STORE_32.format(f"(f32.demote_f64 {NAN_64})"), CANONICAL_32),
    "promoted": (STORE_64.format(f"(f64.promote_f32 {NAN_32})"), CANONICAL_64),
    "selected": (STORE_64.format(f"(select {NAN_64} (f64.const 1) (i32.const 1))"), CANONICAL_64),
    "result of a call": (STORE_64.format("(call $nan)"), CANONICAL_64),
    "looked at as an integer": (
        "(i64.store (i32.const 0) (i64.reinterpret_f64 (f64.div (f64.const 0) (f64.const 0))))",
        CANONICAL_64,
    ),
    "its sign": (
        STORE_32.format("(f32.copysign (f32.const 1) (f32.div (f32.const 0) (f32.const 0)))"),
        b"\0\0\x80\x3f",
    ),
    "kept by a global": (
        "(global.set $g (f32.sqrt (f32.const -1))) (f32.store (i32.const 0) (global.get $g))",
        CANONICAL_32,
    ),
    # What no arithmetic made is moved as it is.
    "constant": (STORE_32.format(NAN_32), b"\x67\x45\xa3\xff"),
    "moved in memory": (
        "(i32.store (i32.const 8) (i32.const 0xffa34567))"
        + STORE_32.format("(f32.load (i32.const 8))"),
        b"\x67\x45\xa3\xff",
    ),
    "moved as an integer": (
        "(i32.store (i32.const 0) (i32.const 0xffa34567))",
        b"\x67\x45\xa3\xff",
    ),
}


@pytest.mark.parametrize("case", NANS)
@pytest.mark.parametrize("backend", ["cranelift", "pulley"])
def test_bits_of_a_nan(case: str, backend: str, guest, in_process) -> None:
    body, expected = NANS[case]
    extra = f"(global $g (mut f32) (f32.const 0)) (func $nan (result f64) {NAN_64})"
    module = guest(f"(local $x f32) {body} (i64.const {len(expected)})", extra=extra)
    assert in_process(module, backend=backend).output == expected


def test_bits_of_a_nan_where_branches_would_be_too_many(guest, in_process) -> None:
    """A function of so many stores and locals has the other form, with the same meaning."""
    locals_, stores = 900, 1 + NAN_BRANCHES_TIMES_LOCALS_MAX // 900
    store = "(f64.store (i32.const 0) (f64.neg (local.get $x)))"
    run = (
        f"(local $x f64) (local {'i32 ' * (locals_ - 3)}) (local.set $x (f64.sqrt (f64.const -1)))"
    )
    few, many = (guest(f"{run} {store * count} (i64.const 8)") for count in (3, stores))
    assert b"\x62\x04\x40" in rewritten(few).wasm
    assert b"\x62\x1b" in rewritten(many).wasm
    assert b"\x62\x04\x40" not in rewritten(many).wasm
    for module in (few, many):
        for backend in ("cranelift", "pulley"):
            assert in_process(module, backend=backend).output == CANONICAL_64


# --- the stack ---------------------------------------------------------------------------------

RECURSION = """
  (func $deeper (param i32) (result i32)
    (if (result i32) (local.get 0)
      (then (i32.add (i32.const 1) (call {callee} (i32.sub (local.get 0) (i32.const 1)))))
      (else (i32.const 0))))
"""
DIRECT = RECURSION.format(callee="$deeper")
MUTUAL = RECURSION.format(callee="$other") + DIRECT.replace("$deeper (param", "$other (param")


def plan(module: bytes) -> tuple[set[int], tuple[int, ...]]:
    read = read_module(module)
    found = plan_stack(read, read_bodies(read))
    return set(found.counted), found.frames


def test_only_functions_that_may_call_themselves_keep_count(guest) -> None:
    chain = "(func $a (call $b)) (func $b (call $c)) (func $c)"
    assert plan(guest(extra=chain))[0] == set()
    assert plan(guest(extra=chain + DIRECT))[0] == {5}
    assert plan(guest(extra=MUTUAL))[0] == {2, 3}


def test_an_indirect_call_may_reach_whatever_has_its_type_and_a_reference(guest) -> None:
    by_table = """
      (type $void (func)) (table 1 funcref) (elem (i32.const 0) $here)
      (func $here (call_indirect (type $void) (i32.const 0))) (func $there (call $here))
    """
    assert plan(guest(extra=by_table))[0] == {2}
    by_reference = """
      (type $void (func)) (table $t 1 funcref) (elem declare func $there)
      (func $here (table.set $t (i32.const 0) (ref.func $there))
        (call_indirect $t (type $void) (i32.const 0)))
      (func $there (call $here))
    """
    assert plan(guest(extra=by_reference))[0] == {2, 3}


def test_a_chain_that_is_too_long_keeps_count_everywhere_but_in_leaves(guest) -> None:
    length = 400
    frame = UNCOUNTED_BYTES_MAX // length
    wide = "(local " + "i32 " * (frame // 16) + ")"
    chain = "".join(f"(func $f{i} {wide} (call $f{i + 1}))" for i in range(length))
    counted, frames = plan(guest(extra=chain + f"(func $f{length})"))
    assert counted == set(range(2, 2 + length))
    assert frames[2] == 64 + 16 * (frame // 16)


def test_a_chain_of_all_functions_that_a_module_may_have(guest) -> None:
    length = 19_000
    chain = "".join(f"(func $f{i} (call $f{i + 1}))" for i in range(length))
    assert len(plan(guest(extra=chain + f"(func $f{length})"))[0]) == length


@pytest.mark.parametrize("recursion", [DIRECT, MUTUAL], ids=["direct", "mutual"])
def test_the_depth_is_counted_and_exact(recursion: str, guest, in_process) -> None:
    """The deepest call that fits is the same on every back end, to the frame."""
    limit = 1 << 16
    read = read_module(guest(extra=recursion))
    frame = compute_frame_bytes(read_bodies(read)[2])
    deepest = limit // frame - 1  # the call with 0 has a frame as well
    for depth, status in ((deepest, Status.OK), (deepest + 1, Status.STACK_LIMIT)):
        module = guest(f"(drop (call $deeper (i32.const {depth}))) (i64.const 0)", extra=recursion)
        results = [
            in_process(module, stack_bytes_max=limit, backend=backend, opt_level=opt_level)
            for backend in ("cranelift", "pulley")
            for opt_level in ("speed", "none")
        ]
        assert {(item.status, item.trap) for item in results} == {(status, TrapClass.NONE)}
        assert len({(item.gas, item.states[-1]) for item in results}) == 1


def test_returns_from_everywhere_give_the_frame_back(guest, in_process) -> None:
    """More calls, one after the other, than would fit inside one another."""
    extra = """
      (func $visit (param i32) (result i32)
        (block (br_if 0 (i32.eqz (local.get 0)))
          (if (i32.eq (local.get 0) (i32.const 1)) (then (return (call $visit (i32.const 0)))))
          (br 1 (call $visit (i32.const 1))))
        (i32.const 5))
    """
    body = """(local $i i32)
      (loop (drop (call $visit (i32.rem_u (local.get $i) (i32.const 3))))
        (br_if 0 (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))
                           (i32.const 5000))))
      (i64.const 0)"""
    assert in_process(guest(body, extra=extra), stack_bytes_max=1 << 16).status == Status.OK


def test_the_engines_own_stack_is_not_reached_by_large_frames(guest, in_process) -> None:
    """A thousand live values in each frame, which any compiler must keep somewhere."""
    count = 900
    names = "".join(f"(local.set {i} (i64.load (i32.const {8 * i})))" for i in range(1, count))
    use = "".join(f"(i64.store (i32.const {8 * i}) (local.get {i}))" for i in range(1, count))
    extra = f"""(func $deep (param i32) (local {"i64 " * count}) {names}
      (call $deep (i32.const 0)) {use})"""
    module = guest("(call $deep (i32.const 0)) (i64.const 0)", extra=extra)
    for backend in ("cranelift", "pulley"):
        result = in_process(module, stack_bytes_max=2 << 20, backend=backend)
        assert result.status == Status.STACK_LIMIT


if __name__ == "__main__":
    for source, read_source in SOURCES.items():
        (GOLDEN / f"{source}.hex").write_text(hex_lines(rewritten(read_source()).wasm))
