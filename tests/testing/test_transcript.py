"""The notation of dialogues."""

from __future__ import annotations

import pytest

from asyncsmtp.testing.transcript import ClientStep, ConnectionEnd, ServerStep, Transcript, matches

DIALOGUE = """
    S: 220 relay.example ESMTP

    C: MAIL FROM:<a@example.org> | RCPT TO:<b@example.net> | DATA     # one group
    S: 250 2.1.0 ok | 550 5.1.1 no such user | 354 go
    C: .
    FIN
"""


def test_a_dialogue_is_read_step_by_step() -> None:
    """As the conventions print it."""
    assert Transcript.parse(DIALOGUE).steps == (
        ServerStep((b"220 relay.example ESMTP\r\n",)),
        ClientStep(("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA")),
        ServerStep((b"250 2.1.0 ok\r\n", b"550 5.1.1 no such user\r\n", b"354 go\r\n")),
        ClientStep((".",)),
        ConnectionEnd.FIN,
    )


def test_the_lines_of_one_reply_are_one_reply() -> None:
    """RFC 5321 §4.2.1: the hyphen tells."""
    transcript = Transcript.parse("C: EHLO c\nS: 250-relay.example\nS: 250-PIPELINING\nS: 250 SIZE")
    assert transcript.steps[1] == ServerStep((b"250-relay.example\r\n250-PIPELINING\r\n250 SIZE\r\n",))


def test_a_reply_may_break_off() -> None:
    """Row 5: `220-hi`, then silence."""
    assert Transcript.parse("S: 220-hi").steps == (ServerStep((b"220-hi\r\n",)),)


def test_octets_that_do_not_print_are_escaped() -> None:
    """Rows 26, 27; WI-09, WI-10."""
    assert Transcript.parse(r"S: 250 \xff\\\0\tx\r550 é").steps == (
        ServerStep((b"250 " + b"\xff\\\0\tx\r550 " + "é".encode() + b"\r\n",)),
    )


def test_the_octets_of_a_step_are_its_replies_joined() -> None:
    """To be fed to a reader of replies, whole or one at a time."""
    assert ServerStep((b"250 a\r\n", b"250 b\r\n")).octets == b"250 a\r\n250 b\r\n"


def test_an_empty_line_of_the_client_is_one() -> None:
    """An empty SASL response (RFC 4954 §4)."""
    assert Transcript.parse("C:").steps == (ClientStep(("",)),)


@pytest.mark.parametrize("line", ["220 hello", "X: y", "s: 220", "C:MAIL"])
def test_what_is_none_of_the_notation_is_an_error_with_its_line(line: str) -> None:
    """A transcript that is misread would test nothing."""
    with pytest.raises(ValueError, match="line 2"):
        Transcript.parse(f"S: 220 hi\n{line}")


@pytest.mark.parametrize(
    ("pattern", "line", "expected"),
    [
        ("MAIL FROM:<…>", "MAIL FROM:<a@b>", True),
        ("MAIL FROM:<…>", "MAIL FROM:<a@b> SIZE=1", False),
        ("MAIL FROM:<…> SIZE=…", "MAIL FROM:<a@b> SIZE=1", True),
        ("RSET", "RSET", True),
        ("RSET", "RSE.", False),
        ("R.ET", "RSET", False),
        ("…", "", True),
    ],
)
def test_an_ellipsis_stands_for_anything(pattern: str, line: str, expected: bool) -> None:
    """Everything else for itself."""
    assert matches(pattern, line) is expected
