"""Addresses as people write them."""

from __future__ import annotations

from contextlib import suppress
from email.utils import formataddr
from time import perf_counter

import pytest

from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.address import Address, AddressGroup, parse_address_list
from asyncsmtp.protocol.envelope import Mailbox


@pytest.mark.parametrize(
    ("text", "name", "address"),
    [
        ("bob@x.example", "", "bob@x.example"),
        ("<bob@x.example>", "", "bob@x.example"),
        ("Bob <bob@x.example>", "Bob", "bob@x.example"),
        ("  Bob Q. Public   <bob@x.example> ", "Bob Q. Public", "bob@x.example"),
        ('"Public, Bob" <bob@x.example>', "Public, Bob", "bob@x.example"),
        (r'"a \"b\" \\c" <bob@x.example>', r'a "b" \c', "bob@x.example"),
        ('Bob "the <one>" Public <bob@x.example>', "Bob the <one> Public", "bob@x.example"),
        ('"a b"@x.example', "", '"a b"@x.example'),
        ("Zoë <zoë@bücher.example>", "Zoë", "zoë@xn--bcher-kva.example"),
        ("O'Brien <b@x.example>", "O'Brien", "b@x.example"),
    ],
)
def test_one_address_is_a_name_and_a_mailbox(text: str, name: str, address: str) -> None:
    """The name is literal, quotes undone; the mailbox is what the envelope will say."""
    parsed = Address.parse(text)
    assert (parsed.name, parsed.mailbox.address) == (name, address)


@pytest.mark.parametrize(
    "text",
    [
        *("", "bob", "a@e@g", "@r.example:b@x.example", "<@r.example:b@x.example>", "alice@x.example)bob@x.example"),
        *(
            "a@x.example b@x.example",
            "a@x.example, b@x.example",
            "<a@x.example> b",
            "Bob <a@x.example",
            "Bob a@x.example>",
        ),
        *("<a@x.example> <b@x.example>", "b@x.example <c@x.example>", "Bob (x <b@x.example>", "b@x.example Bob)"),
        *(
            '"open <b@x.example>',
            "Bob <>",
            "Team: a@x.example;",
            "Public, Bob <b@x.example>",
            "a@x.example;b@x.example",
        ),
        *("Bob\r\nBcc: z@x.example <b@x.example>", "Bob\n<b@x.example>", "b@x.example\r\n", "Bob\0 <b@x.example>"),
        *("<<b@x.example>>", "Bob\\ <b@x.example>", ".a@x.example", "a@x＠y.example"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str) -> None:
    """MH-06, MH-07: a parser that repairs changes the recipient sooner or later."""
    with pytest.raises(RecipientError):
        Address.parse(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("b@x.example (Bob)", [("", "b@x.example")]),
        ("(x) Bob (y) Q. <(z) b@x.example (()\\))>", [("Bob Q.", "b@x.example")]),
        ("b (x) @ (y) x.example", [("", "b@x.example")]),
        ('"(" <b@x.example>, "c)"@x.example', [("(", "b@x.example"), ("", '"c)"@x.example')]),
        ("b@x.example,", [("", "b@x.example")]),
        (", b@x.example,, ,c@x.example ,", [("", "b@x.example"), ("", "c@x.example")]),
        (",", []),
        ("undisclosed-recipients:;", []),
        (
            "Team: B <b@x.example>, c@x.example;, d@x.example",
            [("B", "b@x.example"), ("", "c@x.example"), ("", "d@x.example")],
        ),
        ('"A: B" (x) : , b@x.example, ;', [("", "b@x.example")]),
    ],
)
def test_groups_comments_and_empty_elements_are_understood(text: str, shown: list[tuple[str, str]]) -> None:
    """FT-41: RFC 5322 §3.4 and §4.4; each has one reading, and `EmailMessage` takes them."""
    assert [(each.name, each.mailbox.address) for each in Address.parse_list(text)] == shown


@pytest.mark.parametrize(
    ("text", "mark"),
    [
        ('"Ann (Lee <a@x.example>', "quotation mark"),
        ('"Ann (Lee) <a@x.example>', "quotation mark"),
        ('(x) "Ann (Lee <a@x.example>', "quotation mark"),
        ('Ann ("Lee <a@x.example>', "comment"),
    ],
)
def test_the_mark_that_is_not_closed_is_the_first_one(text: str, mark: str) -> None:
    """A bracket between quotes begins no comment, nor a quotation mark in a comment a quoted string."""
    with pytest.raises(RecipientError, match=f"has a {mark} that is not closed"):
        Address.parse_list(text)


@pytest.mark.parametrize(
    "text",
    [
        *("Team: b@x.example", "b@x.example;", "Team: b@x.example; c@x.example", "A: B: b@x.example;;", ":;"),
        *("b@x.example (", "b@x.example )", "(b@x.example", "(\\) b@x.example", "b(x)c@x.example", "a (b) c@x.example"),
        *("<Team: b@x.example;>", "a@b: c@x.example;", "Team:; :;", "mr. bob@x.example", "a@x. example"),
    ],
)
def test_half_a_group_or_comment_is_refused(text: str) -> None:
    """FT-41: what a tolerant parser would complete, or join over a space."""
    with pytest.raises(RecipientError):
        Address.parse_list(text)


def test_a_group_keeps_its_name() -> None:
    """FT-41: so that it can be written as it was; where one address is meant it is refused."""
    (group,) = parse_address_list('"The, Team": B <b@x.example>;')
    assert group == AddressGroup("The, Team", (Address("B", Mailbox.parse("b@x.example")),))
    with pytest.raises(RecipientError, match="is a group"):
        Address.parse("Team: b@x.example;")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (formataddr(("Zoë", "b@x.example")), "Zoë"),
        (formataddr(("Müller, Jörg", "b@x.example"), "iso-8859-1"), "Müller, Jörg"),
        (formataddr(("用户" * 30, "b@x.example")), "用户" * 30),
        (formataddr(("Public, Bob", "b@x.example")), "Public, Bob"),
        ("=?utf-8?q?Zo=C3?= \t=?UTF-8*en?B?4oKs?= x =?us-ascii?q?y?= <b@x.example>", "=?utf-8?q?Zo=C3?= € x y"),
        ("Dr. =?utf-8?q?a_?= =?utf-8?q?b?= <b@x.example>", "Dr. a b"),
        ("=?utf-8?b?w7Y?= <b@x.example>", "ö"),
        ('"=?utf-8?q?x?=" <b@x.example>', "=?utf-8?q?x?="),
        ("x=?utf-8?q?x?= <b@x.example>", "x=?utf-8?q?x?="),
    ],
)
def test_an_encoded_name_is_decoded(text: str, name: str) -> None:
    """FT-49: the result of `email.utils.formataddr` was encoded twice; RFC 2047 §5 (3), §6.2."""
    assert Address.parse(text) == Address(name, Mailbox.parse("b@x.example"))


@pytest.mark.parametrize(
    "word",
    [
        *("=?utf-8?q?foo=0D=0ABcc=3A_z=40x?=", "=?utf-8?q?=00?=", "=?utf-8?q?=C2=85?=", "=?utf-8?q?=FF?="),
        *("=?utf-7?q?+2AA-?=", "=?idna?q?xn--a?=", "=?unicode_escape?q?=5Cx00?=", "=?hex?q?41?=", "=?no-such?q?x?="),
        *("=?idna?q?abc?=", "=?punycode?q?abc-?=", "=?raw_unicode_escape?q?abc?=", "=?unicode-escape?q?abc?="),
        *("=?UTF-7?q?abc?=", "=?undefined?q?abc?=", "=?UTF7?b?YWJj?="),
        *("=?utf-8?b?x?=", "=?utf-8?x?x?=", "=?utf-8?q??=", "=?utf-8?q?x", "=?utf-16?b?ANg=?="),
    ],
)
def test_what_decodes_to_no_text_stays_as_it_is(word: str) -> None:
    """MH-03, FT-49: a line break or half a character never comes out of a name."""
    assert Address.parse(f"{word} <b@x.example>").name == word


@pytest.mark.parametrize(
    ("mark", "what"),
    [
        ("\n", "a line break"),
        ("\r", "a line break"),
        ("\0", r"the control character U\+0000"),
        ("\x7f", r"the control character U\+007F"),
    ],
)
def test_a_control_character_is_named(mark: str, what: str) -> None:
    """A line break by its usual name, the others by their numbers."""
    with pytest.raises(RecipientError, match=f"“.*” contains {what}$"):
        Address.parse(f"Bob{mark} <b@x.example>")


def test_a_list_is_cut_at_commas_outside_quotes_and_brackets() -> None:
    """`"Last, First" <a@b>` is one address."""
    parsed = Address.parse_list('"A, B" <a@x.example>,b@x.example , C <"c,d"@x.example>')
    assert [(each.name, each.mailbox.address) for each in parsed] == [
        ("A, B", "a@x.example"),
        ("", "b@x.example"),
        ("C", '"c,d"@x.example'),
    ]


def test_no_text_is_no_address() -> None:
    """An optional field that is left empty asks for nothing."""
    assert Address.parse_list("  ") == ()


@pytest.mark.parametrize(
    "text",
    [
        "(" * 65_536,
        "(" * 32_768 + ")" * 32_768,
        "a:;" * 20_000,
        "[" * 65_536,
        "=?" * 32_768,
        "<" * 65_536,
        '"\\' * 32_768,
        "a@b.example," * 6_000,
        "a " * 32_768 + "<a@b.example>",
    ],
)
def test_time_is_linear_in_the_text(text: str) -> None:
    """MH-08: nested groups and regular expressions that go back have stopped whole servers."""
    start = perf_counter()
    with suppress(RecipientError):
        Address.parse_list(text)
    assert perf_counter() - start < 1
