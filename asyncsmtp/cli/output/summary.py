"""The end of a run: what happened, in whose words, what to type next, and the exit code."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from asyncsmtp.cli.durations import spelled
from asyncsmtp.cli.output.console import many
from asyncsmtp.cli.output.exits import Exit
from asyncsmtp.cli.output.meter import duration
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.states import Counts
    from asyncsmtp.cli.output.meter import Meter

__all__ = ["counted", "exit_of", "next_steps", "run_lines"]

REASONS = 5  # of the most frequent refusals are shown


def run_lines(name: str, meter: Meter) -> Iterator[str]:
    """What this run did."""
    took = f", in {duration(meter.seconds)} ({meter.mean_rate:,.0f}/s)" if meter.done else ""
    yield f"{safe_text(name)}: {meter.outcomes(every=bool(meter.done))}{took}"
    for reason, count in meter.reasons.most_common(REASONS):
        yield f"  {count:,} × {safe_text(reason, 300)}"
    if len(meter.reasons) > REASONS:
        yield f"  … and {len(meter.reasons) - REASONS:,} other replies"


def counted(counts: Counts) -> str:
    """`1,000 rows: 996 accepted · 4 rejected`; what does not occur is left out."""
    shown = " · ".join(f"{number:,} {state}" for state, number in counts.items() if number)
    return f"{many(counts.total, 'row')}: {shown}" if shown else "no rows"


def next_steps(
    counts: Counts, reference: str, due: datetime | None = None, now: datetime | None = None
) -> Iterator[str]:
    """What to type next, for what is left.

    Args:
        reference: how the campaign is named on a command line.
        due: when the first of these rows may be tried; None: at once, or not known.
        now: to say how long that is; None: the time it is.
    """
    from asyncsmtp.bulk.states import State

    if counts[State.PENDING]:
        yield f"still to send: {counts[State.PENDING]:,}; {_again(due, now, 'goes on with them')}"
    if counts[State.DEFERRED]:
        yield f"deferred: {counts[State.DEFERRED]:,}; {_again(due, now, 'tries them again')}"
    if counts[State.REJECTED]:
        yield f"who was rejected, and why: asyncsmtp results {reference} --failed"
    if counts[State.IN_DOUBT]:
        yield f"decide about those in doubt: asyncsmtp resolve {reference}"


def _again(due: datetime | None, now: datetime | None, does: str) -> str:
    now = now or datetime.now(UTC)
    if due is None or due <= now:
        return f"the same command {does}"
    wait = spelled((due - now).total_seconds())
    return f"the first is due at {due.astimezone():%H:%M:%S}, in {wait}: the same command then, or now with --wait"


def exit_of(counts: Counts, *, held_up: bool = False) -> Exit:
    """What the whole campaign's state means: 75 where running again helps, else 1 where some failed.

    Args:
        held_up: rows that are pending wait for their time.
    """
    from asyncsmtp.bulk.states import State

    if counts[State.DEFERRED] or (held_up and counts[State.PENDING]):
        return Exit.RUN_AGAIN
    return Exit.SOME_FAILED if counts[State.REJECTED] or counts[State.IN_DOUBT] else Exit.ACCEPTED
