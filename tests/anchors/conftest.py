"""What the tests of anchors share. Without py-bitcoinkernel there is nothing to run them on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .regtest import RegtestChain, make_chain
from .world import World


@pytest.fixture
def chain() -> Iterator[RegtestChain]:
    """A chain of this test alone."""
    chain = make_chain()
    yield chain
    chain.close()


@pytest.fixture
def world(chain: RegtestChain) -> World:
    """A ledger anchored on it."""
    return World(chain)
