"""python -m benchmarks [session] [sessions] [latency] [composing] [converting] [command] [growth] [mailmerge]
                     [memory] [attachment] [lag] [start] [pace] [--quick]

Runs all, or those named, and prints one table. `--quick` is for trying the benchmarks themselves:
a tenth of the messages, and a figure of one turn is no figure.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import (
    command,
    composing,
    converting,
    lag,
    latency,
    mailmerging,
    memory,
    pace,
    session,
    sessions,
    starting,
)
from benchmarks.measure import Row
from benchmarks.sink import name

HEAD = Row("work", "ours", "peer", "ratio", "target", True)


async def rows(wanted: set[str], quick: bool) -> list[Row]:
    """Run each benchmark that is wanted, one after the other."""
    found = []
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-benchmarks-") as name:
        folder = Path(name)
        runs: dict[str, tuple[Callable[..., Awaitable[list[Row]]], dict[str, Any]]] = {
            "session": (session.measure, {"messages": 800, "turns": 1}),
            "sessions": (sessions.measure, {"messages": 2_000, "turns": 1}),
            "latency": (latency.measure, {"messages": 64, "peer_messages": 2}),
            "composing": (composing.measure, {"messages": 100, "peer_messages": 5, "turns": 1}),
            "converting": (converting.measure, {"messages": 200, "unlike": 10, "turns": 1}),
            "command": (partial(command.measure, folder / "command"), {"rows": 2_000, "peer_rows": 200, "turns": 1}),
            "growth": (partial(command.grow, folder / "growth"), {"sizes": (200, 1_000, 2_000), "turns": 1}),
            "mailmerge": (
                partial(mailmerging.measure, folder / "mailmerge"),
                {"rows": 400, "peer_rows": 8, "turns": 1},
            ),
            "memory": (partial(memory.measure, folder / "memory"), {"rows": 20_000, "few": 1_000}),
            "attachment": (partial(memory.attach, folder / "attachment"), {"rows": 20}),
            "lag": (partial(lag.measure, folder / "lag"), {"rows": 1_000}),
            "start": (partial(starting.measure, folder / "start"), {"turns": 1}),
            "pace": (partial(pace.measure, folder / "pace"), {"seconds": 6.0}),
        }
        for word, (measure, few) in runs.items():
            if not wanted or word in wanted:
                found += await measure(**(few if quick else {}))
    return found


def table(found: list[Row]) -> str:
    """The rows under each other, the columns as wide as they need."""
    cells = [(row.work, row.ours, row.peer, row.ratio, row.target) for row in [HEAD, *found]]
    widths = [max(len(line[column]) for line in cells) for column in range(5)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in cells]
    verdicts = ["", *("reached" if row.reached else "MISSED" for row in found)]
    return "\n".join(f"{line}  {verdict}".rstrip() for line, verdict in zip(lines, verdicts, strict=True))


def main() -> int:
    """Print the table; 1 if a target was missed."""
    wanted = {word for word in sys.argv[1:] if not word.startswith("-")}
    found = asyncio.run(rows(wanted, "--quick" in sys.argv))
    print(f"Python {platform.python_version()}, to {name()}, median of turns")
    print(table(found))
    return 0 if all(row.reached for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
