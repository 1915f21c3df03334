"""Guests for the tests, written in WebAssembly text around one calling convention."""

from collections.abc import Callable

import pytest
from wasmtime import wat2wasm

from vcp_cluster.executor import Limits
from vcp_cluster.executor.convention import execute
from vcp_cluster.executor.engine import compile_module, make_engine
from vcp_cluster.executor.profile import Backend
from vcp_cluster.executor.protocol import Finished, Request
from vcp_cluster.executor.trace import compute_path_seed

GuestMaker = Callable[..., bytes]
InProcess = Callable[..., Finished]

_TEMPLATE = """
(module
  (memory (export "memory") {memory})
  (global $top (mut i32) (i32.const 1024))
  (func (export "vcp_alloc") (param $size i32) (result i32) {alloc})
  (func $run (export "vcp_run") (param $at i32) (param $size i32) (result i64) {run})
  {extra})
"""
_BUMP = """
  global.get $top
  (global.set $top (i32.add (global.get $top) (local.get $size)))
"""
_ECHO = "(i64.or (i64.shl (i64.extend_i32_u (local.get $at)) (i64.const 32))"
_ECHO += " (i64.extend_i32_u (local.get $size)))"


def _make(run: str = _ECHO, *, memory: str = "1", alloc: str = _BUMP, extra: str = "") -> bytes:
    text = _TEMPLATE.format(run=run, memory=memory, alloc=alloc, extra=extra)
    return bytes(wat2wasm(text))


def _execute(
    module: bytes,
    data: bytes = b"",
    *,
    backend: Backend = "cranelift",
    opt_level: str = "speed",
    binding: bytes = b"",
    **limits: int,
) -> Finished:
    bounds = Limits(**limits)
    request = Request(
        parent_pid=0,
        module=module,
        input=data,
        entry_point="vcp_run",
        memory_bytes_max=bounds.memory_bytes_max,
        gas_max=bounds.gas_max,
        time_ms_max=bounds.time_ms_max,
        output_bytes_max=bounds.output_bytes_max,
        stack_bytes_max=bounds.stack_bytes_max,
        path_seed=compute_path_seed(binding),
        backend=backend,
    )
    engine = make_engine(bounds.stack_bytes_max, backend, opt_level)
    return execute(compile_module(engine, module), request)


@pytest.fixture
def guest() -> GuestMaker:
    """Makes a module; without arguments it echoes its input."""
    return _make


@pytest.fixture
def in_process() -> InProcess:
    """Runs a module of the test's own in this process, for sweeps over many limits."""
    return _execute
