"""Which functions must keep count of the stack, and how much the others can ever use.

A function that cannot call itself, directly or through others, is on the stack at most once, so the
longest chain of such functions has a size that is known beforehand. Only functions of recursive
components pay for a counter at run time, unless that chain is too long.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from vcp_cluster.executor.wasm import opcodes as op
from vcp_cluster.executor.wasm.code import Body
from vcp_cluster.executor.wasm.module import Module, Signature

FRAME_BYTES: Final = 64
LOCAL_BYTES: Final = 16
INSTRUCTIONS_PER_BYTE: Final = 8
UNCOUNTED_BYTES_MAX: Final = 256 << 10
"""The most that functions without a counter may have on the stack at once, in counted bytes."""


@dataclass(frozen=True, slots=True)
class StackPlan:
    """`counted` are the functions that keep count, `frames` the counted bytes of each function."""

    counted: frozenset[int]
    frames: tuple[int, ...]


def compute_frame_bytes(body: Body) -> int:
    """Counted bytes of one frame: 64, 16 for each local, and one for every 8 instructions.

    A published figure, not the native size, which differs between engines: an engine is given
    sixteen times as much (`engine.py`). The share of the instructions is there for values that an
    optimiser keeps across calls.
    """
    return FRAME_BYTES + LOCAL_BYTES * body.locals + body.instructions // INSTRUCTIONS_PER_BYTE


def plan_stack(module: Module, bodies: Sequence[Body]) -> StackPlan:
    """Decide which functions of a validated module keep count. Linear in calls and functions."""
    frames = tuple(compute_frame_bytes(body) for body in bodies)
    calls = _compute_calls(module, bodies)
    recursive, deepest = _compute_components(calls, frames)
    if deepest <= UNCOUNTED_BYTES_MAX:
        return StackPlan(frozenset(recursive), frames)
    return StackPlan(frozenset(f for f in range(len(bodies)) if calls[f]), frames)


def _compute_calls(module: Module, bodies: Sequence[Body]) -> list[list[int]]:
    """Callees of each function, then of each type: whom an indirect call by that type may reach."""
    referenced = set(module.referenced)
    types: dict[Signature, int] = {}
    calls: list[list[int]] = []
    for body in bodies:
        callees: dict[int, None] = {}
        for opcode, _, _, _, operands in body.events:
            if opcode == op.CALL:
                callees[operands[0]] = None
            elif opcode == op.CALL_INDIRECT:
                signature = module.types[operands[0]]
                callees[len(bodies) + types.setdefault(signature, len(types))] = None
            elif opcode == op.REF_FUNC:
                referenced.add(operands[0])
        calls.append(list(callees))
    calls.extend([] for _ in types)
    for function in sorted(referenced):
        number = types.get(module.signature(function))
        if number is not None:
            calls[len(bodies) + number].append(function)
    return calls


def _compute_components(
    calls: Sequence[Sequence[int]], frames: Sequence[int]
) -> tuple[set[int], int]:
    """Functions that may call themselves, and the heaviest chain of all others, in bytes.

    Tarjan's algorithm with a stack of its own, since a chain of calls may be 20,000 long. It closes
    components in the order callees first, so that the weight of what lies below is known.
    """
    functions = len(frames)
    order: dict[int, int] = {}
    lowest: dict[int, int] = {}
    below: dict[int, int] = {}  # by closed node: the heaviest chain from there on
    pending: list[int] = []
    recursive: set[int] = set()
    for root in range(functions):
        if root in order:
            continue
        work = [(root, 0)]
        while work:
            node, next_call = work.pop()
            if next_call == 0:
                order[node] = lowest[node] = len(order)
                pending.append(node)
            else:
                lowest[node] = min(lowest[node], lowest[calls[node][next_call - 1]])
            for position in range(next_call, len(calls[node])):
                callee = calls[node][position]
                if callee not in order:
                    work.append((node, position + 1))
                    work.append((callee, 0))
                    break
                if callee not in below:
                    lowest[node] = min(lowest[node], order[callee])
            else:
                if lowest[node] == order[node]:
                    start = bisect_left(pending, order[node], key=order.__getitem__)
                    component = pending[start:]
                    del pending[start:]
                    _close(component, calls, frames, below, recursive)
    return recursive, max((below[root] for root in range(functions)), default=0)


def _close(
    component: Sequence[int],
    calls: Sequence[Sequence[int]],
    frames: Sequence[int],
    below: dict[int, int],
    recursive: set[int],
) -> None:
    members = set(component)
    inside = len(component) > 1 or component[0] in calls[component[0]]
    weight = max(
        (below[callee] for node in component for callee in calls[node] if callee not in members),
        default=0,
    )
    if inside:
        recursive.update(node for node in component if node < len(frames))
    elif component[0] < len(frames):
        weight += frames[component[0]]
    for node in component:
        below[node] = weight
