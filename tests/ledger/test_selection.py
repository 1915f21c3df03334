"""The draw of compute nodes: proportional to weight, and as cheap among 100,000 as among three."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from ledger_harness.indexes import weight_tree

from vcp_cluster.ledger import schema, selection
from vcp_cluster.ledger.keys import hash_content
from vcp_cluster.ledger.schema import u64
from vcp_cluster.ledger.state import MemoryStore, Overlay

DRAWS = 20_000


class CountingStore(MemoryStore):
    """A memory store that remembers which keys were read."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        """Read, and remember it."""
        self.reads.append(key)
        return super().get(key)

    def iterate(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Nothing here may need a scan."""
        raise AssertionError(f"the draw scans {prefix!r}")


def overlay_of(weights: dict[int, int]) -> Overlay:
    """The selection tree set slot by slot, as nodes come and change."""
    overlay = Overlay(MemoryStore())
    for slot, weight in weights.items():
        selection.set_weight(overlay, slot, weight)
    return overlay


def randomness(number: int) -> bytes:
    """Fixed seeds."""
    return hash_content(b"draw" + u64(number))


@pytest.mark.parametrize(
    "weights",
    [
        {0: 1, 1: 2, 2: 3, 3: 4},
        {slot: 100 * (slot % 7) for slot in range(100)},
        {0: 10_000, 63: 1, 64: 5_000, 4_095: 2_500, 4_096: 2_500, 262_143: 10_000},
        {slot: 5_610 for slot in range(0, 5_000, 50)},
    ],
    ids=["few", "many, some zero", "corners", "alike"],
)
def test_draws_are_proportional_to_weight(weights: dict[int, int]) -> None:
    """Pearson's chi-squared over fixed seeds, five standard deviations from its mean at most."""
    overlay = overlay_of(weights)
    total = sum(weights.values())
    assert selection.total_weight(overlay) == total
    drawn = Counter(selection.draw_slot(overlay, randomness(number)) for number in range(DRAWS))
    positive = {slot: weight for slot, weight in weights.items() if weight}
    assert drawn.keys() <= positive.keys(), "a slot without weight was drawn"
    squared = 0.0
    for slot, weight in positive.items():
        expected = DRAWS * weight / total
        squared += (drawn[slot] - expected) ** 2 / expected
    freedom = len(positive) - 1
    assert squared < freedom + 5 * (2 * freedom) ** 0.5


def test_every_point_belongs_to_its_slot() -> None:
    """Not only in the mean: each of the possible points draws the slot it lies in."""
    weights = {3: 2, 64: 1, 65: 3, 5_000: 2}
    overlay = overlay_of(weights)
    expected = [slot for slot, weight in weights.items() for _ in range(weight)]
    drawn = [
        selection.draw_slot(overlay, point.to_bytes(16, "big") + bytes(16))
        for point in range(sum(weights.values()))
    ]
    assert drawn == expected


def test_nothing_is_drawn_from_nothing() -> None:
    """No node, or none that may be drawn."""
    assert selection.draw_slot(overlay_of({}), randomness(0)) is None
    overlay = overlay_of({5: 10_000})
    selection.set_weight(overlay, 5, 0)
    assert selection.draw_slot(overlay, randomness(0)) is None


def test_a_hundred_thousand_nodes() -> None:
    """A draw reads 3 keys, a change reads and writes 3; the sums stay right."""
    weights = {slot: 1 + slot % 10_000 for slot in range(100_000)}
    store = CountingStore()
    store.commit(list(weight_tree(weights).items()))
    for number in range(200):
        overlay = Overlay(store)
        store.reads.clear()
        assert selection.draw_slot(overlay, randomness(number)) in weights
        assert len(store.reads) == 3
        assert all(key.startswith(schema.WEIGHT) for key in store.reads)
    overlay = Overlay(store)
    for slot in (0, 63, 64, 50_000, 99_999):
        store.reads.clear()
        selection.set_weight(overlay, slot, 0)
        assert len(store.reads) <= 3
        weights[slot] = 0
    assert len(overlay.changes) <= 15
    store.commit(list(overlay.changes.items()))
    assert selection.total_weight(Overlay(store)) == sum(weights.values())


def test_setting_slot_by_slot_gives_the_tree_of_all() -> None:
    """The tree does not depend on the order of changes, nor on what was there before."""
    weights = {slot: slot * 37 % 10_001 for slot in (0, 1, 63, 64, 4_095, 4_096, 99_999)}
    one = overlay_of(weights)
    other = overlay_of(dict.fromkeys(weights, 77) | dict(reversed(weights.items())))
    empty = bytes(4 * selection.FANOUT)
    for overlay in (one, other):
        held = {name: value for name, value in overlay.iterate(schema.WEIGHT) if value != empty}
        assert held == weight_tree(weights)
