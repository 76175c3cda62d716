"""Statistics of a run: counting outcomes, showing progress while it runs, and the summary at its end."""

from __future__ import annotations

import asyncio
import re
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING

from asyncsmtp.bulk.ledger.interfaces import RowState, settlement_record
from asyncsmtp.cli.output import console
from asyncsmtp.cli.output.error_messages import ExitCode
from asyncsmtp.cli.output.formats import format_json_line, format_reason
from asyncsmtp.cli.output.provider_advice import explain_reason
from asyncsmtp.protocol.delivery import Outcome
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.interfaces import Claim, Counts, Settlement
    from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter
    from asyncsmtp.bulk.rate_limit.warmup import WarmupDay
    from asyncsmtp.bulk.running.runner import Run
    from asyncsmtp.errors import SMTPError

__all__ = [
    "MAX_REASONS",
    "RunReporter",
    "RunStats",
    "color_outcomes",
    "draw_bar",
    "exit_code_for",
    "format_clock",
    "format_counts",
    "format_duration",
    "format_time",
    "halted_command",
    "next_steps",
    "notify_if_slow",
    "relay_lines",
    "show_progress",
    "summary_lines",
    "warmup_lines",
]

RATE_WINDOW = 5.0  # seconds over which the rate is averaged
MAX_REASONS = 1000  # different replies that are counted; a relay that words each one differently is cut there
SHOWN_RELAYS = 20
SHOWN_REASONS = 5  # of the most frequent refusals are shown
MIN_BAR_WIDTH = 60  # columns of a terminal that has room for a bar, …
MIN_BAR, MAX_BAR = 8, 24  # … and characters of the bar
SUMMARY_BAR = 48  # characters of the bar below the summary
BAR_INTERVAL = 0.125  # seconds between two pictures of the bar
LINE_INTERVAL = 5.0  # seconds between two plain lines


class RunStats:
    """Outcomes of a run so far, for a bar, a line and a summary.

    Attributes:
        total: how many recipients this run has to do with.
        counts: recipients by outcome in this run.
        reasons: how often a refusal was worded so.
        run: to say what it waits for, or finishes.
        limiters: of its relays, whose warm-up is shown.
    """

    def __init__(self, total: int, clock: Callable[[], float] = monotonic) -> None:
        self.total = total
        self.counts = dict.fromkeys(Outcome, 0)
        self.reasons: Counter[str] = Counter()
        self.run: Run | None = None
        self.limiters: Sequence[SharedLimiter] = ()
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

    def format_outcomes(self) -> str:
        """Return `996 accepted · 2 deferred`: the outcomes that occurred in this run."""
        shown = {outcome: count for outcome, count in self.counts.items() if count}
        return " · ".join(f"{count:,} {outcome}" for outcome, count in shown.items()) or "nothing was sent"

    def format_state(self) -> str:
        """Return what the run does: the time left, or what it waits for, or what it finishes after a stop."""
        run = self.run
        if run is not None and run.is_stopped:
            return f"finishing {run.in_progress:,} in progress"
        if run is not None and run.is_paused:
            return "paused"
        if run is not None and run.waits_until is not None and not run.in_progress:
            return f"waiting until {format_time(run.waits_until)}"
        left = self.seconds_left()
        return f"{format_clock(left)} left" if left is not None else "waiting for the relay"

    def format_warmup(self) -> str:
        """Return how far the warm-up of the relays is; "" if there is none."""
        days = [limiter.warmup for limiter in self.limiters]
        return " · ".join(f"warm-up day {day.day:,}: {day.sent:,} of {day.limit:,}" for day in days if day is not None)

    def format_line(self) -> str:
        """Return the state of the run on one line."""
        outcomes = f"{self.format_outcomes()} · " if self.done else ""
        warmup = f" · {text}" if (text := self.format_warmup()) else ""
        return f"{outcomes}{self.done:,} of {self.total:,} · {self.rate:,.0f}/s · {self.format_state()}{warmup}"

    def format_bar(self, columns: int) -> str:
        """Return the state of the run for a terminal: a bar, the per cent, and what occurred so far.

        What matters less is left out where there is no room for it; below `MIN_BAR_WIDTH` columns that is the bar. The
        last column stays free.
        """
        width, has_bar = columns - 1, columns >= MIN_BAR_WIDTH
        percent = 100 * self.done // self.total if self.total else 100
        text = f"{percent:3} %"
        room = width - (MIN_BAR + 1 if has_bar else 0)
        long = self.format_outcomes() if self.done else ""
        short = " ".join(f"{count} {_SHORT[outcome]}" for outcome, count in self.counts.items() if count)
        outcomes = long if len(text) + 3 + len(long) <= room else short
        counted = f"{self.done:,} of {self.total:,}"
        for part in filter(None, (outcomes, self.format_state(), counted, f"{self.rate:,.0f}/s", self.format_warmup())):
            if len(text) + 3 + len(part) <= room:
                text += f" · {part}"
        if not has_bar:
            return text[: max(0, width)]
        bar = min(MAX_BAR, width - len(text) - 1)
        full = bar * self.done // self.total if self.total else bar
        return f"{'█' * full}{'░' * (bar - full)} {text}"


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


_STATES = {str(state): state for state in RowState}
_SHORT = {Outcome.ACCEPTED: "acc", Outcome.DEFERRED: "def", Outcome.REJECTED: "rej", Outcome.IN_DOUBT: "doubt"}
_OUTCOME = {RowState.from_outcome(outcome): outcome for outcome in Outcome}


class RunReporter:
    """Counter and printer of each outcome of a run as it is queued for the ledger.

    It never raises: a report that cannot be written is no reason to stop the mails.

    Attributes:
        failed: whether stdout could not be written, so that what was printed is not all.
    """

    def __init__(self, stats: RunStats, reference: str, *, as_json: bool) -> None:
        self.failed = False
        self._reference = reference
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
            console.print_warning(
                f"stdout cannot be written ({str(error.strerror).lower()}); the run goes on without it"
            )
            console.print_steps(
                [f"the ledger has every outcome: asyncsmtp results {self._reference} --json"], always=True
            )


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
    """Show `stats` on stderr until the block ends; in the file of --log-file are lines, whatever stderr is."""
    finish: Callable[[], None] = lambda: None  # noqa: E731
    if sys.stderr is not None and not sys.stderr.closed and sys.stderr.isatty() and not console.is_quiet():
        interval, draw, finish = _bar(stats)
        tickers = [_tick(interval, draw), _tick(line_interval, lambda: console.print_log(stats.format_line()))]
    else:
        tickers = [_tick(line_interval, lambda: console.print_info(stats.format_line()))]
    loop = asyncio.get_running_loop()
    tasks = [loop.create_task(each, name="asyncsmtp: progress") for each in tickers]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        finish()


async def _tick(interval: float, draw: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(interval)
        draw()


def _bar(stats: RunStats) -> tuple[float, Callable[[], None], Callable[[], None]]:
    """Make a line of rich that is drawn in place; nothing in it is read as markup.

    It never reaches the last column, so a terminal wraps it only when it is made narrower. Then it takes several lines
    of the terminal, and rich would go back by one: those above are erased before the next picture.
    """
    from rich.console import Console
    from rich.control import Control
    from rich.live import Live
    from rich.segment import ControlType
    from rich.text import Text

    console_ = Console(stderr=True, markup=False, highlight=False, emoji=False)
    drawn = 0  # characters of the last picture

    def picture() -> Text:
        nonlocal drawn
        text = stats.format_bar(console_.width)
        drawn = len(text)
        return Text(text, no_wrap=True, overflow="crop", end="")

    bar = Live(
        console=console_,
        auto_refresh=False,
        transient=True,
        redirect_stdout=sys.stdout is not None and sys.stdout.isatty(),  # a file gets its results itself
    )
    bar.start()

    def draw() -> None:
        with suppress(OSError):  # the terminal is gone; the run goes on
            if (lines := (drawn - 1) // console_.width if drawn else 0) > 0:  # it was made narrower
                up = [(ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)]
                console_.control(Control(*up * lines))
            bar.update(picture(), refresh=True)

    def finish() -> None:
        with suppress(OSError):
            bar.stop()

    return BAR_INTERVAL, draw, finish


# The summary: what happened, in the relay's words, what to type next, and the exit code.


def summary_lines(name: str, stats: RunStats, provider: str | None = None) -> Iterator[str]:
    """Yield what this run did, with what the provider means by its refusals."""
    took = f", in {format_clock(stats.seconds)} ({stats.mean_rate:,.0f}/s)" if stats.done else ""
    yield f"{safe_text(name)}: {stats.format_outcomes()}{took}"
    explained: set[str] = set()
    for reason, count in stats.reasons.most_common(SHOWN_REASONS):
        yield f"  {count:,} × {safe_text(reason, 300)}"
        known = explain_reason(reason, provider)
        if known is not None and known.advice not in explained:  # ids differ in each reply, and the advice does not
            explained.add(known.advice)
            yield f"    {known}"
    if len(stats.reasons) > SHOWN_REASONS:
        yield f"  … and {len(stats.reasons) - SHOWN_REASONS:,} other replies"


def format_counts(counts: Counts) -> str:
    """Return `1,000 rows: 996 accepted · 4 rejected`, of the whole campaign; what does not occur is left out."""
    shown = " · ".join(f"{number:,} {state}" for state, number in counts.items() if number)
    return f"{console.pluralize(counts.total, 'row')}: {shown}" if shown else "no rows"


_STATE_COLORS = {
    "accepted": "green",
    "deferred": "yellow",
    "rejected": "red",
    "in doubt": "magenta",
    "suppressed": "blue",
    "pending": "bright_black",
    "sending": "bright_black",
}
_COUNTED = re.compile(rf"(?<![\w.,])[\d,]+ ({'|'.join(_STATE_COLORS)})\b")


def color_outcomes(line: str) -> Iterator[tuple[str, str]]:
    """Yield the parts of a line with counts, and the color of each; "" of what is no count."""
    end = 0
    for found in _COUNTED.finditer(line):
        yield line[end : found.start()], ""
        yield found[0], _STATE_COLORS[found[1]]
        end = found.end()
    yield line[end:], ""


def draw_bar(counts: Counts, columns: int) -> Iterator[tuple[str, str]]:
    """Yield the parts of a bar with the share of each state; what occurs at all has a character.

    Args:
        columns: of the terminal, of which the last one stays free.
    """
    width, total = max(0, min(SUMMARY_BAR, columns - 3)), counts.total
    numbers = {color: number for state, color in _STATE_COLORS.items() if (number := counts[_STATES[state]])}
    if not total or width < len(numbers):
        return
    lengths = {color: max(1, round(number * width / total)) for color, number in numbers.items()}
    lengths[max(lengths, key=lambda color: lengths[color])] += width - sum(lengths.values())
    yield "  ", ""
    for color, length in lengths.items():
        yield "█" * length, color


def relay_lines(by_relay: Mapping[str, Counts], failed: Mapping[str, SMTPError] | None = None) -> Iterator[str]:
    """Yield the counts of each relay that answered, where there are several, and the relays that cannot be used."""
    failed = failed or {}
    if len(by_relay.keys() | failed.keys()) < 2:
        return
    for host, counts in [*by_relay.items()][:SHOWN_RELAYS]:
        shown = " · ".join(f"{number:,} {state}" for state, number in counts.items() if number)
        yield f"by {safe_text(host, 100)}: {shown}"
    if len(by_relay) > SHOWN_RELAYS:
        yield f"… and by {len(by_relay) - SHOWN_RELAYS:,} other relays"
    for host, error in failed.items():
        yield f"{safe_text(host, 100)} cannot be used: {safe_text(str(error), 300)}"


def warmup_lines(days: Sequence[WarmupDay], now: datetime | None = None) -> Iterator[str]:
    """Yield how far the warm-up of each relay is, and when it goes on."""
    for day in days:
        which = f" of {safe_text(day.relay, 100)}" if len(days) > 1 else ""
        goes_on = "" if day.left else f", goes on at {format_time(day.resumes_at, now)}"
        yield f"warm-up{which}: day {day.day:,}, {day.sent:,} of {day.limit:,} sent today{goes_on}"


def next_steps(
    counts: Counts,
    reference: str,
    again: str,
    due: datetime | None = None,
    now: datetime | None = None,
    *,
    may_wait: bool = True,
    halted: int = 0,
) -> Iterator[str]:
    """Yield what to type next, for what is left; what is a command ends its line.

    Args:
        reference: the words that lead to the ledger on a command line.
        again: the command that goes on with the campaign; "" where it is not known.
        due: when the first of these rows may be tried; None: at once, or not known.
        now: to say how long that is; None: the time it is.
        may_wait: `--wait` can be added to the command.
        halted: rows that were rejected before a run was halted.
    """
    if halted:
        rows = f"{console.pluralize(halted, 'row')} rejected before the run was halted"
        yield f"when the cause is put right, make the {rows} pending again: {halted_command(reference)}"
    left = {"still to send": counts[RowState.PENDING], "deferred": counts[RowState.DEFERRED]}
    if what := " · ".join(f"{name}: {number:,}" for name, number in left.items() if number):
        now = now or datetime.now(UTC)
        again = again or "run the command that began the campaign again"
        if due is None or due <= now:
            yield f"{what}; go on: {again}"
        else:
            wait = format_duration((due - now).total_seconds())
            yield f"{what}; the first is due at {format_time(due, now)}, in {wait}; then: {again}"
            if may_wait and again.startswith("asyncsmtp "):
                yield f"or: wait for that: {again} --wait"
    if counts[RowState.REJECTED]:
        yield f"who was rejected, and why: asyncsmtp results {reference} --failed"
    if counts[RowState.IN_DOUBT]:
        yield f"decide about those in doubt: asyncsmtp resolve {reference}"


def format_time(time: datetime, now: datetime | None = None) -> str:
    """Return a time of this machine's zone, with its date unless it is today."""
    try:
        here = time.astimezone()
    except OverflowError:  # at the end of time
        here = time
    is_today = here.date() == (now or datetime.now(UTC)).astimezone().date()
    return f"{here:%H:%M:%S}" if is_today else f"{here:%Y-%m-%d %H:%M:%S}"


def halted_command(reference: str) -> str:
    """Return the command that makes the rows pending that were rejected before a run was halted, and no others."""
    return f"asyncsmtp resolve {reference} --resend --halted --yes"


def exit_code_for(counts: Counts, *, relay_failed: bool = False) -> ExitCode:
    """Return what the whole campaign's state means: 75 where running again helps, else 1 where some failed.

    0 only when everybody was accepted: rows that were not tried, whatever the reason, are left for another run.

    Args:
        relay_failed: one of several relays cannot be used, which somebody should know even if all were accepted.
    """
    if counts[RowState.DEFERRED] or counts[RowState.PENDING]:
        return ExitCode.RUN_AGAIN
    if relay_failed:
        return ExitCode.UNREACHABLE
    return ExitCode.SOME_FAILED if counts[RowState.REJECTED] or counts[RowState.IN_DOUBT] else ExitCode.ACCEPTED
