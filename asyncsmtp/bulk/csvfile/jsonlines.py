"""JSON lines to records: an object a line, its keys the columns of all."""

from __future__ import annotations

import json
from collections.abc import Iterator

from asyncsmtp.bulk.csvfile.records import MAX_CELL, MAX_RECORD, Record
from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["JsonReader"]


class JsonReader:
    """Text in, records out. The first object names the columns; a key that it has not is a fault of the row.

    A key that a later object lacks is an empty cell, and so is null. Numbers are as they are written, and true and
    false are words.
    """

    def __init__(self, name: str) -> None:
        """`name` is the file's, for errors."""
        self._name = name
        self._rest = ""
        self._columns: tuple[str, ...] = ()
        self._row = 0
        self._line = 0

    def feed(self, text: str, *, final: bool = False) -> Iterator[Record]:
        """Yield each record that `text` completes; before the first of them the names of the columns.

        Raises:
            RecipientError: the first line is no object, or a line has no end.
        """
        *lines, self._rest = (self._rest + text).split("\n")
        if final and self._rest:
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            self._line += 1
            if len(line) > MAX_RECORD:
                raise self._broken(f"runs past {MAX_RECORD} characters: is this JSON lines?")
            if not line.isspace() and line:
                yield from self._records(line)
        if len(self._rest) > MAX_RECORD:
            self._line += 1
            raise self._broken(f"runs past {MAX_RECORD} characters: is this JSON lines?")

    def _records(self, line: str) -> Iterator[Record]:
        fault, found = "", {}
        try:
            found = json.loads(line, object_pairs_hook=_object, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            fault = f"is no JSON: {safe_text(str(error), 100)}"
        if not fault and not isinstance(found, dict):
            fault = 'is no object: each line is one, such as {"email": "ann@example.org"}'
        if not self._columns:
            if fault:
                raise self._broken(fault)
            self._columns = tuple(found)
            yield Record(0, self._line, list(self._columns))
        self._row += 1
        if not fault and (unknown := next((key for key in found if key not in self._columns), None)) is not None:
            fault = f"has a key “{safe_text(unknown, 60)}” that the first line has not"
        if fault:
            yield Record(self._row, self._line, [], fault)
            return
        cells = [_cell(found.get(column)) for column in self._columns]
        odd = next((column for column, cell in zip(self._columns, cells, strict=True) if cell is None), None)
        if odd is not None:
            fault = f"has a list or an object as “{safe_text(odd, 60)}”: a cell is text"
        elif any(len(cell or "") > MAX_CELL for cell in cells):
            fault = f"has a cell of more than {MAX_CELL} characters"
        elif any("\0" in (cell or "") for cell in cells):
            fault = "holds a NUL character: take it out"
        yield Record(self._row, self._line, [cell or "" for cell in cells], fault)

    def _broken(self, what: str) -> RecipientError:
        return RecipientError(f"{self._name}, line {self._line}: {what}")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _cell(value: object) -> str | None:
    """A value as text; None: it is none."""
    if isinstance(value, str):
        return value
    return {None: "", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
