"""`asyncsmtp resolve`: decisions of a person about rows that the relay may or may not have."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.options import NamedLedger, ledger_options, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Decision, Entry, Ledger, RowState

__all__ = ["command"]

SHOWN = 20  # rows
STATES = ("in-doubt", "deferred", "rejected")

_EPILOG = """\b
Example:
  asyncsmtp resolve demo/campaign.toml --resend --yes
"""


@click.command("resolve", epilog=_EPILOG)
@ledger_options
@click.option("--resend", "decision", flag_value="resend", help="Send them again with the next run.")
@click.option("--skip", "decision", flag_value="skip", help="Give them up: they count as rejected.")
@option("--row", "rows", type=click.IntRange(min=1), multiple=True, metavar="N", help="This row only; repeatable.")
@option("--state", type=click.Choice(STATES), default="in-doubt", show_default=True, help="Which rows.")
@option("--yes", is_flag=True, help="Do not ask.")
def command(where: NamedLedger, decision: str | None, rows: tuple[int, ...], state: str, yes: bool) -> ExitCode:
    """Decide about recipients in doubt.

    In doubt: the content was sent and the relay's reply never came, so it may
    have the message. Look for the Message-ID in its log first. Without a
    decision, the rows are listed.
    """
    return asyncio.run(_resolve(where, decision, rows, state, yes=yes))


async def _resolve(
    where: NamedLedger, decision: str | None, rows: tuple[int, ...], state: str, *, yes: bool
) -> ExitCode:
    from asyncsmtp.bulk.ledger.interfaces import Decision, RowState
    from asyncsmtp.bulk.open_campaign import reopen_ledger

    chosen = RowState[state.replace("-", "_").upper()]
    async with await reopen_ledger(where.location) as ledger:
        found = await _choose_rows(ledger, chosen, rows)
        if not found.number:
            console.print_info(f"no row is {chosen}" + (" among those named" if rows else ""))
            return ExitCode.ACCEPTED
        found.show(chosen)
        if decision is None:
            command = f"asyncsmtp resolve {where.reference}"
            console.print_info(f"  next: {command} --resend, or --skip; for some only: --row N")
            return ExitCode.SOME_FAILED
        await _confirm(found, Decision(decision), yes=yes)
        changed = await ledger.resolve(Decision(decision), rows or None, (chosen,))
    done = "to be sent again" if decision == "resend" else "given up"
    console.print_info(f"{console.pluralize(changed, 'row')} {done}")
    if decision == "resend":
        console.print_info(f"  next: asyncsmtp bulk {where.reference}")
    return ExitCode.ACCEPTED


class _ChosenRows:
    """Rows of a decision: how many, how often each may have been delivered, and the first few."""

    def __init__(self) -> None:
        self.number = 0
        self.copies = 0
        self.first: list[Entry] = []

    def add(self, entry: Entry) -> None:
        self.number += 1
        self.copies = max(self.copies, entry.doubts)
        if len(self.first) < SHOWN:
            self.first.append(entry)

    def show(self, state: RowState) -> None:
        """List them on stdout."""
        console.print_result(f"{console.pluralize(self.number, 'row')} {state}:")
        for entry in self.first:
            console.print_result(f"  row {entry.row}  {entry.address}  <{entry.message_id}>  {entry.reply}")
        if self.number > len(self.first):
            console.print_result(f"  … and {self.number - len(self.first):,} more")


async def _choose_rows(ledger: Ledger, state: RowState, rows: tuple[int, ...]) -> _ChosenRows:
    found = _ChosenRows()
    async for entry in ledger.entries((state,)):
        if not rows or entry.row in rows:
            found.add(entry)
    return found


async def _confirm(found: _ChosenRows, decision: Decision, *, yes: bool) -> None:
    """Print what the decision may lead to, and ask."""
    at_worst = {
        "resend": f"each recipient may receive up to {console.pluralize(found.copies + 1, 'copy', 'copies')}",
        "skip": "none of them ever receives the message",
    }
    worst = f"{console.pluralize(found.number, 'row')}: {at_worst[decision]}"
    console.print_info(worst)
    if not yes:
        await console.confirm("Do it?", worst)
