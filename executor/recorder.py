"""The host's half of the meter: sets it, takes a waypoint when the guest asks, reads it at the end.

The guest's half is in the rewritten module (rewrite.py).
"""

import ctypes
from collections.abc import Mapping
from typing import Final

from wasmtime import Func, FuncType, Global, Instance, Memory, Store, Table
from wasmtime import _ffi as ffi

from vcp_cluster.executor.instrument import GUEST_TRAP_MARK
from vcp_cluster.executor.protocol import Request, State
from vcp_cluster.executor.rewrite import (
    GAS_EXPORT,
    NEXT_EXPORT,
    PATH_EXPORT,
    STACK_EXPORT,
    TABLE_EXPORT,
    Rewritten,
)
from vcp_cluster.executor.trace import (
    PATH_BYTES,
    compute_globals_digest,
    compute_memory_digest,
    compute_page_digests,
    compute_spacing,
)

# Bytes of a global's bit pattern, by the engine's kind numbers.
_GLOBAL_BYTES: Final[dict[int, int]] = {
    ffi.WASMTIME_I32.value: 4,
    ffi.WASMTIME_I64.value: 8,
    ffi.WASMTIME_F32.value: 4,
    ffi.WASMTIME_F64.value: 8,
    ffi.WASMTIME_V128.value: 16,
}


class Recorder:
    """Meters one instance from its first call to its end."""

    def __init__(
        self, store: Store, instance: Instance, rewritten: Rewritten, request: Request
    ) -> None:
        self._store = store
        self._request = request
        exports = instance.exports(store)
        memory, table = exports["memory"], exports[TABLE_EXPORT]
        assert isinstance(memory, Memory) and isinstance(table, Table)
        self._memory = memory
        self._gas, self._next, self._path, self._stack = (
            _global(exports, name) for name in (GAS_EXPORT, NEXT_EXPORT, PATH_EXPORT, STACK_EXPORT)
        )
        self._globals = [(index, _global(exports, name)) for index, name in rewritten.globals]
        self._states: list[State] = []
        self._set_meter(table)

    @property
    def gas_left(self) -> int:
        """Gas left; below zero when more was used than there was."""
        return int(self._gas.value(self._store))

    @property
    def stack_left(self) -> int:
        """Counted bytes of stack left; below zero when the guest went too deep."""
        return int(self._stack.value(self._store))

    @property
    def is_guest_trap(self) -> bool:
        """Whether an `unreachable` that was just reached stands in the guest's own code."""
        return bool(self._next.value(self._store) == GUEST_TRAP_MARK)

    def finish(self, *, out_of_gas: bool) -> list[State]:
        """All waypoints, with the state as it is now as the last one."""
        gas_max = self._request.gas_max
        self._record(gas_max if out_of_gas else gas_max - self.gas_left)
        return self._states

    def _set_meter(self, table: Table) -> None:
        self._gas.set_value(self._store, self._request.gas_max)
        seed = int.from_bytes(self._request.path_seed, "little", signed=True)
        self._path.set_value(self._store, seed)
        self._stack.set_value(self._store, self._request.stack_bytes_max)
        self._set_next(self._request.gas_max)
        table.set(self._store, 0, Func(self._store, FuncType([], []), self._take_waypoint))

    def _set_next(self, gas_left: int) -> None:
        spacing = compute_spacing(self._memory.data_len(self._store), self._request.gas_max)
        # At zero the guest itself stops when it asks, so every waypoint has gas left.
        self._next.set_value(self._store, max(gas_left - spacing, 0))

    def _take_waypoint(self) -> None:
        gas_left = self.gas_left
        self._record(self._request.gas_max - gas_left)
        self._set_next(gas_left)

    def _record(self, gas: int) -> None:
        size = self._memory.data_len(self._store)
        pages = []
        if size:
            content = memoryview(self._memory.get_buffer_ptr(self._store)).cast("B")
            pages = compute_page_digests(content)
        values = [(index, self._bits(value)) for index, value in self._globals]
        path = int(self._path.value(self._store))
        self._states.append(
            State(
                gas=gas,
                pages=len(pages),
                memory=compute_memory_digest(pages),
                globals=compute_globals_digest(values),
                path=path.to_bytes(PATH_BYTES, "little", signed=True),
            )
        )

    def _bits(self, value: Global) -> bytes:
        """The bit pattern of a global, little-endian.

        Read below the binding's own accessor, which has no v128 and turns signalling NaNs into
        quiet ones on their way through a Python float.
        """
        raw = ffi.wasmtime_val_t()
        context = self._store._context()
        ffi.wasmtime_global_get(context, ctypes.byref(value._global), ctypes.byref(raw))
        return bytes(raw.of)[: _GLOBAL_BYTES[int(raw.kind)]]


def state_before_the_first_call(request: Request) -> State:
    """The only state of a run whose module could not be instantiated: no memory, no globals."""
    return State(
        gas=0,
        pages=0,
        memory=compute_memory_digest([]),
        globals=compute_globals_digest([]),
        path=request.path_seed,
    )


def _global(exports: Mapping[str, object], name: str) -> Global:
    value = exports[name]
    assert isinstance(value, Global)
    return value
