"""`asyncsmtp preview`: messages as they would be sent, to look at."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.command_line import format_command, typed
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import campaign_argument, load_campaign, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode

if TYPE_CHECKING:
    from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
    from asyncsmtp.bulk.setup.prepare import PreparedCampaign
    from asyncsmtp.mail.message import Message

__all__ = ["command"]

_EPILOG = """\b
Examples:
  asyncsmtp preview demo/campaign.toml --row 3
  asyncsmtp preview demo/campaign.toml --output preview --limit 5
"""


@click.command("preview", epilog=_EPILOG)
@campaign_argument(required=True)
@option("--row", type=click.IntRange(min=1), metavar="N", help="Of the recipients; the first one otherwise.")
@option(
    "--output",
    "eml",
    type=click.Path(path_type=Path),
    metavar="PATH",
    former=("--eml",),
    help="Write messages as files into this folder: row-3.eml",
)
@option("--limit", type=click.IntRange(min=1), metavar="N", help="So many of them, with --output; all otherwise.")
@env_file_option
def command(campaign: Path, row: int | None, eml: Path | None, limit: int | None) -> ExitCode:
    """Show messages as they would be sent; send nothing.

    On the terminal: the header, and the parts as they read. Message-IDs and
    dates are those of a preview. Rows that cannot be mailed are skipped.
    """
    if limit is not None and eml is None:
        raise CommandError("--limit is about --output", "add --output DIR, or choose one message with --row")
    return asyncio.run(_preview(campaign, row, eml, limit))


async def _preview(path: Path, row: int | None, folder: Path | None, limit: int | None) -> ExitCode:
    from asyncsmtp.bulk.campaign import Campaign
    from asyncsmtp.cli.output.formats import list_copies

    prepared = await Campaign.from_config(load_campaign(path)).prepare()
    shown, skipped = 0, _Skipped()
    if folder is not None:
        _make(folder)
    async with aclosing(_messages(prepared, row, skipped)) as messages:
        async for recipient, message in messages:
            shown += 1
            if folder is None:
                console.print_result(f"row {recipient.row}")
                if copies := list_copies(recipient):
                    console.print_result(f"copies: {copies}")
                for line in _lines(message):
                    console.print_result(line)
                break
            await asyncio.to_thread(_write, folder / f"row-{recipient.row}.eml", message)
            if shown == limit:
                break
    skipped.print()
    if not shown:
        which = f"row {row}" if row else "row to show"
        raise CommandError(f"{prepared.file.name} has no {which}", format_command("check", path, *typed().env_file))
    if folder is not None:
        console.print_info(f"{console.pluralize(shown, 'message')} in {folder}; nothing was sent")
    return ExitCode.ACCEPTED


class _Skipped:
    """Rows that cannot be mailed, counted as the pre-flight counts them."""

    def __init__(self) -> None:
        self._count = 0
        self._first: Problem | None = None

    def add(self, problem: Problem) -> None:
        if not problem.left_out:
            self._count += 1
            self._first = self._first or problem

    def print(self) -> None:
        if self._first is not None:
            first = f"{self._first}" if self._count == 1 else f"the first is {self._first}"
            console.print_info(f"{console.pluralize(self._count, 'row')} cannot be mailed: {first}")


async def _messages(
    prepared: PreparedCampaign, row: int | None, skipped: _Skipped
) -> AsyncGenerator[tuple[Recipient, Message]]:
    """Yield the messages with their rows: all that can be composed, or the one of `row`.

    Raises:
        CommandError: the one of `row` cannot.
    """
    from asyncsmtp.bulk.recipients.recipient import Problem

    async with aclosing(prepared.file.batches()) as batches:
        async for batch in batches:
            for one in batch:
                if row is not None and one.row != row:
                    continue
                message = _compose(prepared, one)
                if not isinstance(message, Problem) and not isinstance(one, Problem):
                    yield one, message
                elif row is not None:
                    raise CommandError(f"{prepared.file.name}, {message}", "correct the row, or choose another")
                elif isinstance(message, Problem):
                    skipped.add(message)
                if row is not None:
                    return


def _compose(prepared: PreparedCampaign, row: Recipient | Problem) -> Message | Problem:
    from asyncsmtp.bulk.recipients.recipient import Problem
    from asyncsmtp.errors import RecipientError

    if isinstance(row, Problem):
        return row
    try:
        return prepared.composer.compose(
            row.mailbox,
            row.fields,
            message_id=f"preview.{row.row}@{prepared.domain}",
            date=datetime.now(UTC),
            row=row.row,
        )
    except RecipientError as error:
        return Problem(row.row, row.line, error.reason)


def _lines(message: Message) -> Iterator[str]:
    """Yield the lines of a message as a person reads it."""
    from email import message_from_bytes, policy

    parsed = message_from_bytes(_content(message), policy=policy.default)
    yield from (f"{name}: {value}" for name, value in parsed.items())
    for part in parsed.walk():
        if part.is_multipart():
            continue
        kind, name = part.get_content_type(), part.get_filename()
        yield ""
        if part.get_content_maintype() == "text" and name is None:
            yield f"--- {kind}"
            yield from str(part.get_content()).rstrip().splitlines()
        else:
            payload = part.get_payload(decode=True)
            size = len(payload) if isinstance(payload, bytes) else 0
            yield f"--- {kind}, {name or part['Content-ID'] or 'without a name'}, {size:,} bytes"


def _content(message: Message) -> bytes:
    from asyncsmtp.protocol.content import Content

    assert isinstance(message.content, Content), "a composer makes no other"
    return bytes(message.content)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"{folder} cannot be made: {error.strerror}", "choose another folder") from error


def _write(path: Path, message: Message) -> None:
    """Write a new file, for its owner alone; what is there already is no preview of this run, and stays."""
    try:
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600)
    except OSError as error:
        why = "is there already" if isinstance(error, FileExistsError) else f"cannot be written: {error.strerror}"
        raise CommandError(f"{path} {why}", "remove it, or choose another folder") from error
    with open(opened, "wb") as file:
        file.write(_content(message))
