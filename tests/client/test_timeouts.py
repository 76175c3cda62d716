"""How long to wait for what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import fields, replace
from datetime import timedelta
from decimal import Decimal
from math import inf, nan
from typing import Any

import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.config.login_config import Login, Token
from asyncsmtp.client.config.relay import Relay, Timeouts
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import InvalidArgument, TokenFailed
from asyncsmtp.protocol.auth.auth import Secret
from asyncsmtp.protocol.commands import Verb
from asyncsmtp.testing import ScriptedRelay, Stage
from tests.client.support import message, relay_of

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


WRONG: list[tuple[object, type[Exception]]] = [
    (0, InvalidArgument),
    (0.0, InvalidArgument),
    (-1, InvalidArgument),
    (nan, InvalidArgument),
    (inf, InvalidArgument),
    (-inf, InvalidArgument),
    (10**400, InvalidArgument),
    (-(10**5000), InvalidArgument),  # too long to be printed
    ("5", TypeError),
    (b"5", TypeError),
    (None, TypeError),
    (True, TypeError),
    (Decimal(5), TypeError),
    (timedelta(seconds=5), TypeError),
]


WRONG_IDS = [f"{type(wrong).__name__}{number}" for number, (wrong, _) in enumerate(WRONG)]


@pytest.mark.parametrize("name", [each.name for each in fields(Timeouts)])
@pytest.mark.parametrize(("wrong", "error"), WRONG, ids=WRONG_IDS)
def test_a_timeout_is_a_positive_finite_number(name: str, wrong: object, error: type[Exception]) -> None:
    """FT-14: `end=0` sent the message, and then said that it is in doubt."""
    with pytest.raises(error, match=f"^{name}"):
        Timeouts(**{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(error, match=f"^{name}"):
        replace(Timeouts(), **{name: wrong})  # type: ignore[arg-type]


def test_an_int_is_as_good_as_a_float() -> None:
    """FT-14: what is checked at construction is not refused later."""
    assert Timeouts(end=600).limit(Verb.CONTENT) == 600.0
    assert Timeouts(end=10**300).limit(Verb.CONTENT) == 1e300


@pytest.mark.parametrize(("wrong", "error"), WRONG, ids=WRONG_IDS)
@pytest.mark.parametrize(
    "make",
    [
        lambda wrong: Pool("smtp://h", wait=wrong),
        lambda wrong: Pool("smtp://h", idle=wrong),
        lambda wrong: Pool("smtp://h", age=wrong),
        lambda wrong: Pool("smtp://h", sessions=wrong),
        lambda wrong: Retry(max_delay=wrong),
        lambda wrong: Retry(give_up_after=wrong),
        lambda wrong: Token(Secret("t"), wrong),
        lambda wrong: Relay("h", window=wrong),
    ],
    ids=["wait", "idle", "age", "sessions", "max_delay", "give_up_after", "expires_in", "window"],
)
def test_so_is_every_other_duration_and_number(
    make: Callable[[Any], object], wrong: object, error: type[Exception], request: pytest.FixtureRequest
) -> None:
    """FT-14: a NaN compares with nothing: a token would never be renewed, a session never end."""
    name = request.node.callspec.id.partition("-")[0]
    if (wrong == 0 and name in ("wait", "max_delay", "give_up_after", "expires_in")) or (
        (wrong == inf and name in ("idle", "age", "expires_in")) or (wrong is None and name == "wait")
    ):
        make(wrong)  # at once, for ever, and no limit are valid there
        return
    if name in ("sessions", "window") and isinstance(wrong, float):
        error = TypeError  # a count
    with pytest.raises(error, match=name):
        make(wrong)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(nan, InvalidArgument), (inf, InvalidArgument), (10**400, InvalidArgument), ("5", TypeError), (True, TypeError)],
    ids=["nan", "inf", "huge", "str", "bool"],
)
async def test_so_are_the_arguments_of_a_call(wrong: Any, error: type[Exception]) -> None:
    """FT-14: nothing is sent before they are looked at."""
    async with ScriptedRelay() as server, Session(relay_of(server)) as session, Pool(relay_of(server)) as pool:
        calls: list[tuple[str, Callable[[], Awaitable[object]]]] = [
            ("seconds", lambda: pool.drain(wrong)),
            ("deadline", lambda: pool.send(message(), deadline=wrong)),
            ("deadline", lambda: session.send(message(), deadline=wrong)),
            ("deadline", lambda: send(message(), relay=relay_of(server), deadline=wrong)),
        ]
        for name, call in calls:
            with pytest.raises(error, match=name):
                await call()
        assert server.count_stage(Stage.MAIL) == 0


async def test_a_source_of_tokens_that_returns_something_else_is_named() -> None:
    """FT-14: the expiry of OAuth's JSON is a number; nothing foreign reaches the sender."""
    for wrong in (None, b"token", 5, lambda: Token(Secret("t"), "3600")):  # type: ignore[arg-type]

        async def fetch(wrong: Any = wrong) -> Any:
            return wrong() if callable(wrong) else wrong

        async with ScriptedRelay(users={"ann": "t"}, mechanisms=["OAUTHBEARER"]) as server:
            relay = relay_of(server, login=Login("ann", token=fetch), cleartext_login=True)
            with pytest.raises(TokenFailed, match="must be"):
                await Session(relay).connect()
