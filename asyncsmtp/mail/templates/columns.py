"""The columns of a file as names a template can use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches

from asyncsmtp.errors import TemplateError
from asyncsmtp.mail.unsubscribe import UNSUBSCRIBE_URL

__all__ = ["Columns", "is_free", "known_columns"]

ROW = "row"  # the name under which a template finds all columns, whatever they are called
_RESERVED = frozenset({ROW, "self", "super", "loop", "caller", "varargs", "kwargs", "true", "false", "none"})
_NOT_IN_NAME = re.compile(r"\W+")


class Columns:
    """Column names and the identifiers they go by: `E-Mail Address` is also `E_Mail_Address`.

    An identifier that two columns would share belongs to neither; `row["…"]` reaches every column.

    Args:
        called: further identifiers of columns; such a name belongs to no other column.
    Attributes:
        names: identifier to column.
    """

    def __init__(self, columns: Sequence[str], called: Mapping[str, str] | None = None) -> None:
        self._columns = frozenset(columns)
        self.names: Mapping[str, str] = _identifiers(columns) | dict(called or {})

    def __contains__(self, column: object) -> bool:
        return column in self._columns

    def advice(self, unknown: str) -> str:
        """What to write instead of a name that is none: the nearest, or all of them if there are few."""
        known = {name.lower(): name for name in (*self._columns, *self.names)}
        if near := get_close_matches(unknown.lower(), known, n=1):
            return f"did you mean “{self._written(known[near[0]])}”?"
        if not known:
            return "there are no columns"
        listed = sorted(map(self._written, self._columns))
        return "the columns are " + ", ".join(listed[:10]) + (" …" if len(listed) > 10 else "")

    def _written(self, column: str) -> str:
        if column in self.names:
            return column
        return next((name for name, of in self.names.items() if of == column), f'row["{column}"]')


def known_columns(columns: Sequence[str], called: Mapping[str, str], *, unsubscribes: bool) -> Columns:
    """What a template may name: the columns, and `unsubscribe_url` where there is one.

    Raises:
        TemplateError: the recipients have a column of that name.
    """
    if not unsubscribes:
        return Columns(columns, called)
    if UNSUBSCRIBE_URL in columns or UNSUBSCRIBE_URL in called:
        raise TemplateError(f"the recipients have a column “{UNSUBSCRIBE_URL}” of their own: rename it", "header")
    return Columns((*columns, UNSUBSCRIBE_URL), called)


def is_free(name: str) -> bool:
    """Whether a column may go by that name."""
    return name.isidentifier() and name.lower() not in _RESERVED


def _identifiers(columns: Sequence[str]) -> dict[str, str]:
    plain = {column: column for column in columns if column.isidentifier()}
    made: dict[str, list[str]] = {}
    for column in columns:
        name = _NOT_IN_NAME.sub("_", column).strip("_")
        made.setdefault(f"_{name}" if name[:1].isdigit() else name, []).append(column)
    unique = {name: of[0] for name, of in made.items() if len(of) == 1 and name.isidentifier()}
    return {name: column for name, column in (unique | plain).items() if name.lower() not in _RESERVED}
