"""A node as Bitcoin Core shows it over JSON-RPC, on a `RegtestChain`, with faults on demand.

Several nodes may look at one chain: each has its own view of what is the tip (it may be behind), and
its own faults. `call` answers in this process; `NodeServer` does so over HTTP.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

import httpx2

from vcp_cluster.cluster.anchors.bitcoin.rpc import NodeUnavailable, make_error
from vcp_cluster.ledger.bitcoin.reader import compact_size, hash256, to_display
from vcp_cluster.ledger.bitcoin.transaction import OutPoint, Transaction

from .regtest import Block, RegtestChain, Rejected

CREDENTIALS = "vcp:password-of-the-node"
REGTEST_GENESIS = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"


class CoreNode:
    """Core's methods. `lag` blocks are hidden, as on a node that has not caught up."""

    def __init__(self, chain: RegtestChain) -> None:
        self.chain = chain
        self.lag = 0
        self.is_downloading = False
        self.genesis_hash: str | None = None
        self.estimate: int | None = None
        self.calls: list[str] = []
        self.sent: list[bytes] = []

    def answer(self, method: str, params: list[Any]) -> Any:
        """The result of a call; raises `Rejected`."""
        self.calls.append(method)
        handler = getattr(self, f"on_{method}", None)
        if handler is None:
            raise Rejected(-32601, "Method not found")
        return handler(*params)

    @property
    def height(self) -> int:
        return max(0, self.chain.height - self.lag)

    def _block(self, text: str) -> Block:
        block = self.chain.blocks.get(bytes.fromhex(text)[::-1])
        if block is None or block.height > self.height:
            raise Rejected(-5, "Block not found")
        return block

    def _confirmations(self, text: str, height: int) -> int:
        is_active = height <= self.height and to_display(self.chain.active[height]) == text
        return self.height - height + 1 if is_active else -1

    def on_getblockhash(self, height: int) -> str:
        if height == 0 and self.genesis_hash is not None:
            return self.genesis_hash
        if not 0 <= height <= self.height:
            raise Rejected(-8, "Block height out of range")
        return to_display(self.chain.active[height])

    def on_getblockchaininfo(self) -> Any:
        return {
            "chain": "regtest",
            "blocks": self.height,
            "headers": self.height,
            "bestblockhash": to_display(self.chain.active[self.height]),
            "chainwork": f"{self.chain.work_at(self.height):064x}",
            "initialblockdownload": self.is_downloading,
        }

    def on_getblockheader(self, text: str, verbose: bool = True) -> Any:
        block = self._block(text)
        if not verbose:
            return block.header.hex()
        return {
            "hash": text,
            "height": block.height,
            "confirmations": self._confirmations(text, block.height),
        }

    def on_getblock(self, text: str, verbosity: int = 1) -> Any:
        block = self._block(text)
        assert verbosity == 0, "the only one that is used"
        return block.raw.hex()

    def on_gettxout(self, txid: str, output: int, include_mempool: bool = True) -> Any:
        outpoint = OutPoint(bytes.fromhex(txid)[::-1], output)
        coin = self.chain.get_coin(outpoint, with_mempool=include_mempool)
        if coin is None or coin.height > self.height:
            return None
        return {
            "bestblock": to_display(self.chain.active[self.height]),
            "confirmations": self.height - coin.height + 1 if coin.height >= 0 else 0,
            "value": Decimal(coin.value) / 100_000_000,
            "scriptPubKey": {"hex": coin.script.hex()},
        }

    def on_getmempoolinfo(self) -> Any:
        return {
            "mempoolminfee": Decimal(self.chain.floor) / 100_000_000,
            "minrelaytxfee": Decimal(self.chain.floor) / 100_000_000,
            "incrementalrelayfee": Decimal(self.chain.increment) / 100_000_000,
        }

    def on_estimatesmartfee(self, blocks: int) -> Any:
        if self.estimate is None:
            return {"errors": ["Insufficient data or no feerate found"], "blocks": blocks}
        return {"feerate": Decimal(self.estimate) / 100_000_000, "blocks": blocks}

    def on_sendrawtransaction(self, text: str, maxfeerate: Any = None) -> str:
        self.sent.append(bytes.fromhex(text))
        return to_display(self.chain.submit(bytes.fromhex(text)).txid)

    def on_gettxoutproof(self, txids: list[str], block_hash: str) -> str:
        block = self._block(block_hash)
        wanted = bytes.fromhex(txids[0])[::-1]
        found = [number for number, one in enumerate(block.transactions) if one.txid == wanted]
        if not found:
            raise Rejected(-5, "Not all transactions found in specified or retrieved block")
        return make_merkle_block(block, found[0]).hex()


def make_merkle_block(block: Block, index: int) -> bytes:
    """A partial Merkle tree (BIP 37) that matches one transaction."""
    txids = [one.txid for one in block.transactions]
    levels = [txids]
    while len(levels[-1]) > 1:
        level = levels[-1]
        padded = [*level, level[-1]] if len(level) & 1 else level
        levels.append([hash256(padded[at] + padded[at + 1]) for at in range(0, len(padded), 2)])
    bits: list[int] = []
    hashes: list[bytes] = []

    def walk(height: int, position: int) -> None:
        is_parent = index >> height == position
        bits.append(int(is_parent))
        if height == 0 or not is_parent:
            hashes.append(levels[height][position])
            return
        walk(height - 1, 2 * position)
        if 2 * position + 1 < len(levels[height - 1]):
            walk(height - 1, 2 * position + 1)

    walk(len(levels) - 1, 0)
    flags = bytearray((len(bits) + 7) // 8)
    for number, bit in enumerate(bits):
        flags[number // 8] |= bit << number % 8
    head = block.header + len(txids).to_bytes(4, "little")
    return (
        head
        + compact_size(len(hashes))
        + b"".join(hashes)
        + compact_size(len(flags))
        + bytes(flags)
    )


class Faults:
    """Which calls go wrong, and how; each entry is used as often as it says."""

    KINDS = ("garbage", "truncated", "http503", "warmup", "close_before", "close_after", "wrong_id")

    def __init__(self) -> None:
        self.planned: list[tuple[str, str]] = []

    def plan(self, kind: str, method: str = "*", times: int = 1) -> None:
        """Let the next calls of a method go wrong."""
        assert kind in self.KINDS
        self.planned += [(method, kind)] * times

    def take(self, method: str) -> str | None:
        for number, (wanted, kind) in enumerate(self.planned):
            if wanted in (method, "*"):
                del self.planned[number]
                return kind
        return None


class DirectNode:
    """`rpc.BitcoinNode` without HTTP, for many schedules: the same errors and the same faults.

    `on_call` runs before each call; what it raises ends the caller.
    """

    def __init__(self, node: CoreNode) -> None:
        self.node = node
        self.faults = Faults()
        self.on_call: Callable[[], None] = lambda: None

    async def call(self, method: str, *params: Any) -> Any:
        """The node's answer; a fault is an answer that did not come."""
        self.on_call()
        kind = self.faults.take(method)
        if kind not in (None, "close_after", "truncated", "wrong_id"):
            raise NodeUnavailable(f"{method}: {kind}")
        try:
            result = self.node.answer(method, list(params))
        except Rejected as rejected:
            error = {"code": rejected.code, "message": rejected.message}
            if kind is None:
                raise make_error(method, error) from None
            result = None
        if kind is not None:
            raise NodeUnavailable(f"{method}: {kind}")
        self.on_call()
        return result


class NodeHandler:
    """HTTP as Core speaks it, for a `CoreNode`."""

    def __init__(self, node: CoreNode, faults: Faults, credentials: str = CREDENTIALS) -> None:
        self.node = node
        self.faults = faults
        self.credentials = credentials
        self.lock = threading.Lock()

    def respond(self, authorization: str, body: bytes) -> tuple[int, bytes] | None:
        """Status and body; None when the connection is closed without an answer."""
        token = base64.b64encode(self.credentials.encode()).decode()
        if authorization != f"Basic {token}":
            return 401, b""
        request = json.loads(body)
        method, number = request["method"], request["id"]
        kind = self.faults.take(method)
        if kind == "close_before":
            return None
        if kind == "garbage":
            return 200, b"<html>proxy error</html>"
        if kind == "http503":
            return 503, b"Work queue depth exceeded"
        if kind == "warmup":
            return 500, _encode(None, {"code": -28, "message": "Loading block index…"}, number)
        try:
            with self.lock:
                result, error, status = self.node.answer(method, request["params"]), None, 200
        except Rejected as rejected:
            result, status = None, 404 if rejected.code == -32601 else 500
            error = {"code": rejected.code, "message": rejected.message}
        if kind == "close_after":
            return None
        answer = _encode(result, error, number + (kind == "wrong_id"))
        return status, answer[: len(answer) // 2] if kind == "truncated" else answer

    def transport(self) -> httpx2.MockTransport:
        """A transport that answers in this process."""

        def handle(request: httpx2.Request) -> httpx2.Response:
            answer = self.respond(request.headers["authorization"], request.content)
            if answer is None:
                raise httpx2.ReadError("closed", request=request)
            return httpx2.Response(answer[0], content=answer[1])

        return httpx2.MockTransport(handle)


def _encode(result: Any, error: Any, number: int) -> bytes:
    def plain(value: Any) -> Any:
        if isinstance(value, Decimal):
            return float(value)
        raise TypeError(type(value))

    return json.dumps({"result": result, "error": error, "id": number}, default=plain).encode()


class NodeServer:
    """The same on loopback, for tests with real members. Use as a context manager."""

    def __init__(self, handler: NodeHandler) -> None:
        class Http(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # or 40 ms pass between head and body

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                answer = handler.respond(self.headers.get("authorization", ""), body)
                if answer is None:
                    self.close_connection = True
                    return
                self.send_response(answer[0])
                self.send_header("content-length", str(len(answer[1])))
                self.end_headers()
                self.wfile.write(answer[1])

            def log_message(self, format: str, *args: Any) -> None:
                """Nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Http)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def spenders_of(chain: RegtestChain, first: OutPoint) -> list[Transaction]:
    """The chain of seals in the active chain, from the first coin on."""
    by_coin = {
        one.outpoint: transaction
        for block_hash in chain.active[1:]
        for transaction in chain.blocks[block_hash].transactions[1:]
        for one in transaction.inputs
    }
    found = []
    while first in by_coin:
        found.append(by_coin[first])
        first = OutPoint(found[-1].txid, 0)
    return found
