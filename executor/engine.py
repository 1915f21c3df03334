"""The wasmtime engine, set up as the profile says."""

import re
from dataclasses import dataclass
from typing import Final

from wasmtime import Config, Engine, Module, WasmtimeError
from wasmtime import _bindings as bindings

from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.limits import compute_native_stack_bytes
from vcp_cluster.executor.profile import FEATURES, Backend
from vcp_cluster.executor.rewrite import Rewritten, rewrite
from vcp_cluster.executor.wasm.module import read_bodies, read_module

# Settings that no result depends on: gas, waypoints and stack are in the code of the module itself.
_HOST_SETTINGS: Final[tuple[tuple[str, bool | str], ...]] = (
    ("consume_fuel", False),
    ("cranelift_nan_canonicalization", False),
    ("debug_info", False),
    ("epoch_interruption", False),
    ("memory_init_cow", False),  # copy-on-write images need memfd_create, which the filter forbids
    ("parallel_compilation", False),  # threads would escape the CPU limit and the filter
    ("signals_based_traps", True),
    ("strategy", "cranelift"),
)

_PULLEY_TARGET: Final = "pulley64"
_HOST_STACK_BYTES: Final = 1 << 20
"""What the engine wants to be left for the host's own functions."""

_SETTABLE: Final[frozenset[str]] = frozenset(
    name for name, value in vars(Config).items() if isinstance(value, property)
)


@dataclass(frozen=True)
class CompiledModule:
    """A metered module, ready to be instantiated by `engine`."""

    engine: Engine
    module: Module
    rewritten: Rewritten


def set_checked(config: Config, name: str, value: bool | str | int) -> None:
    """Set one attribute of `config`.

    wasmtime accepts any attribute name in silence, so a misspelt setting would do nothing at all.
    Raises `AttributeError` when `name` is not a property of `wasmtime.Config`.
    """
    if name not in _SETTABLE:
        raise AttributeError(f"wasmtime.Config has no setting {name!r}")
    setattr(config, name, value)


def make_engine(
    stack_bytes_max: int, backend: Backend = "cranelift", opt_level: str = "speed"
) -> Engine:
    """An engine for guests that may use `stack_bytes_max` counted bytes of stack.

    Neither the back end nor the level of optimisation ("none", "speed") changes a result.
    """
    config = Config()
    for name, value in FEATURES + _HOST_SETTINGS:
        set_checked(config, name, value)
    set_checked(config, "cranelift_opt_level", opt_level)
    if backend == "pulley":
        set_checked(config, "target", _PULLEY_TARGET)
    native = compute_native_stack_bytes(stack_bytes_max)
    # The engine aborts the process when its stack for asynchronous calls, which we never make, is
    # smaller than the other; the binding offers no attribute for it.
    bindings.wasmtime_config_async_stack_size_set(config.ptr(), native + _HOST_STACK_BYTES)
    set_checked(config, "max_wasm_stack", native)
    # The rewriter hints which branches are hardly ever taken; there is no attribute for this either.
    bindings.wasmtime_config_wasm_branch_hinting_set(config.ptr(), True)
    return Engine(config)


def compile_module(engine: Engine, module: bytes) -> CompiledModule:
    """Read, validate, rewrite and compile `module`.

    The original is validated, not only the rewritten form: an index that names nothing could name
    what the rewriter adds.

    Raises `ModuleError` when the module is refused, and `WasmtimeError` when the engine does not
    take the rewritten form of a module that it found valid.
    """
    read = read_module(module)
    bodies = read_bodies(read)
    try:
        Module.validate(engine, module)
    except WasmtimeError as error:
        found = f"the engine refuses the module: {_one_line(error)}"
        raise ModuleError("bad_module", found) from None
    rewritten = rewrite(read, bodies)
    return CompiledModule(engine, Module(engine, rewritten.wasm), rewritten)


def _one_line(error: WasmtimeError) -> str:
    """The last line of the engine's message, which holds the cause, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return re.sub(r"^\d+: ", "", lines[-1])[:300]  # the engine numbers its list of causes
