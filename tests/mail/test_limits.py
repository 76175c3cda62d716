"""Limits of composing at their exact values: the last that is accepted, and the first that is not."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage

import pytest

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.address import MAX_LIST_LENGTH, Address
from asyncsmtp.mail.headers import format_content_id, format_message_id
from asyncsmtp.mail.templates.environment import MAX_BITS, MAX_OUTPUT, MAX_VALUE, TemplateEnvironment
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.envelope import Mailbox

STAMPS = {"message_id": "1@d.example", "date": datetime(2026, 1, 1, tzinfo=UTC)}


@pytest.mark.parametrize("between", [",", ", ", ",\t"])
def test_a_list_of_addresses_has_at_most_a_mebi_of_characters(between: str) -> None:
    """FT-86: all addresses of the longest list are read; one character more is refused before it is read."""
    pieces = [f"a{number}@b.example" for number in range(45_000)]
    text = between.join(pieces)
    assert len(text) < MAX_LIST_LENGTH
    assert len(Address.parse_list(text + " " * (MAX_LIST_LENGTH - len(text)))) == len(pieces)
    with pytest.raises(RecipientError, match="too long"):
        Address.parse_list(text + " " * (MAX_LIST_LENGTH - len(text) + 1))


@pytest.mark.parametrize("name", ["x" * 200, "x" * 100 + "@" + "y" * 99, "." * 200])
def test_a_content_id_has_at_most_200_characters(name: str) -> None:
    """FT-86: a name in RFC 2392's URL."""
    assert format_content_id(name) == f"Content-ID: <{name}>\r\n".encode()
    with pytest.raises(MessageError, match="not a valid name for an image"):
        format_content_id(name + "x")


def test_a_message_id_fits_into_one_line() -> None:
    """FT-86: RFC 5322 §2.1.1 allows 998 characters with the name of the field."""
    longest = "x" * (998 - 80 - len("@b.example")) + "@b.example"
    assert max(map(len, format_message_id(longest).split(b"\r\n"))) <= 998
    with pytest.raises(MessageError, match="identifier"):
        format_message_id("x" + longest)


@pytest.mark.parametrize("source", ["Dear {{ name }},\n", "{{ name }}\n", "{{ name }}\n\nBye\n"])
def test_a_filled_text_has_at_most_its_limit(source: str) -> None:
    """FT-86: a text block that a cell fills is measured once it is filled, with the literal text around it."""
    composer = Template(from_="c@d.example", subject="s", text=source).compile(["email", "name"])
    longest = MAX_OUTPUT - len(source.replace("{{ name }}", ""))
    to = Mailbox.parse("a@b.example")
    assert composer.compose(to, {"email": "a@b.example", "name": "x" * longest}, **STAMPS).content.size > longest
    with pytest.raises(RecipientError, match="the text has more than 10 MiB"):
        composer.compose(to, {"email": "a@b.example", "name": "x" * (longest + 1)}, **STAMPS)


@pytest.mark.parametrize(
    ("source", "accepted", "refused"),
    [
        ("{{ 'x' * n }}", MAX_VALUE, MAX_VALUE + 1),
        ("{{ n * 'x' }}", MAX_VALUE, MAX_VALUE + 1),
        ("{{ ('x' * (n - 1)) + 'y' }}", MAX_VALUE, MAX_VALUE + 1),
        ("{{ 2 ** n }}", MAX_BITS // 2, MAX_BITS // 2 + 1),
    ],
)
def test_an_operator_makes_at_most_its_limit(source: str, accepted: int, refused: int) -> None:
    """FT-86: the largest result is made, one more is refused before it is made."""
    template = TemplateEnvironment(autoescape=False).from_string(source)
    assert template.render(n=accepted)
    with pytest.raises(Exception, match="too long for a mail"):
        template.render(n=refused)


def test_the_email_parser_reads_the_longest_content_id() -> None:
    """FT-86: what is accepted is read back whole."""
    from email import message_from_bytes, policy

    read = message_from_bytes(format_content_id("x" * 200) + b"\r\n", policy=policy.default)
    assert isinstance(read, EmailMessage)
    assert read["Content-ID"] == f"<{'x' * 200}>"
