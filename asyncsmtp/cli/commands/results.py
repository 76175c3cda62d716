"""`asyncsmtp results`: the outcome of each recipient, for a spreadsheet or for a program."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.cli.options import campaign_argument, find_ledger, ledger_option, option, sandbox_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Entry, LedgerReader, RowState

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
def command(
    campaign: Path | None, ledger: Path | Database | None, sandbox: bool, failed: bool, as_json: bool
) -> ExitCode:
    """Print every recipient's outcome as CSV or NDJSON.

    In the order of the recipients. Cells that a spreadsheet would take for a
    formula begin with an apostrophe, which is taken off again where the file
    is read as recipients; NDJSON has them as they are.
    """
    asyncio.run(_print(find_ledger(campaign, ledger, sandbox=sandbox).location, failed=failed, as_json=as_json))
    return ExitCode.ACCEPTED


async def _print(location: Path | Database, *, failed: bool, as_json: bool) -> None:
    from asyncsmtp.bulk.ledger.interfaces import RowState
    from asyncsmtp.bulk.open_campaign import open_reader

    # Not the suppressed ones: who gets nothing on purpose must not be mailed by way of the next file.
    states = (RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT) if failed else None
    harmless = not as_json and console.is_terminal()  # a file gets its cells as they were, a terminal never
    begun = False
    async with await open_reader(location) as ledger:
        if as_json:
            header, line = _json(failed=failed)
        elif failed:
            header, line = _failed(await _columns(ledger, states))
        else:
            header, line = _all()
        async for entry in ledger.entries(states):
            if not begun and header:
                console.print_result(header, harmless=harmless)
            begun = True
            if not console.print_result(line(entry), harmless=harmless):
                return  # nobody reads on
    if failed and not begun:
        console.print_info("nobody: every row was accepted, is suppressed, or is still to send")


async def _columns(ledger: LedgerReader, states: Iterable[RowState] | None) -> dict[str, None]:
    """Return the columns of all files whose rows are in one of the states, in the order of their first appearance."""
    found: dict[str, None] = {}
    async for entry in ledger.entries(states):
        found |= dict.fromkeys(entry.fields)
    return found


# What is printed first, if anything, and the line of each entry.


def _json(*, failed: bool) -> tuple[str, Callable[[Entry], str]]:
    from asyncsmtp.cli.output.formats import entry_record, format_json_line

    return "", lambda entry: format_json_line(entry_record(entry) | ({"fields": dict(entry.fields)} if failed else {}))


def _failed(columns: dict[str, None]) -> tuple[str, Callable[[Entry], str]]:
    from asyncsmtp.cli.output.formats import failed_row_cells, format_csv_line, outcome_columns

    return format_csv_line((*columns, *outcome_columns(columns))), lambda entry: format_csv_line(
        failed_row_cells(entry, columns)
    )


def _all() -> tuple[str, Callable[[Entry], str]]:
    from asyncsmtp.cli.output.formats import COLUMNS, entry_record, format_csv_line

    return format_csv_line(COLUMNS), lambda entry: format_csv_line(entry_record(entry).values())
