"""The number of sessions that a pool may have: the rules alone, with the time as numbers."""

from __future__ import annotations

from asyncsmtp.client.pool.pool_limits import GROW_DELAY, MAX_GROW_DELAY, MESSAGES_TO_GROW, AdaptivePoolSize


def accept(made: AdaptivePoolSize, number: int, now: float) -> list[int]:
    """Accept so many messages; return the size, each time it grew."""
    return [made.sessions for _ in range(number) if made.accepted(now)]


def test_it_is_lowered_to_what_is_open_but_never_to_none() -> None:
    """WI-15: what was lowered before is not raised by a later refusal."""
    made = AdaptivePoolSize(10)
    made.lower(3, 0.0)
    made.lower(7, 0.0)
    assert made.sessions == 3
    made.lower(0, 0.0)
    assert made.sessions == 1
    assert made.lowered


def test_it_rises_by_one_after_some_messages_and_some_time() -> None:
    """Both: a fast relay is not asked every second, and a slow one is not asked without having worked."""
    made = AdaptivePoolSize(5)
    made.lower(3, 100.0)
    assert accept(made, 10 * MESSAGES_TO_GROW, 100.0 + GROW_DELAY / 2) == []
    assert accept(made, 1, 100.0 + GROW_DELAY) == [4]
    assert accept(made, MESSAGES_TO_GROW - 1, 1e6) == []
    assert accept(made, 1, 1e6) == [5]
    assert not made.lowered
    assert accept(made, 10 * MESSAGES_TO_GROW, 1e9) == []


def test_each_failed_attempt_doubles_the_time_until_the_next() -> None:
    """A relay whose limit stands is asked rarely, though never not at all."""
    made, now, pauses = AdaptivePoolSize(10), 0.0, []
    made.lower(3, now)
    for _ in range(10):
        began = now
        while not accept(made, MESSAGES_TO_GROW, now):
            now += GROW_DELAY
        pauses.append(now - began)
        made.lower(3, now)
    assert pauses[:4] == [GROW_DELAY, 2 * GROW_DELAY, 4 * GROW_DELAY, 8 * GROW_DELAY]
    assert pauses[-1] == MAX_GROW_DELAY


def test_a_session_that_found_room_resets_the_delay() -> None:
    made = AdaptivePoolSize(10)
    made.lower(3, 0.0)
    accept(made, MESSAGES_TO_GROW, 1000.0)
    made.lower(3, 1000.0)  # in vain: the next try is after twice the time
    assert accept(made, MESSAGES_TO_GROW, 1000.0 + GROW_DELAY) == []
    assert accept(made, 1, 1000.0 + 2 * GROW_DELAY) == [4]
    assert accept(made, MESSAGES_TO_GROW, 2000.0) == [5]
    assert accept(made, MESSAGES_TO_GROW, 2000.0 + GROW_DELAY) == [6]
