"""Content: canonical octets, transparency at every cut, chunks that count right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import MessageError
from asyncsmtp.protocol.content import Content, check_canonical, dot_stuff, dot_stuff_content, split_chunks
from tests.protocol.splitting import at

END = b"\r\n.\r\n"
LINES = st.lists(st.sampled_from([b"", b".", b"..", b".a", b"a.", b"a", b"QUIT", b"\xff"]), max_size=12).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines) or b"\r\n"
)


def stuffed(content: bytes) -> bytes:
    """RFC 5321 §4.5.2, as it is written: line by line."""
    return b"".join(b"." + line if line[:1] == b"." else line for line in content.splitlines(keepends=True))


def image(parts: tuple[bytes, ...]) -> bytes:
    """Return the bytes sent after 354."""
    return b"".join(dot_stuff(parts)) + b".\r\n"


def received(octets: bytes) -> bytes:
    """Return the content as a relay reads it, up to the first end of data."""
    lines = []
    for line in octets.splitlines(keepends=True):
        if line == b".\r\n":
            break
        lines.append(line[1:] if line[:1] == b"." else line)
    return b"".join(lines)


@pytest.mark.parametrize(
    ("content", "sent"),
    [
        (b"A: b\r\n.\r\n", b"A: b\r\n..\r\n.\r\n"),
        (b"A: b\r\n.", b"A: b\r\n..\r\n.\r\n"),
        (b"A: b\r\n.\r\n\r\n", b"A: b\r\n..\r\n\r\n.\r\n"),
        (b".first\r\n.second", b"..first\r\n..second\r\n.\r\n"),
        (b"A: b\r\n\r\nc\r\n", b"A: b\r\n\r\nc\r\n.\r\n"),
        (b"A: b\r\n\r\nc", b"A: b\r\n\r\nc\r\n.\r\n"),
        (b"a\r\n.\r\nMAIL FROM:<>\r\n", b"a\r\n..\r\nMAIL FROM:<>\r\n.\r\n"),
        (b"a\r\n\r\n", b"a\r\n\r\n.\r\n"),
        (b"", b"\r\n.\r\n"),
    ],
)
def test_the_transparency_vectors(content: bytes, sent: bytes) -> None:
    """TV-01, TV-02, TV-05, WO-08, WO-09, W-64, W-65: one final CRLF, and an input that has it gains no line."""
    assert image(Content.of(content).parts) == sent


@pytest.mark.parametrize("end", ["\n", "\r"])
def test_a_text_with_other_line_ends_holds_no_command(end: str) -> None:
    """TV-03, TV-04: both kinds become CRLF before dot-stuffing, so nothing ends early."""
    text = f"A: {end}.{end}MAIL FROM:<>"
    assert image(Content.of(text).parts) == b"A: \r\n..\r\nMAIL FROM:<>\r\n.\r\n"
    with pytest.raises(MessageError):
        Content.of(text.encode())


@pytest.mark.parametrize(
    "smuggled", ["\n.\n", "\r.\r", "\r\n.\n", "\n.\r\n", "\r.\r\n", "\r\n.\r", "\r\r\n.\r\r\n", "\n\n.\r\n"]
)
def test_text_has_its_line_ends_normalised_and_smuggles_nothing(smuggled: str) -> None:
    """D-28, WO-06, WO-07: whatever another reader may take for an end of mail data, there is one, at the end."""
    content = Content.of(f"A: b\r\n\r\nhello{smuggled}MAIL FROM:<evil@x.example>\r\n")
    sent = image(content.parts)
    assert sent.count(END) == 1
    assert sent.endswith(END)
    assert sent.count(b"\r") == sent.count(b"\n") == sent.count(b"\r\n")
    assert b"\n.\n" not in sent
    assert b"\r.\r" not in sent


@pytest.mark.parametrize(
    ("octets", "why"),
    [
        (b"a\n.\nb\r\n", "a bare LF at byte 1 "),
        (b"a\r.\rb\r\n", "a bare CR at byte 1 "),
        (b"ab\r\n.\n\r\n", "a bare LF at byte 5 "),
        (b"a\r\r\nb\r\n", "a bare CR at byte 1 "),
        (b"\n", "a bare LF at byte 0 "),
        (b"ab\r", "a bare CR at byte 2 "),
        (b"a\n\r\n\rb", "a bare LF at byte 1 "),
        (b"a\r\n\0.\r\n", "a NUL at byte 3 "),
        (b"a" * 999, "line 1 of the content has more than 998 bytes"),
        (b"a\r\n" + b"b" * 999 + b"\r\n", "line 2 "),
        (b"a\r\n" * 5000 + b"b" * 100_000 + b"\r\nc\r\n", "line 5001 "),
        (b"a" * 998 + b"\r\n" + b"b" * 3000 + b"\r\n", "line 2 "),
    ],
)
def test_octets_that_are_not_canonical_are_refused_with_the_place(octets: bytes, why: str) -> None:
    """D-14, D-28, WO-06, WO-10, MH-16: never repaired in silence, which would break a signature; never sent."""
    with pytest.raises(MessageError) as refused:
        Content.of(octets)
    assert why in str(refused.value)
    with pytest.raises(MessageError):
        check_canonical(octets)


@pytest.mark.parametrize("octets", [b"a" * 998, b"a" * 998 + b"\r\n", (b"a" * 998 + b"\r\n") * 3, b"\x0b\x0c\x85\r\n"])
def test_canonical_octets_are_left_alone(octets: bytes) -> None:
    """WO-10: 998 is the limit; WO-06: VT, FF and NEL end no line."""
    content = Content.of(octets)
    assert bytes(content) == octets + (b"" if octets.endswith(b"\r\n") else b"\r\n")
    assert content.parts[0] is octets


def test_line_ends_of_bytes_are_fixed_on_request() -> None:
    """WO-06: `fix_eols=True` is the caller's word for it."""
    assert bytes(Content.of(b"a\nb\rc\r\nd", fix_eols=True)) == b"a\r\nb\r\nc\r\nd\r\n"


def test_a_lone_surrogate_is_an_error_of_the_message() -> None:
    """MH-17: not a crash of the codec."""
    with pytest.raises(MessageError, match="character 2 is a lone surrogate"):
        Content.of("ab\udcff")


@pytest.mark.parametrize(
    ("octets", "size", "eight_bit", "utf8_headers"),
    [
        (b"A: b\r\n\r\n.c\r\n", 12, False, False),
        ("A: b\r\n\r\né\r\n".encode(), 12, True, False),
        ("A: é\r\n\r\nc\r\n".encode(), 12, True, True),
        ("A: é\r\n".encode(), 7, True, True),
        ("A: é".encode(), 7, True, True),
        ("\r\né\r\n\r\n".encode(), 8, True, False),
    ],
)
def test_content_has_the_extensions_that_it_needs(
    octets: bytes, size: int, eight_bit: bool, utf8_headers: bool
) -> None:
    """WO-12, W-66: SIZE counts the octets before transparency, RFC 1870 §3."""
    content = Content.of(octets)
    assert (content.size, content.eight_bit, content.utf8_headers) == (size, eight_bit, utf8_headers)
    assert len(bytes(content)) == size


def test_content_in_memory_can_be_sent_again() -> None:
    """A stream that was begun cannot."""
    assert not Content.of(b"Subject: x\r\n").is_consumed


def test_trusted_content_shares_its_parts() -> None:
    """A composer has checked them; the static ones are in every message."""
    static = b"A: b\r\n\r\n"
    content = Content.from_canonical((static, b"hello\r\n"))
    assert content.parts[0] is static
    assert content == Content((static, b"hello\r\n"), 15, False, False)


@given(LINES, st.lists(st.integers(0, 100), max_size=10))
def test_transparency_does_not_depend_on_where_the_parts_are_cut(content: bytes, places: list[int]) -> None:
    """WO-08, P3: the same as line by line in one piece, and as the relay reads it."""
    sent = b"".join(dot_stuff(at(content, places)))
    assert sent == stuffed(content)
    assert received(sent + b".\r\nMORE\r\n") == content


@given(st.text(alphabet="\r\n.a\u2028", max_size=40))
def test_the_end_of_mail_data_is_there_once(text: str) -> None:
    """P2, WO-07: for any text, exactly one, at the end."""
    sent = image(Content.of(text).parts)
    assert (b"\r\n" + sent).count(END) == 1
    assert sent.endswith(END)


def test_parts_without_a_leading_dot_are_not_copied() -> None:
    """The hot path of a bulk mailer writes shared parts as they are."""
    part = b"a.\r\nb\r\n"
    assert next(dot_stuff((part,))) is part


@given(LINES, st.lists(st.integers(0, 100), max_size=5), st.integers(1, 30))
def test_chunks_have_the_size_that_was_asked_for(content: bytes, places: list[int], octets: int) -> None:
    """WO-11, P3: but the last one, and there is always a last one."""
    found = list(split_chunks(at(content, places), octets))
    assert b"".join(found) == content
    assert all(len(chunk) == octets for chunk in found[:-1])
    assert 0 < len(found[-1]) <= octets


def test_no_content_is_one_empty_chunk() -> None:
    """WO-11: `BDAT 0 LAST`."""
    assert list(split_chunks((), 10)) == [b""]


@pytest.mark.parametrize(
    ("octets", "binary"),
    [
        (b"Subject: hi\r\n\r\nhi\r\n", False),
        (b"Subject: hi\r\n\r\n\xff\r\n", False),
        (b"Subject: hi\r\n\r\nhi", True),
        (b"Subject: hi\r\n\r\n\x00\r\n", True),
        (b"Subject: hi\r\n\r\na\nb\r\n", True),
        (b"Subject: hi\r\n\r\n" + b"x" * 999 + b"\r\n", True),
        (b"", True),
    ],
)
def test_octets_that_are_not_canonical_are_binary(octets: bytes, binary: bool) -> None:
    """WO-06, RFC 3030 §3: they are taken as they are, and what is asked of the relay follows from that."""
    content = Content.from_binary(octets)
    assert bytes(content) == octets
    assert content.size == len(octets)
    assert content.binary is binary
    assert content.eight_bit is (b"\xff" in octets)


def test_binary_content_may_have_headers_beyond_ascii() -> None:
    """RFC 6531: SMTPUTF8 is needed all the same."""
    assert Content.from_binary("Subject: é\n\n".encode()).utf8_headers
    assert not Content.from_binary(b"Subject: e\r\n\r\n\xff").utf8_headers


@given(st.lists(st.sampled_from([b".", b"\r\n", b"..", b"a", b"\r\n.\r\n", b""]), max_size=8))
def test_a_content_in_memory_is_made_transparent_as_one_in_pieces_is(parts: list[bytes]) -> None:
    """RFC 5321 §4.5.2: the same octets by either way."""
    stuffed = b"".join(dot_stuff(parts))
    assert dot_stuff_content(Content.from_canonical(tuple(parts))) == stuffed
    assert dot_stuff_content(Content.of(b"".join(parts))) == stuffed + b"\r\n" * (not stuffed.endswith(b"\r\n"))


def test_the_repr_has_the_size_and_not_the_content() -> None:
    """A log or a traceback must not hold somebody's mail."""
    assert repr(Content.of("Subject: x\n\nsecret\n")) == "<Content of 22 bytes>"
