"""HTML in pieces: what is a tag, a comment, a text, and where a value stands in a tag."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.mail.converting.markup import Kind, attributes, tokens


@pytest.mark.parametrize(
    ("html", "kinds"),
    [
        ("a<b>c</b>", [Kind.TEXT, Kind.TAG, Kind.TEXT, Kind.TAG]),
        ('<a title="a > b" x=\'>\' y = ">">', [Kind.TAG]),
        ("<a title=it's>b", [Kind.TAG, Kind.TEXT]),
        ("1 < 2", [Kind.TEXT]),
        ("<!doctype html><!-- <p> --><!--[if mso]><p><![endif]--><!-->x", [Kind.COMMENT] * 4 + [Kind.TEXT]),
        ("<title>a <b> c</TITLE >d", [Kind.TAG, Kind.RAW, Kind.TAG, Kind.TEXT]),
        ("<p>a <b <!-- c", [Kind.TAG, Kind.TEXT, Kind.COMMENT]),
        ("<a " * 100_000, [Kind.TEXT]),
        ("<style></style><textarea><", [Kind.TAG, Kind.TAG, Kind.TAG, Kind.RAW]),
    ],
)
def test_each_piece_is_what_it_is(html: str, kinds: list[Kind]) -> None:
    assert [token.kind for token in tokens(html)] == kinds


@given(st.lists(st.sampled_from(["<", ">", "<p", '"', "'", "=", "<!--", "-->", "</title>", "<title>", "x", " ", "/"])))
def test_nothing_is_left_out(pieces: list[str]) -> None:
    html = "".join(pieces)
    assert "".join(token.text for token in tokens(html)) == html
    for token in tokens(html):
        assert html[token.start :].startswith(token.text)


def test_a_value_is_where_its_attribute_says() -> None:
    (tag,) = tokens('<IMG data-src="a" SRC = b.png checked alt=\'c > "d"\' />')
    assert [(each.name, each.value, each.quoted) for each in attributes(tag)] == [
        ("data-src", "a", True),
        ("src", "b.png", False),
        ("checked", None, False),
        ("alt", 'c > "d"', True),
    ]
    assert all(tag.text[each.start : each.end] == (each.value or "") for each in attributes(tag))
