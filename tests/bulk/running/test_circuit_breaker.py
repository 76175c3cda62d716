"""BL-21: a storm of refusals by policy stops the campaign; a relay that refuses some of its recipients does not."""

from __future__ import annotations

from asyncsmtp.bulk.ledger.interfaces import RowState, Settlement
from asyncsmtp.bulk.running.row_sender import MAX_FAILURES, OUTCOME_WINDOW, CircuitBreaker

FINE = Settlement(1, RowState.ACCEPTED, 250, "2.0.0", "ok", "relay.example")
BLOCKED = Settlement(1, RowState.REJECTED, 550, "5.7.1", "your address is blocked", "relay.example")
UNKNOWN = Settlement(1, RowState.REJECTED, 550, "5.1.1", "no such user", "relay.example")
LATER = Settlement(1, RowState.DEFERRED, 451, "4.7.1", "greylisted", "relay.example")
LOST = Settlement(1, RowState.IN_DOUBT, None, None, "the connection was lost")


def halted(*outcomes: Settlement) -> bool:
    breaker = CircuitBreaker()
    for outcome in outcomes:
        breaker.admit(outcome)
    return breaker.error is not None


def test_twenty_refusals_by_policy_of_fifty_are_a_storm() -> None:
    """BL-21: and nineteen are not, nor are twenty among more."""
    assert halted(*[BLOCKED] * MAX_FAILURES)
    assert not halted(*[BLOCKED] * (MAX_FAILURES - 1))
    assert halted(BLOCKED, *[FINE] * (OUTCOME_WINDOW - MAX_FAILURES), *[BLOCKED] * (MAX_FAILURES - 1))
    assert not halted(BLOCKED, *[FINE] * (OUTCOME_WINDOW - MAX_FAILURES + 1), *[BLOCKED] * (MAX_FAILURES - 1))


def test_recipients_that_do_not_exist_or_come_later_are_no_storm() -> None:
    """BL-21: a bad list is the list's fault; greylisting passes."""
    assert not halted(*[UNKNOWN] * 500)
    assert not halted(*[LATER] * 500)


def test_lost_replies_are_a_storm() -> None:
    """BL-05, BL-21: a campaign of doubts is nobody's wish."""
    assert halted(*[LOST] * MAX_FAILURES)


def test_an_open_circuit_breaker_counts_refusals_by_policy_against_no_recipient() -> None:
    """BL-21: and it says what was said, by whom, and how often."""
    breaker = CircuitBreaker()
    assert all(breaker.admit(BLOCKED) for _ in range(MAX_FAILURES))
    assert not breaker.admit(BLOCKED)
    assert breaker.admit(UNKNOWN)
    assert breaker.admit(FINE)
    assert breaker.error is not None
    assert (breaker.error.against, breaker.error.of, breaker.error.host) == (
        MAX_FAILURES,
        MAX_FAILURES,
        "relay.example",
    )
    assert "550 your address is blocked" in str(breaker.error)
