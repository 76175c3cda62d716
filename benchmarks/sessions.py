"""Ten sessions and finished messages of 1 KB, on uvloop: against ten connections of aiosmtplib, and Postfix's own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import time

import uvloop

from asyncsmtp.client.session.session import Session
from asyncsmtp.client.settings.relay import Relay
from asyncsmtp.protocol.opening import Security
from benchmarks.measure import Cost, Row, middle
from benchmarks.session import LETTER, aiosmtplib_sends, ours, peer_on
from benchmarks.sink import sink

__all__ = ["measure"]

SESSIONS = 10
WAITING = 8  # messages that wait for each session
SOURCE = shutil.which("smtp-source", path=os.environ.get("PATH", "") + ":/usr/sbin")


async def measure(messages: int = 10_000, turns: int = 5) -> list[Row]:
    """Messages a second of each, in turns, to the same sink; Postfix's smtp-source is written in C."""
    return await asyncio.to_thread(lambda: uvloop.run(_measure(messages, turns)))


async def _measure(messages: int, turns: int) -> list[Row]:
    us, them, source = [], [], []
    with sink() as port:
        async with contextlib.AsyncExitStack() as open_:
            relay = Relay("127.0.0.1", port, Security.PLAINTEXT)
            sessions = [await open_.enter_async_context(Session(relay)) for _ in range(SESSIONS)]
            peers = [await open_.enter_async_context(peer_on(port)) for _ in range(SESSIONS)]
            each = messages // SESSIONS
            for _ in range(turns):
                us.append(await _all([ours(session, each, WAITING) for session in sessions]))
                them.append(await _all([aiosmtplib_sends(peer, each // 4) for peer in peers]))
                source.append(await asyncio.to_thread(smtp_source, port, messages))
    mine, theirs = middle(us), middle(them)
    return [
        _row("aiosmtplib, ten connections", mine, theirs.rate, 6.0),
        *([_row("smtp-source -d -s 10", mine, middle([cost for cost in source if cost]).rate, 1.0)] if SOURCE else []),
    ]


def _row(peer: str, mine: Cost, rate: float, target: float) -> Row:
    ratio = mine.rate / rate
    work = "ten sessions on uvloop, 1 KB: messages/s"
    return Row(
        work, f"{mine.rate:,.0f}", f"{rate:,.0f} ({peer})", f"{ratio:.1f} x", f">= {target:g} x", ratio >= target
    )


async def _all(each: list[asyncio.Future[Cost] | object]) -> Cost:
    """Run them at once; what all of them cost together."""
    began, used = time.perf_counter(), time.process_time()
    costs = await asyncio.gather(*each)  # type: ignore[call-overload]
    messages = sum(cost.messages for cost in costs)
    return Cost(messages, time.perf_counter() - began, time.process_time() - used)


def smtp_source(port: int, messages: int) -> Cost | None:
    """The same by Postfix's load generator, its connections kept; None where it is not installed."""
    if SOURCE is None:
        return None
    size = str(len(LETTER))
    command = [SOURCE, "-d", "-s", str(SESSIONS), "-l", size, "-m", str(messages), f"127.0.0.1:{port}"]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return Cost(messages, time.perf_counter() - began, 0.0)
