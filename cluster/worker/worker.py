"""The worker: registers a compute node, keeps its session, runs what it is assigned."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

import httpx2
import msgspec

from vcp_cluster.cluster.client import Client, parse_endpoints
from vcp_cluster.cluster.client.documents import (
    AssignmentBody,
    HeartbeatDocument,
    NodeDocument,
)
from vcp_cluster.cluster.devices import DeviceProfile
from vcp_cluster.cluster.errors import (
    BadAnswer,
    InvalidTransaction,
    NotFound,
    Unavailable,
    UnknownOutcome,
    VcpError,
)
from vcp_cluster.cluster.worker.events import EventKind, OnEvent, WorkerEvent
from vcp_cluster.cluster.worker.faults import Fault
from vcp_cluster.cluster.worker.runner import STOP_REPORT_S_MAX, Run
from vcp_cluster.cluster.worker.session import Session
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.operations import RegisterNode

ATTEMPTS_REMEMBERED_MAX = 4_096
CLIENT_S_MAX = 3.0
PAUSE_S_MIN = 0.1
PAUSE_S_MAX = 2.0
BEAT_S_MIN = 0.05
"""At most one heartbeat in this time, should a member answer each at once."""

BEHIND_S_MAX = 10.0
"""How long a member's list is left aside because another member was further on."""

Attempt = tuple[str, int]


@dataclass(frozen=True, slots=True)
class _Active:
    """A run that has not ended."""

    cancel: threading.Event
    future: Future[None]


def run_worker(
    *,
    endpoints: str | Sequence[str],
    seed: bytes,
    device: DeviceProfile,
    capacity: int = 1,
    stop: threading.Event,
    on_event: OnEvent,
    fault: Fault | None = None,
    measure_temperature: bool = False,
    transport: httpx2.BaseTransport | None = None,
) -> None:
    """Work for a cluster as the compute node of this key until `stop` is set.

    Registers the node if the ledger does not know it; a fresh key needs no balance for that. Tasks
    run in processes of their own, up to `capacity` at a time, or as many as the node registered
    for. Each (task, attempt) runs once in the life of this call. A lost connection is retried
    forever; setting `stop` gives unfinished tasks back and returns within a few seconds.

    `on_event` is called from several threads, never from two at once. `fault` makes a dishonest
    worker, for demonstrations and tests. `measure_temperature` reports this host's sensor instead
    of the profile's value. `transport` replaces the network, for tests.

    Raises `InvalidTransaction` when the ledger does not take the registration.
    """
    lock = threading.Lock()

    def tell(event: WorkerEvent) -> None:
        with lock:
            on_event(event)

    with Client(endpoints, seed=seed, timeout_s=CLIENT_S_MAX, transport=transport) as client:
        capacity = _register(client, device, capacity, stop, tell)
        if stop.is_set():
            return
        session = Session(
            parse_endpoints(endpoints),
            seed=seed,
            chain_id=client.chain_id,
            device=device,
            measure_temperature=measure_temperature,
            transport=transport,
        )
        try:
            _Worker(client, session, capacity, stop, tell, fault).run()
        finally:
            session.close()
    tell(WorkerEvent(EventKind.STOPPED, None, "the worker has stopped"))


def _register(
    client: Client, device: DeviceProfile, capacity: int, stop: threading.Event, tell: OnEvent
) -> int:
    """Make sure that the ledger knows the node; return the capacity that it knows.

    Waits for the cluster as long as it takes, or until `stop` is set.
    """
    pause_s = PAUSE_S_MIN
    while not stop.is_set():
        try:
            try:
                known = _get_node(client)
            except NotFound:
                client.submit(RegisterNode(device.name, capacity))
                known = _get_node(client)
        except InvalidTransaction as error:
            if error.code is not Code.NODE_EXISTS:
                raise
        except (Unavailable, UnknownOutcome, NotFound) as error:
            tell(WorkerEvent(EventKind.DISCONNECTED, None, str(error)))
        else:
            detail = f"{client.account_id} as {known.device}, capacity {known.capacity}"
            tell(WorkerEvent(EventKind.REGISTERED, None, detail))
            return known.capacity
        stop.wait(pause_s)
        pause_s = min(2 * pause_s, PAUSE_S_MAX)
    return capacity


def _get_node(client: Client) -> NodeDocument:
    try:
        return msgspec.convert(client.node(client.account_id), NodeDocument)
    except msgspec.ValidationError as error:
        raise BadAnswer(f"the node's document is wrong: {error}") from None


class _Worker:
    """The loop over heartbeats, in the caller's thread; runs go on in others."""

    def __init__(
        self,
        client: Client,
        session: Session,
        capacity: int,
        stop: threading.Event,
        tell: OnEvent,
        fault: Fault | None,
    ) -> None:
        self._client = client
        self._session = session
        self._capacity = capacity
        self._stop = stop
        self._tell = tell
        self._fault = fault
        self._height = 0
        self._behind_since_s: float | None = None
        self._active: dict[Attempt, _Active] = {}
        self._seen: OrderedDict[Attempt, None] = OrderedDict()
        # Told to the member, which answers at once when the ledger's list is another one. A task
        # that ended here stays in it until its proof is applied.
        self._listed: set[str] = set()

    def run(self) -> None:
        """Heartbeats until `stop` is set, then the end of all runs."""
        with ThreadPoolExecutor(self._capacity, thread_name_prefix="run") as pool:
            try:
                self._beat_until_stopped(pool)
            finally:
                self._end_runs()

    def _beat_until_stopped(self, pool: ThreadPoolExecutor) -> None:
        is_connected = False
        pause_s = PAUSE_S_MIN
        while not self._stop.is_set():
            started_s = time.monotonic()
            try:
                answer = self._session.heartbeat(sorted(self._listed))
            except VcpError as error:
                if is_connected or pause_s == PAUSE_S_MIN:
                    self._tell(WorkerEvent(EventKind.DISCONNECTED, None, str(error)))
                is_connected = False
                self._session.leave()
                self._stop.wait(pause_s)
                pause_s = min(2 * pause_s, PAUSE_S_MAX)
                continue
            if not is_connected:
                self._tell(WorkerEvent(EventKind.CONNECTED, None, self._session.get_member()))
            is_connected, pause_s = True, PAUSE_S_MIN
            self._take(answer, pool)
            self._stop.wait(max(0.0, started_s + BEAT_S_MIN - time.monotonic()))

    def _take(self, answer: HeartbeatDocument, pool: ThreadPoolExecutor) -> None:
        """Start what is new and cancel what is not ours any more."""
        for attempt in [key for key, run in self._active.items() if run.future.done()]:
            del self._active[attempt]
        if self._is_behind(answer.height):
            return  # its list is older than what we know
        self._height = answer.height
        listed = {(item.task, item.attempt): item for item in answer.assignments}
        for attempt, active in self._active.items():
            if attempt not in listed:
                active.cancel.set()
        for attempt, assignment in listed.items():
            if attempt not in self._seen:
                self._start(attempt, assignment, pool)
        self._listed = {task for task, _ in listed}

    def _is_behind(self, height: int) -> bool:
        """Whether a member is behind what another one told us.

        Not for ever: one member that claims a height which nobody reaches would else make this
        worker deaf to all the others.
        """
        now_s = time.monotonic()
        if height >= self._height:
            self._behind_since_s = None
            return False
        if self._behind_since_s is None:
            self._behind_since_s = now_s
        return now_s - self._behind_since_s < BEHIND_S_MAX

    def _start(
        self, attempt: Attempt, assignment: AssignmentBody, pool: ThreadPoolExecutor
    ) -> None:
        self._seen[attempt] = None
        if len(self._seen) > ATTEMPTS_REMEMBERED_MAX:
            self._seen.popitem(last=False)
        cancel = threading.Event()
        run = Run(
            client=self._client,
            assignment=assignment,
            fault=self._fault,
            on_event=self._tell,
            started_s=time.monotonic(),
            cancel=cancel,
            stop=self._stop,
        )
        self._active[attempt] = _Active(cancel, pool.submit(run.run))

    def _end_runs(self) -> None:
        """End all executions, give the runs time to hand their tasks back, then stop waiting."""
        self._stop.set()  # when we are here because of an error, the runs must end as well
        for active in self._active.values():
            active.cancel.set()
        wait([active.future for active in self._active.values()], timeout=2 * STOP_REPORT_S_MAX)
        self._client.interrupt()
