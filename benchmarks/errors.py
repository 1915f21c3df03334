"""Why a run has no result."""

from __future__ import annotations

from vcp_cluster.cluster.errors import VcpError


class BenchmarkFailed(VcpError):
    """Something that was measured is not true: an operation lost, repeated, refused or unverified.

    No figure of the session in which it happened is printed.
    """

    def __init__(
        self, message: str, *, next_step: str = "keep --dir DIR and read its logs"
    ) -> None:
        super().__init__(message, next_step=next_step)
