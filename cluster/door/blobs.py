"""Blobs in the cluster: uploaded to one member, kept by a majority, fetched by hash from any.

An upload is answered with attestations, the members' signed word that they hold the blob on disk.
SubmitTask and SubmitProof carry them, and `apply` wants a majority of them. A member that missed a
push gets the blob from the others when somebody asks it for one that the ledger refers to.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable
from typing import Any

from vcp_cluster.cluster.clock import wall_ms
from vcp_cluster.cluster.door.blob_store import BlobStore
from vcp_cluster.cluster.door.context import Ledger, Reader
from vcp_cluster.cluster.door.peers import Credentials, PeerError, Peers, check_time, unauthorised
from vcp_cluster.cluster.door.problems import Problem, bad_request, unavailable
from vcp_cluster.cluster.errors import VcpError
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.commitments import Attestation, attest_blob
from vcp_cluster.ledger.domains import DOMAIN_UPLOAD
from vcp_cluster.ledger.encoding import decode_stored, encode
from vcp_cluster.ledger.genesis import Member, majority, member_names
from vcp_cluster.ledger.keys import hash_content, is_signed
from vcp_cluster.ledger.records import Account

__all__ = ["BlobService", "BlobStore", "find_referenced"]

UNREFERENCED_AGE_S = 600.0
SWEEP_INTERVAL_S = 60.0
UPLOADS_MAX = 32
FETCHES_MAX = 8
BACKGROUND_BYTES_MAX = 64 << 20
_PAGE = 1_000

logger = logging.getLogger(__name__)


class BlobService:
    """Upload, attestation, fetching and sweeping of blobs for one member."""

    def __init__(
        self,
        store: BlobStore,
        ledger: Ledger,
        peers: Peers,
        *,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._peers = peers
        self._now_ms = now_ms
        self._uploads = 0
        self._background: set[asyncio.Task[Attestation | None]] = set()
        self._background_bytes = 0
        self._fetches: dict[bytes, asyncio.Task[bytes | None]] = {}
        self._fetch_slots = asyncio.Semaphore(FETCHES_MAX)

    async def run(self) -> None:
        """Sweep for ever. A sweep that fails is repeated at the next interval."""
        while True:
            await asyncio.sleep(SWEEP_INTERVAL_S)
            try:
                await self.sweep()
            except (VcpError, Problem, OSError) as error:
                logger.warning("blobs were not swept: %s", error)

    async def close(self) -> None:
        """Stop what goes on in the background."""
        tasks = [*self._background, *self._fetches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def check_uploader(self, blob: bytes, size: int, credentials: Credentials) -> None:
        """Check that a funded account, compute node or member signed for this content just now.

        `size` in bytes. It looks at no content, so it can run before a body is read. Raises
        `Problem` 401.
        """
        what = "the upload is not signed by an account with a balance, a compute node or a member"
        check_time(credentials.time_ms, self._now_ms(), what)
        message = encode((self._ledger.chain_id, blob, size, credentials.time_ms))
        if not is_signed(credentials.key, DOMAIN_UPLOAD, message, credentials.signature):
            raise unauthorised(what)
        if credentials.key in member_names(self._ledger.genesis):
            return
        account, node = await self._ledger.get(
            schema.ACCOUNT + credentials.key, schema.NODE + credentials.key
        )
        if node is None and (account is None or not _has_money(decode_stored(Account, account))):
            raise unauthorised(what)

    async def upload(self, blob: bytes, data: bytes, credentials: Credentials) -> dict[str, Any]:
        """Keep a blob on a majority of members; the document `vcp/blob/v1` with attestations.

        Raises `Problem`: 400 wrong hash, 401, 413, 429 too many uploads or over quota, 503 when no
        majority attested (the same upload may be sent again).
        """
        await self.check_uploader(blob, len(data), credentials)
        if self._uploads >= UPLOADS_MAX:
            raise Problem(
                429,
                "busy",
                f"this member takes {UPLOADS_MAX} uploads at a time",
                next_step="send the same upload again, here or to another member",
                retry_after_ms=500,
            )
        self._uploads += 1
        try:
            await self._check_content(blob, data)
            await asyncio.to_thread(self._store.put, data, account=credentials.key)
            attestations = await self._collect(blob, data)
        finally:
            self._uploads -= 1
        return {
            "schema": "vcp/blob/v1",
            "hash": blob.hex(),
            "size": len(data),
            "attestations": [_attestation_document(item) for item in attestations],
        }

    async def receive(self, blob: bytes, data: bytes) -> dict[str, Any]:
        """Keep a blob that another member pushes (its request is checked by the caller).

        Raises `Problem` as `upload` does.
        """
        await self._check_content(blob, data)
        await asyncio.to_thread(self._store.put, data)
        return {"attestation": _attestation_document(self._attest(blob, len(data)))}

    async def fetch(self, blob: bytes, *, is_forwarded: bool = False) -> bytes | None:
        """A blob, from this disk or else from another member; None when nobody has it.

        Others are asked only for what the ledger refers to, and never on behalf of a member
        (`is_forwarded`), so that no request is worth more than one round of them.
        """
        data = await asyncio.to_thread(self._store.get, blob)
        if data is not None or is_forwarded:
            return data
        task = self._fetches.get(blob)
        if task is None:
            task = asyncio.create_task(self._fetch_from_peers(blob))
            self._fetches[blob] = task
            task.add_done_callback(lambda done: self._end_fetch(blob, done))
        # Several may wait for one fetch: who gives up waiting must not end it for the others.
        return await asyncio.shield(task)

    async def sweep(self) -> int:
        """Remove old blobs that the ledger does not refer to; how many went.

        A charge ends as well once the ledger refers to the blob.
        """
        old = await asyncio.to_thread(self._store.list_older, UNREFERENCED_AGE_S)
        charged = self._store.list_charged()
        referenced = await find_referenced(self._ledger, sorted({*old, *charged}))
        for blob in referenced.intersection(charged):
            self._store.release(blob)
        removed = 0
        for blob in old:
            if blob not in referenced:
                removed += await asyncio.to_thread(
                    self._store.remove_older, blob, UNREFERENCED_AGE_S
                )
        return removed

    async def _check_content(self, blob: bytes, data: bytes) -> None:
        if await asyncio.to_thread(hash_content, data) != blob:
            raise bad_request(
                "the body does not have the hash under which it was sent",
                "send the bytes whose BLAKE3 is in the path, unchanged",
            )

    def _attest(self, blob: bytes, size: int) -> Attestation:
        key, chain_id = self._ledger.member.key, self._ledger.chain_id
        return attest_blob(self._ledger.seed, key, chain_id, blob, size)

    async def _collect(self, blob: bytes, data: bytes) -> list[Attestation]:
        """Push to all other members at once; return as soon as a majority holds the blob."""
        needed = majority(self._ledger.genesis)
        attestations = [self._attest(blob, len(data))]
        waiting = {
            asyncio.create_task(self._push(member, blob, data)) for member in self._peers.others
        }
        try:
            while waiting and len(attestations) < needed:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                results = [task.result() for task in done]
                attestations += [item for item in results if item is not None]
        except asyncio.CancelledError:
            for task in waiting:
                task.cancel()
            raise
        self._leave_in_background(waiting, len(data))
        if len(attestations) < needed:
            raise unavailable(
                f"{len(attestations)} of {len(self._ledger.genesis.members)} members hold the "
                f"blob, {needed} are needed"
            )
        return attestations

    async def _push(self, member: Member, blob: bytes, data: bytes) -> Attestation | None:
        try:
            return await self._peers.put_blob(member, blob, data)
        except PeerError as error:
            logger.info("blob %s: %s", blob.hex(), error)
            return None

    def _leave_in_background(self, tasks: set[asyncio.Task[Attestation | None]], size: int) -> None:
        """Let slow members finish, within a bound on memory: beyond it they fetch it later."""
        for task in tasks:
            if self._background_bytes + size > BACKGROUND_BYTES_MAX:
                task.cancel()
                continue
            self._background_bytes += size
            self._background.add(task)
            task.add_done_callback(lambda done: self._end_background(done, size))

    def _end_background(self, task: asyncio.Task[Attestation | None], size: int) -> None:
        self._background.discard(task)
        self._background_bytes -= size

    def _end_fetch(self, blob: bytes, task: asyncio.Task[bytes | None]) -> None:
        del self._fetches[blob]
        if not task.cancelled():
            task.exception()  # Whoever still waits gets it; if nobody does, it is not an accident.

    async def _fetch_from_peers(self, blob: bytes) -> bytes | None:
        async with self._fetch_slots:
            if not await find_referenced(self._ledger, [blob]):
                return None
            for member in self._peers.others:
                try:
                    data = await self._peers.get_blob(member, blob, self._store.blob_bytes_max)
                except PeerError as error:
                    logger.info("blob %s: %s", blob.hex(), error)
                    continue
                if data is not None:
                    await self._keep(data)
                    return data
        return None

    async def _keep(self, data: bytes) -> None:
        """Store what was fetched; a full disk is no reason to withhold it."""
        try:
            await asyncio.to_thread(self._store.put, data)
        except Problem as problem:
            logger.warning("a fetched blob is not kept: %s", problem)


async def find_referenced(reader: Reader, blobs: list[bytes]) -> set[bytes]:
    """Those of `blobs` (sorted) that the ledger refers to.

    Walks the index of references in pages, and jumps over what lies between two of the blobs.
    """
    found: set[bytes] = set()
    rows: list[bytes] = []
    for blob in blobs:
        prefix = schema.BLOB_REFERENCE + blob
        if not rows or rows[-1] < prefix:
            page = await reader.scan(schema.BLOB_REFERENCE, start=prefix, limit=_PAGE)
            rows = [key for key, _ in page]
            if not rows:
                break
        # A page holds every reference between its first and its last row.
        position = bisect_left(rows, prefix)
        if position < len(rows) and rows[position].startswith(prefix):
            found.add(blob)
    return found


def _has_money(account: Account) -> bool:
    return account.available + account.pending + account.stake > 0


def _attestation_document(attestation: Attestation) -> dict[str, str]:
    return {"member": attestation.member.hex(), "signature": attestation.signature.hex()}
