"""Which rows of a file a campaign is for: a condition on their cells, and from which row on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.mail.templates.variables import Columns
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Selection"]


class Selection:
    """Says of a row why it is left out, if it is.

    A condition is an expression of Jinja2, in its sandbox: `country == "AT" and plan != "free"`, `"@example.com" in
    email`, `age|int >= 18`. Every cell is text.

    Args:
        where: the condition; None: every row.
        offset: so many rows, from the first on, are left out.
        called: further names of columns.
    """

    def __init__(
        self,
        columns: Sequence[str],
        where: str | None = None,
        offset: int = 0,
        called: Mapping[str, str] | None = None,
    ) -> None:
        """Raises InvalidArgument: the condition is none, or names what is no column."""
        self._columns = Columns(columns, called)
        self._offset = offset
        self._where = where
        self._holds = None if where is None else self._compiled(where)

    def __bool__(self) -> bool:
        return self._holds is not None or self._offset > 0

    def of_another_file(self) -> Selection:
        """The same for rows that come behind those of the first file, in which the offset was counted already."""
        another = copy(self)
        another._offset = 0
        return another

    def left_out(self, row: int, fields: Mapping[str, str]) -> str:
        """Why that row is left out; "" when it is not.

        Raises:
            InvalidArgument: the condition fails on this row.
        """
        if row <= self._offset:
            return f"left out: before row {self._offset + 1}"
        if self._holds is None:
            return ""
        named = {name: fields[column] for name, column in self._columns.names.items() if column in fields}
        try:
            holds = self._holds(**named, row=dict(fields))
        except Exception as error:  # what an expression raises is anything
            raise InvalidArgument(f"--where fails on row {row}: {safe_text(str(error), 200)}: correct it") from error
        return "" if holds else f"left out: not {safe_text(str(self._where), 200)}"

    def _compiled(self, where: str) -> Callable[..., object]:
        from jinja2 import StrictUndefined, TemplateSyntaxError, meta
        from jinja2.nodes import Template
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
        try:
            parsed: Template = environment.parse("{{" + where + "}}")
            holds = environment.compile_expression(where, undefined_to_none=False)
        except TemplateSyntaxError as error:
            raise InvalidArgument(f"--where is no condition: {safe_text(str(error.message), 200)}") from None
        for name in sorted(meta.find_undeclared_variables(parsed)):
            if name not in self._columns.names and name != "row":
                raise InvalidArgument(
                    f"--where: there is no column “{safe_text(name, 60)}”; {self._columns.advice(name)}"
                )
        return holds
