"""Transfer encodings, judged by the standard library's decoders."""

from __future__ import annotations

from base64 import b64decode
from quopri import decodestring

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError
from asyncsmtp.mail.mime import TransferEncoding, base64, lines, quoted_printable, soft_broken

OCTETS = st.binary(max_size=400).map(lambda octets: octets.replace(b"\r", b""))
CURIOUS = st.lists(st.sampled_from([b" ", b"\t", b"\n", b".", b"=", b"x" * 37, b"\xff", b"From "]), max_size=40).map(
    b"".join
)


@given(OCTETS | CURIOUS)
@example(b"x" * 75 + b" \nb")
@example(b"x" * 74 + b"\t\n")
@example(b".\n.\n.")
def test_quoted_printable_comes_back_on_lines_of_76(octets: bytes) -> None:
    """RFC 2045 §6.7; `b2a_qp` alone makes lines of 78 when white space ends them."""
    encoded = quoted_printable(octets)
    assert decodestring(encoded.replace(b"\r\n", b"\n")) == octets
    assert max(map(len, encoded.split(b"\r\n"))) <= 76
    assert encoded.count(b"\r") == encoded.count(b"\n") == encoded.count(b"\r\n")
    assert not any(line.endswith((b" ", b"\t")) for line in encoded.split(b"\r\n"))


@given(OCTETS | CURIOUS, OCTETS | CURIOUS)
def test_after_a_soft_break_anything_may_follow(first: bytes, second: bytes) -> None:
    """What is encoded apart is one text again when it is put together, and no line grows too long."""
    encoded = soft_broken(first) + quoted_printable(second)
    assert decodestring(encoded.replace(b"\r\n", b"\n")) == first + second
    assert max(map(len, encoded.split(b"\r\n"))) <= 76


@given(st.lists((OCTETS | CURIOUS).map(lambda octets: octets + b"\n"), max_size=5))
def test_lines_encoded_apart_are_the_text_encoded_whole(texts: list[bytes]) -> None:
    """A cut at a line end cannot be seen in the message."""
    assert b"".join(map(quoted_printable, texts)) == quoted_printable(b"".join(texts))


@given(st.binary(max_size=500))
def test_base64_comes_back_on_lines_of_76(octets: bytes) -> None:
    """RFC 2045 §6.8."""
    encoded = base64(octets)
    assert b64decode(encoded) == octets
    assert all(len(line) == 76 for line in encoded.split(b"\r\n")[:-2])
    assert encoded == b"" or encoded.endswith(b"\r\n")


@pytest.mark.parametrize(
    ("text", "transfer"),
    [
        ("plain\n", TransferEncoding.SEVEN_BIT),
        ("x" * 998 + "\n", TransferEncoding.SEVEN_BIT),
        ("x" * 999 + "\n", TransferEncoding.QUOTED_PRINTABLE),
        ("bell \x07\n", TransferEncoding.QUOTED_PRINTABLE),
        ("--=_x\n", TransferEncoding.QUOTED_PRINTABLE),
        ("Grüße aus Köln\n", TransferEncoding.BASE64),
        ("Ein langer Satz mit einem einzigen ü darin.\n", TransferEncoding.QUOTED_PRINTABLE),
        ("日本語" * 20, TransferEncoding.BASE64),
        ("", TransferEncoding.SEVEN_BIT),
    ],
)
def test_the_encoding_follows_from_the_text(text: str, transfer: TransferEncoding) -> None:
    """Plain where possible, then the shorter; what could be taken for a boundary is not plain (MH-13)."""
    assert TransferEncoding.of(text) is transfer


def test_all_line_ends_become_one() -> None:
    """Windows, Unix and old Macintosh in one text."""
    assert lines("a\r\nb\rc\nd\r\r\n") == "a\nb\nc\nd\n\n"


def test_a_nul_in_a_text_is_an_error() -> None:
    """MH-16: to drop it would be silent, to send it would cut the text somewhere."""
    with pytest.raises(MessageError, match="NUL"):
        lines("a\0b")


@given(OCTETS | CURIOUS)
def test_no_encoding_can_hold_a_boundary(octets: bytes) -> None:
    """MH-13: `=_` is neither quoted-printable nor base64."""
    assert b"=_" not in quoted_printable(octets)
    assert b"=_" not in base64(octets)
