"""The ways to run a kernel. Each runner takes a size and returns a checksum and CPU seconds.

CPU time of the call alone, in this process: compiling and starting are measured elsewhere.
"""

import ctypes
import time
from collections.abc import Callable
from pathlib import Path

from wasmtime import Config, Engine, Func, Instance, Memory, Module, Store

from vcp_cluster.executor.convention import execute
from vcp_cluster.executor.engine import compile_module, make_engine, set_checked
from vcp_cluster.executor.limits import Limits
from vcp_cluster.executor.profile import FEATURES
from vcp_cluster.executor.protocol import Request
from vcp_cluster.executor.trace import compute_path_seed

Runner = Callable[[int], tuple[int, float]]

_LIMITS = Limits(gas_max=1 << 50)
_FUEL = 1 << 50


def native_runner(library: Path) -> Runner:
    """The kernel as a function of a shared library."""
    function = ctypes.CDLL(str(library)).kernel
    function.argtypes, function.restype = [ctypes.c_uint32], ctypes.c_uint64

    def run(size: int) -> tuple[int, float]:
        start = time.process_time()
        checksum = function(size)
        return checksum, time.process_time() - start

    return run


def plain_runner(wasm: bytes, *, fuel: bool = False, canonical_nans: bool = False) -> Runner:
    """The original module under the engine alone, with its own meter or NaNs if asked for."""
    config = Config()
    for name, value in FEATURES:
        set_checked(config, name, value)
    set_checked(config, "consume_fuel", fuel)
    set_checked(config, "cranelift_nan_canonicalization", canonical_nans)
    engine = Engine(config)
    module = Module(engine, wasm)

    def run(size: int) -> tuple[int, float]:
        store = Store(engine)
        if fuel:
            store.set_fuel(_FUEL)
        exports = Instance(store, module, []).exports(store)
        memory, alloc, entry = exports["memory"], exports["vcp_alloc"], exports["vcp_run"]
        assert isinstance(memory, Memory) and isinstance(alloc, Func) and isinstance(entry, Func)
        place = alloc(store, 4)
        memory.write(store, size.to_bytes(4, "little"), place)
        start = time.process_time()
        answer = entry(store, place, 4)
        seconds = time.process_time() - start
        output = memory.read(store, answer >> 32, (answer >> 32) + 8)
        return int.from_bytes(output, "little"), seconds

    return run


def traced_runner(wasm: bytes) -> Runner:
    """The module in the profile, waypoints and their hashes included."""
    engine = make_engine(_LIMITS.stack_bytes_max)
    compiled = compile_module(engine, wasm)

    def run(size: int) -> tuple[int, float]:
        request = Request(
            parent_pid=0,
            module=wasm,
            input=size.to_bytes(4, "little"),
            entry_point="vcp_run",
            memory_bytes_max=_LIMITS.memory_bytes_max,
            gas_max=_LIMITS.gas_max,
            time_ms_max=_LIMITS.time_ms_max,
            output_bytes_max=_LIMITS.output_bytes_max,
            stack_bytes_max=_LIMITS.stack_bytes_max,
            path_seed=compute_path_seed(b"benchmark"),
            backend="cranelift",
        )
        start = time.process_time()
        finished = execute(compiled, request)
        seconds = time.process_time() - start
        assert finished.status == 0, finished
        return int.from_bytes(finished.output, "little"), seconds

    return run
