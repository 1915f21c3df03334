"""What the executor raises.

Exception
├── ModuleError        this module (or this input) can never run here; the same on every host
├── TraceInvalid       what somebody shows of a trace does not fit its roots
└── ExecutionFailure   this run could not be finished; another attempt may (see result.py)
"""

from typing import Final, Literal, get_args

ModuleCode = Literal[
    "bad_module",
    "module_limit",
    "feature_denied",
    "import_denied",
    "export_missing",
    "resource_min",
    "start_denied",
    "reserved_name",
    "input_limit",
]

MODULE_CODES: Final[tuple[str, ...]] = get_args(ModuleCode)

_NEXT: Final[dict[ModuleCode, str]] = {
    "bad_module": "compile the task to a WebAssembly 1 binary (.wasm), not to text or a component",
    "module_limit": "make the module smaller, or split the function that is named here",
    "feature_denied": "compile for the features listed in docs/executor.md",
    "import_denied": "build without a host environment (target wasm32-freestanding)",
    "export_missing": "export memory, vcp_alloc(i32)->i32 and the entry point (i32,i32)->i64",
    "resource_min": "declare a smaller minimum, or raise the task's memory limit",
    "start_denied": "move the code of the start function to the beginning of the entry point",
    "reserved_name": "rename it; names that begin with __vcp and the module vcp belong to us",
    "input_limit": "send a smaller input, or split it over several tasks",
}


class ModuleError(Exception):
    """The module or its input is refused, on every host alike; nothing was executed.

    `code` is one of `MODULE_CODES`. The message says what was found and what to do next.
    """

    def __init__(self, code: ModuleCode, found: str) -> None:
        super().__init__(f"{code}: {found}. Next: {_NEXT[code]}")
        self.code: ModuleCode = code
        self.found = found


class TraceInvalid(Exception):
    """An opening does not show what it is said to show; ask for it again or distrust its maker."""
