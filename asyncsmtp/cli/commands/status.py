"""`asyncsmtp status`: the recipients by state, and the reasons."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.options import NamedLedger, json_option, ledger_options
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode

if TYPE_CHECKING:
    from datetime import datetime

    from asyncsmtp.bulk.ledger.interfaces import Counts, RowState

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp status demo/campaign.toml
"""


@click.command("status", epilog=_EPILOG)
@ledger_options
@json_option
def command(where: NamedLedger, as_json: bool) -> ExitCode:
    """Count a campaign's recipients by outcome.

    Also while it runs. With --json: one object, the number of rows by state.
    """
    asyncio.run(_print_status(where, as_json=as_json))
    return ExitCode.ACCEPTED


async def _print_status(where: NamedLedger, *, as_json: bool) -> None:
    from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
    from asyncsmtp.bulk.open_campaign import open_reader
    from asyncsmtp.cli.output.formats import format_json_line, format_reason
    from asyncsmtp.cli.output.run_stats import MAX_REASONS
    from asyncsmtp.errors import LedgerEmpty

    reasons: Counter[tuple[RowState, str]] = Counter()
    try:
        async with await open_reader(where.location) as ledger:
            counts, due = await ledger.counts(), await ledger.next_due()
            async for entry in ledger.entries((RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT)):
                reason = (entry.state, format_reason(entry))
                if reason in reasons or len(reasons) < MAX_REASONS:
                    reasons[reason] += 1
    except LedgerEmpty:
        counts, due = Counts(), None
    if as_json:
        console.print_result(format_json_line({str(state): number for state, number in counts.items()}))
    else:
        _print_text(where, counts, reasons, due)


def _print_text(
    where: NamedLedger, counts: Counts, reasons: Counter[tuple[RowState, str]], due: datetime | None
) -> None:
    from asyncsmtp.cli.output.run_stats import format_counts, next_steps

    if not counts.total:
        console.print_result("not begun yet")
        console.print_info("  next: asyncsmtp bulk CAMPAIGN.toml")
        return
    console.print_result(format_counts(counts))
    for (state, reason), number in reasons.most_common(10):
        console.print_result(f"  {number:,} × {state}: {reason}")
    for step in next_steps(counts, where.reference, due):
        console.print_info(f"  next: {step}")
