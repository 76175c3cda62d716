"""The pre-flight check: the whole recipient file and the template, before anything is sent."""

from __future__ import annotations

import asyncio
from array import array
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from heapq import nsmallest
from typing import TypeVar

from asyncsmtp.bulk.interfaces import ComposerProtocol, ConvertingComposer, utc_now
from asyncsmtp.bulk.recipients.column_header import ColumnHeader
from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.recipient import BELOW_TABLE, Problem, Recipient, address_key
from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.message import Message

__all__ = ["DuplicateCounter", "PreflightReport", "run_preflight"]

_T = TypeVar("_T")
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
        footer: the rows below the table, which are among those left out.
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
    date, duplicates = clock(), DuplicateCounter()
    problems, remarked = _FirstFew[Problem](show), _FirstFew[Recipient](show)
    recipients = left_out = 0
    first, sample = None, None
    footer: list[Problem] = []
    async with aclosing(file.batches()) as batches:
        async for batch in batches:
            for row in batch:
                message = None
                if (
                    composer is not None
                    and isinstance(row, Recipient)
                    and (compose != 0 or not "".join(row.fields.values()).isprintable())
                ):
                    row, message = await _try_to_compose(composer, row, date)
                    compose = compose - 1 if compose and message is not None else compose
                if isinstance(row, Recipient):
                    recipients += 1
                    duplicates.add(row.row, address_key(row.mailbox))
                    if first is None:
                        first, sample = row, message
                    if row.remark:
                        remarked.add(row)
                elif row.left_out:
                    left_out += 1
                    footer += [row] if row.reason == BELOW_TABLE else []
                else:
                    problems.add(row)
    repeats, repeated = await asyncio.to_thread(duplicates.count, show)
    return PreflightReport(
        header=await file.header(),
        digest=file.digest or "",
        rows=recipients + problems.number + left_out,
        recipients=recipients - repeats,
        duplicates=repeats,
        repeated=repeated,
        problems=problems.number,
        problem_rows=tuple(problems),
        remarks=remarked.number,
        remarked=tuple(remarked),
        first=first,
        sample=sample,
        left_out=left_out,
        footer=tuple(footer),
    )


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
