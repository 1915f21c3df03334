"""Static admission: what a module must look like before the engine sees a byte of it.

The reader in `wasm/` holds it to the binary format, the profile's features and the static limits;
here are the calling convention and the sizes that a task's own limits decide. Types are not
validated here; the engine does that, in the task's own process.
"""

from typing import Final

from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.limits import MODULE_BYTES_MAX, PAGE_BYTES, Limits
from vcp_cluster.executor.wasm.limits import TABLE_ELEMENTS_MAX
from vcp_cluster.executor.wasm.module import (
    FUNCTION,
    GLOBAL,
    MEMORY,
    Module,
    Signature,
    read_bodies,
    read_module,
)
from vcp_cluster.executor.wasm.reader import FUNCREF, I32, I64

_ALLOC_SIGNATURE: Final[Signature] = ((I32,), (I32,))
_RUN_SIGNATURE: Final[Signature] = ((I32, I32), (I64,))


def check_module(
    module: bytes, limits: Limits | None = None, *, entry_point: str = "vcp_run"
) -> None:
    """Check that `module` may be handed to the engine under `limits` (default: `Limits()`).

    Raises `ModuleError`, and nothing else, whatever the bytes are. Passing does not mean that the
    module is valid: the engine may still answer `bad_module` when it runs.
    """
    read_bodies(check_sections(module, limits, entry_point=entry_point))


def check_sections(
    module: bytes, limits: Limits | None = None, *, entry_point: str = "vcp_run"
) -> Module:
    """The part of `check_module` that reads no instructions; quick for any module.

    Returns what it read. Raises `ModuleError`, and nothing else.
    """
    if len(module) > MODULE_BYTES_MAX:
        found = f"the module has {len(module)} bytes, the most is {MODULE_BYTES_MAX}"
        raise ModuleError("module_limit", found)
    read = read_module(module)
    _check_sizes(read, limits or Limits())
    _check_exports(read, entry_point)
    return read


def _check_sizes(module: Module, limits: Limits) -> None:
    for elements in module.tables:
        if elements > TABLE_ELEMENTS_MAX:
            found = f"a table starts with {elements} elements, the most is {TABLE_ELEMENTS_MAX}"
            raise ModuleError("resource_min", found)
    for pages in module.memories:
        size, most = pages * PAGE_BYTES, limits.memory_bytes_max
        if size > most:
            found = f"memory starts with {size} bytes, the most is {most}"
            raise ModuleError("resource_min", found)


def _check_exports(module: Module, entry_point: str) -> None:
    """Check the calling convention: names, kinds and signatures."""
    if entry_point.startswith("__vcp"):
        raise ModuleError("reserved_name", f"the entry point is called {entry_point[:64]!a}")
    for name, (kind, index) in module.exports.items():
        if kind == GLOBAL and module.globals[index] == (FUNCREF, True):
            # A reference has no bit pattern that two hosts share, so it cannot be committed to.
            found = f"{name[:64]!a} is an exported mutable reference"
            raise ModuleError("feature_denied", found)
    if module.exports.get("memory") != (MEMORY, 0):
        raise ModuleError("export_missing", "the module exports no memory called 'memory'")
    for name, expected in (("vcp_alloc", _ALLOC_SIGNATURE), (entry_point, _RUN_SIGNATURE)):
        kind, index = module.exports.get(name, (-1, -1))
        if kind != FUNCTION:
            found = f"the module exports no function called {name[:64]!a}"
            raise ModuleError("export_missing", found)
        if module.signature(index) != expected:
            found = f"the exported function {name[:64]!a} has another type"
            raise ModuleError("export_missing", found)
