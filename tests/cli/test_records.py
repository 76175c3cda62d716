"""One record of CSV, as every program reads it."""

from __future__ import annotations

import csv
import io

from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.cli.output.records import csv_line

CELLS = st.lists(st.text('ab,";\r\n é', max_size=6), min_size=1, max_size=4)


@given(st.lists(CELLS, max_size=4))
def test_a_cell_stays_within_its_record(rows: list[list[str]]) -> None:
    """A line break in a cell, which a person may have written, begins no row of its own."""
    text = "".join(f"{csv_line(['x', *cells])}\n" for cells in rows)
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [
        ["x", *(f"'{cell}" if cell.startswith("\r") else cell for cell in cells)] for cells in rows
    ]
