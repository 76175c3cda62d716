"""`asyncsmtp results`: the outcome of each recipient, for a spreadsheet or for a program."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.cli.options import NamedLedger, ledger_options, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import LedgerReader, RowState

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp results demo/campaign.toml --failed > failed.csv
"""


@click.command("results", epilog=_EPILOG)
@ledger_options
@option("--failed", is_flag=True, help="Rows that failed or wait only: their own columns, why, and when.")
@option("--json", "as_json", is_flag=True, help="NDJSON instead of CSV.")
def command(where: NamedLedger, failed: bool, as_json: bool) -> ExitCode:
    """Print every recipient's outcome as CSV or NDJSON.

    In the order of the recipients. Cells that a spreadsheet would take for a
    formula begin with an apostrophe, which is taken off again where the file
    is read as recipients; NDJSON has them as they are. With several relays, their
    counts follow on stderr.
    """
    asyncio.run(_print(where.location, failed=failed, as_json=as_json))
    return ExitCode.ACCEPTED


async def _print(location: Path | Database, *, failed: bool, as_json: bool) -> None:
    from asyncsmtp.bulk.ledger.interfaces import RowState
    from asyncsmtp.bulk.open_campaign import open_reader
    from asyncsmtp.cli.output import formats
    from asyncsmtp.cli.output.run_stats import relay_lines

    # Not the suppressed ones: who gets nothing on purpose must not be mailed by way of the next file.
    states = (RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT) if failed else None
    harmless = not as_json and console.is_terminal()  # a file gets its cells as they were, a terminal never
    begun = False
    async with await open_reader(location) as ledger:
        columns = await _columns(ledger, states) if failed and not as_json else {}
        async for entry in ledger.entries(states):
            if as_json:
                fields = {"fields": dict(entry.fields)} if failed else {}
                line = formats.format_json_line(formats.entry_record(entry) | fields)
            else:
                if not begun:
                    names = (*columns, *formats.outcome_columns(columns)) if failed else formats.COLUMNS
                    console.print_result(formats.format_csv_line(names), harmless=harmless)
                cells = formats.failed_row_cells(entry, columns) if failed else formats.entry_record(entry).values()
                line = formats.format_csv_line(cells)
            begun = True
            if not console.print_result(line, harmless=harmless):
                return  # nobody reads on
        for line in relay_lines(await ledger.counts_by_relay()):
            console.print_info(f"  {line}")
    if failed and not begun:
        console.print_info("nobody: every row was accepted, is suppressed, or is still to send")


async def _columns(ledger: LedgerReader, states: Iterable[RowState] | None) -> dict[str, None]:
    """Return the columns of all files whose rows are in one of the states, in the order of their first appearance."""
    found: dict[str, None] = {}
    async for entry in ledger.entries(states):
        found |= dict.fromkeys(entry.fields)
    return found
