"""Wishes: each is said as its RFC writes it, or refused when it is made."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import BadArgument
from asyncsmtp.protocol.commands import mail, rcpt
from asyncsmtp.protocol.mailbox import Mailbox
from asyncsmtp.protocol.wishes import ByMode, DeliverBy, Notify, RecipientWishes, Ret, ValidSince, Wishes

ANN, ZOE = Mailbox.parse("ann+x=1@example.org"), Mailbox.parse("zoë@example.org")
NOON = datetime(2031, 5, 6, 12, 0, 7, 999, tzinfo=UTC)
MSK = timezone(timedelta(hours=3))


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (Wishes(), []),
        (Wishes(ret=Ret.FULL), [("DSN", "RET", "FULL")]),
        (Wishes(ret=Ret.HDRS), [("DSN", "RET", "HDRS")]),
        (Wishes(envid="QQ314159"), [("DSN", "ENVID", "QQ314159")]),
        (Wishes(envid="a b+c=d"), [("DSN", "ENVID", "a+20b+2Bc+3Dd")]),
        (Wishes(require_tls=True), [("REQUIRETLS", "REQUIRETLS", None)]),
        (Wishes(deliver_by=DeliverBy(120)), [("DELIVERBY", "BY", "120;R")]),
        (Wishes(deliver_by=DeliverBy(120, ByMode.NOTIFY, trace=True)), [("DELIVERBY", "BY", "120;NT")]),
        (Wishes(deliver_by=DeliverBy(-1, ByMode.NOTIFY)), [("DELIVERBY", "BY", "-1;N")]),
        (Wishes(hold_for=86400), [("FUTURERELEASE", "HOLDFOR", "86400")]),
        (Wishes(hold_until=NOON), [("FUTURERELEASE", "HOLDUNTIL", "2031-05-06T12:00:07Z")]),
        (Wishes(hold_until=NOON.astimezone(MSK)), [("FUTURERELEASE", "HOLDUNTIL", "2031-05-06T12:00:07Z")]),
        (Wishes(priority=-9), [("MT-PRIORITY", "MT-PRIORITY", "-9")]),
        (Wishes(priority=0), [("MT-PRIORITY", "MT-PRIORITY", "0")]),
        (Wishes(priority=9), [("MT-PRIORITY", "MT-PRIORITY", "9")]),
        (Wishes(auth="<>"), [("AUTH", "AUTH", "<>")]),
        (Wishes(auth=ANN), [("AUTH", "AUTH", "ann+2Bx+3D1@example.org")]),
        (Wishes(auth=ZOE), [("AUTH", "AUTH", "zo+C3+AB@example.org")]),
        (
            Wishes(Ret.HDRS, "e", True, DeliverBy(1), 2, None, 3, "<>"),
            [
                ("DSN", "RET", "HDRS"),
                ("DSN", "ENVID", "e"),
                ("REQUIRETLS", "REQUIRETLS", None),
                ("DELIVERBY", "BY", "1;R"),
                ("FUTURERELEASE", "HOLDFOR", "2"),
                ("MT-PRIORITY", "MT-PRIORITY", "3"),
                ("AUTH", "AUTH", "<>"),
            ],
        ),
    ],
)
def test_each_wish_for_a_message_names_its_extension(wishes: Wishes, said: list[tuple[str, str, str | None]]) -> None:
    """RFC 3461, 8689, 2852, 4865, 6710 and 4954 §5."""
    assert list(wishes) == said


@pytest.mark.parametrize(
    ("wishes", "said"),
    [
        (RecipientWishes(), []),
        (RecipientWishes(Notify.NEVER), [("DSN", "NOTIFY", "NEVER")]),
        (RecipientWishes(Notify.DELAY), [("DSN", "NOTIFY", "DELAY")]),
        (RecipientWishes(Notify.FAILURE | Notify.SUCCESS), [("DSN", "NOTIFY", "SUCCESS,FAILURE")]),
        (RecipientWishes(~Notify.NEVER), [("DSN", "NOTIFY", "SUCCESS,FAILURE,DELAY")]),
        (RecipientWishes(orcpt=ANN), [("DSN", "ORCPT", "rfc822;ann+2Bx+3D1@example.org")]),
        (RecipientWishes(orcpt=ZOE), [("DSN", "ORCPT", r"utf-8;zo\x{EB}@example.org")]),
        (RecipientWishes(orcpt="x400;/G=Ann/C=gb/"), [("DSN", "ORCPT", "x400;/G+3DAnn/C+3Dgb/")]),
        (
            RecipientWishes(orcpt="rfc822;no constraint; at all"),
            [("DSN", "ORCPT", "rfc822;no+20constraint;+20at+20all")],
        ),
        (RecipientWishes(orcpt="UTF-8;例@example.org"), [("DSN", "ORCPT", r"UTF-8;\x{4F8B}@example.org")]),
        (RecipientWishes(valid_since=ValidSince(NOON)), [("RRVS", "RRVS", "2031-05-06T12:00:07Z")]),
        (RecipientWishes(valid_since=ValidSince(NOON, True)), [("RRVS", "RRVS", "2031-05-06T12:00:07Z;C")]),
        (RecipientWishes(valid_since=ValidSince(NOON, False)), [("RRVS", "RRVS", "2031-05-06T12:00:07Z;R")]),
    ],
)
def test_each_wish_for_a_recipient_names_its_extension(
    wishes: RecipientWishes, said: list[tuple[str, str, str | None]]
) -> None:
    """RFC 3461 §4.1 and §4.2, RFC 6533 §3, RFC 7293; WO-05: `+` and `=` of an address are encoded."""
    assert list(wishes) == said


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: Wishes(envid=""), "no ENVID"),
        (lambda: Wishes(envid="x" * 101), "no ENVID"),
        (lambda: Wishes(envid="+" * 34), "no ENVID"),
        (lambda: Wishes(envid="é"), "no ENVID"),
        (lambda: Wishes(envid="a\r\nRSET"), "no ENVID"),
        (lambda: Wishes(envid="a\x00"), "no ENVID"),
        (lambda: Wishes(envid="a\n"), "no ENVID"),
        (lambda: DeliverBy(0), "no time to deliver by"),
        (lambda: DeliverBy(-1), "no time to deliver by"),
        (lambda: DeliverBy(10**9), "no time to deliver by"),
        (lambda: DeliverBy(-(10**9), ByMode.NOTIFY), "no time to deliver by"),
        (lambda: Wishes(hold_for=0), "no time to hold"),
        (lambda: Wishes(hold_for=10**9), "no time to hold"),
        (lambda: Wishes(hold_until=datetime(2031, 1, 1)), "give it a time zone"),
        (lambda: Wishes(hold_until=datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))), "no moment"),
        (lambda: Wishes(hold_for=1, hold_until=NOON), "not both"),
        (lambda: Wishes(priority=-10), "no priority"),
        (lambda: Wishes(priority=10), "no priority"),
        (lambda: Wishes(auth="ann@example.org"), "AUTH= names a Mailbox"),  # type: ignore[arg-type]
        (lambda: ValidSince(datetime(2031, 1, 1)), "give it a time zone"),
        (lambda: RecipientWishes(Notify(0)), "NOTIFY is NEVER, or one or more"),
        (lambda: RecipientWishes(Notify.NEVER | Notify.DELAY), "NOTIFY is NEVER, or one or more"),
        (lambda: RecipientWishes(orcpt=""), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="ann@example.org"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="rfc822;"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="utf-8;"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt=";ann@example.org"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="a b;ann@example.org"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="a=b;ann@example.org"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="rfc822;zoë@example.org"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="rfc822;a\r\nRSET"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="utf-8;a\r\nRSET"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="utf-8;\ud800"), "no ORCPT"),
        (lambda: RecipientWishes(orcpt="rfc822;" + "x" * 494), "too long"),
        (lambda: RecipientWishes(orcpt="rfc822;" + "+" * 165), "too long"),
    ],
)
def test_what_cannot_be_said_is_refused_when_it_is_made(made: Any, why: str) -> None:
    """WO-01, WO-05: long before a command line; an error with a reason, and a ValueError."""
    with pytest.raises(BadArgument, match=why):
        made()


def test_the_longest_that_can_be_said() -> None:
    """RFC 3461 §4.2 and §5.4: on the wire, encoded."""
    assert {key: value for _, key, value in Wishes(envid="+" * 33)} == {"ENVID": "+2B" * 33}
    (said,) = RecipientWishes(orcpt="rfc822;" + "x" * 493)
    assert len(said[2] or "") == 500


def test_only_an_author_beyond_ascii_needs_smtputf8() -> None:
    """RFC 6531: ORCPT has a form of its own for that, in 7 bits."""
    assert [Wishes(auth=who).needs_smtputf8 for who in (None, "<>", ANN, ZOE)] == [False, False, False, True]


EVERY_WISH = st.builds(
    Wishes,
    st.none() | st.sampled_from(Ret),
    st.none() | st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=33),
    st.booleans(),
    st.none() | st.builds(DeliverBy, st.integers(1, 10**9 - 1), st.sampled_from(ByMode), st.booleans()),
    st.none() | st.integers(1, 10**9 - 1),
    st.none(),
    st.none() | st.integers(-9, 9),
    st.none() | st.sampled_from([ANN, "<>"]),
)


@given(EVERY_WISH)
def test_every_wish_fits_a_command_line(wishes: Wishes) -> None:
    """WO-01: one line, each parameter once."""
    line = bytes(mail(None, {keyword: value for _, keyword, value in wishes}))
    assert line.count(b"\r\n") == 1
    assert re.fullmatch(rb"MAIL FROM:<>(?: [A-Z-]+(?:=[!-<>-~]+)?)*\r\n", line)
    assert len(line.split()) == 2 + len(list(wishes))


@given(st.text(max_size=60).map(lambda text: f"rfc822;{text}") | st.text(max_size=60).map(lambda text: f"utf-8;{text}"))
def test_any_original_recipient_is_one_parameter_or_refused(orcpt: str) -> None:
    """WO-04, WO-05: whatever it is, nothing of it becomes a second parameter or a second line."""
    try:
        ((_, keyword, value),) = RecipientWishes(orcpt=orcpt)
    except BadArgument:
        return
    line = bytes(rcpt(ANN, {keyword: value}))
    assert line.isascii()
    assert len(line.split(b" ")) == 3
    assert line.count(b"\r\n") == 1
