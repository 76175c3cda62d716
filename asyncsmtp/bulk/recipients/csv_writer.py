"""CSV output: records, and cells that a spreadsheet must not evaluate as formulas."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable

__all__ = ["escape_apostrophe", "escape_formula", "format_record", "may_contain_escaped", "unescape_formula"]

_LINE_END = "\r\n"
_STARTS = "[=+\\-@\t\r\0]"
_FORMULA = re.compile(f"'*{_STARTS}")  # with its apostrophes, so that one more or one less can always be told apart
_ESCAPED = re.compile(f"'+{_STARTS}")
_HINT = re.compile(f"'{_STARTS}")  # linear time also in a text of nothing but apostrophes


def escape_formula(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would evaluate; `unescape_formula` takes it off."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def escape_apostrophe(cell: str) -> str:
    """Return a cell for programs: as it is, with one apostrophe more where `unescape_formula` would take one off."""
    return f"'{cell}" if _ESCAPED.match(cell) else cell


def unescape_formula(cell: str) -> str:
    """Return the original cell: of apostrophes right before the start of a formula, one is taken off."""
    return cell[1:] if _ESCAPED.match(cell) else cell


def may_contain_escaped(text: str) -> bool:
    """Return whether some cell of a text may be escaped; nearly always False, so that cells need no look each."""
    return _HINT.search(text) is not None


def format_record(cells: Iterable[str], *, quoted: bool = False) -> str:
    """Return one record without its line end, which every program reads as the same cells (RFC 4180 §2).

    Args:
        quoted: quote every cell, and not only those that need it.
    """
    text = io.StringIO()  # older writers quote a line break only where it is in their own line end
    writer = csv.writer(text, lineterminator=_LINE_END, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerow(cells)
    return text.getvalue().removesuffix(_LINE_END)
