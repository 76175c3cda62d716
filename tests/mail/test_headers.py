"""Header fields, judged by the standard library's parser."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from email import message_from_bytes, policy
from email.header import decode_header, make_header
from email.headerregistry import AddressHeader, DateHeader
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError
from asyncsmtp.mail import headers
from asyncsmtp.mail.address import Address
from asyncsmtp.protocol.envelope import Mailbox

BOB = Mailbox.parse("bob@x.example")
LITERAL = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=300)
CURIOUS = st.text('ab =?_=\t,<>@"\\é日', max_size=200)


def parsed(field: bytes) -> Any:
    """The one field, as the standard library reads it."""
    message = message_from_bytes(field + b"\r\nbody\r\n", policy=policy.default)
    assert len(message.items()) == 1
    return message.values()[0]


def shape(field: bytes) -> None:
    """Canonical lines, every one after the first a continuation that holds a word."""
    *lines, last = field.split(b"\r\n")
    assert last == b""
    assert b"\r" not in b"".join(lines)
    assert b"\n" not in b"".join(lines)
    assert all(line[:1] in b" \t" and line.strip() for line in lines[1:])
    assert max(map(len, lines)) <= 998


@given(LITERAL | CURIOUS)
def test_text_comes_back_as_it_went_in(text: str) -> None:
    """MH-01, MH-03, MH-05: parse(fold(text)) == text, and there is one header, whatever the text."""
    field = headers.format_unstructured("Subject", text)
    shape(field)
    assert str(parsed(field)).strip(" \t") == text.strip(" \t")


@given(st.text("abcdefghij é", max_size=400))
def test_lines_have_78_bytes_where_words_allow_it(text: str) -> None:
    """RFC 5322 §2.1.1; 76 with an encoded word (RFC 2047 §2). A word longer than a line stays whole."""
    if max(map(len, text.split()), default=0) < 70:
        for line in headers.format_unstructured("Subject", text).split(b"\r\n"):
            assert len(line) <= (76 if b"=?" in line else 78)


def test_a_plain_text_stays_plain() -> None:
    """What needs no encoding is readable on the wire."""
    assert headers.format_unstructured("Subject", " News for Bob ") == b"Subject: News for Bob\r\n"


def test_what_looks_encoded_is_encoded_and_so_means_itself() -> None:
    """MH-03 (CVE-2024-6923): the standard library of 3.11 and 3.12 made a Bcc header of this."""
    subject = "=?utf-8?q?foo=0D=0ABcc=3A_z=40x?="
    field = headers.format_unstructured("Subject", subject)
    assert b"0D" not in field
    assert field.count(b"\r\n") == 1


@pytest.mark.parametrize("bad", ["\r", "\n", "\r\n", "\0", "\x0b", "\x1b", "\x7f", "\r\nBcc: z@x.example", "\n x"])
@pytest.mark.parametrize(
    "write",
    [
        lambda bad: headers.format_unstructured("Subject", f"a{bad}b"),
        lambda bad: headers.format_field("X-Any", f"é{bad}"),
        lambda bad: headers.format_tokens("References", f"<a@b>{bad}"),
        lambda bad: headers.format_addresses("To", [Address(f"Bob{bad}", BOB)]),
        lambda bad: headers.format_addresses("To", [Address(f"Zoë{bad}x", BOB)]),
        lambda bad: headers.format_message_id(f"a{bad}@b"),
        lambda bad: headers.format_content_id(f"logo{bad}"),
        lambda bad: headers.check_header_name(f"X-A{bad}"),
    ],
)
def test_no_setter_takes_a_control_character(write: Callable[[str], object], bad: str) -> None:
    """MH-01, MH-16: refused, not replaced."""
    with pytest.raises(MessageError):
        write(bad)


@pytest.mark.parametrize("name", ["", "X Y", "X:", "X\r\nBcc: z", "Bcc: z\nX", "é", "x" * 77, "X\0"])
def test_an_invalid_name_is_refused(name: str) -> None:
    """MH-02: a line break or colon in a name is a header of the attacker's own."""
    with pytest.raises(MessageError):
        headers.check_header_name(name)


@pytest.mark.parametrize(
    "name", ["Bcc", "FROM", "Content-Type", "Resent-To", "Message-Id", "MIME-Version", "Return-Path"]
)
def test_a_free_header_cannot_be_one_that_follows_from_the_message(name: str) -> None:
    """MH-02, MH-12: a second From, or a Bcc that travels, is never wanted."""
    with pytest.raises(MessageError):
        headers.check_extra_header(name)


def test_a_free_header_is_there_once() -> None:
    """Feedback-ID and feedback-id are one field to who reads them."""
    headers.check_extra_headers(["Feedback-ID", "List-ID"])
    with pytest.raises(MessageError, match=r"^List-Id: .* twice, also as “List-ID”: remove one of them"):
        headers.check_extra_headers(["List-ID", "Feedback-ID", "List-Id"])
    with pytest.raises(MessageError):
        headers.check_extra_headers(["Bcc"])


def test_long_identifiers_are_folded_between_not_encoded() -> None:
    """MH-18: the standard library makes encoded words of References, and threads fall apart."""
    ids = [f"<{letter * 70}@x.example>" for letter in "abc"]
    field = headers.format_field("References", " ".join(ids))
    shape(field)
    assert field.split() == [b"References:", *(each.encode() for each in ids)]
    assert b"=?" not in field


def test_a_question_mark_in_a_url_is_not_an_encoded_word() -> None:
    """List-Unsubscribe is read by machines that decode nothing."""
    assert headers.format_field("List-Unsubscribe", "<https://x.example/?a=?b>") == (
        b"List-Unsubscribe: <https://x.example/?a=?b>\r\n"
    )


@pytest.mark.parametrize(("word", "length"), [("=?utf-8?q?=C3=BC?=", 76), ("=?us-ascii?", 78), ("plain", 78)])
def test_a_line_with_an_encoded_word_is_shorter(word: str, length: int) -> None:
    """RFC 2047 §2: 76 characters; RFC 5322 §2.1.1: any other line should have 78 at the most."""
    start = f"Subject: {word}"
    most = "x" * (length - len(start) - 1)
    assert headers.fold("Subject", [("", word), (" ", most)]) == f"{start} {most}\r\n".encode()
    assert headers.fold("Subject", [("", word), (" ", most + "x")]) == f"{start}\r\n {most}x\r\n".encode()


@pytest.mark.parametrize("name", ["Subject", "X-" + "N" * 40])
def test_a_long_encoded_text_begins_on_the_line_of_its_name(name: str) -> None:
    """The first encoded word is shorter by the name, so that no line holds the name alone."""
    first, second, *_ = headers.format_unstructured(name, "ü" * 100).split(b"\r\n")
    assert first.startswith(f"{name}: =?utf-8?".encode())
    assert len(first) <= 76 < len(first) + len("=C3=BC")
    assert len(second) <= 76 < len(second) + len("=C3=BC")


def test_a_machine_field_takes_ascii_only() -> None:
    """An encoded word inside it would be part of the value."""
    with pytest.raises(MessageError, match="References"):
        headers.format_field("References", "<ü@x.example>")


@pytest.mark.parametrize(("octets", "fits"), [(900, True), (997, True), (998, False), (5000, False)])
def test_a_word_too_long_for_a_line_is_an_error(octets: int, fits: bool) -> None:
    """MH-18: the limit is 998 with the space before it; to cut it would change it."""
    if fits:
        shape(headers.format_unstructured("Subject", "x" * octets))
    else:
        with pytest.raises(MessageError, match="Subject"):
            headers.format_unstructured("Subject", "x" * octets)


@pytest.mark.parametrize("write", [headers.format_unstructured, headers.format_tokens])
def test_half_a_pair_is_an_error_that_names_the_header(write: Callable[[str, str], bytes]) -> None:
    """MH-17."""
    with pytest.raises(MessageError, match="Subject"):
        write("Subject", "x\udcff")


@given(
    st.lists(st.tuples(LITERAL | CURIOUS, st.sampled_from(["b@x.example", '"a b"@x.example'])), min_size=1, max_size=5)
)
def test_names_never_touch_the_addresses_beside_them(people: list[tuple[str, str]]) -> None:
    """MH-05: commas, brackets, quotes and @ in a name; as many addresses come back, and the same.

    White space apart, the names too: the library's parser of phrases adds some between encoded words.
    """
    field = headers.format_addresses("To", [Address(name, Mailbox.parse(address)) for name, address in people])
    shape(field)
    header = cast(AddressHeader, parsed(field))
    assert [each.addr_spec for each in header.addresses] == [address for _, address in people]
    assert ["".join((each.display_name or "").split()) for each in header.addresses] == [
        "".join(name.split()) for name, _ in people
    ]


@given(LITERAL | CURIOUS)
def test_a_display_name_comes_back(name: str) -> None:
    """MH-05: quoted or encoded, it decodes to itself, white space included."""
    field = headers.format_addresses("To", [Address(name, BOB)])
    phrase = field.decode().replace("\r\n", "").removeprefix("To: ").removesuffix("bob@x.example>").removesuffix(" <")
    if phrase.startswith('"'):
        assert re.sub(r"\\(.)", r"\1", phrase[1:-1]) == name.strip(" \t")
    elif name.strip(" \t"):
        assert str(make_header(decode_header(phrase))) == name.strip(" \t")


@pytest.mark.parametrize("length", range(1, 201))
def test_a_name_of_any_length_with_every_special_is_one_name(length: int) -> None:
    """MH-05: gh-80222 and gh-121284 lost the quotes at a fold."""
    name = (',<>@" x' * 40)[:length].strip()
    field = headers.format_addresses("To", [Address(name, BOB), Address("", BOB)])
    header = cast(AddressHeader, parsed(field))
    assert [each.addr_spec for each in header.addresses] == ["bob@x.example", "bob@x.example"]
    assert (header.addresses[0].display_name or "").replace(" ", "") == name.replace(" ", "")
    assert not header.addresses[1].display_name


def test_an_address_beyond_ascii_stays_as_it_is() -> None:
    """RFC 6532: there is no encoded form of a local part."""
    field = headers.format_addresses("To", [Address("Zoë", Mailbox.parse("zoë@x.example"))])
    assert field.endswith("<zoë@x.example>\r\n".encode())


@given(st.datetimes(min_value=datetime(1900, 1, 1)), st.none() | st.integers(-1439, 1439))
def test_a_date_comes_back(moment: datetime, offset: int | None) -> None:
    """The offset is the caller's; without one it is -0000, which says that nobody knows (RFC 5322 §3.3)."""
    moment = moment.replace(microsecond=0, tzinfo=None if offset is None else timezone(timedelta(minutes=offset)))
    field = headers.format_date(moment)
    assert cast(DateHeader, parsed(field)).datetime == moment
    assert field.endswith(b"-0000\r\n") == (offset is None)


def test_a_date_speaks_english() -> None:
    """strftime would follow the locale of the process."""
    assert (
        headers.format_date(datetime(2025, 3, 5, 7, 8, 9, tzinfo=UTC)) == b"Date: Wed, 05 Mar 2025 07:08:09 +0000\r\n"
    )


@pytest.mark.parametrize(
    "value", ["", "a", "a@", "@b", "a b@c", "<a@b>", "a@b>", "a@b c", "ü@b", "a@b\r\nX: y", "a@" + "b" * 999]
)
def test_an_invalid_identifier_is_refused(value: str) -> None:
    """MH-15: a Message-ID made from data is a place to write headers from."""
    with pytest.raises(MessageError):
        headers.format_message_id(value)


def test_an_identifier_stays_on_one_line() -> None:
    """Logs and mailboxes are searched for it."""
    value = "a" * 90 + "@x.example"
    assert headers.format_message_id(value) == f"Message-ID: <{value}>\r\n".encode()


RESERVED = [
    "Bcc",
    "Cc",
    "Date",
    "DKIM-Signature",
    "From",
    "Message-ID",
    "MIME-Version",
    "Received",
    "Reply-To",
    "Return-Path",
    "Sender",
    "Subject",
    "To",
    "Content-Anything",
    "Resent-Anything",
]
STRUCTURED = [
    "Auto-Submitted",
    "Content-Language",
    "Errors-To",
    "Feedback-ID",
    "Importance",
    "In-Reply-To",
    "List-Archive",
    "List-Help",
    "List-Owner",
    "List-Post",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Precedence",
    "References",
    "X-Priority",
]


@pytest.mark.parametrize("name", RESERVED)
@pytest.mark.parametrize("case", [str, str.lower, str.upper])
def test_a_field_that_the_message_writes_is_not_free(name: str, case: Callable[[str], str]) -> None:
    """RFC 5322 §3.6: most of them must be there once."""
    with pytest.raises(MessageError, match="this header is written by the library"):
        headers.check_extra_header(case(name))
    headers.check_extra_header(f"X-{case(name)}")


@pytest.mark.parametrize("name", STRUCTURED)
def test_a_field_for_programs_is_never_encoded(name: str) -> None:
    """An encoded word is allowed in text, phrases and comments only (RFC 2047 §5)."""
    for each in (name, name.lower()):
        with pytest.raises(MessageError, match=f"^{each}: the value must be ASCII"):
            headers.format_field(each, "ü")
        assert headers.format_field(each, "a =?b") == f"{each}: a =?b\r\n".encode()
    assert b"=?utf-8?" in headers.format_field(f"X-{name}", "ü")


@pytest.mark.parametrize(("length", "fits"), [(918, True), (919, False)])
def test_an_identifier_may_have_918_characters(length: int, fits: bool) -> None:
    """With its name and brackets it fits on one line, also where it is quoted."""
    value = "a@" + "b" * (length - 2)
    if fits:
        assert headers.format_message_id(value) == f"Message-ID: <{value}>\r\n".encode()
    else:
        with pytest.raises(MessageError, match="must look like left@right"):
            headers.format_message_id(value)


@pytest.mark.parametrize(("value", "shown"), [("logo", "logo"), ("<a@b>", "a@b"), ("x" * 200, "x" * 200)])
def test_a_name_of_an_image(value: str, shown: str) -> None:
    """RFC 2392; brackets are taken off, as `make_msgid` puts them round."""
    assert headers.format_content_id(value) == f"Content-ID: <{shown}>\r\n".encode()
    for wrong in (f"{value}" * 201, f"{shown}>", f"<{shown}", f"{shown}@@"):
        with pytest.raises(MessageError, match="is not a valid name for an image"):
            headers.format_content_id(wrong)


@pytest.mark.parametrize("length", [75, 76, 77, 78, 79])
def test_text_of_one_line_stays_on_it(length: int) -> None:
    """RFC 5322 §2.1.1: up to 78 characters, with the name."""
    text = "a" * 30 + " " + "b" * (length - 40)
    field = headers.format_unstructured("Subject", text)
    assert (field.count(b"\r\n") == 1) == (length <= 78)


@pytest.mark.parametrize("length", [76, 77, 78, 79])
def test_addresses_of_one_line_stay_on_it(length: int) -> None:
    """As text does."""
    local = "b" * (length - len("To: A <bob@x.example>, @x.example"))
    field = headers.format_addresses("To", [Address("A", BOB), Address("", Mailbox.parse(f"{local}@x.example"))])
    assert (field.count(b"\r\n") == 1) == (length <= 78)


def test_an_empty_list_has_no_field() -> None:
    """RFC 5322 §3.6.3."""
    assert headers.format_addresses("To", []) == b""
