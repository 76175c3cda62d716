"""Content in chunks (RFC 3030) with real servers, streamed, and what then is in the mailbox, octet for octet."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from asyncsmtp.client.config.relay import Dialogue
from asyncsmtp.client.events.types import Direction
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.session.session import Session
from asyncsmtp.protocol.delivery import Outcome
from tests.interop.server import Server, original
from tests.interop.test_servers import letter, offering, on

pytestmark = [pytest.mark.interop, on(*offering("CHUNKING"))]


class Chunks:
    """A trace that keeps each BDAT, and counts each DATA."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.data = 0

    def __call__(self, side: Direction, text: str, *, tls: bool, refused: bool) -> None:
        if side is Direction.CLIENT and text.startswith("BDAT"):
            self.said.append(text)
        self.data += side is Direction.CLIENT and text == "DATA"

    @property
    def octets(self) -> int:
        return sum(int(text.split()[1]) for text in self.said)


async def test_dots_are_kept_as_they_are(server: Server) -> None:
    """In a chunk nothing is doubled, and a line with only a dot ends nothing."""
    sent, chunks = letter(), Chunks()
    async with Session(server.relay(dialogue=Dialogue.STREAMED), trace=chunks) as session:
        assert (await session.send(sent)).accepted
    assert chunks.said == [f"BDAT {sent.content.size} LAST"]
    assert chunks.data == 0
    assert [original(mail) for mail in server.wait_for(1)] == [bytes(sent.content)]


async def test_hundreds_streamed_over_two_sessions_all_arrive_once(server: Server) -> None:
    """Envelopes and contents run ahead of their replies; nothing is lost, doubled, mixed up or in doubt."""
    sent = [letter(number, body=f"{number}\n.\n") for number in range(200)]
    async with Pool(server.relay(dialogue=Dialogue.STREAMED), sessions=2) as pool:
        deliveries = await asyncio.gather(*map(pool.send, sent))
    assert all(delivery.accepted for delivery in deliveries)
    arrived = Counter(original(mail) for mail in server.wait_for(len(sent)))
    assert arrived == Counter(bytes(message.content) for message in sent)


async def test_a_large_content_goes_in_several_chunks(server: Server) -> None:
    """It is cut anywhere, a chunk has its own reply, and small messages go before it and behind it."""
    chunks = Chunks()
    sent = [letter(1), letter(2, body="".join(f".{number}\n" for number in range(100_000))), letter(3)]
    async with Session(server.relay(dialogue=Dialogue.STREAMED), trace=chunks) as session:
        deliveries = await asyncio.gather(*map(session.send, sent))
    assert all(delivery.accepted for delivery in deliveries)
    assert len(chunks.said) > 5
    assert sum(text.endswith(" LAST") for text in chunks.said) == 3
    assert chunks.octets == sum(message.content.size for message in sent)
    assert Counter(map(original, server.wait_for(3))) == Counter(bytes(message.content) for message in sent)


async def test_a_refused_recipient_in_the_stream_takes_nobody_with_it(server: Server) -> None:
    """The chunk after it was sent before the reply: the server must discard it, and the session goes on."""
    sent = [letter(n, *(["nobody@example.com"] if n % 4 == 2 else ["ada@example.com"])) for n in range(16)]
    async with Session(server.relay(dialogue=Dialogue.STREAMED)) as session:
        deliveries = await asyncio.gather(*map(session.send, sent))
    assert [delivery.accepted for delivery in deliveries] == [n % 4 != 2 for n in range(16)]
    assert {delivery.outcomes for delivery in deliveries} == {(Outcome.ACCEPTED,), (Outcome.REJECTED,)}
    arrived = Counter(map(original, server.wait_for(12)))
    assert arrived == Counter(bytes(letter(n).content) for n in range(16) if n % 4 != 2)


async def test_one_refused_of_two_has_an_answer_of_its_own(server: Server) -> None:
    """The content goes to the other."""
    sent = letter(1, "nobody@example.com", "ada@example.com")
    async with Session(server.relay(dialogue=Dialogue.STREAMED)) as session:
        delivery = await session.send(sent)
        assert (await session.send(letter(2))).accepted
    assert delivery.outcomes == (Outcome.REJECTED, Outcome.ACCEPTED)
    assert Counter(map(original, server.wait_for(2))) == Counter([bytes(sent.content), bytes(letter(2).content)])
