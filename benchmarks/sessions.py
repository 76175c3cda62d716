"""Ten sessions and finished messages of 1 KB: against ten connections of aiosmtplib, and on uvloop Postfix's own."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import time

from benchmarks.measure import Cost, Row, in_turn
from benchmarks.sending import LETTER, sent
from benchmarks.sink import sink

__all__ = ["measure"]

SESSIONS = 10
WAITING = 8  # messages that wait for each session
SOURCE = shutil.which("smtp-source", path=os.environ.get("PATH", "") + ":/usr/sbin")


async def measure(messages: int = 40_000, turns: int = 5) -> list[Row]:
    """Messages a second of each, in turns, to the same sink; Postfix's smtp-source is written in C."""
    with sink() as port:

        async def ours() -> Cost:
            return sent("asyncsmtp", port, messages, sessions=SESSIONS, waiting=WAITING)

        async def peer() -> Cost:
            return sent("aiosmtplib", port, messages // 4, sessions=SESSIONS)

        async def on_uvloop() -> Cost:
            return sent("asyncsmtp", port, messages, "--uvloop", sessions=SESSIONS, waiting=WAITING)

        async def postfix() -> Cost:
            return smtp_source(port, messages)

        rows = [_row("asyncio", "aiosmtplib, ten connections", *await in_turn(ours, peer, turns), 6.0)]
        if SOURCE:
            mine, theirs = await in_turn(on_uvloop, postfix, turns)
            # The rate of a C program is that of the sink where the sink is the limit, so it has no target: CPU has one.
            rows += [_row("uvloop", "smtp-source -d -s 10", mine, theirs, 0.0), _cpu_row(mine, theirs, 1.6)]
        return rows


def _cpu_row(mine: Cost, theirs: Cost, target: float) -> Row:
    ratio = mine.cpu / theirs.cpu
    shown = [f"{1e6 * cost.cpu / cost.messages:.0f}" for cost in (mine, theirs)]
    return Row("the same: CPU µs a message", *shown, f"{ratio:.1f} x", f"<= {target:g} x", ratio <= target)


def _row(loop: str, peer: str, mine: Cost, theirs: Cost, target: float) -> Row:
    ratio = mine.rate / theirs.rate
    work = f"ten sessions on {loop}, 1 KB: messages/s"
    return Row(
        work, f"{mine.rate:,.0f}", f"{theirs.rate:,.0f} ({peer})", f"{ratio:.1f} x", f">= {target:g} x", ratio >= target
    )


def smtp_source(port: int, messages: int) -> Cost:
    """The same by Postfix's load generator, its connections kept."""
    assert SOURCE is not None
    size = str(len(LETTER))
    command = [SOURCE, "-d", "-s", str(SESSIONS), "-l", size, "-m", str(messages), f"127.0.0.1:{port}"]
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Cost(messages, wall, cpu)
