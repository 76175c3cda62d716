"""`asyncsmtp bounces`: what came back after the relay had accepted it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.cli.options import (
    CommandSecrets,
    NamedLedger,
    campaign_argument,
    config_options,
    find_ledger,
    ledger_option,
    option,
    sandbox_option,
)
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.bounces.dsn import Bounce
    from asyncsmtp.bulk.bounces.imap import ImapFolder
    from asyncsmtp.mail.list_unsubscribe import ReturnPath

__all__ = ["command"]

BATCH_SIZE = 10_000  # failures in memory at a time

_EPILOG = """\b
Example:
  asyncsmtp bounces demo/campaign.toml --sandbox --from demo --suppress suppressed.db
"""


@click.command("bounces", epilog=_EPILOG)
@campaign_argument()
@option(
    "--from", "mailbox", metavar="MAILBOX", required=True, help="A Maildir, an mbox, a folder; imaps://user@host/INBOX"
)
@option("--suppress", type=click.Path(path_type=Path), metavar="LIST", help="Put those who do not exist on this list.")
@option("--since", type=click.DateTime(["%Y-%m-%d"]), metavar="DAY", help="By IMAP: all since then, not the unseen.")
@option("--seen", is_flag=True, help="By IMAP: mark the reports as seen.")
@config_options("relay.ca_file", "relay.password_command")
@ledger_option
@sandbox_option
def command(
    campaign: Path | None,
    mailbox: str,
    suppress: Path | None,
    since: datetime | None,
    seen: bool,
    ca_file: str | None,
    password_command: str | None,
    ledger: Path | Database | None,
    sandbox: bool,
) -> ExitCode:
    """Read what came back, and write it into the ledger.

    Reports by RFC 3464 are matched with rows by the return path, where it has
    a token, or by the Message-ID. Such rows are rejected then, with the words
    of the report. Reading the same reports again changes nothing.
    """
    where = find_ledger(campaign, ledger, sandbox=sandbox)
    authorities = Path(ca_file) if ca_file else None
    with open_inbox(mailbox, since, seen=seen, ca_file=authorities, password_command=password_command) as inbox:
        number, changed = asyncio.run(_write(where, inbox, _return_path(campaign)))
    failures, rows = console.pluralize(number, "failure"), console.pluralize(len(changed), "row")
    console.print_info(f"{failures} in {inbox}; {rows} rejected because of it")
    if suppress is not None:
        from asyncsmtp.bulk.suppression import Suppressed, SuppressionList

        # The address is the row's: a report may name anybody.
        gone = [Suppressed(address, f"bounced: {one.status}") for address, one in changed if one.permanent]
        number = SuppressionList(suppress).add(gone)
        console.print_info(f"{console.pluralize(number, 'entry', 'entries')} added to {suppress}")
    if changed:
        console.print_info(f"  next: asyncsmtp results {where.reference} --failed")
    return ExitCode.ACCEPTED


def _return_path(campaign: Path | None) -> ReturnPath | None:
    if campaign is None:
        return None
    from asyncsmtp.bulk.setup.config import load_config
    from asyncsmtp.mail.list_unsubscribe import ReturnPath

    text = load_config(campaign).return_path
    return None if text is None else ReturnPath(text)


async def _write(where: NamedLedger, inbox: Inbox, path: ReturnPath | None) -> tuple[int, Sequence[tuple[str, Bounce]]]:
    """Have the rows of all reports rejected, some thousands at a time; return the number of failures, and the rows."""
    from asyncsmtp.bulk.open_campaign import open_reader, reopen_ledger

    async with await open_reader(where.location):
        pass  # it is there, before anything is fetched
    number = 0
    changed: list[tuple[str, Bounce]] = []
    batches = inbox.batches(path)
    batch = await asyncio.to_thread(next, batches, None)
    if batch is None or not batch.failures:
        return 0, ()
    async with await reopen_ledger(where.location) as ledger:
        while batch is not None:
            number += len(batch.failures)
            changed += await ledger.record_bounces(batch.failures)
            await asyncio.to_thread(inbox.mark_done, batch)  # not before they are in the ledger
            batch = await asyncio.to_thread(next, batches, None)
    return number, changed


# The mailbox: on this machine, or by IMAP; its failures come some thousands at a time.


@dataclass(slots=True)
class Batch:
    """Some of the failures, by the token of their messages; and the UIDs of the reports, where they have some."""

    failures: dict[str, Bounce] = field(default_factory=dict)
    uids: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Inbox:
    """Messages to read, one after the other; every method blocks. `str` is its location."""

    location: object
    messages: Iterable[tuple[int, bytes]]
    marks: ImapFolder | None = None

    def __str__(self) -> str:
        return safe_text(str(self.location))

    def batches(self, path: ReturnPath | None) -> Iterator[Batch]:
        """Yield the failures that the messages report."""
        from asyncsmtp.bulk.bounces.dsn import parse_dsn

        batch = Batch()
        for uid, content in self.messages:
            reported = False
            for bounce in parse_dsn(content):
                reported = True
                tokens = [path.parse_token(address) for address in bounce.sent_to] if path else []
                token = next(filter(None, tokens), None) or bounce.message_id.partition("@")[0]
                if bounce.failed and token:
                    batch.failures[token] = bounce
            if reported and self.marks is not None:
                batch.uids.append(uid)
            if len(batch.failures) >= BATCH_SIZE or len(batch.uids) >= BATCH_SIZE:
                yield batch
                batch = Batch()
        if batch.failures or batch.uids:
            yield batch

    def mark_done(self, batch: Batch) -> None:
        """Mark the reports of a batch that is recorded, so that they are not read again."""
        if self.marks is not None:
            self.marks.mark_seen(batch.uids)


@contextmanager
def open_inbox(
    mailbox: str, since: datetime | None, *, seen: bool, ca_file: Path | None, password_command: str | None
) -> Iterator[Inbox]:
    """Open what --from names.

    Raises:
        CommandError: the server cannot be reached, or refuses the login; an option does not fit.
    """
    if "://" not in mailbox:
        if since is not None or seen:
            advice = "leave them out: all messages are read"
            raise CommandError("--since and --seen are about a mailbox by IMAP", advice)
        from asyncsmtp.bulk.bounces.dsn import read_mail_files

        yield Inbox(mailbox, ((0, content) for content in read_mail_files(Path(mailbox))))
        return
    from asyncsmtp.bulk.bounces.imap import ImapFolder, ImapUrl, LoginRefused
    from asyncsmtp.errors import ConnectFailed

    place = ImapUrl.from_url(mailbox)
    secret = CommandSecrets(password_command).password(place.user, place.host)
    try:
        with ImapFolder(place, secret, ca_file=ca_file, writable=seen) as folder:
            yield Inbox(place, folder.messages(since.date() if since else None), folder if seen else None)
    except LoginRefused as error:
        advice = "set the right ASYNCSMTP_PASSWORD and user, then run the same command again"
        raise CommandError(str(error), advice, ExitCode.AUTHENTICATION) from None
    except ConnectFailed as error:
        advice = "see that it is right and reachable, then run the same command again: nothing is lost"
        raise CommandError(str(error), advice, ExitCode.UNREACHABLE) from error
