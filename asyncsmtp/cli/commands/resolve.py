"""`asyncsmtp resolve`: a person's decision about rows that the relay may or may not have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.campaign.ledgers import Named, decided, named
from asyncsmtp.cli.options import campaign_argument, ledger_option, option, sandbox_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.asking import ask
from asyncsmtp.cli.output.exits import Exit

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger import Decision, Entry, Ledger
    from asyncsmtp.bulk.states import State

__all__ = ["command"]

SHOWN = 20  # rows
STATES = ("in-doubt", "deferred", "rejected")

_EPILOG = """\b
Example:
  asyncsmtp resolve demo/campaign.toml --resend --yes
"""


@click.command("resolve", epilog=_EPILOG)
@campaign_argument()
@ledger_option
@sandbox_option
@click.option("--resend", "decision", flag_value="resend", help="Send them again with the next run.")
@click.option("--skip", "decision", flag_value="skip", help="Give them up: they count as rejected.")
@option("--row", "rows", type=click.IntRange(min=1), multiple=True, metavar="N", help="This row only; repeatable.")
@option("--state", type=click.Choice(STATES), default="in-doubt", show_default=True, help="Which rows.")
@option("--yes", is_flag=True, help="Do not ask.")
def command(
    campaign: Path | None,
    ledger: Path | Database | None,
    sandbox: bool,
    decision: str | None,
    rows: tuple[int, ...],
    state: str,
    yes: bool,
) -> Exit:
    """Decide about recipients in doubt.

    In doubt: the content was sent and the relay's reply never came, so it may
    have the message. Look for the Message-ID in its log first. Without a
    decision, the rows are listed.
    """
    return asyncio.run(_resolve(named(campaign, ledger, sandbox=sandbox), decision, rows, state, yes=yes))


async def _resolve(where: Named, decision: str | None, rows: tuple[int, ...], state: str, *, yes: bool) -> Exit:
    from asyncsmtp.bulk.ledger import Decision
    from asyncsmtp.bulk.states import State

    chosen = State[state.replace("-", "_").upper()]
    async with await decided(where.place) as ledger:
        found = await _found(ledger, chosen, rows)
        if not found.number:
            console.say(f"no row is {chosen}" + (" among those named" if rows else ""))
            return Exit.ACCEPTED
        found.show(chosen)
        if decision is None:
            console.say(f"  next: asyncsmtp resolve {where.reference} --resend, or --skip; for some only: --row N")
            return Exit.SOME_FAILED
        await _confirm(found, Decision(decision), yes=yes)
        changed = await ledger.resolve(Decision(decision), rows or None, (chosen,))
    console.say(f"{console.many(changed, 'row')} {'to be sent again' if decision == 'resend' else 'given up'}")
    if decision == "resend":
        console.say(f"  next: asyncsmtp bulk {where.reference}")
    return Exit.ACCEPTED


class _Found:
    """Rows a decision would be about: how many, how often each may have been delivered, and the first few."""

    def __init__(self) -> None:
        self.number = 0
        self.copies = 0
        self.first: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.number += 1
        self.copies = max(self.copies, entry.doubts)
        if len(self.first) < SHOWN:
            self.first.append(entry)

    def show(self, state: State) -> None:
        """List them on stdout."""
        console.out(f"{console.many(self.number, 'row')} {state}:")
        for entry in self.first:
            console.out(f"  row {entry.row}  {entry.address}  <{entry.message_id}>  {entry.reply}")
        if self.number > len(self.first):
            console.out(f"  … and {self.number - len(self.first):,} more")


async def _found(ledger: Ledger, state: State, rows: tuple[int, ...]) -> _Found:
    found = _Found()
    async for entry in ledger.entries((state,)):
        if not rows or entry.row in rows:
            found.add(entry)
    return found


async def _confirm(found: _Found, decision: Decision, *, yes: bool) -> None:
    """Say what the decision may lead to at worst, and ask."""
    at_worst = {
        "resend": f"copies of the message that each gets: {found.copies + 1}",
        "skip": "none of them ever gets the message",
    }
    worst = f"{console.many(found.number, 'row')}; at worst, {at_worst[decision]}"
    console.say(worst)
    if not yes:
        await ask("Do it?", worst)
