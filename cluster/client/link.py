"""Requests to the members: one endpoint after the other, with bounds and a deadline.

A `Link` remembers the endpoint that last worked and stays with it. One request is a loop:

    retry = link.begin(deadline)
    while True:
        try:
            return link.attempt(retry.endpoint, request, deadline)
        except AttemptFailed as failure:
            retry.after(failure)          # goes to the next endpoint, or raises failure.error
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

import httpx2

from vcp_cluster.cluster.client.documents import ErrorBody, ErrorDocument, read_typed
from vcp_cluster.cluster.errors import (
    Ambiguous,
    BadAnswer,
    InvalidBlob,
    InvalidRequest,
    NoLeader,
    NotAuthorised,
    NotFound,
    NotReady,
    Timeout,
    Unavailable,
    VcpError,
)
from vcp_cluster.ledger.codes import Code

CONNECT_S_MAX = 2.0
ANSWER_S_MAX = 5.0
"""How long a member may be silent beyond the time that it was asked to wait."""
PAUSE_S_MIN = 0.05
PAUSE_S_MAX = 0.25
CONNECTIONS_MAX = 64
DOCUMENT_BYTES_MAX = 16 << 20
ERROR_BYTES_MAX = 64 << 10

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One HTTP request. `wait_s` is how long the member is asked to wait before it answers."""

    method: str
    path: str
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes = b""
    wait_s: float = 0.0
    answer_bytes_max: int = DOCUMENT_BYTES_MAX


class AttemptFailed(Exception):
    """One endpoint failed in a way that another one, or a later attempt, may not.

    `may_be_sent`: whether the request may have reached the ledger all the same.
    """

    def __init__(self, error: VcpError, *, may_be_sent: bool, retry_after_s: float = 0.0) -> None:
        super().__init__(str(error))
        self.error = error
        self.may_be_sent = may_be_sent
        self.retry_after_s = retry_after_s


class Refused(Exception):
    """A member refused a transaction before it reached the log; `index` says which one."""

    def __init__(self, code: Code, index: int) -> None:
        super().__init__(code.name)
        self.code = code
        self.index = index


class Link:
    """Connections to the members of one cluster. Several threads may use it at once."""

    def __init__(
        self, endpoints: tuple[str, ...], *, transport: httpx2.BaseTransport | None = None
    ) -> None:
        self.endpoints = endpoints
        self.closed = threading.Event()
        self._current = 0
        self._lock = threading.Lock()
        # Members are addressed directly: a proxy of the environment would see their traffic.
        self._http = httpx2.Client(
            transport=transport,
            trust_env=False,
            # Loading the certificate authorities takes longer than a request, and http needs none.
            verify=any(endpoint.startswith("https:") for endpoint in endpoints),
            limits=httpx2.Limits(max_connections=CONNECTIONS_MAX),
            headers={"Accept-Encoding": "identity", "User-Agent": "vcp-cluster"},
        )

    def interrupt(self) -> None:
        """End the retries of all threads: each raises what it last met."""
        self.closed.set()

    def close(self) -> None:
        """Close all connections."""
        self.closed.set()
        self._http.close()

    def begin(self, deadline: float) -> Retry:
        """The way of one request through the endpoints until `deadline` (monotonic seconds)."""
        return Retry(self, deadline)

    def get_current(self) -> str:
        """The endpoint that is in use."""
        with self._lock:
            return self.endpoints[self._current]

    def leave(self, endpoint: str) -> None:
        """Go to the endpoint after this one, unless another thread has done so."""
        with self._lock:
            if self.endpoints[self._current] == endpoint:
                self._current = (self._current + 1) % len(self.endpoints)

    def request(self, request: Request, parse: Callable[[bytes], T], *, deadline: float) -> T:
        """Send a request that is safe to repeat, until an endpoint's answer satisfies `parse`.

        `parse` may raise an error `is_of_endpoint` to ask the next one. Raises the last error.
        """
        retry = self.begin(deadline)
        while True:
            try:
                return parse(self.attempt(retry.endpoint, request, deadline))
            except AttemptFailed as failure:
                retry.after(failure)
            except VcpError as error:
                if not error.is_of_endpoint:
                    raise
                retry.after(AttemptFailed(error, may_be_sent=True))

    def attempt(self, endpoint: str, request: Request, deadline: float) -> bytes:
        """Send a request once and return the body of a success.

        Raises `AttemptFailed` for what may go better, `Refused` for a transaction refused at the
        door, and another `VcpError` for what will not.
        """
        left = max(deadline - time.monotonic(), PAUSE_S_MIN)
        answer_s = min(left, request.wait_s + ANSWER_S_MAX)
        timeout = httpx2.Timeout(answer_s, connect=min(left, CONNECT_S_MAX))
        try:
            with self._http.stream(
                request.method,
                endpoint + request.path,
                params=dict(request.params),
                content=request.content or None,
                headers=dict(request.headers),
                timeout=timeout,
            ) as response:
                status = response.status_code
                is_success = 200 <= status < 300
                limit = request.answer_bytes_max if is_success else ERROR_BYTES_MAX
                body = _read_bounded(response, limit, deadline)
        except (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout) as error:
            why = Unavailable(f"{endpoint} cannot be reached: {_describe(error)}")
            raise AttemptFailed(why, may_be_sent=False) from None
        except httpx2.TimeoutException:
            why = Timeout(f"{endpoint} did not answer within {answer_s:.1f} s")
            raise AttemptFailed(why, may_be_sent=True) from None
        except httpx2.HTTPError as error:
            why = Unavailable(f"{endpoint} broke off: {_describe(error)}")
            raise AttemptFailed(why, may_be_sent=True) from None
        except Unavailable as error:
            raise AttemptFailed(error, may_be_sent=True) from None
        if is_success:
            return body
        raise _to_error(endpoint, status, body)


class Retry:
    """Which endpoint to ask next, and when to stop."""

    def __init__(self, link: Link, deadline: float) -> None:
        self._link = link
        self._deadline = deadline
        self._pause_s = PAUSE_S_MIN
        self._failures = 0
        self._bad_in_row = 0
        self.endpoint = link.get_current()

    def after(self, failure: AttemptFailed) -> None:
        """Go to the next endpoint, pausing after each round.

        Raises the failure's error at the deadline, when the link is closed, and when every
        endpoint in turn gave something that is wrong: time does not cure that.
        """
        self._failures += 1
        is_bad = isinstance(failure.error, BadAnswer | InvalidBlob)
        self._bad_in_row = self._bad_in_row + 1 if is_bad else 0
        self._link.leave(self.endpoint)
        self.endpoint = self._link.get_current()
        if self._bad_in_row >= len(self._link.endpoints):
            raise failure.error
        pause_s = 0.0
        if self._failures % len(self._link.endpoints) == 0:
            pause_s = max(self._pause_s, min(failure.retry_after_s, PAUSE_S_MAX))
            self._pause_s = min(2 * self._pause_s, PAUSE_S_MAX)
        if time.monotonic() + pause_s >= self._deadline or self._link.closed.wait(pause_s):
            raise failure.error


def _read_bounded(response: httpx2.Response, limit: int, deadline: float) -> bytes:
    chunks: list[bytes] = []
    size = 0
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise BadAnswer("the answer is compressed, which was not asked for")
    for chunk in response.iter_raw():
        size += len(chunk)
        if size > limit:
            raise BadAnswer(f"the answer has more than {limit} bytes")
        chunks.append(chunk)
        if time.monotonic() > deadline:
            raise Timeout("the answer did not end in time")
    return b"".join(chunks)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


def clean_text(text: str) -> str:
    """Text from outside, safe for a terminal: printable, one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


_FINAL: dict[int, type[VcpError]] = {
    400: InvalidRequest,
    401: NotAuthorised,
    403: NotAuthorised,
    404: NotFound,
    413: InvalidRequest,
}
_CONFLICTS: dict[str, type[VcpError]] = {"ambiguous": Ambiguous, "not_ready": NotReady}


def _to_error(endpoint: str, status: int, body: bytes) -> Exception:
    """The exception for an answer that is not a success."""
    try:
        error = read_typed(ErrorDocument, body).error
    except BadAnswer:
        why = f"{endpoint} answered {status} without saying why"
        return AttemptFailed(BadAnswer(why), may_be_sent=True)
    message = clean_text(error.message) or clean_text(error.code)
    next_step = clean_text(error.next) or "see `vcp-cluster --help`"
    if status == 409 and error.code in _CONFLICTS:
        return _CONFLICTS[error.code](message, next_step=next_step)
    if status == 422 and error.code.upper() in Code.__members__:
        return Refused(Code[error.code.upper()], error.index or 0)
    if status in _FINAL:
        return _FINAL[status](message, next_step=next_step)
    return _to_failure(endpoint, status, error, message)


def _to_failure(endpoint: str, status: int, error: ErrorBody, message: str) -> AttemptFailed:
    """A failure after which another attempt makes sense. Only 429 and 503 promise: not sent."""
    kind = NoLeader if error.code == "no_leader" else Unavailable
    return AttemptFailed(
        kind(f"{endpoint}: {clean_text(error.code)}, {message}"),
        may_be_sent=status not in (429, 503),
        retry_after_s=(error.retry_after_ms or 0) / 1000,
    )
