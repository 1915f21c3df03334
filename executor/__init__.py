"""Run one WebAssembly task in a deterministic sandbox and commit to how it ended.

The names below load on first use. None of them loads wasmtime: the engine lives only in the
process that `run` starts for each task.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcp_cluster.executor.admission import check_module as check_module
    from vcp_cluster.executor.errors import ModuleError as ModuleError
    from vcp_cluster.executor.limits import INPUT_BYTES_MAX as INPUT_BYTES_MAX
    from vcp_cluster.executor.limits import MODULE_BYTES_MAX as MODULE_BYTES_MAX
    from vcp_cluster.executor.limits import Limits as Limits
    from vcp_cluster.executor.profile import ENGINE as ENGINE
    from vcp_cluster.executor.profile import PROFILE as PROFILE
    from vcp_cluster.executor.profile import PROFILE_ID as PROFILE_ID
    from vcp_cluster.executor.result import Execution as Execution
    from vcp_cluster.executor.result import ExecutionFailure as ExecutionFailure
    from vcp_cluster.executor.result import Failure as Failure
    from vcp_cluster.executor.result import Status as Status
    from vcp_cluster.executor.result import TrapClass as TrapClass
    from vcp_cluster.executor.sandbox import isolation as isolation
    from vcp_cluster.executor.sandbox import run as run

_HOMES = {
    "ENGINE": "profile",
    "INPUT_BYTES_MAX": "limits",
    "MODULE_BYTES_MAX": "limits",
    "PROFILE": "profile",
    "PROFILE_ID": "profile",
    "Execution": "result",
    "ExecutionFailure": "result",
    "Failure": "result",
    "Limits": "limits",
    "ModuleError": "errors",
    "Status": "result",
    "TrapClass": "result",
    "check_module": "admission",
    "isolation": "sandbox",
    "run": "sandbox",
}

__all__ = sorted(_HOMES)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
