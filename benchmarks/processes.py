"""`bulk --processes 2` against one process, with DKIM by RSA-2048: does a second core pay?

    python -m benchmarks.processes [ROWS] [TURNS]

Both send the same campaign to the same sink in turn. The sink has its share of the two cores, which is printed: what it
takes, no process of ours can have.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from itertools import count
from pathlib import Path
from statistics import median

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from benchmarks import campaigns
from benchmarks.__main__ import table
from benchmarks.measure import Row, run
from benchmarks.sink import name, sink

__all__ = ["measure"]

SESSIONS = 40
OCTETS = 4_000
DKIM = '\n[dkim]\ndomain = "example.org"\nselector = "s1"\nkey = "dkim.pem"\n'
MIN_RATIO = 1.5


def measure(folder: Path, rows: int = 10_000, turns: int = 3) -> list[Row]:
    """Messages a second of both, less what a run costs that has one row: its start."""
    key = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    numbers = count()
    with sink() as port:

        def once(processes: int, rows: int) -> tuple[float, float]:
            here = folder / str(next(numbers))
            campaign = campaigns.write(here, rows, port, sessions=SESSIONS, octets=OCTETS)
            with campaign.open("a") as file:
                file.write(DKIM)
            (here / "dkim.pem").touch(0o600)
            (here / "dkim.pem").write_bytes(key)
            command = [sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), "--yes", "--quiet"]
            spent = run([*command, "--processes", str(processes)], here / "log")
            assert spent.code == 0, (here / "log").read_text()
            shutil.rmtree(here)
            return spent.wall, spent.cpu

        once(1, 1)  # what is compiled once is not of any turn
        found: dict[tuple[int, int], list[tuple[float, float]]] = {}
        for _ in range(turns):
            for each in ((1, 1), (2, 1), (1, rows), (2, rows)):
                found.setdefault(each, []).append(once(*each))
    middle = {each: tuple(median(values) for values in zip(*spent, strict=True)) for each, spent in found.items()}
    rates = {each: rows / (middle[each, rows][0] - middle[each, 1][0]) for each in (1, 2)}
    costs = {each: (middle[each, rows][1] - middle[each, 1][1]) / rows * 1e6 for each in (1, 2)}
    ratio = rates[2] / rates[1]
    return [
        Row(
            f"{rows:,} rows signed with RSA-2048, two processes: messages/s",
            f"{rates[2]:,.0f}",
            f"{rates[1]:,.0f} (one process)",
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
        Row("start of a run, seconds", f"{middle[2, 1][0]:.2f}", f"{middle[1, 1][0]:.2f}", "-", "-", True),
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
