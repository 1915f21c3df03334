"""Reads of the ledger for the HTTP API. Each document is read at one height."""

from __future__ import annotations

import asyncio
from typing import Any

from vcp_cluster.cluster.door import documents
from vcp_cluster.cluster.door.context import ReadSet
from vcp_cluster.cluster.door.documents import Document
from vcp_cluster.cluster.door.ledger import LinkReader, ThreadView
from vcp_cluster.cluster.door.problems import Problem, bad_request, not_found
from vcp_cluster.ledger import money, schema, tasks
from vcp_cluster.ledger.anchor_settings import NOTARY
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.genesis import member_names
from vcp_cluster.ledger.receipt_builder import build_receipt
from vcp_cluster.ledger.receipts import NotReady, format_receipt
from vcp_cluster.ledger.records import (
    Anchor,
    BatchLeaf,
    LogLeaf,
    NodeClass,
    Proof,
    ProofStatus,
    TaskStatus,
)
from vcp_cluster.ledger.schema import CountKind
from vcp_cluster.ledger.settlement import BatchHeader
from vcp_cluster.ledger.state import Overlay, State
from vcp_cluster.ledger.transactions import TransactionReceipt, parse_transaction

PREFIX_MIN = 4
LIST_MAX = 1_000
AWAITING_MAX = 100


class Queries:
    """All reads. One for each door process."""

    def __init__(self, reader: LinkReader) -> None:
        self._reader = reader

    @property
    def reader(self) -> LinkReader:
        """Where the reads come from."""
        return self._reader

    async def _state(self, *keys: bytes) -> State:
        values = await self._reader.get(*keys)
        view = ReadSet(dict(zip(keys, values, strict=True)))
        return State(Overlay(view), self._reader.genesis)

    async def resolve(self, prefix: bytes, what: str, text: str) -> bytes:
        """The id that a hex prefix names; raise `Problem` when none or several do."""
        if len(text) < PREFIX_MIN or len(text) > 64:
            raise bad_request(f"an id has {PREFIX_MIN} to 64 hex digits, not {len(text)}")
        try:
            whole = bytes.fromhex(text[: len(text) & ~1])
            half = int(text[-1], 16) if len(text) % 2 else None
        except ValueError:
            raise bad_request(f"{text!r} is not hexadecimal") from None
        low = whole if half is None else whole + bytes([half << 4])
        rows = await self._reader.scan(prefix + whole, start=prefix + low, limit=2)
        found = [key[len(prefix) :] for key, _ in rows if key[len(prefix) :].hex().startswith(text)]
        if not found:
            raise not_found(what, text)
        if len(found) > 1:
            raise Problem(
                409, "ambiguous", f"several {what}s begin with {text}", next_step="give more digits"
            )
        return found[0]

    # --- accounts and nodes --------------------------------------------------------------------

    async def account(self, text: str) -> Document:
        """One account."""
        identity = await self.resolve(schema.ACCOUNT, "account", text.lower())
        account_key, node_key = schema.ACCOUNT + identity, schema.NODE + identity
        state = await self._state(schema.HEAD, account_key, schema.SETTLEMENT, node_key)
        account = money.get_account(state, identity)
        assert account is not None, "resolved"
        return documents.account(
            identity,
            account,
            is_node=state.get_node(identity) is not None,
            member=member_names(self._reader.genesis).get(identity),
            height=state.get_head().height,
        )

    async def node(self, text: str) -> Document:
        """One compute node."""
        identity = await self.resolve(schema.NODE, "node", text.lower())
        (document,) = await self._nodes([identity])
        return {"schema": "vcp/node/v1", **document}

    async def nodes(self, limit: int) -> Document:
        """Compute nodes in the order of their registration."""
        rows = await self._reader.scan(schema.SLOT, limit=min(limit, LIST_MAX))
        return {
            "schema": "vcp/nodes/v1",
            "height": self._reader.height,
            "nodes": await self._nodes([identity for _, identity in rows]),
        }

    async def _nodes(self, identities: list[bytes]) -> list[Document]:
        keys = [schema.SETTLEMENT]
        for identity in identities:
            keys += [schema.NODE + identity, schema.ACCOUNT + identity]
        state = await self._state(*keys)
        result = []
        for identity in identities:
            node, account = state.get_node(identity), money.get_account(state, identity)
            assert node is not None and account is not None, "registered"
            result.append(documents.node(identity, node, account))
        return result

    # --- tasks and proofs ----------------------------------------------------------------------

    async def task(self, text: str) -> Document:
        """One task."""
        identity = await self.resolve(schema.TASK, "task", text.lower())
        (document,) = await self._tasks([identity])
        return {"schema": "vcp/task/v1", **document}

    async def tasks(self, limit: int, client: str | None) -> Document:
        """Tasks, newest first; of one client if given (among the newest thousand)."""
        limit = min(limit, LIST_MAX)
        window = limit if client is None else LIST_MAX
        rows = await self._reader.scan(schema.TASK_ORDER, limit=window, reverse=True)
        found = await self._tasks([key[-32:] for key, _ in rows])
        if client is not None:
            found = [document for document in found if document["client"].startswith(client)]
        return {
            "schema": "vcp/tasks/v1",
            "height": self._reader.height,
            "tasks": found[:limit],
        }

    async def _tasks(self, identities: list[bytes]) -> list[Document]:
        keys = [schema.HEAD, schema.SETTLEMENT, *(schema.TASK + item for item in identities)]
        state = await self._state(*keys, *self._lane_keys())
        found = [(item, task) for item in identities if (task := state.get_task(item))]
        proofs = await self._proofs([task.proof for _, task in found if task.proof])
        anchored = max(state.get_lane(name).final for name in self._backends)
        height = state.get_head().height
        return [
            documents.task(
                identity,
                task,
                status=tasks.get_status(state, task),
                proof=proofs.get(task.proof),
                anchored_batches=anchored,
                height=height,
            )
            for identity, task in found
        ]

    async def _proofs(self, identities: list[bytes]) -> dict[bytes, Proof]:
        if not identities:
            return {}
        values = await self._reader.get(*(schema.PROOF + item for item in identities))
        return {
            item: decode_stored(Proof, value)
            for item, value in zip(identities, values, strict=True)
            if value is not None
        }

    async def proof(self, text: str) -> Document:
        """One proof, with verdicts."""
        identity = await self.resolve(schema.PROOF, "proof", text.lower())
        proof = (await self._proofs([identity]))[identity]
        return documents.proof(identity, proof, self._reader.genesis)

    # --- settlement ----------------------------------------------------------------------------

    async def batches(self) -> Document:
        """Sealed batches, newest first, and the open one."""
        state = await self._state(schema.HEAD, schema.SETTLEMENT)
        rows = await self._reader.scan(schema.HEADER, limit=100, reverse=True)
        anchors = await self._anchors()
        batches = state.get_settlement()
        return {
            "schema": "vcp/batches/v1",
            "height": state.get_head().height,
            "open": {
                "batch": batches.batch,
                "tasks": batches.count,
                "total": str(batches.total),
            },
            "batches": [documents.batch(data, self._covering(anchors, data)) for _, data in rows],
        }

    async def batch(self, text: str) -> Document:
        """One sealed batch with its payments."""
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise bad_request("a batch is named by its number")
        number = schema.u64(int(text))
        (data,) = await self._reader.get(schema.HEADER + number)
        if data is None:
            raise not_found("sealed batch", text)
        leaves: list[Document] = []
        start: bytes | None = None
        while rows := await self._reader.scan(schema.BATCH_LEAF + number, start=start):
            for _, value in rows:
                leaf = decode_stored(BatchLeaf, value)
                leaves.append(
                    {"task": leaf.task.hex(), "node": leaf.node.hex(), "amount": str(leaf.amount)}
                )
            start = rows[-1][0] + b"\x00"
        document = documents.batch(data, self._covering(await self._anchors(), data))
        return {"schema": "vcp/batch/v1", **document, "tasks": leaves}

    @property
    def _backends(self) -> tuple[str, ...]:
        """Names of this cluster's anchors, the notary first."""
        return tuple(sorted(self._reader.genesis.anchors.backends, key=lambda one: one != NOTARY))

    def _lane_keys(self) -> list[bytes]:
        return [schema.lane_key(name) for name in self._backends]

    async def _anchors(self) -> list[list[Anchor]]:
        """The newest anchors of each backend, in the order of their sizes."""
        found = []
        for name in self._backends:
            rows = await self._reader.scan(schema.anchor_prefix(name), limit=LIST_MAX, reverse=True)
            found.append([decode_stored(Anchor, value) for _, value in reversed(rows)])
        return found

    def _covering(self, anchors: list[list[Anchor]], header: bytes) -> list[Anchor]:
        """Each backend's first anchor that covers a batch."""
        batch = BatchHeader.decode(header).batch
        found = (next((one for one in group if one.size >= batch), None) for group in anchors)
        return [one for one in found if one is not None]

    async def receipt(self, text: str) -> str:
        """The settlement receipt of a task."""
        identity = await self.resolve(schema.TASK, "task", text.lower())
        view = ThreadView(self._reader, asyncio.get_running_loop())

        def build() -> str:
            state = State(Overlay(view), self._reader.genesis)
            return format_receipt(build_receipt(state, identity))

        try:
            return await asyncio.to_thread(build)
        except NotReady as error:
            interval = self._reader.genesis.parameters.settle_interval_ms
            raise Problem(
                409,
                "not_ready",
                str(error),
                next_step=f"batches are sealed every {interval // 1000} s; try again",
                retry_after_ms=1_000,
            ) from None

    # --- transactions and status ---------------------------------------------------------------

    async def transaction(self, text: str) -> Document:
        """A transaction by its id."""
        identity = await self.resolve(schema.TRANSACTION, "transaction", text.lower())
        (index,) = await self._reader.get(schema.TRANSACTION + identity)
        assert index is not None, "resolved"
        leaf_data, data = await self._reader.get(schema.LOG_LEAF + index, schema.ENVELOPE + index)
        assert leaf_data is not None, "the index names a leaf"
        if data is None:
            raise not_found("envelope (it was pruned here) of transaction", text)
        leaf = decode_stored(LogLeaf, leaf_data)
        receipt = TransactionReceipt(
            1,
            identity,
            leaf.height,
            leaf.time_ms,
            int.from_bytes(index, "big"),
            leaf.code,
            leaf.operation,
        )
        return documents.transaction(receipt, parse_transaction(data).envelope)

    async def summary(self) -> Document:
        """What the ledger adds to `status`: counts, supply, batch, anchor, missing verdicts."""
        task_keys = {s: schema.count_key(CountKind.TASK, s) for s in TaskStatus}
        node_keys = {c: schema.count_key(CountKind.NODE, c) for c in NodeClass}
        keys = [schema.HEAD, schema.SUPPLY, schema.SETTLEMENT]
        state = await self._state(
            *keys, *task_keys.values(), *node_keys.values(), *self._lane_keys()
        )
        batches = state.get_settlement()
        counts = {s: state.get_count(CountKind.TASK, s) for s in TaskStatus}
        counts[TaskStatus.SETTLED] = counts[TaskStatus.ACCEPTED] - batches.count
        counts[TaskStatus.ACCEPTED] = batches.count
        head = state.get_head()
        anchors = [documents.lane(name, state.get_lane(name)) for name in self._backends]
        return {
            "height": head.height,
            "time": documents.format_time(head.time_ms),
            "state_root": head.state_root.hex(),
            "tasks": {documents.word(status): number for status, number in counts.items()},
            "nodes": {
                documents.word(c): state.get_count(CountKind.NODE, c) for c in reversed(NodeClass)
            },
            "supply": documents.supply(state.get_supply()),
            "batch": {
                "open": batches.batch,
                "tasks": batches.count,
                "sealed": batches.headers,
            },
            "anchor": anchors[0],
            "anchors": anchors,
            "awaiting": await self._awaiting(),
        }

    async def _awaiting(self) -> list[Document]:
        """Proofs that wait for verdicts, and the members that owe them."""
        rows = await self._reader.scan(schema.AUDIT, limit=AWAITING_MAX)
        identities = [key[len(schema.AUDIT) :] for key, _ in rows]
        proofs = await self._proofs(identities)
        found: list[Any] = []
        for identity, proof in proofs.items():
            if proof.status == ProofStatus.AUDITED_BY_ALL:
                document = documents.proof(identity, proof, self._reader.genesis)
                found.append({"proof": document["id"], "members": document["missing"]})
        return found
