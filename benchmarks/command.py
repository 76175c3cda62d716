"""The whole command, from the CSV to the durable ledger, against the usual script, and against itself as work grows."""

from __future__ import annotations

import shutil
import sys
from itertools import count
from pathlib import Path

from benchmarks import campaigns
from benchmarks.measure import Cost, Row, in_turn, middle, run
from benchmarks.sink import sink

__all__ = ["bulk", "grow", "measure"]

SESSIONS = 20
OCTETS = 8_000
FEW = 5_000  # rows
DEFAULT_REPLY = Path(__file__).with_name("usual_script.py")


async def measure(folder: Path, rows: int = 20_000, peer_rows: int = 5_000, turns: int = 5) -> list[Row]:
    """Rates of both, each on a new folder and with its start-up counted; the slow one gets fewer rows."""
    numbers = count()
    with sink() as port:

        async def ours() -> Cost:
            here = folder / str(next(numbers))
            return bulk(campaigns.write(here, rows, port, sessions=SESSIONS, octets=OCTETS), rows)

        async def peer() -> Cost:
            here = folder / str(next(numbers))
            campaigns.write(here, peer_rows, port, sessions=SESSIONS, octets=OCTETS)
            files = [str(here / name) for name in ("people.csv", "message.txt", "message.html")]
            spent = run([sys.executable, str(DEFAULT_REPLY), *files, str(port), str(SESSIONS)], here / "log")
            assert spent.code == 0, (here / "log").read_text()
            shutil.rmtree(here)
            return Cost(peer_rows, spent.wall, spent.cpu)

        mine, theirs = await in_turn(ours, peer, turns)
    ratio = mine.rate / theirs.rate
    return [
        Row(
            f"the whole command, {rows:,} rows of 8 KB, {SESSIONS} sessions: messages/s",
            f"{mine.rate:,.0f}",
            f"{theirs.rate:,.0f} (the usual script)",
            f"{ratio:.1f} x",
            ">= 10 x",
            ratio >= 10,
        ),
        Row(
            "the same: CPU µs a message",
            f"{mine.each * 1e6:,.0f}",
            f"{theirs.each * 1e6:,.0f}",
            f"1/{theirs.each / mine.each:.1f}",
            "<= 1/8",
            theirs.each / mine.each >= 8,
        ),
    ]


async def grow(folder: Path, sizes: tuple[int, ...] = (1_000, 10_000, 100_000), turns: int = 3) -> list[Row]:
    """CPU a message for more and more rows, less what a run costs that has one for each session: its start.

    The fewer the rows, the more the variance of the start weighs: so few are run so much more often.
    """
    numbers = count()
    with sink() as port:

        def once(rows: int) -> Cost:
            here = folder / str(next(numbers))
            return bulk(campaigns.write(here, rows, port, sessions=SESSIONS, octets=OCTETS), rows)

        once(1)  # what is compiled once is not of any size
        measured: dict[int, list[Cost]] = {rows: [] for rows in (SESSIONS, *sizes)}
        for _ in range(turns):  # the sizes in turn, so that a busy minute hits them all
            for rows, costs_of in measured.items():
                costs_of += [once(rows) for _ in range(5 if rows < FEW else 1)]
        costs = {rows: middle(costs_of) for rows, costs_of in measured.items()}
    start, last = costs[SESSIONS].cpu, sizes[-1]
    each = {rows: (costs[rows].cpu - start) / (rows - SESSIONS) for rows in sizes}
    spread = max(abs(cost / each[sizes[1]] - 1) for cost in each.values())
    return [
        Row(
            f"the whole command, {last:,} rows of 8 KB: messages/s",
            f"{costs[last].rate:,.0f}",
            "-",
            "-",
            ">= 5,000",
            costs[last].rate >= 5_000,
        ),
        Row(
            f"CPU µs a message of {', '.join(f'{rows:,}' for rows in sizes)} rows, less the start",
            ", ".join(f"{cost * 1e6:,.0f}" for cost in each.values()),
            f"{start * 1e3:,.0f} ms (the start)",
            f"{each[last] / each[sizes[0]]:.2f} x",
            "± 10 %",
            spread <= 0.1,
        ),
    ]


def bulk(campaign: Path, rows: int) -> Cost:
    """Run the command on a campaign, once, and forget it."""
    log = campaign.with_name("log")
    spent = run([sys.executable, "-m", "asyncsmtp", "bulk", str(campaign), "--yes"], log)
    assert spent.code == 0, log.read_text()
    shutil.rmtree(campaign.parent)
    return Cost(rows, spent.wall, spent.cpu)
