"""Which results of vector arithmetic nobody sees but more arithmetic of the same kind.

Arithmetic, comparisons and conversions make nothing of the bits of a NaN, so a result that goes
straight into one of them need not be canonical. It is followed on the stack, through instructions
whose effect on the height is known; at the first other one it counts as visible.
"""

from typing import Final

from vcp_cluster.executor.wasm import opcodes as op

WATCHED_MAX: Final = 16
"""Results followed at the same time; the oldest one counts as visible when there are more."""


def _effects() -> dict[int, tuple[int, int]]:
    """Values taken and left, by opcode."""
    effects: dict[int, tuple[int, int]] = {}
    rows: tuple[tuple[int, int, tuple[int, ...]], ...] = (
        (0, 1, (0x20, 0x23, *range(0x41, 0x45))),  # local.get, global.get, constants
        (1, 0, (0x21,)),
        (1, 1, (0x22, *range(0x28, 0x36))),  # local.tee, loads
        (1, 1, (0x45, 0x50, 0x67, 0x68, 0x69, 0x79, 0x7A, 0x7B, *range(0x8B, 0x92))),
        (1, 1, (*range(0x99, 0xA0), *range(0xA7, 0xC5))),
        (2, 1, (*range(0x46, 0x50), *range(0x51, 0x67), *range(0x6A, 0x79))),
        (2, 1, (*range(0x7C, 0x8B), *range(0x92, 0x99), *range(0xA0, 0xA7))),
        (0, 1, (0xFD0C,)),
        (1, 1, (*range(0xFD00, 0xFD0B), 0xFD5C, 0xFD5D)),  # loads
        (2, 1, (0xFD0D, 0xFD0E)),
        (1, 1, tuple(range(0xFD0F, 0xFD15))),  # splats
        (1, 1, (0xFD15, 0xFD16, 0xFD18, 0xFD19, 0xFD1B, 0xFD1D, 0xFD1F, 0xFD21)),
        (2, 1, (0xFD17, 0xFD1A, 0xFD1C, 0xFD1E, 0xFD20, 0xFD22)),
        (2, 1, (*range(0xFD23, 0xFD4D), *range(0xFD4E, 0xFD52))),  # comparisons, and, or, xor
        (1, 1, (0xFD4D, 0xFDE0, 0xFDE1, 0xFDEC, 0xFDED, *range(0xFDF8, 0xFE00))),
        (1, 1, (0xFD5E, 0xFD5F, 0xFD67, 0xFD68, 0xFD69, 0xFD6A, 0xFD74, 0xFD75, 0xFD7A, 0xFD94)),
        (1, 1, (0xFDE3, 0xFDEF)),  # square roots
        (2, 1, (*range(0xFDE4, 0xFDEC), *range(0xFDF0, 0xFDF8))),
    )
    for taken, left, codes in rows:
        effects.update(dict.fromkeys(codes, (taken, left)))
    return effects


_EFFECTS: Final = _effects()


class LaneWatch:
    """Follows results from where they are left to where they are taken, in one straight run."""

    def __init__(self) -> None:
        self.active = False
        """Whether anything is followed."""
        self.unseen: set[int] = set()
        """Places of the events whose results turned out to be seen by no one else."""
        self._watched: list[tuple[int, int, frozenset[int]]] = []

    def watch(self, place: int, opcode: int) -> None:
        """Follow the result of vector arithmetic, which is event number `place`."""
        blind = op.F32X4_BLIND if opcode in op.F32X4_ARITHMETIC else op.F64X2_BLIND
        self._watched = [*self._watched[1 - WATCHED_MAX :], (place, 0, blind)]
        self.active = True

    def step(self, opcode: int) -> None:
        """Take note of the next instruction."""
        effect = _EFFECTS.get(opcode)
        still = []
        if effect is not None:
            taken, left = effect
            for place, above, blind in self._watched:
                if taken <= above:
                    still.append((place, above - taken + left, blind))
                elif opcode in blind:
                    self.unseen.add(place)
        self._watched = still
        self.active = bool(still)
