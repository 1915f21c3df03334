"""Driving a load at the leader of a system that is reached over connections."""

from __future__ import annotations

import asyncio

from vcp_cluster.benchmarks.load.closed_loop import Outcome, run_closed_loop
from vcp_cluster.benchmarks.systems.base import NetworkSystem, Shape


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
        return await run_closed_loop(exchanges, prepared, seconds=seconds)
    finally:
        for exchange in exchanges:
            exchange.close()
