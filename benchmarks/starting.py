"""The cost of a command before it does anything."""

from __future__ import annotations

import sys
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, run

__all__ = ["measure"]

MAX_SECONDS = 0.150  # seconds more than an interpreter that does nothing


async def measure(folder: Path, turns: int = 11) -> list[Row]:
    """`asyncsmtp --help` beside `python -c pass`, in turn."""
    folder.mkdir()
    nothing, help_ = [], []
    for _ in range(turns):
        nothing.append(run([sys.executable, "-c", "pass"], folder / "log").wall)
        help_.append(run([sys.executable, "-m", "asyncsmtp", "--help"], folder / "log").wall)
    more = median(help_) - median(nothing)
    return [
        Row(
            "asyncsmtp --help: ms",
            f"{median(help_) * 1e3:.0f}",
            f"{median(nothing) * 1e3:.0f} (python -c pass)",
            f"+ {more * 1e3:.0f} ms",
            f"<= + {MAX_SECONDS * 1e3:.0f} ms",
            more <= MAX_SECONDS,
        )
    ]
