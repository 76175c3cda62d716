"""The delay before the next connection: the rule alone, with the time as numbers."""

from __future__ import annotations

import pytest

from asyncsmtp.client.pool.session_slots import FIRST_DELAY, MAX_DELAY, Backoff


def test_at_first_there_is_nothing_to_wait_for() -> None:
    assert Backoff().delay(0.0) == 0.0


def test_the_pauses_double_and_are_capped() -> None:
    """RE-04."""
    made, now, pauses = Backoff(), 0.0, []
    for _ in range(40):
        made.started(now)
        made.failed(now)
        pauses.append(made.delay(now))
        now += pauses[-1] + 0.001
    assert pauses[:3] == pytest.approx([FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY])
    assert pauses[-1] == pytest.approx(MAX_DELAY)


def test_connections_that_fail_together_count_once() -> None:
    """Or eight sessions of a pool would be eight failures."""
    made = Backoff()
    for _ in range(8):
        made.started(1.0)
    for _ in range(8):
        made.failed(2.0)
    assert made.delay(2.0) == pytest.approx(FIRST_DELAY)


def test_an_accepted_message_resets_it() -> None:
    made = Backoff()
    made.failed(1.0)
    made.reset()
    assert made.delay(1.0) == 0.0
