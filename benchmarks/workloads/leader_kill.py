"""The leader is killed while somebody writes: how long until the next write is acknowledged.

A client sends one request after the other, then the leader gets SIGKILL, and the client tries the
survivors in turn with 150 ms for an attempt. Bytes are the same in every attempt, as a client that
does not know the outcome must do.
"""

from __future__ import annotations

import asyncio
import time

from vcp_cluster.benchmarks.document import Row
from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.load.exchange import Answer, Failure
from vcp_cluster.benchmarks.machine.limits import measure_cores_share
from vcp_cluster.benchmarks.systems.bare import BarePysyncobj
from vcp_cluster.benchmarks.systems.base import NetworkSystem, Shape, System
from vcp_cluster.benchmarks.systems.network import as_network
from vcp_cluster.benchmarks.workloads.base import Plan, Report, make_row

ATTEMPT_S = 0.15
PAUSE_S = 0.01
OUTAGE_S_MAX = 30.0
WRITES_BEFORE = 50
_ONE = Shape(1)


class LeaderKill:
    """Kills, one after the other; the killed member is back before the next one."""

    name = "leader-kill"

    def suits(self, system: System, plan: Plan) -> str:
        """Whether there are survivors that clients can reach."""
        if isinstance(system, BarePysyncobj):
            return "its clients live inside the leader and die with it"
        return "" if plan.members >= 3 else "fewer than three members do not survive it"

    def run(self, system: System, plan: Plan, report: Report) -> list[Row]:
        """The outages as one row; p99 is the longest."""
        network = as_network(system)
        outages_ms = []
        for number in range(plan.kills):
            leader = network.leader()
            outages_ms.append(1000 * asyncio.run(_measure_outage(network, leader)))
            report(f"{system.name}: leader killed, {outages_ms[-1]:.0f} ms ({number + 1})")
            network.restart(leader)
        row = make_row(
            self.name,
            system,
            outages_ms,
            clients=1,
            ops=len(outages_ms),
            cores_share=measure_cores_share(),
        )
        return [row]


async def _measure_outage(system: NetworkSystem, leader: str) -> float:
    """Seconds from the kill to the next acknowledged write."""
    survivors = [name for name in system.member_pids() if name != leader]
    (requests,) = system.prepare(_ONE, WRITES_BEFORE + 1)
    for request in requests[:-1]:
        await _write(system, [leader], request)
    system.kill(leader)
    killed_s = time.monotonic()
    await _write(system, survivors, requests[-1])
    return time.monotonic() - killed_s


async def _write(system: NetworkSystem, names: list[str], request: bytes) -> None:
    """Try members in turn until one acknowledges; raise `BenchmarkFailed` when none ever does."""
    deadline = time.monotonic() + OUTAGE_S_MAX
    attempts = 0
    while True:
        answer = await _attempt(system, names[attempts % len(names)], request)
        if not isinstance(answer, Failure):
            system.acknowledge([request], [answer])
            return
        if not answer.may_repeat or time.monotonic() > deadline:
            raise BenchmarkFailed(f"{system.name}: no write was acknowledged: {answer.reason}")
        attempts += 1
        await asyncio.sleep(PAUSE_S)


async def _attempt(system: NetworkSystem, name: str, request: bytes) -> Answer:
    """One attempt on a connection of its own."""
    answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def done(answer: Answer) -> None:
        if not answered.done():
            answered.set_result(answer)

    try:
        (exchange,) = await system.connect(name, _ONE, 1)
    except OSError as error:
        return Failure(str(error), may_repeat=True)
    exchange.start(request, done)
    try:
        return await asyncio.wait_for(answered, ATTEMPT_S)
    except TimeoutError:
        return Failure("no answer in time", may_repeat=True)
    finally:
        exchange.close()
