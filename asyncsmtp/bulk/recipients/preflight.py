"""The whole file and the template, before the first octet is sent."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime

from asyncsmtp.bulk.csvfile.duplicates import Duplicates
from asyncsmtp.bulk.csvfile.heading import Heading
from asyncsmtp.bulk.ports import Composes
from asyncsmtp.bulk.recipients.file import Problem, Recipient, RecipientFile
from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.message import Message

__all__ = ["Report", "preflight"]


@dataclass(frozen=True, slots=True)
class Report:
    """What a campaign would do, told before it does it.

    Attributes:
        heading: columns, address column (and whether it was guessed), delimiter.
        digest: SHA-256 of the file's octets.
        rows: records in the file, header and empty lines excluded: recipients + duplicates + problems + left_out.
        recipients: how many would be mailed.
        duplicates: how many rows name a mailbox that an earlier row named.
        repeated: of the first few of these, the row and the one it repeats.
        problems: how many rows cannot be mailed. left_out: how many are none of this campaign's.
        problem_rows: the first few of these.
        remarks: how many rows are mailed although something is odd about them.
        remarked: the first few of these.
        first: the first row that would be mailed; None when there is nobody.
        sample: its message; None without a composer.
    """

    heading: Heading
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
        """Whether every row would be mailed, once, and nothing is odd."""
        return not (self.problems or self.duplicates or self.remarks)

    def raise_for_problems(self) -> None:
        """Raise for a file that is not clean: what `--strict` asks for.

        Raises:
            RecipientError: with the first problem, and how many there are of each kind.
        """
        if self.clean:
            return
        counts = f"problems: {self.problems}, duplicates: {self.duplicates}, remarks: {self.remarks}"
        if self.problem_rows:
            first = self.problem_rows[0]
            raise RecipientError(f"{first.reason} (line {first.line}; in the whole file {counts})", first.row)
        if self.repeated:
            row, earlier = self.repeated[0]
            raise RecipientError(f"names the mailbox of row {earlier} again (in the whole file {counts})", row)
        odd = self.remarked[0]
        raise RecipientError(f"{odd.remark} (line {odd.line}; in the whole file {counts})", odd.row)


async def preflight(
    file: RecipientFile, composer: Composes | None = None, *, compose: int | None = 1, show: int = 20
) -> Report:
    """Read the whole file as it will be read for sending, and try the template on it; constant memory.

    A row with a line break or a control character in a cell is always composed: only the template
    knows whether the cell stands in a header, where it cannot.

    Args:
        composer: compiled against the file's columns; None to check the file alone.
        compose: how many messages to compose, from the first row on; None composes every one, as slow as sending them.
        show: how many problems, duplicates and remarks the report keeps of each.
    Raises:
        RecipientError: the file cannot be read, or where its rows begin cannot be told.
        TemplateError: the template fails on a row.
    """
    survey = _Survey(composer, compose, show)
    async with aclosing(file.batches()) as batches:
        async for batch in batches:
            for row in batch:
                if survey.see(row):
                    await asyncio.sleep(0)
    repeats = await asyncio.to_thread(survey.duplicates.count, show)
    return survey.report(await file.heading(), file.digest or "", *repeats)


class _Survey:
    """Counts rows as they come by."""

    def __init__(self, composer: Composes | None, compose: int | None, show: int) -> None:
        self._composer = composer
        self._to_compose = compose
        self._show = show
        self._date = datetime.now(UTC)
        self.duplicates = Duplicates()
        self._recipients = self._problems = self._remarks = self._left_out = 0
        self._problem_rows: list[Problem] = []
        self._remarked: list[Recipient] = []
        self._first: Recipient | None = None
        self._sample: Message | None = None

    def see(self, row: Recipient | Problem) -> bool:
        """Count one row; return whether it took the time of a message."""
        message, composer = None, self._composer
        composing = isinstance(row, Recipient) and composer is not None and (self._to_compose != 0 or _is_odd(row))
        if composing and isinstance(row, Recipient) and composer is not None:
            try:
                message = self._compose(row, composer)
            except RecipientError as error:
                row = Problem(row.row, row.line, error.reason)
        if isinstance(row, Recipient):
            self._count_recipient(row, message)
        elif row.left_out:
            self._left_out += 1
        else:
            self._problems += 1
            if len(self._problem_rows) < self._show:
                self._problem_rows.append(row)
        return composing

    def _compose(self, recipient: Recipient, composer: Composes) -> Message:
        message = composer.compose(
            recipient.mailbox,
            recipient.fields,
            message_id="preflight@localhost.invalid",
            date=self._date,
            row=recipient.row,
        )
        if self._to_compose:
            self._to_compose -= 1
        return message

    def _count_recipient(self, recipient: Recipient, message: Message | None) -> None:
        self._recipients += 1
        self.duplicates.add(recipient.row, recipient.mailbox.key)
        if self._first is None:
            self._first, self._sample = recipient, message
        if recipient.remark:
            self._remarks += 1
            if len(self._remarked) < self._show:
                self._remarked.append(recipient)

    def report(self, heading: Heading, digest: str, duplicates: int, repeated: tuple[tuple[int, int], ...]) -> Report:
        """What was seen, as a value."""
        return Report(
            heading=heading,
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


def _is_odd(row: Recipient) -> bool:
    return not "".join(row.fields.values()).isprintable()
