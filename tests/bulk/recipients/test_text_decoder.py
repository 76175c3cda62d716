"""Octets to text: UTF-8 wherever it is cut, and a way out for everything else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asyncsmtp.bulk.recipients.text_encoding import TextDecoder, count_line_ends
from asyncsmtp.errors import RecipientError


def decoded(*blocks: bytes) -> str:
    decoder = TextDecoder("people.csv")
    return "".join(decoder.decode(block) for block in blocks) + decoder.decode(b"", final=True)


def outcome(*blocks: bytes) -> str:
    """The text, or what is said of it."""
    try:
        return decoded(*blocks)
    except RecipientError as error:
        return f"refused: {error}"


def test_a_byte_order_mark_is_no_part_of_the_first_name() -> None:
    """TF-09: Excel writes one, and a column named “\\ufeffemail” is found by nobody."""
    assert decoded(b"\xef\xbb\xbfemail\n") == "email\n"
    assert decoded(b"\xef", b"\xbb", b"\xbfe", b"mail\n") == "email\n"


def test_a_second_byte_order_mark_stays() -> None:
    """Only the first three octets of the file are a mark; anywhere else the character is data."""
    assert decoded(b"\xef\xbb\xbf\xef\xbb\xbfa") == "\ufeffa"


@pytest.mark.parametrize("text", ["", "a", "é", "ab\n"])
def test_a_file_shorter_than_any_mark_is_read(text: str) -> None:
    """The decoder waits for four octets before it judges; some files never have them."""
    assert decoded(text.encode()) == text


@settings(deadline=None)
@given(st.data(), st.binary(max_size=40) | st.text("é€😀a\r\n\ufeff", max_size=12).map(str.encode))
def test_where_octets_are_cut_changes_nothing(data: st.DataObject, octets: bytes) -> None:
    """A block ends inside a character or a line end; the text, and the words of an error, are the same."""
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)), max_size=8)))
    blocks = [octets[begin:end] for begin, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)]
    assert outcome(*blocks) == outcome(octets)


@pytest.mark.parametrize(
    ("octets", "line", "offset"),
    [
        (b"name,email\nJos\xe9,jose@example.com\n", 2, 14),
        (b"a\r\nb\r\n\xff", 3, 6),
        (b"a\rb\r\xff", 3, 4),
        (b"\xef\xbb\xbfab\n\xff", 2, 6),
        (b"a\n\xc3", 2, 2),
    ],
    ids=["latin", "crlf", "cr", "behind a mark", "a character cut by the end"],
)
def test_an_octet_that_is_not_utf8_is_named_by_line_and_offset(octets: bytes, line: int, offset: int) -> None:
    """TF-09: “invalid start byte” sends nobody to the right line."""
    with pytest.raises(RecipientError, match=rf"^people\.csv, line {line}: byte 0x.* at offset {offset} is not UTF-8"):
        decoded(octets)


def test_the_error_shows_what_was_meant_and_how_to_convert() -> None:
    """Most files that are not UTF-8 are an older Windows'; a person recognises the letter."""
    with pytest.raises(RecipientError, match=r"0xE9 \(“é” in Windows-1252\).*such as cp1252, with encoding="):
        decoded(b"Jos\xe9\n")


@pytest.mark.parametrize(
    ("octets", "kind"),
    [
        ("name,email\n".encode("utf-16"), "UTF-16"),
        ("name,email\n".encode("utf-16-be"), "UTF-16"),
        ("name,email\n".encode("utf-16-le"), "UTF-16"),
        ("name,email\n".encode("utf-32"), "UTF-32"),
        (b"PK\x03\x04\x14\x00", "a workbook or a ZIP archive"),
        (b"\x1f\x8b\x08\x00", "compressed"),
    ],
    ids=["utf-16", "utf-16-be", "utf-16-le", "utf-32", "xlsx", "gzip"],
)
def test_what_is_no_utf8_text_is_called_by_its_name(octets: bytes, kind: str) -> None:
    """TF-09, TF-13: the first octets tell, and the way out differs."""
    with pytest.raises(RecipientError, match=f"people.csv is {kind}, not"):
        decoded(octets)
    with pytest.raises(RecipientError, match=f"people.csv is {kind}, not"):
        decoded(*(octets[i : i + 1] for i in range(len(octets))))


@settings(deadline=None)
@given(st.text("\r\na", max_size=20))
def test_line_ends_are_counted_as_a_text_file_has_them(text: str) -> None:
    """CR LF is one end, not two."""
    assert count_line_ends(text) == text.replace("\r\n", "\n").replace("\r", "\n").count("\n")
