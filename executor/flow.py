"""Where control goes in one body: what the rewriter must know before it writes.

Dead code (behind an unconditional transfer, up to the end of its block) leaves here: it never
runs, so it is not copied either.
"""

from dataclasses import dataclass
from typing import Final

from vcp_cluster.executor.wasm import opcodes as op
from vcp_cluster.executor.wasm.code import Body, Event

SMALL_LOOP_GAS: Final = 96
"""An innermost loop without calls and with at most so much gas from head to end is *small*."""

DEAD: Final = -1
"""Stands for the gas before an event when control cannot come from there."""

LEAVES: Final = frozenset((op.BR, op.BR_TABLE, op.RETURN, op.UNREACHABLE))
"""Instructions behind which control does not go on."""

_BRANCHES: Final = frozenset((op.BR, op.BR_IF, op.BR_TABLE))
_OPENERS: Final = frozenset((op.BLOCK, op.LOOP, op.IF))


@dataclass(frozen=True, slots=True)
class Flow:
    """The live events of a body and a mark for each.

    The mark of a `loop` says whether it is small, that of an `end` whether other control joins
    there; it is false for every other event.
    """

    events: list[Event]
    marks: list[bool]
    leaves_early: bool
    """Whether some live branch leaves the function before its last `end`."""
    calls: bool
    loops: bool


@dataclass(slots=True)
class _Open:
    """A block that is open while the events are read."""

    opcode: int
    place: int
    """Of its first event among the live ones."""
    gas: int
    """Of the body up to its first instruction."""
    joined: bool = False
    """Whether a branch goes to its end."""
    holds: bool = False
    """Whether it holds a call or a loop."""


def compute_flow(body: Body) -> Flow:
    """The flow of a validated body."""
    events: list[Event] = []
    marks: list[bool] = []
    open_blocks = [_Open(op.BLOCK, 0, 0)]
    gas = 0
    calls = loops = False
    for event in _live(body.events):
        opcode, _, _, before, operands = event
        gas += max(before, 0) + (opcode not in op.FREE)
        mark = False
        if opcode in _BRANCHES:
            for label in operands:
                target = open_blocks[-1 - label]
                target.joined = target.joined or target.opcode != op.LOOP
        elif opcode in _OPENERS:
            open_blocks.append(_Open(opcode, len(events), gas))
        elif opcode in (op.CALL, op.CALL_INDIRECT):
            calls = open_blocks[-1].holds = True
        elif opcode == op.END:
            closed = open_blocks.pop()
            mark = closed.joined or closed.opcode == op.IF
            if closed.opcode == op.LOOP:
                loops = True
                marks[closed.place] = not closed.holds and gas - closed.gas <= SMALL_LOOP_GAS
            if open_blocks and (closed.holds or closed.opcode == op.LOOP):
                open_blocks[-1].holds = True
        events.append(event)
        marks.append(mark)
    return Flow(events, marks, leaves_early=marks[-1], calls=calls, loops=loops)


def _live(events: tuple[Event, ...]) -> list[Event]:
    """The events that control can reach; the first one behind dead code is marked as such."""
    live: list[Event] = []
    dead = False
    depth = 0
    for event in events:
        opcode = event[0]
        if dead:
            if opcode in _OPENERS:
                depth += 1
            elif opcode == op.END and depth:
                depth -= 1
            elif opcode in (op.ELSE, op.END) and not depth:
                live.append((opcode, event[1], event[2], DEAD, event[4]))
                dead = False
            continue
        live.append(event)
        dead = opcode in LEAVES
    return live
