"""The pre-flight check: the whole recipient file and the template, before anything is sent."""

from __future__ import annotations

import asyncio
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from heapq import nsmallest
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from asyncsmtp.bulk.interfaces import ComposerProtocol, ConvertingComposer, utc_now
from asyncsmtp.bulk.recipients.column_header import ColumnHeader
from asyncsmtp.bulk.recipients.file import SEND, RecipientFile
from asyncsmtp.bulk.recipients.recipient import (
    BELOW_TABLE,
    GroupedRow,
    Problem,
    Recipient,
    RecipientWithCopies,
    address_key,
)
from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.mime import GroupedFields
from asyncsmtp.protocol.envelope import Mailbox

if TYPE_CHECKING:
    from asyncsmtp.mail.templates.column_formats import ColumnFormats

__all__ = ["DuplicateCounter", "Preflight", "PreflightReport", "Repair", "read_column_formats", "run_preflight"]

_T = TypeVar("_T")
MAX_COMPOSED = 200  # rows that are composed to learn whether the template leaves out what is no date
SHOWN_REPAIRS = 3
_ROWS_PER_STEP = 100  # less than two milliseconds for a few columns
_BUCKETS = 256  # by the last byte of the hash
_MAX_ADDRESSES = 50_000  # different ones in Cc, Bcc and From that are counted


class Repair(NamedTuple):
    """One repaired cell, with the addresses that it has now."""

    row: int
    line: int
    cell: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """The result of a pre-flight check.

    Attributes:
        header: columns, address column (and whether it was guessed), delimiter.
        digest: SHA-256 of the file.
        rows: records in the file, header and empty lines excluded, and the further ones: recipients + duplicates +
            grouped + problems + left_out.
        recipients: number of rows that would be mailed.
        duplicates: number of rows with a mailbox of an earlier row, which get nothing.
        separate: number of such rows that get a message of their own. grouped: of those in the message of that row.
        repeated: of the first few of these, the row and the one it repeats.
        problems: number of rows that cannot be mailed. left_out: number of rows that are not part of the campaign.
        problem_rows: the first few of these.
        remarks: number of rows that are mailed although a person should look at them.
        remarked: the first few of these.
        first: the first row that would be mailed; None if there is none.
        sample: its message; None without a composer.
        footer: the rows below the table, which are among those left out.
        copies: number of Cc and Bcc of the rows, those of duplicates included.
        copied: of the addresses that are in Cc or Bcc of several rows, the most frequent ones: `cc` or `bcc`, the
            address, and the number of rows.
        authors: addresses in From where there may be several, each with its number of rows and the first of them.
        repaired: number of rows whose address was repaired. repairs: the first few, as the file has them, with the
            addresses of each.
        further: number of rows for further addresses of such a cell.
        repairable: number of problems that repair would solve; 0 where it is on.
    """

    header: ColumnHeader
    digest: str
    rows: int
    recipients: int
    duplicates: int
    repeated: tuple[tuple[int, int], ...]
    problems: int
    problem_rows: tuple[Problem, ...]
    remarks: int
    remarked: tuple[Recipient, ...]
    first: Recipient | None
    sample: Message | None
    left_out: int = 0
    footer: tuple[Problem, ...] = ()
    copies: int = 0
    copied: tuple[tuple[str, str, int], ...] = ()
    authors: Mapping[Mailbox, tuple[int, int]] = field(default_factory=dict, hash=False)
    separate: int = 0
    grouped: int = 0
    repaired: int = 0
    repairs: tuple[Repair, ...] = ()
    further: int = 0
    repairable: int = 0

    @property
    def clean(self) -> bool:
        """True if every row would be mailed, once, and without a remark."""
        return not (self.problems or self.duplicates or self.remarks)

    def raise_for_problems(self) -> None:
        """Raise for a file that is not clean, as `--strict` does.

        Raises:
            RecipientError: the first problem, with the number of each kind.
        """
        if self.clean:
            return
        counts = f"problems: {self.problems}, duplicates: {self.duplicates}, remarks: {self.remarks}"
        if self.problem_rows:
            first = self.problem_rows[0]
            raise RecipientError(f"{first.reason} (line {first.line}; in the whole file {counts})", first.row)
        if self.repeated:
            row, earlier = self.repeated[0]
            raise RecipientError(f"has the mailbox of row {earlier} (in the whole file {counts})", row)
        remarked = self.remarked[0]
        raise RecipientError(f"{remarked.remark} (line {remarked.line}; in the whole file {counts})", remarked.row)


async def run_preflight(
    file: RecipientFile,
    composer: ComposerProtocol | None = None,
    *,
    compose: int | None = 1,
    show: int = 20,
    clock: Callable[[], datetime] = utc_now,
    watch: Callable[[Recipient | Problem], object] | None = None,
) -> PreflightReport:
    """Read the whole file as for sending, and try the template on it; constant memory. Arguments as of `Preflight`.

    Raises:
        RecipientError: the file cannot be read, or it is unknown where its rows begin.
        TemplateError: the template fails on a row.
    """
    preflight = Preflight(file, composer, compose=compose, show=show, clock=clock, watch=watch)
    async with aclosing(file.batches()) as batches:
        async for batch in batches:
            await preflight.add(batch)
    return await preflight.finish()


class Preflight:
    """The check of a file's rows while somebody reads them: `add` each batch, then `finish`.

    A row with a line break or a control character in a cell is always composed: only the template knows whether the
    cell stands in a header, where it is not allowed.

    Args:
        composer: compiled against the file's columns; None to check the file alone.
        compose: number of messages to compose, from the first row on; None composes all, which is as slow as sending.
        show: number of problems, duplicates and remarks that the report keeps of each.
        clock: the wall clock, UTC: the Date of the messages.
        watch: called with each row, or with the problem that it has by then.
    """

    def __init__(
        self,
        file: RecipientFile,
        composer: ComposerProtocol | None,
        *,
        compose: int | None,
        show: int,
        clock: Callable[[], datetime] = utc_now,
        watch: Callable[[Recipient | Problem], object] | None = None,
    ) -> None:
        self._file = file
        self._composer = composer
        self._compose = compose
        self._show = show
        self._date = clock()
        self._watch = watch
        self._email = ""
        self._repairs_cells = False
        self._duplicates, self._addresses = DuplicateCounter(), _AddressCounter()
        self._problems, self._remarked = _FirstFew[Problem](show), _FirstFew[Recipient](show)
        self._repairs, self._grouped = _FirstFew[Repair](SHOWN_REPAIRS), _FirstFew[tuple[int, int]](show)
        self._recipients = self._left_out = self._further = self._repairable = 0
        self._first: Recipient | None = None
        self._sample: Message | None = None
        self._footer: list[Problem] = []

    async def add(self, batch: Sequence[Recipient | Problem]) -> None:
        """Check some rows, those that follow the last ones. Raises TemplateError: the template fails on a row."""
        file, composer, compose = self._file, self._composer, self._compose
        if not self._email:
            email = (await file.header()).email
            self._email, self._repairs_cells = file.renames.get(email, email), bool(file.name_column)
        email = self._email
        for row in batch:
            message = None
            if row.repaired:
                self._repairs.add(_describe_repair(row, email))
                self._further += len(row.addresses[1:])
            if composer is not None and isinstance(row, Recipient) and (compose != 0 or not _are_printable(row.fields)):
                row, message = await _try_to_compose(composer, row, self._date)
                compose = compose - 1 if compose and message is not None else compose
            if self._watch is not None:
                self._watch(row)
            if isinstance(row, Recipient):
                self._recipients += 1
                self._duplicates.add(row.row, address_key(row.mailbox))
                if isinstance(row, RecipientWithCopies):
                    self._addresses.add(row)
                if self._first is None:
                    self._first, self._sample = row, message
                if row.remark:
                    self._remarked.add(row)
            elif isinstance(row, GroupedRow):
                self._grouped.add((row.row, row.first))
            elif row.left_out:
                self._left_out += 1
                self._footer += [row] if row.reason == BELOW_TABLE else []
            else:
                self._problems.add(row)
                self._repairable += not self._repairs_cells and _is_repairable(row.fields.get(email, ""))
        self._compose = compose

    async def finish(self) -> PreflightReport:
        """Return the report, after the last row."""
        repeats, repeated = await asyncio.to_thread(self._duplicates.count, self._show)
        is_separate = self._file.duplicates == SEND
        return PreflightReport(
            header=await self._file.header(),
            digest=self._file.digest or "",
            rows=self._recipients + self._grouped.number + self._problems.number + self._left_out,
            recipients=self._recipients if is_separate else self._recipients - repeats,
            duplicates=0 if is_separate else repeats,
            repeated=tuple(self._grouped) or repeated,
            problems=self._problems.number,
            problem_rows=tuple(self._problems),
            remarks=self._remarked.number,
            remarked=tuple(self._remarked),
            first=self._first,
            sample=self._sample,
            left_out=self._left_out,
            footer=tuple(self._footer),
            copies=self._addresses.copies,
            copied=self._addresses.most_frequent(self._show),
            authors=self._addresses.authors,
            separate=repeats if is_separate else 0,
            grouped=self._grouped.number,
            repaired=self._repairs.number,
            repairs=tuple(self._repairs),
            further=self._further,
            repairable=self._repairable,
        )


def _are_printable(fields: Mapping[str, str]) -> bool:
    if not "".join(fields.values()).isprintable():
        return False
    rows = fields.rows if isinstance(fields, GroupedFields) else ()
    return all("".join(row.values()).isprintable() for row in rows)


def _describe_repair(row: Recipient | Problem, email: str) -> Repair:
    addresses = tuple(each.mailbox.address for each in row.addresses) or (row.fields[email],)
    return Repair(row.row, row.line, row.repaired, addresses)


def _is_repairable(cell: str) -> bool:
    if "@" not in cell:
        return False
    from asyncsmtp.bulk.recipients.repair import is_repairable  # late: most files have no such cell

    return is_repairable(cell)


async def read_column_formats(
    file: RecipientFile, composer: ComposerProtocol, formats: ColumnFormats, *, is_further: bool = False
) -> None:
    """Read the dates and amounts of all rows that would be mailed, so that it is known how their columns are written.

    A row with a cell that is neither is composed, if its template may leave the cell out; MAX_COMPOSED of them are.

    Args:
        is_further: the file is one of further recipients: its cells must be written as those of the first one.
    Raises:
        RecipientError: the file cannot be read. TemplateError: a column cannot be read, with the rows.
    """
    add, uncertain = formats.check_row if is_further else formats.add_row, list[Recipient]()
    async with aclosing(file.batches(_ROWS_PER_STEP)) as batches:
        async for batch in batches:
            for row in batch:
                is_certain = not isinstance(row, Recipient | GroupedRow) or add(row.row, row.fields)
                if isinstance(row, Recipient) and not is_certain and len(uncertain) < MAX_COMPOSED:
                    uncertain.append(row)
            await asyncio.sleep(0)
    if not is_further:
        await asyncio.to_thread(formats.settle)
    for row in uncertain:
        composed, _ = await _try_to_compose(composer, row, utc_now())
        if isinstance(composed, Problem):
            raise RecipientError(f"{composed.reason} (line {row.line})", row.row)


async def _try_to_compose(
    composer: ComposerProtocol, row: Recipient, date: datetime
) -> tuple[Recipient | Problem, Message | None]:
    """Compose the message of one row; return the row with it, or the problem with the row."""
    if isinstance(composer, ConvertingComposer) and (convert := composer.pending_conversion(row.mailbox, row.fields)):
        await asyncio.to_thread(convert)
    else:
        await asyncio.sleep(0)
    try:
        message_id = "preflight@localhost.invalid"
        return row, composer.compose(row.mailbox, row.fields, message_id=message_id, date=date, row=row.row)
    except RecipientError as error:
        return Problem(row.row, row.line, error.reason), None


class _FirstFew(list[_T]):
    """The first few of some values, and their number."""

    def __init__(self, limit: int) -> None:
        self.number = 0
        self._limit = limit

    def add(self, value: _T) -> None:
        self.number += 1
        if len(self) < self._limit:
            self.append(value)


class _AddressCounter:
    """A count of those in Cc and Bcc, and of the senders, by address; constant memory.

    Attributes:
        copies: number of all of them.
        authors: number of rows and the first row of each sender.
    """

    def __init__(self) -> None:
        self.copies = 0
        self.authors: dict[Mailbox, tuple[int, int]] = {}
        self._rows: Counter[tuple[str, str]] = Counter()

    def add(self, row: RecipientWithCopies) -> None:
        for kind, mailbox in row.copies:
            self.copies += 1
            known = kind, address_key(mailbox)
            if known in self._rows or len(self._rows) < _MAX_ADDRESSES:
                self._rows[known] += 1
        author = row.author
        if author is not None and (author in self.authors or len(self.authors) < _MAX_ADDRESSES):
            number, first = self.authors.get(author, (0, row.row))
            self.authors[author] = (number + 1, first)

    def most_frequent(self, show: int) -> tuple[tuple[str, str, int], ...]:
        """Return kind, address and number of rows of those that are in several rows."""
        found = nsmallest(show, self._rows.items(), key=lambda item: -item[1])
        return tuple((kind, address, number) for (kind, address), number in found if number > 1)


class DuplicateCounter:
    """A count of rows with a mailbox of an earlier row, in twelve bytes a row: a 64-bit hash of the key, and the row.

    A million keys as text in a set take 110 MB, here they take 12 MB. Two keys with the same hash would be counted as
    a duplicate: among a million keys the chance is 1 in 37 million. The count is for a person to read before anything
    is sent; the ledger decides who is mailed, by the keys themselves.
    """

    def __init__(self) -> None:
        self._hashes = [array("q") for _ in range(_BUCKETS)]
        self._rows = [array("I") for _ in range(_BUCKETS)]

    def add(self, row: int, key: str) -> None:
        """Add one row; rows are added in their order."""
        hashed = hash(key)
        self._hashes[hashed % _BUCKETS].append(hashed)
        self._rows[hashed % _BUCKETS].append(row)

    def count(self, first: int) -> tuple[int, tuple[tuple[int, int], ...]]:
        """Return the number of rows that repeat an earlier one; of the first few, in order, the row and that one."""
        total = 0
        pairs: list[tuple[int, int]] = []
        for hashes, rows in zip(self._hashes, self._rows, strict=True):
            if len(set(hashes)) == len(hashes):
                continue
            seen: dict[int, int] = {}
            found = [
                (row, earlier)
                for hashed, row in zip(hashes, rows, strict=True)
                if (earlier := seen.setdefault(hashed, row)) != row
            ]
            total += len(found)
            pairs = nsmallest(first, pairs + found)
        return total, tuple(pairs)
