"""Weighted draw of a compute node in logarithmic time.

A tree of sums with 64 children at each of 3 levels holds one weight for each node's slot: 262,144
slots. Changing a weight writes 3 keys, a draw reads 3. The tree is an index: it is rebuilt from the
node records (`expected_weights` in the tests does so after every step).
"""

from __future__ import annotations

import struct

from vcp_cluster.ledger import schema
from vcp_cluster.ledger.state import Overlay

FANOUT = 64
LEVELS = 3
SLOTS_MAX = FANOUT**LEVELS
_NODE = struct.Struct(f">{FANOUT}I")
_EMPTY = bytes(_NODE.size)

# Sums are 4 bytes: all slots at the greatest weight of 10,000 basis points must fit.
assert SLOTS_MAX * 10_000 < 2**32


def _read(overlay: Overlay, level: int, index: int) -> list[int]:
    return list(_NODE.unpack(overlay.get(schema.weight_key(level, index)) or _EMPTY))


def get_weight(overlay: Overlay, slot: int) -> int:
    """The weight of a slot."""
    return _read(overlay, 0, slot // FANOUT)[slot % FANOUT]


def set_weight(overlay: Overlay, slot: int, weight: int) -> None:
    """Give a slot its weight: 0 to 10,000."""
    assert 0 <= slot < SLOTS_MAX and 0 <= weight <= 10_000
    index = slot
    value = weight
    for level in range(LEVELS):
        index, child = divmod(index, FANOUT)
        values = _read(overlay, level, index)
        if values[child] == value:
            return
        values[child] = value
        overlay.put(schema.weight_key(level, index), _NODE.pack(*values))
        value = sum(values)


def total_weight(overlay: Overlay) -> int:
    """The sum of all weights: 0 when no node can take a task."""
    return sum(_read(overlay, LEVELS - 1, 0))


def draw_slot(overlay: Overlay, randomness: bytes) -> int | None:
    """The slot that 32 random bytes point at, with probability proportional to its weight."""
    values = _read(overlay, LEVELS - 1, 0)
    total = sum(values)
    if total == 0:
        return None
    point = int.from_bytes(randomness[:16], "big") % total
    index = 0
    for level in reversed(range(LEVELS)):
        if level < LEVELS - 1:
            values = _read(overlay, level, index)
        for child, value in enumerate(values):
            if point < value:
                index = index * FANOUT + child
                break
            point -= value
    return index
