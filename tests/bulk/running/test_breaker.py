"""BL-21: a storm of refusals by policy stops the campaign; a relay that refuses some of its recipients does not."""

from __future__ import annotations

from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.running.breaker import MOST, SPAN, Breaker
from asyncsmtp.bulk.states import State

FINE = Settlement(1, State.ACCEPTED, 250, "2.0.0", "ok", "relay.example")
BLOCKED = Settlement(1, State.REJECTED, 550, "5.7.1", "your address is blocked", "relay.example")
UNKNOWN = Settlement(1, State.REJECTED, 550, "5.1.1", "no such user", "relay.example")
LATER = Settlement(1, State.DEFERRED, 451, "4.7.1", "greylisted", "relay.example")
LOST = Settlement(1, State.IN_DOUBT, None, None, "the connection was lost")


def halted(*outcomes: Settlement) -> bool:
    breaker = Breaker()
    for outcome in outcomes:
        breaker.admits(outcome)
    return breaker.halted is not None


def test_twenty_refusals_by_policy_of_fifty_are_a_storm() -> None:
    """BL-21: and nineteen are not, nor are twenty among more."""
    assert halted(*[BLOCKED] * MOST)
    assert not halted(*[BLOCKED] * (MOST - 1))
    assert halted(BLOCKED, *[FINE] * (SPAN - MOST), *[BLOCKED] * (MOST - 1))
    assert not halted(BLOCKED, *[FINE] * (SPAN - MOST + 1), *[BLOCKED] * (MOST - 1))


def test_recipients_that_do_not_exist_or_come_later_are_no_storm() -> None:
    """BL-21: a bad list is the list's fault; greylisting passes."""
    assert not halted(*[UNKNOWN] * 500)
    assert not halted(*[LATER] * 500)


def test_lost_replies_are_a_storm() -> None:
    """BL-05, BL-21: a campaign of doubts is nobody's wish."""
    assert halted(*[LOST] * MOST)


def test_an_open_breaker_holds_refusals_by_policy_against_nobody() -> None:
    """BL-21: and it says what was said, by whom, and how often."""
    breaker = Breaker()
    assert all(breaker.admits(BLOCKED) for _ in range(MOST))
    assert not breaker.admits(BLOCKED)
    assert breaker.admits(UNKNOWN)
    assert breaker.admits(FINE)
    assert breaker.halted is not None
    assert (breaker.halted.against, breaker.halted.of, breaker.halted.host) == (MOST, MOST, "relay.example")
    assert "550 your address is blocked" in str(breaker.halted)
