"""MailOptions: each is encoded as its RFC demands, or refused when it is made."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import InvalidArgument
from asyncsmtp.protocol.commands import mail, rcpt
from asyncsmtp.protocol.envelope import ByMode, DeliverBy, Mailbox, MailOptions, Notify, RcptOptions, Ret, ValidSince

ANN, ZOE = Mailbox.parse("ann+x=1@example.org"), Mailbox.parse("zoë@example.org")
NOON = datetime(2031, 5, 6, 12, 0, 7, 999, tzinfo=UTC)
MSK = timezone(timedelta(hours=3))


@pytest.mark.parametrize(
    ("mail_options", "said"),
    [
        (MailOptions(), []),
        (MailOptions(ret=Ret.FULL), [("DSN", "RET", "FULL")]),
        (MailOptions(ret=Ret.HDRS), [("DSN", "RET", "HDRS")]),
        (MailOptions(envid="QQ314159"), [("DSN", "ENVID", "QQ314159")]),
        (MailOptions(envid="a b+c=d"), [("DSN", "ENVID", "a+20b+2Bc+3Dd")]),
        (MailOptions(require_tls=True), [("REQUIRETLS", "REQUIRETLS", None)]),
        (MailOptions(deliver_by=DeliverBy(120)), [("DELIVERBY", "BY", "120;R")]),
        (MailOptions(deliver_by=DeliverBy(120, ByMode.NOTIFY, trace=True)), [("DELIVERBY", "BY", "120;NT")]),
        (MailOptions(deliver_by=DeliverBy(-1, ByMode.NOTIFY)), [("DELIVERBY", "BY", "-1;N")]),
        (MailOptions(hold_for=86400), [("FUTURERELEASE", "HOLDFOR", "86400")]),
        (MailOptions(hold_until=NOON), [("FUTURERELEASE", "HOLDUNTIL", "2031-05-06T12:00:07Z")]),
        (MailOptions(hold_until=NOON.astimezone(MSK)), [("FUTURERELEASE", "HOLDUNTIL", "2031-05-06T12:00:07Z")]),
        (MailOptions(priority=-9), [("MT-PRIORITY", "MT-PRIORITY", "-9")]),
        (MailOptions(priority=0), [("MT-PRIORITY", "MT-PRIORITY", "0")]),
        (MailOptions(priority=9), [("MT-PRIORITY", "MT-PRIORITY", "9")]),
        (MailOptions(auth="<>"), [("AUTH", "AUTH", "<>")]),
        (MailOptions(auth=ANN), [("AUTH", "AUTH", "ann+2Bx+3D1@example.org")]),
        (MailOptions(auth=ZOE), [("AUTH", "AUTH", "zo+C3+AB@example.org")]),
        (
            MailOptions(Ret.HDRS, "e", True, DeliverBy(1), 2, None, 3, "<>"),
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
def test_each_mail_option_names_its_extension(
    mail_options: MailOptions, said: list[tuple[str, str, str | None]]
) -> None:
    """RFC 3461, 8689, 2852, 4865, 6710 and 4954 §5."""
    assert list(mail_options) == said


@pytest.mark.parametrize(
    ("mail_options", "said"),
    [
        (RcptOptions(), []),
        (RcptOptions(Notify.NEVER), [("DSN", "NOTIFY", "NEVER")]),
        (RcptOptions(Notify.DELAY), [("DSN", "NOTIFY", "DELAY")]),
        (RcptOptions(Notify.FAILURE | Notify.SUCCESS), [("DSN", "NOTIFY", "SUCCESS,FAILURE")]),
        (RcptOptions(~Notify.NEVER), [("DSN", "NOTIFY", "SUCCESS,FAILURE,DELAY")]),
        (RcptOptions(orcpt=ANN), [("DSN", "ORCPT", "rfc822;ann+2Bx+3D1@example.org")]),
        (RcptOptions(orcpt=ZOE), [("DSN", "ORCPT", r"utf-8;zo\x{EB}@example.org")]),
        (RcptOptions(orcpt="x400;/G=Ann/C=gb/"), [("DSN", "ORCPT", "x400;/G+3DAnn/C+3Dgb/")]),
        (RcptOptions(orcpt="rfc822;no constraint; at all"), [("DSN", "ORCPT", "rfc822;no+20constraint;+20at+20all")]),
        (RcptOptions(orcpt="UTF-8;例@example.org"), [("DSN", "ORCPT", r"UTF-8;\x{4F8B}@example.org")]),
        (RcptOptions(valid_since=ValidSince(NOON)), [("RRVS", "RRVS", "2031-05-06T12:00:07Z")]),
        (RcptOptions(valid_since=ValidSince(NOON, True)), [("RRVS", "RRVS", "2031-05-06T12:00:07Z;C")]),
        (RcptOptions(valid_since=ValidSince(NOON, False)), [("RRVS", "RRVS", "2031-05-06T12:00:07Z;R")]),
    ],
)
def test_each_rcpt_option_names_its_extension(
    mail_options: RcptOptions, said: list[tuple[str, str, str | None]]
) -> None:
    """RFC 3461 §4.1 and §4.2, RFC 6533 §3, RFC 7293; WO-05: `+` and `=` of an address are encoded."""
    assert list(mail_options) == said


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda: MailOptions(envid=""), "not a valid ENVID"),
        (lambda: MailOptions(envid="x" * 101), "not a valid ENVID"),
        (lambda: MailOptions(envid="+" * 34), "not a valid ENVID"),
        (lambda: MailOptions(envid="é"), "not a valid ENVID"),
        (lambda: MailOptions(envid="a\r\nRSET"), "not a valid ENVID"),
        (lambda: MailOptions(envid="a\x00"), "not a valid ENVID"),
        (lambda: MailOptions(envid="a\n"), "not a valid ENVID"),
        (lambda: DeliverBy(0), "not a valid DELIVERBY"),
        (lambda: DeliverBy(-1), "not a valid DELIVERBY"),
        (lambda: DeliverBy(10**9), "not a valid DELIVERBY"),
        (lambda: DeliverBy(-(10**9), ByMode.NOTIFY), "not a valid DELIVERBY"),
        (lambda: MailOptions(hold_for=0), "not a valid hold_for"),
        (lambda: MailOptions(hold_for=10**9), "not a valid hold_for"),
        (lambda: MailOptions(hold_until=datetime(2031, 1, 1)), "give it a time zone"),
        (
            lambda: MailOptions(hold_until=datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))),
            "not a valid time",
        ),
        (lambda: MailOptions(hold_for=1, hold_until=NOON), "exclude each other"),
        (lambda: MailOptions(priority=-10), "not a valid priority"),
        (lambda: MailOptions(priority=10), "not a valid priority"),
        (lambda: MailOptions(auth="ann@example.org"), "auth must be a Mailbox"),  # type: ignore[arg-type]
        (lambda: ValidSince(datetime(2031, 1, 1)), "give it a time zone"),
        (lambda: RcptOptions(Notify(0)), "NOTIFY is NEVER, or one or more"),
        (lambda: RcptOptions(Notify.NEVER | Notify.DELAY), "NOTIFY is NEVER, or one or more"),
        (lambda: RcptOptions(orcpt=""), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="ann@example.org"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="rfc822;"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="utf-8;"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt=";ann@example.org"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="a b;ann@example.org"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="a=b;ann@example.org"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="rfc822;zoë@example.org"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="rfc822;a\r\nRSET"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="utf-8;a\r\nRSET"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="utf-8;\ud800"), "not a valid ORCPT"),
        (lambda: RcptOptions(orcpt="rfc822;" + "x" * 494), "too long"),
        (lambda: RcptOptions(orcpt="rfc822;" + "+" * 165), "too long"),
    ],
)
def test_an_invalid_option_is_refused_when_it_is_made(made: Any, why: str) -> None:
    """WO-01, WO-05: long before a command line; an error with a reason, and a ValueError."""
    with pytest.raises(InvalidArgument, match=why):
        made()


def test_the_longest_values_are_accepted() -> None:
    """RFC 3461 §4.2 and §5.4: on the wire, encoded."""
    assert {key: value for _, key, value in MailOptions(envid="+" * 33)} == {"ENVID": "+2B" * 33}
    (said,) = RcptOptions(orcpt="rfc822;" + "x" * 493)
    assert len(said[2] or "") == 500


def test_only_an_author_beyond_ascii_needs_smtputf8() -> None:
    """RFC 6531: ORCPT has a form of its own for that, in 7 bits."""
    assert [MailOptions(auth=who).needs_smtputf8 for who in (None, "<>", ANN, ZOE)] == [False, False, False, True]


EVERY_WISH = st.builds(
    MailOptions,
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
def test_every_option_fits_a_command_line(mail_options: MailOptions) -> None:
    """WO-01: one line, each parameter once."""
    line = bytes(mail(None, {keyword: value for _, keyword, value in mail_options}))
    assert line.count(b"\r\n") == 1
    assert re.fullmatch(rb"MAIL FROM:<>(?: [A-Z-]+(?:=[!-<>-~]+)?)*\r\n", line)
    assert len(line.split()) == 2 + len(list(mail_options))


@given(st.text(max_size=60).map(lambda text: f"rfc822;{text}") | st.text(max_size=60).map(lambda text: f"utf-8;{text}"))
def test_any_original_recipient_is_one_parameter_or_refused(orcpt: str) -> None:
    """WO-04, WO-05: whatever it is, nothing of it becomes a second parameter or a second line."""
    try:
        ((_, keyword, value),) = RcptOptions(orcpt=orcpt)
    except InvalidArgument:
        return
    line = bytes(rcpt(ANN, {keyword: value}))
    assert line.isascii()
    assert len(line.split(b" ")) == 3
    assert line.count(b"\r\n") == 1
