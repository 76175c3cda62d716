"""Times and counts as the command reads and shows them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
from asyncsmtp.cli.command_line import CommandLine
from asyncsmtp.cli.options import parse_since
from asyncsmtp.cli.output.error_messages import CommandError
from asyncsmtp.cli.output.run_stats import SHOWN_RELAYS, format_counts, format_time, relay_lines
from asyncsmtp.errors import ConnectFailed


@pytest.mark.parametrize("hours", range(1, 24, 4))
def test_a_time_without_a_date_is_of_the_last_24_hours(hours: int) -> None:
    """That of today, or, where it is still to come, that of yesterday."""
    now = datetime.now().astimezone()
    found = parse_since(f"{now - timedelta(hours=hours):%H:%M:%S}")
    assert timedelta(hours=hours - 1) < now - found < timedelta(hours=hours + 2)


@pytest.mark.parametrize(("text", "ago"), [("2h", 7200), ("1.5s", 1.5), ("3 d", 259_200), ("90m", 5400)])
def test_a_time_may_be_how_long_ago(text: str, ago: float) -> None:
    found = datetime.now().astimezone() - parse_since(text)
    assert ago - 1 <= found.total_seconds() < ago + 60


def test_a_date_may_have_a_zone() -> None:
    assert parse_since("2026-11-28T10:00+01:00") == datetime(2026, 11, 28, 9, tzinfo=UTC)
    assert parse_since("2026-11-28 10:00") == datetime(2026, 11, 28, 10).astimezone()
    for text in ("yesterday", "25:00", "2026-13-01", "-1h", "", "99999999999d"):
        with pytest.raises(CommandError) as caught:
            parse_since(text)
        assert caught.value.failure.advice == 'give one such as "2026-12-01 09:00" or "09:00", or how long ago: 2h'


def test_the_end_of_time_has_a_date_too() -> None:
    """A zone east of Greenwich would be in the year 10000."""
    shown = format_time(datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
    assert shown.endswith(":59:00")
    assert shown.startswith("9999-12-31")


def counts(accepted: int, rejected: int = 0) -> Counts:
    return Counts({RowState.ACCEPTED: accepted, RowState.REJECTED: rejected})


def test_what_does_not_occur_is_not_counted() -> None:
    assert format_counts(counts(1200, 1)) == "1,201 rows: 1,200 accepted · 1 rejected"
    assert format_counts(counts(1)) == "1 row: 1 accepted"
    assert format_counts(counts(0)) == "no rows"
    assert repr(counts(3)) == "Counts(accepted: 3)"


def test_relays_are_shown_where_there_are_several() -> None:
    """One that failed is one of them; of many, the first few and their number."""
    assert list(relay_lines({"one:25": counts(3)})) == []
    assert list(relay_lines({"one:25": counts(3)}, {"one:25": ConnectFailed("gone")})) == []
    assert list(relay_lines({"one:25": counts(3)}, {"two:25": ConnectFailed("gone")})) == [
        "by one:25: 3 accepted",
        "two:25 cannot be used: gone",
    ]
    for more in (0, 1, 2):
        many = {f"r{number}:25": counts(number + 1) for number in range(SHOWN_RELAYS + more)}
        lines = list(relay_lines(many))
        assert lines[:SHOWN_RELAYS] == [f"by r{n}:25: {n + 1:,} accepted" for n in range(SHOWN_RELAYS)]
        assert lines[SHOWN_RELAYS:] == ([f"… and by {more} other relays"] if more else [])


def test_without_a_command_there_is_nothing_to_repeat() -> None:
    """A program that uses a function of the command has typed nothing."""
    assert CommandLine(()).repeat() == "asyncsmtp"
