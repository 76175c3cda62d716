"""A million rows to a server that loses one reply in a hundred and says "later" to one in twenty.

    python -m benchmarks.million [ROWS]

The server, that of the kill tests, writes each verdict down before it says it; afterwards the ledger must agree with it
row by row. Memory and CPU a message are printed beside those of ten thousand rows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from benchmarks.__main__ import table
from benchmarks.measure import Row, Spent, run

__all__ = ["measure"]

ORACLE = Path(__file__).parents[1] / "tests" / "kill" / "oracle.py"
FEW = 10_000
LOSE, DEFER = 100, 20
SETTINGS = """
[campaign]
name = "million"
from = "News <news@example.org>"
subject = "For {{{{ name }}}}"
recipients = "people.csv"
email = "email"
text = "message.txt"
[relay]
url = "smtp://127.0.0.1:{port}?security=none"
sessions = 20
[limits]
adapt = false
[retry]
delay = "2s"
"""


def measure(folder: Path, rows: int) -> list[Row]:
    """Run both, compare both."""
    _campaign(folder / "warm", 1)  # what is compiled once is not of the start
    start, _ = _campaign(folder / "one", 1)
    small, _ = _campaign(folder / "few", FEW)
    large, counts = _campaign(folder / "many", rows)
    few, many = ((spent.cpu - start.cpu) / number for spent, number in ((small, FEW), (large, rows)))
    doubts = counts["in doubt"] / rows
    return [
        Row(f"{rows:,} rows: the ledger and the server's log", "agree", "-", "-", "row by row", True),
        Row("messages/s", f"{rows / large.wall:,.0f}", f"{FEW / small.wall:,.0f} (10,000 rows)", "-", "-", True),
        Row("in doubt", f"{counts['in doubt']:,}", "-", f"{doubts:.2%}", "1 % were lost", 0.008 < doubts < 0.02),
        Row("peak MB", f"{large.peak / 1e6:,.0f}", f"{small.peak / 1e6:,.0f}", "-", "<= 120 MB", large.peak <= 120e6),
        Row(
            "CPU µs a message, less the start",
            f"{many * 1e6:,.0f}",
            f"{few * 1e6:,.0f}",
            f"{many / few:.2f} x",
            "<= 1.1 x",
            many <= 1.1 * few,
        ),
    ]


def _campaign(folder: Path, rows: int) -> tuple[Spent, Counter[str]]:
    folder.mkdir(parents=True)
    with (folder / "people.csv").open("w") as people:
        people.write("email,name\n")
        people.writelines(f"somebody{row}@example.com,Name {row}\n" for row in range(rows))
    (folder / "message.txt").write_text("Dear {{ name }},\nthis is\nfor {{ email }}\n")
    log = folder / "oracle.log"
    command = [sys.executable, "-I", str(ORACLE), str(log), "--lose", str(LOSE), "--defer", str(DEFER)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout is not None
            (folder / "campaign.toml").write_text(SETTINGS.format(port=int(server.stdout.readline())))
            spent = run(
                [sys.executable, "-m", "asyncsmtp", "bulk", str(folder / "campaign.toml"), "--yes", "--wait"],
                folder / "said",
            )
        finally:
            server.kill()
    assert spent.code == (1 if rows > LOSE else 0), (folder / "said").read_text()  # some are in doubt
    return spent, _compare(folder, log, rows)


def _compare(folder: Path, log: Path, rows: int) -> Counter[str]:
    """Every row has the server's last word on it, by its token; in doubt are those alone whose reply was lost."""
    last: dict[str, tuple[str, str]] = {}
    copies: Counter[str] = Counter()
    with log.open() as lines:
        for line in lines:
            word, _, recipient, token = line.split()
            last[recipient] = (word, token)
            copies[recipient] += word == "accepted"
    assert max(copies.values()) == 1, "somebody got two"
    counts: Counter[str] = Counter()
    results = [sys.executable, "-m", "asyncsmtp", "results", str(folder / "campaign.toml"), "--json"]
    with subprocess.Popen(results, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            entry = json.loads(line)
            word, token = last[entry["email"]]
            counts[entry["state"]] += 1
            if entry["state"] == "in doubt":
                assert word in ("accepted", "deferred"), entry
            else:
                assert (entry["state"], token in entry["reply"]) == (word, True), (entry, word, token)
    assert counts.total() == rows, counts
    return counts


def main() -> int:
    """Print the table; 1 if a target was missed."""
    rows = int(sys.argv[1].replace("_", "")) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory(prefix="asyncsmtp-million-", dir=os.environ.get("TMPDIR")) as folder:
        found = measure(Path(folder), rows)
    print(table(found))
    return 0 if all(row.reached for row in found) else 1


if __name__ == "__main__":
    sys.exit(main())
