"""Encoded words, judged by the standard library's decoder."""

from __future__ import annotations

from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.headers import encoded_words

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)


@given(TEXT, st.integers(0, 80))
def test_encoded_words_decode_to_the_text(text: str, room: int) -> None:
    """Nothing is lost, added or replaced, whatever the characters and the room on the line."""
    assert str(make_header(decode_header("\r\n ".join(encoded_words(text, room))))) == text


@given(TEXT, st.integers(24, 80))
def test_an_encoded_word_has_at_most_75_octets_and_fits_its_room(text: str, room: int) -> None:
    """RFC 2047 §2; each is also ASCII, and whole characters (§5): one that decodes alone."""
    words = encoded_words(text, room)
    assert len(words[0]) <= min(room, 75)
    assert max(map(len, words)) <= 75
    for word in words:
        (octets, charset), *more = decode_header(word)
        assert not more
        assert octets.decode(charset or "ascii")


@pytest.mark.parametrize(("text", "letter"), [("Zoë", "q"), ("Zoë and the others", "q"), ("日本語", "b")])
def test_the_shorter_of_the_two_encodings_is_taken(text: str, letter: str) -> None:
    """Q for text with a few accents, B for the rest (RFC 2047 §4)."""
    assert encoded_words(text)[0].startswith(f"=?utf-8?{letter}?")


def test_what_looks_like_an_encoded_word_is_encoded() -> None:
    """MH-03: the caller's text is literal."""
    (word,) = encoded_words("=?utf-8?q?x?=")
    assert str(make_header(decode_header(word))) == "=?utf-8?q?x?="


def test_half_a_pair_is_an_error() -> None:
    """MH-17: a lone surrogate has no encoding; a replacement would be silent."""
    with pytest.raises(MessageError, match="U\\+DCFF"):
        encoded_words("x\udcff")
