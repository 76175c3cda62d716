"""A recipient file (CSV, JSON lines or workbook), read row by row in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import aiofiles

from asyncsmtp.bulk.recipients.column_header import SAMPLE, ColumnHeader, find_column, parse_columns, read_header
from asyncsmtp.bulk.recipients.csv_format import JsonLinesReader, RecordReader, RecordSource
from asyncsmtp.bulk.recipients.recipient import BELOW_TABLE, Problem, Recipient, RowRules, RowValidator, may_be_footer
from asyncsmtp.bulk.recipients.text_encoding import UTF_8, TextDecoder, detect_encoding, normalize_encoding
from asyncsmtp.errors import InvalidArgument, RecipientError, check_type
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from aiofiles.threadpool.binary import AsyncFileIO

__all__ = ["DUPLICATES", "SUFFIXES", "RecipientFile", "hash_file", "is_workbook", "read_digest"]

DUPLICATES = FIRST, SEND, GROUP = "first", "send", "group"

SUFFIXES = (".xlsx", ".xlsm", ".xls", ".xlsb", ".ods")
_NUMBERS = ".numbers"
NAME_COLUMN = "display_name"
_BLOCK = 256 * 1024  # bytes of one read
_NO_DELIMITERS = '"\r\n\0'
_MAX_FOOTER = 20  # rows below the table
_ROWS_PER_STEP = 64  # validated before other tasks of the loop may run: half a millisecond


class RecipientFile:
    """A CSV file with a header, JSON lines or a workbook, by its name; read as often as needed, in constant memory.

    Rows that cannot be mailed are values, `Problem`s. A fault that makes it unknown where rows begin (another
    encoding, a quote that is not closed, a header without names) is a `RecipientError` with the line.

    Attributes:
        rules: requirements beside a valid address; set them before the first batch, when the template is known.
        renames: other names for columns of the header, as rows have them; set it before the first batch.
        all_keys: each line of JSON must have every key of the first one; set it before the first batch.
        name_column: with `repair`, the column of the name beside the address, known after the header.
        duplicates: as given.
        digest: SHA-256 of the file as hexadecimal, known after the first whole pass. A later pass over a file that
            has changed since raises RecipientError.
        sheet: the sheet of a workbook, known with the header; "" for its first one.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        email: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        skip_lines: int | None = None,
        sheet: str | int | None = None,
        trim: bool = True,
        repair: bool = False,
        duplicates: str = FIRST,
        rules: RowRules | None = None,
        block: int = _BLOCK,
    ) -> None:
        """Name a file; nothing is read yet.

        Args:
            email: the column of the address; None to guess it, see `header().guessed`.
            delimiter: one character; None for the one that a first line `sep=;` names, or to detect it.
            encoding: such as cp1252; None to detect it.
            skip_lines: the number of lines above the header, such as those of a title; None to find the header.
            sheet: of a workbook, its name, or its number among those that are shown; None to choose it.
            trim: take blanks off both ends of each cell, but for JSON, where they are in quotes.
            repair: repair cells that hold more than an address, see `repair`; a name beside it is the row's
                `display_name`.
            duplicates: what several rows of one mailbox get: "first" (the first row gets a message), "send" (each row
                does), or "group" (one message for all of them: the first is a Recipient with `GroupedFields`).
            block: bytes of one read.
        Raises:
            RecipientError: the delimiter or the encoding is not valid.
        """
        check_type("path", path, str, os.PathLike)
        check_type("email", email, str, None)
        check_type("delimiter", delimiter, str, None)
        check_type("encoding", encoding, str, None)
        check_type("skip_lines", skip_lines, int, None)
        check_type("sheet", sheet, str, int, None)
        check_type("trim", trim, bool)
        check_type("repair", repair, bool)
        if duplicates not in DUPLICATES:
            raise InvalidArgument(f"duplicates={duplicates!r} must be one of {', '.join(DUPLICATES)}")
        if skip_lines is not None and skip_lines < 0:
            raise RecipientError(f"skip_lines= is {skip_lines}: give a number of lines from 0")
        if delimiter is not None and (len(delimiter) != 1 or delimiter in _NO_DELIMITERS):
            raise RecipientError(f"{delimiter!r} is not a valid delimiter: give one character, such as ; or a tab")
        self.path = os.fspath(path)
        self.name = safe_text(self.path)
        self.rules = rules or RowRules()
        self.renames: Mapping[str, str] = {}
        self.all_keys = False
        self.digest: str | None = None
        self.sheet = ""
        self._sheet = None if sheet is None else str(sheet)
        self._detected_sheet = ""
        self._email = email
        self._delimiter = delimiter
        self._skip_lines = skip_lines
        self._encoding = None if encoding is None else normalize_encoding(encoding)
        self._json = self.path.lower().endswith((".jsonl", ".ndjson"))
        self._workbook = is_workbook(self.path)
        if self.path.lower().endswith(_NUMBERS):
            advice = "export it with File > Export To as Excel or CSV, and name that file"
            raise RecipientError(f"{self.name} is a Numbers document: {advice}")
        if sheet is not None and not self._workbook:
            raise RecipientError(f"{self.name} is no workbook: leave out sheet=")
        if self._workbook:
            self._delimiter, self._encoding = ",", UTF_8
        self._trim = trim and not self._json
        self._repair = repair
        self.duplicates = duplicates
        self.name_column = ""
        self._block = block
        self._repeated: Sequence[int] | None = None
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
                skip_lines=self._skip_lines,
            )
            guessed = "" if given is not None or self._encoding in (None, UTF_8) else str(self._encoding)
            if self._repair:
                self.name_column = _find_name_column(header.columns)
            self._header = replace(header, encoding=guessed, sheet=self._detected_sheet)
        return self._header

    def share_header(self, other: RecipientFile) -> None:
        """Use what was detected in the same file with the same settings, so that its beginning is not read again."""
        self._header, self._encoding, self.name_column = other._header, other._encoding, other.name_column
        self.sheet, self._detected_sheet = other.sheet, other._detected_sheet

    async def columns(self) -> tuple[str, ...]:
        """Return the names of the columns, in order; with `repair`, that of the name beside the address too."""
        columns = (await self.header()).columns
        return columns if self.name_column in ("", *columns) else (*columns, self.name_column)

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
        if self.duplicates != GROUP:
            async with aclosing(self._read_all(size)) as batches:
                async for batch in batches:
                    yield batch
            return
        from asyncsmtp.bulk.recipients.grouping import RowGroups, find_repeated  # late: few campaigns group

        if self._repeated is None:
            self._repeated = await find_repeated(self._read_all(size))
        async with RowGroups(self._repeated, self.rules.expand) as groups:
            if self._repeated:
                await groups.read(self._read_all(size))
            async with aclosing(self._read_all(size)) as batches:
                async for batch in batches:
                    yield await groups.group(batch)

    async def _read_all(self, size: int) -> AsyncGenerator[Sequence[Recipient | Problem]]:
        """Yield every row, those behind the last row of the file as well: of cells with several addresses."""
        last, has_several = 0, False
        async with aclosing(self._read_batches(size)) as batches:
            async for batch in batches:
                last = batch[-1].row
                has_several = has_several or (self._repair and any(row.addresses for row in batch))
                yield batch
        if not has_several:
            return
        validator = await self._make_validator()
        async with aclosing(self._read_batches(size)) as batches:  # once more: so many rows need not fit into memory
            async for batch in batches:
                further: list[Recipient | Problem] = []
                for row in batch:
                    if row.addresses:
                        further += validator.validate_further(row, last + 1)
                        last += len(row.addresses) - 1
                if further:
                    yield further

    async def _make_validator(self) -> RowValidator:
        header, repair = await self.header(), None
        if self._repair:
            from asyncsmtp.bulk.recipients.repair import repair_address_cell  # late: few campaigns repair

            repair = repair_address_cell
        names = {column: self.renames.get(column, column) for column in header.columns}
        return RowValidator(
            tuple(names.values()),
            names[header.email],
            self.rules,
            separate=self.duplicates == SEND,
            trim=self._trim,
            repair=repair,
            name_column=self.renames.get(self.name_column, self.name_column),
        )

    async def _read_batches(self, size: int) -> AsyncGenerator[Sequence[Recipient | Problem]]:
        """Yield the rows of the file."""
        header, validator = await self.header(), await self._make_validator()
        csv_reader = RecordReader(self.name, header.delimiter, header.skipped_lines)
        reader: RecordSource = JsonLinesReader(self.name, all_keys=self.all_keys) if self._json else csv_reader
        width = len(header.columns)
        digest = hashlib.sha256()
        batch: list[Recipient | Problem] = []
        footer: list[Problem] = []  # rows that are below the table if no recipient follows
        async with aclosing(self._texts(digest.update)) as texts:
            async for text, final in texts:
                for record in reader.feed(text, final=final):
                    if not record.row:
                        if parse_columns(self.name, record) != header.columns:
                            raise self._changed()
                        continue
                    row = validator.validate(record)
                    if footer or isinstance(row, Problem):
                        if (
                            isinstance(row, Problem)
                            and not (row.left_out or self._json or len(footer) == _MAX_FOOTER)
                            and may_be_footer(record, width, record.line - 1 if footer else csv_reader.blank_line)
                        ):
                            footer.append(row)
                            continue
                        batch += footer
                        footer = []
                    batch.append(row)
                    if not record.row % _ROWS_PER_STEP:
                        await asyncio.sleep(0)
                    while len(batch) >= size:
                        yield batch[:size]
                        batch = batch[size:]
        batch += [replace(row, reason=BELOW_TABLE, left_out=True) for row in footer]
        for begin in range(0, len(batch), size):
            yield batch[begin : begin + size]
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
        if (found := detect_encoding(data, whole=whole)) is not None:
            return found
        from asyncsmtp.bulk.recipients import encoding_guess  # late: most files are UTF-8

        if (found := await asyncio.to_thread(encoding_guess.guess_from_sample, self.name, data)) is not None:
            return found
        collector = encoding_guess.CellCollector()
        async with aclosing(_blocks(self.path, self._block)) as blocks:
            async for block in blocks:
                await asyncio.to_thread(collector.add, block)
        await asyncio.to_thread(collector.add, b"", final=True)
        return await asyncio.to_thread(encoding_guess.guess_encoding, self.name, list(collector.cells))

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
        from asyncsmtp.bulk.recipients.spreadsheet import SheetReader  # late: start-up time

        sheet = SheetReader(self.path, self.name, self._sheet)
        try:
            while piece := await asyncio.to_thread(sheet.read):
                self.sheet = "" if sheet.is_first else sheet.sheet
                self._detected_sheet = sheet.sheet if sheet.detected else ""
                yield piece, False
        finally:
            await asyncio.to_thread(sheet.close)  # the end of a large process takes a while
        yield "", True

    def _changed(self) -> RecipientError:
        advice = "wait until it is complete, then run the same command again"
        return RecipientError(f"{self.name} changed while it was read: {advice}")


def is_workbook(path: str | os.PathLike[str]) -> bool:
    """Return whether a file has the name of a workbook."""
    return os.fspath(path).lower().endswith(SUFFIXES)


def _find_name_column(columns: Sequence[str]) -> str:
    """Return `display_name`, the column for the name beside an address, as the file spells it if it has one."""
    return next((column for column in columns if column.lower().replace(" ", "_") == NAME_COLUMN), NAME_COLUMN)


async def hash_file(path: str | os.PathLike[str]) -> str:
    """Return the SHA-256 of a file, as hexadecimal. Raises RecipientError: the file cannot be read."""
    digest = hashlib.sha256()
    async with aclosing(_blocks(os.fspath(path), _BLOCK)) as blocks:
        async for data in blocks:
            digest.update(data)
    return digest.hexdigest()


def read_digest(path: str | os.PathLike[str]) -> str:
    """Do the same, and block meanwhile."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):
            with open(path, "rb", buffering=0) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        raise _unreadable(os.fspath(path), error) from error
    raise _no_file(os.fspath(path))


async def _blocks(path: str, size: int) -> AsyncGenerator[bytes]:
    """Yield the bytes of a regular file; raise RecipientError if it cannot be read."""
    try:
        regular = stat.S_ISREG((await asyncio.to_thread(os.stat, path)).st_mode)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(path, error) from error
    if not regular:  # a pipe would be empty the second time
        raise _no_file(path)
    try:
        async with _open_unbuffered(path) as file:
            while data := await file.read(size):
                yield data
    except OSError as error:
        raise _unreadable(path, error) from error


def _no_file(path: str) -> RecipientError:
    return RecipientError(f"{safe_text(path)} is not a file: save the recipients to one and name that")


@asynccontextmanager
async def _open_unbuffered(path: str) -> AsyncGenerator[AsyncFileIO]:
    """Open a file until the block ends; cancelled while a thread opens it, it is closed as well."""

    async def open_file() -> AsyncFileIO:
        return await aiofiles.open(path, "rb", buffering=0)

    opening = asyncio.create_task(open_file())
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        with suppress(OSError):
            await asyncio.shield(asyncio.create_task(_close(await opening)))
        raise
    try:
        yield file
    finally:
        await asyncio.shield(asyncio.create_task(_close(file)))


async def _close(file: AsyncFileIO) -> None:
    await file.close()


def _unreadable(path: str, error: Exception) -> RecipientError:
    why = getattr(error, "strerror", None) or error
    return RecipientError(f"the recipients {safe_text(path)} cannot be read: {why}: correct the name or its rights")
