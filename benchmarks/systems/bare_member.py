"""One process of the bare pysyncobj system: a replicated dictionary, and clients beside it.

`python -m vcp_cluster.benchmarks.systems.bare_member ADDRESS PEERS JOURNAL`, driven by lines of JSON
on standard input, answered by lines on standard output:

    {"do": "status"}                                     {"leads": bool, "ready": bool}
    {"do": "load", "clients", "requests", "records",     {"answered", "elapsed_ns", "latencies_ns"}
     "seconds", "first"}
    {"do": "count"}                                      {"keys", "wrong"}

The library has no network protocol for clients: an application embeds it. So the clients of a load
are inside the leader's process, and pay for no connection.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from typing import Any

from pysyncobj import SyncObj, SyncObjConf, replicated

from vcp_cluster.benchmarks.systems.etcd_wire import value_of
from vcp_cluster.cluster.processes import follow_if_asked

TICK_S = 0.05


class Dictionary(SyncObj):  # type: ignore[misc]  # the library has no types
    """Values by number."""

    def __init__(self, address: str, peers: list[str], journal: str) -> None:
        self.values: dict[int, bytes] = {}
        super().__init__(address, peers, SyncObjConf(autoTick=False, journalFile=journal))

    @replicated  # type: ignore[untyped-decorator]
    def put(self, first: int, values: list[bytes]) -> None:
        """Set the values of a range of numbers."""
        for number, value in enumerate(values, first):
            self.values[number] = value


class _Load:
    """A closed loop of clients on the leader's own object."""

    def __init__(self, dictionary: Dictionary, order: dict[str, Any]) -> None:
        self._dictionary = dictionary
        self._records = order["records"]
        self._next = order["first"]
        self._start_ns = time.perf_counter_ns()
        self._stop_ns = self._start_ns + int(order["seconds"] * 1e9)
        self._left = order["clients"] * order["requests"]
        self._open = 0
        self.answered = 0
        self.failure: str | None = None
        self.latencies_ns: list[int] = []
        for _ in range(order["clients"]):
            self._send()

    @property
    def is_over(self) -> bool:
        """Whether every client has left."""
        return self._open == 0

    def _send(self) -> None:
        if self._left == 0:
            # With a client fewer it would be another load: the window ends for all.
            self._stop_ns = min(self._stop_ns, time.perf_counter_ns())
            return
        self._left -= 1
        first, sent_ns = self._next, time.perf_counter_ns()
        self._next += self._records
        self._open += 1

        def done(_: object, error: object) -> None:
            self._open -= 1
            if error:
                self.failure = str(error)
                return
            now_ns = time.perf_counter_ns()
            self.answered += 1
            if now_ns <= self._stop_ns:
                self.latencies_ns.append(now_ns - sent_ns)
                self._send()

        values = [value_of(number) for number in range(first, first + self._records)]
        self._dictionary.put(first, values, callback=done)

    def report(self) -> dict[str, Any]:
        """The answer to the order."""
        if self.failure is not None:
            return {"error": self.failure}
        return {
            "answered": self.answered,
            "elapsed_ns": self._stop_ns - self._start_ns,
            "latencies_ns": self.latencies_ns,
        }


def _answer(document: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def _read_orders(orders: queue.Queue[dict[str, Any] | None]) -> None:
    for line in sys.stdin:
        orders.put(json.loads(line))
    orders.put(None)


def main(address: str, peers: str, journal: str) -> None:
    """Tick until standard input ends."""
    follow_if_asked()
    dictionary = Dictionary(address, peers.split(",") if peers else [], journal)
    orders: queue.Queue[dict[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read_orders, args=(orders,), daemon=True).start()
    load: _Load | None = None
    while True:
        dictionary.doTick(TICK_S)
        if load is not None and load.is_over:
            _answer(load.report())
            load = None
        try:
            order = orders.get_nowait()
        except queue.Empty:
            continue
        if order is None:
            return
        if order["do"] == "load":
            load = _Load(dictionary, order)
        elif order["do"] == "status":
            leads = dictionary._isLeader()
            _answer({"leads": leads, "ready": dictionary._isReady()})
        else:
            values = dictionary.values
            wrong = sum(value != value_of(number) for number, value in values.items())
            _answer({"keys": sorted(values), "wrong": wrong})


if __name__ == "__main__":
    main(*sys.argv[1:])
