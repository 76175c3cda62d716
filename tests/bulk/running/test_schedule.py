"""Windows of the week, in any time zone, on days with 23 and 25 hours too."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.running.schedule import Schedule, Window
from asyncsmtp.errors import InvalidArgument, RecipientError

VIENNA = ZoneInfo("Europe/Vienna")


def at(text: str, zone: ZoneInfo = VIENNA) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC)


@pytest.mark.parametrize(
    ("window", "now", "opens"),
    [
        ("Mon-Fri 09:00-17:00 Europe/Vienna", "2026-03-02T08:00", "2026-03-02T09:00"),
        ("Mon-Fri 09:00-17:00 Europe/Vienna", "2026-03-02T09:00", "2026-03-02T09:00"),
        ("Mon-Fri 09:00-17:00 Europe/Vienna", "2026-03-02T16:59:59", "2026-03-02T16:59:59"),
        ("Mon-Fri 09:00-17:00 Europe/Vienna", "2026-03-02T17:00", "2026-03-03T09:00"),
        ("Mon-Fri 09:00-17:00 Europe/Vienna", "2026-03-06T17:00", "2026-03-09T09:00"),
        ("fri-mon 09:00-17:00 Europe/Vienna", "2026-03-03T10:00", "2026-03-06T09:00"),
        ("Saturday, sun 10:00-14:00 Europe/Vienna", "2026-03-02T10:00", "2026-03-07T10:00"),
        ("22:00-06:00 Europe/Vienna", "2026-03-02T05:00", "2026-03-02T05:00"),
        ("22:00-06:00 Europe/Vienna", "2026-03-02T06:00", "2026-03-02T22:00"),
        ("Fri 22:00-06:00 Europe/Vienna", "2026-03-07T05:59", "2026-03-07T05:59"),
        ("Fri 22:00-06:00 Europe/Vienna", "2026-03-08T05:00", "2026-03-13T22:00"),
        ("Mon 00:00-24:00 Europe/Vienna", "2026-03-02T23:59", "2026-03-02T23:59"),
        ("Mon 00:00-24:00 Europe/Vienna", "2026-03-03T00:00", "2026-03-09T00:00"),
        ("Sun 01:00-04:00 Europe/Vienna", "2026-03-29T00:30", "2026-03-29T01:00"),  # clocks go forward at 2
        ("Sun 02:30-04:00 Europe/Vienna", "2026-03-29T00:30", "2026-03-29T03:30"),  # there is no 2:30
        ("Sun 01:00-04:00 Europe/Vienna", "2026-10-25T00:30", "2026-10-25T01:00"),  # and back at 3
    ],
)
def test_a_window_opens_by_the_clock_on_the_wall(window: str, now: str, opens: str) -> None:
    assert Window.parse(window).next_opening(at(now)) == at(opens)


@pytest.mark.parametrize(
    "text", ["", "9-17", "Mon", "Xyz 09:00-17:00", "09:00-25:00", "09:61-10:00", "Mon 09:00-17:00 Mars/Base", "\x1b[2J"]
)
def test_what_is_no_window_is_refused_with_what_one_looks_like(text: str) -> None:
    with pytest.raises(InvalidArgument, match="give one such as") as caught:
        Window.parse(text)
    assert "\x1b" not in str(caught.value)


@given(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from(["Mon-Fri 09:00-17:00", "Sat 23:00-01:30"]),
)
def test_a_window_is_open_when_it_says_that_it_opens(now: datetime, text: str) -> None:
    """And never opens in the past."""
    window = Window.parse(f"{text} America/New_York")
    opens = window.next_opening(now.replace(tzinfo=UTC))
    assert opens >= now.replace(tzinfo=UTC)
    assert window.next_opening(opens) == opens


def test_one_of_several_windows_is_enough_and_nothing_begins_before_the_start() -> None:
    windows = tuple(map(Window.parse, ["Mon 09:00-10:00 UTC", "Tue 09:00-10:00 UTC"]))
    now = datetime(2026, 3, 2, 10, tzinfo=UTC)
    assert Schedule(windows).next_opening(now) == datetime(2026, 3, 3, 9, tzinfo=UTC)
    assert Schedule(windows, datetime(2026, 3, 4, tzinfo=UTC)).next_opening(now) == datetime(2026, 3, 9, 9, tzinfo=UTC)
    assert Schedule().next_opening(now) == now


def test_a_recipient_s_own_zone_decides() -> None:
    schedule = Schedule((Window.parse("09:00-17:00"),), zone_column="tz")
    now = datetime(2026, 3, 2, 8, 30, tzinfo=UTC)
    assert schedule.next_opening(now, {"tz": "Europe/Vienna"}) == now
    assert schedule.next_opening(now, {"tz": " America/New_York "}) == datetime(2026, 3, 2, 14, tzinfo=UTC)
    with pytest.raises(RecipientError, match="column tz: “Mars/Base” is not a time zone: give one such as"):
        schedule.next_opening(now, {"tz": "Mars/Base"})
    assert schedule.depends_on_recipient
    assert not Schedule((Window.parse("09:00-17:00 UTC"),), zone_column="tz").depends_on_recipient
