"""`bulk --processes 2` against one process, with DKIM by RSA-2048: does a second core pay?

    python -m benchmarks.processes [ROWS] [TURNS]

Both send the same campaign in turn. On two cores the sink runs beside the two processes, where it takes time from them,
and beside the one process on a core of its own, where it takes none. So what it took is counted: half of its CPU time
is not in the seconds of the two processes.
"""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
from itertools import count
from operator import sub
from pathlib import Path
from statistics import median
from typing import NamedTuple

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks import campaigns
from benchmarks.__main__ import table
from benchmarks.measure import Row, run
from benchmarks.sink import name, sink

__all__ = ["measure"]

SESSIONS = 60  # so many that both processes have work while others wait for their marks
OCTETS = 4_000
DKIM = '\n[dkim]\ndomain = "example.org"\nselector = "s1"\nkey = "dkim.pem"\n'
MIN_RATIO = 1.5


class _Seconds(NamedTuple):
    """The seconds of a run: by the clock, of CPU, and of CPU of the sink meanwhile."""

    wall: float
    cpu: float
    sink: float


def _cpu_of_ended() -> float:
    """Return the CPU seconds of all processes that this one started and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def measure(folder: Path, rows: int = 10_000, turns: int = 3) -> list[Row]:
    """Messages a second of both, less what a run costs that has one row: its start."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    numbers = count()

    def once(processes: int, rows: int) -> _Seconds:
        here, before = folder / str(next(numbers)), _cpu_of_ended()
        with sink() as port:
            campaign = campaigns.write(here, rows, port, sessions=SESSIONS, octets=OCTETS)
            with campaign.open("a") as file:
                file.write(DKIM)
            (here / "dkim.pem").touch(0o600)
            (here / "dkim.pem").write_bytes(key)
            command = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), "--yes", "--quiet"]
            spent = run([*command, "--processes", str(processes)], here / "log")
            assert spent.code == 0, (here / "log").read_text()
        shutil.rmtree(here)
        return _Seconds(spent.wall, spent.cpu, _cpu_of_ended() - before - spent.cpu)

    once(1, 1)  # what is compiled once is not of any turn
    found: dict[tuple[int, int], list[_Seconds]] = {}
    for _ in range(turns):
        for each in ((1, 1), (2, 1), (1, rows), (2, rows)):
            found.setdefault(each, []).append(once(*each))
    middle = {each: _Seconds(*map(median, zip(*spent, strict=True))) for each, spent in found.items()}
    spent = {each: _Seconds(*map(sub, middle[each, rows], middle[each, 1])) for each in (1, 2)}
    costs = {each: spent[each].cpu / rows * 1e6 for each in (1, 2)}
    taken = spent[2].sink / 2 if os.cpu_count() == 2 else 0.0
    ratio = spent[1].wall / (spent[2].wall - taken)
    return [
        Row(
            f"{rows:,} rows signed with RSA-2048, two processes: messages/s",
            f"{rows / spent[2].wall:,.0f}",
            f"{rows / spent[1].wall:,.0f} (one process)",
            f"{spent[1].wall / spent[2].wall:.2f} x",
            "-",
            True,
        ),
        Row(
            f"the same, without what the sink takes: {spent[2].sink / rows * 1e6:.0f} µs a message",
            f"{rows / (spent[2].wall - taken):,.0f}",
            f"{rows / spent[1].wall:,.0f}",
            f"{ratio:.2f} x",
            f">= {MIN_RATIO} x",
            ratio >= MIN_RATIO,
        ),
        Row(  # where other programs have their share of the cores, this tells more than the clock
            "the same: CPU µs a message, and what two free cores could send",
            f"{costs[2]:,.0f}",
            f"{costs[1]:,.0f}",
            f"{2 * costs[1] / costs[2]:.2f} x",
            "-",
            True,
        ),
        Row("start of a run, seconds", f"{middle[2, 1].wall:.2f}", f"{middle[1, 1].wall:.2f}", "-", "-", True),
    ]


def main() -> int:
    """Print the table; 1 if the target was missed."""
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-processes-") as folder:
        found = measure(Path(folder), *map(int, sys.argv[1:3]))
    print(f"to {name()}, median of turns")
    print(table(found))
    return 0 if all(row.reached for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
