"""Finished messages of 1 KB, sent by a process that does nothing else.

    python -m benchmarks.sending {asyncsmtp|aiosmtplib} PORT MESSAGES SESSIONS WAITING [--uvloop] [--after-large]

It prints the wall and CPU seconds they took. What a read costs hangs on what a process did before: asyncio reads
into an object of 256 KiB, which the allocator gets from the system and gives back each time, until something as
large has been freed once; from then on it keeps room for it. `--after-large` frees something large first.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack

import aiosmtplib
import uvloop

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.session.session import Session
from asyncsmtp.protocol.content import Content
from asyncsmtp.protocol.envelope import Envelope
from asyncsmtp.protocol.opening_handshake import Security
from benchmarks.measure import Cost, compiled

__all__ = ["LETTER", "sent"]

HEAD = b"From: <news@example.org>\r\nTo: <ada@example.com>\r\nSubject: hello\r\nMessage-ID: <1@example.org>\r\n\r\n"
LETTER = HEAD + (b"The quick brown fox jumps over the lazy dog, again and again.\r\n" * 15)
LARGE = 1 << 20  # octets
WARM = 100  # messages a session


def sent(name: str, port: int, messages: int, *options: str, sessions: int = 1, waiting: int = 1) -> Cost:
    """Return the cost of so many messages in a new process."""
    numbers = map(str, (port, messages, sessions, waiting))
    command = [sys.executable, "-m", __name__, name, *numbers, *options]
    said = subprocess.run(command, check=True, capture_output=True, text=True, env=compiled()).stdout
    wall, cpu = map(float, said.split())
    return Cost(messages, wall, cpu)


async def asyncsmtp_sends(port: int, messages: int, sessions: int, waiting: int) -> tuple[float, float]:
    """So many tasks share each session."""
    relay = Relay("127.0.0.1", port, Security.PLAINTEXT)
    envelope, content = Envelope.of("news@example.org", ["ada@example.com"]), Content.of(LETTER)

    async def send(session: Session, left: range) -> None:
        for _ in left:
            assert (await session.transact(envelope, content)).accepted

    async with AsyncExitStack() as opened:
        shared = [await opened.enter_async_context(Session(relay)) for _ in range(sessions)] * waiting
        await _all([send(session, range(WARM)) for session in shared])
        return await _all([send(session, range(messages // len(shared))) for session in shared])


async def aiosmtplib_sends(port: int, messages: int, sessions: int, _: int) -> tuple[float, float]:
    """The peer sends one at a time on each connection, which it keeps."""

    async def send(peer: aiosmtplib.SMTP, left: range) -> None:
        for _ in left:
            refused, _ = await peer.sendmail("news@example.org", ["ada@example.com"], LETTER)
            assert not refused

    async with AsyncExitStack() as opened:
        kept = [aiosmtplib.SMTP(hostname="127.0.0.1", port=port, start_tls=False) for _ in range(sessions)]
        peers = [await opened.enter_async_context(peer) for peer in kept]
        await _all([send(peer, range(WARM)) for peer in peers])
        return await _all([send(peer, range(messages // len(peers))) for peer in peers])


async def _all(senders: list[Coroutine[None, None, None]]) -> tuple[float, float]:
    """Run them at once; the wall and CPU seconds of all of them together."""
    began, used = time.perf_counter(), time.process_time()
    await asyncio.gather(*senders)
    return time.perf_counter() - began, time.process_time() - used


if __name__ == "__main__":
    if "--after-large" in sys.argv:
        bytearray(LARGE)
    sends = {"asyncsmtp": asyncsmtp_sends, "aiosmtplib": aiosmtplib_sends}[sys.argv[1]]
    runs = uvloop.run if "--uvloop" in sys.argv else asyncio.run
    print(*runs(sends(*map(int, sys.argv[2:6]))))
