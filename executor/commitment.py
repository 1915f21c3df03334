"""The two roots of a run: what happened, and what happened bound to who says so.

`execution_root` covers the whole final memory and the exported mutable globals, not only the
output: somebody who guesses a likely output without running the task cannot produce it. It
shows nothing by itself; it lets anyone who runs the task again compare one hash.
"""

from collections.abc import Sequence

import msgspec
from blake3 import blake3

from vcp_cluster.ledger.domains import DOMAIN_EXECUTION, DOMAIN_TRACE


def content_hash(data: bytes) -> bytes:
    """32 bytes: plain BLAKE3, the address of modules, inputs and outputs."""
    return blake3(data).digest()


def compute_execution_root(
    *,
    module_hash: bytes,
    entry_point: str,
    input_hash: bytes,
    output: bytes,
    status: int,
    trap: int,
    gas: int,
    gas_limit: int,
    profile_id: bytes,
    memory_pages: int,
    memory_digest: bytes,
    globals_: Sequence[tuple[str, bytes]],
) -> bytes:
    """32 bytes: BLAKE3 over the domain and the canonical MessagePack array of these values.

    Hashes, `profile_id` and `memory_digest` are 32 bytes; `memory_pages` counts pages of 64 KiB;
    `globals_` are (export name, little-endian bit pattern) in the module's export order.
    """
    record = [
        module_hash,
        entry_point,
        input_hash,
        content_hash(output),
        len(output),
        status,
        trap,
        gas,
        gas_limit,
        profile_id,
        memory_pages,
        memory_digest,
        [[name, bits] for name, bits in globals_],
    ]
    return blake3(DOMAIN_EXECUTION + msgspec.msgpack.encode(record)).digest()


def compute_trace_root(execution_root: bytes, binding: bytes) -> bytes:
    """32 bytes: `execution_root` bound to `binding`, so that a copied root does not fit its copier.

    `binding` must have a fixed length per use (task, attempt, node), because it is the tail of
    the hashed bytes without a length of its own.
    """
    return blake3(DOMAIN_TRACE + execution_root + binding).digest()
