"""Round trips a message takes, on a line where each takes 20 ms: what speaking ahead is for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiosmtplib

from asyncsmtp import Content, Dialogue, Envelope, Message, Relay, Security, Session
from asyncsmtp.testing import ScriptedRelay
from benchmarks.measure import Row

__all__ = ["measure"]

ROUND_TRIP = 0.02  # seconds
CONTENT = Content.of("Subject: benchmark\n\n" + ("x" * 76 + "\n") * 100)


async def measure(messages: int = 200, peer_messages: int = 20) -> list[Row]:
    """Pipelined and streamed over one session, and one message for fifty; the peer in the same run."""
    peer = await trips(lambda port: their_messages(port, peer_messages), peer_messages)
    pipelined = await trips(lambda port: our_messages(port, messages, Dialogue.PIPELINED, waiting=16), messages)
    streamed = await trips(lambda port: our_messages(port, messages, Dialogue.STREAMED, waiting=64), messages)
    many = await trips(lambda port: our_messages(port, 1, Dialogue.PIPELINED, waiting=1, recipients=50), 1)
    theirs = await trips(lambda port: their_messages(port, 1, recipients=50), 1)
    return [
        row("one session, pipelined, 16 waiting", pipelined, peer, 1.1),
        row("one session, streamed, 64 waiting", streamed, peer, 0.1),
        row("one message for 50 recipients", many, theirs, 3.5),
    ]


def row(work: str, ours: float, peer: float, target: float) -> Row:
    """A line of the table."""
    return Row(
        f"20 ms a round trip, {work}: round trips a message",
        f"{ours:.2f}",
        f"{peer:.2f} (aiosmtplib)",
        f"1/{peer / ours:.1f}",
        f"<= {target}",
        ours <= target,
    )


async def trips(send: Callable[[int], Awaitable[float]], messages: int) -> float:
    """Run `send` against a relay on a slow line; round trips a message, opening and closing not counted."""
    async with ScriptedRelay(round_trip=ROUND_TRIP) as relay:
        return await send(relay.port) / ROUND_TRIP / messages


async def our_messages(port: int, messages: int, dialogue: Dialogue, *, waiting: int, recipients: int = 1) -> float:
    """Send over one session from `waiting` tasks; return the seconds from the first word to the last reply."""
    envelope = Envelope.of("from@example.org", [f"to{number}@example.net" for number in range(recipients)])
    message = Message(envelope, CONTENT)
    left = iter(range(messages))

    async def sender() -> None:
        for _ in left:
            assert (await session.send(message)).accepted

    relay = Relay("127.0.0.1", port, Security.PLAINTEXT, dialogue=dialogue, window=waiting)
    async with Session(relay) as session:
        began = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(waiting)))
        return time.perf_counter() - began


async def their_messages(port: int, messages: int, *, recipients: int = 1) -> float:
    """The same by aiosmtplib, which knows one way."""
    to = [f"to{number}@example.net" for number in range(recipients)]
    async with aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) as client:
        began = time.perf_counter()
        for _ in range(messages):
            await client.sendmail("from@example.org", to, bytes(CONTENT))
        return time.perf_counter() - began
