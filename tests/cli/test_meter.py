"""Counting a run: the numbers on the line are true."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
from asyncsmtp.cli.output.run_stats import MAX_REASONS, RunStats, format_clock, format_time, next_steps
from asyncsmtp.protocol.delivery import Outcome


class Clock:
    """Time as the test wants it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """A stall shows at once, and an average over an hour hides it."""
    clock = Clock()
    meter = RunStats(1000, clock)
    for _ in range(20):
        clock.now += 1
        for _ in range(10):
            meter.count(Outcome.ACCEPTED)
        rate = meter.rate
    assert rate == pytest.approx(10)
    clock.now += 60
    assert meter.rate == pytest.approx(0, abs=2)
    assert meter.mean_rate == pytest.approx(200 / 80)


def test_the_line_shows_everything_at_a_glance() -> None:
    """FT-73: what occurred comes first, then how far it is, rate and time left; what did not occur is not there."""
    clock = Clock()
    meter = RunStats(3000, clock)
    clock.now += 2
    for _ in range(1000):
        meter.count(Outcome.ACCEPTED)
    meter.count(Outcome.REJECTED, "550 no")
    assert meter.format_line() == "1,000 accepted · 1 rejected · 1,001 of 3,000 · 500/s · 0:00:04 left"
    assert meter.format_outcomes() == "1,000 accepted · 1 rejected"


def test_a_run_that_does_not_move_says_so() -> None:
    """No division by nothing, no time left that is a guess."""
    meter = RunStats(10, Clock())
    assert "waiting for the relay" in meter.format_line()
    assert meter.format_outcomes() == "nothing was sent"


def test_a_run_without_rows_is_complete() -> None:
    """No division by nothing here either."""
    assert "█ 100 % · waiting" in RunStats(0, Clock()).format_bar(80)
    assert "░   0 % · waiting" in RunStats(10, Clock()).format_bar(80)


def busy_meter() -> RunStats:
    """Everything occurred, and much of it."""
    clock = Clock()
    meter = RunStats(1_000_000, clock)
    meter.counts |= {
        Outcome.ACCEPTED: 499_000,
        Outcome.DEFERRED: 12_345,
        Outcome.REJECTED: 1_234,
        Outcome.IN_DOUBT: 123,
    }
    clock.now += 60
    return meter


@pytest.mark.parametrize("width", [*range(20, 200, 7), 59, 60, 79, 80])
def test_the_bar_fits_the_terminal(width: int) -> None:
    """FT-73: from 60 columns up there is a bar and the per cent; what is in doubt is cut off at no width above that."""
    meter = busy_meter()
    for shown in (meter.format_bar(width), RunStats(0, Clock()).format_bar(width)):
        assert len(shown) < width
        assert " %" in shown
        assert ("█" in shown) == (width >= 60)
    if width >= 60:
        assert re.search(r"123 (in )?doubt", meter.format_bar(width))
    if width >= 110:
        assert "499,000 accepted · 12,345 deferred · 1,234 rejected · 123 in doubt" in meter.format_bar(width)


def test_at_80_columns_a_usual_run_shows_it_all() -> None:
    """FT-73: bar, per cent, what occurred, and the time left; without zeros."""
    clock = Clock()
    meter = RunStats(1000, clock)
    clock.now += 5
    for _ in range(500):
        meter.count(Outcome.ACCEPTED)
    assert meter.format_bar(80) == "██████████░░░░░░░░░░  50 % · 500 accepted · 0:00:05 left · 500 of 1,000 · 100/s"


class Waits:
    """A run, as far as the line asks it."""

    def __init__(self, **state: object) -> None:
        self.is_stopped = self.is_paused = False
        self.waits_until: datetime | None = None
        self.in_progress = 0
        self.__dict__ |= state


NOW = datetime.now(UTC)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ({"is_stopped": True, "in_progress": 7}, "finishing 7 in progress"),
        ({"is_paused": True}, "paused"),
        ({"waits_until": datetime(2031, 2, 3, 4, 5, 6).astimezone()}, "waiting until 2031-02-03 04:05:06"),
        ({"waits_until": NOW}, f"waiting until {NOW.astimezone():%H:%M:%S}"),
        ({"in_progress": 1}, "waiting for the relay"),
        ({"waits_until": NOW, "in_progress": 3}, "waiting for the relay"),
    ],
    ids=["stopped", "paused", "another day", "today", "one in progress", "three in progress"],
)
def test_the_line_says_what_is_waited_for(state: dict[str, object], expected: str) -> None:
    """FT-74: until when, with a date if that is not today; after a stop what is finished, and no time left."""
    meter = RunStats(100, clock := Clock())
    clock.now += 5
    if "is_stopped" in state:
        meter.count(Outcome.ACCEPTED)
    meter.run = Waits(**state)  # type: ignore[assignment]
    assert meter.format_state() == expected
    assert expected in meter.format_line()
    assert expected in meter.format_bar(100)
    assert "left" not in meter.format_line()


def test_a_time_has_a_date_unless_it_is_today() -> None:
    """FT-74: “due at 12:00” was read as today's."""
    now = datetime(2026, 11, 28, 10, 0).astimezone()
    assert format_time(now + timedelta(hours=2), now) == "12:00:00"
    assert format_time(now + timedelta(days=1), now) == "2026-11-29 10:00:00"
    assert format_time(now - timedelta(days=365), now) == "2025-11-28 10:00:00"
    counts = Counts({RowState.DEFERRED: 2})
    [then, wait] = next_steps(counts, "x.toml", "asyncsmtp bulk x.toml", now + timedelta(days=2), now)
    assert then == "deferred: 2; the first is due at 2026-11-30 10:00:00, in 2 d; then: asyncsmtp bulk x.toml"
    assert wait == "or: wait for that: asyncsmtp bulk x.toml --wait"
    for due in (None, now, now - timedelta(seconds=1)):
        assert [*next_steps(counts, "x.toml", "asyncsmtp bulk x.toml", due, now)] == [
            "deferred: 2; go on: asyncsmtp bulk x.toml"
        ]
    assert len([*next_steps(counts, "x.toml", "asyncsmtp bulk x.toml", now + timedelta(seconds=1), now)]) == 2


def test_reasons_are_bounded() -> None:
    """RE-09: a relay that words each refusal differently must not fill the memory."""
    meter = RunStats(1)
    for number in range(MAX_REASONS + 10):
        meter.count(Outcome.REJECTED, f"550 {number}")
    meter.count(Outcome.REJECTED, "550 0")
    assert len(meter.reasons) == MAX_REASONS
    assert meter.reasons["550 0"] == 2


def test_durations_read_as_a_clock() -> None:
    """Hours, minutes, seconds."""
    assert (format_clock(7.4), format_clock(3723)) == ("0:00:07", "1:02:03")


@pytest.mark.parametrize(("before", "after"), [(100, 10), (10, 100), (100, 0)])
def test_what_was_before_the_last_seconds_does_not_count(before: int, after: int) -> None:
    """A relay that gets slower, or faster, shows after five seconds."""
    clock = Clock()
    meter = RunStats(10_000, clock)
    for number in [before] * 20 + [after] * 6:
        clock.now += 1
        for _ in range(number):
            meter.count(Outcome.ACCEPTED)
        rate = meter.rate
    assert rate == pytest.approx(after)


def test_the_rate_of_a_slow_run_is_that_since_the_last_look() -> None:
    """A look that is long ago is the only one there is."""
    clock = Clock()
    meter, rates = RunStats(100, clock), []
    for now in (101, 200, 300):
        clock.now = now
        for _ in range(5):
            meter.count(Outcome.ACCEPTED)
        rates.append(meter.rate)
    assert rates == pytest.approx([5, 5 / 99, 5 / 100])
