"""The two roots of a run: what happened, and what happened bound to who says so.

`execution_root` covers every waypoint and with the last one the whole final memory, not only the
output: somebody who guesses a likely output without running the task cannot produce it. It shows
nothing by itself; it lets anyone who runs the task again compare one hash, and two who disagree
find the first waypoint at which they part.
"""

import msgspec
from blake3 import blake3

from vcp_cluster.executor.errors import TraceInvalid
from vcp_cluster.executor.trace import Opening
from vcp_cluster.ledger.domains import DOMAIN_EXECUTION, DOMAIN_TRACE


class ExecutionRecord(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """What `execution_root` is computed over. Hashes, roots and ids are 32 bytes.

    All but `waypoint_root` stands in the commitment as well, so whoever has the commitment and the
    waypoints has the record.
    """

    module_hash: bytes
    entry_point: str
    input_hash: bytes
    output_hash: bytes
    output_length: int
    status: int
    trap: int
    gas: int
    gas_limit: int
    profile_id: bytes
    waypoints: int
    waypoint_root: bytes


def content_hash(data: bytes) -> bytes:
    """32 bytes: plain BLAKE3, the address of modules, inputs and outputs."""
    return blake3(data).digest()


def compute_execution_root(record: ExecutionRecord) -> bytes:
    """32 bytes: BLAKE3 over the domain and the canonical MessagePack array of the record."""
    return blake3(DOMAIN_EXECUTION + msgspec.msgpack.encode(record)).digest()


def compute_trace_root(execution_root: bytes, path_root: bytes, binding: bytes) -> bytes:
    """32 bytes: the run as the one whom `binding` names went through it.

    `path_root` comes from paths that were seeded by the same binding, so that neither a copied root
    nor copied waypoints fit their copier. `binding` must have a fixed length per use (task, attempt,
    node), because it is the tail of the hashed bytes without a length of its own.
    """
    return blake3(DOMAIN_TRACE + execution_root + path_root + binding).digest()


def check_opening(opening: Opening, record: ExecutionRecord, execution_root: bytes) -> None:
    """Check that a run with this `execution_root` went through the opened waypoint.

    Raises `TraceInvalid`.
    """
    if compute_execution_root(record) != execution_root:
        raise TraceInvalid("the record is not the one that the execution root was computed over")
    opening.check(record.waypoints, record.waypoint_root)


def check_path_opening(
    opening: Opening,
    record: ExecutionRecord,
    *,
    path_root: bytes,
    binding: bytes,
    trace_root: bytes,
) -> None:
    """Check that the worker whom `binding` names had the opened path at the opened waypoint.

    Raises `TraceInvalid`.
    """
    if compute_trace_root(compute_execution_root(record), path_root, binding) != trace_root:
        raise TraceInvalid("the path root and the binding do not give the trace root")
    opening.check_path(record.waypoints, path_root)
