"""The only file that prints.

Standard output carries data: a page, or one JSON document. Standard error carries messages. What
comes from a cluster is cleaned of control characters before it reaches a terminal.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TextIO

from vcp_cluster.cli.page import (
    Block,
    Document,
    Fields,
    Line,
    Part,
    Table,
    View,
    flatten,
    understanding,
)
from vcp_cluster.cli.settings import Settings
from vcp_cluster.cli.values import clean

WIDTH_MAX = 100
GAP = 2
PREVIEW_BYTES = 256
PREVIEW_LINE_BYTES = 32

_STYLES = {
    "leader": "bold",
    "online": "green",
    "accepted": "green",
    "settled": "green",
    "anchored": "green",
    "agree": "green",
    "unreachable": "red",
    "rejected": "red",
    "expired": "red",
    "disagree": "red",
    "safe_mode": "yellow",
    "offline": "yellow",
    "unable": "yellow",
}
"""Colours only repeat what the word says."""


class OutputClosed(Exception):
    """Whoever read our standard output has gone, as `head` does."""


class Output:
    """Prints documents in the format that was asked for."""

    def __init__(self, settings: Settings) -> None:
        self.format = settings.format
        self.is_quiet = settings.is_quiet
        self._is_colored = settings.is_colored

    @property
    def is_json(self) -> bool:
        """Whether standard output may hold JSON alone."""
        return self.format in ("json", "ndjson")

    def emit(self, document: Document, view: View) -> None:
        """Print a document: as it is for programs, as a page for people.

        Raises `DocumentNotUnderstood`.
        """
        if self.is_json:
            write_text(_to_json(document, view, self.format))
            return
        with understanding():
            text = self._to_text(document, view)
        write_text(text)

    def _to_text(self, document: Document, view: View) -> str:
        if self.is_quiet:
            return "\n".join(clean(identity) for identity in view.ids(document))
        if self.format == "plain" and not view.items:
            return "\n".join(f"{path}\t{value}" for path, value in flatten(document))
        parts = view.page(document)
        if self.format == "plain":
            table = next(part for part in parts if isinstance(part, Table))
            return "\n".join("\t".join(row) for row in table.rows(raw=True))
        return "\n".join(self._render(part) for part in parts)

    def _render(self, part: Part) -> str:
        if isinstance(part, Table):
            return render_table(part, is_colored=self._has_colors())
        if isinstance(part, Fields):
            return _render_fields(part)
        if isinstance(part, Block):
            return part.text.removesuffix("\n")
        return _render_line(part, is_colored=self._has_colors())

    def _has_colors(self) -> bool:
        is_wanted = self._is_colored and not os.environ.get("NO_COLOR")
        return is_wanted and os.environ.get("TERM") != "dumb" and sys.stdout.isatty()

    def note(self, text: str) -> None:
        """A message beside the data, on standard error; none with `--quiet`."""
        if not self.is_quiet:
            _write(sys.stderr, "\n".join(map(clean, text.split("\n"))) + "\n")

    def event(self, document: Document, text: str) -> None:
        """Something that happened: a line for people, or a line of ndjson."""
        if self.format == "ndjson":
            write_text(json.dumps(document))
        else:
            self.note(clean(text))

    def repaint(self) -> None:
        """Begin the next page of a `--watch` at the top of the terminal."""
        if sys.stdout.isatty() and not self.is_json:
            _write(sys.stdout, "\x1b[H\x1b[2J")


def to_text(data: bytes) -> str | None:
    """Printable UTF-8, or None: control characters would act on the terminal."""
    try:
        text = data.decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError:
        return None
    visible = text.replace("\n", "").replace("\t", "")
    return text if clean(visible) == visible else None


def preview(data: bytes) -> str:
    """The first bytes in hexadecimal, for what is not text."""
    shown = data[:PREVIEW_BYTES]
    starts = range(0, len(shown), PREVIEW_LINE_BYTES)
    return "\n".join(shown[start : start + PREVIEW_LINE_BYTES].hex(" ", 4) for start in starts)


def render_table(table: Table, *, is_colored: bool) -> str:
    """A table as text, at most WIDTH_MAX columns wide; long cells end with an ellipsis."""
    if not table.items:
        return table.empty
    # Imported where it is needed: it takes a third of the time of a whole `--help`.
    from io import StringIO

    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    rows, width = table.rows(), _get_width()
    grid = RichTable(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column, widest in zip(table.columns, _fit(table, rows, width), strict=True):
        grid.add_column(
            column.title,
            justify="right" if column.kind.is_right else "left",
            no_wrap=True,
            overflow="ellipsis",
            max_width=widest,
        )
    for row in rows:
        grid.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    buffer = StringIO()
    console = Console(
        file=buffer,
        width=width,
        force_terminal=is_colored,
        color_system="standard" if is_colored else None,
        highlight=False,
        legacy_windows=False,
    )
    console.print(grid)
    return "\n".join(line.rstrip() for line in buffer.getvalue().rstrip("\n").split("\n"))


def _fit(table: Table, rows: list[list[str]], width: int) -> list[int]:
    """The width of each column: as wide as its widest cell, an elastic one as what is left."""
    from rich.cells import cell_len

    widths = [
        max(cell_len(column.title), *(cell_len(row[index]) for row in rows))
        for index, column in enumerate(table.columns)
    ]
    excess = sum(widths) + GAP * len(widths) - width
    for index, column in enumerate(table.columns):
        if column.is_elastic and excess > 0:
            widths[index] = max(len(column.title), widths[index] - excess)
    return widths


def _render_fields(part: Fields) -> str:
    """Labels in a column, values beside them, long ones continued below at the same place."""
    indent = max(len(field.label) for field in part.fields) + GAP
    lines = []
    for field in part.fields:
        text = field.text()
        pieces = [text]
        if indent + len(text) > WIDTH_MAX:
            from textwrap import wrap

            pieces = wrap(
                text, WIDTH_MAX - indent, break_long_words=False, break_on_hyphens=False
            ) or [text]
        labels = (field.label, *[""] * (len(pieces) - 1))
        lines += [f"{label:<{indent}}{piece}" for label, piece in zip(labels, pieces, strict=True)]
    return "\n".join(line.rstrip() for line in lines)


def _render_line(line: Line, *, is_colored: bool) -> str:
    if not (is_colored and line.style and line.text):
        return clean(line.text)
    import click

    return click.style(clean(line.text), fg=line.style, bold=True)


def _get_width() -> int:
    if not sys.stdout.isatty():
        return WIDTH_MAX
    try:
        return min(WIDTH_MAX, os.get_terminal_size(sys.stdout.fileno()).columns)
    except OSError:
        return WIDTH_MAX


def _to_json(document: Document, view: View, format_: str) -> str:
    if format_ == "json":
        return json.dumps(document, indent=2)
    if view.items and isinstance(document.get(view.items), list):
        items = document[view.items]
        return "\n".join(json.dumps({"schema": view.item_schema, **item}) for item in items)
    return json.dumps(document)


def write_text(text: str) -> None:
    """Write text to standard output, ended by a newline unless it is empty."""
    if text:
        _write(sys.stdout, text if text.endswith("\n") else text + "\n")


def write_bytes(data: bytes) -> None:
    """Write bytes to standard output as they are."""
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        raise OutputClosed from None


def write_file(path: Path, data: bytes) -> None:
    """Write a file, or standard output for `-`; raise `OSError`."""
    if str(path) == "-":
        write_bytes(data)
    else:
        path.write_bytes(data)


def write_error(text: str) -> None:
    """One message on standard error; there is nowhere to say that it cannot be written."""
    try:
        sys.stderr.write(text if text.endswith("\n") else text + "\n")
        sys.stderr.flush()
    except OSError:
        return


def write_error_document(document: Document, format_: str) -> None:
    """An error for programs that read standard output."""
    write_text(json.dumps(document, indent=2 if format_ == "json" else None))


def detach_output() -> None:
    """Let the interpreter's last flush go nowhere, after the reader has gone."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(devnull, sys.stdout.fileno())
    except (OSError, ValueError):
        return  # A stream without a descriptor has no pipe that could break.
    finally:
        os.close(devnull)


def _write(stream: TextIO, text: str) -> None:
    try:
        stream.write(text)
        stream.flush()
    except BrokenPipeError:
        raise OutputClosed from None
