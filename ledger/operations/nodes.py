"""RegisterNode, NodeReport."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from vcp_cluster.ledger import money, nodes, tasks
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import SignedTelemetry
from vcp_cluster.ledger.domains import DOMAIN_TELEMETRY
from vcp_cluster.ledger.encoding import Key, ShortText, Unsigned, encode
from vcp_cluster.ledger.operations.base import Context, Operation, SignatureClaim
from vcp_cluster.ledger.records import RECORD_VERSION, AssignmentOutcome, Node

_replace = msgspec.structs.replace

# A report may be this much ahead of ledger time: the node's clock is not the leader's.
REPORT_AHEAD_MS_MAX = 60_000


class RegisterNode(Operation, tag=10, frozen=True):
    """Register the sender's key as a compute node.

    It is drawn for tasks once a member has measured it (`NodeReport`).
    """

    device: ShortText
    capacity: Unsigned

    def check(self, context: Context) -> Code:
        """NODE_EXISTS, NODE_LIMIT, CAPACITY_INVALID."""
        if context.state.get_node(context.account) is not None:
            return Code.NODE_EXISTS
        if nodes.count_nodes(context.state) >= context.genesis.parameters.nodes_max:
            return Code.NODE_LIMIT
        if not 1 <= self.capacity <= nodes.CAPACITY_MAX:
            return Code.CAPACITY_INVALID
        return Code.OK

    def effect(self, context: Context) -> None:
        """A node that is offline until its first report."""
        money.ensure_account(context.state, context.account)
        node = Node(
            version=RECORD_VERSION,
            slot=nodes.take_slot(context.state, context.account),
            device=self.device,
            capacity=self.capacity,
            registered_height=context.head.height,
            report_ms=0,
            reporter=b"",
            is_online=False,
            is_safe_mode=False,
            power_mw=0,
            temperature_mc=0,
            carbon_g_kwh=0,
            bandwidth_kbps=0,
            latency_us=0,
            efficiency_mflops_w=0,
            health=0,
            reputation=context.genesis.parameters.reputation_initial,
            running=0,
            undecided=0,
            proofs=0,
            accepted=0,
            rejected=0,
            failed=0,
            errors_in_row=0,
            good_reports=0,
        )
        nodes.put_node(context.state, context.account, node)


class NodeReport(Operation, tag=11, frozen=True):
    """A member's word about a node: what it measured, and what the node declares and signs.

    Declared values can lower a score, never raise it above the measured one.
    """

    node: Key
    is_online: bool
    measured_bandwidth_kbps: Unsigned
    measured_latency_us: Unsigned
    declared: SignedTelemetry

    def signatures(self, chain_id: bytes) -> Iterator[SignatureClaim]:
        """The node's over its telemetry."""
        yield (
            self.declared.telemetry.node,
            DOMAIN_TELEMETRY,
            encode(self.declared.telemetry),
            self.declared.signature,
        )

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, INNER_SIGNATURE_INVALID, NODE_NOT_FOUND, REPORT_…, REPORTER_MISMATCH."""
        if not context.is_member:
            return Code.NOT_A_MEMBER
        if not context.is_inner_signed:
            return Code.INNER_SIGNATURE_INVALID
        node = context.state.get_node(self.node)
        if node is None:
            return Code.NODE_NOT_FOUND
        telemetry = self.declared.telemetry
        if telemetry.node != self.node or telemetry.chain_id != context.chain_id:
            return Code.REPORT_NOT_FOR_NODE
        if not node.report_ms <= telemetry.time_ms <= context.head.time_ms + REPORT_AHEAD_MS_MAX:
            return Code.REPORT_STALE
        if not self.is_online and node.reporter != context.account:
            return Code.REPORTER_MISMATCH
        return Code.OK

    def effect(self, context: Context) -> None:
        """New telemetry, safe mode with hysteresis; a silent node loses its assignments."""
        state = context.state
        node = state.get_node(self.node)
        assert node is not None, "checked"
        telemetry = self.declared.telemetry
        node = _replace(
            node,
            report_ms=telemetry.time_ms,
            reporter=context.account,
            is_online=self.is_online,
            power_mw=telemetry.power_mw,
            temperature_mc=telemetry.temperature_mc,
            carbon_g_kwh=telemetry.carbon_g_kwh,
            bandwidth_kbps=min(telemetry.bandwidth_kbps, self.measured_bandwidth_kbps),
            latency_us=max(telemetry.latency_us, self.measured_latency_us),
            efficiency_mflops_w=telemetry.efficiency_mflops_w,
        )
        nodes.put_node(state, self.node, self._with_safe_mode(node, context))
        if not self.is_online:
            self._release_assignments(context)

    def _with_safe_mode(self, node: Node, context: Context) -> Node:
        parameters = context.genesis.parameters
        too_hot = node.temperature_mc > parameters.safe_temperature_mc
        too_slow = node.latency_us > parameters.safe_latency_us
        if too_hot or too_slow:
            return _replace(node, is_safe_mode=True, good_reports=0)
        if not node.is_safe_mode or not self.is_online:
            return node
        good = node.good_reports + 1
        if good < parameters.safe_reports:
            return _replace(node, good_reports=good)
        # Errors in a row are forgiven on the way out, or the next report would send it back.
        return _replace(node, is_safe_mode=False, good_reports=0, errors_in_row=0)

    def _release_assignments(self, context: Context) -> None:
        state = context.state
        for identity in tasks.get_running(state, self.node):
            task = state.get_task(identity)
            assert task is not None, "the index names tasks"
            task = tasks.end_assignment(
                state, identity, task, AssignmentOutcome.RELEASED, detail="the node went silent"
            )
            tasks.reopen(state, identity, task, head=context.head)
