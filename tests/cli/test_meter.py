"""Counting a run: the numbers on the line are true."""

from __future__ import annotations

import pytest

from asyncsmtp.cli.output.run_stats import MAX_REASONS, RunStats, format_clock
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
    """Rate, time left, and each outcome, also those that did not occur."""
    clock = Clock()
    meter = RunStats(3000, clock)
    clock.now += 2
    for _ in range(1000):
        meter.count(Outcome.ACCEPTED)
    meter.count(Outcome.REJECTED, "550 no")
    expected = "1,001 of 3,000 · 500/s · 0:00:04 left · 1,000 accepted · 0 deferred · 1 rejected · 0 in doubt"
    assert meter.format_line() == expected
    assert meter.format_outcomes(every=False) == "1,000 accepted · 1 rejected"


def test_a_run_that_does_not_move_says_so() -> None:
    """No division by nothing, no time left that is a guess."""
    meter = RunStats(10, Clock())
    assert "waiting" in meter.format_line()
    assert meter.format_outcomes(every=False) == "nothing was sent"


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
