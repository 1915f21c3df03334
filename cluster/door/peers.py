"""Requests between the doors of members, each signed by the asking member's key.

    VCP-Member     its public key, hex
    VCP-Time       Unix time in milliseconds
    VCP-Signature  hex, over "vcp/peer/v1" | canonical [chain_id, method, path, BLAKE3(body), time]

A request is good for 60 s. It may be repeated within them by whoever saw it, which is harmless:
what members ask of one another (keep this blob, cosign that anchor) comes to the same when asked
twice.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import httpx2
import msgspec

from vcp_cluster.cluster.addresses import http_url
from vcp_cluster.cluster.clock import wall_ms
from vcp_cluster.cluster.door.exchange import AnswerTooLarge, exchange
from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.door.submission import FORWARDED_HEADER
from vcp_cluster.ledger.commitments import Attestation, blob_message
from vcp_cluster.ledger.domains import DOMAIN_BLOB, DOMAIN_PEER
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.genesis import Genesis, Member, compute_chain_id
from vcp_cluster.ledger.keys import hash_content, is_signed, sign

MEMBER_HEADER = "VCP-Member"
ACCOUNT_HEADER = "VCP-Account"
TIME_HEADER = "VCP-Time"
SIGNATURE_HEADER = "VCP-Signature"

REQUEST_WINDOW_MS = 60_000
ANSWER_BYTES_MAX = 64 * 1024
CONNECT_TIMEOUT_S = 2.0
BLOB_TIMEOUT_S = 15.0
COSIGN_TIMEOUT_S = 8.0

T = TypeVar("T")

_KEY = re.compile("[0-9a-f]{64}")
_SIGNATURE = re.compile("[0-9a-f]{128}")
_TIME = re.compile("[0-9]{1,18}")


class PeerError(Exception):
    """A member did not answer as it must; the message names it and says how."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who signed a request and when: key (32 bytes), Unix time in ms, signature (64 bytes)."""

    key: bytes
    time_ms: int
    signature: bytes


def unauthorised(what: str) -> Problem:
    """One answer for every way in which a request can be signed wrongly: it tells nothing."""
    return Problem(
        401,
        "unauthorised",
        f"{what}, or its time is more than {REQUEST_WINDOW_MS // 1000} s off",
        next_step="check the key, the chain id and the clock; then sign the request again",
    )


def read_credentials(headers: Mapping[str, str], key_header: str) -> Credentials:
    """The signature headers of a request, not checked yet; raise `Problem` 401 if malformed.

    `key_header` is `VCP-Member` between members and `VCP-Account` for everybody else.
    """
    key = headers.get(key_header, "")
    time_ms = headers.get(TIME_HEADER, "")
    signature = headers.get(SIGNATURE_HEADER, "")
    if not (_KEY.fullmatch(key) and _TIME.fullmatch(time_ms) and _SIGNATURE.fullmatch(signature)):
        raise unauthorised(f"the request has no proper {key_header}, {TIME_HEADER} and signature")
    return Credentials(bytes.fromhex(key), int(time_ms), bytes.fromhex(signature))


def check_time(time_ms: int, now_ms: int, what: str) -> None:
    """Raise `Problem` 401 when a signed time is not within `REQUEST_WINDOW_MS` of now."""
    if abs(now_ms - time_ms) > REQUEST_WINDOW_MS:
        raise unauthorised(what)


def _request_message(
    chain_id: bytes, method: str, path: str, body_hash: bytes, time_ms: int
) -> bytes:
    return encode((chain_id, method, path, body_hash, time_ms))


def sign_request(
    seed: bytes, key: bytes, *, chain_id: bytes, method: str, path: str, body: bytes, time_ms: int
) -> dict[str, str]:
    """The headers of a request between members. `path` has no query: such requests carry none."""
    message = _request_message(chain_id, method, path, hash_content(body), time_ms)
    return {
        MEMBER_HEADER: key.hex(),
        TIME_HEADER: str(time_ms),
        SIGNATURE_HEADER: sign(seed, DOMAIN_PEER, message).hex(),
    }


def check_request(
    headers: Mapping[str, str],
    *,
    genesis: Genesis,
    method: str,
    path: str,
    body_hash: bytes,
    now_ms: int,
) -> Member:
    """The member that signed a request; raise `Problem` 401, the same for every cause.

    It takes the hash of the body, because a blob's is known before the body is read.
    """
    what = "the request is not signed by a member of this cluster"
    credentials = read_credentials(headers, MEMBER_HEADER)
    check_time(credentials.time_ms, now_ms, what)
    member = next((one for one in genesis.members if one.key == credentials.key), None)
    message = _request_message(
        compute_chain_id(genesis), method, path, body_hash, credentials.time_ms
    )
    if member is None or not is_signed(
        credentials.key, DOMAIN_PEER, message, credentials.signature
    ):
        raise unauthorised(what)
    return member


class _AttestationDocument(msgspec.Struct):
    member: str
    signature: str


class _PutBlobAnswer(msgspec.Struct):
    attestation: _AttestationDocument


class _CosignAnswer(msgspec.Struct):
    batch: str
    transaction: str


class Peers:
    """The other members' doors. One for each door process; close it at the end.

    Every method raises `PeerError` when the member does not answer in time, refuses, or answers
    with more or something else than it should.
    """

    def __init__(
        self,
        genesis: Genesis,
        member: Member,
        seed: bytes,
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        self._chain_id = compute_chain_id(genesis)
        self._member = member
        self._seed = seed
        self._now_ms = now_ms
        self.others = tuple(one for one in genesis.members if one.key != member.key)
        # Members talk to one another directly: a proxy of the environment is not for them.
        self._client = httpx2.AsyncClient(
            transport=transport,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx2.Timeout(BLOB_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def put_blob(self, member: Member, blob: bytes, data: bytes) -> Attestation:
        """Have a member keep a blob; its attestation, checked."""
        path = f"/v1/member/blobs/{blob.hex()}"
        status, body = await self._request(member, "PUT", path, data, timeout_s=BLOB_TIMEOUT_S)
        answer = _decode(_PutBlobAnswer, member, status, body).attestation
        if answer.member != member.key.hex() or not _SIGNATURE.fullmatch(answer.signature):
            raise PeerError(f"member {member.name} sent an attestation that is not its own")
        attestation = Attestation(member.key, bytes.fromhex(answer.signature))
        message = blob_message(self._chain_id, blob, len(data))
        if not is_signed(member.key, DOMAIN_BLOB, message, attestation.signature):
            raise PeerError(f"member {member.name} sent an attestation with a wrong signature")
        return attestation

    async def get_blob(self, member: Member, blob: bytes, bytes_max: int) -> bytes | None:
        """A blob that a member has, checked against its hash; None when it does not have it."""
        path = f"/v1/blobs/{blob.hex()}"
        status, body = await self._request(
            member, "GET", path, b"", timeout_s=BLOB_TIMEOUT_S, bytes_max=bytes_max
        )
        if status == 404:
            return None
        if status != 200:
            raise PeerError(f"member {member.name} answered {status} to GET {path}")
        if await asyncio.to_thread(hash_content, body) != blob:
            raise PeerError(f"member {member.name} sent other bytes than those of {blob.hex()}")
        return body

    async def cosign(self, member: Member, size: int) -> tuple[str, str]:
        """A member's two cosignature lines (batch log, transaction log); not checked."""
        body = msgspec.json.encode({"size": size})
        path = "/v1/member/cosign"
        status, data = await self._request(member, "POST", path, body, timeout_s=COSIGN_TIMEOUT_S)
        answer = _decode(_CosignAnswer, member, status, data)
        return answer.batch, answer.transaction

    async def _request(
        self,
        member: Member,
        method: str,
        path: str,
        body: bytes,
        *,
        timeout_s: float,
        bytes_max: int = ANSWER_BYTES_MAX,
    ) -> tuple[int, bytes]:
        """(status, body) of an answer of at most `bytes_max` bytes within `timeout_s` in all."""
        signed = sign_request(
            self._seed,
            self._member.key,
            chain_id=self._chain_id,
            method=method,
            path=path,
            body=body,
            time_ms=self._now_ms(),
        )
        # A forwarded request is answered by the member itself: two members that both miss a blob
        # would otherwise ask each other for ever.
        headers = {**signed, FORWARDED_HEADER: "1"}
        url = http_url(member.address) + path
        try:
            return await exchange(
                self._client,
                method,
                url,
                content=body,
                headers=headers,
                timeout_s=timeout_s,
                connect_s=CONNECT_TIMEOUT_S,
                bytes_max=bytes_max,
            )
        except AnswerTooLarge as error:
            raise PeerError(f"member {member.name} answered {method} {path} with {error}") from None
        except (httpx2.HTTPError, TimeoutError) as error:
            why = str(error) or type(error).__name__
            raise PeerError(f"member {member.name} did not answer {method} {path}: {why}") from None


def _decode(kind: type[T], member: Member, status: int, body: bytes) -> T:
    """The JSON answer of a member as `kind`."""
    if status != 200:
        # What it says is its own: quoted, and never more than a line of it.
        raise PeerError(f"member {member.name} answered {status}: {body[:200]!r}")
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise PeerError(f"member {member.name} sent something else: {error}") from None
