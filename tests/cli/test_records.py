"""One record of CSV, as every program reads it."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.ledger.interfaces import Entry, RowState
from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.cli.output.formats import failed_row_cells, format_csv_line

REJECTED = Entry(
    1, "", "", RowState.REJECTED, 0, 0, None, None, "no", "", None, None, {"name": "Ann", "email": "nobody"}
)

CELLS = st.lists(st.text('ab,";\r\n é', max_size=6), min_size=1, max_size=4)


@given(st.lists(CELLS, max_size=4))
def test_a_cell_stays_within_its_record(rows: list[list[str]]) -> None:
    """A line break in a cell, which a person may have written, begins no row of its own."""
    text = "".join(f"{format_csv_line(['x', *cells])}\n" for cells in rows)
    assert list(csv.reader(io.StringIO(text, newline=""), strict=True)) == [
        ["x", *(f"'{cell}" if cell.startswith("\r") else cell for cell in cells)] for cells in rows
    ]


def test_a_row_of_a_file_that_came_meanwhile_loses_no_cell() -> None:
    """`--add` may take in a file between the reading of the columns and that of the rows: it is told, never cut off."""
    columns = dict.fromkeys(["email", "no", "name"])
    assert failed_row_cells(REJECTED, columns)[:4] == ["nobody", None, "Ann", "rejected"]
    with pytest.raises(CommandError) as caught:
        failed_row_cells(replace(REJECTED, fields={"email": "nobody", "city": "Graz"}), columns)
    assert caught.value.failure.advice == "run the same command again"
