"""Replies: the grammar, its bounds, and what is shown of a text from outside."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncsmtp.errors import RemoteProtocolError
from asyncsmtp.protocol.replies import MAX_LINE, MAX_LINES, MAX_REPLY, EnhancedStatus, Reply, ReplyReader, Severity
from asyncsmtp.protocol.replies import safe_text as safe
from tests.protocol.splitting import at, one_by_one

TEXT = st.binary(max_size=40).map(lambda octets: bytes(set(octets) - {0, 10, 13}) or octets[:0])
REPLIES = st.builds(Reply, st.integers(200, 599), st.lists(TEXT, min_size=1, max_size=5).map(tuple))


def read(*reads: bytes) -> list[Reply]:
    reader = ReplyReader()
    return [reply for octets in reads for reply in reader.receive(octets)]


def outcome(reads: list[bytes]) -> tuple[list[Reply], str]:
    reader = ReplyReader()
    found: list[Reply] = []
    try:
        for octets in reads:
            found.extend(reader.receive(octets))
    except RemoteProtocolError as error:
        return found, str(error)
    return found, f"idle: {reader.is_empty}"


def wire(reply: Reply) -> bytes:
    *first, last = reply.lines
    code = str(reply.code).encode()
    return b"".join(code + b"-" + line + b"\r\n" for line in first) + code + b" " + last + b"\r\n"


@pytest.mark.parametrize(
    ("octets", "reply"),
    [
        (b"250 ok\r\n", Reply(250, (b"ok",))),
        (b"250\r\n", Reply(250, (b"",))),
        (b"250 \r\n", Reply(250, (b"",))),
        (b"250-\r\n250\r\n", Reply(250, (b"", b""))),
        (b"250-a\r\n250-b\r\n250 c\r\n", Reply(250, (b"a", b"b", b"c"))),
        (b"250 \xff\xff\x1b[2J\r\n", Reply(250, (b"\xff\xff\x1b[2J",))),
        (b"599 x\r\n", Reply(599, (b"x",))),
    ],
)
def test_a_reply_is_a_code_and_its_lines(octets: bytes, reply: Reply) -> None:
    """WI-10, W-26: the octets of the text are kept as they are."""
    assert read(octets) == read(*one_by_one(octets)) == [reply]


@pytest.mark.parametrize(
    "line",
    [
        b"2500 ok",
        b"25 0",
        b"25",
        b" 250 ok",
        b"250ok",
        b"250_ok",
        b"250\tok",
        b"+25 x",
        b"-50 x",
        b"2_5 x",
        b"000 x",
        b"199 x",
        b"150 x",
        b"600 x",
        b"999 x",
        "٢٥٠ ok".encode(),
        b"\xb2\xb50 ok",
        b"",
        b" ",
        b"gibberish",
        b"ERROR",
        b"250 o\0k",
        b"250 ok\r550 no",
        b"250 ok\r",
        b"\x00",
    ],
)
def test_a_line_that_is_no_reply_is_refused(line: bytes) -> None:
    """N-11, D-15, D-31, WI-05, WI-08, WI-09, W-27: nothing is guessed, and what came before stands."""
    octets = b"250 before\r\n" + line + b"\r\n"
    for reads in ([octets], list(one_by_one(octets))):
        replies, end = outcome(reads)
        assert replies == [Reply(250, (b"before",))]
        assert end.startswith("not an SMTP reply")


@pytest.mark.parametrize("octets", [b"250 ok\n", b"250-a\n550 b\r\n", b"\n"])
def test_a_bare_line_feed_ends_no_line(octets: bytes) -> None:
    """WI-09: where one reader sees two lines and another one, a reply can be smuggled."""
    with pytest.raises(RemoteProtocolError, match="must end in CR LF"):
        read(octets)


@pytest.mark.parametrize("octets", [b"550-no\r\n250 ok\r\n", b"250-a\r\n250-b\r\n251-c\r\n", b"250-a\r\n550\r\n"])
def test_a_reply_keeps_its_code(octets: bytes) -> None:
    """N-11, D-15, WI-04: a refusal whose last line says 250 is neither."""
    with pytest.raises(RemoteProtocolError, match="changed its code"):
        read(octets)


def test_a_line_has_an_end() -> None:
    """D-25, P-04, WI-01, W-29: at 2048 octets with its CR, in one read or in many, and the memory with it."""
    longest = b"250 " + b"x" * (MAX_LINE - 5) + b"\r\n"
    assert len(read(longest)) == len(read(*one_by_one(longest))) == 1
    for reads in ([longest[:4] + b"x" + longest[4:]], [b"250 ", b"x" * MAX_LINE], [b"x" * 3 * MAX_LINE]):
        with pytest.raises(RemoteProtocolError, match="runs past 2048 bytes"):
            read(*reads)


def test_a_reply_has_an_end() -> None:
    """P-04, WI-02, W-29: 256 lines and 64 KiB."""
    assert len(read(b"250-x\r\n" * (MAX_LINES - 1) + b"250 x\r\n")[0].lines) == MAX_LINES
    line = b"250-" + b"x" * 1000 + b"\r\n"
    for endless in (b"250-x\r\n" * (MAX_LINES + 1), line * (MAX_REPLY // len(line) + 1)):
        with pytest.raises(RemoteProtocolError, match="runs past 256 lines or 65536 bytes"):
            read(endless)


def test_the_bounds_begin_again_with_each_reply() -> None:
    """WI-02: a long session is no long reply."""
    assert len(read((b"250-x\r\n" * 200 + b"250 x\r\n") * 3)) == 3


def test_replies_before_a_malformed_one_are_yielded_first() -> None:
    """WI-08: they answered their commands."""
    replies = ReplyReader().receive(b"250 a\r\n550 b\r\nHELLO\r\n250 c\r\n")
    assert [next(replies), next(replies)] == [Reply(250, (b"a",)), Reply(550, (b"b",))]
    with pytest.raises(RemoteProtocolError):
        next(replies)


@pytest.mark.parametrize(("octets", "idle"), [(b"", True), (b"250 ok\r\n", True), (b"2", False), (b"250-a\r\n", False)])
def test_idle_means_that_nothing_is_left_over(octets: bytes, idle: bool) -> None:
    """TL-01: one octet behind the 220 to STARTTLS is one too many, and so is half a reply."""
    reader = ReplyReader()
    list(reader.receive(octets))
    assert reader.is_empty is idle


def test_the_reader_is_not_empty_while_replies_are_pending() -> None:
    """TL-01: the second reply of a read is there before anyone asks for it."""
    reader = ReplyReader()
    replies = reader.receive(b"220 go\r\n250 injected\r\n")
    next(replies)
    assert not reader.is_empty


@pytest.mark.parametrize("left", [b"", b"2", b"250 half", b"250-a\r\n", b"250-a\r\n250"])
def test_half_a_reply_at_the_end_is_a_lost_connection(left: bytes) -> None:
    """W-28: the relay was speaking SMTP and went away; that is not a broken rule."""
    reader = ReplyReader()
    list(reader.receive(left))
    assert reader.receive_eof() is None


@pytest.mark.parametrize(
    ("left", "hint"),
    [
        (b"\x15\x03\x03\x00\x02\x02\x46", "this port speaks TLS; use smtps://"),
        (b"\x16\x03\x01", "this port speaks TLS"),
        (b"SSH-2.0-OpenSSH", "this port speaks SSH"),
        (b"HTTP/1.1 400", "this port speaks HTTP"),
        (b"<html>", "this port speaks HTTP"),
        (b"<!DOCTYPE html>", "this port speaks HTTP"),
        (b"* OK IMAP4rev1", "this port speaks IMAP or POP3"),
        (b"+OK", "this port speaks IMAP or POP3"),
        (b"hello", "the connection ended inside it)"),
    ],
)
def test_bytes_of_another_protocol_name_the_right_port(left: bytes, hint: str) -> None:
    """WI-15: a wrong port is the usual reason, and the remedy is known."""
    reader = ReplyReader()
    list(reader.receive(left))
    assert hint in str(reader.receive_eof())
    with pytest.raises(RemoteProtocolError) as refused:
        read(left + b"\r\n")
    assert hint in str(refused.value) or left == b"hello"


def test_a_malformed_line_is_quoted_short_and_escaped() -> None:
    """WI-10, CT-01: the error is shown on a terminal."""
    with pytest.raises(RemoteProtocolError, match=r"“\\x1b\]0;pwn\\x07") as refused:
        read(b"\x1b]0;pwn\x07" + b"x" * 2000 + b"\r\n")
    assert len(str(refused.value)) < 300


@given(st.lists(REPLIES, max_size=4), st.lists(st.integers(0, 1000), max_size=8))
def test_replies_do_not_depend_on_where_the_octets_are_cut(replies: list[Reply], places: list[int]) -> None:
    """W-31; the reader is indifferent to the network."""
    octets = b"".join(map(wire, replies))
    assert read(*at(octets, places)) == replies


ALMOST = st.lists(
    st.sampled_from([b"250", b"-", b" ", b"\r\n", b"\n", b"\r", b"\0", b"ok", b"550", b"2", b"\xff"])
    | st.binary(max_size=5),
    max_size=30,
).map(b"".join)


@given(ALMOST, st.lists(st.integers(0, 1000), max_size=8))
def test_no_octets_do_more_than_raise_one_error(octets: bytes, places: list[int]) -> None:
    """WI-05, WI-08: and the same octets do the same, however they are cut."""
    replies, end = outcome([octets])
    in_pieces, same_end = outcome(at(octets, places))
    assert end == same_end
    assert in_pieces[: len(replies)] == replies


@pytest.mark.parametrize(
    ("code", "severity", "positive"),
    [
        (250, Severity.COMPLETION, True),
        (354, Severity.INTERMEDIATE, True),
        (421, Severity.TRANSIENT, False),
        (550, Severity.PERMANENT, False),
    ],
)
def test_the_first_digit_is_the_severity(code: int, severity: Severity, positive: bool) -> None:
    """RFC 5321 §4.2.1."""
    assert Reply(code).severity is severity
    assert Reply(code).positive is positive


@pytest.mark.parametrize(
    ("code", "text", "status"),
    [
        (550, b"5.1.1 no such user", EnhancedStatus(5, 1, 1)),
        (250, b"2.0.0", EnhancedStatus(2, 0, 0)),
        (452, b"4.999.999 x", EnhancedStatus(4, 999, 999)),
        (250, b"5.1.1 ok", None),
        (550, b"2.0.0 no", None),
        (550, b"4.1.1 no", None),
        (450, b"5.1.1 no", None),
        (354, b"2.0.0 go", None),
        (421, b"2.0.0 bye", None),
        (550, b"5.1.1x", None),
        (550, b"5.1.1111 x", None),
        (550, b"5.1 x", None),
        (550, b" 5.1.1 x", None),
        (550, b"no", None),
        (550, b"", None),
    ],
)
def test_an_enhanced_status_must_agree_with_the_code(code: int, text: bytes, status: EnhancedStatus | None) -> None:
    """WI-21, RFC 2034 §4: the reply code governs, a contradicting status is dropped."""
    assert Reply(code, (text,)).status == status


def test_an_enhanced_status_reads_as_it_is_written() -> None:
    """Results and logs show it so."""
    assert str(EnhancedStatus(5, 1, 1)) == "5.1.1"


def test_a_reply_is_shown_on_one_harmless_line() -> None:
    """WI-10, CT-02: one record is one line, and nothing in it moves a cursor."""
    reply = Reply(550, (b"a\x1b[2J", b"\xff", "grüß\u202e".encode(), b"x" * 600))
    assert reply.text == "a\x1b[2J\n\\xff\ngrüß\u202e\n" + "x" * 600
    assert str(reply).startswith("550 a\\x1b[2J / \\xff / grüß\\u202e / xxx")
    assert len(str(reply)) == 512
    assert str(Reply(250)) == "250"


def test_a_dialogue_shows_the_lines_as_they_came() -> None:
    """`-v` prints the text as it was received."""
    assert Reply(250, (b"relay", b"SIZE", b"")).raw_text == "250-relay\n250-SIZE\n250 "
    assert Reply(250, (b"ok",)).raw_text == "250 ok"


def test_secrets_are_starred_out_of_each_line() -> None:
    """AU-09: a relay that echoes the password must not get it into a log."""
    reply = Reply(535, (b"hunter2 is wrong", b"aHVudGVyMg== too, hunter2"))
    assert reply.redact([b"hunter2"]) == Reply(535, (b"*** is wrong", b"*** too, ***"))


@given(st.text(max_size=50), st.integers(1, 20) | st.none())
def test_safe_text_prints_and_is_no_longer_than_asked(text: str, limit: int | None) -> None:
    """CT-01: no control, no C1, no bidi, whatever comes in."""
    shown = safe(text, limit)
    assert shown.isprintable()
    assert limit is None or len(shown) <= limit
    if text.isprintable() and limit is None:
        assert shown == text
