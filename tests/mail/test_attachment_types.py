"""Types of attachments with parameters: invitations, and messages that are forwarded."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

import pytest

from asyncsmtp.errors import MessageError, RecipientError
from asyncsmtp.mail.attachment import Attachment, AttachmentPattern
from asyncsmtp.mail.message import Message, build
from asyncsmtp.mail.signing.dkim import Signer
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content
from tests.mail.test_dkim import hold, keys

DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)
INVITATION = b"BEGIN:VCALENDAR\r\nVERSION:2.0\r\nMETHOD:REQUEST\r\nBEGIN:VEVENT\r\nEND:VEVENT\r\nEND:VCALENDAR\r\n"
FORWARDED = b"From: x@x.example\nTo: y@x.example\nSubject: old\n\nold text\n.\n"


def made(*files: Attachment, **settings: Any) -> Content:
    arguments: dict[str, Any] = {"from_": "a@x.example", "to": "b@x.example", "text": "x", "message_id": "1@x.example"}
    message = build(**(arguments | {"date": DATE, "attachments": files} | settings))
    assert isinstance(message.content, Content)
    return message.content


def read(content: Content) -> EmailMessage:
    parsed = message_from_bytes(bytes(content), policy=policy.default)
    assert [part.defects for part in parsed.walk() if part.defects] == []
    return parsed


def only_file(content: Content) -> EmailMessage:
    [part] = read(content).iter_attachments()
    return part


@pytest.mark.parametrize(
    ("given", "type_", "parameters"),
    [
        ("text/calendar; method=REQUEST", "text/calendar", {"method": "REQUEST", "charset": "utf-8"}),
        ("TEXT/Calendar;METHOD=ADD; charset=us-ascii;", "text/calendar", {"method": "ADD", "charset": "us-ascii"}),
        ('application/x; name="a; b=\\"c\\"" ; x-mode = 0644', "application/x", {"name": 'a; b="c"', "x-mode": "0644"}),
        ("text/plain; charset=ISO-8859-1; format=flowed", "text/plain", {"charset": "ISO-8859-1", "format": "flowed"}),
        ("application/pdf", "application/pdf", {}),
    ],
)  # fmt: skip
def test_a_type_may_have_parameters(given: str, type_: str, parameters: dict[str, str]) -> None:
    """FT-45: RFC 2045 §5.1; a charset that is given is not doubled."""
    part = only_file(made(Attachment("a.bin", b"data", given)))
    assert part.get_content_type() == type_
    assert dict(part["Content-Type"].params) == parameters


@pytest.mark.parametrize(
    "given",
    [
        *("text/calendar; method", "text/calendar; method=", "text/calendar; =x", "text/calendar method=x"),
        *('text/x; a="open', 'text/x; a="b" c', "text/x; a=b; a=c", "text/x; a=ü", "text/x; a=b\r\nBcc: z@x.example"),
        *("text/x; a=" + "b" * 300, 'text/x; a="b\r\n c"', "; a=b"),
    ],
)
def test_parameters_that_are_not_valid_are_refused(given: str) -> None:
    """FT-45: they are written into a header."""
    with pytest.raises(MessageError, match=r"the type of a\.bin must look like"):
        Attachment("a.bin", b"data", given)


def test_many_parameters_are_folded() -> None:
    """FT-45: RFC 5322 §2.1.1."""
    wanted = {f"name{number}": "v" * 60 for number in range(20)}
    content = made(Attachment("a.bin", b"", "text/x; " + "; ".join(f"{key}={value}" for key, value in wanted.items())))
    assert max(map(len, bytes(content).split(b"\r\n"))) <= 78
    assert wanted.items() <= dict(only_file(content)["Content-Type"].params).items()


@pytest.mark.parametrize(
    ("name", "type_", "data", "method"),
    [
        ("i.ics", "", INVITATION, "REQUEST"),
        ("i.ics", "text/calendar", b"BEGIN:VCALENDAR\nmethod:Cancel\nEND:VCALENDAR\n", "CANCEL"),
        ("i.ics", "text/calendar; method=REPLY", INVITATION, "REPLY"),
        ("i.ics", "", INVITATION.replace(b"METHOD:REQUEST\r\n", b""), None),
        ("i.ics", "", INVITATION.replace(b"METHOD:REQUEST", b"SUMMARY:METHOD:X"), None),
        ("i.txt", "", INVITATION, None),
    ],
)  # fmt: skip
def test_an_invitation_names_its_method(name: str, type_: str, data: bytes, method: str | None) -> None:
    """FT-45: RFC 6047 §2.4; without it no mail program offers to accept."""
    part = only_file(made(Attachment(name, data, type_)))
    assert part["Content-Type"].params.get("method") == method
    assert part.get_content_charset() == "utf-8"
    assert part.get_payload(decode=True) == data


@pytest.mark.parametrize(
    ("data", "transfer"),
    [(FORWARDED, "7bit"), (FORWARDED.replace(b"old text", "Grüße".encode()), "8bit"), (b"", "7bit")],
)
def test_a_forwarded_message_can_be_opened(data: bytes, transfer: str) -> None:
    """FT-45: message/rfc822, not in base64 (RFC 2046 §5.2.1), and its file name."""
    content = made(Attachment("Grüße.eml", data))
    part = only_file(content)
    assert (part.get_content_type(), part["Content-Transfer-Encoding"]) == ("message/rfc822", transfer)
    assert part.get_filename() == "Grüße.eml"
    assert data.replace(b"\n", b"\r\n") in bytes(content)
    assert content.eight_bit is (transfer == "8bit")
    assert Content.of(bytes(content)).size == content.size  # canonical


def test_a_relay_without_8bitmime_gets_a_forwarded_message_too() -> None:
    """FT-45: encoded anew, unless it is signed: that it was sent so is what the signature says."""
    data = FORWARDED.replace(b"old text", "Grüße".encode())
    content = made(Attachment("a.eml", data))
    assert content.downgrade is not None
    again = content.downgrade()
    assert not again.eight_bit
    [inner] = only_file(again).iter_parts()
    assert inner.get_content_type() == "text/plain"
    assert b"Gr=C3=BC=C3=9Fe" in bytes(again) or b"R3LDvMOfZQ" in bytes(again)
    signed = made(Attachment("a.eml", b"DKIM-Signature: v=1\n" + data))
    assert signed.downgrade is not None
    with pytest.raises(MessageError, match="signature"):
        signed.downgrade()


def test_the_signature_of_a_forwarded_message_holds() -> None:
    """FT-45: nothing of it is changed but its line ends."""
    message = Message.of(b"From: x@example.com\r\nTo: y@x.example\r\n\r\ntext\r\n")
    assert isinstance(message.content, Content)
    signed = bytes(Signer(*keys()).sign_content(message.content, DATE))
    [inner] = only_file(made(Attachment("a.eml", signed.replace(b"\r\n", b"\n")))).iter_parts()
    assert hold(inner.as_bytes(policy=policy.SMTP)) == [True, True]
    assert signed in bytes(made(Attachment("a.eml", signed)))


@pytest.mark.parametrize(
    ("data", "type_"),
    [
        (FORWARDED + b"x" * 999, "message/rfc822"),
        (FORWARDED + b"\0", "message/rfc822; x=y"),
        (b"--b\n\nx\n--b--\n", "multipart/mixed; boundary=b"),
    ],
)
def test_what_needs_base64_is_any_file(data: bytes, type_: str) -> None:
    """FT-45: base64 is not allowed for messages and multiparts (RFC 2045 §6.4)."""
    part = only_file(made(Attachment("a.eml", data, type_)))
    assert part.get_content_type() == "application/octet-stream"
    assert part.get_content() == data


def test_a_forwarded_message_with_the_same_boundary() -> None:
    """FT-45: one that was made here, by the same arguments, and is attached to itself."""
    first = made(Attachment("a.txt", b"x"))
    second = made(Attachment("a.eml", bytes(first)))
    third = made(Attachment("a.eml", bytes(second)), Attachment("b.eml", bytes(first)))
    assert [part.get_filename() for part in read(third).iter_attachments()] == ["a.eml", "b.eml"]
    inner = next(read(third).iter_attachments()).get_content()
    assert [part.get_filename() for part in inner.iter_attachments()] == ["a.eml"]


def test_forwarded_messages_of_a_campaign() -> None:
    """FT-45: one file a row; a row whose file would end the message early is an error."""
    files = {"a.eml": FORWARDED, "b.eml": FORWARDED.replace(b"old text", "Grüße".encode())}
    template = Template(from_="a@x.example", subject="x", text="x", attachments=[AttachmentPattern("{{ file }}")])
    composer = template.compile(["file"], read=files.__getitem__)

    def compose(file: str) -> Content:
        content = composer.compose("b@x.example", {"file": file}, message_id="1@x.example", date=DATE).content
        assert isinstance(content, Content)
        return content

    assert (compose("a.eml").eight_bit, compose("b.eml").eight_bit) == (False, True)
    assert only_file(compose("a.eml")).get_content_type() == "message/rfc822"
    files["c.eml"] = bytes(compose("a.eml"))
    with pytest.raises(RecipientError, match="boundary"):
        compose("c.eml")


def test_an_attached_message_in_eight_bits_for_all() -> None:
    """FT-45: the same file for every row."""
    data = FORWARDED.replace(b"old text", "Grüße".encode())
    template = Template(from_="a@x.example", subject="x", text="x", attachments=[Attachment("a.eml", data)])
    content = template.compile([]).compose("b@x.example", {}).content
    assert (content.eight_bit, content.utf8_headers) == (True, False)


def test_a_related_part_names_the_type_of_its_first() -> None:
    """FT-45: RFC 2387 §3.1."""
    image = {"logo": Attachment("logo.png", b"\x89PNG\r\n\x1a\n")}
    parsed = read(made(html='<img src="cid:logo">', inline=image))
    related = next(part for part in parsed.walk() if part.get_content_type() == "multipart/related")
    assert related["Content-Type"].params["type"] == "text/html"
    template = Template(from_="a@x.example", subject="x", html='<img src="cid:logo">', inline=image)
    content = template.compile([]).compose("b@x.example", {}).content
    assert isinstance(content, Content)
    assert b'multipart/related; type="text/html";\r\n boundary=' in bytes(content)
