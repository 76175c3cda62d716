"""Against mailmerge, the command people use: to a sink on this machine, and over a line with replies after 20 ms."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path

from asyncsmtp.testing import ScriptedRelay
from benchmarks import campaigns
from benchmarks.command import bulk
from benchmarks.measure import Cost, Row, in_turn, run
from benchmarks.sink import sink

__all__ = ["measure"]

LATENCY = 0.02  # seconds until a reply is here
SESSIONS = 20
OCTETS = 8_000
TEMPLATE = """TO: {{{{email}}}}
SUBJECT: News for {{{{name}}}}
FROM: News <news@example.org>

{text}"""
SERVER = "[smtp_server]\nhost = 127.0.0.1\nport = {port}\nratelimit = 0\n"
COMMAND = shutil.which("mailmerge", path=str(Path(sys.executable).parent))


async def measure(folder: Path, rows: int = 4_000, peer_rows: int = 200, turns: int = 5) -> list[Row]:
    """Messages a second of each, its start counted; mailmerge gets fewer rows, and fewer still on the slow line."""
    numbers = count()
    places = lambda: folder / str(next(numbers))  # noqa: E731
    with sink() as port:
        near = await _both(places, port, rows, peer_rows, turns)
    async with ScriptedRelay(round_trip=LATENCY) as relay:
        far = await _both(places, relay.port, rows, peer_rows // 4, min(turns, 3))
    return [_row("no latency", *near, 8), _row("20 ms a reply", *far, 100)]


async def _both(places: Callable[[], Path], port: int, rows: int, peer_rows: int, turns: int) -> tuple[Cost, Cost]:
    async def ours() -> Cost:
        campaign = campaigns.write(places(), rows, port, sessions=SESSIONS, octets=OCTETS)
        return await asyncio.to_thread(bulk, campaign, rows)

    async def peer() -> Cost:
        return await asyncio.to_thread(_mailmerge, places(), peer_rows, port)

    return await in_turn(ours, peer, turns)


def _mailmerge(folder: Path, rows: int, port: int) -> Cost:
    """Run it on as many letters of the same size, of text alone: it makes no HTML of its own."""
    campaigns.write(folder, rows, port, sessions=1, octets=OCTETS)
    text = campaigns.paragraphs("", "\n", OCTETS)
    template, config = folder / "template.txt", folder / "server.conf"
    template.write_text(TEMPLATE.format(text=f"Dear {{{{name}}}} in {{{{city}}}},\n\n{text}\n{{{{code}}}}\n"))
    config.write_text(SERVER.format(port=port))
    assert COMMAND is not None, "mailmerge is not installed: pip install -e '.[dev]'"
    files = ["--template", str(template), "--database", str(folder / "people.csv"), "--config", str(config)]
    spent = run([COMMAND, "--no-dry-run", "--no-limit", "--output-format", "text", *files], folder / "log")
    assert spent.code == 0, (folder / "log").read_text()
    shutil.rmtree(folder)
    return Cost(rows, spent.wall, spent.cpu)


def _row(line: str, ours: Cost, peer: Cost, target: int) -> Row:
    ratio = ours.rate / peer.rate
    return Row(
        f"the whole command, 8 KB, {line}: messages/s",
        f"{ours.rate:,.0f}",
        f"{peer.rate:,.1f} (mailmerge)",
        f"{ratio:,.0f} x",
        f">= {target} x",
        ratio >= target,
    )
