"""CSV (RFC 4180 §2) and JSON lines: incremental reading, writing, and formula escaping."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "CELL_FAULT",
    "MAX_CELL",
    "MAX_RECORD",
    "JsonLinesReader",
    "Record",
    "RecordReader",
    "RecordSource",
    "escape_apostrophe",
    "escape_formula",
    "format_record",
    "may_contain_escaped",
    "unescape_formula",
]

_LINE_END = "\r\n"

# Where a spreadsheet looks for a formula. One that expects another delimiter than ours begins a cell after each `;`,
# tab or `|`, and after each line end, since our quotes mean nothing to it. What it skips before a formula are blanks,
# quotes, and control, format and other invisible characters. Many programs make ASCII of fullwidth and small signs.
# The apostrophes belong to the pattern, so that one more or one less can always be told apart.
_SEPARATORS = ";|\t\r\n"
_SIGN = r"[=+\-@\u207a-\u207c\u208a-\u208c\u2212\u2a75\u2a76\ufb29\ufe62\ufe63\ufe66\ufe6b\uff0b\uff0d\uff1d\uff20]"
_SKIPPED = (
    '[\\x00-\\x08\\x0b\\x0c\\x0e-\\x20"\\x7f-\\xa0\\xad\\u034f\\u061c\\u115f\\u1160\\u1680\\u17b4\\u17b5\\u180b-\\u180f'
    "\\u2000-\\u200f\\u2028-\\u202f\\u205f-\\u206f\\u2800\\u3000\\u3164\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff0-\\ufffb]"
)
_FORMULA = rf"{_SKIPPED}*{_SIGN}"
_PLACE = rf"(?:\A|(?<=[{_SEPARATORS}]))"
# A tab, CR or NUL at the beginning of a cell is escaped by itself.
_UNESCAPED = re.compile(rf"{_PLACE}(?='*{_FORMULA})|\A(?='*[\t\r\0])")
_BEGINNING = re.compile(rf"'*(?:{_FORMULA}|\0)")
_ESCAPED = re.compile(rf"{_PLACE}'(?='*{_FORMULA})|\A'(?='*[\t\r\0])")
_HINT = re.compile(rf"'(?:{_FORMULA}|[\t\r\0])")  # linear time also in a text of nothing but apostrophes


def escape_formula(cell: str) -> str:
    """Put an apostrophe before whatever a spreadsheet would evaluate; `unescape_formula` takes it off.

    That is the beginning of the cell, and what follows a delimiter of other spreadsheets or a line end in it.
    """
    if ";" in cell or "|" in cell or "\n" in cell or "\t" in cell or "\r" in cell:
        return _UNESCAPED.sub("'", cell)
    return f"'{cell}" if _BEGINNING.match(cell) else cell  # nearly all cells, six times as fast


def escape_apostrophe(cell: str) -> str:
    """Return a cell for programs: as it is, with one apostrophe more where `unescape_formula` would take one off."""
    return _ESCAPED.sub("''", cell) if "'" in cell else cell


def unescape_formula(cell: str) -> str:
    """Return the original cell: of apostrophes right before a formula, one is taken off."""
    return _ESCAPED.sub("", cell) if "'" in cell else cell


def may_contain_escaped(text: str) -> bool:
    """Return whether some cell of a text may be escaped; nearly always False, so that cells need no look each."""
    return _HINT.search(text) is not None


def format_record(cells: Iterable[str], *, quoted: bool = False, delimiter: str = ",") -> str:
    """Return one record without its line end, which every program reads as the same cells (RFC 4180 §2).

    Args:
        quoted: quote every cell, and not only those that need it.
        delimiter: one character.
    """
    text = io.StringIO()  # older writers quote a line break only where it is in their own line end
    writer = csv.writer(
        text, delimiter=delimiter, lineterminator=_LINE_END, quoting=csv.QUOTE_ALL if quoted else csv.QUOTE_MINIMAL
    )
    writer.writerow(cells)
    return text.getvalue().removesuffix(_LINE_END)


CELL_FAULT = "\0fault: "  # before the reason why a cell of a workbook has no value
MAX_CELL = 128 * 1024  # characters
MAX_RECORD = 1024 * 1024  # characters, line ends and quotes included


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        row: 0 for the header, then from 1. Empty lines and rows of blank cells are not records and not counted.
        line: the physical line on which the record begins, from 1.
        cells: without the apostrophe that keeps a spreadsheet from evaluating one.
        fault: why the cells cannot be trusted; "" when they can.
    """

    row: int
    line: int
    cells: list[str]
    fault: str = ""


class RecordSource(Protocol):
    """A parser of text to records, the header first."""

    def feed(self, text: str, *, final: bool = False) -> Iterator[Record]:
        """Yield each record that `text` completes; run it to its end before the next call."""


class _NeedsMoreLines(Exception):
    """A request of the csv module for a line that has not been read yet."""


class RecordReader:
    """An incremental CSV parser, with the same records wherever the text is cut.

    The csv module forgets a record that its lines do not complete. So the lines of an unfinished record, at most
    `MAX_RECORD` characters, are kept and parsed again with the next piece.
    """

    def __init__(self, name: str, delimiter: str, skip_lines: int = 0) -> None:
        """Name the file, for errors. `skip_lines`: the number of lines above the header.

        Attributes:
            blank_line: the line of the last row without a value before the record that was yielded last; 0 for none.
        """
        self._name = name
        self._delimiter = delimiter
        self._skip = skip_lines
        self._rest = ""
        self._row = 0
        self._line = 1
        self.blank_line = 0

    def feed(self, text: str, *, final: bool = False) -> Iterator[Record]:
        """Yield each record that `text` completes; run it to its end before the next call.

        Raises:
            RecipientError: it is unknown where the following rows begin, or a limit is exceeded; after the records
                before it.
        """
        text = self._rest + text
        nul, escaped = "\0" in text, may_contain_escaped(text)
        lines = list(io.StringIO(text, newline=""))  # ends: CR LF, LF, CR; str.splitlines knows others
        # a last line may go on, and a last CR may be half a CR LF
        tail = lines.pop() if lines and not final and not lines[-1].endswith("\n") else ""
        if self._skip:
            skipped = min(self._skip, len(lines))
            del lines[:skipped]
            self._skip -= skipped
            self._line += skipped
        reader = csv.reader(_lines_or_raise(lines), delimiter=self._delimiter, strict=True)
        begin = 0
        while True:
            cells: list[str] = []
            fault = ""
            try:
                cells = next(reader)
            except _NeedsMoreLines:
                break
            except csv.Error as error:
                fault = self._explain(error, self._line + begin, lines[begin : reader.line_num])
            end = reader.line_num
            size = len(lines[begin]) if end - begin == 1 else sum(map(len, lines[begin:end]))
            if size > MAX_CELL:
                self._check_size(size, cells, self._line + begin)
            if nul and not fault and (found := next((cell for cell in cells if "\0" in cell), "")):
                fault = "has a NUL character: is this text? take it out, or export the file again"
                if found.startswith(CELL_FAULT):
                    fault = safe_text(found.removeprefix(CELL_FAULT), 300)
            if escaped:
                cells = [unescape_formula(cell) for cell in cells]
            # the first character decides of nearly every row that it is not blank
            if fault or (cells and ("!" < cells[0] < "\x7f" or not _are_blank(cells))):
                yield Record(self._row, self._line + begin, cells, fault)
                self._row += 1
            else:
                self.blank_line = self._line + begin
            begin = end
        self._line += begin
        self._rest = "".join(lines[begin:]) + tail
        if final and self._rest:
            raise self._broken(self._line, "opens a quote that is not closed before the end of the file: close it")
        self._check_size(len(self._rest), (), self._line)

    def _explain(self, error: csv.Error, line: int, lines: Sequence[str]) -> str:
        if "field limit" in str(error):  # the csv module's own limit, which a program may have lowered
            raise self._broken(line, f"has a cell of more than {min(MAX_CELL, csv.field_size_limit())} characters")
        if len(lines) > 1:  # whole rows may be hidden inside
            raise self._broken(
                line,
                f"opens a quote that runs on to line {line + len(lines) - 1}, where text follows the closing quote: "
                "close it where it belongs",
            )
        return 'has text behind a closing quote: write a quote inside quotes twice, as in "5"" disk"'

    def _check_size(self, size: int, cells: Sequence[str], line: int) -> None:
        if size > MAX_RECORD:
            raise self._broken(line, f"runs past {MAX_RECORD} characters: is a quote that opens there never closed?")
        if any(len(cell) > MAX_CELL for cell in cells):
            raise self._broken(line, f"has a cell of more than {MAX_CELL} characters: is a quote never closed?")

    def _broken(self, line: int, what: str) -> RecipientError:
        which = f"row {self._row}" if self._row else "the header"
        return RecipientError(f"{self._name}, line {line}: {which} {what}")


def _are_blank(cells: Sequence[str]) -> bool:
    return all(not cell or cell.isspace() for cell in cells)


def _lines_or_raise(lines: Sequence[str]) -> Iterator[str]:
    yield from lines
    raise _NeedsMoreLines


class JsonLinesReader:
    """An incremental parser of JSON lines. The first object names the columns; an unknown key is a fault of its row.

    A key that a later object lacks is an empty cell, and so is null; with `all_keys` it is a fault as well. Numbers,
    true and false are as they are written.
    """

    def __init__(self, name: str, *, all_keys: bool = False) -> None:
        """Name the file, for errors."""
        self._all_keys = all_keys
        self._name = name
        self._rest = ""
        self._columns: tuple[str, ...] = ()
        self._row = 0
        self._line = 0

    def feed(self, text: str, *, final: bool = False) -> Iterator[Record]:
        """Yield each record that `text` completes; before the first one the header.

        Raises:
            RecipientError: the first line is not an object, or a line is too long.
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
            found = json.loads(line, object_pairs_hook=_unique_keys, parse_float=str, parse_int=str, parse_constant=str)
        except (ValueError, RecursionError) as error:
            fault = f"is not JSON: {safe_text(str(error), 100)}"
        if not fault and not isinstance(found, dict):
            fault = 'is not an object: each line is one, such as {"email": "ann@example.org"}'
        if not self._columns:
            if fault:
                raise self._broken(fault)
            self._columns = tuple(found)
            yield Record(0, self._line, list(self._columns))
        self._row += 1
        if not fault and (unknown := next((key for key in found if key not in self._columns), None)) is not None:
            fault = f"has a key “{safe_text(unknown, 60)}” that the first line does not have"
        elif not fault and self._all_keys and len(found) < len(self._columns):
            lacking = next(column for column in self._columns if column not in found)
            fault = f"lacks “{safe_text(lacking, 60)}”, which the first row has: None leaves a cell empty"
        if fault:
            yield Record(self._row, self._line, [], fault)
            return
        cells = [_cell(found.get(column)) for column in self._columns]
        invalid = next((column for column, cell in zip(self._columns, cells, strict=True) if cell is None), None)
        if invalid is not None:
            fault = f"has a list or an object as “{safe_text(invalid, 60)}”: a cell is text"
        elif any(len(cell or "") > MAX_CELL for cell in cells):
            fault = f"has a cell of more than {MAX_CELL} characters"
        elif any("\0" in (cell or "") for cell in cells):
            fault = "has a NUL character: remove it"
        yield Record(self._row, self._line, [cell or "" for cell in cells], fault)

    def _broken(self, what: str) -> RecipientError:
        return RecipientError(f"{self._name}, line {self._line}: {what}")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _cell(value: object) -> str | None:
    """Return a value as text; None: it is a list or an object."""
    if isinstance(value, str):
        return value
    return {None: "", True: "true", False: "false"}.get(value) if value is None or isinstance(value, bool) else None
