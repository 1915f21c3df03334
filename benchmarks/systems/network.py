"""Driving a load at the leader of a system that is reached over connections."""

from __future__ import annotations

import asyncio
from typing import cast

from vcp_cluster.benchmarks.load.closed_loop import Outcome, run_closed_loop
from vcp_cluster.benchmarks.machine.usage import Meter
from vcp_cluster.benchmarks.systems.base import NetworkSystem, Shape, System


def drive(system: NetworkSystem, shape: Shape, requests: int, seconds: float) -> Outcome:
    """`System.load` of a system with connections."""
    prepared = system.prepare(shape, requests)
    outcome = asyncio.run(_drive(system, shape, prepared, seconds))
    for sent, answers in zip(prepared, outcome.answers, strict=True):
        system.acknowledge(sent[: len(answers)], answers)
    return outcome


async def _drive(
    system: NetworkSystem, shape: Shape, prepared: list[list[bytes]], seconds: float
) -> Outcome:
    exchanges = await system.connect(system.leader(), shape, shape.clients)
    try:
        meter = Meter(system.member_pids().values())
        outcome = await run_closed_loop(exchanges, prepared, seconds=seconds)
        usage = meter.read()
        outcome.members_cpu_s, outcome.cores_share = usage.members_cpu_s, usage.cores_share
        return outcome
    finally:
        for exchange in exchanges:
            exchange.close()


def as_network(system: System) -> NetworkSystem:
    """A system that a workload has found to have members that can be addressed."""
    assert hasattr(system, "restart"), "`suits` lets no other through"
    return cast(NetworkSystem, system)
