"""`asyncsmtp results`: every recipient's outcome, for a spreadsheet or for a program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.campaign.ledgers import named, read
from asyncsmtp.cli.options import campaign_argument, ledger_option, option, sandbox_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger import Entry, LedgerReader
    from asyncsmtp.bulk.states import State

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp results demo/campaign.toml --failed > failed.csv
"""


@click.command("results", epilog=_EPILOG)
@campaign_argument()
@ledger_option
@sandbox_option
@option("--failed", is_flag=True, help="Rows that failed or wait only: their own columns, why, and when.")
@option("--json", "as_json", is_flag=True, help="NDJSON instead of CSV.")
def command(campaign: Path | None, ledger: Path | Database | None, sandbox: bool, failed: bool, as_json: bool) -> Exit:
    """Print every recipient's outcome as CSV or NDJSON.

    In the order of the recipients. Cells that a spreadsheet would take for a
    formula begin with an apostrophe, which is taken off again where the file
    is read as recipients; NDJSON has them as they are.
    """
    asyncio.run(_print(named(campaign, ledger, sandbox=sandbox).place, failed=failed, as_json=as_json))
    return Exit.ACCEPTED


async def _print(place: Path | Database, *, failed: bool, as_json: bool) -> None:
    from asyncsmtp.bulk.states import State

    # Not the suppressed ones: who gets nothing on purpose must not be mailed by way of the next file.
    states = (State.DEFERRED, State.REJECTED, State.IN_DOUBT) if failed else None
    harmless = not as_json and console.on_terminal()  # a file gets its cells as they were, a terminal never
    begun = False
    async with await read(place) as ledger:
        if as_json:
            header, line = _json(failed=failed)
        elif failed:
            header, line = _failed(await _columns(ledger, states))
        else:
            header, line = _all()
        async for entry in ledger.entries(states):
            if not begun and header:
                console.out(header, harmless=harmless)
            begun = True
            if not console.out(line(entry), harmless=harmless):
                return  # nobody reads on
    if failed and not begun:
        console.say("nobody: every row was accepted, is suppressed, or is still to send")


async def _columns(ledger: LedgerReader, states: Iterable[State] | None) -> dict[str, None]:
    """Those of all the files whose rows are in one of the states, in the order of their first appearance."""
    found: dict[str, None] = {}
    async for entry in ledger.entries(states):
        found |= dict.fromkeys(entry.fields)
    return found


# What is printed first, if anything, and the line of each entry.


def _json(*, failed: bool) -> tuple[str, Callable[[Entry], str]]:
    from asyncsmtp.cli.output.records import json_line, of_entry

    return "", lambda entry: json_line(of_entry(entry) | ({"fields": dict(entry.fields)} if failed else {}))


def _failed(columns: dict[str, None]) -> tuple[str, Callable[[Entry], str]]:
    from asyncsmtp.cli.output.records import beside, csv_line, failed_cells

    return csv_line((*columns, *beside(columns))), lambda entry: csv_line(failed_cells(entry, columns))


def _all() -> tuple[str, Callable[[Entry], str]]:
    from asyncsmtp.cli.output.records import COLUMNS, csv_line, of_entry

    return csv_line(COLUMNS), lambda entry: csv_line(of_entry(entry).values())
