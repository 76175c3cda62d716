"""A million rows before the first of them is sent: pre-flight and load, and opening the ledger again.

    python -m benchmarks.loading [ROWS]

The ledger is a file, and PostgreSQL, that of the tests; without it only the file is measured. A run that has a million
rows and sends one of them is compared with a run that has one row, so that the start of the command is not counted,
but for the second opening: there it is what a person waits for.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import campaigns
from benchmarks.__main__ import table
from benchmarks.measure import Row, Spent, run
from benchmarks.sink import sink
from tests.interop.postgres import missing, running

__all__ = ["measure"]

MAX_LOAD, MAX_MEMORY, MAX_REOPENING = 60e-6, 120e6, 0.5  # CPU seconds a row, bytes, CPU seconds


def measure(folder: Path, rows: int = 1_000_000) -> list[Row]:
    """Load and open again with a ledger of each kind."""
    with sink() as port:
        found = _measure_one(folder / "file", port, rows, "SQLite", ["bulk", "--yes", "--quiet", "--limit", "1"])
    if reason := missing():
        print(f"without PostgreSQL: {reason}")
        return found
    with running() as postgres:
        words = ["campaign", "load", "--ledger", postgres.url]
        found += _measure_one(folder / "database", 25, rows, "PostgreSQL, the client", words, postgres.clear)
    return found


def _measure_one(
    folder: Path, port: int, rows: int, what: str, words: Sequence[str], clear: Callable[[], None] = lambda: None
) -> list[Row]:
    def once(number: int, name: str, *, is_new: bool = True) -> Spent:
        here = folder / name
        if is_new:
            campaigns.write(here, number, port, sessions=1, octets=1000)
        spent = run([sys.executable, "-m", "asyncsmtp", *words, str(here / "campaign.toml")], folder / "log")
        assert spent.code in (0, 75), (folder / "log").read_text()  # 75: rows are left
        return spent

    once(1, "compiled")  # what is compiled once is no cost of any other
    clear()
    start = once(1, "start")
    clear()
    loading = once(rows, "all")
    again = once(rows, "all", is_new=False)
    each = (loading.cpu - start.cpu) / rows
    return [
        Row(
            f"{what}: load of {rows:,} rows, CPU µs a row",
            f"{each * 1e6:.1f}",
            "-",
            "-",
            f"<= {MAX_LOAD * 1e6:.0f}",
            each <= MAX_LOAD,
        ),
        Row(
            f"{what}: its memory, MB",
            f"{loading.peak / 1e6:.0f}",
            f"{start.peak / 1e6:.0f} (one row)",
            "-",
            f"<= {MAX_MEMORY / 1e6:.0f}",
            loading.peak <= MAX_MEMORY,
        ),
        Row(
            f"{what}: opened again, CPU seconds",
            f"{again.cpu:.2f}",
            f"{start.cpu:.2f} (one row)",
            "-",
            f"<= {MAX_REOPENING:g}",
            again.cpu <= MAX_REOPENING,
        ),
    ]


def main() -> int:
    """Print the table; 1 if a target was missed."""
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-loading-") as folder:
        found = measure(Path(folder), *map(int, sys.argv[1:2]))
    print(table(found))
    return 0 if all(row.reached for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
