"""Cells that are empty where a template writes them by themselves, so that a mail begins with “Hello ,”.

What a template leaves out by a condition, or replaces by another text (`{{ name or "friend" }}`), is not meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from jinja2 import nodes

from asyncsmtp.mail.checks.rules import Finding, FindingLevel
from asyncsmtp.mail.templates.variables import Columns, find_column, parse
from asyncsmtp.protocol.replies import safe_text

__all__ = ["EMPTY_CELL", "EmptyCells", "WrittenColumn", "find_written_columns"]

EMPTY_CELL = "empty-cell"
SHOWN_ROWS = 5

_CONDITIONAL = (nodes.If, nodes.CondExpr, nodes.For, nodes.Macro, nodes.CallBlock, nodes.FilterBlock)
_KEEP_EMPTY = frozenset({"trim", "string", "e", "escape", "safe", "upper", "lower", "title", "capitalize"})


class WrittenColumn(NamedTuple):
    """The place where a template first writes a column, and how it may write another text for an empty cell."""

    place: str
    advice: str


def find_written_columns(sources: Mapping[str, str], columns: Columns) -> dict[str, WrittenColumn]:
    """Return the columns that some templates, by the names of their files, write without a condition."""
    found: dict[str, WrittenColumn] = {}
    environment = columns.environment(autoescape=False, load=None)
    for file, source in sources.items():
        for node in _find_written(parse(source, file, environment)):
            column = find_column(node, columns)
            if column is not None and column not in found:
                place = f"{file}, line {node.lineno}" if "\n" in source.strip() or "." in file else file
                spelled = next((name for name, of in columns.names.items() if of == column), None)
                written = columns.delimiters.write(f'{spelled or f"row[{column!r}]"} or "…"')
                found[column] = WrittenColumn(place, f"write {written}, or leave it if that is meant")
    return found


def _find_written(node: nodes.Node) -> Iterator[nodes.Node]:
    """Yield what is written by itself, without the filters that leave an empty text empty."""
    for child in node.iter_child_nodes():
        if isinstance(child, _CONDITIONAL):
            continue
        if not isinstance(node, nodes.Output):
            yield from _find_written(child)
            continue
        while isinstance(child, nodes.Filter) and child.name in _KEEP_EMPTY and child.node is not None:
            child = child.node
        yield child


class EmptyCells:
    """A count of the empty cells in some columns."""

    def __init__(self, columns: Mapping[str, WrittenColumn]) -> None:
        self._columns = columns
        self._rows: dict[str, list[int]] = {column: [] for column in columns}
        self._numbers = dict.fromkeys(columns, 0)
        self._total = 0

    def add(self, row: int, fields: Mapping[str, str]) -> None:
        """Count the cells of a row that is mailed."""
        self._total += 1
        for column in self._columns:
            if not fields.get(column, "").strip():
                self._numbers[column] += 1
                if len(rows := self._rows[column]) < SHOWN_ROWS:
                    rows.append(row)

    def findings(self) -> list[Finding]:
        """Return a note for each column with some empty cells; one that is empty in all rows is no mistake of a row."""
        return [
            Finding(EMPTY_CELL, FindingLevel.NOTE, self._describe(column), written.advice)
            for column, written in self._columns.items()
            if 0 < self._numbers[column] < self._total
        ]

    def _describe(self, column: str) -> str:
        number, rows = self._numbers[column], self._rows[column]
        listed = ", ".join(map(str, rows)) + (", …" if number > len(rows) else "")
        where = f"row {listed}" if number == 1 else f"{number:,} rows ({listed})"
        return f"{self._columns[column].place}: “{safe_text(column, 60)}” is empty in {where}"
