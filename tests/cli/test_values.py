"""Amounts, durations, sizes and ids: what is read, what is refused, what is printed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vcp_cluster.cli.values import (
    UNITS_MAX,
    clean,
    format_amount,
    parse_amount,
    parse_chain_id,
    parse_duration,
    parse_full_id,
    parse_id,
    parse_members,
    parse_size,
    shorten,
)


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("1250.5", 1_250_500_000),
        ("0.000001", 1),
        ("10", 10_000_000),
        ("007.10", 7_100_000),
        ("9223372036854.775807", UNITS_MAX),
        ("1\u202f250.500000", 1_250_500_000),
    ],
)
def test_amount_is_read_exactly(text: str, units: int) -> None:
    assert parse_amount(text) == units


@pytest.mark.parametrize(
    "text",
    [
        *("", "-1", "+1", "0", "0.0", ".5", "1.", "1.2.3", "1e3", "1E3", "nan", "NaN", "inf"),
        *("1.0000001", "9223372036854.775808", "1,5", "1 250", "1\u202f25", "1\u202f2500", "٣"),
        *("1_000", "0x10", "1\n", " 1", "9" * 1_000_000),
    ],
)
def test_amount_that_is_not_one_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="amount"):
        parse_amount(text)


@given(st.integers(1, UNITS_MAX))
def test_printed_amount_is_read_back(units: int) -> None:
    text = format_amount(units)
    assert parse_amount(text) == units
    assert len(text.rpartition(".")[2]) == 6
    assert parse_amount(format_amount(str(units), separator="")) == units


def test_amount_is_grouped_by_threes() -> None:
    assert format_amount("1250500000") == "1\u202f250.500000"
    assert format_amount(0) == "0.000000"
    assert format_amount(999_999) == "0.999999"


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (parse_duration, "500ms", 500),
        (parse_duration, "30s", 30_000),
        (parse_duration, "5m", 300_000),
        (parse_duration, "2h", 7_200_000),
        (parse_size, "65536", 65_536),
        (parse_size, "64KiB", 65_536),
        (parse_size, "512MiB", 512 << 20),
        (parse_id, "7D1F", "7d1f"),
        (parse_full_id, "AB" * 32, "ab" * 32),
        (parse_chain_id, "0F" * 16, b"\x0f" * 16),
        (parse_members, "a=h:1,b=[::1]:2", [("a", "h", 1), ("b", "[::1]", 2)]),
    ],
)
def test_other_values_are_read(parse: Callable[[str], Any], text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((parse_duration, text) for text in ("", "30", "0s", "-1s", "1.5s", "1d", "9" * 99 + "s")),
        *((parse_size, text) for text in ("", "0", "-1", "1KB", "1.5MiB", "9" * 99)),
        *((parse_id, text) for text in ("", "7d1", "7d1g", "0x7d1f", "a" * 65, "7d1f\n")),
        *((parse_full_id, text) for text in ("", "ab" * 31, "ab" * 33)),
        *((parse_chain_id, text) for text in ("", "0f" * 15, "zz" * 16)),
        *((parse_members, text) for text in ("", "a", "a=h", "a=:1", "=h:1", "a=h:x", "a=h:1,")),
    ],
)
def test_other_values_that_are_wrong_are_refused(parse: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


def test_ids_are_shortened_and_other_words_are_not() -> None:
    assert shorten("ab" * 32) == "abababababab"
    assert shorten("a") == "a"
    assert shorten("a-member-with-a-long-name") == "a-member-with-a-long-name"


def test_text_from_outside_cannot_steer_the_terminal() -> None:
    assert clean("\x1b[31mred\r\n\u202etxt") == "\ufffd[31mred\ufffd\ufffd\ufffdtxt"
    assert clean("Zürich 1\u202f250 – ok") == "Zürich 1\u202f250 – ok"
