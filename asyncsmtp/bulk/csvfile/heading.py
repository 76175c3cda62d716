"""The header of a recipient file: its delimiter, its columns, and which of them holds the address."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from asyncsmtp.bulk.csvfile.addresses import mailbox_in
from asyncsmtp.bulk.csvfile.records import Reads, Record, RecordReader
from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DELIMITERS", "MAX_COLUMNS", "SAMPLE", "Heading", "column_named", "columns_of", "read_heading", "sniff"]

DELIMITERS = ",;\t|"
MAX_COLUMNS = 10_000
SAMPLE = 256 * 1024  # characters from the beginning of the file that a guess may rest on; the header is within
_SAMPLE_ROWS = 50

# Names that mean an address and nothing else, as letters only: “E-Mail Address” is emailaddress.
_MEANS_ADDRESS = frozenset(
    {
        *("email", "emailaddr", "emailaddress", "mail", "mailaddress"),
        *("emailadresse", "mailadresse", "correo", "correoelectronico", "courriel"),
    }
)


@dataclass(frozen=True, slots=True)
class Heading:
    """How a file is read.

    Attributes:
        columns: the names, in order, spaces round them taken off; each is there once.
        email: the column that holds the address.
        guessed: nobody named it; say so aloud.
        encoding: of the file, where it was found out and is not UTF-8: to be said aloud too; "" otherwise.
    """

    columns: tuple[str, ...]
    email: str
    guessed: bool
    delimiter: str
    encoding: str = ""


def read_heading(
    name: str, text: str, *, whole: bool, delimiter: str | None, email: str | None, reader: Reads | None = None
) -> Heading:
    """Read the header from `text`, the beginning of the file `name`.

    Args:
        whole: `text` is all of the file.
        delimiter: None to find it out.
        email: the name of the column that holds the address; None to guess it.
        reader: what makes records of the text; None for a CSV.
    Raises:
        RecipientError: no header, a doubtful one, or a column that is not there.
    """
    if not text.strip():
        raise RecipientError(f"{name} is empty: it needs a line of column names, then a row for each recipient")
    delimiter = "" if reader is not None else delimiter or sniff(name, text, whole=whole)
    records = (reader or RecordReader(name, delimiter)).feed(text, final=whole)
    header = next(records, None)
    if header is None:
        raise RecipientError(f"{name}: the header runs past {SAMPLE} characters: is a quote in it never closed?")
    columns = columns_of(name, header)
    if email is not None:
        return Heading(columns, column_named(name, columns, email), False, delimiter)
    rows: list[list[str]] = []
    with suppress(RecipientError):  # what is wrong with a row is told when the rows are read
        for record in islice(records, _SAMPLE_ROWS):
            rows.append(record.cells)
    return Heading(columns, _guessed(name, columns, rows), True, delimiter)


def sniff(name: str, text: str, *, whole: bool) -> str:
    """Find the delimiter: of those that cut the header, the one that cuts the rows into as many cells.

    Raises:
        RecipientError: two do equally well.
    """
    fits = {delimiter: _fit(text, delimiter, whole=whole) for delimiter in DELIMITERS}
    best = max(fits.values())
    if best == _NO_FIT:  # a single column
        return DELIMITERS[0]
    found = [delimiter for delimiter in DELIMITERS if fits[delimiter] == best]
    if len(found) > 1:
        raise RecipientError(f"{name}: which of {_listed(map(repr, found))} parts the columns? say it with --delimiter")
    return found[0]


_NO_FIT = (0.0, 0)


def _fit(text: str, delimiter: str, *, whole: bool) -> tuple[float, int]:
    """The share of the first rows that are as wide as the header, and that width."""
    records: list[list[str]] = []
    with suppress(csv.Error):  # what was read before it still counts
        for record in islice(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True), _SAMPLE_ROWS):
            if record:
                records.append(record)
    if not whole and len(records) < _SAMPLE_ROWS:
        records = records[:-1]  # the last one may be cut
    if not records or len(records[0]) < 2:
        return _NO_FIT
    header, *rows = records
    return (sum(len(row) == len(header) for row in rows) + 1) / (len(rows) + 1), len(header)


def columns_of(name: str, header: Record) -> tuple[str, ...]:
    """The names of the columns; nameless ones at the end are none.

    Raises:
        RecipientError: the line cannot be a header, or a name is missing or there twice.
    """
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
    seen: dict[str, int] = {}
    for place, column in enumerate(columns, 1):
        if not column:
            raise RecipientError(f"{where}: column {place} has no name: name it, or delete the column")
        if column in seen:
            raise RecipientError(
                f"{where}: columns {seen[column]} and {place} are both named {_shown(column)}: rename one"
            )
        if _is_address(column):
            raise RecipientError(
                f"{where} holds the address {_shown(column)} where the names of the columns belong: "
                "add a first line of column names"
            )
        seen[column] = place
    return tuple(columns)


def column_named(name: str, columns: Sequence[str], wanted: str) -> str:
    """The column that the user means by `wanted`: exactly it, or it but for case and spaces.

    Raises:
        RecipientError: none, or several; with the nearest one, and those that there are.
    """
    if wanted in columns:
        return wanted
    found = [column for column in columns if _folded(column) == _folded(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        raise RecipientError(f"{name}: {_shown(wanted)} may be {_listed(map(_shown, found))}: spell it as it stands")
    raise RecipientError(f"{name} has no column {_shown(wanted)}{_nearest(wanted, columns)}; it has {_all(columns)}")


def _guessed(name: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The one column that is called e-mail, or the one whose first cells are all addresses."""
    found = [column for column in columns if re.sub(r"[\W_]", "", column.casefold()) in _MEANS_ADDRESS]
    if not found:
        found = [column for place, column in enumerate(columns) if _all_addresses(rows, place)]
    if len(found) == 1:
        return found[0]
    doubt = f"{_listed(map(_shown, found))} may each hold the address" if found else "no column is called e-mail"
    raise RecipientError(f"{name}: {doubt}: say which one with --email-column; it has {_all(columns)}")


def _all_addresses(rows: Sequence[Sequence[str]], place: int) -> bool:
    cells = [row[place] for row in rows if place < len(row) and row[place].strip()]
    return bool(cells) and all(map(_is_address, cells))


def _is_address(cell: str) -> bool:
    if "@" not in cell:
        return False
    try:
        mailbox_in(cell)
    except RecipientError:
        return False
    return True


def _nearest(wanted: str, columns: Sequence[str]) -> str:
    from difflib import get_close_matches

    by_folded = {_folded(column): column for column in columns}
    near = get_close_matches(_folded(wanted), list(by_folded), 1)
    return f" (did you mean {_shown(by_folded[near[0]])}?)" if near else ""


def _folded(column: str) -> str:
    return "".join(column.casefold().split())


def _all(columns: Sequence[str]) -> str:
    more = len(columns) - 20
    return ", ".join(map(_shown, columns[:20])) + (f" and {more} more" if more > 0 else "")


def _listed(words: Iterable[str]) -> str:
    return " and ".join(words)


def _shown(column: str) -> str:
    return f"“{safe_text(column, 60)}”"
