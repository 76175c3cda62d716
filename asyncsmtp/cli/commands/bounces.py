"""`asyncsmtp bounces`: what came back after the relay had accepted it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.campaign.ledgers import Named, named
from asyncsmtp.cli.options import campaign_argument, ledger_option, option, sandbox_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit

if TYPE_CHECKING:
    from asyncsmtp.bulk.bounces.report import Bounce
    from asyncsmtp.mail.returnpath import ReturnPath

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp bounces demo/campaign.toml --sandbox --from demo --suppress suppressed.db
"""


@click.command("bounces", epilog=_EPILOG)
@campaign_argument()
@option("--from", "mailbox", type=click.Path(path_type=Path), required=True, help="A Maildir, an mbox, or a folder.")
@option("--suppress", type=click.Path(path_type=Path), metavar="LIST", help="Put those who do not exist on this list.")
@ledger_option
@sandbox_option
def command(campaign: Path | None, mailbox: Path, suppress: Path | None, ledger: Path | None, sandbox: bool) -> Exit:
    """Read what came back, and write it into the ledger.

    Reports by RFC 3464 are matched with rows by the return path, where it has
    a token, or by the Message-ID. Such rows are rejected then, with the words
    of the report. Reading the same reports again changes nothing.
    """
    where = named(campaign, ledger, sandbox=sandbox)
    found = _read(mailbox, _return_path(campaign))
    changed = asyncio.run(_write(where, found))
    failures, rows = console.many(len(found), "failure"), console.many(len(changed), "row")
    console.say(f"{failures} in {mailbox}; {rows} rejected because of it")
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
    from asyncsmtp.mail.returnpath import ReturnPath

    text = settle(campaignfile.read(campaign), {}, campaign).return_path
    return None if text is None else ReturnPath(text)


def _read(mailbox: Path, path: ReturnPath | None) -> dict[str, Bounce]:
    """The failures, by what stands for their messages."""
    from asyncsmtp.bulk.bounces.mailboxes import messages_in
    from asyncsmtp.bulk.bounces.report import read_report

    found = {}
    for octets in messages_in(mailbox):
        for bounce in read_report(octets):
            tokens = [path.token_in(address) for address in bounce.sent_to] if path else []
            token = next(filter(None, tokens), None) or bounce.message_id.partition("@")[0]
            if bounce.failed and token:
                found[token] = bounce
    return found


async def _write(where: Named, found: dict[str, Bounce]) -> Sequence[tuple[str, Bounce]]:
    from asyncsmtp.bulk.sqlite.ledger import SqliteLedger

    async with await SqliteLedger.read(where.path) as reader:
        name = reader.name
    if not found:
        return ()
    async with await SqliteLedger.open(where.path, name=name, from_domain="localhost") as ledger:
        return await ledger.bounced(found)
