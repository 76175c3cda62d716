"""The judge of the kill tests is judged first."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.kill.processes import Verdict, oracle

LETTER = "Message-ID: <{0}@example.org>\r\n\r\nfor {1}\r\n.\r\n"


async def say(port: int, *flights: str) -> bytes:
    """Write each flight once the one before was answered; return everything that was answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answered = await reader.readuntil(b"\r\n")
    for flight in flights:
        writer.write(flight.encode())
        answered += await reader.readuntil(b"\r\n")
    writer.write(b"QUIT\r\n")
    with suppress(ConnectionError):  # the oracle may hang up instead of answering
        answered += await reader.read()
    writer.transport.abort()
    return answered


async def test_a_verdict_is_in_the_log_and_its_token_in_the_reply(tmp_path: Path) -> None:
    """The reply can be matched with the row it was about, and with no other."""
    with oracle(tmp_path) as server:
        group = "MAIL FROM:<n@example.org>\r\nRCPT TO:<nobody7@example.com>\r\nRCPT TO:<ada@example.com>\r\nDATA\r\n"
        answered = await say(server.port, group + LETTER.format("one", "ada@example.com"))
        assert server.verdicts() == [
            Verdict("rejected", "-", "nobody7@example.com", "token-1-"),
            Verdict("accepted", "one@example.org", "ada@example.com", "token-2-"),
        ]
    assert b"550 5.1.1 no such user token-1-\r\n" in answered
    assert b"354 go on\r\n250 2.0.0 queued as token-2-\r\n221 " in answered


async def test_a_letter_for_somebody_else_is_noticed(tmp_path: Path) -> None:
    """Message i to recipient j must never pass as accepted (BL-07)."""
    with oracle(tmp_path) as server:
        group = "MAIL FROM:<n@example.org>\r\nRCPT TO:<ada@example.com>\r\nDATA\r\n"
        await say(server.port, group + LETTER.format("one", "bob@example.com"))
        assert [verdict.word for verdict in server.verdicts()] == ["mixed-up"]


async def test_a_lost_reply_was_written_down(tmp_path: Path) -> None:
    """This makes it a doubt, and not a failure (RFC 1047)."""
    with oracle(tmp_path, "--lose", "1") as server:
        group = "MAIL FROM:<n@example.org>\r\nRCPT TO:<ada@example.com>\r\nDATA\r\n"
        answered = await say(server.port, group + LETTER.format("one", "ada@example.com"))
        assert [verdict.word for verdict in server.verdicts()] == ["accepted"]
    assert b"queued" not in answered
