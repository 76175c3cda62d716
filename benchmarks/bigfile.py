"""A recipient file of two gigabytes, read from end to end: does memory grow with it?

    python -m benchmarks.bigfile [MEGABYTES]

The file is written first (it needs the space) and removed afterwards. Two processes read it as the command does before
it sends, one a hundredth of it and one the whole: peak memory and seconds of each. What is kept of a row are the
twelve octets by which duplicates are found.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from asyncsmtp.bulk.recipients.file import RecipientFile
from asyncsmtp.bulk.recipients.preflight import run_preflight
from benchmarks.measure import Spent, run

__all__ = ["read", "write"]

MB = 1_000_000
KEPT = 12  # octets a row
MAY_GROW = 16 * MB  # beside what is kept
_BLOCK = 1000  # rows written at once
_ROW = 1000  # octets


def write(path: Path, megabytes: float) -> int:
    """Write rows of a kilobyte, no two the same; return how many."""
    filler = "é" * ((_ROW - 60) // 2)
    rows = int(megabytes * MB / _ROW)
    with path.open("w", encoding="utf-8", newline="") as file:
        file.write("email,name,note\n")
        for first in range(0, rows, _BLOCK):
            numbers = range(first, min(first + _BLOCK, rows))
            file.write("".join(f'reader{n:09}@example.org,"Reader, {n:09}",{filler}\n' for n in numbers))
    return rows


def read(path: Path, log: Path) -> Spent:
    """Return the cost of reading it once in a process."""
    return run([sys.executable, "-m", "benchmarks.bigfile", "--read", str(path)], log)


def main(megabytes: float = 2000.0) -> int:
    """Print both, and whether the memory stays; 1 if it does not."""
    peaks = []
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-bigfile-") as folder:
        path, log = Path(folder) / "people.csv", Path(folder) / "log"
        for size in (megabytes / 100, megabytes):
            rows = write(path, size)
            spent = read(path, log)
            if spent.code:
                print(log.read_text())
                return 1
            peaks.append(spent.peak - rows * KEPT)
            print(
                f"{path.stat().st_size / MB:,.0f} MB, {rows:,} rows: peak {spent.peak / MB:,.0f} MB, {spent.wall:.1f} s"
            )
    grown = peaks[1] - peaks[0]
    print(f"grown by {grown / MB:,.1f} MB beside {KEPT} bytes a row; it may be {MAY_GROW / MB:,.0f} MB")
    return int(grown > MAY_GROW)


if __name__ == "__main__":
    if "--read" in sys.argv:
        asyncio.run(run_preflight(RecipientFile(sys.argv[-1])))
    else:
        sys.exit(main(*map(float, sys.argv[1:])))
