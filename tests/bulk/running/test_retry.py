"""BL-20: when a refusal for the moment is tried again, and when that is given up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.running.retry import Retry
from asyncsmtp.errors import InvalidArgument

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
STILL = Retry(jitter=0)


def delays(retry: Retry, attempts: int) -> list[float]:
    """Seconds until the next attempt after each of the first `attempts`."""
    dues = [retry.due(attempt, NOW, Random(1)) for attempt in range(1, attempts + 1)]
    return [(due - NOW).total_seconds() for due in dues if due is not None]


def test_the_delay_doubles_up_to_the_longest() -> None:
    """BL-20: five minutes are what a greylisting relay waits for."""
    assert delays(STILL, 7) == [300, 600, 1200, 2400, 4800, 7200, 7200]


@given(st.builds(Retry, delay=st.floats(0.001, 1e5), longest=st.floats(0, 1e6), jitter=st.floats(0, 1)), st.integers(1))
def test_a_delay_is_never_shorter_than_asked_for_nor_longer_than_the_jitter_allows(retry: Retry, attempt: int) -> None:
    """BL-20: with any number of attempts, also one that no float can take to its power."""
    due = retry.due(attempt, NOW, Random(2))
    assert due is not None
    least = min(retry.delay * 2.0 ** min(attempt - 1, 40), retry.longest)
    assert least - 1e-5 <= (due - NOW).total_seconds() <= least * (1 + retry.jitter) + 1e-5


def test_what_was_refused_together_does_not_come_back_together() -> None:
    """BL-20: a thousand rows refused in one second are spread over a fifth of their delay."""
    random = Random(3)
    dues = {Retry().due(1, NOW, random) for _ in range(1000)}
    assert len(dues) > 990


def test_no_delay_is_the_next_run() -> None:
    assert Retry(delay=0).due(1, NOW) is None


@pytest.mark.parametrize(
    ("retry", "attempt", "age", "over"),
    [
        (Retry(attempts=3), 2, 0, False),
        (Retry(attempts=3), 3, 0, True),
        (Retry(attempts=1), 1, 0, True),
        (Retry(lasting=3600), 50, 3599, False),
        (Retry(lasting=3600), 2, 3600, True),
        (Retry(), 2, 4 * 86400 - 1, False),
    ],
)
def test_an_attempt_is_the_last_by_its_number_or_by_its_age(retry: Retry, attempt: int, age: float, over: bool) -> None:
    """BL-20, T10: never before an attempt that was made when the time was over: a row that slept gets its last one."""
    assert retry.is_over(attempt, NOW - timedelta(seconds=age), NOW) is over


def test_a_row_that_was_never_tried_is_not_too_old() -> None:
    assert not Retry(lasting=0).is_over(1, None, NOW)


@pytest.mark.parametrize("wrong", [{"delay": -1}, {"lasting": -1}, {"longest": -1}, {"jitter": -0.1}, {"attempts": 0}])
def test_times_that_cannot_be_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidArgument, match="give "):
        Retry(**wrong)
