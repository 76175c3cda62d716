"""Cells that begin like a formula: escape_formula where they are written, themselves again where they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.csv_format import RecordReader, escape_apostrophe, escape_formula, unescape_formula
from asyncsmtp.cli.output.formats import format_csv_line

CELL = st.text("'=+-@\t\r\n\",;|ax é", max_size=8)


@given(CELL)
def test_what_was_written_is_read_as_it_was(cell: str) -> None:
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
    assert [tuple(record.cells) for record in found] == [("'=a", "+b"), *rows]
