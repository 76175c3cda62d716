"""`asyncsmtp bounces`: what came back after the relay had accepted it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.campaign.inbox import Inbox, opened
from asyncsmtp.cli.campaign.ledgers import Named, decided, named, read
from asyncsmtp.cli.options import campaign_argument, ledger_option, option, sandbox_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit

if TYPE_CHECKING:
    from asyncsmtp.bulk.bounces.dsn import Bounce
    from asyncsmtp.mail.verp import ReturnPath

__all__ = ["command"]

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
@option("--ca-file", type=click.Path(path_type=Path), metavar="FILE", help="CAs to trust beside the system's.")
@option("--password-command", metavar="COMMAND", help="Prints the password, as 'pass show mail' does.")
@ledger_option
@sandbox_option
def command(
    campaign: Path | None,
    mailbox: str,
    suppress: Path | None,
    since: datetime | None,
    seen: bool,
    ca_file: Path | None,
    password_command: str | None,
    ledger: Path | Database | None,
    sandbox: bool,
) -> Exit:
    """Read what came back, and write it into the ledger.

    Reports by RFC 3464 are matched with rows by the return path, where it has
    a token, or by the Message-ID. Such rows are rejected then, with the words
    of the report. Reading the same reports again changes nothing.
    """
    where = named(campaign, ledger, sandbox=sandbox)
    with opened(mailbox, since, seen=seen, ca_file=ca_file, password_command=password_command) as inbox:
        number, changed = asyncio.run(_write(where, inbox, _return_path(campaign)))
    failures, rows = console.many(number, "failure"), console.many(len(changed), "row")
    console.say(f"{failures} in {inbox}; {rows} rejected because of it")
    if suppress is not None:
        from asyncsmtp.bulk.suppression import Suppressed, SuppressionList

        # The address is the row's: a report may name anybody.
        gone = [Suppressed(address, f"bounced: {one.status}") for address, one in changed if one.permanent]
        number = SuppressionList(suppress).add(gone)
        console.say(f"{console.many(number, 'entry', 'entries')} added to {suppress}")
    if changed:
        console.say(f"  next: asyncsmtp results {where.reference} --failed")
    return Exit.ACCEPTED


def _return_path(campaign: Path | None) -> ReturnPath | None:
    if campaign is None:
        return None
    from asyncsmtp.cli.campaign import campaignfile
    from asyncsmtp.cli.campaign.settings import settle
    from asyncsmtp.mail.verp import ReturnPath

    text = settle(campaignfile.read(campaign), {}, campaign).return_path
    return None if text is None else ReturnPath(text)


async def _write(where: Named, inbox: Inbox, path: ReturnPath | None) -> tuple[int, Sequence[tuple[str, Bounce]]]:
    """Have the rows of all reports rejected, some thousands at a time; return the number of failures, and the rows."""
    async with await read(where.place):
        pass  # it is there, before anything is fetched
    number = 0
    changed: list[tuple[str, Bounce]] = []
    batches = inbox.batches(path)
    batch = await asyncio.to_thread(next, batches, None)
    if batch is None or not batch.failures:
        return 0, ()
    async with await decided(where.place) as ledger:
        while batch is not None:
            number += len(batch.failures)
            changed += await ledger.bounced(batch.failures)
            await asyncio.to_thread(inbox.done, batch)  # not before they are in the ledger
            batch = await asyncio.to_thread(next, batches, None)
    return number, changed
