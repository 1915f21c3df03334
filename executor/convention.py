"""The calling convention `vcp`, version 1: bytes in, bytes out, no imports.

The guest exports `memory`, `vcp_alloc(i32) -> i32` and an entry point `(i32, i32) -> i64`. We ask
`vcp_alloc` for room for the input, write it there, call the entry point with pointer and length,
and read the output at `pointer << 32 | length` of what it returns. Every pointer and length that
comes back is checked against the memory before it is used.
"""

import ctypes
import time
from typing import Final

from wasmtime import Func, Instance, Memory, Store, Trap, TrapCode

from vcp_cluster.executor.engine import CompiledModule
from vcp_cluster.executor.protocol import Finished, Request
from vcp_cluster.executor.recorder import Recorder, state_before_the_first_call
from vcp_cluster.executor.result import Status, TrapClass
from vcp_cluster.executor.wasm.limits import TABLE_ELEMENTS_MAX, TABLES_MAX

_U32: Final = 0xFFFFFFFF

_TRAPS: Final[dict[TrapCode, TrapClass]] = {
    TrapCode.UNREACHABLE: TrapClass.UNREACHABLE,
    TrapCode.MEMORY_OUT_OF_BOUNDS: TrapClass.MEMORY_OUT_OF_BOUNDS,
    TrapCode.TABLE_OUT_OF_BOUNDS: TrapClass.TABLE_OUT_OF_BOUNDS,
    TrapCode.INDIRECT_CALL_TO_NULL: TrapClass.INDIRECT_CALL_TO_NULL,
    TrapCode.BAD_SIGNATURE: TrapClass.BAD_SIGNATURE,
    TrapCode.INTEGER_OVERFLOW: TrapClass.INTEGER_OVERFLOW,
    TrapCode.INTEGER_DIVISION_BY_ZERO: TrapClass.INTEGER_DIVISION_BY_ZERO,
    TrapCode.BAD_CONVERSION_TO_INTEGER: TrapClass.BAD_CONVERSION_TO_INTEGER,
}


class UnexpectedTrap(Exception):
    """A trap that no guest of this profile can cause; nothing may be committed."""


class _BadOutput(Exception):
    """The guest gave a pointer or a length that its memory or the limits do not hold."""


class _OutOfGas(Exception):
    """Gas ended on a straight run of instructions, between two looks of the guest at it."""


def execute(compiled: CompiledModule, request: Request) -> Finished:
    """Run `request` on its compiled module to a committable end.

    Raises `UnexpectedTrap`, or `wasmtime.WasmtimeError` when the host cannot instantiate.
    """
    store = Store(compiled.engine)
    store.set_limits(
        memory_size=request.memory_bytes_max,
        table_elements=TABLE_ELEMENTS_MAX,
        instances=1,
        tables=TABLES_MAX + 1,  # the rewriter adds one
        memories=1,
    )
    wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    recorder: Recorder | None = None
    output = b""
    status, trap = Status.OK, TrapClass.NONE
    try:
        instance = Instance(store, compiled.module, [])
        recorder = Recorder(store, instance, compiled.rewritten, request)
        output = _call(store, instance, recorder, request)
    except _BadOutput:
        status = Status.BAD_OUTPUT
    except _OutOfGas:
        status = Status.OUT_OF_GAS
    except Trap as error:
        status, trap = _classify(error, recorder)
    if recorder is None:
        states = [state_before_the_first_call(request)]
    else:
        # Whatever else happened after the gas was used up did not happen.
        if recorder.gas_left < 0:
            status, trap = Status.OUT_OF_GAS, TrapClass.NONE
        states = recorder.finish(out_of_gas=status is Status.OUT_OF_GAS)
    wall_ns, cpu_ns = time.perf_counter_ns() - wall_ns, time.process_time_ns() - cpu_ns
    return Finished(
        status=status,
        trap=trap,
        output=output if status is Status.OK else b"",
        gas=states[-1].gas,
        states=states,
        wall_ms=wall_ns // 1_000_000,
        cpu_ms=cpu_ns // 1_000_000,
    )


def _call(store: Store, instance: Instance, recorder: Recorder, request: Request) -> bytes:
    exports = instance.exports(store)
    memory, alloc, run = exports["memory"], exports["vcp_alloc"], exports[request.entry_point]
    assert isinstance(memory, Memory) and isinstance(alloc, Func) and isinstance(run, Func)
    size = len(request.input)
    pointer = alloc(store, size) & _U32
    if recorder.gas_left < 0:
        raise _OutOfGas
    if pointer == 0 or pointer + size > memory.data_len(store):
        raise _BadOutput
    if size:
        ctypes.memmove(memory.get_buffer_ptr(store, size, pointer), request.input, size)
    # The binding takes i32 arguments modulo 2^32, so an address above 2^31 passes unharmed.
    answer = run(store, pointer, size)
    start, length = answer >> 32 & _U32, answer & _U32
    if length > request.output_bytes_max or start + length > memory.data_len(store):
        raise _BadOutput
    return bytes(memory.get_buffer_ptr(store, length, start)) if length else b""


def _classify(trap: Trap, recorder: Recorder | None) -> tuple[Status, TrapClass]:
    code = trap.trap_code
    if code is TrapCode.UNREACHABLE and recorder is not None and not recorder.is_guest_trap:
        # The meter's own: it has no other way to stop the guest.
        limit = Status.STACK_LIMIT if recorder.stack_left < 0 else Status.OUT_OF_GAS
        return limit, TrapClass.NONE
    if code is TrapCode.STACK_OVERFLOW:
        # The depth at which the engine's own stack ends differs from engine to engine.
        raise UnexpectedTrap("the engine's stack ended before the counted one")
    if code is None or code not in _TRAPS:
        raise UnexpectedTrap(f"trap {code} cannot come from a guest of this profile")
    return Status.TRAP, _TRAPS[code]
