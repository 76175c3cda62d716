"""TF-09: the encoding of a file that nobody named; a wrong guess would be a wrong name in a thousand letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.text_encoding import UTF_8, detect_encoding, normalize_encoding
from asyncsmtp.errors import RecipientError

GERMAN = "email;name;stadt\nann@example.org;Jörg Müller;Köln\nbob@example.org;Käthe Weiß;Düsseldorf – Süd\n"
RUSSIAN = "email;имя\nann@example.org;Анна Сергеевна Иванова\nbob@example.org;Борис Николаевич Петров из Москвы\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [(GERMAN, "utf-8"), (GERMAN, "utf-8-sig"), (GERMAN, "utf-16"), (GERMAN, "utf-16-le"), (GERMAN, "utf-16-be")],
)
def test_what_spreadsheets_save_is_read_as_it_was_written(text: str, encoding: str) -> None:
    """By what it says, not by the name of the encoding: several read alike."""
    octets = text.encode(encoding)
    found = detect_encoding(octets, whole=True)
    assert found is not None
    assert octets.decode(found).removeprefix("\ufeff") == text


@pytest.mark.parametrize(("text", "encoding"), [(GERMAN, "cp1252"), (RUSSIAN, "cp1251"), (GERMAN, "utf-7")])
def test_what_is_not_utf_8_has_to_be_guessed(text: str, encoding: str) -> None:
    """From the whole file: see test_encoding_guess.py."""
    assert detect_encoding(text.encode(encoding), whole=True) is None


@given(st.text(max_size=200), st.integers(0, 3))
def test_utf_8_is_utf_8_wherever_it_is_cut(text: str, cut: int) -> None:
    """A character that the end of the sample cuts is no reason to guess."""
    octets = b"email\n" + text.encode("utf-8", "replace")
    assert detect_encoding(octets[: len(octets) - cut], whole=False) in (None, UTF_8, "utf-16-le", "utf-16-be")
    assert octets.isascii() or "\0" in text or detect_encoding(octets, whole=True) == UTF_8


@given(st.binary(max_size=300))
def test_any_octets_have_an_encoding_that_python_knows_or_none(octets: bytes) -> None:
    found = detect_encoding(octets, whole=True)
    assert found is None or normalize_encoding(found)


@pytest.mark.parametrize("name", ["", "klingon", "zlib", "rot13", "\0"])
def test_an_unknown_encoding_is_refused(name: str) -> None:
    with pytest.raises(RecipientError, match="is not an encoding: give one such as utf-8"):
        normalize_encoding(name)
