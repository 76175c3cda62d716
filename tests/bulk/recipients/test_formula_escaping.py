"""Cells that begin like a formula: escape_formula where they are written, themselves again where they are read."""

from __future__ import annotations

import csv
import io
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.csv_format import (
    RecordReader,
    escape_apostrophe,
    escape_formula,
    may_contain_escaped,
    unescape_formula,
)
from asyncsmtp.cli.output.formats import format_csv_line

CELL = st.text("'=+-@\t\r\n\0\",;|ax é\xa0\u200b\ufeff\uff1d\uff20", max_size=8)


@given(CELL)
def test_what_was_written_is_read_as_it_was(cell: str) -> None:
    """FT-61: apostrophes before a formula, at its place or inside a cell, are told apart."""
    assert unescape_formula(escape_formula(cell)) == cell
    assert unescape_formula(escape_apostrophe(cell)) == cell


@given(CELL)
def test_an_escaped_cell_never_begins_a_formula(cell: str) -> None:
    assert not escape_formula(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\0"))


@pytest.mark.parametrize("cell", ["", "'", "'tis", "''", "ann@example.com", "'ann'@example.com", "a'=b"])
def test_other_apostrophes_stand_as_they_are(cell: str) -> None:
    assert escape_formula(cell) == escape_apostrophe(cell) == unescape_formula(cell) == cell


def test_a_list_is_written_with_its_domains_as_they_are() -> None:
    """Only what would be misread has the apostrophe: an address that begins with one before such a character."""
    assert escape_apostrophe("@example.edu") == "@example.edu"
    assert escape_apostrophe("'+x@example.com") == "''+x@example.com"


@given(st.lists(st.tuples(CELL, CELL), max_size=4), st.integers(1, 9))
def test_records_are_read_as_they_were_written(rows: list[tuple[str, str]], size: int) -> None:
    """Wherever the text is cut; the header's names as well."""
    text = "".join(f"{format_csv_line(row)}\n" for row in [("'=a", "+b"), *rows])
    reader = RecordReader("failed.csv", ",")
    found = [record for start in range(0, len(text), size) for record in reader.feed(text[start : start + size])]
    found += reader.feed("", final=True)
    filled = [row for row in rows if "".join(row).strip()]
    assert [tuple(record.cells) for record in found] == [("'=a", "+b"), *filled]


SIGNS = ["=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20", "\ufe66", "\u2212"]
SKIPPED = [
    "",
    " ",
    "\xa0",
    "\u3000",
    "\ufeff",
    "\u200b",
    "\u2060",
    "\u202e",
    "\xad",
    "\x1b",
    "\x0b",
    '"',
    ' " \ufeff',
    "\ufe0f",
]


@pytest.mark.parametrize("sign", SIGNS)
@pytest.mark.parametrize("before", ["", "a;", "a\t", "a|", "a\n", "a\r\n", ";", "a;b;"])
def test_no_spreadsheet_finds_a_formula(before: str, sign: str) -> None:
    """FT-61: whatever delimiter it expects, behind what it skips, and in the forms that it reads as ASCII."""
    for skipped in SKIPPED:
        cell = f"{before}{skipped}{sign}1+1"
        assert escape_formula(cell) == f"{before}'{skipped}{sign}1+1"
        assert unescape_formula(escape_formula(cell)) == cell
        assert unescape_formula(cell) == cell


@given(CELL, st.sampled_from(";|\t,"), st.booleans())
def test_no_cell_of_any_reading_begins_a_formula(cell: str, delimiter: str, quotes: bool) -> None:
    """FT-61: a line of ours, split at another delimiter, with or without regard to its quotes."""
    line = format_csv_line(["x", cell, "y"])
    if delimiter == ",":
        rows = list(csv.reader(io.StringIO(line, newline="")))
    elif quotes:
        rows = list(csv.reader(io.StringIO(line, newline=""), delimiter=delimiter))
    else:
        rows = [part.split(delimiter) for part in re.split("[\r\n]", line)]
    for found in (cell for row in rows for cell in row):
        begins = found.lstrip(' "\xa0\u200b\ufeff\0')
        assert not begins.startswith(("=", "+", "-", "@", "\uff1d", "\uff20")), (line, rows)


@pytest.mark.parametrize(
    "cell", ["a=b", "me@example.com", "1-2; 3", "x - y", "it's; o'clock", "a;b|c", "", ";", "5 | 6"]
)
def test_text_without_a_formula_is_written_as_it_is(cell: str) -> None:
    """FT-61: an address, a range, a list."""
    assert escape_formula(cell) == unescape_formula(cell) == cell


def test_column_names_are_escaped_and_read_back() -> None:
    """FT-61: the header of results --failed has the columns of anybody's file."""
    names = ["a;=HYPERLINK(1)", "\ufeff@b", "c\t+d", "email"]
    line = format_csv_line(names)
    assert line == "a;'=HYPERLINK(1),'\ufeff@b,c\t'+d,email"
    (header,) = RecordReader("failed.csv", ",").feed(f"{line}\n", final=True)
    assert header.cells == names


@pytest.mark.parametrize("text", ["'" * 300_000, ";" * 300_000, "' " * 150_000, ";'" * 150_000 + "x", '"' * 300_000])
def test_escaping_takes_linear_time(text: str) -> None:
    """FT-61: also where everything might begin a formula, and nothing does."""
    began = time.process_time()
    assert unescape_formula(escape_formula(text)) == text
    assert may_contain_escaped(text) is False
    assert time.process_time() - began < 5
