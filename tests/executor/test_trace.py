"""Waypoints: where they lie, what they commit to, how one is shown, and where two traces part."""

from dataclasses import replace
from itertools import pairwise

import pytest
from blake3 import blake3
from msgspec.structs import replace as change

from vcp_cluster.executor import (
    Limits,
    Status,
    Trace,
    TraceInvalid,
    Waypoint,
    check_opening,
    check_path_opening,
    first_divergence,
    run,
)
from vcp_cluster.executor import trace as trace_module
from vcp_cluster.executor.commitment import compute_execution_root, compute_trace_root
from vcp_cluster.executor.result import Execution
from vcp_cluster.executor.trace import (
    WAYPOINT_GAS_MIN,
    WAYPOINT_GAS_PER_BYTE,
    WAYPOINTS_MAX,
    Divergence,
    compute_memory_digest,
    compute_page_digests,
    compute_path_seed,
    compute_spacing,
)

# Two loops, of which the outer one looks for waypoints and leaves its mark in memory.
WORK = """
  (local $i i32) (local $j i32)
  (loop $outer
    (local.set $j (i32.const 1000))
    (loop $inner
      (br_if $inner (local.tee $j (i32.sub (local.get $j) (i32.const 1))))
    )
    (i32.store (i32.const 2048) (i32.add (local.get $i) (local.get $size)))
    (br_if $outer (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))
                            (i32.const {rounds})))
  )
  (i64.const 0)
"""


ROUND_GAS = 2 + 1000 * 5 + 5 + 7
GAS = 10_000_000
"""Small enough that the number of waypoints, which is bounded, does not space them."""


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> int:
    """Waypoints every 20,000 units of gas; returns the distance."""
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_MIN", 20_000)
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_PER_BYTE", 0)
    return 20_000


def test_the_spacing_rule() -> None:
    assert compute_spacing(0, 1) == WAYPOINT_GAS_MIN == 1 << 27
    assert compute_spacing(1 << 20, 1) == 1 << 27
    assert compute_spacing((1 << 20) + 65536, 1) == 128 * ((1 << 20) + 65536)
    assert compute_spacing(512 << 20, 10**10) == 1 << 36
    assert compute_spacing(65536, (1 << 63) - 1) == 1 << 51
    assert WAYPOINT_GAS_PER_BYTE == 128
    # However large the limit, the trace is short.
    for limit in (1, 10**10, (1 << 63) - 1):
        assert limit // compute_spacing(0, limit) <= WAYPOINTS_MAX


def test_waypoints_lie_where_the_rule_says(near: int, guest, in_process) -> None:
    module = guest(WORK.format(rounds=50))
    states = in_process(module, gas_max=GAS).states
    assert len(states) == 50 * ROUND_GAS // (4 * ROUND_GAS) + 1
    gas = [state.gas for state in states]
    assert gas == sorted(set(gas))
    for earlier, later in pairwise(gas[:-1]):
        # The first look at the gas that comes after the distance.
        assert near < later - earlier <= near + ROUND_GAS
        assert (later - earlier) % ROUND_GAS == 0
    assert len({state.memory for state in states}) == len(states)


def test_growing_memory_spreads_waypoints(monkeypatch, guest, in_process) -> None:
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_MIN", 0)
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_PER_BYTE", 1)
    small = in_process(guest(WORK.format(rounds=200)), gas_max=GAS).states
    growing = WORK.replace("(loop $outer", "(drop (memory.grow (i32.const 2))) (loop $outer")
    grown = in_process(guest(growing.format(rounds=200)), gas_max=GAS).states
    assert len(small) > 2 * len(grown) > 4
    assert [state.pages for state in grown][-2:] == [3, 3]


def test_a_real_run_has_the_real_distance(guest) -> None:
    """In the sandbox, at full speed, on the default rule; both back ends see the same."""
    module = guest(WORK.format(rounds=60_000))
    result = run(module, b"", binding=b"worker")
    assert (result.status, result.waypoints) == (Status.OK, 3)
    first, second, last = (waypoint.gas for waypoint in result.trace.waypoints)
    assert first > 1 << 27 and second - first > 1 << 27
    assert last == result.gas


def test_out_of_gas_is_the_last_waypoint(near: int, guest, in_process) -> None:
    whole = in_process(guest(WORK.format(rounds=50)), gas_max=GAS)
    short = in_process(guest(WORK.format(rounds=50)), gas_max=whole.states[4].gas)
    assert (short.status, short.gas) == (Status.OUT_OF_GAS, whole.states[4].gas)
    assert [state.gas for state in short.states[:4]] == [state.gas for state in whole.states[:4]]


def test_the_path_depends_on_the_binding_and_the_way_alone(near: int, guest, in_process) -> None:
    module = guest(WORK.format(rounds=50))
    mine, again, theirs = (
        [state.path for state in in_process(module, gas_max=GAS, binding=who).states]
        for who in (b"me", b"me", b"you")
    )
    assert mine == again
    assert all(one != other for one, other in zip(mine, theirs, strict=True))
    assert compute_path_seed(b"me") not in mine


def test_the_path_tells_two_ways_of_equal_cost_apart(guest, in_process) -> None:
    """Gas, memory and output are equal; which of two loops ran first is not."""
    body = """
      (local $k i32)
      (if (local.get $size) (then {first}) (else {second}))
      (call $tick) (i64.const 0)
    """
    loop = "(local.set $k (i32.const {n})) (loop (call $tick) (br_if 0 (local.tee $k (i32.sub (local.get $k) (i32.const 1)))))"
    long, short = loop.format(n=5), loop.format(n=5).replace("(call $tick)", "(call $tock)")
    extra = """(func $tick (call $nothing)) (func $nothing)
      (func $tock (call $nothing) (call $nothing))"""
    module = guest(
        body.format(first=long + short, second=short + long), extra=extra, alloc="(i32.const 4096)"
    )
    one, other = in_process(module, b"x"), in_process(module, b"")
    assert (one.gas, one.output) == (other.gas, other.output)
    assert one.states[-1].path != other.states[-1].path


# --- showing one waypoint ----------------------------------------------------------------------


def made(count: int) -> Trace:
    return Trace(
        tuple(Waypoint(i * 10, 1, bytes([i]) * 32, bytes([255 - i]) * 32) for i in range(count)),
        tuple(bytes([i]) * 8 for i in range(count)),
    )


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8])
def test_every_waypoint_can_be_shown(count: int) -> None:
    trace = made(count)
    for index in range(count):
        opening = trace.open(index)
        assert opening.waypoint == trace.waypoints[index]
        opening.check(count, trace.waypoint_root)
        opening.check_path(count, trace.path_root)


def test_there_is_nothing_to_show_beyond_the_trace() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError, match="3 waypoints"):
            made(3).open(index)


def test_a_waypoint_without_a_path_is_no_trace() -> None:
    with pytest.raises(ValueError, match="1 waypoints have 0 paths"):
        Trace((made(1).waypoints), ())


FORGERIES = {
    "gas": lambda o: replace(o, waypoint=change(o.waypoint, gas=11)),
    "pages": lambda o: replace(o, waypoint=change(o.waypoint, pages=2)),
    "memory": lambda o: replace(o, waypoint=change(o.waypoint, memory=bytes(32))),
    "globals": lambda o: replace(o, waypoint=change(o.waypoint, globals=bytes(32))),
    "place": lambda o: replace(o, index=2),
    "sibling": lambda o: replace(o, waypoint_siblings=(bytes(32), *o.waypoint_siblings[1:])),
    "length": lambda o: replace(o, waypoint_siblings=o.waypoint_siblings[:-1]),
}


@pytest.mark.parametrize("case", FORGERIES)
def test_a_forged_opening_is_refused(case: str) -> None:
    trace = made(5)
    with pytest.raises(TraceInvalid, match=r"waypoint \d of 5"):
        FORGERIES[case](trace.open(1)).check(5, trace.waypoint_root)


def test_a_forged_path_is_refused() -> None:
    trace = made(5)
    with pytest.raises(TraceInvalid, match="path 1 of 5"):
        replace(trace.open(1), path=bytes(8)).check_path(5, trace.path_root)


@pytest.fixture(scope="module")
def shown() -> Execution:
    from .conftest import _make

    return run(_make(WORK.format(rounds=60_000)), b"", binding=b"worker")


def test_openings_of_a_run_lead_to_its_roots(shown: Execution) -> None:
    assert shown.record is not None
    path_root = shown.trace.path_root
    for index in range(shown.waypoints):
        opening = shown.trace.open(index)
        check_opening(opening, shown.record, shown.execution_root)
        check_path_opening(
            opening,
            shown.record,
            path_root=path_root,
            binding=b"worker",
            trace_root=shown.trace_root,
        )


def test_an_opening_under_another_root_is_refused(shown: Execution) -> None:
    assert shown.record is not None
    opening = shown.trace.open(1)
    with pytest.raises(TraceInvalid, match="record"):
        check_opening(opening, change(shown.record, gas=1), shown.execution_root)
    # The number of waypoints is bound: a record with another one has another root.
    fewer = change(shown.record, waypoints=2)
    assert compute_execution_root(fewer) != shown.execution_root
    with pytest.raises(TraceInvalid):
        check_opening(opening, fewer, compute_execution_root(fewer))
    with pytest.raises(TraceInvalid, match="binding"):
        check_path_opening(
            opening,
            shown.record,
            path_root=shown.trace.path_root,
            binding=b"copier",
            trace_root=shown.trace_root,
        )


def test_a_copied_trace_does_not_fit_its_copier(shown: Execution) -> None:
    """The copier can bind the roots to itself, but its own run would have had another path."""
    copied = compute_trace_root(shown.execution_root, shown.trace.path_root, b"copier")
    from .conftest import _make

    own = run(_make(WORK.format(rounds=60_000)), b"", Limits(), binding=b"copier")
    assert own.execution_root == shown.execution_root
    assert own.trace_root != copied


def test_one_page_of_memory_can_be_shown() -> None:
    """The digest of memory is one over the digests of its pages."""
    memory = bytes(65536) + b"\1" * 65536
    pages = compute_page_digests(memoryview(memory))
    assert pages == [blake3(memory[:65536]).digest(), blake3(memory[65536:]).digest()]
    assert compute_memory_digest(pages) == blake3(pages[0] + pages[1]).digest()
    assert compute_memory_digest([]) == blake3(b"").digest()


# --- where two traces part ---------------------------------------------------------------------


def test_equal_traces_do_not_part() -> None:
    assert first_divergence(made(4), made(4)) is None
    others = Trace(made(4).waypoints, (b"x" * 8,) * 4)
    assert first_divergence(made(4), others) is None  # the path is each worker's own


@pytest.mark.parametrize("index", range(4))
def test_the_first_difference_is_found(index: int) -> None:
    trace = made(4)
    changed = [
        change(waypoint, memory=b"?" * 32, gas=waypoint.gas + (place > index))
        if place >= index
        else waypoint
        for place, waypoint in enumerate(trace.waypoints)
    ]
    start = trace.waypoints[index - 1] if index else None
    expected = Divergence(index, ("memory",), start)
    other = Trace(tuple(changed), trace.path)
    assert first_divergence(trace, other) == first_divergence(other, trace) == expected


def test_a_trace_that_ends_earlier() -> None:
    long, short = made(4), made(3)
    expected = Divergence(3, ("count",), short.waypoints[-1])
    assert first_divergence(long, short) == first_divergence(short, long) == expected
    assert first_divergence(Trace(), short) == Divergence(0, ("count",), None)


def test_two_runs_part_where_the_input_begins_to_matter(near: int, guest, in_process) -> None:
    module = guest(WORK.format(rounds=50), alloc="(i32.const 4096)")
    traces = []
    for data in (b"a", b"b"):
        states = in_process(module, data, gas_max=GAS).states
        traces.append(
            Trace(
                tuple(Waypoint(s.gas, s.pages, s.memory, s.globals) for s in states),
                tuple(s.path for s in states),
            )
        )
    divergence = first_divergence(*traces)
    assert divergence == Divergence(0, ("memory",), None)
