"""Messages from parts, files and the clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import pytest

import asyncsmtp
from asyncsmtp.client.compose import build, prepare_message, with_date_and_id
from asyncsmtp.errors import MessageError
from asyncsmtp.mail import message as pure
from asyncsmtp.mail.address import Address
from asyncsmtp.mail.attachment import Attachment
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope, Mailbox
from asyncsmtp.testing import ScriptedRelay

DATE = datetime(2025, 11, 3, 9, 0, tzinfo=UTC)


def parsed(message: Message) -> EmailMessage:
    return cast(EmailMessage, message_from_bytes(bytes(cast(Content, message.content)), policy=policy.default))


def test_a_date_and_a_message_id_are_made_when_they_are_left_out() -> None:
    """RFC 5322 §3.6: Date is required, Message-ID should be there; no two messages share an identifier."""
    first, second = (build(from_="Ada <ada@example.org>", to="bob@example.com", text="Hello") for _ in range(2))
    head = parsed(first)
    assert abs(datetime.now(UTC) - head["Date"].datetime) < timedelta(seconds=60)
    assert head["Message-ID"].endswith("@example.org>")
    assert head["Message-ID"] != parsed(second)["Message-ID"]
    assert not first.is_draft


def test_a_date_and_a_message_id_that_are_given_are_kept() -> None:
    message = build(from_="ada@example.org", to="bob@example.com", text="x", message_id="1@example.org", date=DATE)
    assert parsed(message)["Message-ID"] == "<1@example.org>"
    assert parsed(message)["Date"].datetime == DATE
    assert len(parsed(message).get_all("Date", [])) == 1


def test_files_are_read_by_their_path(tmp_path: Path) -> None:
    """A string, a Path or an Attachment; one alone or a list."""
    path = tmp_path / "a.pdf"
    path.write_bytes(b"%PDF-1.7")
    image = tmp_path / "logo.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    attachments = [str(path), path, Attachment("b.txt", b"b")]
    message = build(
        from_="ada@example.org", to="bob@example.com", html='<img src="cid:logo">', attachments=attachments,
        inline={"logo": image},
    )  # fmt: skip
    files = [(part.get_filename(), part.get_content_type()) for part in parsed(message).iter_attachments()]
    assert files == [("a.pdf", "application/pdf"), ("a.pdf", "application/pdf"), ("b.txt", "text/plain")]
    assert b'filename="logo.png"' in bytes(cast(Content, message.content))
    alone = build(from_="ada@example.org", to="bob@example.com", text="x", attachments=str(path))
    assert [part.get_filename() for part in parsed(alone).iter_attachments()] == ["a.pdf"]


def test_a_file_that_cannot_be_read_is_a_message_error(tmp_path: Path) -> None:
    """No error of the standard library reaches the caller; the message names the file."""
    with pytest.raises(MessageError, match=r"none\.pdf cannot be read") as caught:
        build(from_="ada@example.org", to="bob@example.com", text="x", attachments=[tmp_path / "none.pdf"])
    assert caught.value.field == "attachments"


@pytest.mark.parametrize(
    ("to", "shown", "mailboxes"),
    [
        ("Ann <ann@x.example>, bob@x.example", "Ann <ann@x.example>, bob@x.example", 2),
        (["Ann <ann@x.example>", "bob@x.example"], "Ann <ann@x.example>, bob@x.example", 2),
        (("Ann", "ann@x.example"), "Ann <ann@x.example>", 1),
        (("", "ann@x.example"), "ann@x.example", 1),
        (["ann@x.example", "bob@x.example"], "ann@x.example, bob@x.example", 2),
        ([("boss@x.example", "ann@x.example")], '"boss@x.example" <ann@x.example>', 1),
        ([("Ann", "ann@x.example"), "bob@x.example"], "Ann <ann@x.example>, bob@x.example", 2),
        ([("ann@x.example", "ann@x.example")], '"ann@x.example" <ann@x.example>', 1),
        (Mailbox.parse("ann@x.example"), "ann@x.example", 1),
        ([Address("Ann", Mailbox.parse("ann@x.example"))], "Ann <ann@x.example>", 1),
        ((address for address in ["ann@x.example"]), "ann@x.example", 1),
    ],
)
def test_addresses_take_every_form(to: object, shown: str, mailboxes: int) -> None:
    """A string, a pair, a list of either, or the library's own objects."""
    message = build(from_=("Ada", "ada@example.org"), to=to, text="x")  # type: ignore[arg-type]
    assert parsed(message)["To"] == shown
    assert parsed(message)["From"] == "Ada <ada@example.org>"
    assert len(message.envelope.forward_paths) == mailboxes


@pytest.mark.parametrize("to", [("ann@x.example", "Bob"), ("boss@x.example", "ann@x.example")])
def test_two_strings_in_a_tuple_are_never_two_recipients(to: tuple[str, str]) -> None:
    """A name from elsewhere may hold "@": it must not become a recipient, nor may one of two recipients be lost."""
    with pytest.raises(MessageError, match=r"^To: a tuple of two strings is \(name, address\).*a list"):
        build(from_="ada@example.org", to=to, text="x")


def test_copies_and_reply_to_take_pairs_too() -> None:
    message = build(
        from_="ada@example.org",
        to="bob@x.example",
        cc=("Cy", "cy@x.example"),
        bcc=[("Di", "di@x.example")],
        reply_to=("Eve", "eve@x.example"),
        text="x",
    )
    assert (parsed(message)["Cc"], parsed(message)["Reply-To"]) == ("Cy <cy@x.example>", "Eve <eve@x.example>")
    assert [str(path) for path in message.envelope.forward_paths] == ["bob@x.example", "cy@x.example", "di@x.example"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"from_": 3}, "from_ must be"),
        ({"to": 3}, "to must be"),
        ({"to": [3]}, "to must hold str or pairs"),
        ({"to": {"name": "Bob", "email": "bob@example.org"}}, "to must be str, a pair"),
        ({"cc": b"bob@example.org"}, "cc must be str, a pair"),
        ({"attachments": {"t.pdf": b"xx"}}, "attachments= must be a list of paths or Attachment objects, not dict"),
        ({"attachments": b"xx"}, "attachments= must be a list of paths or Attachment objects, not bytes"),
        ({"cc": 3}, "cc must be"),
        ({"reply_to": 3}, "reply_to must be"),
        ({"subject": 3}, "subject must be str or None, not int"),
        ({"text": b"x"}, "text must be str or None, not bytes"),
        ({"html": 3}, "html must be str or None, not int"),
        ({"date": "today"}, "date must be datetime or None, not str"),
        ({"message_id": 3}, "message_id must be str or None, not int"),
        ({"attachments": 3}, "attachments must be Iterable, not int"),
        ({"attachments": [3]}, "attachments must be Attachment, str or Path, not int"),
        ({"inline": 3}, "inline must be Mapping or None, not int"),
        ({"inline": {5: Attachment("a.png", b"x")}, "html": "x"}, "the name 5 in inline must be str, not int"),
        ({"headers": ["X-A"]}, "headers must be Mapping or None, not list"),
        ({"headers": "X-A: b"}, "headers must be Mapping or None, not str"),
        ({"headers": {"X-A": 5}}, r"headers\['X-A'\] must be str, not int"),
        ({"headers": {5: "b"}}, "the name 5 in headers must be str, not int"),
    ],
)
def test_a_wrong_type_is_a_type_error_that_names_the_parameter(arguments: dict[str, object], message: str) -> None:
    standard: dict[str, object] = {"from_": "ada@example.org", "to": "bob@example.com", "text": "x"}
    with pytest.raises(TypeError, match=message):
        build(**(standard | arguments))  # type: ignore[arg-type]


def test_none_is_as_good_as_leaving_an_argument_out() -> None:
    absent = dict.fromkeys(("cc", "bcc", "reply_to", "subject", "attachments", "inline", "headers", "html"))
    given = {"from_": "ada@example.org", "to": "bob@example.com", "text": "x", "message_id": "1@x", "date": DATE}
    assert build(**given, **absent) == build(**given)  # type: ignore[arg-type]


def test_a_repr_shows_no_content() -> None:
    message = Message(Envelope.of("a@x.example", ["b@x.example", "c@x.example"]), Content.of(b"Subject: plans\r\n"))
    assert repr(message) == "<Message to b@x.example and 1 more, 16 bytes>"
    assert repr(message.content) == "<Content of 16 bytes>"
    composer = Template("Ada <ada@example.org>", "{{ name }}", text="plans").compile(["name", "city"])
    assert repr(composer) == "<Composer from ada@example.org: 2 columns>"


def test_a_message_id_may_have_its_brackets() -> None:
    message = build(from_="ada@example.org", to="bob@example.com", text="x", message_id="<abc@x>")
    assert parsed(message)["Message-ID"] == "<abc@x>"


def test_a_path_that_no_file_can_have_is_a_message_error() -> None:
    with pytest.raises(MessageError, match="cannot be read"):
        Attachment.from_path("a\0b")
    with pytest.raises(MessageError, match="must look like image/png"):
        Attachment.from_path(__file__, "png")


def test_other_wrong_types_are_type_errors_too() -> None:
    with pytest.raises(TypeError, match="path must be str or Path, not int"):
        Attachment.from_path(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="data must be bytes or bytearray, not str"):
        Attachment("a.txt", "text")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text must be str or None, not int"):
        Template("ada@example.org", "x", text=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"content must be Content, not bytes: use Content\.of\(\)"):
        prepare_message(Message(Envelope.of("a@x.example", "b@x.example"), b"x"))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="message must be Message, EmailMessage or bytes, not str"):
        Message.of("Hello")  # type: ignore[arg-type]


def draft() -> Message:
    return Template("Ada <ada@example.org>", "Hi {{ name }}", text="Hi").compile(["name"]).compose(
        "ann@example.com", {"name": "Ann"}
    )  # fmt: skip


def test_the_fields_that_a_draft_lacks_are_added() -> None:
    """The clock and the identifier are parameters; what is there already is kept."""
    message = with_date_and_id(draft(), clock=lambda: DATE, new_id=lambda domain: f"7@{domain}")
    assert parsed(message)["Date"].datetime == DATE
    assert parsed(message)["Message-ID"] == "<7@example.org>"
    assert message.content.size == len(bytes(cast(Content, message.content)))
    assert with_date_and_id(message) is message
    dated = pure.build(from_="ada@example.org", to="bob@x.example", date=DATE, headers={"X-Date": "no"})
    finished = with_date_and_id(dated, clock=lambda: DATE + timedelta(days=1))
    assert parsed(finished)["Date"].datetime == DATE
    assert len(parsed(finished).get_all("Message-ID", [])) == 1


def test_a_draft_to_other_addresses_stays_one() -> None:
    assert Message.of(draft(), sender="", recipients="cy@x.example").is_draft
    assert parsed(prepare_message(Message.of(draft(), sender="")))["Message-ID"].endswith("@message-id.invalid>")


def test_a_message_that_is_no_draft_is_sent_as_it_is() -> None:
    """Bytes are finished: nothing is added to them."""
    finished = Message(Envelope.of("a@x.example", "b@x.example"), Content.of(b"Subject: x\r\n\r\nx\r\n"))
    assert prepare_message(finished) is finished


@pytest.mark.parametrize("way", ["send", "session", "pool"])
async def test_sending_a_draft_adds_a_date_and_a_message_id(way: str) -> None:
    async with ScriptedRelay() as relay:
        url = f"smtp://{relay.host}:{relay.port}?security=none"
        if way == "send":
            await asyncsmtp.send(draft(), relay=url)
        elif way == "session":
            async with asyncsmtp.Session(asyncsmtp.Relay.from_url(url)) as session:
                await session.send(draft())
        else:
            async with asyncsmtp.Pool(asyncsmtp.Relay.from_url(url)) as pool:
                await pool.send(draft())
        (received,) = relay.received
    head = message_from_bytes(received.content, policy=policy.default)
    assert len(head.get_all("Date", [])) == len(head.get_all("Message-ID", [])) == 1
