"""When a member enters what it knows of a compute node into the ledger, and how.

Heartbeats stay between worker and member. A `NodeReport` goes into the log when it changes what
the ledger does (the node comes or goes, its health moves by a bucket, safe mode), and else once a
minute at most.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import msgspec

from vcp_cluster.cluster.door.context import Ledger
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.rejections import get_rejection
from vcp_cluster.cluster.errors import VcpError
from vcp_cluster.ledger.genesis import Parameters
from vcp_cluster.ledger.nodes import compute_health
from vcp_cluster.ledger.operations import NodeReport
from vcp_cluster.ledger.records import Node

REPORT_GAP_S = 2.0
REPORT_INTERVAL_S = 60.0
HEALTH_BUCKET = 1_000
# A score that trembles on the edge of a bucket is not worth an entry for each heartbeat.
HEALTH_HYSTERESIS = 200
GROUP_MAX = 64
RETRY_PAUSE_S = 0.5

_replace = msgspec.structs.replace

logger = logging.getLogger(__name__)


def compute_reported(node: Node, report: NodeReport) -> Node:
    """The node's record with the values that a report would give it."""
    telemetry = report.declared.telemetry
    return _replace(
        node,
        temperature_mc=telemetry.temperature_mc,
        bandwidth_kbps=min(telemetry.bandwidth_kbps, report.measured_bandwidth_kbps),
        latency_us=max(telemetry.latency_us, report.measured_latency_us),
        efficiency_mflops_w=telemetry.efficiency_mflops_w,
    )


def is_report_due(
    node: Node,
    report: NodeReport,
    parameters: Parameters,
    *,
    reporter: bytes,
    since_last_s: float | None,
) -> bool:
    """Whether a report of a live node should be entered now.

    `node` is its record in the ledger, `reporter` this member's key, `since_last_s` the time since
    this member last entered one (None: never).
    """
    if since_last_s is not None and since_last_s < REPORT_GAP_S:
        return False
    if since_last_s is None or since_last_s >= REPORT_INTERVAL_S:
        return True
    if not node.is_online or node.reporter != reporter:
        return True
    fresh = compute_reported(node, report)
    is_bad = (
        fresh.temperature_mc > parameters.safe_temperature_mc
        or fresh.latency_us > parameters.safe_latency_us
    )
    # Out of safe mode it takes several good reports; into it, one bad one.
    if is_bad != node.is_safe_mode:
        return True
    old, new = compute_health(node), compute_health(fresh)
    return old // HEALTH_BUCKET != new // HEALTH_BUCKET and abs(old - new) >= HEALTH_HYSTERESIS


class Reporter:
    """A queue of node reports, the newest for each node, and their submission in groups.

    `on_entered` is told of every report with which the ledger is done: applied, or rejected for
    good. Bounded by the number of nodes that may have a session.
    """

    def __init__(self, ledger: Ledger, on_entered: Callable[[NodeReport], None]) -> None:
        self._ledger = ledger
        self._on_entered = on_entered
        self._queue: dict[bytes, NodeReport] = {}
        self._news = asyncio.Event()

    def enter(self, report: NodeReport) -> None:
        """Queue a report; it replaces one of the same node that still waits."""
        self._queue[report.node] = report
        self._news.set()

    async def run(self) -> None:
        """Submit what is queued, for ever. While the ledger is unavailable it stays queued."""
        while True:
            await self._news.wait()
            try:
                await self.submit_pending()
            except (VcpError, Problem) as error:
                logger.info("node reports wait: %s", error)
                await asyncio.sleep(RETRY_PAUSE_S)

    async def submit_pending(self) -> None:
        """Submit all queued reports. Raises `VcpError` or `Problem` with the rest still queued."""
        while self._queue:
            group = list(self._queue.values())[:GROUP_MAX]
            for report in group:
                del self._queue[report.node]
            try:
                await self._submit_group(group)
            except BaseException:
                for report in group:
                    self._queue.setdefault(report.node, report)
                raise
        self._news.clear()

    async def _submit_group(self, group: Sequence[NodeReport]) -> None:
        """One transaction for all; when one report spoils it, one for each."""
        try:
            await self._ledger.submit(group)
        except (VcpError, Problem) as error:
            if get_rejection(error) is None:
                raise
            if len(group) > 1:
                for report in group:
                    await self._submit_group([report])
                return
            logger.info("node report of %s: %s", group[0].node.hex(), error)
        for report in group:
            self._on_entered(report)
