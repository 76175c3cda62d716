"""Content that comes in blocks: it passes, is repaired or refused, and the cuts make no difference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.content import Content, ContentNormalizer, DotStuffer


def passed(judge: ContentNormalizer, *blocks: bytes) -> bytes:
    return b"".join([*map(judge.feed, blocks), judge.end()])


def split(octets: bytes, places: list[int]) -> list[bytes]:
    """The octets in pieces, cut at these places."""
    ends = sorted({place % (len(octets) + 1) for place in places})
    return [octets[start:end] for start, end in zip([0, *ends], [*ends, len(octets)], strict=True)]


OCTETS = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b".", b"a", b"A: b", b"\0", "é".encode(), b"x" * 997, b"y" * 2])
).map(b"".join)


@given(OCTETS, st.lists(st.integers(0, 5000), max_size=6), st.booleans())
def test_the_same_passes_and_the_same_is_refused_however_it_is_cut(
    octets: bytes, places: list[int], fix_eols: bool
) -> None:
    """P3, WO-06, WO-10: as in one piece, which `Content.of` judges."""
    try:
        whole = Content.of(octets, fix_eols=fix_eols)
    except MessageError:
        whole = None
    judge = ContentNormalizer(fix_eols=fix_eols)
    try:
        found = passed(judge, *split(octets, places))
    except MessageError:
        assert whole is None
    else:
        assert whole is not None
        assert found == bytes(whole)
        assert (judge.size, judge.eight_bit, judge.utf8_headers) == (whole.size, whole.eight_bit, whole.utf8_headers)


@given(OCTETS, st.lists(st.integers(0, 5000), max_size=6))
def test_blocks_become_the_content_of_the_whole(octets: bytes, places: list[int]) -> None:
    """FT-48: the same bytes, size and needs as `Content.of`, or the same refusal."""
    try:
        whole = Content.of(octets, fix_eols=True)
    except MessageError:
        with pytest.raises(MessageError):
            Content.from_blocks(split(octets, places))
        return
    made = Content.from_blocks(split(octets, places))
    assert bytes(made) == bytes(whole)
    assert (made.size, made.eight_bit, made.utf8_headers) == (whole.size, whole.eight_bit, whole.utf8_headers)
    assert made.needs_dot_stuffing or not whole.needs_dot_stuffing


def test_large_blocks_stay_apart_and_small_ones_are_joined() -> None:
    """FT-48: so that no step takes as long as all of them; the first holds the whole header section."""
    head, line = b"Subject: x\n\n", b"x" * 70 + b"\n"
    made = Content.from_blocks([head, *[line * 1000] * 5, *[line] * 10])
    assert [part.count(b"\r\n") for part in made.parts] == [1002, 1000, 1000, 1000, 1000, 10]
    assert len(Content.from_blocks([line] * 10).parts) == 1


@pytest.mark.parametrize(
    ("blocks", "why"),
    [
        ((b"a\r", b"b\r\n"), "a bare CR at byte 1"),
        ((b"a\r\n", b"\nb"), "a bare LF at byte 3"),
        ((b"abc", b"\r"), "a bare CR at byte 3"),
        ((b"a\r\n", b"b\0"), "a NUL at byte 4"),
        ((b"x" * 500, b"x" * 499), "a line of more than 998 bytes ends at or after byte 500"),
    ],
)
def test_invalid_content_is_refused_with_its_position(blocks: tuple[bytes, ...], why: str) -> None:
    """WO-06, WO-10: counted from the first octet of the content, not of the block."""
    with pytest.raises(MessageError, match=why):
        passed(ContentNormalizer(), *blocks)


@pytest.mark.parametrize(
    ("blocks", "fixed"),
    [((b"a\r", b"\nb\r", b"c"), b"a\r\nb\r\nc\r\n"), ((b"a\n", b"\r", b"\n"), b"a\r\n\r\n"), ((b"a\r",), b"a\r\n")],
)
def test_line_ends_are_fixed_across_blocks(blocks: tuple[bytes, ...], fixed: bytes) -> None:
    assert passed(ContentNormalizer(fix_eols=True), *blocks) == fixed


def test_nothing_is_one_empty_line() -> None:
    """WO-09: content ends with a CRLF, whatever it is; as of `Content.of`."""
    assert passed(ContentNormalizer()) == b"\r\n" == bytes(Content.of(b""))


@given(OCTETS, st.lists(st.integers(0, 5000), max_size=6))
def test_dots_are_doubled_wherever_the_blocks_are_split(octets: bytes, places: list[int]) -> None:
    """WO-08, P3."""
    dots = DotStuffer()
    assert b"".join(map(dots.feed, split(octets, places))) == DotStuffer().feed(octets)
