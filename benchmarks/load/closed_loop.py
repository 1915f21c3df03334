"""Clients that each wait for an answer before they send the next request.

Throughput is what was acknowledged within the window; latency is from the first sending of a
request to its success, repeats included. What is still open when the window ends is awaited and
checked, but not counted.
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.load.exchange import Answer, Exchange, Failure

REPEAT_PAUSE_S = 0.02
REPEATS_MAX = 500
DRAIN_S_MAX = 30.0


@dataclass
class Outcome:
    """What a window gave. `answers[c][i]` is the answer to request i of client c.

    `counted` requests ended within `elapsed_s`; `latencies_ns` are theirs, in no order. The CPU of
    the members and the share of the cores are of the window and of what was awaited after it.
    """

    answers: list[list[bytes]]
    counted: int = 0
    elapsed_s: float = 0.0
    repeats: int = 0
    latencies_ns: array[int] = field(default_factory=lambda: array("q"))
    client_cpu_s: float = 0.0
    members_cpu_s: float = 0.0
    cores_share: float = 1.0

    @property
    def answered(self) -> int:
        """Requests with a success, those after the window included."""
        return sum(map(len, self.answers))


class _Loop:
    """One window of all clients."""

    def __init__(self, exchanges: Sequence[Exchange], requests: Sequence[Sequence[bytes]]) -> None:
        self.exchanges = exchanges
        self.requests = requests
        self.outcome = Outcome([[] for _ in requests])
        self.loop = asyncio.get_running_loop()
        self.finished: asyncio.Future[None] = self.loop.create_future()
        self.start_ns = 0
        self.stop_ns = 0
        self._open = 0

    def begin(self) -> None:
        self.start_ns = time.perf_counter_ns()
        self._open = len(self.requests)
        for client in range(len(self.requests)):
            self._next(client)

    def stop(self) -> None:
        """End the window now, unless it has ended."""
        self.stop_ns = self.stop_ns or time.perf_counter_ns()

    def _next(self, client: int) -> None:
        position = len(self.outcome.answers[client])
        if position == len(self.requests[client]):
            self.stop()  # With one client fewer it would be another load.
        if self.stop_ns:
            self._leave()
            return
        self._send(client, position, time.perf_counter_ns(), 0)

    def _send(self, client: int, position: int, first_ns: int, repeats: int) -> None:
        def done(answer: Answer) -> None:
            if isinstance(answer, Failure):
                self._repeat(answer, client, position, first_ns, repeats)
                return
            now_ns = time.perf_counter_ns()
            self.outcome.answers[client].append(answer)
            if not self.stop_ns:
                self.outcome.latencies_ns.append(now_ns - first_ns)
            self._next(client)

        self.exchanges[client].start(self.requests[client][position], done)

    def _repeat(
        self, failure: Failure, client: int, position: int, first_ns: int, repeats: int
    ) -> None:
        if self.finished.done():
            return
        if not failure.may_repeat or repeats >= REPEATS_MAX:
            self.finished.set_exception(
                BenchmarkFailed(f"a request failed {repeats + 1} times: {failure.reason}")
            )
            return
        self.outcome.repeats += 1
        self.loop.call_later(REPEAT_PAUSE_S, self._send, client, position, first_ns, repeats + 1)

    def _leave(self) -> None:
        self._open -= 1
        if self._open == 0 and not self.finished.done():
            self.finished.set_result(None)


async def run_closed_loop(
    exchanges: Sequence[Exchange], requests: Sequence[Sequence[bytes]], *, seconds: float
) -> Outcome:
    """Drive client c over `exchanges[c]` with `requests[c]` until the time, or one client's
    requests, are over.

    Raises `BenchmarkFailed` when a request is refused for good or not answered.
    """
    window = _Loop(exchanges, requests)
    gc.collect()
    gc.disable()  # A collection in the middle would be a pause of all clients.
    cpu_s = time.process_time()
    timer = window.loop.call_later(seconds, window.stop)
    try:
        window.begin()
        await asyncio.wait_for(window.finished, seconds + DRAIN_S_MAX)
    except TimeoutError:
        message = f"requests were not answered within {DRAIN_S_MAX:.0f} s"
        raise BenchmarkFailed(message) from None
    finally:
        timer.cancel()
        gc.enable()
    outcome = window.outcome
    outcome.client_cpu_s = time.process_time() - cpu_s
    outcome.elapsed_s = (window.stop_ns - window.start_ns) / 1e9
    outcome.counted = len(outcome.latencies_ns)
    return outcome
