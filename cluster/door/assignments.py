"""What the ledger wants a compute node to run now, and waiting for a change of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from vcp_cluster.cluster.door.context import Reader
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.errors import VcpError
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.nodes import CAPACITY_MAX
from vcp_cluster.ledger.records import Head, Node, Task
from vcp_cluster.ledger.tasks import is_assigned_to

PAGE = 1_000
IDLE_WAIT_S = 5.0
RETRY_PAUSE_S = 0.5
READ_GAP_S = 0.02
# After a long read of the index, a rest of this many times its length: a quarter of a core at most.
READ_REST = 3

_ID_BYTES = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A compute node and its assignments, read at one height. `node` is None if unregistered."""

    head: Head
    node: Node | None
    tasks: dict[bytes, Task]

    def documents(self) -> list[dict[str, Any]]:
        """The assignments as workers get them."""
        return [_document(identity, task, self.head) for identity, task in self.tasks.items()]


async def read_node(reader: Reader, node: bytes) -> NodeView:
    """A compute node with what is assigned to it now."""
    prefix = schema.RUNNING + node
    rows = await reader.scan(prefix, limit=CAPACITY_MAX)
    ids = [key[len(prefix) :] for key, _ in rows]
    head, record, *values = await reader.get(
        schema.HEAD, schema.NODE + node, *(schema.TASK + identity for identity in ids)
    )
    assert head is not None, "the head is written at height 0"
    tasks = {
        identity: decode_stored(Task, value)
        for identity, value in zip(ids, values, strict=True)
        if value is not None
    }
    # The index was read a moment before the tasks, which may have moved on since.
    assigned = {identity: task for identity, task in tasks.items() if is_assigned_to(task, node)}
    return NodeView(
        decode_stored(Head, head),
        None if record is None else decode_stored(Node, record),
        assigned,
    )


def _document(identity: bytes, task: Task, head: Head) -> dict[str, Any]:
    assignment = task.assignments[-1]
    return {
        "task": identity.hex(),
        "attempt": assignment.attempt,
        "module_hash": task.module_hash.hex(),
        "module_size": task.module_size,
        "entry_point": task.entry_point,
        "input_hash": task.input_hash.hex(),
        "input_size": task.input_size,
        "gas_limit": task.gas_limit,
        "memory_bytes_max": task.memory_bytes_max,
        "run_ms_max": task.run_ms_max,
        "output_bytes_max": task.output_bytes_max,
        "reward": str(task.reward),
        "deadline_left_ms": max(0, assignment.deadline_ms - head.active_ms),
    }


@dataclass(slots=True)
class _Waiter:
    known: frozenset[bytes]
    change: asyncio.Future[None]


class AssignmentWatch:
    """One reader of the index of running tasks, on behalf of all workers that wait.

    A read for each worker and height would be workers × heights; this is one read for each height,
    and none while nobody waits.
    """

    def __init__(self, reader: Reader, *, clock: Callable[[], float] = monotonic) -> None:
        self._reader = reader
        self._clock = clock
        self._assigned: dict[bytes, frozenset[bytes]] = {}
        self._height = -1
        self._waiters: dict[bytes, _Waiter] = {}
        self._wanted = asyncio.Event()

    async def wait(
        self, node: bytes, known: frozenset[bytes], *, since: int, timeout_s: float
    ) -> None:
        """Return when the assignments of a node are not the `known` ones, or the time is over.

        `since` is the height at which the caller saw them. One worker waits once: a second wait
        for the same node ends the first.
        """
        if self._height >= since and self._assigned.get(node, frozenset()) != known:
            return
        self._end(node)
        waiter = _Waiter(known, asyncio.get_running_loop().create_future())
        self._waiters[node] = waiter
        self._wanted.set()
        try:
            async with asyncio.timeout(timeout_s):
                await waiter.change
        except TimeoutError:
            pass
        finally:
            if self._waiters.get(node) is waiter:
                del self._waiters[node]

    async def run(self) -> None:
        """Read the index once for each height while somebody waits, for ever."""
        while True:
            if not self._waiters:
                self._wanted.clear()
                await self._wanted.wait()
            try:
                height = await self._reader.wait_height(self._height, IDLE_WAIT_S)
                if height <= self._height:
                    continue
                start = self._clock()
                await self.refresh(height)
                rest_s = READ_REST * (self._clock() - start)
            except (VcpError, Problem) as error:
                logger.warning("assignments cannot be read: %s", error)
                rest_s = RETRY_PAUSE_S
            await asyncio.sleep(max(READ_GAP_S, rest_s))

    async def refresh(self, height: int) -> None:
        """Read all running tasks, at `height` or later, and wake the workers they concern."""
        running: dict[bytes, list[bytes]] = {}
        start = schema.RUNNING
        while True:
            rows = await self._reader.scan(schema.RUNNING, start=start, limit=PAGE)
            for key, _ in rows:
                node, task = key[len(schema.RUNNING) : -_ID_BYTES], key[-_ID_BYTES:]
                running.setdefault(node, []).append(task)
            if len(rows) < PAGE:  # Rows of this index are far too small to fill an answer.
                break
            start = rows[-1][0] + b"\x00"
        self._assigned = {node: frozenset(tasks) for node, tasks in running.items()}
        self._height = height
        for node, waiter in list(self._waiters.items()):
            if self._assigned.get(node, frozenset()) != waiter.known:
                self._end(node)

    def _end(self, node: bytes) -> None:
        waiter = self._waiters.get(node)
        if waiter is not None and not waiter.change.done():
            waiter.change.set_result(None)
