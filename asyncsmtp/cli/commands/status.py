"""`asyncsmtp status`: how many recipients are in which state, and why."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.cli.campaign.ledgers import Named, named, read
from asyncsmtp.cli.options import campaign_argument, json_option, ledger_option, sandbox_option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.exits import Exit

if TYPE_CHECKING:
    from datetime import datetime

    from asyncsmtp.bulk.states import Counts, State

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp status demo/campaign.toml
"""


@click.command("status", epilog=_EPILOG)
@campaign_argument()
@ledger_option
@sandbox_option
@json_option
def command(campaign: Path | None, ledger: Path | Database | None, sandbox: bool, as_json: bool) -> Exit:
    """Count a campaign's recipients by outcome.

    Also while it runs. With --json: one object, the number of rows by state.
    """
    asyncio.run(_tell(named(campaign, ledger, sandbox=sandbox), as_json=as_json))
    return Exit.ACCEPTED


async def _tell(where: Named, *, as_json: bool) -> None:
    from asyncsmtp.bulk.states import Counts, State
    from asyncsmtp.cli.output.meter import MAX_REASONS
    from asyncsmtp.cli.output.records import reason_of
    from asyncsmtp.errors import LedgerEmpty

    reasons: Counter[tuple[State, str]] = Counter()
    try:
        async with await read(where.place) as ledger:
            counts, due = await ledger.counts(), await ledger.next_due()
            async for entry in ledger.entries((State.DEFERRED, State.REJECTED, State.IN_DOUBT)):
                reason = (entry.state, reason_of(entry))
                if reason in reasons or len(reasons) < MAX_REASONS:
                    reasons[reason] += 1
    except LedgerEmpty:
        counts, due = Counts(), None
    if as_json:
        _as_json(counts)
    else:
        _as_text(where, counts, reasons, due)


def _as_json(counts: Counts) -> None:
    from asyncsmtp.cli.output.records import json_line

    console.out(json_line({str(state): number for state, number in counts.items()}))


def _as_text(where: Named, counts: Counts, reasons: Counter[tuple[State, str]], due: datetime | None) -> None:
    from asyncsmtp.cli.output.summary import counted, next_steps

    if not counts.total:
        console.out("not begun yet")
        console.say("  next: asyncsmtp bulk CAMPAIGN.toml")
        return
    console.out(counted(counts))
    for (state, reason), number in reasons.most_common(10):
        console.out(f"  {number:,} × {state}: {reason}")
    for step in next_steps(counts, where.reference, due):
        console.say(f"  next: {step}")
