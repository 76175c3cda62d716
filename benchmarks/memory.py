"""The most memory the whole command holds: whether it grows with the file, and what an attachment costs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from random import Random

from benchmarks import campaigns
from benchmarks.measure import Row, run
from benchmarks.sink import sink

__all__ = ["attach", "measure"]

MIB = 1024 * 1024
HEAVY = 150e6  # octets


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


async def attach(folder: Path, rows: int = 1_000, size: int = 25 * MIB) -> list[Row]:
    """One attachment to everyone, twenty sessions: it is read and encoded once, and shared by all messages."""
    with sink() as port:
        many, one = (peak(folder / str(number), number, port, size) for number in (rows, 1))
    return [
        Row(
            f"memory: {size // MIB} MiB attached, to {rows:,}: peak MB",
            f"{many / 1e6:,.0f}",
            f"{one / 1e6:,.0f} (to one)",
            f"{many / one:.2f} x",
            f"<= {HEAVY / 1e6:.0f} MB",
            many <= HEAVY,
        )
    ]


def peak(folder: Path, rows: int, port: int, attachment: int = 0) -> int:
    """Octets of resident memory at the highest moment of one run."""
    campaign = campaigns.write(folder, rows, port, sessions=20, octets=1_000)
    if attachment:
        (folder / "book.pdf").write_bytes(b"%PDF-1.7\n" + Random(1).randbytes(attachment))
        settings = campaign.read_text().replace("[relay]", 'attachments = ["book.pdf"]\n\n[relay]')
        campaign.write_text(settings)
    spent = run([sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), "--yes"], folder / "log")
    assert spent.code == 0, (folder / "log").read_text()
    shutil.rmtree(folder)
    return spent.peak
