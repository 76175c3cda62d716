"""HTML in pieces: what is a tag, a comment, a text, and where a value stands in a tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.mail.conversion.images import TokenKind, parse_attributes, parse_tokens


@pytest.mark.parametrize(
    ("html", "kinds"),
    [
        ("a<b>c</b>", [TokenKind.TEXT, TokenKind.TAG, TokenKind.TEXT, TokenKind.TAG]),
        ('<a title="a > b" x=\'>\' y = ">">', [TokenKind.TAG]),
        ("<a title=it's>b", [TokenKind.TAG, TokenKind.TEXT]),
        ("1 < 2", [TokenKind.TEXT]),
        ("<!doctype html><!-- <p> --><!--[if mso]><p><![endif]--><!-->x", [TokenKind.COMMENT] * 4 + [TokenKind.TEXT]),
        ("<title>a <b> c</TITLE >d", [TokenKind.TAG, TokenKind.RAW, TokenKind.TAG, TokenKind.TEXT]),
        ("<p>a <b <!-- c", [TokenKind.TAG, TokenKind.TEXT, TokenKind.COMMENT]),
        ("<a " * 100_000, [TokenKind.TEXT]),
        ("<style></style><textarea><", [TokenKind.TAG, TokenKind.TAG, TokenKind.TAG, TokenKind.RAW]),
    ],
)
def test_each_piece_is_what_it_is(html: str, kinds: list[TokenKind]) -> None:
    assert [token.kind for token in parse_tokens(html)] == kinds


@given(st.lists(st.sampled_from(["<", ">", "<p", '"', "'", "=", "<!--", "-->", "</title>", "<title>", "x", " ", "/"])))
def test_nothing_is_left_out(pieces: list[str]) -> None:
    html = "".join(pieces)
    assert "".join(token.text for token in parse_tokens(html)) == html
    for token in parse_tokens(html):
        assert html[token.start :].startswith(token.text)


def test_a_value_is_where_its_attribute_says() -> None:
    (tag,) = parse_tokens('<IMG data-src="a" SRC = b.png checked alt=\'c > "d"\' />')
    assert [(each.name, each.value, each.quoted) for each in parse_attributes(tag)] == [
        ("data-src", "a", True),
        ("src", "b.png", False),
        ("checked", None, False),
        ("alt", 'c > "d"', True),
    ]
    assert all(tag.text[each.start : each.end] == (each.value or "") for each in parse_attributes(tag))
