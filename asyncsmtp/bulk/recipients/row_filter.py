"""The filter of a file's rows: a condition on their cells, and a first row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.replies import safe_text

__all__ = ["RowFilter"]


class RowFilter:
    """A filter of rows by a condition and an offset.

    The condition is a Jinja2 expression, in its sandbox: `country == "AT" and plan != "free"`, `"@example.com" in
    email`, `age|int >= 18`. Every cell is text.

    Args:
        where: the condition; None: every row.
        offset: the number of rows at the beginning that are left out.
        aliases: further names of columns.
    """

    def __init__(
        self,
        columns: Sequence[str],
        where: str | None = None,
        offset: int = 0,
        aliases: Mapping[str, str] | None = None,
    ) -> None:
        """Raises InvalidArgument: the condition is not valid, or names an unknown column."""
        # Late, as Jinja2 below: ledgers import recipients, and many commands need no template.
        from asyncsmtp.mail.templates.variables import Columns

        self._columns = Columns(columns, aliases)
        self._offset = offset
        self._where = where
        self._condition = None if where is None else self._compile(where)

    def __bool__(self) -> bool:
        return self._condition is not None or self._offset > 0

    def for_added_file(self) -> RowFilter:
        """Return the filter for the rows of an added file: the same condition, and no offset."""
        another = copy(self)
        another._offset = 0
        return another

    def left_out(self, row: int, fields: Mapping[str, str]) -> str:
        """Return why a row is left out; "" if it is not.

        Raises:
            InvalidArgument: the condition fails on this row.
        """
        if row <= self._offset:
            return f"left out: before row {self._offset + 1}"
        if self._condition is None:
            return ""
        named = {name: fields[column] for name, column in self._columns.names.items() if column in fields}
        try:
            result = self._condition(**named, row=dict(fields))
        except Exception as error:  # an expression may raise anything
            raise InvalidArgument(f"--where fails on row {row}: {safe_text(str(error), 200)}: correct it") from error
        return "" if result else f"left out: not {safe_text(str(self._where), 200)}"

    def _compile(self, where: str) -> Callable[..., object]:
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.nodes import Template
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        try:
            parsed: Template = environment.parse("{{" + where + "}}")
            condition = environment.compile_expression(where, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise InvalidArgument(f"--where is not a valid condition: {safe_text(str(error.message), 200)}") from None
        for name in sorted(meta.find_undeclared_variables(parsed)):
            if name not in self._columns.names and name != "row":
                raise InvalidArgument(
                    f"--where: there is no column “{safe_text(name, 60)}”; {self._columns.advice(name)}"
                )
        return condition
