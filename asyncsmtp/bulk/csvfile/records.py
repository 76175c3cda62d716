"""Text to records: the csv module, fed in pieces that may be cut anywhere (RFC 4180 §2)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from asyncsmtp.bulk.csvfile.formulas import may_hold_tamed, untamed
from asyncsmtp.errors import RecipientError

__all__ = ["MAX_CELL", "MAX_RECORD", "Reads", "Record", "RecordReader"]

MAX_CELL = 128 * 1024  # characters
MAX_RECORD = 1024 * 1024  # characters, line ends and quotes included


class Record(NamedTuple):
    """One record of the file.

    Attributes:
        row: 0 for the header, then from 1. A line with nothing on it is no record and is not counted.
        line: the physical line on which the record begins, from 1.
        cells: as they were meant: without the apostrophe that keeps a spreadsheet from calculating one.
        fault: why the cells cannot be trusted; empty when they can.
    """

    row: int
    line: int
    cells: list[str]
    fault: str = ""


class Reads(Protocol):
    """What makes records of text, the heading first."""

    def feed(self, text: str, *, final: bool = False) -> Iterator[Record]:
        """Yield each record that `text` completes; run it to its end before the next call."""
        ...


class _RanDry(Exception):
    """The csv module asked for a line that has not been read yet."""


class RecordReader:
    """Text in, records out, the same wherever the text is cut.

    The csv module forgets a record that its lines do not complete, so the lines of an unfinished
    record are kept and fed again with the next piece: at most `MAX_RECORD` characters.
    """

    def __init__(self, name: str, delimiter: str) -> None:
        """`name` is the file's, for errors."""
        self._name = name
        self._delimiter = delimiter
        self._rest = ""
        self._row = 0
        self._line = 1

    def feed(self, text: str, *, final: bool = False) -> Iterator[Record]:
        """Yield each record that `text` completes; run it to its end before the next call.

        Raises:
            RecipientError: where the rows begin can no longer be told, or a limit is passed; after the
                records before it.
        """
        text = self._rest + text
        nul, apostrophes = "\0" in text, may_hold_tamed(text)
        lines = list(io.StringIO(text, newline=""))  # ends: CR LF, LF, CR; str.splitlines knows others
        # a last line may go on, and a last CR may be half a CR LF
        tail = lines.pop() if lines and not final and not lines[-1].endswith("\n") else ""
        reader = csv.reader(_supply(lines), delimiter=self._delimiter, strict=True)
        begin = 0
        while True:
            cells: list[str] = []
            fault = ""
            try:
                cells = next(reader)
            except _RanDry:
                break
            except csv.Error as error:
                fault = self._explain(error, self._line + begin, lines[begin : reader.line_num])
            end = reader.line_num
            size = len(lines[begin]) if end - begin == 1 else sum(map(len, lines[begin:end]))
            if size > MAX_CELL:
                self._check_size(size, cells, self._line + begin)
            if nul and not fault and any("\0" in cell for cell in cells):
                fault = "holds a NUL character: is this text? take it out, or export the file again"
            if apostrophes:
                cells = [untamed(cell) for cell in cells]
            if cells or fault:
                yield Record(self._row, self._line + begin, cells, fault)
                self._row += 1
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


def _supply(lines: Sequence[str]) -> Iterator[str]:
    yield from lines
    raise _RanDry
