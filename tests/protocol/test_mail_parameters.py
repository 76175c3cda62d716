"""The parameters that a message needs, and errors for extensions that the relay does not offer."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from asyncsmtp.errors import ExtensionNotSupported, InsecureConnection
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import (
    ByMode,
    DeliverBy,
    Envelope,
    Mailbox,
    MailOptions,
    Notify,
    RcptOptions,
    Ret,
    ValidSince,
)
from asyncsmtp.protocol.replies import Extensions, Reply
from asyncsmtp.protocol.transaction import mail_parameters, rcpt_parameters

PLAIN = Envelope.of("ann@example.org", "bob@example.net")
HELLO = Content.of(b"Subject: hello\r\n\r\n.hi\r\n")
NOON = datetime(2031, 6, 1, 12, tzinfo=UTC)


def offered(*lines: str) -> Extensions:
    return Extensions.parse(Reply(250, (b"relay.example greets you", *map(str.encode, lines))))


def with_options(**mail_options: object) -> Envelope:
    """The plain envelope, with these options."""
    return PLAIN.with_options(MailOptions(**mail_options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lines", "needed"),
    [
        ([], {}),
        (["PIPELINING", "8BITMIME", "SMTPUTF8"], {}),
        (["SIZE"], {"SIZE": "23"}),
        (["SIZE 23"], {"SIZE": "23"}),
        (["SIZE 0"], {"SIZE": "23"}),
    ],
)
def test_a_plain_message_declares_its_size_only(lines: list[str], needed: dict[str, str | None]) -> None:
    """WO-13, W-66: before transparency, and only where SIZE is offered."""
    assert HELLO.size == 23
    assert mail_parameters(PLAIN, HELLO, offered(*lines)) == needed


def test_a_message_beyond_the_limit_is_refused_here() -> None:
    """N-07, WO-13: 22 octets are offered, 23 are needed; nothing is sent."""
    with pytest.raises(ExtensionNotSupported, match="the message has 23 bytes, the relay accepts 22") as refused:
        mail_parameters(PLAIN, HELLO, offered("SIZE 22"))
    assert refused.value.extension == "that SIZE"


EIGHT_BIT = Content.of("Subject: hi\r\n\r\né\r\n")
UTF8 = Content.of("Subject: é\r\n\r\n")
ZOE = Envelope.of("ann@example.org", "zoë@example.net")


@pytest.mark.parametrize(
    ("envelope", "content", "needed"),
    [
        (PLAIN, EIGHT_BIT, {"BODY": "8BITMIME"}),
        (PLAIN, UTF8, {"BODY": "8BITMIME", "SMTPUTF8": None}),
        (ZOE, HELLO, {"SMTPUTF8": None}),
        (Envelope.of(None, "ann@münchen.example"), HELLO, {}),
    ],
)
def test_content_and_addresses_beyond_ascii_are_declared(
    envelope: Envelope, content: Content, needed: dict[str, str | None]
) -> None:
    """WO-12, W-73 and W-76; a domain beyond ASCII needs nothing, it goes in A-labels."""
    assert mail_parameters(envelope, content, offered("8bitmime", "smtputf8")) == needed


@pytest.mark.parametrize(
    ("envelope", "content", "lines", "missing"),
    [
        (PLAIN, EIGHT_BIT, ["SMTPUTF8"], "8BITMIME"),
        (PLAIN, UTF8, ["8BITMIME"], "SMTPUTF8"),
        (ZOE, HELLO, ["8BITMIME"], "SMTPUTF8"),
        (ZOE, EIGHT_BIT, [], "SMTPUTF8"),
        (PLAIN, UTF8, [], "SMTPUTF8"),
        (PLAIN, EIGHT_BIT, [], "8BITMIME"),
    ],
)
def test_a_missing_extension_is_an_error_before_mail(
    envelope: Envelope, content: Content, lines: list[str], missing: str
) -> None:
    """D-29, WO-12, W-74, W-76 and FT-49: no half-open envelope, no raw octets to a relay that takes 7 bits.

    SMTPUTF8 is named before 8BITMIME: encoding the parts would not help.
    """
    with pytest.raises(ExtensionNotSupported) as refused:
        mail_parameters(envelope, content, offered(*lines))
    assert refused.value.extension == missing


@pytest.mark.parametrize(
    ("line", "mail_options", "said"),
    [
        ("DSN", {"ret": Ret.FULL, "envid": "a b"}, {"RET": "FULL", "ENVID": "a+20b"}),
        ("REQUIRETLS", {"require_tls": True}, {"REQUIRETLS": None}),
        ("DELIVERBY", {"deliver_by": DeliverBy(60)}, {"BY": "60;R"}),
        ("FUTURERELEASE 100 2031-06-01T12:00:00Z", {"hold_for": 100}, {"HOLDFOR": "100"}),
        ("FUTURERELEASE 100 2031-06-01T12:00:00Z", {"hold_until": NOON}, {"HOLDUNTIL": "2031-06-01T12:00:00Z"}),
        ("MT-PRIORITY STANAG4406", {"priority": 3}, {"MT-PRIORITY": "3"}),
        ("AUTH PLAIN", {"auth": "<>"}, {"AUTH": "<>"}),
        ("AUTH=PLAIN", {"auth": "<>"}, {"AUTH": "<>"}),
    ],
)
def test_an_option_is_sent_if_offered_and_refused_otherwise(
    line: str, mail_options: dict[str, object], said: dict[str, str | None]
) -> None:
    """TL-14, RFC 3461, 8689, 2852, 4865, 6710, 4954 §5: the error names what is missing."""
    envelope = with_options(**mail_options)
    assert mail_parameters(envelope, HELLO, offered(line), verified=True) == said
    keyword = line.replace("=", " ").split()[0]
    with pytest.raises(ExtensionNotSupported, match="leave the option out") as refused:
        mail_parameters(envelope, HELLO, offered("SIZE", "PIPELINING"), verified=True)
    assert refused.value.extension == keyword
    with pytest.raises(ExtensionNotSupported):
        mail_parameters(envelope, HELLO, offered(line).without([keyword]), verified=True)


def test_all_of_it_at_once() -> None:
    """The order on the line is that of the fields."""
    everything = offered("SIZE", "8BITMIME", "SMTPUTF8", "DSN", "REQUIRETLS", "DELIVERBY", "MT-PRIORITY", "AUTH PLAIN")
    zoe = Mailbox.parse("zoë@example.org")
    envelope = with_options(ret=Ret.HDRS, require_tls=True, deliver_by=DeliverBy(9), priority=0, auth=zoe)
    assert mail_parameters(envelope, EIGHT_BIT, everything, verified=True) == {
        "SIZE": str(EIGHT_BIT.size),
        "BODY": "8BITMIME",
        "SMTPUTF8": None,
        "RET": "HDRS",
        "REQUIRETLS": None,
        "BY": "9;R",
        "MT-PRIORITY": "0",
        "AUTH": "zo+C3+AB@example.org",
    }


def test_tls_is_not_required_of_others_on_a_session_without() -> None:
    """TL-14, RFC 8689 §4.2.1: the session itself is under TLS, its certificate verified, or nothing is sent."""
    with pytest.raises(InsecureConnection, match="REQUIRETLS"):
        mail_parameters(with_options(require_tls=True), HELLO, offered("REQUIRETLS"))


@pytest.mark.parametrize(
    ("line", "mail_options", "why"),
    [
        ("DELIVERBY 240", {"deliver_by": DeliverBy(239)}, "239 s are requested, the relay needs 240"),
        ("FUTURERELEASE 100 2031-06-01T12:00:00Z", {"hold_for": 101}, "the relay holds for 100"),
        (
            "FUTURERELEASE 100 2031-06-01T12:00:00Z",
            {"hold_until": NOON + timedelta(seconds=1)},
            "2031-06-01T12:00:01Z is requested, the relay holds until 2031-06-01T12:00:00Z",
        ),
        (
            "FUTURERELEASE 100 2031-06-01T12:00:00Z",
            {"hold_until": datetime(2031, 6, 1, 12, tzinfo=timezone(-timedelta(hours=1)))},
            "2031-06-01T13:00:00Z is requested",
        ),
    ],
)
def test_more_than_is_offered_is_refused_here(line: str, mail_options: dict[str, object], why: str) -> None:
    """RFC 2852 §2, RFC 4865 §3: the reply to EHLO says how much."""
    with pytest.raises(ExtensionNotSupported, match=why):
        mail_parameters(with_options(**mail_options), HELLO, offered(line))


@pytest.mark.parametrize(
    ("line", "mail_options"),
    [
        ("DELIVERBY 240", {"deliver_by": DeliverBy(240)}),
        ("DELIVERBY 240", {"deliver_by": DeliverBy(1, ByMode.NOTIFY)}),
        ("FUTURERELEASE", {"hold_for": 999_999_999}),
        ("FUTURERELEASE", {"hold_until": NOON + timedelta(days=9999)}),
        ("FUTURERELEASE 100", {"hold_until": NOON}),
        ("FUTURERELEASE 100 never", {"hold_for": 100}),
    ],
)
def test_values_within_the_bounds_are_sent(line: str, mail_options: dict[str, object]) -> None:
    """A bound is for the mode, or the parameter, that it is about."""
    assert len(mail_parameters(with_options(**mail_options), HELLO, offered(line))) == 1


TWO_DOMAINS = Envelope.of(None, ["bob@example.net", "carol@EXAMPLE.net", "dave@example.org"])


@pytest.mark.parametrize(
    ("limits", "why"),
    [
        ("RCPTMAX=2", "the message has 3, the relay accepts 2 at once .RCPTMAX.: send it in parts"),
        ("RCPTDOMAINMAX=1", "the recipients have 2, the relay accepts 1 .RCPTDOMAINMAX.: send the message domain by"),
        ("RCPTMAX=3 RCPTDOMAINMAX=1", "so many domains"),
    ],
)
def test_more_recipients_than_the_relay_takes_are_refused_here(limits: str, why: str) -> None:
    """RFC 9422: the limit is in the error, so that the caller can part the message."""
    with pytest.raises(ExtensionNotSupported, match=why):
        mail_parameters(TWO_DOMAINS, HELLO, offered(f"LIMITS {limits}"))


@pytest.mark.parametrize("limits", ["", " RCPTMAX=3", " RCPTDOMAINMAX=2 RCPTMAX=3", " MAILMAX=1", " RCPTMAX=x"])
def test_messages_within_the_limits_are_sent(limits: str) -> None:
    """RFC 9422: two spellings of a domain are one domain; a limit that is absent is not applied."""
    assert mail_parameters(TWO_DOMAINS, HELLO, offered("LIMITS" + limits)) == {}


BINARY = Content.from_binary(b"Subject: photo\r\n\r\n\x00\n\xff")


def test_binary_content_is_declared() -> None:
    """RFC 3030 §3: BODY=BINARYMIME, in the place of 8BITMIME."""
    lines = ["SIZE", "8BITMIME", "CHUNKING", "BINARYMIME"]
    assert mail_parameters(PLAIN, BINARY, offered(*lines)) == {"SIZE": "21", "BODY": "BINARYMIME"}
    for missing in ("CHUNKING", "BINARYMIME"):
        with pytest.raises(ExtensionNotSupported, match="base64") as refused:
            mail_parameters(PLAIN, BINARY, offered(*lines).without([missing]))
        assert refused.value.extension == missing


NEVER = RcptOptions(Notify.NEVER)
REPORT = RcptOptions(Notify.SUCCESS | Notify.FAILURE, "rfc822;bob+x@example.net", ValidSince(NOON, False))


def test_each_recipient_has_its_own_parameters() -> None:
    """W-81: NOTIFY=SUCCESS,FAILURE on one, NEVER on another, nothing on the third."""
    envelope = TWO_DOMAINS.with_options(None, [REPORT, NEVER, None])
    assert rcpt_parameters(envelope, offered("DSN", "RRVS")) == (
        {"NOTIFY": "SUCCESS,FAILURE", "ORCPT": "rfc822;bob+2Bx@example.net", "RRVS": "2031-06-01T12:00:00Z;R"},
        {"NOTIFY": "NEVER"},
        {},
    )
    assert mail_parameters(envelope, HELLO, offered("DSN", "RRVS")) == {}


@pytest.mark.parametrize(("lines", "missing"), [([], "DSN"), (["RRVS"], "DSN"), (["DSN"], "RRVS")])
def test_a_rcpt_option_is_refused_if_not_offered(lines: list[str], missing: str) -> None:
    """W-81: for one recipient as for all; no half-open envelope."""
    with pytest.raises(ExtensionNotSupported) as refused:
        rcpt_parameters(TWO_DOMAINS.with_options(None, [None, REPORT, None]), offered(*lines))
    assert refused.value.extension == missing


def test_without_options_no_rcpt_has_parameters() -> None:
    """The way of nearly every message, and it costs nothing."""
    assert rcpt_parameters(TWO_DOMAINS, offered("DSN", "RRVS")) == ()
