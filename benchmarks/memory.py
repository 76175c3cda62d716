"""The most memory the whole command holds, and whether it grows with the file."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from benchmarks import campaigns
from benchmarks.measure import Row, run
from benchmarks.sink import sink

__all__ = ["measure"]

MIB = 1024 * 1024


async def measure(folder: Path, rows: int = 200_000, few: int = 10_000) -> list[Row]:
    """Peak resident memory of the process, for many rows and for few."""
    with sink() as port:
        large, small = (peak(folder / str(number), number, port) for number in (rows, few))
    return [
        Row(
            f"memory: {rows:,} rows against {few:,}: peak MB",
            f"{large / 1e6:,.0f}",
            f"{small / 1e6:,.0f} (itself)",
            f"{large / small:.2f} x",
            "<= 120 MB",
            large <= 120e6,
        )
    ]


def peak(folder: Path, rows: int, port: int) -> int:
    """Octets of resident memory at the highest moment of one run."""
    campaign = campaigns.write(folder, rows, port, sessions=20, octets=1_000)
    spent = run([sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), "--yes"], folder / "log")
    assert spent.code == 0, (folder / "log").read_text()
    shutil.rmtree(folder)
    return spent.peak
