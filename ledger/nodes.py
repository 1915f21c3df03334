"""Compute nodes: health, reputation, safe mode, and who may be drawn.

health = 40 % bandwidth + 30 % latency + 20 % efficiency + 10 % reputation, in basis points.
"""

from __future__ import annotations

import msgspec

from vcp_cluster.ledger import money, schema, selection
from vcp_cluster.ledger.genesis import Parameters
from vcp_cluster.ledger.records import Node
from vcp_cluster.ledger.state import State

BASIS_POINTS = 10_000
CAPACITY_MAX = 64
_replace = msgspec.structs.replace


def compute_bandwidth_score(kbps: int) -> int:
    """min(Mbit/s, 1000) / 1000, in basis points."""
    return min(kbps, 1_000_000) // 100


def compute_latency_score(microseconds: int) -> int:
    """max(0, 1 - ms/100) with ms at least 1, in basis points."""
    return max(0, BASIS_POINTS - max(microseconds, 1_000) // 10)


def compute_efficiency_score(mflops_per_watt: int) -> int:
    """min(GFLOPS/W, 10) / 10, in basis points."""
    return min(mflops_per_watt, 10_000)


def compute_health(node: Node) -> int:
    """The health of a node, 0 to 10,000."""
    return (
        40 * compute_bandwidth_score(node.bandwidth_kbps)
        + 30 * compute_latency_score(node.latency_us)
        + 20 * compute_efficiency_score(node.efficiency_mflops_w)
        + 10 * node.reputation
    ) // 100


def is_breach(node: Node, parameters: Parameters) -> bool:
    """Whether a node's last report or its errors call for safe mode."""
    return (
        node.temperature_mc > parameters.safe_temperature_mc
        or node.latency_us > parameters.safe_latency_us
        or node.errors_in_row >= parameters.safe_errors
    )


def is_eligible(state: State, identity: bytes, node: Node) -> bool:
    """Whether a node may be drawn for a task now."""
    return (
        node.is_online
        and not node.is_safe_mode
        and node.running < node.capacity
        and money.stake(state, identity) >= state.genesis.parameters.stake_min
    )


def put_node(state: State, identity: bytes, node: Node) -> None:
    """Write a node with its health, and give its slot the weight that follows."""
    node = _replace(node, health=compute_health(node))
    state.put_node(identity, node)
    weight = node.health if is_eligible(state, identity, node) else 0
    selection.set_weight(state.overlay, node.slot, weight)


def refresh_weight(state: State, identity: bytes) -> None:
    """Bring a node's weight up to date after its stake changed; nothing if it is no node."""
    node = state.get_node(identity)
    if node is not None:
        put_node(state, identity, node)


def record_error(node: Node, parameters: Parameters, reputation_cost: int) -> Node:
    """The node after an error of its own: a missed deadline, a failure, a rejected proof."""
    node = _replace(
        node,
        reputation=max(0, node.reputation - reputation_cost),
        errors_in_row=node.errors_in_row + 1,
    )
    if is_breach(node, parameters):
        node = _replace(node, is_safe_mode=True, good_reports=0)
    return node


def record_success(node: Node, parameters: Parameters) -> Node:
    """The node after an accepted proof."""
    return _replace(
        node,
        reputation=min(BASIS_POINTS, node.reputation + parameters.reputation_accepted),
        errors_in_row=0,
    )


def count_nodes(state: State) -> int:
    """How many slots are taken."""
    data = state.overlay.get(schema.NODE_COUNT)
    return 0 if data is None else int.from_bytes(data, "big")


def take_slot(state: State, identity: bytes) -> int:
    """Give a new node the next slot of the selection tree."""
    slot = count_nodes(state)
    state.overlay.put(schema.NODE_COUNT, schema.u64(slot + 1))
    state.overlay.put(schema.SLOT + schema.u32(slot), identity)
    return slot


def get_node_in_slot(state: State, slot: int) -> bytes:
    """The id of the node in a slot."""
    identity = state.overlay.get(schema.SLOT + schema.u32(slot))
    assert identity is not None, "a weight above zero belongs to a node"
    return identity
