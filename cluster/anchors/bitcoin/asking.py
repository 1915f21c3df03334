"""One question to a node from a command: open, ask, close, and errors as the library's own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from vcp_cluster.cluster.anchors.bitcoin.chain import check_health, count_confirmations
from vcp_cluster.cluster.anchors.bitcoin.config import check_url, read_cookie
from vcp_cluster.cluster.anchors.bitcoin.rpc import (
    BitcoinNode,
    NodeError,
    NodeMisconfigured,
    RpcClient,
)
from vcp_cluster.cluster.errors import ConfigError, Unavailable

T = TypeVar("T")


def ask_node(url: str, cookie_file: Path, question: Callable[[BitcoinNode], Awaitable[T]]) -> T:
    """What `question` gives when it is put to a node.

    Raises `ConfigError` for a node that cannot answer it, `Unavailable` for one that does not now.
    """
    check_url(url, "--rpc")

    async def ask() -> T:
        node = RpcClient(url, lambda: read_cookie(cookie_file))
        try:
            return await question(node)
        finally:
            await node.close()

    try:
        return asyncio.run(ask())
    except NodeMisconfigured as error:
        message, _, hint = str(error).partition(". Next: ")
        raise ConfigError(
            message, key="node", origin=url, hint=hint or "give another node"
        ) from None
    except NodeError as error:
        raise Unavailable(
            f"the Bitcoin node gave no usable answer: {error}", next_step="try again"
        ) from None


async def confirm_block(node: BitcoinNode, network: bytes, block_hash: bytes) -> int:
    """How deep a block is in the chain of a node in sync; 0 when it is not in it."""
    await check_health(node, network, b"")
    return await count_confirmations(node, block_hash)
