"""The cost table, counted by hand, and where a run ends when gas does."""

import pytest

from vcp_cluster.executor import Status, TrapClass

ALLOC_GAS = 2
"""What `alloc` below costs: entering it and its one constant."""
ALLOC = "(i32.const 4096)"

# Each row: what vcp_run holds, what else the module holds, and the gas of vcp_run alone, which
# begins with 1 for entering it.
COUNTED: dict[str, tuple[str, str, int]] = {
    "one constant": ("(i64.const 0)", "", 1 + 1),
    "what is free": (
        "nop (block (nop)) (drop (i32.const 1)) (return (i64.const 0))",
        "",
        1 + 2,  # the two constants
    ),
    "operands and operators": (
        "(i64.extend_i32_u (i32.add (local.get 0) (i32.mul (local.get 1) (i32.const 3))))",
        "",
        1 + 6,
    ),
    "call": (
        "(call $two) (call $two) (i64.const 0)",
        "(func $two (drop (i32.const 1)))",
        1 + 5 + 2,
    ),
    "indirect call": (
        "(call_indirect (type $void) (i32.const 0)) (i64.const 0)",
        "(type $void (func)) (table funcref (elem $none)) (func $none)",
        1 + 3 + 1,  # index, call, constant; entering the callee
    ),
    "if taken": (
        "(if (result i64) (i32.const 1) (then (i64.const 7)) (else (i64.const 8) (drop (i32.const 0))))",
        "",
        1 + 3,
    ),
    "if not taken": (
        """(if (result i64) (i32.const 0) (then (i64.const 7))
           (else (i64.add (i64.const 8) (i64.const 9))))""",
        "",
        1 + 2 + 3,
    ),
    "if without else, taken and not": (
        """(if (i32.const 1) (then (drop (i32.const 0)) (drop (i32.const 0))))
           (if (i32.const 0) (then (drop (i32.const 0)))) (i64.const 0)""",
        "",
        1 + 2 + 2 + 2 + 1,
    ),
    "branch over code": ("(block (br 0) (drop (i32.const 1))) (i64.const 0)", "", 1 + 1 + 1),
    "conditional branch taken": (
        "(block (br_if 0 (i32.const 1)) (drop (i32.const 1))) (i64.const 0)",
        "",
        1 + 2 + 1,
    ),
    "conditional branch not taken": (
        "(block (br_if 0 (i32.const 0)) (drop (i32.const 1))) (i64.const 0)",
        "",
        1 + 2 + 1 + 1,
    ),
    "branch table": (
        """(block (block (block (br_table 0 1 2 (i32.const 1)))
           (drop (i32.const 1))) (drop (i32.const 1)) (drop (i32.const 1))) (i64.const 0)""",
        "",
        1 + 2 + 2 + 1,
    ),
    "branch out of the function": ("(br 0 (i64.const 0)) unreachable", "", 1 + 2),
    "return in a block": ("(block (return (i64.const 0))) (i64.const 9)", "", 1 + 1),
    "loop of ten": (
        """(local $i i32) (loop (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $i) (i32.const 10)))) (i64.const 0)""",
        "",
        1 + 10 * 8 + 1,
    ),
    "loop with a call": (
        """(local $i i32) (loop (call $none) (local.set $i (i32.add (local.get $i) (i32.const 1)))
           (br_if 0 (i32.lt_u (local.get $i) (i32.const 10)))) (i64.const 0)""",
        "(func $none)",
        1 + 10 * (8 + 1 + 1) + 1,
    ),
    "loop in a loop": (
        """(local $i i32) (local $j i32)
           (loop $outer (local.set $j (i32.const 3))
             (loop $inner
               (br_if $inner (local.tee $j (i32.sub (local.get $j) (i32.const 1)))))
             (br_if $outer (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))
                                     (i32.const 4))))
           (i64.const 0)""",
        "",
        1 + 4 * (2 + 3 * 5 + 7) + 1,
    ),
    "bulk by sixteenths": (
        """(memory.fill (i32.const 0) (i32.const 1) (i32.const 15))
           (memory.fill (i32.const 0) (i32.const 1) (i32.const 16))
           (memory.copy (i32.const 0) (i32.const 100) (i32.const 1000))
           (memory.init $d (i32.const 0) (i32.const 0) (i32.const 33)) (data.drop $d)
           (i64.const 0)""",
        f'(data $d "{"x" * 40}")',
        1 + 4 * 4 + (0 + 1 + 62 + 2) + 1 + 1,
    ),
    "tables by sixteenths": (
        """(drop (table.grow $t (ref.null func) (i32.const 64)))
           (table.fill $t (i32.const 0) (ref.null func) (i32.const 32))
           (table.copy $t $t (i32.const 0) (i32.const 1) (i32.const 47))
           (table.init $t $e (i32.const 0) (i32.const 0) (i32.const 2)) (elem.drop $e)
           (drop (table.size $t)) (i64.const 0)""",
        "(table $t 1 funcref) (elem $e func $run $run)",
        1 + (3 + 4) + (4 + 2) + (4 + 2) + 4 + 1 + 1 + 1,
    ),
    "growth by pages": (
        "(drop (memory.grow (i32.const 3))) (drop (memory.grow (i32.const 0))) (i64.const 0)",
        "",
        1 + (2 + 3) + 2 + 1,
    ),
    "growth that fails": (
        "(drop (memory.grow (i32.const 60000))) (i64.const 0)",
        "",
        1 + 60_002 + 1,
    ),
    "vectors": (
        "(i64x2.extract_lane 0 (i64x2.add (v128.const i64x2 1 2) (v128.const i64x2 3 4)))",
        "",
        1 + 4,
    ),
    "dead code": ("(return (i64.const 0)) (drop (i32.add (i32.const 1) (i32.const 2)))", "", 1 + 1),
}


@pytest.mark.parametrize("case", COUNTED)
@pytest.mark.parametrize("backend", ["cranelift", "pulley"])
def test_counted_by_hand(case: str, backend: str, guest, in_process) -> None:
    run, extra, gas = COUNTED[case]
    module = guest(run, extra=extra, alloc=ALLOC)
    result = in_process(module, backend=backend)
    assert (result.status, result.gas) == (Status.OK, ALLOC_GAS + gas)


@pytest.mark.parametrize("case", COUNTED)
def test_the_limit_is_exact(case: str, guest, in_process) -> None:
    """Whatever the program, needing exactly the limit is enough and one unit less is not."""
    run, extra, gas = COUNTED[case]
    module = guest(run, extra=extra, alloc=ALLOC)
    needed = ALLOC_GAS + gas
    assert in_process(module, gas_max=needed).status == Status.OK
    for limit in {1, needed // 2, needed - 1} - {0}:
        short = in_process(module, gas_max=limit)
        assert (short.status, short.trap, short.gas) == (Status.OUT_OF_GAS, 0, limit)
        assert (short.output, short.states[-1].gas) == (b"", limit)


# Gas of a trap: all up to the last call, loop with a call, explicit end or bulk instruction before it.
TRAPS = {
    "unreachable": (
        "(drop (i32.const 1)) (drop (i32.const 1)) unreachable",
        TrapClass.UNREACHABLE,
        3,
    ),
    "behind a call": (
        "(call $none) (drop (i32.const 1)) (drop (i32.load (i32.const -4))) (i64.const 0)",
        TrapClass.MEMORY_OUT_OF_BOUNDS,
        3,
    ),
    "before anything": (
        "(i64.div_u (i64.const 1) (i64.const 0))",
        TrapClass.INTEGER_DIVISION_BY_ZERO,
        0,
    ),
    "bulk outside": (
        "(memory.fill (i32.const 65530) (i32.const 0) (i32.const 160)) (i64.const 0)",
        TrapClass.MEMORY_OUT_OF_BOUNDS,
        1 + 4 + 10,
    ),
}


@pytest.mark.parametrize("case", TRAPS)
@pytest.mark.parametrize("backend", ["cranelift", "pulley"])
@pytest.mark.parametrize("opt_level", ["speed", "none"])
def test_gas_of_a_trap(case: str, backend: str, opt_level: str, guest, in_process) -> None:
    run, trap, gas = TRAPS[case]
    module = guest(run, extra="(func $none)", alloc=ALLOC)
    result = in_process(module, backend=backend, opt_level=opt_level)
    assert (result.status, result.trap, result.gas) == (Status.TRAP, trap, ALLOC_GAS + gas)


def test_bulk_work_that_nobody_pays_for_is_not_done(guest, in_process) -> None:
    """Ten thousand fills of a large memory end at the limit and not at the clock."""
    fill = "(memory.fill (i32.const 0) (i32.const 7) (i32.const 0x4000000))" * 300
    module = guest(f"{fill} (i64.const 0)", memory="1024")
    result = in_process(module, gas_max=10_000_000)
    assert (result.status, result.gas) == (Status.OUT_OF_GAS, 10_000_000)
    assert result.cpu_ms < 2_000


def test_a_function_of_many_instructions_looks_at_the_gas_when_it_is_entered(
    guest, in_process
) -> None:
    """Straight calls of a long leaf: the run must end near the limit, not after all of them."""
    long = "(func $long (drop (i32.const 1)) " + "(drop (i32.const 1))" * 1_000 + ")"
    module = guest(
        "(call $long)" * 200 + "(i32.store (i32.const 0) (i32.const 1)) (i64.const 0)", extra=long
    )
    result = in_process(module, gas_max=5_000)
    assert (result.status, result.gas) == (Status.OUT_OF_GAS, 5_000)
    untouched = in_process(guest("unreachable"))
    assert result.states[-1].memory == untouched.states[-1].memory
