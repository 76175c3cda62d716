"""`asyncsmtp resolve`: decisions of a person about rows that the relay may or may not have."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any

import click

from asyncsmtp.cli.command_line import typed
from asyncsmtp.cli.options import NamedLedger, ledger_options, option, parse_since
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Decision, Entry, Ledger, RowState
    from asyncsmtp.bulk.running.results import RowSelection

__all__ = ["command"]

SHOWN = 20  # rows
STATES = ("in-doubt", "deferred", "rejected")

_EPILOG = """\b
Without --state: rows in doubt; with --code, --enhanced-code or --halted: rejected
ones. A row must meet all conditions.

\b
Example:
  asyncsmtp resolve demo/campaign.toml --resend --yes
"""


def _parse_enhanced_code(text: str) -> str:
    if not re.fullmatch(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}", text):
        raise CommandError(
            f"--enhanced-code: “{safe_text(text, 60)}” is not an enhanced code", "give one such as 5.7.1"
        )
    return text


@click.command("resolve", epilog=_EPILOG)
@ledger_options
@click.option("--resend", is_flag=True, help="Send them again with the next run.")
@click.option("--skip", is_flag=True, help="Give them up: they count as rejected.")
@option("--row", "rows", type=click.IntRange(min=1), multiple=True, metavar="N", help="This row only; repeatable.")
@option("--state", type=click.Choice(STATES), help="Rows in this state.")
@option("--code", "codes", type=click.IntRange(200, 599), multiple=True, metavar="N", help="Reply code, as 550.")
@option("--enhanced-code", "enhanced_codes", type=_parse_enhanced_code, multiple=True, metavar="CODE", help="As 5.7.1.")
@option("--reply", default="", metavar="TEXT", help="TEXT is in the relay's words, or the reason.")
@option("--since", type=parse_since, metavar="TIME", help="Decided since then: a time, or how long ago, as 2h.")
@option("--host", default="", metavar="HOST", help="By this relay.")
@option("--halted", is_flag=True, help="Rejected before a run was halted, as its summary says.")
@option("--yes", is_flag=True, help="Do not ask.")
def command(
    where: NamedLedger, resend: bool, skip: bool, rows: tuple[int, ...], state: str | None, yes: bool, **conditions: Any
) -> ExitCode:
    """Decide about recipients in doubt.

    In doubt: the content was sent and the relay's reply never came, so it may
    have the message. Look for the Message-ID in its log first. Without a
    decision, the rows are listed.
    """
    from asyncsmtp.bulk.running.results import select_rows

    if resend and skip:
        raise CommandError("--resend and --skip exclude each other", "leave one of them out")
    decision = "resend" if resend else "skip" if skip else None
    for name in ("codes", "enhanced_codes"):
        conditions[name] = conditions[name] or None
    selection = select_rows(rows or None, state and state.replace("-", "_"), **conditions)
    return asyncio.run(_resolve(where, decision, selection, yes=yes))


async def _resolve(where: NamedLedger, decision: str | None, selection: RowSelection, *, yes: bool) -> ExitCode:
    from asyncsmtp.bulk.ledger.interfaces import Decision
    from asyncsmtp.bulk.open_campaign import reopen_ledger
    from asyncsmtp.bulk.running.results import RowSelection as Selection
    from asyncsmtp.bulk.running.results import resolve_rows

    state = next(iter(selection.states or ()))
    async with await reopen_ledger(where.location, where.retention, guest=True, name=where.name) as ledger:
        found = await _choose_rows(ledger, selection)
        in_state = Selection(states=selection.states, rows=selection.rows)  # other conditions choose among the named
        named = found if selection.rows is None else await _choose_rows(ledger, in_state)
        if missing := set(selection.rows or ()) - named.rows:
            raise CommandError(await _describe_missing(ledger, min(missing), state), "name rows that are")
        if not found.number:
            console.print_info(f"no row is {state}" + (" among those named" if selection.needs_entries else ""))
            return ExitCode.ACCEPTED
        found.show(state)
        if decision is None:
            console.print_info("  for some only: --row N")
            resend, skip = typed().repeat("--resend"), typed().repeat("--skip")
            console.print_steps([f"send them again: {resend}", f"or: give them up: {skip}"])
            return ExitCode.SOME_FAILED
        await _confirm(found, Decision(decision), yes=yes)
        changed = await resolve_rows(ledger, Decision(decision), selection)
    done = "to be sent again" if decision == "resend" else "given up"
    console.print_info(f"{console.pluralize(changed, 'row')} {done}")
    if decision == "resend":
        console.print_steps([where.bulk or "run the command that began the campaign again"])
    return ExitCode.ACCEPTED


class _ChosenRows:
    """Rows of a decision: how many, how often each may have been delivered, and the first few."""

    def __init__(self) -> None:
        self.number = 0
        self.copies = 0
        self.first: list[Entry] = []
        self.rows: set[int] = set()  # those that were named

    def add(self, entry: Entry, *, named: bool) -> None:
        self.number += 1
        if named:
            self.rows.add(entry.row)
        self.copies = max(self.copies, entry.doubts)
        if len(self.first) < SHOWN:
            self.first.append(entry)

    def show(self, state: RowState) -> None:
        """List them on stdout."""
        console.print_result(f"{console.pluralize(self.number, 'row')} {state}:")
        for entry in self.first:
            kind = f"{entry.kind} " if entry.copy else ""
            console.print_result(f"  row {entry.row}  {kind}{entry.address}  <{entry.message_id}>  {entry.reply}")
        if self.number > len(self.first):
            console.print_result(f"  … and {self.number - len(self.first):,} more")


async def _choose_rows(ledger: Ledger, selection: RowSelection) -> _ChosenRows:
    found = _ChosenRows()
    async for entry in selection.entries(ledger):
        found.add(entry, named=selection.rows is not None)
    return found


async def _describe_missing(ledger: Ledger, row: int, wanted: RowState) -> str:
    """Return why a row that was named is not among those to decide about."""
    async for entry in ledger.entries():
        if entry.row == row:
            return f"row {row} is {entry.state}, not {wanted}: nothing was changed"
    return f"there is no row {row}: nothing was changed"


async def _confirm(found: _ChosenRows, decision: Decision, *, yes: bool) -> None:
    """Print what the decision may lead to, and ask."""
    at_worst = {
        "resend": f"each recipient may receive up to {console.pluralize(found.copies + 1, 'copy', 'copies')}",
        "skip": "none of them ever receives the message",
    }
    worst = f"{console.pluralize(found.number, 'row')}: {at_worst[decision]}"
    console.print_info(worst)
    if not yes:
        await console.confirm("Do it?", worst, "nothing was changed")
