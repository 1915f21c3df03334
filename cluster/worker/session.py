"""A worker's session with one member: probe, heartbeats, echoes.

The session stays with a member as long as it answers and goes to the next one when it does not. It
is separate from the client that submits results, so that a slow submission never delays a
heartbeat.
"""

from __future__ import annotations

import base64
import secrets
import time

import httpx2
import msgspec

from vcp_cluster.cluster.client.blobs import sign_upload
from vcp_cluster.cluster.client.documents import HeartbeatDocument, read_typed
from vcp_cluster.cluster.client.link import AttemptFailed, Link, Request
from vcp_cluster.cluster.devices import DeviceProfile, read_temperature_mc
from vcp_cluster.ledger.commitments import SignedTelemetry, Telemetry, sign_telemetry
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import hash_content, public_key

PROBE_BYTES = 256 << 10
PROBE_INTERVAL_S = 60.0
PROBE_S_MAX = 10.0
HEARTBEAT_WAIT_MS = 2_000
"""How long a member may hold a heartbeat: also how long a worker takes to stop."""
HEARTBEAT_S_MAX = 8.0
"""Below the 10 s after which a member takes a node for silent."""


class Session:
    """Heartbeats of one node. Used by one thread."""

    def __init__(
        self,
        endpoints: tuple[str, ...],
        *,
        seed: bytes,
        chain_id: bytes,
        device: DeviceProfile,
        measure_temperature: bool,
        transport: httpx2.BaseTransport | None,
    ) -> None:
        self._link = Link(endpoints, transport=transport)
        self._seed = seed
        self._chain_id = chain_id
        self._device = device
        self._measure_temperature = measure_temperature
        self._node = public_key(seed)
        self._path = f"/v1/nodes/{self._node.hex()}"
        self._time_ms = 0
        self._probed: tuple[str, float] | None = None
        self._greeted: str | None = None

    def close(self) -> None:
        """Close all connections."""
        self._link.close()

    def get_member(self) -> str:
        """The endpoint that the session is with."""
        return self._link.get_current()

    def leave(self) -> None:
        """Go to the next member."""
        self._greeted = None
        self._link.leave(self.get_member())

    def heartbeat(self, running: list[str]) -> HeartbeatDocument:
        """Say that this node lives and which tasks it has; return what it is to run.

        Probes the bandwidth first when it is time, and echoes last, at once. Raises the errors of
        the client; the caller decides whether to go to another member.
        """
        endpoint = self.get_member()
        try:
            self._probe_if_due(endpoint)
            answer = self._beat(endpoint, running)
            self._echo(endpoint, answer.echo)
        except AttemptFailed as failure:
            raise failure.error from None
        return answer

    def sign_telemetry(self) -> SignedTelemetry:
        """This node's telemetry now. Its times never run backwards, as the ledger wants it."""
        device = self._device
        temperature = read_temperature_mc() if self._measure_temperature else None
        self._time_ms = max(self._time_ms, time.time_ns() // 1_000_000)
        return sign_telemetry(
            self._seed,
            Telemetry(
                version=1,
                chain_id=self._chain_id,
                node=self._node,
                time_ms=self._time_ms,
                power_mw=device.power_mw,
                temperature_mc=device.temperature_mc if temperature is None else temperature,
                carbon_g_kwh=device.carbon_g_kwh,
                bandwidth_kbps=device.bandwidth_kbps,
                latency_us=device.latency_us,
                efficiency_mflops_w=device.efficiency_mflops_w,
            ),
        )

    def _probe_if_due(self, endpoint: str) -> None:
        """Let the member measure the bandwidth: when it is a new one, and now and then."""
        now_s = time.monotonic()
        if self._probed is not None:
            member, probed_s = self._probed
            if member == endpoint and now_s - probed_s < PROBE_INTERVAL_S:
                return
        data = secrets.token_bytes(PROBE_BYTES)  # random, so that nothing on the way compresses it
        headers = sign_upload(
            self._seed, chain_id=self._chain_id, content_hash=hash_content(data), size=len(data)
        )
        request = Request(method="POST", path=f"{self._path}/probe", headers=headers, content=data)
        self._link.attempt(endpoint, request, now_s + PROBE_S_MAX)
        self._probed = (endpoint, time.monotonic())

    def _beat(self, endpoint: str, running: list[str]) -> HeartbeatDocument:
        # A member reports a node once it has an echo, so it is not to sit on the first heartbeat.
        wait_ms = HEARTBEAT_WAIT_MS if self._greeted == endpoint else 0
        body = {
            "telemetry": base64.b64encode(encode(self.sign_telemetry())).decode(),
            "running": running,
            "wait_ms": wait_ms,
            "echo": None,
        }
        request = self._post("heartbeat", body, wait_s=wait_ms / 1000)
        deadline = time.monotonic() + HEARTBEAT_S_MAX
        answer = read_typed(HeartbeatDocument, self._link.attempt(endpoint, request, deadline))
        self._greeted = endpoint
        return answer

    def _echo(self, endpoint: str, token: str | None) -> None:
        if token:
            request = self._post("echo", {"echo": token})
            self._link.attempt(endpoint, request, time.monotonic() + HEARTBEAT_S_MAX)

    def _post(self, action: str, body: object, *, wait_s: float = 0.0) -> Request:
        return Request(
            method="POST",
            path=f"{self._path}/{action}",
            headers={"Content-Type": "application/json"},
            content=msgspec.json.encode(body),
            wait_s=wait_s,
        )
