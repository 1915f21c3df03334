"""JSON-RPC to a Bitcoin node, in the dialect of Bitcoin Core.

    NodeError
    ├── NodeUnavailable     no usable answer: what was asked may or may not have happened
    ├── NodeRefused         the node's own error, with its code
    └── NodeMisconfigured   it will be the same next time: somebody has to look

Amounts arrive as decimal numbers and are read as such. Answers are bounded, and whatever is not a
well-formed answer to this very request counts as no answer. Neither the password nor a request's
content is in any message.
"""

from __future__ import annotations

import base64
import itertools
import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

import httpx2

ANSWER_BYTES_MAX = 1 << 20
BLOCK_BYTES_MAX = 9 << 20  # 4 MB of block in hex, and some JSON around it
TIMEOUT_S = 10.0
MESSAGE_CHARS_MAX = 200

IN_WARM_UP = -28
METHOD_NOT_FOUND = -32601
_TRANSIENT = {IN_WARM_UP, -9, -10, -32603}  # warming up, no peers, initial download, internal
_FOR_GOOD = {METHOD_NOT_FOUND: "it does not know this method", -18: "it has no such wallet"}


class NodeError(Exception):
    """Anything that keeps a node from giving an answer."""


class NodeUnavailable(NodeError):
    """No usable answer; the request may have been done. Ask again, with the same bytes."""


class NodeMisconfigured(NodeError):
    """The node or its credentials are wrong; the message says what to do."""


class NodeRefused(NodeError):
    """The node answered with an error of its own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code = code
        self.message = message


class BitcoinNode(Protocol):
    """Whatever answers calls as a node does."""

    async def call(self, method: str, *params: Any) -> Any:
        """The result of a call; raises the errors above."""
        ...


class RpcClient:
    """A node behind HTTP. `credentials` gives `user:password`, asked again for every call.

    Core writes a new cookie whenever it starts, so that a remembered one would soon be wrong.
    """

    def __init__(
        self,
        url: str,
        credentials: Callable[[], str],
        *,
        transport: httpx2.AsyncBaseTransport | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url
        self._credentials = credentials
        self._ids = itertools.count(1)
        # Credentials go to exactly this address: no proxy of the environment, no redirect.
        self._http = httpx2.AsyncClient(
            trust_env=False, follow_redirects=False, timeout=timeout_s, transport=transport
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def call(self, method: str, *params: Any) -> Any:
        """The result of a call; raise `NodeError`."""
        number = next(self._ids)
        request = {"jsonrpc": "1.0", "id": number, "method": method, "params": params}
        token = base64.b64encode(self._credentials().encode()).decode()
        headers = {"authorization": f"Basic {token}", "content-type": "application/json"}
        bytes_max = BLOCK_BYTES_MAX if method == "getblock" else ANSWER_BYTES_MAX
        try:
            async with self._http.stream(
                "POST", self._url, content=json.dumps(request), headers=headers
            ) as response:
                status = response.status_code
                body = await _read(response, bytes_max)
        except httpx2.HTTPError as error:
            raise NodeUnavailable(f"{method}: {type(error).__name__}") from None
        except httpx2.InvalidURL:
            raise NodeMisconfigured(
                "the node's address is not a URL. Next: correct `url` in bitcoin.toml"
            ) from None
        if status in (401, 403):
            raise NodeMisconfigured(
                f"the node refuses the credentials (HTTP {status}). "
                "Next: correct cookie_file in bitcoin.toml"
            )
        return _read_answer(method, number, status, body)


async def _read(response: httpx2.Response, bytes_max: int) -> bytes:
    pieces, size = [], 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > bytes_max:
            raise NodeUnavailable(f"the answer is larger than {bytes_max} bytes")
        pieces.append(piece)
    return b"".join(pieces)


def _read_answer(method: str, number: int, status: int, body: bytes) -> Any:
    """The result in a JSON-RPC 1.0 or 2.0 answer; raise `NodeError`."""
    try:
        answer = json.loads(body, parse_float=Decimal, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise NodeUnavailable(f"{method}: HTTP {status}, and not JSON") from None
    if not isinstance(answer, dict) or answer.get("id") != number:
        raise NodeUnavailable(f"{method}: HTTP {status}, and not an answer to this request")
    error = answer.get("error")
    if error is None:
        if "result" not in answer or status != 200:
            raise NodeUnavailable(f"{method}: HTTP {status} without a result")
        return answer["result"]
    raise make_error(method, error)


def make_error(method: str, error: Any) -> NodeError:
    """The exception for the `error` of an answer."""
    code = error.get("code") if isinstance(error, dict) else None
    if not isinstance(code, int):
        return NodeUnavailable(f"{method}: an error without a code")
    text = str(error.get("message"))[:MESSAGE_CHARS_MAX]
    message = "".join(one if one.isprintable() else "?" for one in text)
    if code in _TRANSIENT:
        return NodeUnavailable(f"{method}: {message} ({code})")
    if code in _FOR_GOOD:
        return NodeMisconfigured(
            f"{method}: {_FOR_GOOD[code]} ({code}). Next: give the RPC address of a Bitcoin node"
        )
    return NodeRefused(code, message)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")
