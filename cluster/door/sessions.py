"""Sessions between workers and this member: heartbeats, measurements, silence.

A worker signs its telemetry and sends it with every heartbeat; the member measures bandwidth and
latency itself. What of that reaches the ledger, `reports.py` decides. A heartbeat is also how a
worker gets its assignments: it is answered at once when they are not those it says it runs.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import logging
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median_low
from time import monotonic
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from vcp_cluster.cluster.clock import wall_ms
from vcp_cluster.cluster.door.assignments import AssignmentWatch, NodeView, read_node
from vcp_cluster.cluster.door.context import Ledger
from vcp_cluster.cluster.door.documents import format_time
from vcp_cluster.cluster.door.peers import check_time, unauthorised
from vcp_cluster.cluster.door.problems import Problem, bad_request, not_found
from vcp_cluster.cluster.door.reports import Reporter, is_report_due
from vcp_cluster.cluster.door.session_files import SessionFiles, SessionRecord
from vcp_cluster.cluster.errors import VcpError
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.commitments import SignedTelemetry
from vcp_cluster.ledger.domains import DOMAIN_TELEMETRY
from vcp_cluster.ledger.encoding import Malformed, decode, decode_stored, encode
from vcp_cluster.ledger.keys import is_signed
from vcp_cluster.ledger.nodes import CAPACITY_MAX
from vcp_cluster.ledger.operations import NodeReport
from vcp_cluster.ledger.records import Node

SESSIONS_MAX = 100_000
SILENCE_S = 10.0
SILENCE_CHECK_S = 1.0
CHECK_LATE_S = 3.0
"""A check of silence that comes later than this after the last one says that we stood still."""
# Well below the silence, so that a worker which waits for its answer is not taken for silent.
WAIT_MS_MAX = 5_000
PROBE_BYTES = 256 * 1024
BANDWIDTH_KBPS_MAX = 100_000_000
PROBES_KEPT = 3
ECHOES_KEPT = 8

_replace = msgspec.structs.replace

logger = logging.getLogger(__name__)


class _HeartbeatBody(msgspec.Struct):
    telemetry: Annotated[str, Meta(max_length=1_024)]
    running: Annotated[
        list[Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]], Meta(max_length=CAPACITY_MAX)
    ]
    wait_ms: Annotated[int, Meta(ge=0, le=60_000)] = 0
    echo: Annotated[str, Meta(max_length=64)] | None = None


@dataclass(slots=True)
class _Session:
    """One worker. Times are of the monotonic clock, in seconds; `reported` is as entered last."""

    seen_s: float
    declared: SignedTelemetry | None = None
    bandwidths_kbps: deque[int] = field(default_factory=lambda: deque(maxlen=PROBES_KEPT))
    latencies_us: deque[int] = field(default_factory=lambda: deque(maxlen=ECHOES_KEPT))
    echo: str = ""
    echo_sent_s: float = 0.0
    reported: NodeReport | None = None
    reported_s: float = 0.0


class Sessions:
    """The sessions of this member. `path` keeps what a restart must not forget; None: nothing."""

    def __init__(
        self,
        ledger: Ledger,
        path: Path | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        now_ms: Callable[[], int] = wall_ms,
        sessions_max: int = SESSIONS_MAX,
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._now_ms = now_ms
        self._sessions_max = sessions_max
        self._sessions: OrderedDict[bytes, _Session] = (
            OrderedDict()
        )  # who was silent longest, first
        self._files = None if path is None else SessionFiles(path)
        self._checked_s = clock()
        self._deaf_until_s = clock() - SILENCE_S
        self.reporter = Reporter(ledger, self._on_entered)
        self.watch = AssignmentWatch(ledger)

    async def run(self) -> None:
        """Report, watch assignments and notice silence, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self.reporter.run())
            group.create_task(self.watch.run())
            group.create_task(self._run_silence())

    async def heartbeat(self, node: bytes, body: Mapping[str, Any]) -> dict[str, Any]:
        """Take a heartbeat and answer with the node's assignments (`vcp/heartbeat/v1`).

        Raises `Problem`: 400, 401 telemetry not signed by the node for this cluster just now, 404
        not registered, 429 no room for another session.
        """
        request = _parse(body)
        declared = self._check_telemetry(node, request.telemetry)
        view, stored = await self._read(node)
        session = self._touch(node)
        session.declared = declared
        if request.echo:
            self._measure_echo(session, request.echo)
        self._report_if_due(node, session, stored)
        running = frozenset(bytes.fromhex(task) for task in request.running)
        wait_ms = min(request.wait_ms, WAIT_MS_MAX)
        if wait_ms and running == view.tasks.keys():
            await self.watch.wait(node, running, since=view.head.height, timeout_s=wait_ms / 1000)
            view, stored = await self._read(node)
        session.echo = secrets.token_hex(16)
        session.echo_sent_s = self._clock()
        return {
            "schema": "vcp/heartbeat/v1",
            "height": view.head.height,
            "time": format_time(view.head.time_ms),
            "is_online": stored.is_online,
            "echo": session.echo,
            "assignments": view.documents(),
        }

    async def echo(self, node: bytes, token: str) -> None:
        """The worker sends back the token of the last answer: one round trip is measured.

        Raises `Problem` 404 when the token is not the newest one, or was used.
        """
        session = self._sessions.get(node)
        if session is None or not self._measure_echo(session, token):
            raise Problem(
                404,
                "not_found",
                "no echo with this token is awaited",
                next_step="send back the token of the newest heartbeat's answer, once",
            )

    async def probe(self, node: bytes, size: int, seconds: float) -> dict[str, Any]:
        """Take a bandwidth measurement: `size` bytes arrived in `seconds`.

        The caller checked who sent them. Raises `Problem`: 400 another size, 404, 429.
        """
        if size != PROBE_BYTES:
            raise bad_request(f"a probe has {PROBE_BYTES} bytes, not {size}")
        await self._read(node)
        kbps = min(int(size * 8 / max(seconds, 1e-6) / 1000), BANDWIDTH_KBPS_MAX)
        session = self._touch(node)
        session.bandwidths_kbps.append(kbps)
        return {
            "schema": "vcp/probe/v1",
            "bandwidth_kbps": median_low(session.bandwidths_kbps),
        }

    def report_silent(self) -> None:
        """End the sessions of workers silent for `SILENCE_S`, and tell the ledger of those.

        While this process itself stood still (it was stopped, starved, or its machine slept) it
        heard nobody: then everyone has `SILENCE_S` again.
        """
        now_s = self._clock()
        if now_s - self._checked_s > CHECK_LATE_S:
            self._deaf_until_s = now_s
        self._checked_s = now_s
        limit = now_s - SILENCE_S
        if limit < self._deaf_until_s:
            return
        while self._sessions:
            node, session = next(iter(self._sessions.items()))
            if session.seen_s > limit:
                break
            del self._sessions[node]
            # A node that this member never reported is not this member's to report silent.
            if session.reported is not None and session.declared is not None:
                report = _replace(session.reported, is_online=False, declared=session.declared)
                self.reporter.enter(report)

    async def restore(self) -> None:
        """Take up the sessions from before a restart: their workers have `SILENCE_S` to return."""
        if self._files is None:
            return
        for record in await asyncio.to_thread(self._files.load, self._sessions_max):
            node = record.declared.telemetry.node
            (data,) = await self._ledger.get(schema.NODE + node)
            if data is None or node in self._sessions:
                continue
            stored = decode_stored(Node, data)
            if stored.is_online and stored.reporter == self._ledger.member.key:
                session = self._touch(node)
                session.declared = record.declared
                session.reported = NodeReport(
                    node, True, record.bandwidth_kbps, record.latency_us, record.declared
                )
                session.reported_s = self._clock()

    async def _run_silence(self) -> None:
        while True:
            try:
                await self.restore()
                break
            except (VcpError, Problem) as error:
                logger.info("sessions are not restored yet: %s", error)
                await asyncio.sleep(SILENCE_CHECK_S)
        while True:
            self.report_silent()
            await asyncio.sleep(SILENCE_CHECK_S)

    async def _read(self, node: bytes) -> tuple[NodeView, Node]:
        view = await read_node(self._ledger, node)
        if view.node is None:
            raise not_found("node", node.hex())
        return view, view.node

    def _touch(self, node: bytes) -> _Session:
        session = self._sessions.get(node)
        if session is None:
            if len(self._sessions) >= self._sessions_max:
                raise Problem(
                    429,
                    "busy",
                    f"this member has {self._sessions_max} sessions, its most",
                    next_step="use another member",
                    retry_after_ms=10_000,
                )
            session = self._sessions[node] = _Session(self._clock())
        session.seen_s = self._clock()
        self._sessions.move_to_end(node)
        return session

    def _check_telemetry(self, node: bytes, text: str) -> SignedTelemetry:
        what = "the telemetry is not signed by this compute node for this cluster"
        try:
            declared = decode(SignedTelemetry, base64.b64decode(text, validate=True))
        except (Malformed, binascii.Error, ValueError) as error:
            raise bad_request(f"`telemetry` is not base64 of signed telemetry: {error}") from None
        telemetry = declared.telemetry
        check_time(telemetry.time_ms, self._now_ms(), what)
        known = self._sessions.get(node)
        # The newest may come twice, when a worker repeats a request; an older one is a replay.
        is_replayed = (
            known is not None
            and known.declared is not None
            and telemetry.time_ms < known.declared.telemetry.time_ms
        )
        is_mine = telemetry.node == node and telemetry.chain_id == self._ledger.chain_id
        if (
            is_replayed
            or not is_mine
            or not is_signed(node, DOMAIN_TELEMETRY, encode(telemetry), declared.signature)
        ):
            raise unauthorised(what)
        return declared

    def _measure_echo(self, session: _Session, token: str) -> bool:
        """Take the round trip of an echo; False when this token is not awaited."""
        given = token.encode(errors="replace")
        if not session.echo or not hmac.compare_digest(session.echo.encode(), given):
            return False
        session.echo = ""
        session.latencies_us.append(max(1, int((self._clock() - session.echo_sent_s) * 1e6)))
        return True

    def _report_if_due(self, node: bytes, session: _Session, stored: Node) -> None:
        report = _build_report(node, session, stored)
        if report is None:
            return
        since_s = None if session.reported is None else self._clock() - session.reported_s
        if not is_report_due(
            stored,
            report,
            self._ledger.genesis.parameters,
            reporter=self._ledger.member.key,
            since_last_s=since_s,
        ):
            return
        session.reported, session.reported_s = report, self._clock()
        self._remember(report)
        self.reporter.enter(report)

    def _remember(self, report: NodeReport) -> None:
        """Before it is submitted: what is remembered must not be older than the ledger's."""
        if self._files is None:
            return
        record = SessionRecord(
            1, report.declared, report.measured_bandwidth_kbps, report.measured_latency_us
        )
        try:
            self._files.save(record)
        except OSError as error:
            logger.error("a session will not survive a restart of this member: %s", error)

    def _on_entered(self, report: NodeReport) -> None:
        if self._files is not None and not report.is_online and report.node not in self._sessions:
            self._files.remove(report.node)


def _parse(body: Mapping[str, Any]) -> _HeartbeatBody:
    try:
        return msgspec.convert(body, _HeartbeatBody)
    except msgspec.ValidationError as error:
        raise bad_request(f"not a heartbeat: {error}") from None


def _build_report(node: bytes, session: _Session, stored: Node) -> NodeReport | None:
    """What this member would report of a live node; None while something is not measured.

    Before a session has measured, what the ledger holds of an earlier one stands in for it: that
    is never above what was measured then.
    """
    has_record = stored.report_ms > 0
    bandwidth = median_low(session.bandwidths_kbps) if session.bandwidths_kbps else None
    latency = median_low(session.latencies_us) if session.latencies_us else None
    if bandwidth is None and has_record:
        bandwidth = stored.bandwidth_kbps
    if latency is None and has_record:
        latency = stored.latency_us
    if bandwidth is None or latency is None or session.declared is None:
        return None
    return NodeReport(node, True, bandwidth, latency, session.declared)
