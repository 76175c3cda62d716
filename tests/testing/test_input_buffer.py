"""A relay's input: the same lines, content and chunks wherever the octets are cut."""

from __future__ import annotations

import re
import sys
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.testing.transport import InputBuffer

OCTETS = st.lists(st.sampled_from([b"\r", b"\n", b".", b"a", b"\r\n", b"\r\n."]), max_size=30).map(b"".join)
CUTS = st.lists(st.integers(0, 60), max_size=10)


def stuffed(content: bytes) -> bytes:
    """Double each dot that begins a line (RFC 5321 §4.5.2); only CRLF ends one."""
    return re.sub(rb"(?:^|(?<=\r\n))\.", b"..", content)


def feed(octets: bytes, cuts: list[int], limit: int = sys.maxsize) -> tuple[tuple[bytes, bool] | None, bytes]:
    """Feed these octets piece by piece, asking for content after each; what was read, and what is left."""
    source, read = InputBuffer(), None
    edges = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    for start, end in pairwise(edges):
        source.feed(octets[start:end])
        read = read or source.read_content(limit)
    return read, source.peek()


@given(OCTETS, CUTS)
def test_content_is_what_the_client_had_before_transparency(octets: bytes, cuts: list[int]) -> None:
    """WO-07, WO-08: whatever is in it, the end of data is the one at the end, and the dots are undone."""
    content = octets + b"\r\n"
    wire = stuffed(content) + b".\r\n"
    assert feed(wire + b"RSET\r\n", cuts) == ((content, True), b"RSET\r\n")


@given(OCTETS, CUTS)
def test_any_octets_read_the_same_in_one_piece_and_in_many(octets: bytes, cuts: list[int]) -> None:
    """A client's faults included."""
    assert feed(octets, cuts) == feed(octets, [])


@given(st.binary(max_size=200), st.integers(0, 50), CUTS)
def test_what_is_too_big_is_told_apart_wherever_it_is_cut(octets: bytes, limit: int, cuts: list[int]) -> None:
    """RFC 1870: the size is what stands before transparency."""
    content = octets.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n"
    wire = stuffed(content) + b".\r\n"
    fits = len(content) <= limit
    assert feed(wire, cuts, limit) == ((content if fits else b"", fits), b"")


@given(OCTETS, CUTS)
def test_lines_end_in_crlf_and_nowhere_else(octets: bytes, cuts: list[int]) -> None:
    """RFC 5321 §2.3.8."""
    source, lines = InputBuffer(), []
    edges = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    for start, end in pairwise(edges):
        source.feed(octets[start:end])
        while (line := source.read_line()) is not None:
            lines.append(line)
    assert [*lines, source.peek()] == octets.split(b"\r\n")


def test_content_without_end_is_dropped_as_it_comes() -> None:
    """A relay for tests must not eat the memory of the tests."""
    source = InputBuffer()
    for _ in range(1000):
        source.feed(b"x" * 1000)
        assert source.read_content(10_000) is None
        assert len(source) <= 21_004
    source.feed(b"\r\n.\r\n")
    assert source.read_content(10_000) == (b"", False)
