"""A recipient file: who is mailed, row by row, in constant memory."""

from __future__ import annotations

import asyncio
import hashlib
import os
import stat
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

import aiofiles

from asyncsmtp.bulk.csvfile.csvtext import TextDecoder
from asyncsmtp.bulk.csvfile.encodings import UTF_8, detected, known
from asyncsmtp.bulk.csvfile.heading import SAMPLE, Heading, column_named, columns_of, read_heading
from asyncsmtp.bulk.csvfile.jsonlines import JsonReader
from asyncsmtp.bulk.csvfile.records import Reads, Record, RecordReader
from asyncsmtp.bulk.csvfile.workbook import DELIMITER, WORKBOOKS, as_csv
from asyncsmtp.bulk.recipients.rows import Fields, Judge, Problem, Recipient, Rules
from asyncsmtp.errors import RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Fields", "Problem", "Recipient", "RecipientFile", "Rules", "digest_of"]

_BLOCK = 256 * 1024  # octets of one read
_NO_DELIMITERS = '"\r\n\0'
_TURN = 64  # rows judged before others on the loop get their turn: half a millisecond


class RecipientFile:
    """A CSV file with a header, JSON lines or a workbook by its name, read as often as needed; constant memory.

    Rows that cannot be mailed are values, `Problem`s. What makes the rows themselves doubtful (not in the
    file's encoding, a quote that is never closed, a header without names) is a `RecipientError` that names
    the line.

    Attributes:
        rules: what a row must have beside an address; set it before the first batch, when the template is known.
        names: what rows call a column instead of its name in the heading; set it before the first batch.
        digest: SHA-256 of the file's octets as hexadecimal, known after the first whole pass. A later
            pass over a file that has changed since ends in a RecipientError.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        email: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        rules: Rules | None = None,
        block: int = _BLOCK,
    ) -> None:
        """Name a file; nothing is read yet.

        Args:
            email: the column that holds the address; None to guess it, which `heading().guessed` tells.
            delimiter: one character; None to find it out.
            encoding: such as cp1252; None to find it out.
            block: octets of one read.
        Raises:
            RecipientError: the delimiter cannot be one, or the encoding.
        """
        if delimiter is not None and (len(delimiter) != 1 or delimiter in _NO_DELIMITERS):
            raise RecipientError(f"{delimiter!r} cannot be a delimiter: it is one character, such as ; or a tab")
        self.path = os.fspath(path)
        self.name = safe_text(self.path)
        self.rules = rules or Rules()
        self.names: Mapping[str, str] = {}
        self.digest: str | None = None
        self._email = email
        self._delimiter = delimiter
        self._encoding = None if encoding is None else known(encoding)
        self._json = self.path.lower().endswith((".jsonl", ".ndjson"))
        self._workbook = self.path.lower().endswith(WORKBOOKS)
        if self._workbook:
            self._delimiter, self._encoding = DELIMITER, UTF_8
        self._block = block
        self._heading: Heading | None = None

    async def heading(self) -> Heading:
        """Columns, address column and delimiter; reads the beginning of the file once.

        Raises:
            RecipientError: the file cannot be read, or its header cannot be used.
        """
        if self._heading is None:
            said = self._encoding
            text, whole = await self._beginning()
            heading = read_heading(
                self.name,
                text,
                whole=whole,
                delimiter=self._delimiter,
                email=self._email,
                reader=JsonReader(self.name) if self._json else None,
            )
            guessed = "" if said is not None or self._encoding in (None, UTF_8) else str(self._encoding)
            self._heading = replace(heading, encoding=guessed)
        return self._heading

    async def columns(self) -> tuple[str, ...]:
        """The names of the columns, in order."""
        return (await self.heading()).columns

    async def column(self, wanted: str) -> str:
        """The column that somebody means by `wanted`, who may have spelt it in another case or with other spaces.

        Raises:
            RecipientError: there is none, or there are several; with the nearest one.
        """
        return column_named(self.name, await self.columns(), wanted)

    async def batches(self, size: int = 500) -> AsyncGenerator[Sequence[Recipient | Problem]]:
        """Yield every row of the file, in order, `size` at a time; none is empty.

        Others on the loop get their turn within a millisecond or so. Left early, it keeps the file open
        until it is closed: `contextlib.aclosing`.

        Raises:
            RecipientError: after the batches before it, when the rest cannot be trusted, or the file changed.
        """
        heading = await self.heading()
        called = {column: self.names.get(column, column) for column in heading.columns}
        judge = Judge(tuple(called.values()), called[heading.email], self.rules)
        reader: Reads = JsonReader(self.name) if self._json else RecordReader(self.name, heading.delimiter)
        digest = hashlib.sha256()
        batch: list[Recipient | Problem] = []
        async with aclosing(self._texts(digest.update)) as texts:
            async for text, final in texts:
                for record in reader.feed(text, final=final):
                    if not record.row:
                        self._expect(heading.columns, record)
                        continue
                    batch.append(judge.judge(record))
                    if not record.row % _TURN:
                        await asyncio.sleep(0)
                    if len(batch) >= size:
                        yield batch
                        batch = []
        if batch:
            yield batch
        self._settle(digest.hexdigest())

    def _expect(self, columns: tuple[str, ...], header: Record) -> None:
        if columns_of(self.name, header) != columns:
            raise self._changed()

    def _settle(self, digest: str) -> None:
        """A whole pass is over: keep its digest, or find that it is another file than before."""
        if self.digest not in (None, digest):
            raise self._changed()
        self.digest = digest

    async def _beginning(self) -> tuple[str, bool]:
        """The first `SAMPLE` characters or more, and whether that is all; finds out the encoding."""
        if self._encoding is None:
            self._encoding = await self._detect()
        beginning, final = "", False
        async with aclosing(self._texts()) as texts:
            async for text, final in texts:  # noqa: B007 wanted below the loop
                beginning += text
                if len(beginning) >= SAMPLE:
                    break
        return beginning[:SAMPLE], final and len(beginning) <= SAMPLE

    async def _detect(self) -> str:
        octets, whole = b"", True
        async with aclosing(_blocks(self.path, self._block)) as blocks:
            async for block in blocks:
                octets += block
                if len(octets) >= SAMPLE:
                    whole = False
                    break
        return detected(octets, whole=whole) or UTF_8  # which then says what does not fit, and where

    async def _texts(self, see: Callable[[bytes], None] | None = None) -> AsyncGenerator[tuple[str, bool]]:
        """The file as text, piece by piece, the last one marked; `see` is shown the octets."""
        if self._workbook:
            async with aclosing(_blocks(self.path, self._block)) as blocks:
                async for octets in blocks:
                    if see is not None:
                        see(octets)
            pieces = await asyncio.to_thread(as_csv, self.path, self.name)
            while piece := await asyncio.to_thread(next, pieces, ""):
                yield piece, False
            yield "", True
            return
        decoder = TextDecoder(self.name, self._encoding or UTF_8)
        async with aclosing(_blocks(self.path, self._block)) as blocks:
            async for octets in blocks:
                if see is not None:
                    see(octets)
                yield decoder.decode(octets), False
        yield decoder.decode(b"", final=True), True

    def _changed(self) -> RecipientError:
        return RecipientError(f"{self.name} changed while it was read: let it rest, then run the same command again")


async def digest_of(path: str | os.PathLike[str]) -> str:
    """SHA-256 of the file's octets, as hexadecimal.

    Raises:
        RecipientError: the file cannot be read.
    """
    digest = hashlib.sha256()
    async with aclosing(_blocks(os.fspath(path), _BLOCK)) as blocks:
        async for octets in blocks:
            digest.update(octets)
    return digest.hexdigest()


async def _blocks(path: str, size: int) -> AsyncGenerator[bytes]:
    """The octets of a regular file; what hinders reading them is a RecipientError."""
    try:
        regular = stat.S_ISREG((await asyncio.to_thread(os.stat, path)).st_mode)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise _unreadable(path, error) from error
    if not regular:  # a pipe would be empty the second time
        raise RecipientError(f"{safe_text(path)} is not a file: save the recipients to one and name that")
    try:
        async with aiofiles.open(path, "rb", buffering=0) as file:
            while octets := await file.read(size):
                yield octets
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: str, error: Exception) -> RecipientError:
    why = getattr(error, "strerror", None) or error
    return RecipientError(f"the recipients {safe_text(path)} cannot be read: {why}: correct the name or its rights")
