"""The same task gives the same roots; a different run gives different ones."""

import struct

import msgpack
import pytest
from blake3 import blake3

from vcp_cluster.executor import ENGINE, PROFILE_ID, Limits, Status, TrapClass, run
from vcp_cluster.executor.commitment import compute_execution_root, compute_trace_root
from vcp_cluster.executor.engine import set_checked
from vcp_cluster.executor.profile import PROFILE, SETTINGS

LOOP_TEN = """
  (local $i i32)
  (loop $again
    (local.set $i (i32.add (local.get $i) (i32.const 1)))
    (br_if $again (i32.lt_u (local.get $i) (i32.const 10))))
  (i64.const 0)
"""


def test_two_runs_are_equal_and_bound_to_their_workers(guest) -> None:
    module = guest()
    first = run(module, b"input", binding=b"a" * 32)
    second = run(module, b"input", binding=b"b" * 32)
    assert first.output == second.output == b"input"
    assert first.gas == second.gas
    assert first.execution_root == second.execution_root
    assert first.trace_root != second.trace_root
    assert first.trace_root == compute_trace_root(first.execution_root, b"a" * 32)
    assert (first.waypoints, first.profile_id, first.engine) == (1, PROFILE_ID, ENGINE)


def test_the_execution_root_is_what_the_format_says(guest) -> None:
    module = guest(extra='(global (export "g") (mut i32) (i32.const 258))')
    result = run(module, b"hi")
    memory = bytearray(65536)
    memory[1024:1026] = b"hi"
    expected = compute_execution_root(
        module_hash=blake3(module).digest(),
        entry_point="vcp_run",
        input_hash=blake3(b"hi").digest(),
        output=b"hi",
        status=0,
        trap=0,
        gas=result.gas,
        gas_limit=Limits().gas_max,
        profile_id=PROFILE_ID,
        memory_pages=1,
        memory_digest=blake3(bytes(memory)).digest(),
        globals_=[("g", b"\2\1\0\0")],
    )
    assert result.execution_root == expected


def test_golden_roots() -> None:
    """Fixed values, and the same ones from another encoder and the written format."""
    root = compute_execution_root(
        module_hash=b"\1" * 32,
        entry_point="vcp_run",
        input_hash=b"\2" * 32,
        output=b"out",
        status=Status.OK,
        trap=TrapClass.NONE,
        gas=1_000,
        gas_limit=10_000_000_000,
        profile_id=b"\3" * 32,
        memory_pages=2,
        memory_digest=b"\4" * 32,
        globals_=[("g", b"\5\0\0\0")],
    )
    output_hash = blake3(b"out").digest()
    record = [b"\1" * 32, "vcp_run", b"\2" * 32, output_hash, 3, 0, 0, 1_000, 10_000_000_000]
    record += [b"\3" * 32, 2, b"\4" * 32, [["g", b"\5\0\0\0"]]]
    assert root == blake3(b"vcp/execution/v1" + msgpack.packb(record)).digest()
    assert root.hex() == "b7d1a0eaea0189daadacf61e48dbd738f5825fc8969ff98ed8593fda9dc6a63b"
    trace = compute_trace_root(root, b"worker")
    assert trace == blake3(b"vcp/trace/v1" + root + b"worker").digest()
    assert trace.hex() == "7f1861f671660b78739159e2b2f9c7fdf38f3e8724574bc9ff1778d94076b638"


def test_a_guesser_of_the_output_has_another_root(guest) -> None:
    """Same output, gas aside: what the memory went through shows."""
    honest = run(guest("(i32.store (i32.const 8) (i32.const 5)) (i64.const 0)"), b"")
    lazy = run(guest("(i32.store (i32.const 8) (i32.const 0)) (i64.const 0)"), b"")
    assert (honest.output, honest.gas) == (lazy.output, lazy.gas)
    assert honest.execution_root != lazy.execution_root


def test_final_state_of_memory_and_globals(guest, in_process) -> None:
    module = guest(
        "(drop (memory.grow (i32.const 2))) (global.set $d (f64.const -2)) (i64.const 0)",
        extra="""
          (global (export "fixed") i32 (i32.const 1))
          (global (export "i") (mut i64) (i64.const -2))
          (global (export "signalling") (mut f32) (f32.const nan:0x200001))
          (global $d (export "d") (mut f64) (f64.const 0))
          (global (export "v") (mut v128) (v128.const i32x4 1 2 3 4))
        """,
    )
    result = in_process(module)
    assert result.memory_pages == 3
    assert result.memory_digest == blake3(bytes(3 * 65536)).digest()
    assert result.globals == [
        ("i", b"\xfe" + b"\xff" * 7),
        ("signalling", b"\1\0\xa0\x7f"),
        ("d", struct.pack("<d", -2.0)),
        ("v", struct.pack("<4I", 1, 2, 3, 4)),
    ]


@pytest.mark.parametrize(
    ("body", "length", "canonical"),
    [
        ("(f32.store (i32.const 0) (f32.div (f32.const 0) (f32.const 0)))", 4, b"\0\0\xc0\x7f"),
        ("(f32.store (i32.const 0) (f32.ceil (f32.const -nan:0x234567)))", 4, b"\0\0\xc0\x7f"),
        (
            "(f64.store (i32.const 0) (f64.sqrt (f64.const -1)))",
            8,
            b"\0\0\0\0\0\0\xf8\x7f",
        ),
        (
            """(v128.store (i32.const 0) (f32x4.min
               (v128.const f32x4 -nan 1 -nan:0x200001 2) (v128.const f32x4 1 1 1 1)))""",
            16,
            b"\0\0\xc0\x7f\0\0\x80\x3f\0\0\xc0\x7f\0\0\x80\x3f",
        ),
    ],
)
def test_not_a_number_has_one_bit_pattern(body: str, length: int, canonical: bytes, guest) -> None:
    assert run(guest(f"{body} (i64.const {length})"), b"").output == canonical


@pytest.mark.parametrize(
    "body",
    [
        "(i64.const 0)",
        LOOP_TEN,
        # Straight-line code runs past the end of the engine's fuel without a look at it.
        "(drop (i32.add (i32.add (i32.const 1) (i32.const 2)) (i32.const 3))) (i64.const 0)",
    ],
)
def test_the_gas_limit_is_exact(body: str, guest, in_process) -> None:
    module = guest(body)
    needed = in_process(module).gas
    for limit in range(1, needed + 3):
        result = in_process(module, gas_max=limit)
        if limit < needed:
            assert (result.status, result.gas) == (Status.OUT_OF_GAS, limit)
        else:
            assert (result.status, result.gas) == (Status.OK, needed)


def test_out_of_gas_precedes_a_trap_behind_the_limit(guest, in_process) -> None:
    module = guest("(drop (i32.add (i32.const 1) (i32.const 2))) unreachable")
    needed = in_process(module).gas
    assert in_process(module, gas_max=needed).status == Status.TRAP
    short = in_process(module, gas_max=needed - 1)
    assert (short.status, short.trap, short.gas) == (Status.OUT_OF_GAS, 0, needed - 1)


def test_the_same_gas_limit_in_the_sandbox(guest) -> None:
    module = guest(LOOP_TEN)
    needed = run(module, b"").gas
    assert run(module, b"", Limits(gas_max=needed)).status is Status.OK
    short = run(module, b"", Limits(gas_max=needed - 1))
    assert (short.status, short.gas) == (Status.OUT_OF_GAS, needed - 1)


def test_a_misspelt_setting_is_an_error() -> None:
    from wasmtime import Config

    for name in ("consume_feul", "_delete", "cranelift_flag_set"):
        with pytest.raises(AttributeError, match=name):
            set_checked(Config(), name, True)


def test_the_profile_names_version_architecture_and_every_setting() -> None:
    lines = PROFILE.text.splitlines()
    assert lines[:3] == [
        "name wasmtime-fuel/1",
        f"wasmtime {PROFILE.engine_version}",
        f"architecture {PROFILE.architecture}",
    ]
    assert {name for name, _ in SETTINGS} <= {line.split(" ")[0] for line in lines}
    assert blake3(b"vcp/profile/v1" + PROFILE.text.encode()).digest() == PROFILE_ID
    assert f"wasmtime-{PROFILE.engine_version}/{PROFILE.architecture}" == ENGINE
