"""The notary's memory: a member cosigns only what extends all that it cosigned before.

The last checkpoint of each log is on disk, flushed, before a signature over it leaves the member.
Whoever holds a majority of cosignatures over two histories that do not extend one another holds
proof that members lied, because a member that follows this file cannot give both.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from vcp_cluster.cluster.door.context import Ledger, Reader
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import NOTARY
from vcp_cluster.ledger.anchors.notary import batch_origin, transaction_origin
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.merkle import (
    RFC9162,
    NodeReader,
    ProofInvalid,
    check_consistency,
    check_inclusion,
    consistency_proof,
    inclusion_proof,
)
from vcp_cluster.ledger.notes import Checkpoint, NoteError, sign_cosignature
from vcp_cluster.ledger.records import Anchor, AnchorLane, AnchorStatus

FILE_BYTES_MAX = 16 * 1024
ANCHOR_WAIT_S = 5.0
_BODY_LINES = 3
_NO_HASH = bytes(32)

logger = logging.getLogger(__name__)


class CosignRefused(Exception):
    """This member does not cosign; the message says why and what to do next."""


class _Signed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    size: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    root: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class _Memory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    schema: Annotated[str, Meta(pattern="^vcp/notary/v1$")]
    checkpoints: Annotated[dict[str, _Signed], Meta(max_length=16)]


class NotaryKeeper:
    """Cosigns pending anchors for one member. `path` is its `notary.json`.

    A missing file means that the member never cosigned. Only one process may use a file.
    """

    def __init__(
        self, path: Path, ledger: Ledger, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._ledger = ledger
        self._now_s = now_s
        self._lock = asyncio.Lock()

    async def cosign(self, size: int, *, timeout_s: float = ANCHOR_WAIT_S) -> tuple[str, str]:
        """Cosignature lines of the batch log and the transaction log for the anchor at `size`.

        Waits up to `timeout_s` for this member to apply the intent. Raises `CosignRefused`.
        """
        anchor = await self._wait_pending(size, timeout_s)
        async with self._lock:
            checkpoints = parse_checkpoints(self._ledger.genesis, anchor)
            memory = await asyncio.to_thread(_load, self._path)
            prefixes = (schema.HEADER_TREE, schema.LOG_TREE)
            for checkpoint, prefix in zip(checkpoints, prefixes, strict=True):
                last = memory.checkpoints.get(checkpoint.origin)
                await _check_extends(self._ledger, prefix, checkpoint, last)
            signed = {one.origin: _Signed(one.size, one.root.hex()) for one in checkpoints}
            memory = _Memory("vcp/notary/v1", {**memory.checkpoints, **signed})
            try:
                await asyncio.to_thread(_save, self._path, memory)
            except OSError as error:
                raise CosignRefused(
                    f"cannot keep what would be signed in {self._path.name}: {error.strerror}. "
                    "Next: make room on the member's disk"
                ) from None
            batch, transaction = (self._sign(checkpoint) for checkpoint in checkpoints)
        return batch, transaction

    def _sign(self, checkpoint: Checkpoint) -> str:
        ledger = self._ledger
        time_s = int(self._now_s())
        cosignature = sign_cosignature(ledger.seed, ledger.member.name, checkpoint, time_s)
        return cosignature.line().decode().removesuffix("\n")

    async def _wait_pending(self, size: int, timeout_s: float) -> Anchor:
        """The anchor at `size`, as soon as it is pending in this member's own ledger."""
        if not 1 <= size < 2**63:
            raise CosignRefused(f"{size} is not a size of the batch log. Next: see `batch list`")
        deadline = time.monotonic() + timeout_s
        while True:
            height = self._ledger.height
            lane_data, stored = await self._ledger.get(
                schema.lane_key(NOTARY), schema.anchor_key(NOTARY, size)
            )
            if lane_data is None:
                raise CosignRefused("this cluster has no notary. Next: see `anchor status`")
            lane = decode_stored(AnchorLane, lane_data)
            if stored is not None:
                anchor = decode_stored(Anchor, stored)
                is_pending = anchor.status == AnchorStatus.PENDING
                if is_pending and lane.pending == size:
                    return anchor
                raise CosignRefused(
                    f"the anchor at size {size} is {AnchorStatus(anchor.status).name.lower()}, "
                    "not pending. Next: nothing, it has its cosignatures"
                )
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise CosignRefused(
                    f"no anchor at size {size} is pending at height {height} of this member. "
                    "Next: ask again when it has caught up"
                )
            await self._ledger.wait_height(height, left_s)


def parse_checkpoints(genesis: Genesis, anchor: Anchor) -> tuple[Checkpoint, Checkpoint]:
    """The checkpoints (batch log, transaction log) that a notary anchor publishes.

    Raises `CosignRefused` when it is not a notary's anchor of this cluster.
    """
    lines = anchor.raws[0].split(b"\n")
    try:
        if anchor.backend != NOTARY or len(lines) != 2 * _BODY_LINES + 1:
            raise NoteError("not the two checkpoints of a notary anchor")
        batch = Checkpoint.parse(b"\n".join(lines[:_BODY_LINES]) + b"\n")
        transaction = Checkpoint.parse(b"\n".join(lines[_BODY_LINES:]))
    except NoteError as error:
        raise CosignRefused(f"the anchor at size {anchor.size}: {error}") from None
    origins = (batch_origin(genesis), transaction_origin(genesis))
    if (batch.origin, transaction.origin) != origins or batch.size != anchor.size:
        raise CosignRefused(f"the anchor at size {anchor.size} is of another log or size")
    return batch, transaction


async def _check_extends(
    reader: Reader, prefix: bytes, checkpoint: Checkpoint, last: _Signed | None
) -> None:
    """Check a checkpoint against this member's own tree and against what it signed last."""
    size = checkpoint.size
    known = _Signed(0, RFC9162.empty().hex()) if last is None else last
    if known.size > size:
        raise CosignRefused(
            f"{checkpoint.origin}: this member cosigned size {known.size}, and will not cosign the "
            f"smaller {size}. Next: find out who lost history; keep both checkpoints as evidence"
        )

    def prove(read: NodeReader) -> tuple[tuple[bytes, ...], tuple[bytes, ...], bytes]:
        own = inclusion_proof(RFC9162, read, size - 1, size) if size else ()
        leaf = read(0, size - 1) if size else _NO_HASH
        return own, consistency_proof(RFC9162, read, known.size, size), leaf

    own, extension, leaf = prove(await _read_tree(reader, prefix, prove))
    try:
        if size:
            # The path of the last leaf runs over all of this member's tree: its root is the root.
            check_inclusion(RFC9162, leaf, size - 1, size, own, checkpoint.root)
        old_root = bytes.fromhex(known.root)
        check_consistency(RFC9162, known.size, size, old_root, checkpoint.root, extension)
    except ProofInvalid as error:
        logger.error("refused to cosign %s at size %d: %s", checkpoint.origin, size, error)
        raise CosignRefused(
            f"{checkpoint.origin} at size {size} does not extend what this member holds and "
            f"cosigned (size {known.size}): {error}. Next: compare the members' state roots with "
            "`vcp-cluster status`, and keep notary.json as evidence"
        ) from None


async def _read_tree(
    reader: Reader, prefix: bytes, prove: Callable[[NodeReader], object]
) -> NodeReader:
    """The tree nodes that `prove` asks for, read at once.

    Which ones it asks for depends on sizes alone, so a run on empty hashes names them.
    """
    wanted: dict[tuple[int, int], bytes] = {}

    def note(level: int, index: int) -> bytes:
        wanted[level, index] = schema.tree_key(prefix, level, index)
        return _NO_HASH

    prove(note)
    values = dict(zip(wanted, await reader.get(*wanted.values()), strict=True))

    def read(level: int, index: int) -> bytes:
        value = values[level, index]
        if value is None:
            raise CosignRefused(
                "this member does not hold the whole log. Next: ask again when it has caught up"
            )
        return value

    return read


def _load(path: Path) -> _Memory:
    """What this member cosigned last; raise `CosignRefused` when that cannot be known."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _Memory("vcp/notary/v1", {})
    except OSError as error:
        raise _unreadable(path, str(error.strerror)) from None
    if len(data) > FILE_BYTES_MAX:
        raise _unreadable(path, f"it has {len(data)} bytes")
    try:
        return msgspec.json.decode(data, type=_Memory)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _unreadable(path, str(error)) from None


def _unreadable(path: Path, why: str) -> CosignRefused:
    return CosignRefused(
        f"{path} cannot be read ({why}), so this member cannot know what it cosigned. "
        "Next: restore it from a backup; only if there is none, and the other members' "
        "checkpoints agree with this member's, move it away and start again"
    )


def _save(path: Path, memory: _Memory) -> None:
    """Replace the file atomically, and return only when that is durable. Raises `OSError`."""
    text = json.dumps(msgspec.to_builtins(memory), indent=2, sort_keys=True) + "\n"
    temporary = path.with_name(path.name + ".new")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
