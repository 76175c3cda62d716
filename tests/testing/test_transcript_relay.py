"""A transcript's server, over loopback."""

from __future__ import annotations

import ssl

import pytest

from asyncsmtp.testing.transcript import Transcript, TranscriptRelay
from tests.testing.peer import Peer, codes

LONE_DOT = """
    S: 220 relay.example ESMTP
    C: MAIL FROM:<a@example.org> | RCPT TO:<…> | DATA
    S: 250 2.1.0 ok | 550 5.1.1 no such user | 354 go
    C: .
    S: 554 5.5.1 no valid recipients
"""


async def test_the_relay_says_what_the_transcript_says() -> None:
    """EHLO and QUIT, of which it does not speak, are answered as usual."""
    async with TranscriptRelay(Transcript.parse(LONE_DOT)) as relay, await Peer.connect(relay) as peer:
        assert "PIPELINING" in await peer.greet()
        replies = await peer.say("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA")
        assert replies == "250 2.1.0 ok\n550 5.1.1 no such user\n354 go"
        assert await peer.say(".") == "554 5.5.1 no valid recipients"
        assert codes(await peer.say("QUIT")) == [221]


async def deviate(transcript: str, *lines: str) -> None:
    async with TranscriptRelay(Transcript.parse(transcript)) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        for line in lines:
            await peer.say(line)


async def test_a_client_that_says_something_else_fails_the_test() -> None:
    """With what was expected, and the dialogue."""
    with pytest.raises(AssertionError, match=r"has C: RSET, the client sent C: NOOP"):
        await deviate("S: 220 hi\nC: RSET\nS: 250 ok", "NOOP")


async def test_a_client_that_says_more_fails_the_test() -> None:
    """A transcript is the whole dialogue."""
    with pytest.raises(AssertionError, match=r"has the end, the client sent C: NOOP"):
        await deviate("S: 220 hi\nC: RSET\nS: 250 ok", "RSET", "NOOP")


async def test_a_client_that_says_less_fails_the_test() -> None:
    """The rest is named."""
    with pytest.raises(AssertionError, match=r"continues: C: QUIT"):
        await deviate("S: 220 hi\nC: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye", "RSET")


async def test_what_is_said_unasked_rides_on_the_reply_before() -> None:
    """WI-06."""
    text = "S: 220 hi\nC: RSET\nS: 250 ok\nS: 250 stray"
    async with TranscriptRelay(Transcript.parse(text)) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("RSET\r\n")
        assert await peer.reader.read(1000) == b"250 ok\r\n250 stray\r\n"


@pytest.mark.parametrize("end", ["FIN", "S: 250 ok\nFIN", ""])
async def test_the_relay_hangs_up_where_the_transcript_does(end: str) -> None:
    """Instead of a reply, behind it, or because the client has the last word."""
    relay = TranscriptRelay(Transcript.parse(f"S: 220 hi\nC: RSET\n{end}"))
    async with relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("RSET\r\n")
        assert await peer.reader.read() == (b"250 ok\r\n" if "250" in end else b"")


async def test_a_reset_is_one() -> None:
    """RST on a line of its own."""
    async with TranscriptRelay(Transcript.parse("RST")) as relay, await Peer.connect(relay) as peer:
        with pytest.raises(ConnectionResetError):
            await peer.reader.read()


async def test_replies_of_any_octets_are_said_and_obeyed() -> None:
    """Row 26: `250 \\xff\\xff` is a 250."""
    text = r"""
        S: 220 hi
        C: MAIL FROM:<…> | RCPT TO:<…> | DATA
        S: 250 \xff\xff | 250 ok | 354 go
        C: .
        S: 250-taken
        S: 250 as 1
    """
    async with TranscriptRelay(Transcript.parse(text)) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        assert await peer.say("MAIL FROM:<>", "RCPT TO:<b@example.net>", "DATA") == "250 \\xff\\xff\n250 ok\n354 go"
        assert await peer.say("x\r\n.") == "250-taken\n250 as 1"
        assert relay.received[0].content == b"x\r\n"


async def test_a_chunk_goes_with_its_command() -> None:
    """BDAT."""
    text = "S: 220 hi\nC: MAIL FROM:<> | RCPT TO:<b@c.example> | BDAT … LAST\nS: 250 ok | 250 ok | 250 ok"
    async with TranscriptRelay(Transcript.parse(text)) as relay, await Peer.connect(relay) as peer:
        await peer.greet()
        peer.write("MAIL FROM:<>\r\nRCPT TO:<b@c.example>\r\nBDAT 6 LAST\r\nRSET\r\n")
        await relay.wait_for(1)
        assert relay.received[0].content == b"RSET\r\n"


@pytest.mark.both_loops
async def test_a_220_to_starttls_is_followed_by_tls(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    """And 334 by a response."""
    text = """
        S: 220 hi
        C: EHLO …
        S: 250 STARTTLS
        C: STARTTLS
        S: 220 go
        C: EHLO …
        S: 250 AUTH PLAIN
        C: AUTH PLAIN
        S: 334
        C: AGFubgBz
        S: 235 2.7.0 welcome
    """
    relay = TranscriptRelay(Transcript.parse(text), tls=server_tls)
    async with relay, await Peer.connect(relay) as peer:
        assert await peer.greet() == "250 STARTTLS"
        assert await peer.say("STARTTLS") == "220 go"
        await peer.start_tls(client_tls)
        assert await peer.say("EHLO c") == "250 AUTH PLAIN"
        assert await peer.say("AUTH PLAIN") == "334"
        assert codes(await peer.say("AGFubgBz")) == [235]
