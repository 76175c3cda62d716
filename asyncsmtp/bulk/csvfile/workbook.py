"""A workbook of Excel as the CSV that a person would have saved from it: its first sheet, cells as they are seen."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from datetime import date, datetime, time, timedelta
from typing import Protocol

from asyncsmtp.errors import MissingDependency, RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DELIMITER", "WORKBOOKS", "as_csv"]

DELIMITER = ","
WORKBOOKS = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
_ROWS = 500  # of one piece of text

_Cell = str | int | float | bool | time | date | datetime | timedelta


class _Sheet(Protocol):
    def iter_rows(self) -> Iterable[list[_Cell]]: ...


def as_csv(path: str, name: str) -> Iterator[str]:
    """The text, in pieces; blocks. An empty row is an empty line, so that lines are the rows of the sheet.

    Raises:
        MissingDependency: what reads workbooks is optional, and not there.
        RecipientError: it is no workbook, or is protected.
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
        if not number % _ROWS:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _first_sheet(path: str, name: str) -> _Sheet:
    try:
        import python_calamine
    except ImportError:
        raise MissingDependency(f"reading the workbook {name}", "asyncsmtp[xlsx]") from None
    try:
        sheet: _Sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except Exception as error:  # whatever the reader makes of a file that is none
        why = safe_text(str(error), 100)
        raise RecipientError(
            f"{name} cannot be read as a workbook ({why}): save it as CSV, or again as .xlsx"
        ) from error
    return sheet


def _text(cell: _Cell) -> str:
    """A cell as it is seen, but for its format: whole numbers without a point, dates and times by ISO 8601."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime) and cell.time() == time(0):
        return cell.date().isoformat()
    return cell.isoformat(" ") if isinstance(cell, datetime) else str(cell)
