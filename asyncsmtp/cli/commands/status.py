"""`asyncsmtp status`: the recipients by state, and the reasons."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import click

from asyncsmtp.cli.options import NamedLedger, json_option, ledger_options, load_campaign, option
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import CommandError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
    from asyncsmtp.bulk.rate_limit.warmup import WarmupDay

__all__ = ["command"]

_EPILOG = """\b
Example:
  asyncsmtp status demo/campaign.toml
"""


@click.command("status", epilog=_EPILOG)
@ledger_options
@option("--workers", is_flag=True, help="Show the workers, of a ledger in PostgreSQL.")
@option(
    "--watch",
    type=click.FloatRange(min=1),
    is_flag=False,
    flag_value=2.0,
    metavar="[SECONDS]",
    help="With --workers: read again and again, with this pause.",
)
@json_option
def command(where: NamedLedger, workers: bool, watch: float | None, as_json: bool) -> ExitCode:
    """Count a campaign's recipients by outcome.

    Also while it runs. With --json: one object, the number of rows by state.
    """
    if watch is not None and not workers:
        raise CommandError("--watch is for --workers", "add --workers, or leave it out")
    if workers:
        from asyncsmtp.cli.commands.workers.show_workers import show_workers  # late: it needs the database's driver

        return asyncio.run(show_workers(where.location, watch=watch, as_json=as_json))
    asyncio.run(_print_status(where, as_json=as_json))
    return ExitCode.ACCEPTED


async def _print_status(where: NamedLedger, *, as_json: bool) -> None:
    from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
    from asyncsmtp.bulk.open_campaign import open_reader
    from asyncsmtp.cli.output.formats import format_json_line, format_reason
    from asyncsmtp.cli.output.run_stats import MAX_REASONS, warmup_lines
    from asyncsmtp.errors import LedgerEmpty

    reasons: Counter[tuple[RowState, str]] = Counter()
    last: dict[str, datetime] = {}  # when each reason was given last
    try:
        async with await open_reader(where.location, where.name) as ledger:
            counts, due = await ledger.counts(), await ledger.next_due()
            by_relay, halted = await ledger.counts_by_relay(), len(await ledger.halted_rows())
            async for entry in ledger.entries((RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT)):
                reason = (entry.state, format_reason(entry))
                if reason in reasons or len(reasons) < MAX_REASONS:
                    reasons[reason] += 1
                    if entry.last_at is not None:
                        last[reason[1]] = max(entry.last_at, last.get(reason[1], entry.last_at))
    except LedgerEmpty:
        counts, due, by_relay, halted = Counts(), None, {}, 0
    if as_json:
        console.print_result(format_json_line({str(state): number for state, number in counts.items()}))
    else:
        _print_text(where, counts, reasons, last, due, by_relay, halted)
        for line in warmup_lines(_read_warmup(where)):
            console.print_info(f"  {line}")


def _read_warmup(where: NamedLedger) -> list[WarmupDay]:
    """Return how far the warm-up of each relay of the campaign is."""
    if where.campaign is None or (config := load_campaign(where.campaign)).warmup is None:
        return []
    if where.location == config.sandbox_ledger:
        return []
    from asyncsmtp.bulk.open_campaign import EnvironmentSecrets, make_relays
    from asyncsmtp.bulk.rate_limit.shared_store import read_warmup_days
    from asyncsmtp.errors import SMTPError

    try:
        relays = make_relays(config, lambda _: EnvironmentSecrets("not needed"))  # no connection is made
        found = [each.relay for each in relays if not isinstance(each.relay, str)]
        return read_warmup_days(config.shared_rates, found, config.warmup.make_warmup())
    except SMTPError as error:
        console.print_warning(f"the warm-up cannot be read: {error}")
        return []


def _print_text(
    where: NamedLedger,
    counts: Counts,
    reasons: Counter[tuple[RowState, str]],
    last: Mapping[str, datetime],
    due: datetime | None,
    by_relay: Mapping[str, Counts],
    halted: int,
) -> None:
    from asyncsmtp.cli.output.provider_advice import explain_reason
    from asyncsmtp.cli.output.run_stats import format_counts, next_steps, relay_lines

    if not counts.total:
        console.print_result("not begun yet")
        if where.bulk:
            console.print_steps([where.bulk])
        return
    console.print_result(format_counts(counts))
    for line in relay_lines(by_relay):
        console.print_result(f"  {line}")
    explained: set[str] = set()
    for (state, reason), number in reasons.most_common(10):
        console.print_result(f"  {number:,} × {state}: {reason}")
        known = explain_reason(reason, where.provider, last.get(reason))
        if known is not None and known.advice not in explained:  # ids differ in each reply, and the advice does not
            explained.add(known.advice)
            console.print_result(f"    {known}")
    console.print_steps(next_steps(counts, where.reference, where.bulk, due, halted=halted))
