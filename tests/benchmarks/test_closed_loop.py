"""The closed loop over exchanges that answer as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from vcp_cluster.benchmarks.errors import BenchmarkFailed
from vcp_cluster.benchmarks.load import closed_loop
from vcp_cluster.benchmarks.load.closed_loop import Outcome, run_closed_loop
from vcp_cluster.benchmarks.load.exchange import Answer, Done, Failure

AGAIN = Failure("busy", may_repeat=True)
NEVER = Failure("refused", may_repeat=False)


class Scripted:
    """Answers each request, in the next turn of the event loop, by a function of its number."""

    def __init__(self, answer: Callable[[int, bytes], Answer | None]) -> None:
        self._answer = answer
        self.requests: list[bytes] = []

    def start(self, request: bytes, done: Done) -> None:
        self.requests.append(request)
        answer = self._answer(len(self.requests), request)
        if answer is not None:
            asyncio.get_running_loop().call_soon(done, answer)

    def close(self) -> None:
        pass


def drive(exchanges: list[Scripted], requests: list[list[bytes]], seconds: float = 5) -> Outcome:
    return asyncio.run(run_closed_loop(exchanges, requests, seconds=seconds))


def test_a_window_ends_when_one_client_has_nothing_left() -> None:
    exchange = Scripted(lambda _, request: request.upper())
    outcome = drive([exchange, exchange], [[b"a", b"b", b"c"], [b"d"] * 1000])
    assert outcome.answers[0] == [b"A", b"B", b"C"]
    assert 1 <= len(outcome.answers[1]) <= 4
    assert outcome.counted == len(outcome.latencies_ns)
    assert outcome.answered >= outcome.counted >= 3
    assert 0 < outcome.elapsed_s < 5


def test_time_ends_a_window() -> None:
    exchange = Scripted(lambda _, request: request)
    outcome = drive([exchange], [[b"x"] * 5_000_000], seconds=0.05)
    assert 0.04 <= outcome.elapsed_s < 1
    assert 0 < outcome.answered < 5_000_000
    assert outcome.answered - outcome.counted <= 1


def test_what_may_be_repeated_is_sent_again_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "REPEAT_PAUSE_S", 0.0)
    exchange = Scripted(lambda number, _: b"done" if number > 2 else AGAIN)
    outcome = drive([exchange], [[b"same"]])
    assert exchange.requests == [b"same"] * 3
    assert (outcome.repeats, outcome.answers) == (2, [[b"done"]])


def test_a_refusal_ends_the_run() -> None:
    with pytest.raises(BenchmarkFailed, match="refused"):
        drive([Scripted(lambda *_: NEVER)], [[b"x"]])


def test_a_request_that_never_succeeds_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "REPEAT_PAUSE_S", 0.0)
    monkeypatch.setattr(closed_loop, "REPEATS_MAX", 3)
    with pytest.raises(BenchmarkFailed, match="failed 4 times: busy"):
        drive([Scripted(lambda *_: AGAIN)], [[b"x"]])


def test_a_request_without_an_answer_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(closed_loop, "DRAIN_S_MAX", 0.05)
    with pytest.raises(BenchmarkFailed, match="not answered"):
        drive([Scripted(lambda *_: None)], [[b"x"]], seconds=0.05)
