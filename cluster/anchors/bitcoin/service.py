"""The Bitcoin lane as a service of a member's door: its node, its anchorer, until the door closes."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from vcp_cluster.cluster.anchors.bitcoin.anchorer import BitcoinAnchorer
from vcp_cluster.cluster.anchors.bitcoin.config import load_config
from vcp_cluster.cluster.anchors.bitcoin.rpc import RpcClient
from vcp_cluster.cluster.door.context import Ledger

logger = logging.getLogger(__name__)


def open_anchorers(
    directory: Path, ledger: Ledger, stack: AsyncExitStack
) -> list[Coroutine[Any, Any, None]]:
    """The services of this member's anchors besides the notary's: none or one.

    Raises `ConfigError` for a `bitcoin.toml` that is wrong: a member does not start half configured.
    """
    settings = ledger.genesis.anchors.bitcoin
    if not settings:
        return []
    config = load_config(directory, settings[0])
    if config is None:
        logger.info("no bitcoin.toml: other members anchor in Bitcoin")
        return []
    node = RpcClient(config.url, config.read_credentials)
    stack.push_async_callback(node.close)
    return [BitcoinAnchorer(ledger, node, config.signer, config.options).run()]
