"""python -m benchmarks [session] [sessions] [latency] [composing] [command] [memory] [pace] [--quick]

Runs all, or those named, and prints one table. `--quick` is for trying the benchmarks themselves:
a tenth of the messages, and a figure of one turn is no figure.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from pathlib import Path

from benchmarks import command, composing, latency, memory, pace, session, sessions
from benchmarks.measure import Row
from benchmarks.sink import name

ALL = ("session", "sessions", "latency", "composing", "command", "memory", "pace")
HEAD = Row("work", "ours", "peer", "ratio", "target", True)


async def rows(wanted: set[str], quick: bool) -> list[Row]:
    """Run each benchmark that is wanted, one after the other."""
    found = []
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-benchmarks-") as folder:
        if "session" in wanted:
            found += await session.measure(**({"messages": 300, "turns": 1} if quick else {}))
        if "sessions" in wanted:
            found += await sessions.measure(**({"messages": 1_000, "turns": 1} if quick else {}))
        if "latency" in wanted:
            found += await latency.measure(**({"messages": 64, "peer_messages": 2} if quick else {}))
        if "composing" in wanted:
            found += await composing.measure(**({"messages": 100, "peer_messages": 5, "turns": 1} if quick else {}))
        if "command" in wanted:
            few = {"rows": 2_000, "peer_rows": 200, "turns": 1}
            found += await command.measure(Path(folder) / "command", **(few if quick else {}))
        if "memory" in wanted:
            found += await memory.measure(Path(folder) / "memory", **({"rows": 20_000, "few": 1_000} if quick else {}))
        if "pace" in wanted:
            found += await pace.measure(Path(folder) / "pace", **({"seconds": 6.0} if quick else {}))
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
    wanted = {word for word in sys.argv[1:] if not word.startswith("-")} or set(ALL)
    found = asyncio.run(rows(wanted, "--quick" in sys.argv))
    print(f"Python {platform.python_version()}, to {name()}, median of turns")
    print(table(found))
    return 0 if all(row.reached for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
