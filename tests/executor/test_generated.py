"""Generated modules: equal on every back end, and the same as the engine alone makes of them."""

import pytest
from wasmtime import Config, Engine, Instance, Module, Store

from vcp_cluster.executor import Status, check_module
from vcp_cluster.executor import trace as trace_module
from vcp_cluster.executor.engine import set_checked
from vcp_cluster.executor.profile import FEATURES
from vcp_cluster.executor.trace import compute_memory_digest, compute_page_digests

from .generator import Options, make_module

SEEDS = 180
BATCH = 20
PURE = Options(raw_floats=False, bulk=False, traps=False)
"""Without what the engine itself counts or leaves open: fuel of bulk work, payloads of NaNs."""
GAS = 300_000


@pytest.mark.parametrize("first", range(0, SEEDS, BATCH))
def test_back_ends_and_optimisation_levels_agree(first: int, in_process, monkeypatch) -> None:
    """On everything, with waypoints so near to each other that most runs have several."""
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_MIN", 1_500)
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_PER_BYTE", 0)
    for seed in range(first, first + BATCH):
        module = make_module(seed)
        check_module(module)
        gas = 20_000 if seed % 4 == 0 else GAS
        results = [
            in_process(module, b"input", gas_max=gas, backend=backend, opt_level=opt_level)
            for backend, opt_level in (
                ("cranelift", "speed"),
                ("cranelift", "none"),
                ("pulley", "speed"),
            )
        ]
        one, *others = [
            (item.status, item.trap, item.output, item.gas, item.states) for item in results
        ]
        for other in others:
            assert one == other, f"seed {seed}"


def test_the_generator_reaches_most_ends_and_long_traces(in_process, monkeypatch) -> None:
    """So that the equality above is about something."""
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_MIN", 1_500)
    monkeypatch.setattr(trace_module, "WAYPOINT_GAS_PER_BYTE", 0)
    results = [in_process(make_module(seed), b"input", gas_max=20_000) for seed in range(60)]
    assert {item.status for item in results} >= {Status.OK, Status.TRAP, Status.OUT_OF_GAS}
    assert len({item.trap for item in results}) >= 4
    assert max(len(item.states) for item in results) >= 10
    assert make_module(7) == make_module(7) != make_module(8)


@pytest.fixture(scope="module")
def fuelled() -> Engine:
    """The engine with its own meter and its own canonical NaNs."""
    config = Config()
    for name, value in FEATURES:
        set_checked(config, name, value)
    set_checked(config, "consume_fuel", True)
    set_checked(config, "cranelift_nan_canonicalization", True)
    return Engine(config)


@pytest.mark.parametrize("first", range(0, 100, BATCH))
def test_gas_output_and_memory_equal_those_of_the_original(
    first: int, fuelled: Engine, in_process
) -> None:
    """The engine's fuel is an independent count of the same table on code without bulk work."""
    for seed in range(first, first + BATCH):
        module = make_module(seed, PURE)
        ours = in_process(module, b"input", gas_max=GAS)
        if ours.status == Status.OUT_OF_GAS:
            continue
        assert ours.status == Status.OK, f"seed {seed}"
        store = Store(fuelled)
        store.set_fuel(GAS)
        exports = Instance(store, Module(fuelled, module), []).exports(store)
        memory = exports["memory"]
        pointer = exports["vcp_alloc"](store, 5)
        memory.write(store, b"input", pointer)
        answer = exports["vcp_run"](store, pointer, 5)
        assert ours.gas == GAS - store.get_fuel(), f"seed {seed}"
        content = memory.read(store, 0, memory.data_len(store))
        digest = compute_memory_digest(compute_page_digests(memoryview(content)))
        assert ours.states[-1].memory == digest, f"seed {seed}"
        assert ours.output == bytes(content[answer >> 32 : (answer >> 32) + (answer & 0xFFFFFFFF)])
