"""The same task gives the same roots; a different run gives different ones."""

import struct

import msgpack
import pytest
from blake3 import blake3

from vcp_cluster.executor import ENGINE, PROFILE_ID, Limits, Status, TrapClass, run
from vcp_cluster.executor.commitment import (
    ExecutionRecord,
    compute_execution_root,
    compute_trace_root,
)
from vcp_cluster.executor.engine import set_checked
from vcp_cluster.executor.profile import FEATURES, PROFILE
from vcp_cluster.executor.trace import Trace, Waypoint, compute_path_seed
from vcp_cluster.executor.wasm.limits import STATIC_LIMITS

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
    assert first.trace.waypoints == second.trace.waypoints
    assert first.trace.path != second.trace.path
    path_root = first.trace.path_root
    assert first.trace_root == compute_trace_root(first.execution_root, path_root, b"a" * 32)
    assert (first.waypoints, first.profile_id, first.engine) == (1, PROFILE_ID, ENGINE)


def test_the_execution_root_is_what_the_format_says(guest) -> None:
    """Every hash from the written format with another encoder."""
    module = guest(extra='(global (export "g") (mut i32) (i32.const 258))')
    result = run(module, b"hi", binding=b"me")
    memory = bytearray(65536)
    memory[1024:1026] = b"hi"
    memory_digest = blake3(blake3(bytes(memory)).digest()).digest()
    values = [[0, b"\2\4\0\0"], [1, b"\2\1\0\0"]]
    globals_digest = blake3(msgpack.packb(values)).digest()
    assert result.trace.waypoints == (Waypoint(result.gas, 1, memory_digest, globals_digest),)
    waypoint = [0, result.gas, 1, memory_digest, globals_digest]
    leaf = blake3(b"\0vcp/waypoint/v1" + msgpack.packb(waypoint)).digest()
    record = [blake3(module).digest(), "vcp_run", blake3(b"hi").digest(), blake3(b"hi").digest(), 2]
    record += [0, 0, result.gas, 10_000_000_000, PROFILE_ID, 1, leaf]
    root = blake3(b"vcp/execution/v1" + msgpack.packb(record)).digest()
    assert result.execution_root == root
    # Nothing here is long enough to be looked at on its way, so the path is still its seed.
    path = blake3(b"vcp/path/v1me").digest()[:8]
    assert result.trace.path == (path,)
    path_leaf = blake3(b"\0vcp/path/v1" + msgpack.packb([0, path, leaf])).digest()
    assert result.trace_root == blake3(b"vcp/trace/v1" + root + path_leaf + b"me").digest()


def test_golden_roots() -> None:
    """Fixed values for two waypoints, which nothing may change without a new profile."""
    trace = Trace(
        (Waypoint(5, 1, b"\4" * 32, b"\5" * 32), Waypoint(1_000, 2, b"\6" * 32, b"\7" * 32)),
        (b"\1" * 8, compute_path_seed(b"worker")),
    )
    record = ExecutionRecord(
        module_hash=b"\1" * 32,
        entry_point="vcp_run",
        input_hash=b"\2" * 32,
        output_hash=b"\3" * 32,
        output_length=3,
        status=Status.OK,
        trap=TrapClass.NONE,
        gas=1_000,
        gas_limit=10_000_000_000,
        profile_id=b"\3" * 32,
        waypoints=2,
        waypoint_root=trace.waypoint_root,
    )
    root = compute_execution_root(record)
    assert root.hex() == "b27ad4b9c9d6b074212c008b9f3e3ed312d6ff2b2b2e6ec0a978ad596da4c19d"
    assert (
        compute_trace_root(root, trace.path_root, b"worker").hex()
        == "bd477ccdb01b9ecee9847c17add2c7429bc5c9c89861c9558d8c81d2f8d3e8c2"
    )


def test_a_guesser_of_the_output_has_another_root(guest) -> None:
    """Same output, gas aside: what the memory went through shows."""
    honest = run(guest("(i32.store (i32.const 8) (i32.const 5)) (i64.const 0)"), b"")
    lazy = run(guest("(i32.store (i32.const 8) (i32.const 0)) (i64.const 0)"), b"")
    assert (honest.output, honest.gas) == (lazy.output, lazy.gas)
    assert honest.execution_root != lazy.execution_root


def test_the_final_state_covers_memory_and_every_mutable_number(guest, in_process) -> None:
    module = guest(
        "(drop (memory.grow (i32.const 2))) (global.set $d (f64.const -2)) (i64.const 0)",
        extra="""
          (global (export "fixed") i32 (i32.const 1))
          (global (export "i") (mut i64) (i64.const -2))
          (global $signalling (mut f32) (f32.const nan:0x200001))
          (global $d (mut f64) (f64.const 0))
          (global (mut v128) (v128.const i32x4 1 2 3 4))
          (global (mut funcref) (ref.null func))
        """,
    )
    (state,) = in_process(module).states
    assert state.pages == 3
    assert state.memory == blake3(blake3(bytes(65536)).digest() * 3).digest()
    values = [
        [0, struct.pack("<I", 1024)],
        [2, b"\xfe" + b"\xff" * 7],
        [3, b"\1\0\xa0\x7f"],
        [4, struct.pack("<d", -2.0)],
        [5, struct.pack("<4I", 1, 2, 3, 4)],
    ]
    assert state.globals == blake3(msgpack.packb(values)).digest()


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


def test_the_profile_names_the_meter_and_no_engine() -> None:
    lines = dict(line.split(" ", 1) for line in PROFILE.text.splitlines())
    assert lines["name"] == "vcp-gas/1"
    assert {"cost_table", "rewriter", "nan", "waypoint_gas_min"} <= lines.keys()
    assert {name for name, _ in (*FEATURES, *STATIC_LIMITS)} <= lines.keys()
    version, architecture = ENGINE.removeprefix("wasmtime-").split("/")
    assert version not in PROFILE.text
    assert architecture not in PROFILE.text
    assert blake3(b"vcp/profile/v1" + PROFILE.text.encode()).digest() == PROFILE_ID


def test_the_profile_id_is_fixed() -> None:
    """Whoever changes it makes every commitment of the profile incomparable: raise its name."""
    assert PROFILE_ID.hex() == "fc483b9b42413bc3fee1c41b8ebf8939c84ed045373a312305ce3df3c76ab5a6"
