"""The calling convention `vcp`, version 1: bytes in, bytes out, no imports.

The guest exports `memory`, `vcp_alloc(i32) -> i32` and an entry point `(i32, i32) -> i64`. We ask
`vcp_alloc` for room for the input, write it there, call the entry point with pointer and length,
and read the output at `pointer << 32 | length` of what it returns. Every pointer and length that
comes back is checked against the memory before it is used.
"""

import ctypes
import time
from typing import Final

from blake3 import blake3
from wasmtime import Engine, Func, Global, Instance, Memory, Module, Store, Trap, TrapCode
from wasmtime import _ffi as ffi

from vcp_cluster.executor.profile import TABLE_ELEMENTS_MAX, TABLES_MAX
from vcp_cluster.executor.protocol import Finished, Request
from vcp_cluster.executor.result import Status, TrapClass

_U32: Final = 0xFFFFFFFF

_TRAPS: Final[dict[TrapCode, tuple[Status, TrapClass]]] = {
    TrapCode.OUT_OF_FUEL: (Status.OUT_OF_GAS, TrapClass.NONE),
    TrapCode.STACK_OVERFLOW: (Status.STACK_LIMIT, TrapClass.NONE),
    TrapCode.UNREACHABLE: (Status.TRAP, TrapClass.UNREACHABLE),
    TrapCode.MEMORY_OUT_OF_BOUNDS: (Status.TRAP, TrapClass.MEMORY_OUT_OF_BOUNDS),
    TrapCode.TABLE_OUT_OF_BOUNDS: (Status.TRAP, TrapClass.TABLE_OUT_OF_BOUNDS),
    TrapCode.INDIRECT_CALL_TO_NULL: (Status.TRAP, TrapClass.INDIRECT_CALL_TO_NULL),
    TrapCode.BAD_SIGNATURE: (Status.TRAP, TrapClass.BAD_SIGNATURE),
    TrapCode.INTEGER_OVERFLOW: (Status.TRAP, TrapClass.INTEGER_OVERFLOW),
    TrapCode.INTEGER_DIVISION_BY_ZERO: (Status.TRAP, TrapClass.INTEGER_DIVISION_BY_ZERO),
    TrapCode.BAD_CONVERSION_TO_INTEGER: (Status.TRAP, TrapClass.BAD_CONVERSION_TO_INTEGER),
}

# Bytes of a global's bit pattern, by the engine's kind numbers.
_GLOBAL_BYTES: Final[dict[int, int]] = {
    ffi.WASMTIME_I32.value: 4,
    ffi.WASMTIME_I64.value: 8,
    ffi.WASMTIME_F32.value: 4,
    ffi.WASMTIME_F64.value: 8,
    ffi.WASMTIME_V128.value: 16,
}


class UnexpectedTrap(Exception):
    """A trap that no guest of this profile can cause; nothing may be committed."""


class _BadOutput(Exception):
    """The guest gave a pointer or a length that its memory or the limits do not hold."""


def execute(engine: Engine, module: Module, request: Request) -> Finished:
    """Run `request` on its compiled `module` to a committable end.

    Raises `UnexpectedTrap`, or `wasmtime.WasmtimeError` when the host cannot instantiate.
    """
    store = Store(engine)
    store.set_limits(
        memory_size=request.memory_bytes_max,
        table_elements=TABLE_ELEMENTS_MAX,
        instances=1,
        tables=TABLES_MAX,
        memories=1,
    )
    # The engine looks at its fuel only at function entries and loop headers, so a run may pass
    # the end unnoticed. With one unit more than the limit, an empty tank means: over the limit.
    store.set_fuel(request.gas_max + 1)
    wall_ns, cpu_ns = time.perf_counter_ns(), time.process_time_ns()
    instance: Instance | None = None
    output = b""
    status, trap = Status.OK, TrapClass.NONE
    try:
        instance = Instance(store, module, [])
        output = _call(store, instance, request)
    except _BadOutput:
        status = Status.BAD_OUTPUT
    except Trap as error:
        status, trap = _classify(error)
    wall_ns, cpu_ns = time.perf_counter_ns() - wall_ns, time.process_time_ns() - cpu_ns
    gas = request.gas_max + 1 - store.get_fuel()
    if gas > request.gas_max:
        status, trap, gas = Status.OUT_OF_GAS, TrapClass.NONE, request.gas_max
    pages, digest, globals_ = _final_state(store, module, instance)
    return Finished(
        status=status,
        trap=trap,
        output=output if status is Status.OK else b"",
        gas=gas,
        memory_pages=pages,
        memory_digest=digest,
        globals=globals_,
        wall_ms=wall_ns // 1_000_000,
        cpu_ms=cpu_ns // 1_000_000,
    )


def _call(store: Store, instance: Instance, request: Request) -> bytes:
    exports = instance.exports(store)
    memory, alloc, run = exports["memory"], exports["vcp_alloc"], exports[request.entry_point]
    assert isinstance(memory, Memory) and isinstance(alloc, Func) and isinstance(run, Func)
    size = len(request.input)
    pointer = alloc(store, size) & _U32
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


def _classify(trap: Trap) -> tuple[Status, TrapClass]:
    code = trap.trap_code
    if code is None or code not in _TRAPS:
        raise UnexpectedTrap(f"trap {code} cannot come from a guest of this profile")
    return _TRAPS[code]


def _final_state(
    store: Store, module: Module, instance: Instance | None
) -> tuple[int, bytes, list[tuple[str, bytes]]]:
    """Pages and BLAKE3 of the linear memory, and the exported mutable globals in export order.

    A trap during instantiation (a segment outside its memory or table) leaves no instance, which
    counts as no memory and no globals.
    """
    if instance is None:
        return 0, blake3(b"").digest(), []
    exports = instance.exports(store)
    memory = exports["memory"]
    assert isinstance(memory, Memory)
    size = memory.data_len(store)
    content = memoryview(memory.get_buffer_ptr(store)).cast("B") if size else b""
    globals_ = [
        (export.name, _bits(store, value))
        for export in module.exports
        if isinstance(value := exports[export.name], Global) and value.type(store).mutable
    ]
    return memory.size(store), blake3(content).digest(), globals_


def _bits(store: Store, value: Global) -> bytes:
    """The bit pattern of a global, little-endian.

    Read below the binding's own accessor, which has no v128 and turns signalling NaNs into quiet
    ones on their way through a Python float.
    """
    raw = ffi.wasmtime_val_t()
    ffi.wasmtime_global_get(store._context(), ctypes.byref(value._global), ctypes.byref(raw))
    return bytes(raw.of)[: _GLOBAL_BYTES[int(raw.kind)]]
