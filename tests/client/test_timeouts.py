"""How long to wait for what."""

from __future__ import annotations

from math import inf

import pytest

from asyncsmtp.client.config.relay import Timeouts
from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.commands import Verb

MINIMA = {  # seconds, RFC 5321 §4.5.3.2
    Verb.GREETING: 300,
    Verb.MAIL: 300,
    Verb.RCPT: 300,
    Verb.DATA: 120,
    Verb.CONTENT: 600,
    Verb.BDAT_LAST: 600,
}


@pytest.mark.parametrize(("verb", "seconds"), MINIMA.items())
def test_the_rfcs_minima_are_the_defaults(verb: Verb, seconds: float) -> None:
    assert Timeouts().limit(verb) >= seconds


def test_a_block_of_content_has_three_minutes() -> None:
    assert Timeouts().block == 180


@pytest.mark.parametrize("verb", Verb)
def test_every_command_has_a_limit(verb: Verb) -> None:
    """A command without one could be waited for without end."""
    assert 0 < Timeouts().limit(verb) <= 600


def test_whoever_watches_waits_less_but_not_for_the_dot() -> None:
    """Past the point of no return a shorter limit is bought with duplicates."""
    interactive = Timeouts.interactive()
    assert interactive.limit(Verb.CONTENT) == Timeouts().limit(Verb.CONTENT) == 600
    assert all(interactive.limit(verb) <= Timeouts().limit(verb) for verb in Verb)
    assert interactive.limit(Verb.GREETING) == 30


def test_closing_takes_two_seconds_at_the_most() -> None:
    """TL-09."""
    assert Timeouts().quit + Timeouts().close <= 2


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(0, InvalidArgument), (-1, InvalidArgument), (inf, InvalidArgument), ("5", TypeError), (True, TypeError)],
)
def test_a_timeout_is_a_positive_finite_number(wrong: float, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^quit"):
        Timeouts(quit=wrong)
