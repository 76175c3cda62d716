"""One session and finished messages of 1 KB, against aiosmtplib on one connection."""

from __future__ import annotations

import asyncio
import time

import aiosmtplib

from asyncsmtp.client.session.session import Session
from asyncsmtp.client.settings.relay import Relay
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening import Security
from benchmarks.measure import Cost, Row, in_turn
from benchmarks.sink import sink

__all__ = ["measure"]

HEAD = b"From: <news@example.org>\r\nTo: <ada@example.com>\r\nSubject: hello\r\nMessage-ID: <1@example.org>\r\n\r\n"
LETTER = HEAD + (b"The quick brown fox jumps over the lazy dog, again and again.\r\n" * 15)
WAITING = 8  # messages that wait for the session, as in a campaign


async def measure(messages: int = 3_000, turns: int = 7) -> list[Row]:
    """Messages a second and CPU a message of each, in the same loop, to the same sink."""
    with sink() as port:
        relay = Relay("127.0.0.1", port, Security.PLAINTEXT)
        async with Session(relay) as session, peer_on(port) as peer:

            async def waiting() -> Cost:
                return await ours(session, messages, WAITING)

            async def alone() -> Cost:
                return await ours(session, messages, 1)

            async def theirs() -> Cost:
                return await aiosmtplib_sends(peer, messages)

            together = await in_turn(waiting, theirs, turns)
            one = await in_turn(alone, theirs, turns)
    return [
        *rows(f"one session, 1 KB, {WAITING} messages waiting", *together, at_least=5.0),
        *rows("the same, each message awaited", *one, at_least=None),
    ]


def peer_on(port: int) -> aiosmtplib.SMTP:
    """The peer: one connection, kept."""
    return aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False)


def rows(work: str, mine: Cost, theirs: Cost, at_least: float | None) -> list[Row]:
    """Two lines of the table; without a target they are for orientation."""
    speed, cost = mine.rate / theirs.rate, theirs.each / mine.each
    target, cpu_target = ("-", "-") if at_least is None else (f">= {at_least:g} x", f"<= 1/{at_least:g}")
    least = at_least or 0.0
    return [
        Row(
            f"{work}: messages/s",
            f"{mine.rate:,.0f}",
            f"{theirs.rate:,.0f} (aiosmtplib)",
            f"{speed:.1f} x",
            target,
            speed >= least,
        ),
        Row(
            f"{work}: CPU µs a message",
            f"{mine.each * 1e6:,.0f}",
            f"{theirs.each * 1e6:,.0f} (aiosmtplib)",
            f"1/{cost:.1f}",
            cpu_target,
            cost >= least,
        ),
    ]


async def ours(session: Session, messages: int, waiting: int) -> Cost:
    """Send the messages by so many tasks over one session."""
    envelope, content = Envelope.of("news@example.org", ["ada@example.com"]), Content.of(LETTER)
    left = iter(range(messages))

    async def sender() -> None:
        for _ in left:
            assert (await session.transact(envelope, content)).accepted

    began, used = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as senders:
        for _ in range(waiting):
            senders.create_task(sender())
    return Cost(messages, time.perf_counter() - began, time.process_time() - used)


async def aiosmtplib_sends(peer: aiosmtplib.SMTP, messages: int) -> Cost:
    """The same by the peer, which sends one at a time."""
    began, used = time.perf_counter(), time.process_time()
    for _ in range(messages):
        refused, _ = await peer.sendmail("news@example.org", ["ada@example.com"], LETTER)
        assert not refused
    return Cost(messages, time.perf_counter() - began, time.process_time() - used)
