"""CSV (RFC 4180 §2) and JSON lines: encodings, incremental reading, writing, and formula escaping."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "MAX_CELL",
    "MAX_RECORD",
    "UTF_8",
    "JsonLinesReader",
    "Record",
    "RecordReader",
    "RecordSource",
    "TextDecoder",
    "count_line_ends",
    "detect_encoding",
    "escape_apostrophe",
    "escape_formula",
    "format_record",
    "may_contain_escaped",
    "normalize_encoding",
    "unescape_formula",
]

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


MAX_CELL = 128 * 1024  # characters
MAX_RECORD = 1024 * 1024  # characters, line ends and quotes included


class Record(NamedTuple):
    """One record of a file.

    Attributes:
        row: 0 for the header, then from 1. Empty lines are not records and not counted.
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

    def __init__(self, name: str, delimiter: str) -> None:
        """Name the file, for errors."""
        self._name = name
        self._delimiter = delimiter
        self._rest = ""
        self._row = 0
        self._line = 1

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
            if nul and not fault and any("\0" in cell for cell in cells):
                fault = "has a NUL character: is this text? take it out, or export the file again"
            if escaped:
                cells = [unescape_formula(cell) for cell in cells]
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


UTF_8 = "utf-8"
_GUESS_SAMPLE = 64 * 1024  # bytes that a guess is made from
_UTF_16_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_UTF_16_PATTERNS = (
    (re.compile(rb"[^\0]\0[^\0]\0", re.DOTALL), "utf-16-le"),
    (re.compile(rb"\0[^\0]\0[^\0]", re.DOTALL), "utf-16-be"),
)
# The encodings that spreadsheets save, the most frequent first. A guess among hundreds, many of which read a few bytes
# alike, is often a strange one.
_LIKELY = ["cp1252", "cp1250", "cp1251", "cp1253", "cp1254", "iso8859_15", "mac_roman"]
_MAX_EXTRA_CHAOS = 0.02  # above the best guess, for one that counts as equally likely


def normalize_encoding(encoding: str) -> str:
    """Return Python's name of an encoding. Raises RecipientError: there is none of that name."""
    try:
        found = codecs.lookup(encoding)
        "".encode(found.name)  # an encoding of text, not a compression
    except (LookupError, UnicodeError, ValueError):
        raise RecipientError(f"{encoding!r} is not an encoding: give one such as utf-8, cp1252 or utf-16") from None
    return found.name


def detect_encoding(data: bytes, *, whole: bool) -> str | None:
    """Return the encoding of the beginning of a file; None where it cannot be detected.

    UTF-8 is tried first, then byte order marks, then a guess.

    Args:
        whole: `data` is the whole file, so that no character can be cut at its end.
    """
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return None
    for mark, encoding in _UTF_16_MARKS:
        if data.startswith(mark):
            return encoding
    for pattern, encoding in _UTF_16_PATTERNS:
        if pattern.match(data):
            return encoding
    try:
        codecs.getincrementaldecoder(UTF_8)().decode(data, whole)
    except UnicodeDecodeError as error:
        return _guess(data[max(0, error.start - _GUESS_SAMPLE // 2) :][:_GUESS_SAMPLE])
    return UTF_8


def _guess(data: bytes) -> str | None:
    from charset_normalizer import from_bytes  # late: start-up time

    if b"\0" in data:
        return None  # no text
    found = list(from_bytes(data, cp_isolation=_LIKELY, preemptive_behaviour=False))
    fit = {
        name
        for match in found
        if match.chaos <= found[0].chaos + _MAX_EXTRA_CHAOS
        for name in match.could_be_from_charset
    }
    return next((codecs.lookup(name).name for name in _LIKELY if name in fit), None)


# The beginnings of files that are not UTF-8 text. The longer mark stands first.
_OTHER_ENCODINGS = (
    (re.compile(rb"\xff\xfe\0\0|\0\0\xfe\xff"), "UTF-32"),
    (re.compile(rb"\xff\xfe|\xfe\xff|[^\0]\0[^\0]\0|\0[^\0]\0[^\0]", re.DOTALL), "UTF-16"),
)
_OTHER_FORMATS = (
    (b"PK\x03\x04", "a workbook or a ZIP archive"),
    (b"\xd0\xcf\x11\xe0", "a workbook of an old Excel"),
    (b"\x1f\x8b", "compressed"),
    (b"%PDF", "a PDF"),
)
_MAX_MARK = 4  # bytes of the longest of these


class TextDecoder:
    """An incremental decoder, with or without a byte order mark, of blocks that may end inside a character."""

    def __init__(self, name: str, encoding: str = UTF_8) -> None:
        """Name the file, for errors."""
        self._name = name
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("strict")
        self._begun = False
        self._unread = b""
        self._offset = 0
        self._lines = 0
        self._last = ""

    def decode(self, data: bytes, *, final: bool = False) -> str:
        """Return the text of the next block: of the characters that end in it.

        Raises:
            RecipientError: not in that encoding; the message has the line, the byte and the remedy.
        """
        is_first = not self._begun
        if is_first:
            self._unread += data
            if len(self._unread) < _MAX_MARK and not final:
                return ""
            data, self._unread, self._begun = self._unread, b"", True
            self._refuse_other_formats(data)
        text = self._text(data, final)
        self._count(data, text)
        return text.removeprefix("\ufeff") if is_first else text

    def _text(self, data: bytes, final: bool) -> str:
        pending = len(self._decoder.getstate()[0])  # bytes of a character that the last block cut
        try:
            return self._decoder.decode(data, final)
        except UnicodeDecodeError as error:
            before = self._last + error.object[: error.start].decode(self._encoding, "replace")
            line = 1 + self._lines + count_line_ends(before) - count_line_ends(self._last)
            raise self._invalid(line, self._offset - pending + error.start, error.object[error.start]) from error
        except UnicodeError as error:  # of UTF-16, without a byte order mark
            raise RecipientError(f"{self._name} is not {self._encoding}: save it as “CSV UTF-8”") from error

    def _count(self, data: bytes, text: str) -> None:
        self._offset += len(data)
        self._lines += (
            count_line_ends(self._last + text) - count_line_ends(self._last) if self._last else count_line_ends(text)
        )
        self._last = "\r" if text.endswith("\r") or (not text and self._last) else ""

    def _refuse_other_formats(self, data: bytes) -> None:
        for mark, encoding in _OTHER_ENCODINGS if self._encoding == UTF_8 else ():
            if mark.match(data):
                raise RecipientError(
                    f"{self._name} is {encoding}, not UTF-8: save it as “CSV UTF-8”, "
                    f"or convert it: iconv -f {encoding} -t UTF-8 {shlex.quote(self._name)} > utf8.csv"
                )
        for beginning, kind in _OTHER_FORMATS:
            if data.startswith(beginning):
                raise RecipientError(f"{self._name} is {kind}, not a CSV: save or export it as “CSV UTF-8”")

    def _invalid(self, line: int, offset: int, value: int) -> RecipientError:
        if self._encoding != UTF_8:
            return RecipientError(
                f"{self._name}, line {line}: byte 0x{value:02X} at offset {offset} is not {self._encoding}: "
                "name the encoding with encoding=, or save the file as “CSV UTF-8”"
            )
        perhaps = bytes((value,)).decode("cp1252", "ignore")
        meant = f" (“{perhaps}” in Windows-1252)" if perhaps.isprintable() and perhaps else ""
        return RecipientError(
            f"{self._name}, line {line}: byte 0x{value:02X}{meant} at offset {offset} is not UTF-8: save the file as "
            f"“CSV UTF-8”, or name its encoding, such as cp1252, with encoding="
        )


def count_line_ends(text: str) -> int:
    """Return the number of lines that end in `text`, with CR LF, LF or CR."""
    ends = text.count("\n")
    return ends + text.count("\r") - text.count("\r\n") if "\r" in text else ends
