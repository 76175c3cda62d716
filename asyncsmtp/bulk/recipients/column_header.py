"""The header of a recipient file: its delimiter, its columns, and the column of the address."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice

from asyncsmtp.bulk.recipients.csv_format import Record, RecordReader, RecordSource
from asyncsmtp.bulk.recipients.recipient import parse_address_cell
from asyncsmtp.errors import ConfigError, RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "DELIMITERS",
    "MAX_COLUMNS",
    "SAMPLE",
    "ColumnHeader",
    "detect_delimiter",
    "find_column",
    "is_called_email",
    "match_columns",
    "parse_columns",
    "read_header",
]

DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
SAMPLE = 256 * 1024  # characters from the beginning of the file that a guess may rest on; the header is within
_SAMPLE_ROWS = 50
_MAX_TITLE_LINES = 10  # above a header that is searched
# The first line that names the delimiter for Excel.
_DELIMITER_LINE = re.compile(r"""(["']?)sep=([^\r\n\0"])\1[,;\t|]*(?:\r\n|\r|\n)""", re.IGNORECASE)
_COLUMN_NUMBER = re.compile(r" \(column [0-9]+\)$")

# Names of a column of addresses, as letters only: “E-Mail Address” is emailaddress.
_ADDRESS_NAMES = frozenset(
    {
        *("email", "emailaddr", "emailaddress", "mail", "mailaddress"),
        *("emailadresse", "mailadresse", "correo", "correoelectronico", "courriel"),
    }
)


@dataclass(frozen=True, slots=True)
class ColumnHeader:
    """The header of a file, and how the file is read.

    Attributes:
        columns: the names, in order, without surrounding spaces; each is there once. A column without a name is
            `column 3`, and two of the same name are `name (column 2)` and `name (column 5)`.
        email: the column of the address.
        guessed: whether that column was guessed: tell the user.
        encoding: the encoding, if it was guessed and is not UTF-8: tell the user; "" otherwise.
        skipped_lines: the number of lines above the header that are not read.
        found_line: the line of the header, if it was found below a title: tell the user; 0 otherwise.
        sheet: the sheet, if it was chosen among those of a workbook: tell the user; "" otherwise.
    """

    columns: tuple[str, ...]
    email: str
    guessed: bool
    delimiter: str
    encoding: str = ""
    skipped_lines: int = 0
    found_line: int = 0
    sheet: str = ""


def read_header(
    name: str,
    text: str,
    *,
    whole: bool,
    delimiter: str | None,
    email: str | None,
    reader: RecordSource | None = None,
    skip_lines: int | None = None,
) -> ColumnHeader:
    """Read the header from `text`, the beginning of the file `name`.

    Args:
        whole: `text` is the whole file.
        delimiter: None for the one that a first line `sep=;` names, or to detect it.
        email: the name of the column of the address; None to guess it.
        reader: the parser; None for CSV.
        skip_lines: the number of lines above the header; None to look for it below the rows of a title.
    Raises:
        RecipientError: no header, an ambiguous one, or a column that is not there.
    """
    if not text.strip():
        raise RecipientError(f"{name} is empty: it needs a line of column names, then a row for each recipient")
    if reader is not None:
        return replace(_read_records(name, reader, "", text, whole, email), found_line=0)
    first = 0
    if named := _DELIMITER_LINE.match(text):
        first, delimiter = 1, delimiter or named[2]
    lines = list(islice(io.StringIO(text, newline=""), max(first, skip_lines or 0, _MAX_TITLE_LINES)))

    def read_below(skipped: int) -> ColumnHeader:
        below = text[sum(map(len, lines[:skipped])) :]
        if not below.strip():
            raise RecipientError(f"{name} has nothing below the lines that are skipped: give a smaller skip_lines=")
        delimits = delimiter or detect_delimiter(name, below, whole=whole)
        found = _read_records(name, RecordReader(name, delimits, skipped), delimits, text, whole, email)
        return replace(found, skipped_lines=skipped)

    if skip_lines is not None or not lines[first:]:
        return replace(read_below(max(first, skip_lines or 0)), found_line=0)
    try:
        return replace(read_below(first), found_line=0)
    except RecipientError:
        for skipped in range(first + 1, len(lines)):
            with suppress(RecipientError):
                found = read_below(skipped)
                is_sure = len(found.columns) > 1 or is_called_email(found.columns[0])
                if is_sure and all(_is_title(line, found.delimiter) for line in lines[first:skipped]):
                    return replace(found, skipped_lines=found.found_line - 1)
                break
        else:
            raise
        if not is_called_email(found.email):
            raise
        what = f"{name}: line {skipped + 1} may have the names of the columns"
        raise RecipientError(f"{what}: if it has, set skip_lines= to {skipped}") from None


def _is_title(line: str, delimiter: str) -> bool:
    """Return whether a line has one cell, or none, and so no names of columns and no recipient."""
    if line.count('"') % 2 or "@" in line:
        return False
    return sum(bool(cell.strip()) for cell in next(csv.reader([line], delimiter=delimiter), [])) <= 1


def _read_records(
    name: str, reader: RecordSource, delimiter: str, text: str, whole: bool, email: str | None
) -> ColumnHeader:
    """Return the header, with its line as `found_line`."""
    records = reader.feed(text, final=whole)
    header = next(records, None)
    if header is None and whole:
        raise RecipientError(f"{name} has only blank rows: it needs a line of column names, then a row each")
    if header is None:
        raise RecipientError(f"{name}: the header runs past {SAMPLE} characters: is a quote in it never closed?")
    columns = parse_columns(name, header)
    if email is not None:
        return ColumnHeader(columns, find_column(name, columns, email), False, delimiter, found_line=header.line)
    rows: list[list[str]] = []
    with suppress(RecipientError):  # a problem of a row is reported when the rows are read
        for record in islice(records, _SAMPLE_ROWS):
            rows.append(record.cells)
    return ColumnHeader(columns, _guess_email(name, columns, rows), True, delimiter, found_line=header.line)


def detect_delimiter(name: str, text: str, *, whole: bool) -> str:
    """Detect the one that splits most rows into as many cells as the header. Raises RecipientError: two fit equally."""
    fits = {delimiter: _fit(text, delimiter, whole=whole) for delimiter in DELIMITERS}
    best = max(fits.values())
    if best == _NO_FIT:  # a single column
        return DELIMITERS[0]
    found = [delimiter for delimiter in DELIMITERS if fits[delimiter] == best]
    if len(found) > 1:
        raise RecipientError(f"{name}: the delimiter may be {_join(map(repr, found))}: name it with delimiter=")
    return found[0]


_NO_FIT = (0.0, 0)


def _fit(text: str, delimiter: str, *, whole: bool) -> tuple[float, int]:
    """Return the share of the first rows with as many cells as the header, and that number."""
    records: list[list[str]] = []
    with suppress(csv.Error):  # the records before it still count
        for record in islice(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), _SAMPLE_ROWS):
            if record:
                records.append(record)
    if not whole and len(records) < _SAMPLE_ROWS:
        records = records[:-1]  # the last one may be cut
    if not records or len(records[0]) < 2:
        return _NO_FIT
    header, *rows = records
    return (sum(len(row) == len(header) for row in rows) + 1) / (len(rows) + 1), len(header)


def parse_columns(name: str, header: Record) -> tuple[str, ...]:
    """Return the column names, without empty ones at the end. Raises RecipientError: it is no valid header."""
    where = f"{name}, line {header.line}"
    if header.fault:
        raise RecipientError(f"{where}: the header {header.fault}")
    columns = [" ".join(cell.split()) for cell in header.cells]
    while columns and not columns[-1]:
        columns.pop()
    if not columns:
        raise RecipientError(f"{where}: the header is blank: the first line must name the columns")
    if len(columns) > MAX_COLUMNS:
        raise RecipientError(f"{where}: {len(columns)} columns are more than {MAX_COLUMNS}: is this the right file?")
    if address := next(filter(_is_address, columns), None):
        what = f"{where} holds the address {_quote(address)} where the names of the columns belong"
        raise RecipientError(f"{what}: add a first line of column names")
    number = Counter(columns)
    for place, column in enumerate(columns, 1):
        if not column:
            columns[place - 1] = f"column {place}"
        elif number[column] > 1:
            columns[place - 1] = f"{column} (column {place})"
    if again := next((column for column, times in Counter(columns).items() if times > 1), None):
        raise RecipientError(f"{where}: two columns are named {_quote(again)}: rename one")
    return tuple(columns)


def find_column(name: str, columns: Sequence[str], wanted: str) -> str:
    """Return the column named `wanted`, exactly or except for case and spaces.

    Raises:
        RecipientError: there is none, or there are several; the message has the nearest name and all names.
    """
    if wanted in columns:
        return wanted
    found = [column for column in columns if _folded(column) == _folded(wanted)]
    if len(found) == 1:
        return found[0]
    same = [column for column in columns if _folded(_COLUMN_NUMBER.sub("", column)) == _folded(wanted)]
    if same and not found:
        what = f"{name}: {len(same)} columns are named {_quote(wanted)}"
        raise RecipientError(f"{what}: rename them, or name one of {_join(map(_quote, same))}")
    if found:
        raise RecipientError(f"{name}: {_quote(wanted)} may be {_join(map(_quote, found))}: spell it exactly")
    raise RecipientError(f"{name} has no column {_quote(wanted)}{_nearest(wanted, columns)}; it has {_all(columns)}")


def match_columns(name: str, columns: Sequence[str], wanted: Sequence[str]) -> Mapping[str, str]:
    """Match columns that differ from the `wanted` ones in case and spaces; return the wanted spelling of each.

    Raises:
        ConfigError: the file `name` lacks some of them.
    """
    free, missing = [column for column in columns if column not in wanted], []
    names: dict[str, str] = {}
    for each in wanted:
        try:
            if each not in columns and names.setdefault(find_column(name, free, each), each) != each:
                missing.append(each)
        except RecipientError:
            missing.append(each)
    if missing:
        listed = ", ".join(f"“{safe_text(each, 60)}”" for each in missing)
        raise ConfigError(f"{name} lacks the columns {listed}", "give it the columns of the campaign's recipients")
    return names


def _guess_email(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return the one column that is called e-mail, or the one whose first cells are all addresses."""
    found = [column for column in columns if is_called_email(column)]
    if not found:
        found = [column for place, column in enumerate(columns) if _all_addresses(rows, place)]
    if len(found) == 1:
        return found[0]
    doubt = f"{_join(map(_quote, found))} may each hold the address" if found else "no column is called e-mail"
    raise RecipientError(f"{name}: {doubt}: name it with email_column=; it has {_all(columns)}")


def is_called_email(column: str) -> bool:
    """Return whether a column has the name of one of addresses."""
    return re.sub(r"[\W_]", "", _COLUMN_NUMBER.sub("", column).casefold()) in _ADDRESS_NAMES


def _all_addresses(rows: Sequence[Sequence[str]], place: int) -> bool:
    cells = [row[place] for row in rows if place < len(row) and row[place].strip()]
    return bool(cells) and all(map(_is_address, cells))


def _is_address(cell: str) -> bool:
    if "@" not in cell:
        return False
    try:
        parse_address_cell(cell)
    except RecipientError:
        return False
    return True


def _nearest(wanted: str, columns: Sequence[str]) -> str:
    from difflib import get_close_matches

    by_folded = {_folded(column): column for column in columns}
    near = get_close_matches(_folded(wanted), list(by_folded), 1)
    return f" (did you mean {_quote(by_folded[near[0]])}?)" if near else ""


def _folded(column: str) -> str:
    return "".join(column.casefold().split())


def _all(columns: Sequence[str]) -> str:
    more = len(columns) - 20
    return ", ".join(map(_quote, columns[:20])) + (f" and {more} more" if more > 0 else "")


def _join(words: Iterable[str]) -> str:
    return " and ".join(words)


def _quote(column: str) -> str:
    return f"“{safe_text(column, 60)}”"
