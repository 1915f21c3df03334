"""What the tests of anchors share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .regtest import RegtestChain
    from .world import World


@pytest.fixture
def chain() -> Iterator[RegtestChain]:
    """A chain of this test alone."""
    from .regtest import make_chain

    chain = make_chain()
    yield chain
    chain.close()


@pytest.fixture
def world(chain: RegtestChain) -> World:
    """A ledger anchored on it."""
    from .world import World

    return World(chain)
