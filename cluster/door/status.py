"""Status: of this member, and of the cluster as all its members answer."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx2
import msgspec

from vcp_cluster.cluster.addresses import http_url
from vcp_cluster.cluster.door import documents
from vcp_cluster.cluster.door.documents import Document
from vcp_cluster.cluster.door.exchange import AnswerTooLarge, exchange
from vcp_cluster.cluster.door.queries import Queries
from vcp_cluster.cluster.link import RaftLink
from vcp_cluster.ledger.genesis import Genesis, Member, compute_chain_id

PEER_TIMEOUT_S = 1.0
ANSWER_BYTES_MAX = 64 * 1024
_HASH_DIGITS = 64


class Status:
    """`app.Services`: one for each door process."""

    def __init__(
        self,
        link: RaftLink,
        queries: Queries,
        genesis: Genesis,
        member: Member,
        peers: httpx2.AsyncClient,
    ) -> None:
        self._link = link
        self._queries = queries
        self._genesis = genesis
        self._member = member
        self._peers = peers

    async def own_status(self) -> Document:
        """This member alone."""
        raft = await self._link.status()
        return {
            "schema": "vcp/member/v1",
            "id": self._member.name,
            "address": self._member.address,
            "role": raft["role"],
            "leader": raft["leader"],
            "term": raft["term"],
            "height": raft["height"],
            "time": documents.format_time(raft["time_ms"]),
            "state_root": raft["state_root"].hex(),
            "raft_index": raft["raft_index"],
        }

    async def is_ready(self) -> bool:
        """Whether a leader is known and what is committed is applied, up to a few entries."""
        raft = await self._link.status()
        return raft["leader"] is not None and raft["commit_index"] - raft["raft_index"] < 100

    async def status(self) -> Document:
        """The cluster: every member is asked, the ledger is as applied here."""
        summary = await self._queries.summary()
        others = [member for member in self._genesis.members if member != self._member]
        answers = await asyncio.gather(self.own_status(), *(self._ask(member) for member in others))
        by_id = {answer["id"]: answer for answer in answers}
        top = max(answer["height"] or 0 for answer in answers)
        members = [_row(by_id[member.name], top) for member in self._genesis.members]
        own = by_id[self._member.name]
        height, root = summary.pop("height"), summary.pop("state_root")
        return {
            "schema": "vcp/status/v1",
            "cluster": self._genesis.cluster_name,
            "chain_id": compute_chain_id(self._genesis).hex(),
            "height": height,
            "state_root": root,
            "leader": own["leader"],
            "term": own["term"],
            "members": members,
            "is_agreed": _is_agreed(members),
            **summary,
        }

    async def _ask(self, member: Member) -> Document:
        silent = {
            "id": member.name,
            "address": member.address,
            "role": "unreachable",
            "height": None,
            "state_root": None,
            "term": None,
        }
        try:
            status, body = await exchange(
                self._peers,
                "GET",
                f"{http_url(member.address)}/v1/member/status",
                timeout_s=PEER_TIMEOUT_S,
                connect_s=PEER_TIMEOUT_S,
                bytes_max=ANSWER_BYTES_MAX,
            )
            if status != 200:
                return silent
            return {**silent, **_checked(msgspec.json.decode(body), member)}
        except (httpx2.HTTPError, TimeoutError, AnswerTooLarge):
            return silent
        except (msgspec.MsgspecError, ValueError, KeyError, TypeError, RecursionError):
            return silent  # an answer, but not one that can be shown


def _checked(document: Any, member: Member) -> Document:
    """The fields of another member's answer that we show, each of its type; else `ValueError`."""
    role, height, root, term = (document[name] for name in ("role", "height", "state_root", "term"))
    is_root = isinstance(root, str) and len(bytes.fromhex(root)) * 2 == _HASH_DIGITS
    is_number = type(height) is int and type(term) is int
    if document["id"] != member.name or role not in ("leader", "follower", "candidate"):
        raise ValueError("not the status of this member")
    if not is_root or not is_number:
        raise ValueError("not a status")
    return {"role": role, "height": height, "state_root": root, "term": term}


def _row(answer: Document, top: int) -> Document:
    height = answer["height"]
    return {
        "id": answer["id"],
        "address": answer["address"],
        "role": answer["role"],
        "height": height,
        "lag": None if height is None else top - height,
        "state_root": answer["state_root"],
        "term": answer["term"],
    }


def _is_agreed(members: list[Document]) -> bool:
    """No two members show different roots at the same height."""
    roots: dict[int, str] = {}
    for member in members:
        if member["height"] is not None and (
            roots.setdefault(member["height"], member["state_root"]) != member["state_root"]
        ):
            return False
    return True
