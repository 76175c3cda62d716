"""The pre-flight check: the whole recipient file and the template, before anything is sent."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest

from asyncsmtp.bulk.interfaces import ComposerProtocol, ConvertingComposer, utc_now
from asyncsmtp.bulk.recipients.column_header import ColumnHeader
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.message import Message

__all__ = ["DuplicateCounter", "PreflightReport", "run_preflight"]


_BUCKETS = 256  # by the last byte of the hash


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """The result of a pre-flight check.

    Attributes:
        header: columns, address column (and whether it was guessed), delimiter.
        digest: SHA-256 of the file.
        rows: records in the file, header and empty lines excluded: recipients + duplicates + problems + left_out.
        recipients: number of rows that would be mailed.
        duplicates: number of rows with a mailbox of an earlier row.
        repeated: of the first few of these, the row and the one it repeats.
        problems: number of rows that cannot be mailed. left_out: number of rows that are not part of the campaign.
        problem_rows: the first few of these.
        remarks: number of rows that are mailed although a person should look at them.
        remarked: the first few of these.
        first: the first row that would be mailed; None if there is none.
        sample: its message; None without a composer.
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
) -> PreflightReport:
    """Read the whole file as for sending, and try the template on it; constant memory.

    A row with a line break or a control character in a cell is always composed: only the template knows whether the
    cell stands in a header, where it is not allowed.

    Args:
        composer: compiled against the file's columns; None to check the file alone.
        compose: number of messages to compose, from the first row on; None composes all, which is as slow as sending.
        show: number of problems, duplicates and remarks that the report keeps of each.
        clock: the wall clock, UTC: the Date of the messages.
    Raises:
        RecipientError: the file cannot be read, or it is unknown where its rows begin.
        TemplateError: the template fails on a row.
    """
    counter = _RowCounter(composer, compose, show, clock())
    async with aclosing(file.batches()) as batches:
        async for batch in batches:
            for row in batch:
                if (convert := counter.pending_conversion(row)) is not None:
                    await asyncio.to_thread(convert)
                if counter.add(row):
                    await asyncio.sleep(0)
    repeats = await asyncio.to_thread(counter.duplicates.count, show)
    return counter.report(await file.header(), file.digest or "", *repeats)


class _RowCounter:
    """Counts of the rows of a file, by kind."""

    def __init__(self, composer: ComposerProtocol | None, compose: int | None, show: int, date: datetime) -> None:
        self._composer = composer
        self._to_compose = compose
        self._show = show
        self._date = date
        self.duplicates = DuplicateCounter()
        self._recipients = self._problems = self._remarks = self._left_out = 0
        self._problem_rows: list[Problem] = []
        self._remarked: list[Recipient] = []
        self._first: Recipient | None = None
        self._sample: Message | None = None

    def pending_conversion(self, row: Recipient | Problem) -> Callable[[], None] | None:
        """Return the conversion that composing this row's message needs first, to be run in a thread."""
        if isinstance(self._composer, ConvertingComposer) and isinstance(row, Recipient) and self._is_composed(row):
            return self._composer.pending_conversion(row.mailbox, row.fields)
        return None

    def _is_composed(self, row: Recipient) -> bool:
        return self._to_compose != 0 or _has_control(row)

    def add(self, row: Recipient | Problem) -> bool:
        """Count one row; return whether a message was composed."""
        if self._composer is None or isinstance(row, Problem) or not self._is_composed(row):
            self._count(row, None)
            return False
        try:
            message = self._composer.compose(
                row.mailbox, row.fields, message_id="preflight@localhost.invalid", date=self._date, row=row.row
            )
        except RecipientError as error:
            self._count(Problem(row.row, row.line, error.reason), None)
        else:
            if self._to_compose:
                self._to_compose -= 1
            self._count(row, message)
        return True

    def _count(self, row: Recipient | Problem, message: Message | None) -> None:
        if isinstance(row, Recipient):
            self._recipients += 1
            self.duplicates.add(row.row, row.mailbox.key)
            if self._first is None:
                self._first, self._sample = row, message
            if row.remark:
                self._remarks += 1
                if len(self._remarked) < self._show:
                    self._remarked.append(row)
        elif row.left_out:
            self._left_out += 1
        else:
            self._problems += 1
            if len(self._problem_rows) < self._show:
                self._problem_rows.append(row)

    def report(
        self, header: ColumnHeader, digest: str, duplicates: int, repeated: tuple[tuple[int, int], ...]
    ) -> PreflightReport:
        """Return the counts as a value."""
        return PreflightReport(
            header=header,
            digest=digest,
            rows=self._recipients + self._problems + self._left_out,
            recipients=self._recipients - duplicates,
            duplicates=duplicates,
            repeated=repeated,
            problems=self._problems,
            problem_rows=tuple(self._problem_rows),
            remarks=self._remarks,
            remarked=tuple(self._remarked),
            first=self._first,
            sample=self._sample,
            left_out=self._left_out,
        )


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


def _has_control(row: Recipient) -> bool:
    return not "".join(row.fields.values()).isprintable()
