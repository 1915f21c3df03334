"""Hostile tasks through the whole sandbox: one row for each way to end (or to be refused)."""

import pytest
from wasmtime import wat2wasm

from vcp_cluster.executor import (
    INPUT_BYTES_MAX,
    ExecutionFailure,
    Failure,
    Limits,
    ModuleError,
    Status,
    TrapClass,
    run,
)

TRAPS = {
    "unreachable": ("unreachable", TrapClass.UNREACHABLE),
    "load outside memory": (
        "(drop (i32.load (i32.const -8))) (i64.const 0)",
        TrapClass.MEMORY_OUT_OF_BOUNDS,
    ),
    "fill outside memory": (
        "(memory.fill (i32.const 65530) (i32.const 1) (i32.const 7)) (i64.const 0)",
        TrapClass.MEMORY_OUT_OF_BOUNDS,
    ),
    "table outside": (
        "(call_indirect (type $void) (i32.const 2)) (i64.const 0)",
        TrapClass.TABLE_OUT_OF_BOUNDS,
    ),
    "null in table": (
        "(call_indirect (type $void) (i32.const 0)) (i64.const 0)",
        TrapClass.INDIRECT_CALL_TO_NULL,
    ),
    "other type in table": (
        "(call_indirect (type $void) (i32.const 1)) (i64.const 0)",
        TrapClass.BAD_SIGNATURE,
    ),
    "quotient too large": (
        "(i64.div_s (i64.const 0x8000000000000000) (i64.const -1))",
        TrapClass.INTEGER_OVERFLOW,
    ),
    "float too large": ("(i64.trunc_f64_s (f64.const 1e300))", TrapClass.INTEGER_OVERFLOW),
    "division by zero": (
        "(i64.div_u (i64.const 1) (i64.const 0))",
        TrapClass.INTEGER_DIVISION_BY_ZERO,
    ),
    "float not a number": (
        "(i64.trunc_f64_s (f64.const nan))",
        TrapClass.BAD_CONVERSION_TO_INTEGER,
    ),
}
TABLE = "(type $void (func)) (table 2 funcref) (elem (i32.const 1) $run)"


@pytest.mark.parametrize("case", TRAPS)
def test_trap_is_a_result(case: str, guest) -> None:
    body, trap = TRAPS[case]
    result = run(guest(body, extra=TABLE), b"input")
    assert (result.status, result.trap, result.output) == (Status.TRAP, trap, b"")
    assert 0 < result.gas < 100


def test_the_table_hits_every_trap_class() -> None:
    assert {trap for _, trap in TRAPS.values()} == set(TrapClass) - {TrapClass.NONE}


@pytest.mark.parametrize(
    ("extra", "trap"),
    [
        ('(data (i32.const 65530) "outside")', TrapClass.MEMORY_OUT_OF_BOUNDS),
        ("(table 1 funcref) (elem (i32.const 1) $run)", TrapClass.TABLE_OUT_OF_BOUNDS),
    ],
)
def test_segment_outside_traps_before_the_first_call(extra: str, trap: TrapClass, guest) -> None:
    first, second = (run(guest(extra=extra), b"input") for _ in range(2))
    assert (first.status, first.trap) == (Status.TRAP, trap)
    assert first.execution_root == second.execution_root


BAD_OUTPUTS = {
    "pointer outside": "(i64.const 0x0001_0000_0000_0001)",
    "length outside": "(i64.const 0x0000_fff0_0000_0011)",
    "pointer and length that wrap": "(i64.const 0xffff_ffff_0000_0002)",
    "longer than the limit": "(i64.const 0x0000_0000_0000_0401)",
}


@pytest.mark.parametrize("case", BAD_OUTPUTS)
def test_bad_output(case: str, guest) -> None:
    result = run(guest(BAD_OUTPUTS[case]), b"", Limits(output_bytes_max=1024))
    assert (result.status, result.trap, result.output) == (Status.BAD_OUTPUT, TrapClass.NONE, b"")


def test_output_at_the_end_of_memory_and_of_the_limit(guest) -> None:
    module = guest("(i64.const 0x0000_fc00_0000_0400)")
    result = run(module, b"", Limits(output_bytes_max=1024))
    assert (result.status, result.output) == (Status.OK, bytes(1024))


@pytest.mark.parametrize("alloc", ["(i32.const 0)", "(i32.const 65533)", "(i32.const -4)"])
def test_bad_allocation(alloc: str, guest) -> None:
    assert run(guest(alloc=alloc), b"four").status is Status.BAD_OUTPUT


def test_allocation_at_the_end_of_memory(guest) -> None:
    result = run(guest(alloc="(i32.const 65532)"), b"four")
    assert (result.status, result.output) == (Status.OK, b"four")


LOOP = "(loop $again (br $again)) (i64.const 0)"


def test_infinite_loop_runs_out_of_gas(guest) -> None:
    result = run(guest(LOOP), b"", Limits(gas_max=1_000_000))
    assert (result.status, result.trap, result.gas) == (
        Status.OUT_OF_GAS,
        TrapClass.NONE,
        1_000_000,
    )


def test_infinite_allocation_runs_out_of_gas(guest) -> None:
    module = guest(alloc="(loop $again (br $again)) (i32.const 0)")
    assert run(module, b"", Limits(gas_max=1_000_000)).status is Status.OUT_OF_GAS


def test_time_out_is_a_failure_and_no_result(guest) -> None:
    with pytest.raises(ExecutionFailure) as caught:
        run(guest(LOOP), b"", Limits(gas_max=1 << 62, time_ms_max=200))
    assert caught.value.failure is Failure.TIMEOUT
    assert caught.value.detail == "running took longer than 200 ms"


RECURSION = (
    "(drop (call $deeper (i32.const 1))) (i64.const 0)",
    "(func $deeper (param i32) (result i32) (i32.add (local.get 0) (call $deeper (local.get 0))))",
)


def test_recursion_reaches_the_stack_limit_at_the_same_depth(guest) -> None:
    body, extra = RECURSION
    module = guest(body, extra=extra)
    first, second = run(module, b""), run(module, b"")
    assert (first.status, first.trap, first.output) == (Status.STACK_LIMIT, TrapClass.NONE, b"")
    assert (first.gas, first.execution_root) == (second.gas, second.execution_root)
    largest = run(module, b"", Limits(stack_bytes_max=2 << 20))
    assert largest.status is Status.STACK_LIMIT
    assert largest.gas > first.gas


GROW_UNTIL_REFUSED = """
  (loop $again
    (br_if $again (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
  (i32.store (i32.const 0) (memory.size))
  (i64.const 4)
"""


def test_memory_bomb_ends_at_the_limit_and_the_run_is_ok(guest) -> None:
    result = run(guest(GROW_UNTIL_REFUSED), b"", Limits(memory_bytes_max=8 << 20))
    assert result.status is Status.OK
    assert int.from_bytes(result.output, "little") == 113  # 1 + 7 x 16 of 128 pages


def test_the_whole_default_memory_can_be_touched(guest) -> None:
    body = """
      (drop (memory.grow (i32.const 8191)))
      (memory.fill (i32.const 0) (i32.const 7) (i32.const 0x20000000))
      (i64.const 0x1fff_fffe_0000_0002)
    """
    result = run(guest(body), b"")
    assert (result.status, result.output) == (Status.OK, b"\7\7")


def test_table_growth_ends_at_the_limit(guest) -> None:
    body = """
      (i32.store8 (i32.const 0) (table.grow (ref.null func) (i32.const 100_000)))
      (i32.store8 (i32.const 1) (table.grow (ref.null func) (i32.const 100_001)))
      (i64.const 2)
    """
    assert run(guest(body, extra="(table 0 funcref)"), b"").output == b"\0\xff"


FEATURES_OFF = {
    "atomics": "(drop (i32.atomic.load (i32.const 0))) (i64.const 0)",
    "tail call": "(return_call $run (local.get 0) (local.get 1))",
    "relaxed SIMD": """(drop (i8x16.relaxed_swizzle (v128.const i64x2 1 2) (v128.const i64x2 1 2)))
      (i64.const 0)""",
    "wide arithmetic": """(drop (i64.add128
      (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))""",
    "typed reference": "(drop (ref.as_non_null (ref.null func))) (i64.const 0)",
}


@pytest.mark.parametrize("case", FEATURES_OFF)
def test_feature_that_is_off(case: str, guest) -> None:
    with pytest.raises(ModuleError) as caught:
        run(guest(FEATURES_OFF[case]), b"")
    assert caught.value.code == "feature_denied"


def test_body_of_the_wrong_type_is_a_bad_module(guest) -> None:
    module = guest("(i64.const 77)")
    broken = module.replace(b"\x42\xcd\0\x0b", b"\x41\xcd\0\x0b")  # i64.const becomes i32.const
    assert broken != module
    with pytest.raises(ModuleError) as caught:
        run(broken, b"")
    assert caught.value.code == "bad_module"


def test_text_and_start_function_are_refused_before_a_process_starts(guest) -> None:
    with pytest.raises(ModuleError, match=r"bad_module.*WebAssembly text"):
        run(b"(module)", b"")
    with pytest.raises(ModuleError, match="start_denied"):
        run(wat2wasm("(module (func $f) (start $f))"), b"")


def test_oversize_input(guest) -> None:
    with pytest.raises(ModuleError) as caught:
        run(guest(), bytes(INPUT_BYTES_MAX + 1))
    assert caught.value.code == "input_limit"


def test_largest_input_and_output(guest) -> None:
    data = bytes(range(256)) * (INPUT_BYTES_MAX // 256)
    result = run(guest(memory="258"), data)
    assert (result.status, result.output == data) == (Status.OK, True)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory_bytes_max", 65535),
        ("memory_bytes_max", (4 << 30) + 1),
        ("gas_max", 0),
        ("gas_max", 1 << 63),
        ("time_ms_max", 0),
        ("output_bytes_max", (16 << 20) + 1),
        ("stack_bytes_max", (2 << 20) + 1),
        ("stack_bytes_max", True),
        ("gas_max", 1.0),
    ],
)
def test_limits_have_limits(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=name):
        Limits(**{name: value})
