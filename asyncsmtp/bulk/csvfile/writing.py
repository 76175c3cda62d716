"""Cells to a record of CSV, which every program reads as the same cells (RFC 4180 §2)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable

__all__ = ["record_of"]

_LINE_END = "\r\n"


def record_of(cells: Iterable[str], *, quoted: bool = False) -> str:
    """One record without its line end.

    Args:
        quoted: every cell; else only those that need it.
    """
    text = io.StringIO()  # older writers quote a line break only where it is in their own line end
    writer = csv.writer(text, lineterminator=_LINE_END, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL)
    writer.writerow(cells)
    return text.getvalue().removesuffix(_LINE_END)
