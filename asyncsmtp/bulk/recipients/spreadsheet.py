"""Spreadsheets, read as the CSV that a person would save from them: the first sheet, cells as displayed."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from typing import Protocol

from asyncsmtp.errors import MissingDependency, RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DELIMITER", "SUFFIXES", "read_as_csv"]

DELIMITER = ","
SUFFIXES = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
_CHUNK_ROWS = 500  # of one piece of text

_Cell = str | int | float | bool | time | date | datetime | timedelta


class _Sheet(Protocol):
    def iter_rows(self) -> Iterable[list[_Cell]]: ...


def read_as_csv(path: str, name: str) -> Iterator[str]:
    """Yield the text, in pieces; blocks. An empty row is an empty line, so that lines are the rows of the sheet.

    Raises:
        MissingDependency: python-calamine is missing.
        RecipientError: not a workbook, or a protected one.
    """
    sheet = _first_sheet(path, name)
    text = io.StringIO()
    writer = csv.writer(text, delimiter=DELIMITER, lineterminator="\r\n")
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_text(cell) for cell in row]
        if any(cells):
            writer.writerow(cells)
        else:
            text.write("\r\n")
        if not number % _CHUNK_ROWS:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _first_sheet(path: str, name: str) -> _Sheet:
    try:
        import python_calamine  # an extra
    except ImportError:
        raise MissingDependency(f"reading the workbook {name}", "asyncsmtp[xlsx]") from None
    try:
        sheet: _Sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except Exception as error:  # the library documents no exceptions
        why = safe_text(str(error), 100)
        raise RecipientError(
            f"{name} cannot be read as a workbook ({why}): save it as CSV, or again as .xlsx"
        ) from error
    return sheet


def _text(cell: _Cell) -> str:
    """Return a cell as displayed, except for its format: whole numbers without a point, times by ISO 8601."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime) and cell.time() == time(0):
        return cell.date().isoformat()
    return cell.isoformat(" ") if isinstance(cell, datetime) else str(cell)
