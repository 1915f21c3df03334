"""Run one WebAssembly task in a deterministic sandbox and commit to how it ended.

The names below load on first use. None of them loads wasmtime: the engine lives only in the
process that `run` starts for each task.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcp_cluster.executor.admission import check_module as check_module
    from vcp_cluster.executor.commitment import ExecutionRecord as ExecutionRecord
    from vcp_cluster.executor.commitment import check_opening as check_opening
    from vcp_cluster.executor.commitment import check_path_opening as check_path_opening
    from vcp_cluster.executor.errors import ModuleError as ModuleError
    from vcp_cluster.executor.errors import TraceInvalid as TraceInvalid
    from vcp_cluster.executor.limits import INPUT_BYTES_MAX as INPUT_BYTES_MAX
    from vcp_cluster.executor.limits import MODULE_BYTES_MAX as MODULE_BYTES_MAX
    from vcp_cluster.executor.limits import Limits as Limits
    from vcp_cluster.executor.profile import ENGINE as ENGINE
    from vcp_cluster.executor.profile import PROFILE as PROFILE
    from vcp_cluster.executor.profile import PROFILE_ID as PROFILE_ID
    from vcp_cluster.executor.profile import Backend as Backend
    from vcp_cluster.executor.result import Execution as Execution
    from vcp_cluster.executor.result import ExecutionFailure as ExecutionFailure
    from vcp_cluster.executor.result import Failure as Failure
    from vcp_cluster.executor.result import Status as Status
    from vcp_cluster.executor.result import TrapClass as TrapClass
    from vcp_cluster.executor.sandbox import isolation as isolation
    from vcp_cluster.executor.sandbox import run as run
    from vcp_cluster.executor.trace import Divergence as Divergence
    from vcp_cluster.executor.trace import Opening as Opening
    from vcp_cluster.executor.trace import Trace as Trace
    from vcp_cluster.executor.trace import Waypoint as Waypoint
    from vcp_cluster.executor.trace import first_divergence as first_divergence

_HOMES = {
    "ENGINE": "profile",
    "INPUT_BYTES_MAX": "limits",
    "MODULE_BYTES_MAX": "limits",
    "PROFILE": "profile",
    "PROFILE_ID": "profile",
    "Backend": "profile",
    "Divergence": "trace",
    "Execution": "result",
    "ExecutionFailure": "result",
    "ExecutionRecord": "commitment",
    "Failure": "result",
    "Limits": "limits",
    "ModuleError": "errors",
    "Opening": "trace",
    "Status": "result",
    "Trace": "trace",
    "TraceInvalid": "errors",
    "TrapClass": "result",
    "Waypoint": "trace",
    "check_module": "admission",
    "check_opening": "commitment",
    "check_path_opening": "commitment",
    "first_divergence": "trace",
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
