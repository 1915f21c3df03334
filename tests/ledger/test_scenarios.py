"""Plays in `scenarios/`: what the ledger does, told in commands and answers.

`pytest tests/ledger --rewrite` writes the answers anew. Only commit the changes if you understand
what caused them and if they are desired.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from ledger_harness.play import Play
from ledger_harness.script import format_blocks, parse, play_out

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path, is_rewriting: bool) -> None:
    """The play goes as written; the ledger's invariants hold after each of its entries."""
    written = path.read_text()
    played = format_blocks(play_out(parse(written), Play().run))
    if is_rewriting:
        path.write_text(played)
    assert played == path.read_text()
