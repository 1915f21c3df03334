"""Reads of anchors over HTTP: the lanes, the newest anchors, one anchor with all its variants."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vcp_cluster.cluster.door import documents
from vcp_cluster.cluster.door.app import await_height, guarded_route, read_number
from vcp_cluster.cluster.door.context import Reader
from vcp_cluster.cluster.door.documents import Document
from vcp_cluster.cluster.door.problems import bad_request, json_response, not_found
from vcp_cluster.ledger import schema
from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY, seal_script_of
from vcp_cluster.ledger.anchors import BACKENDS
from vcp_cluster.ledger.anchors.bitcoin import (
    BlockEvidence,
    SignedAnchor,
    compute_fee,
    find_seal,
    find_seated,
)
from vcp_cluster.ledger.bitcoin.networks import find_network
from vcp_cluster.ledger.bitcoin.reader import hash256, to_display
from vcp_cluster.ledger.bitcoin.script import format_address
from vcp_cluster.ledger.bitcoin.transaction import parse_transaction
from vcp_cluster.ledger.encoding import decode_stored
from vcp_cluster.ledger.genesis import member_names
from vcp_cluster.ledger.records import Anchor, AnchorLane, AnchorStatus, Settlement

ANCHORS_MAX = 1_000


class AnchorApi:
    """Handlers. One for each door process."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._genesis = reader.genesis

    def routes(self) -> list[Route]:
        """All routes about anchors."""
        return [
            guarded_route("/v1/anchors", self.anchors, "GET"),
            guarded_route("/v1/anchors/{backend}/{size}", self.anchor, "GET"),
        ]

    async def anchors(self, request: Request) -> Response:
        """Every lane, and its newest anchors."""
        await await_height(self._reader, request)
        limit = read_number(request, "limit", 100, ANCHORS_MAX)
        (settled,) = await self._reader.get(schema.SETTLEMENT)
        assert settled is not None, "written at height 0"
        headers = decode_stored(Settlement, settled).headers
        backends = sorted(self._genesis.anchors.backends, key=lambda name: name != NOTARY)
        return json_response(
            {
                "schema": "vcp/anchors/v1",
                "height": self._reader.height,
                "batches": headers,
                "backends": [await self._lane(name, headers) for name in backends],
                "anchors": [
                    _summary(anchor)
                    for name in backends
                    for anchor in await self._newest(name, limit)
                ],
            }
        )

    async def anchor(self, request: Request) -> Response:
        """One anchor."""
        await await_height(self._reader, request)
        backend, text = request.path_params["backend"], request.path_params["size"]
        if backend not in self._genesis.anchors.backends:
            raise not_found("anchor backend", backend[:64])
        if not text.isascii() or not text.isdigit() or len(text) > 18:
            raise bad_request("an anchor is named by its size, the number of batches it covers")
        anchor = await self._read(backend, int(text))
        if anchor is None:
            raise not_found("anchor", text)
        document = {"schema": "vcp/anchor/v1", "height": self._reader.height, **_summary(anchor)}
        if backend == BITCOIN:
            document["bitcoin"] = await self._bitcoin(anchor)
        return json_response(document)

    async def _read(self, backend: str, size: int) -> Anchor | None:
        if size == 0:
            return None
        (data,) = await self._reader.get(schema.anchor_key(backend, size))
        return None if data is None else decode_stored(Anchor, data)

    async def _newest(self, backend: str, limit: int) -> list[Anchor]:
        prefix = schema.anchor_prefix(backend)
        rows = await self._reader.scan(prefix, limit=limit, reverse=True)
        return [decode_stored(Anchor, value) for _, value in rows]

    async def _lane(self, backend: str, headers: int) -> Document:
        (data,) = await self._reader.get(schema.lane_key(backend))
        assert data is not None, "written at height 0"
        lane = decode_stored(AnchorLane, data)
        names = member_names(self._genesis)
        document = {
            **documents.lane(backend, lane),
            "revision": lane.revision,
            "unanchored": headers - lane.final,
            "retracted": list(lane.retracted),
            "holder": names.get(lane.holder) if BACKENDS[backend].is_leased else None,
            "lease_until": documents.format_time(lane.lease_until_ms) if lane.holder else None,
            "bitcoin": None,
        }
        if backend == BITCOIN:
            document["bitcoin"] = await self._seal(lane)
        return document

    async def _seal(self, lane: AnchorLane) -> Document:
        """The chain of seals: where it is and what it holds."""
        settings = self._genesis.anchors.bitcoin[0]
        network = find_network(settings.network)
        seal = find_seal(settings, await self._read(BITCOIN, lane.final))
        script = seal_script_of(settings)
        return {
            "network": None if network is None else network.name,
            "has_security": network is not None and network.has_security,
            "address": None if network is None else format_address(script, network.address_prefix),
            "seal": {
                "txid": to_display(seal.outpoint.txid),
                "output": seal.outpoint.output,
                "satoshi": str(seal.value),
            },
            "confirmations": settings.confirmations,
            "fee_max": str(settings.fee_max),
            "chain_work": lane.position.hex() or None,
        }

    async def _bitcoin(self, anchor: Anchor) -> Document:
        """Variants as anyone may broadcast them, and the block that holds one of them."""
        settings = self._genesis.anchors.bitcoin[0]
        previous = await self._read(BITCOIN, anchor.previous)
        is_rooted = previous is None or previous.status == AnchorStatus.FINAL
        seated = dict(find_seated(settings, previous, anchor)) if is_rooted else {}
        variants = []
        for number, raw in enumerate(anchor.raws):
            signed = decode_stored(SignedAnchor, raw)
            transaction = parse_transaction(signed.transaction)
            fee = None
            if number in seated:
                fee = compute_fee(settings, previous, anchor.payload, raw).fee
            variants.append(
                {
                    "txid": to_display(transaction.txid),
                    "is_live": number in seated,
                    "fee": None if fee is None else str(fee),
                    "virtual_size": transaction.virtual_size,
                    "block_height": signed.block_height,
                    "transaction": transaction.full.hex(),
                }
            )
        block = None
        if anchor.status != AnchorStatus.PENDING:
            evidence = decode_stored(BlockEvidence, anchor.evidence)
            block = {
                "hash": to_display(hash256(evidence.header)),
                "height": evidence.block_height,
                "index": evidence.index,
                "txid": variants[anchor.variant]["txid"],
            }
        return {"variants": variants, "block": block}


def _summary(anchor: Anchor) -> Document:
    return {
        "backend": anchor.backend,
        "label": BACKENDS[anchor.backend].label,
        "size": anchor.size,
        "previous": anchor.previous,
        "status": documents.word(AnchorStatus(anchor.status)),
        "payload": anchor.payload.hex(),
        "variants": len(anchor.raws),
        "time": documents.format_time(anchor.time_ms),
        "intent_height": anchor.intent_height,
        "observed_height": anchor.observed_height or None,
        "final_height": anchor.final_height or None,
    }
