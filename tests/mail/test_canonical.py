"""The relaxed canonical form, against dkimpy and against the RFC read line by line."""

from __future__ import annotations

from hashlib import sha256
from itertools import pairwise

from dkim.canonicalization import Relaxed
from hypothesis import example, given
from hypothesis import strategies as st

from asyncsmtp.mail.signing.dkim import BodyHash, fields_of, relaxed_field
from tests.mail import dkim_verifier

LINES = st.lists(st.binary(max_size=12).map(lambda line: line.translate(None, b"\r\n\0")), max_size=8)
BLANKS = st.lists(st.text(" \tab.", max_size=8).map(str.encode), max_size=8)
BODIES = st.one_of(LINES, BLANKS).map(lambda lines: b"".join(line + b"\r\n" for line in lines))


@given(BODIES, st.lists(st.integers(0, 100), max_size=4))
@example(b"", [])
@example(b" \t\r\n\r\n", [1])
@example(b"a \t\r\n\r\n", [2])
@example(b" C \r\nD \t E\r\n\r\n\r\n", [3, 4])
def test_a_body_hashes_as_two_others_say_wherever_it_is_cut(body: bytes, cuts: list[int]) -> None:
    """F7, P3: dkimpy and the RFC's steps agree with ours, and the cuts do not matter."""
    hash_ = BodyHash()
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    for start, end in pairwise(edges):
        hash_.update(body[start:end])
    assert hash_.digest() == sha256(Relaxed.canonicalize_body(body)).digest()
    assert hash_.digest() == sha256(dkim_verifier.relaxed_body(body)).digest()


@given(st.lists(st.text("a \t:é", max_size=12), min_size=1, max_size=4))
def test_a_field_is_written_as_two_others_write_it(words: list[str]) -> None:
    """F7: folded anywhere, with white space anywhere."""
    field = b"X-Some \t:" + "\r\n ".join(words).encode()
    [(name, value)] = Relaxed.canonicalize_headers([(b"X-Some \t", field.partition(b":")[2] + b"\r\n")])
    assert relaxed_field(field) + b"\r\n" == name + b":" + value
    assert relaxed_field(field) + b"\r\n" == dkim_verifier.relaxed_field(field)


def test_a_field_keeps_its_folded_lines() -> None:
    """A line that begins with white space belongs to the one above."""
    fields = fields_of(b"Subject: a\r\n b\r\n\tc\r\nTO: d\r\n")
    assert fields == [(b"subject", b"Subject: a\r\n b\r\n\tc"), (b"to", b"TO: d")]
