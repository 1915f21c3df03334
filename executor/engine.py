"""The wasmtime engine, set up exactly as the profile says."""

import re
import sys
from typing import Final

from wasmtime import Config, Engine, Module, WasmtimeError

from vcp_cluster.executor.errors import ModuleCode, ModuleError
from vcp_cluster.executor.profile import PROFILE, SETTINGS

# Settings that no result depends on.
_HOST_SETTINGS: Final[tuple[tuple[str, bool | str], ...]] = (
    ("debug_info", False),
    ("memory_init_cow", False),  # copy-on-write images need memfd_create, which the filter forbids
    ("parallel_compilation", False),  # threads would escape the CPU limit and the filter
    ("signals_based_traps", True),
)

_TARGETS: Final[dict[str, str]] = {
    "linux": "{architecture}-unknown-linux-gnu",
    "darwin": "{architecture}-apple-darwin",
}

_DENIED: Final[tuple[str, ...]] = tuple(
    name
    for name, value in SETTINGS
    if value is False and (name.startswith("wasm_") or name == "gc_support")
)

_SETTABLE: Final[frozenset[str]] = frozenset(
    name for name, value in vars(Config).items() if isinstance(value, property)
)


def set_checked(config: Config, name: str, value: bool | str | int) -> None:
    """Set one attribute of `config`.

    wasmtime accepts any attribute name in silence, so a misspelt setting would do nothing at all.
    Raises `AttributeError` when `name` is not a property of `wasmtime.Config`.
    """
    if name not in _SETTABLE:
        raise AttributeError(f"wasmtime.Config has no setting {name!r}")
    setattr(config, name, value)


def make_engine(stack_bytes_max: int) -> Engine:
    """An engine of the profile whose guests may use `stack_bytes_max` bytes of native stack.

    Code is generated for the architecture's baseline, not for the CPU at hand: frame sizes, and
    with them the depth at which the stack ends, must not depend on which host ran the task.
    """
    config = Config()
    for name, value in SETTINGS + _HOST_SETTINGS:
        set_checked(config, name, value)
    set_checked(config, "max_wasm_stack", stack_bytes_max)
    if sys.platform in _TARGETS:
        target = _TARGETS[sys.platform].format(architecture=PROFILE.architecture)
        set_checked(config, "target", target)
    return Engine(config)


def make_lenient_engine() -> Engine:
    """An engine with every feature on, which validates and never runs.

    It tells a module that needs a denied feature from one that is broken, without reading the
    engine's messages, which change from version to version.
    """
    config = Config()
    for name in _DENIED:
        set_checked(config, name, True)
    for name, value in _HOST_SETTINGS:
        set_checked(config, name, value)
    return Engine(config)


def compile_module(engine: Engine, lenient: Engine, module: bytes) -> Module:
    """Validate and compile `module`, which `admission.check_module` has accepted.

    `lenient` comes from `make_lenient_engine`; making an engine asks the host about itself, so
    both are made before the sandbox closes.

    Raises `ModuleError` with `feature_denied` when the module is valid with features that the
    profile switches off, else with `bad_module`.
    """
    try:
        return Module(engine, module)
    except WasmtimeError as error:
        code: ModuleCode = "feature_denied" if _is_valid(lenient, module) else "bad_module"
        raise ModuleError(code, f"the engine refuses the module: {_one_line(error)}") from None


def _is_valid(engine: Engine, module: bytes) -> bool:
    try:
        Module.validate(engine, module)
    except WasmtimeError:
        return False
    return True


def _one_line(error: WasmtimeError) -> str:
    """The last line of the engine's message, which holds the cause, at most 300 characters."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if not lines:
        return "no reason given"
    return re.sub(r"^\d+: ", "", lines[-1])[:300]  # the engine numbers its list of causes
