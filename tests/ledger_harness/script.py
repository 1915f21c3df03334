"""The format of scenario files: blocks of commands, `----`, and what they print.

    # A comment, kept as it is.

    alice: transfer bob 5
    show bob
    ----
    alice: ok
    bob available=55 pending=0 stake=0 escrow=0

A blank line ends a block. `rewrite` gives the same file with the output that `run` returns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

SEPARATOR = "----"


@dataclass(frozen=True, slots=True)
class Block:
    """Commands and the lines that they print. A block of comments has neither separator nor."""

    commands: tuple[str, ...]
    expected: tuple[str, ...]


def parse(text: str) -> list[Block]:
    """Blocks in order; comments among the commands stay with them."""
    blocks = []
    for paragraph in text.strip().split("\n\n"):
        lines = paragraph.strip().split("\n")
        if SEPARATOR in lines:
            at = lines.index(SEPARATOR)
            blocks.append(Block(tuple(lines[:at]), tuple(lines[at + 1 :])))
        else:
            blocks.append(Block(tuple(lines), ()))
    return blocks


def play_out(blocks: list[Block], run: Callable[[str], list[str]]) -> list[Block]:
    """The same blocks with what their commands print now."""
    return [
        Block(
            block.commands,
            tuple(
                line
                for command in block.commands
                if not command.startswith("#")
                for line in run(command)
            ),
        )
        for block in blocks
    ]


def format_blocks(blocks: list[Block]) -> str:
    """The inverse of `parse`."""
    paragraphs = []
    for block in blocks:
        lines = list(block.commands)
        if any(not line.startswith("#") for line in lines):
            lines += [SEPARATOR, *block.expected]
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs) + "\n"
