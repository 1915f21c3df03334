"""The process that runs tasks for a compute node."""

from vcp_cluster.cluster.worker.events import EventKind, WorkerEvent
from vcp_cluster.cluster.worker.faults import Fault
from vcp_cluster.cluster.worker.worker import run_worker

__all__ = ["EventKind", "Fault", "WorkerEvent", "run_worker"]
