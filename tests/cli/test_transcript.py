"""The dialogue in the marks of swaks."""

from __future__ import annotations

from asyncsmtp.cli.output.console import TranscriptPrinter
from asyncsmtp.client.events.types import Direction
from asyncsmtp.protocol.content import Content


def test_each_line_has_the_mark_of_its_direction() -> None:
    """`->` and `<-` in clear, `~>` and `<~` under TLS, `<**` a refusal, `===` an event."""
    lines: list[str] = []
    trace = TranscriptPrinter(lines.append)
    trace(Direction.EVENT, "connected to 127.0.0.1:25", tls=False, refused=False)
    trace(Direction.SERVER, "220 relay.example", tls=False, refused=False)
    trace(Direction.CLIENT, "EHLO me", tls=False, refused=False)
    trace(Direction.SERVER, "250-relay.example\n250 SIZE", tls=True, refused=False)
    trace(Direction.CLIENT, "MAIL FROM:<a@example.org>", tls=True, refused=False)
    trace(Direction.SERVER, "550 no", tls=True, refused=True)
    assert lines == [
        "=== connected to 127.0.0.1:25",
        "<-  220 relay.example",
        " -> EHLO me",
        "<~  250-relay.example",
        "<~  250 SIZE",
        " ~> MAIL FROM:<a@example.org>",
        "<** 550 no",
    ]


def test_of_the_content_the_headers_are_shown_and_the_body_is_cut() -> None:
    """Enough to see what went; a body may be megabytes, and private."""
    lines: list[str] = []
    trace = TranscriptPrinter(lines.append, Content.of(b"Subject: hi\r\nTo: b@example.org\r\n\r\nsecret body\r\n"))
    trace(Direction.CLIENT, ".", tls=False, refused=False)
    assert lines == [" -> Subject: hi", " -> To: b@example.org", " -> ", " -> [13 bytes of body]", " -> ."]


def test_what_the_relay_says_is_harmless() -> None:
    """CT-01: its text is foreign."""
    lines: list[str] = []
    TranscriptPrinter(lines.append)(Direction.SERVER, "250 \x1b[31mred " + "x" * 1000, tls=False, refused=False)
    assert "\x1b" not in lines[0]
    assert len(lines[0]) < 600
