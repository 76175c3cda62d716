"""BL-21, FT-30: a relay that refuses everyone stops the campaign; one that refuses some of its recipients does not."""

from __future__ import annotations

import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.running.circuit_breaker import MAX_FAILURES, OUTCOME_WINDOW, CircuitBreaker
from asyncsmtp.bulk.running.row_sender import InFlight
from tests.bulk.ledger.ledgers import recipient

FINE = Settlement(1, RowState.ACCEPTED, 250, "2.0.0", "ok", "relay.example")
BLOCKED = Settlement(1, RowState.REJECTED, 550, "5.7.1", "your address is blocked", "relay.example")
UNKNOWN = Settlement(1, RowState.REJECTED, 550, "5.1.1", "no such user", "relay.example")
LATER = Settlement(1, RowState.DEFERRED, 451, "4.7.1", "greylisted", "relay.example")
LOST = Settlement(1, RowState.IN_DOUBT, None, None, "the connection was lost")


def admit(breaker: CircuitBreaker, outcome: Settlement, number: int = 1, *, at_mail: bool = False) -> bool:
    """Count the outcome of message `number`, to a domain of its own, when no later one has begun."""
    row = InFlight(Claim(recipient(number, f"reader@d{number}.example"), "id@example.org", 1), number, at_mail=at_mail)
    return breaker.admit(outcome._replace(row=number), row, number)


def halted(*outcomes: Settlement, at_mail: bool = False) -> bool:
    breaker = CircuitBreaker()
    for number, outcome in enumerate(outcomes, 1):
        admit(breaker, outcome, number, at_mail=at_mail)
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
    assert all(admit(breaker, BLOCKED) for _ in range(MAX_FAILURES))
    assert not admit(breaker, BLOCKED)
    assert admit(breaker, UNKNOWN)
    assert admit(breaker, FINE)
    assert breaker.error is not None
    assert (breaker.error.against, breaker.error.of, breaker.error.host) == (
        MAX_FAILURES,
        MAX_FAILURES,
        "relay.example",
    )
    assert "550 your address is blocked" in str(breaker.error)


def refusal(code: int, status: str | None, words: str, host: str = "relay.example") -> Settlement:
    return Settlement(1, RowState.REJECTED, code, status, words, host)


@pytest.mark.parametrize(
    ("code", "status", "is_about_sender"),
    [
        (500, None, True),
        (503, "5.5.1", True),
        (504, None, True),
        (550, "5.5.4", True),
        (550, "5.4.5", True),
        (552, "5.3.1", True),
        (550, "5.1.7", True),
        (553, "5.1.8", True),
        (554, "5.2.252", True),
        (550, "5.7.708", True),
        (550, None, False),
        (513, None, False),
        (505, None, False),
        (550, "5.4.1", False),
        (550, "5.2.2", False),
        (550, "5.2.25", False),
        (550, "5.1.80", False),
        (550, "5.1.1", False),
        (550, "5.1.10", False),
        (550, "5.5.0", False),  # "mailbox unavailable" of Outlook.com
    ],
)
def test_a_code_alone_may_say_that_the_sender_is_meant(code: int, status: str | None, is_about_sender: bool) -> None:
    """FT-30: then two of five are enough, however the relay words it, and though others are accepted in between."""
    outcomes = [refusal(code, status, f"{'no' * n}") if n % 5 < 2 else FINE for n in range(OUTCOME_WINDOW)]
    assert halted(*outcomes) is is_about_sender


def test_any_refusal_of_mail_is_about_the_sender() -> None:
    """FT-30: whatever its code, since no recipient was named."""
    for code, status in ((550, None), (552, None), (550, "5.1.1"), (571, "5.2.1")):
        outcomes = [refusal(code, status, "no" * n) if n % 5 < 2 else FINE for n in range(OUTCOME_WINDOW)]
        assert halted(*outcomes, at_mail=True)


WORDS = [
    "550 relay not permitted",
    "{local}: relaying denied",
    "<{local}@{domain}>: we do not relay for {domain} (id 1tX{n}-0003Fg-Qz)",
    "Quota für heute erschöpft, Vorgang {n}",
    "本日の送信上限に達しました {n}",
    "see https://relay.example/why?id={n} [192.0.2.{n}] Kd8sQx{n}Ab",
]


@pytest.mark.parametrize("words", WORDS)
def test_the_same_words_for_everyone_are_the_relays_in_any_language(words: str) -> None:
    """FT-30: twenty in a row, once addresses and ids are left out."""

    def say(n: int) -> Settlement:
        return refusal(550, None, words.format(local="reader", domain=f"d{n}.example", n=n))

    assert halted(*map(say, range(1, MAX_FAILURES + 1)))
    assert not halted(*map(say, range(1, MAX_FAILURES)))
    assert not halted(*map(say, range(1, MAX_FAILURES)), FINE, *map(say, range(1, MAX_FAILURES)))
    between = [each for n in range(1, MAX_FAILURES + 1) for each in (say(n), UNKNOWN, LATER)]
    assert halted(*between)  # neither says that the relay takes anything


def test_different_words_are_about_recipients() -> None:
    """FT-30: nor do they count if they are all for one domain, or about users that do not exist."""
    names = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho sigma tau ypsilon"
    assert not halted(*[refusal(550, None, f"refused by {name}") for name in names.split()] * 3)
    assert not halted(*[refusal(550, status, "no") for status in ("5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.2.1")] * 20)
    breaker = CircuitBreaker()
    for number in range(1, 500):
        row = InFlight(Claim(recipient(number, f"reader{number}@closed.example"), "id@example.org", 1), number)
        assert breaker.admit(refusal(550, None, "unrouteable")._replace(row=number), row, number)
    assert breaker.error is None


def test_a_message_that_began_before_the_refusals_shows_nothing_about_the_relay_now() -> None:
    """FT-30: ten sessions are slower at accepting a content than at refusing a recipient."""

    def row(number: int) -> InFlight:
        return InFlight(Claim(recipient(number, f"reader@d{number}.example"), "id@example.org", 1), number)

    breaker, begun = CircuitBreaker(), 30
    for number in range(11, 11 + MAX_FAILURES):
        breaker.admit(refusal(550, None, "no")._replace(row=number), row(number), begun)
        if number < 21:
            breaker.admit(FINE, row(number - 10), begun)
    assert breaker.error is not None
    assert breaker.rows == set(range(11, 11 + MAX_FAILURES))


def test_one_relay_that_accepts_says_nothing_about_another() -> None:
    """FT-30: of two relays one refuses all of its half."""
    bad = refusal(550, None, "relay not permitted", "bad.example")
    assert halted(*[bad, FINE] * MAX_FAILURES)


def test_the_rows_of_a_storm_are_known() -> None:
    """FT-31: those of its reason, and neither doubts nor users that do not exist."""
    breaker = CircuitBreaker()
    for number in range(1, 100):
        admit(breaker, (UNKNOWN, BLOCKED, LOST)[number % 3], number)
    assert breaker.error is not None
    assert breaker.rows == {number for number in range(1, 31) if number % 3 == 1}


def test_who_keeps_going_has_every_refusal_recorded() -> None:
    """FT-31: and knows why it would have stopped."""
    breaker = CircuitBreaker(keep_going=True)
    assert all(admit(breaker, BLOCKED, number) for number in range(1, 100))
    assert breaker.error is not None


def test_what_comes_later_counts_among_the_last_fifty() -> None:
    """BL-21: it is an outcome, and not a failure."""
    first, *blocked = [refusal(550, "5.7.1", "no" * number) for number in range(1, MAX_FAILURES + 1)]
    assert halted(first, *[LATER] * (OUTCOME_WINDOW - MAX_FAILURES), *blocked)
    assert not halted(first, *[LATER] * (OUTCOME_WINDOW - MAX_FAILURES + 1), *blocked)


@pytest.mark.parametrize(("kinds", "stops"), [(99, True), (100, False)])
def test_a_hundred_different_refusals_are_remembered(kinds: int, stops: bool) -> None:
    """FT-30: the oldest is forgotten, so that a relay cannot fill the memory with words."""
    same = refusal(550, None, "relay not permitted")
    letters = [f"{first}{second}" for first in "abcdefghij" for second in "klmnopqrst"]
    others = [refusal(550, None, f"refused by {word}") for word in letters[:kinds]]
    assert halted(*[same] * (MAX_FAILURES - 1), *others, same) is stops


def test_a_word_is_what_is_written_as_one() -> None:
    """FT-30: with hyphens and in quotes, small or all in capitals; what has digits or mixed case differs each time."""
    assert halted(*[refusal(550, None, f'"Not-Permitted" HERE, aBc{n} xY') for n in range(MAX_FAILURES)])
    names = ["alpha", "Beta", "GAMMA", "delta-epsilon", "o'zeta"]
    assert not halted(*[refusal(550, None, f"refused: ({names[n % 5]})") for n in range(5 * (MAX_FAILURES - 1))])
