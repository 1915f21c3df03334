"""`pytest tests/ledger --rewrite` writes what the scenarios and vectors give now: read the diff."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--rewrite`."""
    parser.addoption(
        "--rewrite",
        action="store_true",
        help="rewrite the expectations of scenarios and golden vectors, then read the diff",
    )


@pytest.fixture
def is_rewriting(request: pytest.FixtureRequest) -> bool:
    """Whether `--rewrite` was given; false when all of tests/ run, which do not know the option."""
    return bool(request.config.getoption("--rewrite", default=False))
