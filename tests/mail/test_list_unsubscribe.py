"""MH-19, RFC 8058: the way out of a list, signed, opaque, and nobody else's; and where bounces go."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError, TemplateError
from asyncsmtp.mail.list_unsubscribe import ReturnPath, Unsubscribe, unsubscribe_token
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.envelope import Mailbox

SECRET = b"0123456789abcdef"
ANN = Mailbox.parse("ann@example.net")
WAY = Unsubscribe("https://example.org/u/{{ token }}", SECRET)


def composed(template: Template, to: Mailbox = ANN, **fields: str) -> Message:
    composer = template.compile(tuple(fields))
    return composer.compose(to, fields, message_id="abcdefg@example.org", date=datetime(2026, 3, 1, tzinfo=UTC))


def plain(**settings: object) -> Template:
    return Template(from_="News <news@example.org>", subject="News", text="Bye: {{ unsubscribe_url }}\n", **settings)  # type: ignore[arg-type]


def test_each_message_has_the_unsubscribe_url_in_its_header_and_text() -> None:
    """MH-19: https, one click by POST, and the same URL for the reader."""
    message = composed(plain(unsubscribe=WAY))
    parsed = message_from_bytes(bytes(message.content), policy=policy.default)
    token = unsubscribe_token(SECRET, ANN)
    assert parsed["List-Unsubscribe"] == f"<https://example.org/u/{token}>"
    assert parsed["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    assert parsed.get_content().strip() == f"Bye: https://example.org/u/{token}"
    assert composed(plain(unsubscribe=WAY)) == message  # the same at every attempt


def test_a_mail_unsubscribes_too_where_that_is_wished_and_no_click_where_not() -> None:
    """MH-19, RFC 2369: the ways in the order of preference."""
    way = Unsubscribe("https://example.org/u?t={{token}}", SECRET, "out@example.org", one_click=False)
    parsed = message_from_bytes(bytes(composed(plain(unsubscribe=way)).content), policy=policy.default)
    token = unsubscribe_token(SECRET, ANN)
    assert parsed["List-Unsubscribe"] == f"<https://example.org/u?t={token}>, <mailto:out@example.org?subject={token}>"
    assert parsed["List-Unsubscribe-Post"] is None


@given(st.binary(min_size=16, max_size=40), st.from_regex(r"[a-z]{1,20}@[a-z]{1,20}\.example", fullmatch=True))
def test_a_token_has_nothing_of_the_address_in_it(secret: bytes, address: str) -> None:
    """MH-19: letters and digits of an HMAC, another for each mailbox and each secret."""
    mailbox = Mailbox.parse(address)
    token = unsubscribe_token(secret, mailbox)
    assert re.fullmatch("[a-z2-7]{26}", token)
    assert token == unsubscribe_token(secret, Mailbox(mailbox.local, mailbox.domain.upper()))
    assert token != unsubscribe_token(secret, Mailbox(mailbox.local + "x", mailbox.domain))
    assert token != unsubscribe_token(secret + b"x", mailbox)


@pytest.mark.parametrize(
    ("mailto", "written"),
    [
        ("out+list@example.org", "out+list@example.org"),
        ("a?b&c=d%/#@example.org", "a%3Fb%26c%3Dd%25%2F%23@example.org"),
        ('"a b>,"@example.org', "%22a%20b%3E%2C%22@example.org"),
    ],
)
def test_the_address_stays_one_in_a_url(mailto: str, written: str) -> None:
    """FT-05: RFC 6068 §2; the client of the reader would mail somebody else, or nobody."""
    way = Unsubscribe("https://example.org/{{ token }}", b"0123456789abcdef", mailto)
    assert f"<mailto:{written}?subject=".encode() in way.fields(Mailbox.parse("bob@x.example"))


@pytest.mark.parametrize(
    ("url", "secret", "mailto", "said"),
    [
        ("http://example.org/{{ token }}", SECRET, None, "must begin with https://"),
        ("https://example.org/", SECRET, None, "must have {{ token }} in it once"),
        ("https://example.org/{{ token }}{{ token }}", SECRET, None, "once"),
        ("https://example.org/{{ token }}>\r\nBcc: eve@example.org", SECRET, None, "is not a valid URL"),
        ("https://example.org/{{ token }} x", SECRET, None, "is not a valid URL"),
        ("https://example.org/{{ email }}/{{ token }}", SECRET, None, "is not a valid URL"),
        ("https:///{{ token }}", SECRET, None, "is not a valid URL"),
        ("https://[bad/{{ token }}", SECRET, None, "is not a valid URL"),
        ("https://example.org:99999/{{ token }}", SECRET, None, "is not a valid URL"),
        ("https://example.org/{{ token }}", b"short", None, "the secret of the tokens has 5 bytes"),
        ("https://example.org/{{ token }}", SECRET, "b\u00fc@example.org", "must be ASCII"),
    ],
)
def test_invalid_unsubscribe_settings_are_refused(url: str, secret: bytes, mailto: str | None, said: str) -> None:
    """MH-19: no line break, no >, no address, no guessable token."""
    with pytest.raises(MessageError, match=re.escape(said)):
        Unsubscribe(url, secret, mailto)


def test_a_secret_is_not_shown() -> None:
    assert "0123456789abcdef" not in repr(WAY)


def test_what_would_be_there_twice_is_refused() -> None:
    with pytest.raises(TemplateError, match="written from \\[unsubscribe\\] already"):
        composed(plain(unsubscribe=WAY, headers={"List-Unsubscribe": "<https://example.org/>"}))
    with pytest.raises(TemplateError, match="given twice, also as “List-ID”"):
        composed(plain(headers={"List-ID": "<a.example.org>", "list-id": "<b.example.org>"}))
    with pytest.raises(TemplateError, match="have a column “unsubscribe_url” of their own"):
        composed(plain(unsubscribe=WAY), unsubscribe_url="x")
    with pytest.raises(TemplateError, match="unsubscribe_url"):
        composed(plain())


def test_a_bounce_says_which_message_it_is_about() -> None:
    """VERP: the reverse-path has the left part of the Message-ID, the header has it not."""
    message = composed(plain(unsubscribe=WAY, return_path="bounces+{{ token }}@example.com"))
    assert message.envelope.reverse_path == Mailbox.parse("bounces+abcdefg@example.com")
    assert b"bounces" not in bytes(message.content)
    assert composed(plain(unsubscribe=WAY, return_path="b@example.com")).envelope.reverse_path == Mailbox.parse(
        "b@example.com"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("bounces", "it has no @"),
        ("b+{{ token }}+{{ token }}@example.com", "may occur only once"),
        ("b@{{ token }}.example.com", "must come before the @"),
        ("b+{{ email }}@example.com", "is not an e-mail address"),
        ("x" * 60 + "{{ token }}@example.com", "has more than 64 bytes"),
    ],
)
def test_an_invalid_return_path_is_refused(text: str, said: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(said)):
        composed(plain(unsubscribe=WAY, return_path=text))


@pytest.mark.parametrize(
    ("address", "token"),
    [
        ("b+abc-x@Example.COM", "abc"),
        ("b+-x@example.com", None),
        ("b+abc@example.com", None),
        ("c+abc-x@example.com", None),
        ("b+abc-x@example.net", None),
        ("nobody", None),
    ],
)
def test_the_token_is_found_in_the_address_that_a_bounce_came_to(address: str, token: str | None) -> None:
    assert ReturnPath("b+{{ token }}-x@example.com").parse_token(address) == token
