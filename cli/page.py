"""What a command shows, as data: lines, lists of fields, tables. `output.py` turns it into text.

A page is made from a document of the API by a plain function, so that each of them can be tested
without a cluster, and the same document is printed as JSON untouched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vcp_cluster.cli.values import clean, format_amount, format_number, shorten

Document = dict[str, Any]
NOTHING = "–"


@dataclass(frozen=True)
class Kind:
    """How values of one sort are written: in a table, alone on a page, for other programs."""

    in_table: Callable[[Any], str]
    on_page: Callable[[Any], str]
    raw: Callable[[Any], str]
    is_right: bool = False


def _time_in_table(value: str) -> str:
    """2026-11-22T12:00:00.123Z as 11-22 12:00:00: the year is known, milliseconds are noise."""
    return f"{value[5:10]} {value[11:19]}"


def _time_on_page(value: str) -> str:
    return f"{value[:10]} {value[11:19]} UTC"


def _share(value: int) -> str:
    """Basis points 0..10000 as a percentage."""
    return f"{int(value) // 100}.{int(value) % 100:02d} %"


def _raw_amount(value: str) -> str:
    return format_amount(value, separator="")


def _words(value: Iterable[Any]) -> str:
    return ", ".join(map(str, value)) or NOTHING


def _yes_no(value: bool) -> str:
    return "yes" if value else "no"


TEXT = Kind(str, str, str)
ID = Kind(shorten, str, str)
NUMBER = Kind(format_number, format_number, str, is_right=True)
AMOUNT = Kind(
    format_amount, lambda value: f"{format_amount(value)} VCP", _raw_amount, is_right=True
)
TIME = Kind(_time_in_table, _time_on_page, str)
SHARE = Kind(_share, _share, str, is_right=True)
WORDS = Kind(_words, _words, lambda value: ",".join(map(str, value)))
FLAG = Kind(_yes_no, _yes_no, lambda value: str(value).lower())


@dataclass(frozen=True)
class Column:
    """A column: its title, where the value is in an item, and its kind.

    `is_elastic`: cut to what the others leave of the line, where they would not all fit.
    """

    title: str
    value: str | Callable[[Any], Any]
    kind: Kind = TEXT
    is_elastic: bool = False

    def get(self, item: Any) -> Any:
        """The value of this column; `a.b` is a path."""
        if callable(self.value):
            return self.value(item)
        for name in self.value.split("."):
            item = item[name]
        return item


@dataclass(frozen=True)
class Table:
    """Items under columns, or one line when there are none."""

    columns: Sequence[Column]
    items: Sequence[Any]
    empty: str

    def rows(self, *, raw: bool = False) -> list[list[str]]:
        """The cells as text."""
        return [
            [self._cell(column, item, raw=raw) for column in self.columns] for item in self.items
        ]

    def _cell(self, column: Column, item: Any, *, raw: bool) -> str:
        value = column.get(item)
        if value is None:
            return "-" if raw else NOTHING
        kind = column.kind
        return clean(kind.raw(value) if raw else kind.in_table(value))


@dataclass(frozen=True)
class Field:
    """One labelled value of a page."""

    label: str
    value: Any
    kind: Kind = TEXT

    def text(self) -> str:
        """The value as the page shows it."""
        return NOTHING if self.value is None else clean(self.kind.on_page(self.value))


@dataclass(frozen=True)
class Fields:
    """Labelled values, one on a line."""

    fields: Sequence[Field]


@dataclass(frozen=True)
class Line:
    """A line of text; an empty one separates. `style` colours it on a terminal."""

    text: str = ""
    style: str = ""


@dataclass(frozen=True)
class Block:
    """Text that is shown as it is: whoever makes one has checked it (`output.to_text`)."""

    text: str


Part = Line | Block | Fields | Table


class DocumentNotUnderstood(Exception):
    """A member's document lacks what is needed of it, or has it in another form."""


@contextmanager
def understanding() -> Iterator[None]:
    """Where a document from outside is taken apart: what is missing in it is not our defect.

    Raises `DocumentNotUnderstood`.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise DocumentNotUnderstood(repr(error)) from error


def pick(document: Document, path: str) -> Any:
    """The value at a path such as `open.batch`; raise `DocumentNotUnderstood`."""
    value: Any = document
    with understanding():
        for name in path.split("."):
            value = value[name]
    return value


@dataclass(frozen=True)
class View:
    """How documents of one schema are shown.

    `page` makes the parts, `ids` what `--quiet` prints. For a list, `items` names its key, and
    `item_schema` the schema of one item alone on a line of ndjson.
    """

    page: Callable[[Document], Sequence[Part]]
    ids: Callable[[Document], Iterable[str]]
    items: str = ""
    item_schema: str = ""


def flatten(value: Any, prefix: str = "") -> list[tuple[str, str]]:
    """A document as (dotted path, value) pairs for `-o plain`."""
    if isinstance(value, Mapping):
        children: Iterable[tuple[Any, Any]] = value.items()
    elif isinstance(value, list):
        children = enumerate(value)
    else:
        text = (
            "-" if value is None else str(value).lower() if value in (True, False) else str(value)
        )
        return [(prefix, clean(text))]
    pairs = []
    for name, child in children:
        pairs += flatten(child, f"{prefix}.{clean(str(name))}" if prefix else clean(str(name)))
    return pairs
