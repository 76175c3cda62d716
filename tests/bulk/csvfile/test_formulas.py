"""Cells that begin like a formula: tamed where they are written, themselves again where they are read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.csvfile.formulas import plain, tamed, untamed
from asyncsmtp.bulk.csvfile.records import RecordReader
from asyncsmtp.cli.output.records import csv_line

CELL = st.text("'=+-@\t\r\n\",;|ax é", max_size=8)


@given(CELL)
def test_what_was_written_is_read_as_it_was(cell: str) -> None:
    assert untamed(tamed(cell)) == cell
    assert untamed(plain(cell)) == cell


@given(CELL)
def test_nothing_that_was_tamed_begins_a_formula(cell: str) -> None:
    assert not tamed(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\0"))


@pytest.mark.parametrize("cell", ["", "'", "'tis", "''", "ann@example.com", "'ann'@example.com", "a'=b"])
def test_other_apostrophes_stand_as_they_are(cell: str) -> None:
    assert tamed(cell) == plain(cell) == untamed(cell) == cell


def test_a_list_is_written_with_its_domains_as_they_are() -> None:
    """Only what would be misread has the apostrophe: an address that begins with one before such a character."""
    assert plain("@example.edu") == "@example.edu"
    assert plain("'+x@example.com") == "''+x@example.com"


@given(st.lists(st.tuples(CELL, CELL), max_size=4), st.integers(1, 9))
def test_records_are_read_as_they_were_written(rows: list[tuple[str, str]], size: int) -> None:
    """Wherever the text is cut; the header's names as well."""
    text = "".join(f"{csv_line(row)}\n" for row in [("'=a", "+b"), *rows])
    reader = RecordReader("failed.csv", ",")
    found = [record for start in range(0, len(text), size) for record in reader.feed(text[start : start + size])]
    found += reader.feed("", final=True)
    assert [tuple(record.cells) for record in found] == [("'=a", "+b"), *rows]
