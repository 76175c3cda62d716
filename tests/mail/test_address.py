"""Addresses as people write them."""

from __future__ import annotations

from contextlib import suppress
from time import perf_counter

import pytest

from asyncsmtp.errors import RecipientError
from asyncsmtp.mail.address import Address


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
        ("=?utf-8?q?x?= <b@x.example>", "=?utf-8?q?x?=", "b@x.example"),
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
        *("<a@x.example> <b@x.example>", "b@x.example <c@x.example>", "Bob (x) <b@x.example>", "b@x.example (Bob)"),
        *(
            '"open <b@x.example>',
            "Bob <>",
            "Team: a@x.example;",
            "Public, Bob <b@x.example>",
            "a@x.example;b@x.example",
        ),
        *("Bob\r\nBcc: z@x.example <b@x.example>", "Bob\n<b@x.example>", "b@x.example\r\n", "Bob\0 <b@x.example>"),
        *("<<b@x.example>>", "Bob\\ <b@x.example>", "a..b@x.example", "a@x＠y.example"),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(text: str) -> None:
    """MH-06, MH-07: a parser that repairs changes the recipient sooner or later."""
    with pytest.raises(RecipientError):
        Address.parse(text)


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
    "text", ["(" * 65_536, "<" * 65_536, '"\\' * 32_768, "a@b.example," * 6_000, "a " * 32_768 + "<a@b.example>"]
)
def test_time_is_linear_in_the_text(text: str) -> None:
    """MH-08: nested groups and regular expressions that go back have stopped whole servers."""
    start = perf_counter()
    with suppress(RecipientError):
        Address.parse_list(text)
    assert perf_counter() - start < 1
