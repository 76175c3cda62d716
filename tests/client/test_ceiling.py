"""How many sessions a pool may have: the rules alone, with the time as numbers."""

from __future__ import annotations

from asyncsmtp.client.pool.ceiling import LONGEST, MESSAGES, PATIENCE, Ceiling


def accept(made: Ceiling, number: int, now: float) -> list[int]:
    """Accept so many messages; return what the ceiling became, each time it rose."""
    return [made.sessions for _ in range(number) if made.accepted(now)]


def test_it_is_lowered_to_what_is_open_but_never_to_none() -> None:
    """WI-15: what was lowered before is not raised by a later refusal."""
    made = Ceiling(10)
    made.lower(3, 0.0)
    made.lower(7, 0.0)
    assert made.sessions == 3
    made.lower(0, 0.0)
    assert made.sessions == 1
    assert made.lowered


def test_it_rises_by_one_after_some_messages_and_some_time() -> None:
    """Both: a fast relay is not asked every second, and a slow one is not asked without having worked."""
    made = Ceiling(5)
    made.lower(3, 100.0)
    assert accept(made, 10 * MESSAGES, 100.0 + PATIENCE / 2) == []
    assert accept(made, 1, 100.0 + PATIENCE) == [4]
    assert accept(made, MESSAGES - 1, 1e6) == []
    assert accept(made, 1, 1e6) == [5]
    assert not made.lowered
    assert accept(made, 10 * MESSAGES, 1e9) == []


def test_each_try_in_vain_doubles_the_time_until_the_next() -> None:
    """A relay whose limit stands is asked rarely, though never not at all."""
    made, now, pauses = Ceiling(10), 0.0, []
    made.lower(3, now)
    for _ in range(10):
        began = now
        while not accept(made, MESSAGES, now):
            now += PATIENCE
        pauses.append(now - began)
        made.lower(3, now)
    assert pauses[:4] == [PATIENCE, 2 * PATIENCE, 4 * PATIENCE, 8 * PATIENCE]
    assert pauses[-1] == LONGEST


def test_one_that_found_its_room_makes_it_patient_no_longer() -> None:
    made = Ceiling(10)
    made.lower(3, 0.0)
    accept(made, MESSAGES, 1000.0)
    made.lower(3, 1000.0)  # in vain: the next try is after twice the time
    assert accept(made, MESSAGES, 1000.0 + PATIENCE) == []
    assert accept(made, 1, 1000.0 + 2 * PATIENCE) == [4]
    assert accept(made, MESSAGES, 2000.0) == [5]
    assert accept(made, MESSAGES, 2000.0 + PATIENCE) == [6]
