"""SealBatch."""

from __future__ import annotations

from vcp_cluster.ledger import settlement
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Unsigned
from vcp_cluster.ledger.operations.base import Context, Operation


class SealBatch(Operation, tag=40, frozen=True):
    """Close the open batch: its rewards become available."""

    batch: Unsigned

    def check(self, context: Context) -> Code:
        """NOT_A_MEMBER, BATCH_NOT_OPEN, BATCH_EMPTY."""
        if not context.is_member:
            return Code.NOT_A_MEMBER
        open_batch = context.state.get_settlement()
        if open_batch.batch != self.batch:
            return Code.BATCH_NOT_OPEN
        if open_batch.count == 0:
            return Code.BATCH_EMPTY
        return Code.OK

    def effect(self, context: Context) -> None:
        """pending → available for everyone in the batch."""
        settlement.seal(context.state, head=context.head, root=context.root)
