"""Statistics of a run: counting outcomes, showing progress while it runs, and the summary at its end."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode
from asyncsmtp.cli.output.formats import format_json_line, format_reason, settlement_record
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Claim, Counts, Settlement

__all__ = [
    "MAX_REASONS",
    "RunReporter",
    "RunStats",
    "exit_code_for",
    "format_clock",
    "format_counts",
    "format_duration",
    "next_steps",
    "notify_if_slow",
    "show_progress",
    "summary_lines",
]

RATE_WINDOW = 5.0  # seconds over which the rate is averaged
MAX_REASONS = 1000  # different replies that are counted; a relay that words each one differently is cut there
SHOWN_REASONS = 5  # of the most frequent refusals are shown
BAR_INTERVAL = 0.125  # seconds between two pictures of the bar
LINE_INTERVAL = 5.0  # seconds between two plain lines


class RunStats:
    """Outcomes of a run so far, for a bar, a line and a summary.

    Attributes:
        total: how many recipients this run has to do with.
        counts: recipients by outcome in this run.
        reasons: how often a refusal was worded so.
    """

    def __init__(self, total: int, clock: Callable[[], float] = monotonic) -> None:
        self.total = total
        self.counts = dict.fromkeys(Outcome, 0)
        self.reasons: Counter[str] = Counter()
        self._clock = clock
        self._begun = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._begun, 0)])

    def count(self, outcome: Outcome, reason: str = "", *, again: bool = False) -> None:
        """Count one recipient more; `reason` are the relay's words when it was not accepted.

        Args:
            again: the recipient was counted before, as deferred.
        """
        if again:
            self.counts[Outcome.DEFERRED] -= 1
        self.counts[outcome] += 1
        if reason and (reason in self.reasons or len(self.reasons) < MAX_REASONS):
            self.reasons[reason] += 1

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._begun

    @property
    def rate(self) -> float:
        """Recipients per second over the last seconds."""
        now, done = self._clock(), self.done
        if now - self._marks[-1][0] >= 0.1:
            self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - RATE_WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        return (done - before) / (now - then) if now > then else 0.0

    @property
    def mean_rate(self) -> float:
        """Recipients per second over the whole run."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def seconds_left(self) -> float | None:
        """Return the seconds to go at the present rate; None when nothing moves."""
        rate = self.rate
        return (self.total - self.done) / rate if rate > 0 else None

    def format_outcomes(self, *, every: bool = True) -> str:
        """Return `996 accepted · 2 deferred · 1 rejected · 1 in doubt`; without `every`, those that occurred."""
        shown = {outcome: count for outcome, count in self.counts.items() if every or count}
        return " · ".join(f"{count:,} {outcome}" for outcome, count in shown.items()) or "nothing was sent"

    def format_line(self) -> str:
        """Return the state of the run on one line."""
        left = self.seconds_left()
        wait = f"{format_clock(left)} left" if left is not None else "waiting"
        return f"{self.done:,} of {self.total:,} · {self.rate:,.0f}/s · {wait} · {self.format_outcomes()}"


def format_clock(seconds: float) -> str:
    """Return `0:00:07`, `1:02:03`: hours, minutes, seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


def format_duration(span: float) -> str:
    """Return a number of seconds for people, in its two largest units: `4 min`, `1 h 30 min`, `2 d 4 h`."""
    left = max(0, round(span))
    words = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        number, left = divmod(left, size)
        if number:
            words.append(f"{number} {unit}")
    return " ".join(words[:2]) or "0 s"


_OUTCOME = {RowState.from_outcome(outcome): outcome for outcome in Outcome}


class RunReporter:
    """Counter and printer of each outcome of a run as it is queued for the ledger.

    It never raises: a report that cannot be written is no reason to stop the mails.

    Attributes:
        failed: whether stdout could not be written, so that what was printed is not all.
    """

    def __init__(self, stats: RunStats, *, as_json: bool) -> None:
        self.failed = False
        self._stats = stats
        self._prints = as_json

    def watch(self, claim: Claim, settlement: Settlement) -> None:
        """Count one outcome, and print it for a program."""
        accepted = settlement.state is RowState.ACCEPTED
        self._stats.count(
            _OUTCOME[settlement.state], "" if accepted else format_reason(settlement), again=claim.is_retry
        )
        if self._prints:
            self._print(claim, settlement)

    def _print(self, claim: Claim, settlement: Settlement) -> None:
        try:
            self._prints = console.print_result(format_json_line(settlement_record(claim, settlement)), harmless=False)
        except OSError as error:
            self.failed, self._prints = True, False
            console.print_info(f"stdout cannot be written ({str(error.strerror).lower()}); the run goes on without it")
            console.print_info("  next: the ledger has every outcome: asyncsmtp results CAMPAIGN.toml --json")


# Progress: a bar on a terminal, a plain line every few seconds elsewhere.


@contextmanager
def notify_if_slow(doing: str, seconds: float = 1.0) -> Iterator[None]:
    """Say what is being done, if the block takes longer than `seconds`."""
    later = asyncio.get_running_loop().call_later(seconds, console.print_info, f"{doing} …")
    try:
        yield
    finally:
        later.cancel()


@asynccontextmanager
async def show_progress(stats: RunStats, *, line_interval: float = LINE_INTERVAL) -> AsyncIterator[None]:
    """Show `stats` on stderr until the block ends."""
    if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty():
        interval, draw, finish = _bar(stats)
    else:
        interval, draw, finish = line_interval, lambda: console.print_info(stats.format_line()), lambda: None
    ticker = asyncio.get_running_loop().create_task(_tick(interval, draw), name="asyncsmtp: progress")
    try:
        yield
    finally:
        ticker.cancel()
        await asyncio.gather(ticker, return_exceptions=True)
        finish()


async def _tick(interval: float, draw: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(interval)
        draw()


def _bar(stats: RunStats) -> tuple[float, Callable[[], None], Callable[[], None]]:
    """Make a bar of rich, and below it the line; nothing in it is read as markup."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    bar = Progress(
        BarColumn(bar_width=24),
        TaskProgressColumn(),
        TextColumn("{task.description}", markup=False),
        console=Console(stderr=True, markup=False, highlight=False, emoji=False),
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # a file gets its results itself
    )
    task = bar.add_task(stats.format_line(), total=stats.total)
    bar.start()

    def draw() -> None:
        bar.update(task, completed=stats.done, description=stats.format_line())
        with suppress(OSError):  # the terminal is gone; the run goes on
            bar.refresh()

    def finish() -> None:
        with suppress(OSError):
            bar.stop()

    return BAR_INTERVAL, draw, finish


# The summary: what happened, in the relay's words, what to type next, and the exit code.


def summary_lines(name: str, stats: RunStats) -> Iterator[str]:
    """Yield what this run did."""
    took = f", in {format_clock(stats.seconds)} ({stats.mean_rate:,.0f}/s)" if stats.done else ""
    yield f"{safe_text(name)}: {stats.format_outcomes(every=bool(stats.done))}{took}"
    for reason, count in stats.reasons.most_common(SHOWN_REASONS):
        yield f"  {count:,} × {safe_text(reason, 300)}"
    if len(stats.reasons) > SHOWN_REASONS:
        yield f"  … and {len(stats.reasons) - SHOWN_REASONS:,} other replies"


def format_counts(counts: Counts) -> str:
    """Return `1,000 rows: 996 accepted · 4 rejected`; what does not occur is left out."""
    shown = " · ".join(f"{number:,} {state}" for state, number in counts.items() if number)
    return f"{console.pluralize(counts.total, 'row')}: {shown}" if shown else "no rows"


def next_steps(
    counts: Counts, reference: str, due: datetime | None = None, now: datetime | None = None
) -> Iterator[str]:
    """Yield what to type next, for what is left.

    Args:
        reference: how the campaign is named on a command line.
        due: when the first of these rows may be tried; None: at once, or not known.
        now: to say how long that is; None: the time it is.
    """
    if counts[RowState.PENDING]:
        yield f"still to send: {counts[RowState.PENDING]:,}; {_again(due, now, 'goes on with them')}"
    if counts[RowState.DEFERRED]:
        yield f"deferred: {counts[RowState.DEFERRED]:,}; {_again(due, now, 'tries them again')}"
    if counts[RowState.REJECTED]:
        yield f"who was rejected, and why: asyncsmtp results {reference} --failed"
    if counts[RowState.IN_DOUBT]:
        yield f"decide about those in doubt: asyncsmtp resolve {reference}"


def _again(due: datetime | None, now: datetime | None, does: str) -> str:
    now = now or datetime.now(UTC)
    if due is None or due <= now:
        return f"the same command {does}"
    wait = format_duration((due - now).total_seconds())
    return f"the first is due at {due.astimezone():%H:%M:%S}, in {wait}: the same command then, or now with --wait"


def exit_code_for(counts: Counts, *, held_up: bool = False) -> ExitCode:
    """Return what the whole campaign's state means: 75 where running again helps, else 1 where some failed.

    Args:
        held_up: rows that are pending wait for their time.
    """
    if counts[RowState.DEFERRED] or (held_up and counts[RowState.PENDING]):
        return ExitCode.RUN_AGAIN
    return ExitCode.SOME_FAILED if counts[RowState.REJECTED] or counts[RowState.IN_DOUBT] else ExitCode.ACCEPTED
