"""`asyncsmtp bounces`: what came back after the relay had accepted it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.cli.env_file import env_file_option
from asyncsmtp.cli.options import (
    NamedLedger,
    campaign_argument,
    config_options,
    find_ledger,
    ledger_option,
    load_campaign,
    option,
    parse_since,
    sandbox_option,
)
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode, explain
from asyncsmtp.cli.secret_sources import CommandSecrets
from asyncsmtp.errors import ConfigError, LedgerEmpty, LedgerError, SMTPError
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.bounces.dsn import Bounce
    from asyncsmtp.bulk.bounces.imap import ImapFolder
    from asyncsmtp.bulk.ledger.interfaces import BouncedRow
    from asyncsmtp.bulk.ledger.suppression_list import Suppressed
    from asyncsmtp.mail.list_unsubscribe import ReturnPath

__all__ = ["command"]

_PASSING = frozenset({ExitCode.UNREACHABLE, ExitCode.RUN_AGAIN})  # the server is away; a run has the ledger
BATCH_SIZE = 10_000  # failures in memory at a time

_EPILOG = """\b
Example:
  asyncsmtp bounces demo/campaign.toml --sandbox --inbox demo --suppression suppressed.db
"""


@click.command("bounces", epilog=_EPILOG)
@campaign_argument()
@option(
    "--inbox",
    "mailbox",
    metavar="FOLDER|URL",
    required=True,
    former=("--from",),
    help="A Maildir, an mbox, a folder; imaps://user@host/INBOX, pop3s://user@host",
)
@option(
    "--suppression",
    "suppress",
    type=click.Path(path_type=Path),
    metavar="LIST",
    former=("--suppress",),
    help="Suppression list: who does not exist or complained.",
)
@option("--all", "folder", type=click.Path(path_type=Path), metavar="DIR", help="For all campaigns of a folder.")
@option("--watch", type=click.FloatRange(min=1), metavar="SECONDS", help="Read again and again, with this pause.")
@option("--since", type=parse_since, metavar="TIME", help="By IMAP: all since then, not the unseen.")
@option("--seen", is_flag=True, help="By IMAP: mark the reports as seen.")
@config_options("relay.ca_file", "relay.password_command", "campaign.name")
@ledger_option
@sandbox_option
@env_file_option
def command(
    campaign: Path | None,
    mailbox: str,
    suppress: Path | None,
    folder: Path | None,
    watch: float | None,
    since: datetime | None,
    seen: bool,
    ca_file: str | None,
    password_command: str | None,
    name: str | None,
    ledger: Path | Database | None,
    sandbox: bool,
) -> ExitCode:
    """Read what came back, and write it into the ledger.

    Reports are matched with rows by the token of the return path or of the
    Message-ID, wherever it stands; where the return path has no token, also by
    the address of a recipient who is gone. Such rows are rejected then, with
    the words of the report. Whoever complained (RFC 5965) is only added to the
    list. Reading the same reports again changes nothing.
    """
    authorities = Path(ca_file) if ca_file else None

    def read(where: NamedLedger) -> None:
        with open_inbox(mailbox, since, seen=seen, ca_file=authorities, password_command=password_command) as inbox:
            totals = asyncio.run(
                _write(where, inbox, _return_path(where.campaign), suppress, named=where.campaign is not None)
            )
        _print_totals(totals, where, inbox, suppress)

    if folder is None:
        where = find_ledger(campaign, ledger, sandbox=sandbox, name=name)
    elif campaign is not None or ledger is not None or name is not None:
        raise CommandError(
            "--all reads for every campaign of its folder", "leave out the campaign and its name, or --all"
        )
    while True:
        try:
            if folder is None:
                read(where)
            else:
                _read_for_all(folder, read, sandbox=sandbox)
        except (CommandError, SMTPError) as error:
            failure = explain(error)
            if watch is None or failure.exit not in _PASSING:
                raise
            console.print_info(failure.sentence)
        if watch is None:
            return ExitCode.ACCEPTED
        console.print_info(f"reading again in {watch:g} s; Ctrl-C ends it")
        time.sleep(watch)


def _read_for_all(folder: Path, read: Callable[[NamedLedger], None], *, sandbox: bool) -> None:
    """Read the mailbox for each campaign of a folder that has begun: what is about one is left for the others.

    Raises:
        CommandError: there is none. LedgerError: of the first ledger that cannot be used; the others were read for.
    """
    failed: SMTPError | None = None
    number = 0
    for path in sorted(folder.glob("*.toml")) + sorted(folder.glob("*/*.toml")):
        try:
            where = find_ledger(path, None, sandbox=sandbox)
        except ConfigError:  # it may be the file of another program
            continue
        if isinstance(where.location, Path) and not where.location.exists():
            continue
        console.print_info(f"{path}:")
        try:
            read(where)
        except LedgerEmpty:
            console.print_info("nothing was sent yet")
            continue
        except LedgerError as error:
            failed = failed or error
            console.print_info(safe_text(str(error), 500))
        number += 1
    if not number:
        raise CommandError(f"{folder} has no campaign that has begun", "name the folder of the campaign files")
    if failed is not None:
        raise failed


def _print_totals(totals: Totals, where: NamedLedger, inbox: Inbox, suppress: Path | None) -> None:
    failures, rows = console.pluralize(totals.failures, "failure"), console.pluralize(totals.rejected, "row")
    console.print_info(f"{failures} in {inbox}; {rows} rejected because of it")
    if totals.complaints:
        complaints = console.pluralize(totals.complaints, "complaint")
        console.print_info(
            f"{complaints}" + ("" if suppress else "; --suppression keeps these people from further mail")
        )
    console.print_info(f"  {totals}")
    if suppress is not None:
        console.print_info(f"{console.pluralize(totals.added, 'entry', 'entries')} added to {suppress}")
    if totals.rejected:
        console.print_info(f"  next: asyncsmtp results {where.reference} --failed")


@dataclass(slots=True)
class Totals:
    """Numbers for the summary; `str` says what became of the messages.

    Attributes:
        failures: messages that report a failure. complaints: messages that report a complaint.
        rejected: rows that are rejected because of a failure.
        added: new entries of the suppression list.
        matched: messages about rows of this campaign. strange: about other messages than this campaign's.
        no_failure: reports of delays and successes. other: messages that are no report that can be read.
    """

    failures: int = 0
    complaints: int = 0
    rejected: int = 0
    added: int = 0
    matched: int = 0
    strange: int = 0
    no_failure: int = 0
    other: int = 0

    def __str__(self) -> str:
        read = self.matched + self.strange + self.no_failure + self.other
        return (
            f"{console.pluralize(read, 'message')} read: {self.matched:,} on rows of this campaign,"
            f" {self.strange:,} on nobody here, {self.no_failure:,} without a failure, {self.other:,} not understood"
        )


def _return_path(campaign: Path | None) -> ReturnPath | None:
    if campaign is None:
        return None
    from asyncsmtp.mail.list_unsubscribe import ReturnPath

    text = load_campaign(campaign).return_path
    return None if text is None else ReturnPath(text)


async def _write(
    where: NamedLedger, inbox: Inbox, path: ReturnPath | None, suppress: Path | None, *, named: bool
) -> Totals:
    """Write all reports into the ledger and the suppression list, some thousands at a time.

    Whatever interrupts this, the same command does the rest: the ledger tells whom it rejected by a report that is read
    again, and a report is marked as seen when everything that follows from it is stored.

    Args:
        path: the return path of the campaign; None: it has none, or is unknown.
        named: whether the campaign is known, and not only its ledger.
    """
    from asyncsmtp.bulk.ledger.suppression_list import SuppressionList
    from asyncsmtp.bulk.open_campaign import open_reader, reopen_ledger

    # A report on a message whose return path has a token has it too: one without it may be made up.
    by_address = named and (path is None or not path.has_token)
    async with await open_reader(where.location, where.name):
        pass  # it is there, before anything is fetched
    totals = Totals()
    list_ = None if suppress is None else SuppressionList(suppress)
    if list_ is not None:
        await asyncio.to_thread(list_.create)  # it can be written, before anything is changed
    batches = inbox.batches(path, totals, by_address=by_address)
    if (batch := await asyncio.to_thread(next, batches, None)) is None:
        return totals
    async with await reopen_ledger(where.location, where.retention, guest=True, name=where.name) as ledger:
        while batch is not None:
            totals.failures += batch.failed
            totals.complaints += len(batch.messages) - batch.failed
            totals.rejected += len(await ledger.record_bounces(batch.failures))
            found = await ledger.find_bounced(batch.failures)
            if list_ is not None:
                totals.added += await asyncio.to_thread(list_.add, _find_gone(found))
            await asyncio.to_thread(inbox.mark_done, batch, {row.token for row in found}, totals)
            batch = await asyncio.to_thread(next, batches, None)
    return totals


def _find_gone(rows: Iterable[BouncedRow]) -> list[Suppressed]:
    """Return the entries for those who complained, or whom no later message will reach; not for the sender's fault."""
    from asyncsmtp.bulk.ledger.suppression_list import Suppressed

    found = []
    for row in rows:
        if row.bounce.complaint:
            found.append(Suppressed(row.address, "complaint"))
        elif row.rejected and row.bounce.permanent:
            found.append(Suppressed(row.address, f"bounced: {row.bounce.status or 'unknown recipient'}"))
    return found


# The mailbox: on this machine, or by IMAP; its failures come some thousands at a time.


@dataclass(slots=True)
class Batch:
    """Some of the failures, by token or address, and the messages that report them: UID, and tokens or addresses."""

    failures: dict[str, Bounce] = field(default_factory=dict)
    messages: list[tuple[int, set[str]]] = field(default_factory=list)
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Inbox:
    """Messages to read, one after the other; every method blocks. `str` is its location."""

    location: object
    messages: Iterable[tuple[int, bytes]]
    marks: ImapFolder | None = None

    def __str__(self) -> str:
        return safe_text(str(self.location))

    def batches(self, path: ReturnPath | None, totals: Totals, *, by_address: bool) -> Iterator[Batch]:
        """Yield the failures that the messages report; count the messages that report none."""
        from asyncsmtp.bulk.bounces.matching import read_report

        waiting: list[Batch] = []  # several, where several messages are about one row: each is recorded
        number = 0
        for uid, content in self.messages:
            report = read_report(content, path)
            failures = report.failures or (report.failures_by_address if by_address else {})
            if not failures:
                has_failed = any(bounce.failed or bounce.complaint for bounce in report.bounces)
                totals.strange += has_failed
                totals.no_failure += bool(report.bounces) and not has_failed
                totals.other += not report.bounces
                continue
            batch = next((each for each in waiting if not failures.keys() & each.failures.keys()), None)
            if batch is None:
                waiting.append(batch := Batch())
            batch.failures |= failures
            batch.messages.append((uid, {*failures}))
            batch.failed += any(bounce.failed for bounce in failures.values())
            number += 1
            if number >= BATCH_SIZE:
                yield from waiting
                waiting, number = [], 0
        yield from waiting

    def mark_done(self, batch: Batch, tokens: Collection[str], totals: Totals) -> None:
        """Mark as seen the messages of a batch that are recorded in this ledger, by the tokens of their rows.

        Others may be about another campaign, which has to read them.
        """
        done = [uid for uid, reported in batch.messages if not reported.isdisjoint(tokens)]
        totals.matched += len(done)
        totals.strange += len(batch.messages) - len(done)
        if self.marks is not None:
            self.marks.mark_seen(done)


@contextmanager
def open_inbox(
    mailbox: str, since: datetime | None, *, seen: bool, ca_file: Path | None, password_command: str | None
) -> Iterator[Inbox]:
    """Open what --inbox names.

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
    from asyncsmtp.bulk.bounces.pop3 import Pop3Mailbox, Pop3Url
    from asyncsmtp.errors import ConnectFailed

    is_pop3 = mailbox.lower().startswith("pop3s:")
    if is_pop3 and (since is not None or seen):
        raise CommandError("--since and --seen are about a mailbox by IMAP", "leave them out: POP3 reads all messages")
    place = Pop3Url.from_url(mailbox) if is_pop3 else ImapUrl.from_url(mailbox)
    secret = CommandSecrets(password_command).password(place.user, place.host)
    try:
        if isinstance(place, Pop3Url):
            with Pop3Mailbox(place, secret, ca_file=ca_file) as box:
                yield Inbox(place, box.messages())
            return
        with ImapFolder(place, secret, ca_file=ca_file, writable=seen) as folder:
            yield Inbox(place, folder.messages(since.date() if since else None), folder if seen else None)
    except LoginRefused as error:
        advice = "set the right ASYNCSMTP_PASSWORD and user, then run the same command again"
        raise CommandError(str(error), advice, ExitCode.AUTHENTICATION) from None
    except ConnectFailed as error:
        advice = "see that it is right and reachable, then run the same command again: nothing is lost"
        raise CommandError(str(error), advice, ExitCode.UNREACHABLE) from error
