"""Rates that hold: evenly within a minute, counted over longer times, and never freed by a wrong clock."""

from __future__ import annotations

from bisect import bisect_left

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.rate_limit.rate import QUOTA_PARTS, IntervalLimiter, LimiterGroup, Quota, Rate
from asyncsmtp.errors import InvalidArgument


@pytest.mark.parametrize(
    ("text", "count", "seconds", "again"),
    [
        ("30/s", 30, 1, "30/s"),
        ("10/min", 10, 60, "10/min"),
        ("10 / Minute", 10, 60, "10/min"),
        ("500/h", 500, 3600, "500/h"),
        ("2000/day", 2000, 86400, "2000/day"),
        ("100_000 per day", 100000, 86400, "100000/day"),
        ("1.5/s", 1.5, 1, "1.5/s"),
        ("20/10s", 20, 10, "20/10 s"),
        ("3/2hours", 3, 7200, "3/7200 s"),
    ],
)
def test_a_rate_is_read_as_people_type_it(text: str, count: float, seconds: float, again: str) -> None:
    text = text.replace(" / ", "/")
    rate = Rate.parse(text)
    assert (rate.count, rate.seconds, str(rate)) == (count, seconds, again)


@pytest.mark.parametrize("text", ["", "30", "30/", "/s", "30/fortnight", "-1/s", "0/s", "1/0s", "30/s\x1b[31m", "٣/s"])
def test_what_is_no_rate_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(InvalidArgument, match="give ") as caught:
        Rate.parse(text)
    assert "\x1b" not in str(caught.value)


def test_several_rates_hold_together() -> None:
    assert list(map(str, Rate.parse_all("30/s, 2000/day"))) == ["30/s", "2000/day"]


def begun(group: LimiterGroup | IntervalLimiter, seconds: float, late: float = 0.0) -> list[float]:
    """When messages begin within `seconds`, by a loop that wakes up `late` each time."""
    now, times = 1000.0, []
    while now < 1000 + seconds:
        wait = group.delay(now, now) if isinstance(group, LimiterGroup) else group.delay(now)
        if wait > 0:
            now += wait + late
            continue
        if isinstance(group, LimiterGroup):
            group.take(now, now)
        else:
            group.take(now)
        times.append(now)
    return times


def most_within(times: list[float], seconds: float) -> int:
    return max(bisect_left(times, time + seconds - 1e-9) - place for place, time in enumerate(times))


@pytest.mark.parametrize("late", [0.0, 0.0009, 0.004, 0.03])
def test_fifty_a_second_are_fifty_a_second(late: float) -> None:
    """Within 2 % over a minute, no second with more than 1.2 times its share, however late the loop wakes up."""
    times = begun(IntervalLimiter(1 / 50), 60, late)
    assert abs(len(times) / 60 - 50) <= 1
    assert most_within(times, 1) <= 60


@given(st.integers(1, 50), st.lists(st.floats(0, 5000), max_size=300))
def test_a_quota_is_never_exceeded_in_any_time_of_its_length(most: int, gaps: list[float]) -> None:
    """Whenever messages come; a message that may begin now is one of `most` in the hour that ends now."""
    quota = Quota(Rate(most, 3600))
    now, times = 1e9, []
    for gap in gaps:
        now += gap
        wait = quota.delay(now)
        if not wait:
            quota.take(now)
            times.append(now)
        else:
            assert wait <= 3600 + 3600 / QUOTA_PARTS
            assert not quota.delay(now + wait + 1e-3)  # what it said is true
    assert not times or most_within(times, 3600) <= most


def test_a_quota_goes_on_in_the_next_run() -> None:
    """2000 a day, also when the command is started ten times a day."""
    quota = Quota(Rate(3, 86400))
    for _ in range(3):
        quota.take(1e9)
    again = Quota(Rate(3, 86400), quota.counts())
    assert 86400 <= again.delay(1e9 + 60) + 60 <= 86400 * (1 + 1 / QUOTA_PARTS)


def test_a_clock_that_is_set_back_frees_nothing_and_stops_nothing_for_long() -> None:
    """BL-14: what was counted in the future counts as of now: at most a day is waited for, not a year."""
    quota = Quota(Rate(2, 86400))
    quota.take(1e9)
    quota.take(1e9)
    assert 0 < quota.delay(1e9 - 365 * 86400) <= 86400 * (1 + 1 / QUOTA_PARTS)


def test_the_narrowest_rate_of_a_group_applies() -> None:
    times = begun(LimiterGroup(Rate.parse_all("20/s, 100/h")), 60)
    assert len(times) == 100
    assert most_within(times, 1) <= 23


def test_a_rate_can_be_changed_and_its_counts_stay() -> None:
    group = LimiterGroup(Rate.parse_all("20/s, 100/h"))
    begun(group, 2)
    counted = group.counts()
    group.set_rates(Rate.parse_all("1/s, 100/h"))
    assert group.counts() == counted
    assert len(begun(group, 10)) <= 12
