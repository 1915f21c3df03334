"""The operations of the ledger. To add one: write its class, and name it here.

Tags are wire format and never reused: 1 to 9 money, 10 to 19 nodes, 20 to 29 tasks, 30 to 39
proofs and verdicts, 40 to 49 settlement and anchors.
"""

from __future__ import annotations

from vcp_cluster.ledger.operations.anchors import (
    AnchorBump,
    AnchorFinal,
    AnchorHalt,
    AnchorIntent,
    AnchorLease,
    AnchorObserved,
    AnchorReseat,
    AnchorRetract,
)
from vcp_cluster.ledger.operations.base import Context, Operation
from vcp_cluster.ledger.operations.money import Mint, Stake, Transfer, Unstake
from vcp_cluster.ledger.operations.nodes import NodeReport, RegisterNode
from vcp_cluster.ledger.operations.proofs import ReportFailure, SubmitProof, SubmitVerdict
from vcp_cluster.ledger.operations.settlement import SealBatch
from vcp_cluster.ledger.operations.tasks import CancelTask, SubmitTask

AnyOperation = (
    Transfer
    | Stake
    | Unstake
    | Mint
    | RegisterNode
    | NodeReport
    | SubmitTask
    | CancelTask
    | SubmitProof
    | ReportFailure
    | SubmitVerdict
    | SealBatch
    | AnchorIntent
    | AnchorObserved
    | AnchorFinal
    | AnchorLease
    | AnchorBump
    | AnchorReseat
    | AnchorRetract
    | AnchorHalt
)

__all__ = [
    "AnchorBump",
    "AnchorFinal",
    "AnchorHalt",
    "AnchorIntent",
    "AnchorLease",
    "AnchorObserved",
    "AnchorReseat",
    "AnchorRetract",
    "AnyOperation",
    "CancelTask",
    "Context",
    "Mint",
    "NodeReport",
    "Operation",
    "RegisterNode",
    "ReportFailure",
    "SealBatch",
    "Stake",
    "SubmitProof",
    "SubmitTask",
    "SubmitVerdict",
    "Transfer",
    "Unstake",
]
