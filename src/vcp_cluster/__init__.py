"""vcp-cluster: a Raft-replicated ledger that pays untrusted workers for running WebAssembly tasks.

The names below load on first use, so that importing this package costs next to nothing and a check
of a receipt loads neither an HTTP client nor a WebAssembly engine.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vcp_cluster.cluster.client import Blob as Blob
    from vcp_cluster.cluster.client import Client as Client
    from vcp_cluster.cluster.errors import Ambiguous as Ambiguous
    from vcp_cluster.cluster.errors import BadAnswer as BadAnswer
    from vcp_cluster.cluster.errors import ConfigError as ConfigError
    from vcp_cluster.cluster.errors import InvalidBlob as InvalidBlob
    from vcp_cluster.cluster.errors import InvalidModule as InvalidModule
    from vcp_cluster.cluster.errors import InvalidProof as InvalidProof
    from vcp_cluster.cluster.errors import InvalidReceipt as InvalidReceipt
    from vcp_cluster.cluster.errors import InvalidRequest as InvalidRequest
    from vcp_cluster.cluster.errors import InvalidTransaction as InvalidTransaction
    from vcp_cluster.cluster.errors import NoLeader as NoLeader
    from vcp_cluster.cluster.errors import NotAuthorised as NotAuthorised
    from vcp_cluster.cluster.errors import NotFound as NotFound
    from vcp_cluster.cluster.errors import NotReady as NotReady
    from vcp_cluster.cluster.errors import Timeout as Timeout
    from vcp_cluster.cluster.errors import Unavailable as Unavailable
    from vcp_cluster.cluster.errors import UnknownOutcome as UnknownOutcome
    from vcp_cluster.cluster.errors import VcpError as VcpError
    from vcp_cluster.cluster.errors import VerificationFailed as VerificationFailed

    __version__: str

_HOMES = {
    "Blob": "vcp_cluster.cluster.client",
    "Client": "vcp_cluster.cluster.client",
    **dict.fromkeys(
        (
            "Ambiguous",
            "BadAnswer",
            "ConfigError",
            "InvalidBlob",
            "InvalidModule",
            "InvalidProof",
            "InvalidReceipt",
            "InvalidRequest",
            "InvalidTransaction",
            "NoLeader",
            "NotAuthorised",
            "NotFound",
            "NotReady",
            "Timeout",
            "Unavailable",
            "UnknownOutcome",
            "VcpError",
            "VerificationFailed",
        ),
        "vcp_cluster.cluster.errors",
    ),
}

__all__ = sorted([*_HOMES, "__version__"])  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("vcp-cluster")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
