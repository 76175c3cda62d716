"""Cc, Bcc, Reply-To and From whose addresses differ from row to row."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, cast

import pytest

from asyncsmtp.errors import RecipientError, TemplateError
from asyncsmtp.mail.list_unsubscribe import Unsubscribe, unsubscribe_token
from asyncsmtp.mail.message import Message
from asyncsmtp.mail.templates.address_lists import parse_addresses
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.envelope import Mailbox

DATE = datetime(2026, 11, 3, 9, 0, tzinfo=UTC)
ANN, BOB = Mailbox.parse("ann@x.example"), Mailbox.parse("bob@y.example")
NEWS = Template("News <news@example.com>", "News", text="Hello {{ name }}, {{ unsubscribe_url }}")
PLAIN = replace(NEWS, text="Hello")
SECRET = b"0123456789abcdef"


def compose(template: Template, cells: dict[str, str], **given: Any) -> Message:
    arguments: dict[str, Any] = {"message_id": "1@example.com", "date": DATE} | given
    return template.compile(list(cells)).compose(ANN, cells, **arguments)


def copies(template: Template, **cells: str) -> list[tuple[str, str]]:
    return [(kind, str(mailbox)) for kind, mailbox in template.compile(list(cells)).list_copies(ANN, cells)]


def header(message: Message) -> EmailMessage:
    read = cast(EmailMessage, message_from_bytes(bytes(message.content), policy=policy.default))
    assert not read.defects
    return read


@pytest.mark.parametrize(
    ("cell", "wanted"),
    [
        ("", []),
        (" \u00a0", []),
        ("b@x.example", ["b@x.example"]),
        ("b@x.example, c@x.example", ["b@x.example", "c@x.example"]),
        ("b@x.example; Cid <c@x.example>;", ["b@x.example", "c@x.example"]),
        (' "Dee, D.; D" <d@x.example> ,e@x.example ', ["d@x.example", "e@x.example"]),
        ("Zoë <zoe@x.example>;;", ["zoe@x.example"]),
    ],
)
def test_a_cell_has_none_one_or_several(cell: str, wanted: list[str]) -> None:
    """With commas or semicolons between them, and names; a blank cell is nobody."""
    assert copies(replace(PLAIN, cc="{{ cc }}"), cc=cell) == [("cc", each) for each in wanted]
    assert copies(replace(PLAIN, bcc="{{ bcc }}"), bcc=cell) == [("bcc", each) for each in wanted]


@pytest.mark.parametrize(
    ("source", "wanted"),
    [
        ("archive@example.com", ["archive@example.com"]),
        ("{{ a }}, archive@example.com", ["b@x.example", "c@x.example", "archive@example.com"]),
        ("{{ user }}@x.example; {{ name }} <{{ b }}>", ["dee@x.example", "e@x.example"]),
        ("{% if b %}archive@example.com, {{ b }}{% endif %}", ["archive@example.com", "e@x.example"]),
        ("{% if empty %}archive@example.com, x@example.com{% endif %}", []),
        ("{{ name }} <{{ empty }}>", []),
    ],
)
def test_a_template_names_several(source: str, wanted: list[str]) -> None:
    """Literal ones, cells, a name and an address apart, a condition."""
    cells = {"a": "b@x.example;c@x.example", "user": "dee", "name": "Doe, Dee", "b": "e@x.example", "empty": ""}
    assert copies(replace(PLAIN, bcc=source), **cells) == [("bcc", each) for each in wanted]


def test_nobody_gets_two_copies_of_one_message() -> None:
    """Who is in To has it, and who is in Cc needs no Bcc."""
    template = replace(PLAIN, cc="{{ cc }}", bcc="{{ bcc }}")
    found = copies(template, cc="ann@x.example, b@x.example, b@X.example", bcc="b@x.example; c@x.example")
    assert found == [("cc", "b@x.example"), ("bcc", "c@x.example")]


def test_everybody_sees_to_and_cc_and_nobody_bcc() -> None:
    """RFC 5322 §3.6.3: the header of the copies is that of the message, and Bcc is in none."""
    template = replace(PLAIN, to_name="{{ name }}", cc="{{ cc }}", bcc="boss@example.com")
    composer = template.compile(["name", "cc"])
    cells = {"name": "Änn, A.", "cc": "Bob B. <bob@y.example>; cid@x.example"}
    message = composer.compose(ANN, cells, message_id="1@example.com", date=DATE)
    read = header(message)
    assert read["To"].addresses[0].display_name == "Änn, A."
    assert [each.addr_spec for each in read["Cc"].addresses] == ["bob@y.example", "cid@x.example"]
    assert b"boss" not in bytes(message.content)
    assert message.envelope.forward_paths == (ANN,)
    copy = composer.compose_copy(ANN, cells, recipient=BOB, token="2", message_id="1@example.com", date=DATE)
    assert bytes(copy.content) == bytes(message.content)
    assert copy.envelope.forward_paths == (BOB,)
    assert copy.envelope.reverse_path == message.envelope.reverse_path


def test_a_row_without_cc_has_no_field() -> None:
    """An empty list of addresses is not valid (RFC 5322 §3.6.3)."""
    assert header(compose(replace(PLAIN, cc="{{ cc }}", reply_to="{{ cc }}"), {"cc": ""})).keys() == [
        *("Date", "From", "To", "Subject", "Message-ID", "MIME-Version"),
        *("Content-Type", "Content-Transfer-Encoding"),
    ]


def test_a_copy_has_the_links_of_its_reader() -> None:
    """RFC 8058: who is in Cc and clicks must not unsubscribe the one in To."""
    unsubscribe = Unsubscribe("https://example.com/u/{{ token }}", SECRET, "off@example.com")
    composer = replace(NEWS, cc="{{ cc }}", unsubscribe=unsubscribe).compile(["name", "cc"])
    cells = {"name": "Ann", "cc": "bob@y.example"}
    ann, bob = unsubscribe_token(SECRET, ANN), unsubscribe_token(SECRET, BOB)
    first = bytes(composer.compose(ANN, cells, message_id="1@example.com", date=DATE).content).decode()
    copy = composer.compose_copy(ANN, cells, recipient=BOB, token="2", message_id="1@example.com", date=DATE)
    text = bytes(copy.content).decode()
    assert (ann in text, text.replace("=\r\n", "").count(bob)) == (False, 3)
    assert (bob in first, first.replace("=\r\n", "").count(ann)) == (False, 3)
    after = composer.compose(ANN, cells, message_id="1@example.com", date=DATE)
    assert bytes(after.content).decode() == first  # nothing of the copy is left behind


def test_each_copy_has_a_return_path_of_its_own() -> None:
    """A bounce names its recipient by the token, though all have one Message-ID."""
    composer = replace(PLAIN, bcc="{{ b }}", return_path="bounces+{{ token }}@example.com").compile(["b"])
    cells = {"b": "bob@y.example"}
    one, two = "a" * 26, "b" * 26
    message = composer.compose(ANN, cells, message_id=f"{one}@example.com", date=DATE)
    copy = composer.compose_copy(ANN, cells, recipient=BOB, token=two, message_id=f"{one}@example.com", date=DATE)
    assert str(message.envelope.reverse_path) == f"bounces+{one}@example.com"
    assert str(copy.envelope.reverse_path) == f"bounces+{two}@example.com"
    assert header(copy)["Message-ID"] == f"<{one}@example.com>"


@pytest.mark.parametrize(
    ("source", "address", "shown"),
    [
        ("{{ from }}", "ceo@example.com", "ceo@example.com"),
        ("{{ from }}", "The Boss <ceo@example.com>", "The Boss <ceo@example.com>"),
        ("{{ name }} <{{ from }}>", "ceo@example.com", '"Doe, Dee" <ceo@example.com>'),
        ("{{ name }} <{{ from }}@example.com>", "ceo", '"Doe, Dee" <ceo@example.com>'),
    ],
)
def test_a_row_may_have_its_own_sender(source: str, address: str, shown: str) -> None:
    """The return path follows it, unless there is one."""
    template = replace(PLAIN, from_=source.replace("{{ from }}", "{{ sender }}"))
    cells = {"sender": address, "name": "Doe, Dee"}
    message = compose(template, cells)
    assert header(message)["From"] == shown
    assert str(message.envelope.reverse_path) == "ceo@example.com"
    assert template.compile(list(cells)).author is None
    assert str(template.compile(list(cells)).find_author(ANN, cells)) == "ceo@example.com"
    assert str(compose(replace(template, return_path="b@example.com"), cells).envelope.reverse_path) == "b@example.com"


@pytest.mark.parametrize(
    "cell", ["", "a@x.example, b@x.example", "nobody", "postmaster", "a@x.example\nBcc: z@x.example"]
)
def test_a_row_without_one_sender_has_no_message(cell: str) -> None:
    """RFC 5322 §3.6.2: From has one author here; the error names row and key."""
    with pytest.raises(RecipientError, match="row 7: from: "):
        compose(replace(PLAIN, from_="{{ sender }}"), {"sender": cell}, row=7)


BAD = ["nobody", "b@x.example c@x.example", "Doe, Dee <d@x.example>", "<b@x.example", "postmaster", '"b c"@x.example']
INJECTED = ["b@x.example\r\nBcc: z@x.example", "B\n <b@x.example>", "b@x.example\0", "b@x.example\nc@x.example"]


@pytest.mark.parametrize("cell", [*BAD, *INJECTED])
@pytest.mark.parametrize("key", ["cc", "bcc", "reply_to"])
def test_what_is_no_address_is_an_error_of_row_and_key(key: str, cell: str) -> None:
    """Nothing is guessed, and no cell can begin another header field."""
    template = replace(PLAIN, **{key: "{{ them }}"})
    composer = template.compile(["them"])
    check = composer.compose if key == "reply_to" else composer.list_copies
    with pytest.raises(RecipientError, match=f"^{key}: "):
        check(ANN, {"them": cell})


@pytest.mark.parametrize("name", ["B\r\nBcc: z@x.example", "B\0", "B\n"])
def test_a_name_begins_no_header_field(name: str) -> None:
    """In To, Cc, Reply-To and From."""
    for change in (
        {"to_name": "{{ name }}"},
        *({key: "{{ name }} <b@x.example>"} for key in ("cc", "reply_to", "from_")),
    ):
        with pytest.raises(RecipientError, match=r"row 3: .*(line break|control character)"):
            compose(replace(PLAIN, **change), {"name": name}, row=3)


def test_a_cell_beside_literals_adds_no_recipient() -> None:
    """`{{ user }}@example.com` is one address, whatever the cell holds."""
    for cell in ("z@x.example, bob", "z@x.example;", "<z@x.example>,"):
        with pytest.raises(RecipientError, match="bcc: "):
            copies(replace(PLAIN, bcc="{{ user }}@example.com"), user=cell)


@pytest.mark.parametrize(
    ("key", "source"),
    [
        ("cc", "nobody"),
        ("bcc", "a@x.example, postmaster"),
        ("cc", "{{ nobody }}"),
        ("bcc", "; ,"),
        ("cc", "a\nb <{{ a }}>"),
    ],
)
def test_what_is_wrong_for_every_row_is_an_error_of_the_template(key: str, source: str) -> None:
    """Before any row is read."""
    with pytest.raises(TemplateError, match=key):
        replace(PLAIN, **{key: source}).compile(["a"])


def test_a_row_has_a_limit() -> None:
    """A hundred copies; a list that slipped into a cell is an error."""
    many = ",".join(f"r{number}@x.example" for number in range(101))
    assert len(copies(replace(PLAIN, cc="{{ them }}"), them=many.rpartition(",")[0])) == 100
    with pytest.raises(RecipientError, match="101 addresses"):
        copies(replace(PLAIN, cc="{{ them }}"), them=many)


def test_a_list_takes_linear_time() -> None:
    """A cell of a megabyte of quotes is refused, or read, at once."""
    for text in ('"' * 100_001, "<" * 100_000, "(" * 100_000, "a b," * 100_000):
        with pytest.raises(RecipientError) as caught:
            parse_addresses(text)
        assert len(caught.value.reason) < 400
    assert len(parse_addresses("a@x.example," * 20_000)) == 20_000
