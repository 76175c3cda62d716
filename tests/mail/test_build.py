"""A single message, judged by the standard library's parser."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import formataddr, make_msgid
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.message import Message, build

DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)
PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 10


def made(**arguments: object) -> Message:
    standard: dict[str, object] = {
        "from_": "Example News <news@example.com>",
        "to": "Bob <bob@x.example>",
        "message_id": "1@example.com",
        "date": DATE,
    }
    return build(**(standard | arguments))  # type: ignore[arg-type]


def parsed(message: Message) -> EmailMessage:
    read = cast(EmailMessage, message_from_bytes(bytes(message.content), policy=policy.default))
    assert [part.defects for part in read.walk() if part.defects] == []
    return read


def tree(message: EmailMessage) -> object:
    if not message.is_multipart():
        return message.get_content_type()
    return (message.get_content_subtype(), *map(tree, message.iter_parts()))  # type: ignore[arg-type]


def text_of(part: object) -> str:
    """The text; the library leaves the line ends of the encoded form in it."""
    assert isinstance(part, EmailMessage)
    return cast(str, part.get_content()).replace("\r\n", "\n")


IMAGE = {"logo": Attachment("logo.png", PNG)}
FILE = (Attachment("terms.pdf", b"%PDF"),)


@pytest.mark.parametrize(
    ("arguments", "shape"),
    [
        ({}, "text/plain"),
        ({"text": "x"}, "text/plain"),
        ({"html": "x"}, "text/html"),
        ({"text": "x", "html": "x"}, ("alternative", "text/plain", "text/html")),
        ({"html": "x", "inline": IMAGE}, ("related", "text/html", "image/png")),
        (
            {"text": "x", "html": "x", "inline": IMAGE},
            ("alternative", "text/plain", ("related", "text/html", "image/png")),
        ),
        ({"text": "x", "attachments": FILE}, ("mixed", "text/plain", "application/pdf")),
        (
            {"text": "x", "html": "x", "inline": IMAGE, "attachments": FILE * 2},
            (
                "mixed",
                ("alternative", "text/plain", ("related", "text/html", "image/png")),
                "application/pdf",
                "application/pdf",
            ),
        ),
    ],
)
def test_there_are_the_layers_that_are_needed_and_no_more(arguments: dict[str, object], shape: object) -> None:
    """RFC 2046 §5.1, RFC 2387: the reader's program shows the last alternative it knows."""
    assert tree(parsed(made(**arguments))) == shape


def test_each_part_comes_back_as_it_went_in() -> None:
    """Text, HTML, image and file: type, charset, name and octets."""
    text, html = "Grüße,\n\n.\nFrom here\n" + "x" * 2000 + "\n", '<p>Grüße — <img src="cid:logo"></p>\n'
    read = parsed(
        made(text=text, html=html, inline=IMAGE, attachments=[Attachment("Übersicht, März.csv", b"a;b\n\xc3\xbc")])
    )
    body = read.get_body(("plain",))
    assert body is not None
    assert text_of(body) == text
    assert body.get_content_charset() == "utf-8"
    shown = read.get_body(("html",))
    assert shown is not None
    assert text_of(shown) == html
    image = next(part for part in read.walk() if part.get_content_type() == "image/png")
    assert (image["Content-ID"], image.get_content_disposition()) == ("<logo>", "inline")
    assert cast(EmailMessage, image).get_content() == PNG
    (attached,) = read.iter_attachments()
    assert attached.get_filename() == "Übersicht, März.csv"
    assert attached.get_payload(decode=True) == b"a;b\n\xc3\xbc"
    assert attached.get_content_charset() == "utf-8"


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300))
def test_any_text_comes_back_in_ascii(text: str) -> None:
    """8BITMIME is never needed; line ends are normalised and one ends the text (RFC 2045)."""
    message = made(text=text)
    assert not message.content.eight_bit
    wanted = text.replace("\r\n", "\n").replace("\r", "\n")
    assert text_of(parsed(message)) == (wanted if wanted.endswith("\n") else wanted + "\n")


def test_the_header_has_the_given_values() -> None:
    """From, To, Cc, Reply-To, Subject, Date, Message-ID, a free header; and MIME-Version."""
    read = parsed(
        made(
            to=["Zoë <z@x.example>", "b@x.example, c@x.example"],
            cc='"D, E" <d@x.example>',
            reply_to="r@x.example",
            subject="Grüße",
            headers={"X-Campaign": "nov"},
        )
    )
    assert dict(read.items()) | {"Content-Type": "", "Content-Transfer-Encoding": ""} == {
        "Date": "Mon, 03 Nov 2025 09:00:00 +0000",
        "From": "Example News <news@example.com>",
        "To": "Zoë <z@x.example>, b@x.example, c@x.example",
        "Cc": '"D, E" <d@x.example>',
        "Reply-To": "r@x.example",
        "Subject": "Grüße",
        "Message-ID": "<1@example.com>",
        "X-Campaign": "nov",
        "MIME-Version": "1.0",
        "Content-Type": "",
        "Content-Transfer-Encoding": "",
    }


def test_bcc_is_in_the_envelope_and_nowhere_else() -> None:
    """MH-12; a mailbox named twice is mailed once."""
    message = made(cc="c@x.example", bcc=["secret@x.example", "bob@X.example"])
    assert [path.address for path in message.envelope.forward_paths] == [
        "bob@x.example",
        "c@x.example",
        "secret@x.example",
    ]
    assert b"secret" not in bytes(message.content)
    assert b"bcc" not in bytes(message.content).lower()


def test_what_the_standard_library_makes_is_taken_as_it_is() -> None:
    """FT-49: `make_msgid` has brackets, also where it names an image, and `formataddr` has encoded its name."""
    identifier = make_msgid(domain="x.example")
    read = parsed(
        made(
            to=formataddr(("Zoë", "b@x.example")),
            reply_to=[formataddr(("Müller, Jörg", "r@x.example")), ("=?utf-8?q?x?=", "s@x.example")],
            message_id=identifier,
            html=f'<img src="cid:{identifier[1:-1]}">',
            inline={identifier: IMAGE["logo"]},
        )
    )
    assert (read["To"], read["Message-ID"]) == ("Zoë <b@x.example>", identifier)
    assert read["Reply-To"] == '"Müller, Jörg" <r@x.example>, =?utf-8?q?x?= <s@x.example>'
    image = next(part for part in read.walk() if part.get_content_type() == "image/png")
    assert image["Content-ID"] == identifier


@pytest.mark.parametrize("field", ["to", "cc", "reply_to"])
def test_a_group_is_written_as_a_group(field: str) -> None:
    """FT-41: `undisclosed-recipients` has no members; those of another group are recipients."""
    arguments: dict[str, object] = {"to": None, "bcc": "z@x.example", field: "undisclosed-recipients:;"}
    assert parsed(made(**arguments))[field.replace("_", "-")] == "undisclosed-recipients:;"
    message = made(to=["Team: Zoë <z@x.example>, b@x.example;", ("Cy", "c@x.example")])
    assert parsed(message)["To"] == "Team: Zoë <z@x.example>, b@x.example;, Cy <c@x.example>"
    assert [path.address for path in message.envelope.forward_paths] == ["z@x.example", "b@x.example", "c@x.example"]


@pytest.mark.parametrize("nobody", ["", " ", ",", [], [""], "(nobody)"])
def test_an_empty_field_is_left_out(nobody: object) -> None:
    """FT-40: as an optional field of a form is."""
    read = parsed(made(cc=nobody, reply_to=nobody, bcc=nobody))
    assert "Cc" not in read
    assert "Reply-To" not in read
    with pytest.raises(MessageError, match="no recipient"):
        made(to=nobody)


def test_the_same_arguments_give_the_same_bytes() -> None:
    """No clock and no chance: what was composed can be composed again."""
    arguments = {"text": "x", "html": "y", "inline": IMAGE, "attachments": FILE}
    assert made(**arguments) == made(**arguments)


def test_boundaries_differ_between_messages_and_occur_in_no_part() -> None:
    """MH-13: one message may carry another as an attachment."""
    inner = bytes(made(text="x", html="y").content)
    outer = made(text=inner.decode(), html="y", message_id="2@example.com")
    assert tree(parsed(outer)) == ("alternative", "text/plain", "text/html")
    body = parsed(outer).get_body(("plain",))
    assert body is not None
    assert text_of(body) == inner.decode().replace("\r\n", "\n")


def test_an_address_beyond_ascii_makes_the_message_need_smtputf8() -> None:
    """W-75, RFC 6531; a display name or a domain beyond ASCII does not."""
    content = made(to="Zoë <zoë@x.example>").content
    assert (content.utf8_headers, content.eight_bit) == (True, True)
    plain = made(to="Zoë <zoe@bücher.example>").content
    assert (plain.utf8_headers, plain.eight_bit) == (False, False)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"from_": "nobody"}, "From"),
        ({"from_": "postmaster"}, "From"),
        ({"from_": "Team: a@x.example;"}, "From"),
        ({"from_": "=?utf-8?q?a?=@x.example"}, "From"),
        ({"to": ("Bob", "=?utf-8?q?a?=@x.example")}, "To"),
        ({"cc": ["a@x.example", "user@"]}, "Cc"),
        ({"reply_to": "postmaster"}, "Reply-To"),
        ({"from_": "a@x.example, b@x.example"}, "From"),
        ({"to": "bob"}, "To"),
        ({"to": ()}, "To"),
        ({"to": "Bob\r\nBcc: z@x.example <b@x.example>"}, "To"),
        ({"bcc": "a@e@g"}, "Bcc"),
        ({"subject": "a\r\nBcc: z@x.example"}, "Subject"),
        ({"subject": "a\udcff"}, "Subject"),
        ({"headers": {"X-A": "a\nb"}}, "X-A"),
        ({"headers": {"Bcc": "z@x.example"}}, "Bcc"),
        ({"headers": {"List-ID": "<a.example>", "list-id": "<b.example>"}}, "list-id"),
        ({"headers": {"X\r\nBcc: z": "1"}}, None),
        ({"message_id": "a b@c"}, "Message-ID"),
        ({"html": "x", "inline": {"a>b": FILE[0]}}, "cid"),
        ({"text": "x", "inline": IMAGE}, "inline"),
        ({"inline": IMAGE}, "inline"),
    ],
)
def test_what_cannot_stand_is_named(arguments: dict[str, object], field: str | None) -> None:
    """MH-01, MH-02, MH-12, MH-15, MH-17: refused before there is a message."""
    with pytest.raises(MessageError) as caught:
        made(**arguments)
    assert caught.value.field == field


@pytest.mark.parametrize("text", ["a\0b", "a\ud800"])
def test_what_no_text_can_hold_is_refused(text: str) -> None:
    """MH-16, MH-17."""
    with pytest.raises(MessageError):
        made(text=text)


@pytest.mark.parametrize(
    ("name", "type_"),
    [
        ("a.png", "image/png"),
        ("a.PDF", "application/pdf"),
        ("a.webp", "image/webp"),
        ("a.ics", "text/calendar"),
        ("a.tar.gz", "application/gzip"),
        ("a.docx", "application/vnd.openxmlformats-officedocument.wordprocessingml.document"),
        ("a.unknown", "application/octet-stream"),
        ("a", "application/octet-stream"),
        ("a.eml", "message/rfc822"),
    ],
)
def test_the_type_of_a_file_follows_from_its_name(name: str, type_: str) -> None:
    """The same on every interpreter and machine."""
    assert Attachment(name, b"").type == type_


@pytest.mark.parametrize(
    ("octets", "type_"),
    [
        (b"%PDF-1.7\n1 0 obj", "application/pdf"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "image/png"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(20), "image/jpeg"),
        (b"PK\x03\x04" + bytes(40), "application/zip"),
        ("Grüße\r\n\tan alle\n".encode(), "text/plain"),
        (b"BM, as the message began", "text/plain"),
        (b"x" * 8191 + "ß".encode(), "text/plain"),
        ("Grüße".encode("cp1252"), "application/octet-stream"),
        (b"text with a \x00", "application/octet-stream"),
        (bytes(range(256)), "application/octet-stream"),
        (b"", "application/octet-stream"),
    ],
)
@pytest.mark.parametrize("name", ["file", "file.unknown"])
def test_an_unknown_name_gets_its_type_from_the_content(name: str, octets: bytes, type_: str) -> None:
    """And only there: a name that says something is what its owner meant."""
    assert Attachment(name, octets).type == type_
    assert Attachment("a.csv", octets).type == "text/csv"


@pytest.mark.parametrize("type_", ["image", "image/", "/png", "image/png; x", "image/p\r\nX: y", "ü/x", "a/b/c"])
def test_an_invalid_type_is_refused(type_: str) -> None:
    """It is written into a header."""
    with pytest.raises(MessageError, match=r"a\.bin"):
        Attachment("a.bin", b"", type_)
