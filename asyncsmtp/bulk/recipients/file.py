"""A recipient file (CSV, JSON lines or workbook), read row by row in constant memory."""

from __future__ import annotations

import asyncio
import csv
import hashlib
import io
import os
import stat
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import date, datetime, time, timedelta

import aiofiles

from asyncsmtp.bulk.recipients.column_header import SAMPLE, ColumnHeader, find_column, parse_columns, read_header
from asyncsmtp.bulk.recipients.csv_format import (
    UTF_8,
    JsonLinesReader,
    RecordReader,
    RecordSource,
    TextDecoder,
    detect_encoding,
    normalize_encoding,
)
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient, RowRules, RowValidator
from asyncsmtp.errors import MissingDependency, RecipientError, check_type
from asyncsmtp.protocol.replies import safe_text

__all__ = ["DELIMITER", "SUFFIXES", "RecipientFile", "hash_file", "read_as_csv"]

DELIMITER = ","
SUFFIXES = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
_CHUNK_ROWS = 500  # of one piece of text

_Cell = str | int | float | bool | time | date | datetime | timedelta


def read_as_csv(path: str, name: str) -> Iterator[str]:
    """Yield the text, in pieces; blocks. An empty row is an empty line, so that lines are the rows of the sheet.

    Raises:
        MissingDependency: python-calamine is missing.
        RecipientError: not a workbook, or a protected one.
    """
    try:
        import python_calamine  # an extra
    except ImportError:
        raise MissingDependency(f"reading the workbook {name}", "asyncsmtp[xlsx]") from None
    try:
        sheet = python_calamine.CalamineWorkbook.from_path(path).get_sheet_by_index(0)
    except Exception as error:  # the library documents no exceptions
        why = f"cannot be read as a workbook ({safe_text(str(error), 100)})"
        raise RecipientError(f"{name} {why}: save it as CSV, or again as .xlsx") from error
    text = io.StringIO()
    writer = csv.writer(text, delimiter=DELIMITER, lineterminator="\r\n")
    for number, row in enumerate(sheet.iter_rows(), 1):
        cells = [_text(cell) for cell in row]
        if any(cells):
            writer.writerow(cells)
        else:
            text.write("\r\n")
        if not number % _CHUNK_ROWS:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _text(cell: _Cell) -> str:
    """Return a cell as displayed, except for its format: whole numbers without a point, times by ISO 8601."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if isinstance(cell, datetime) and cell.time() == time(0):
        return cell.date().isoformat()
    return cell.isoformat(" ") if isinstance(cell, datetime) else str(cell)


_BLOCK = 256 * 1024  # bytes of one read
_NO_DELIMITERS = '"\r\n\0'
_ROWS_PER_STEP = 64  # validated before other tasks of the loop may run: half a millisecond


class RecipientFile:
    """A CSV file with a header, JSON lines or a workbook, by its name; read as often as needed, in constant memory.

    Rows that cannot be mailed are values, `Problem`s. A fault that makes it unknown where rows begin (another
    encoding, a quote that is not closed, a header without names) is a `RecipientError` with the line.

    Attributes:
        rules: requirements beside a valid address; set them before the first batch, when the template is known.
        renames: other names for columns of the header, as rows have them; set it before the first batch.
        all_keys: each line of JSON must have every key of the first one; set it before the first batch.
        digest: SHA-256 of the file as hexadecimal, known after the first whole pass. A later pass over a file that
            has changed since raises RecipientError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        email: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        rules: RowRules | None = None,
        block: int = _BLOCK,
    ) -> None:
        """Name a file; nothing is read yet.

        Args:
            email: the column of the address; None to guess it, see `header().guessed`.
            delimiter: one character; None to detect it.
            encoding: such as cp1252; None to detect it.
            block: bytes of one read.
        Raises:
            RecipientError: the delimiter or the encoding is not valid.
        """
        check_type("path", path, str, os.PathLike)
        check_type("email", email, str, None)
        check_type("delimiter", delimiter, str, None)
        check_type("encoding", encoding, str, None)
        if delimiter is not None and (len(delimiter) != 1 or delimiter in _NO_DELIMITERS):
            raise RecipientError(f"{delimiter!r} is not a valid delimiter: give one character, such as ; or a tab")
        self.path = os.fspath(path)
        self.name = safe_text(self.path)
        self.rules = rules or RowRules()
        self.renames: Mapping[str, str] = {}
        self.all_keys = False
        self.digest: str | None = None
        self._email = email
        self._delimiter = delimiter
        self._encoding = None if encoding is None else normalize_encoding(encoding)
        self._json = self.path.lower().endswith((".jsonl", ".ndjson"))
        self._workbook = self.path.lower().endswith(SUFFIXES)
        if self._workbook:
            self._delimiter, self._encoding = DELIMITER, UTF_8
        self._block = block
        self._header: ColumnHeader | None = None

    async def header(self) -> ColumnHeader:
        """Return columns, address column and delimiter; reads the beginning of the file once.

        Raises:
            RecipientError: the file cannot be read, or its header cannot be used.
        """
        if self._header is None:
            given = self._encoding
            text, whole = await self._beginning()
            header = read_header(
                self.name,
                text,
                whole=whole,
                delimiter=self._delimiter,
                email=self._email,
                reader=JsonLinesReader(self.name) if self._json else None,
            )
            guessed = "" if given is not None or self._encoding in (None, UTF_8) else str(self._encoding)
            self._header = replace(header, encoding=guessed)
        return self._header

    async def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, in order."""
        return (await self.header()).columns

    async def find_column(self, wanted: str) -> str:
        """Return the column named `wanted`, exactly or except for case and spaces.

        Raises:
            RecipientError: there is none, or there are several; the message has the nearest name.
        """
        return find_column(self.name, await self.columns(), wanted)

    async def batches(self, size: int = 500) -> AsyncGenerator[Sequence[Recipient | Problem]]:
        """Yield every row of the file, in order, `size` at a time; no batch is empty.

        Other tasks of the loop run at least every millisecond or so. Use `contextlib.aclosing`: if left early, it keeps
        the file open until it is closed.

        Raises:
            RecipientError: the rest cannot be trusted, or the file changed; after the batches before it.
        """
        header = await self.header()
        names = {column: self.renames.get(column, column) for column in header.columns}
        validator = RowValidator(tuple(names.values()), names[header.email], self.rules)
        reader: RecordSource = RecordReader(self.name, header.delimiter)
        if self._json:
            reader = JsonLinesReader(self.name, all_keys=self.all_keys)
        digest = hashlib.sha256()
        batch: list[Recipient | Problem] = []
        async with aclosing(self._texts(digest.update)) as texts:
            async for text, final in texts:
                for record in reader.feed(text, final=final):
                    if not record.row:
                        if parse_columns(self.name, record) != header.columns:
                            raise self._changed()
                        continue
                    batch.append(validator.validate(record))
                    if not record.row % _ROWS_PER_STEP:
                        await asyncio.sleep(0)
                    if len(batch) >= size:
                        yield batch
                        batch = []
        if batch:
            yield batch
        if self.digest not in (None, digest.hexdigest()):
            raise self._changed()
        self.digest = digest.hexdigest()

    async def _beginning(self) -> tuple[str, bool]:
        """Return the first `SAMPLE` characters, and whether that is all; detects the encoding."""
        if self._encoding is None:
            self._encoding = await self._detect()
        beginning, final = "", False
        async with aclosing(self._texts()) as texts:
            async for text, final in texts:  # noqa: B007 used below the loop
                beginning += text
                if len(beginning) >= SAMPLE:
                    break
        return beginning[:SAMPLE], final and len(beginning) <= SAMPLE

    async def _detect(self) -> str:
        data, whole = b"", True
        async with aclosing(_blocks(self.path, self._block)) as blocks:
            async for block in blocks:
                data += block
                if len(data) >= SAMPLE:
                    whole = False
                    break
        return detect_encoding(data, whole=whole) or UTF_8  # whose decoder then reports the byte that does not fit

    async def _texts(self, update: Callable[[bytes], None] | None = None) -> AsyncGenerator[tuple[str, bool]]:
        """Yield the file as text, piece by piece, and whether it is the last; call `update` with the bytes."""
        decoder = None if self._workbook else TextDecoder(self.name, self._encoding or UTF_8)
        async with aclosing(_blocks(self.path, self._block)) as blocks:
            async for data in blocks:
                if update is not None:
                    update(data)
                if decoder is not None:
                    yield decoder.decode(data), False
        if decoder is not None:
            yield decoder.decode(b"", final=True), True
            return
        pieces = await asyncio.to_thread(read_as_csv, self.path, self.name)
        while piece := await asyncio.to_thread(next, pieces, ""):
            yield piece, False
        yield "", True

    def _changed(self) -> RecipientError:
        advice = "wait until it is complete, then run the same command again"
        return RecipientError(f"{self.name} changed while it was read: {advice}")


async def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, as hexadecimal. Raises RecipientError: the file cannot be read."""
    digest = hashlib.sha256()
    async with aclosing(_blocks(os.fspath(path), _BLOCK)) as blocks:
        async for data in blocks:
            digest.update(data)
    return digest.hexdigest()


async def _blocks(path: str, size: int) -> AsyncGenerator[bytes]:
    """Yield the bytes of a regular file; raise RecipientError if it cannot be read."""
    try:
        regular = stat.S_ISREG((await asyncio.to_thread(os.stat, path)).st_mode)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(path, error) from error
    if not regular:  # a pipe would be empty the second time
        raise RecipientError(f"{safe_text(path)} is not a file: save the recipients to one and name that")
    try:
        async with aiofiles.open(path, "rb", buffering=0) as file:
            while data := await file.read(size):
                yield data
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> RecipientError:
    why = getattr(error, "strerror", None) or error
    return RecipientError(f"the recipients {safe_text(path)} cannot be read: {why}: correct the name or its rights")
