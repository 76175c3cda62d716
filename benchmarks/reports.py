"""The report of a campaign of a million rows, from a ledger file and from PostgreSQL: time, memory and size.

    python -m benchmarks.reports [ROWS]

The rows have everything in them that a report counts: two relays, 20,000 domains, refusals that each word an id of
their own, rows in doubt and deferred ones, and outcomes over an hour. PostgreSQL is that of the tests; without it only
the file is measured. The time is that of the command `asyncsmtp report`; most of it is the database's.
"""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

from asyncsmtp.bulk.interfaces import TOTALS_NAME, LimitTotals, RelayTotals, RunTotals
from asyncsmtp.bulk.ledger.interfaces import Ledger
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.protocol.envelope import Mailbox
from benchmarks.__main__ import table
from benchmarks.measure import Row, run
from tests.interop.postgres import missing, running

__all__ = ["measure"]

MAX_SECONDS, MAX_MEMORY, MAX_SIZE = 5, 100e6, 500_000
TURNS = 3
BEGAN_US = 1_796_000_000_000_000
_SETTLE = f"""
UPDATE {{table}} SET
  state = CASE WHEN seq % 100 < 90 THEN 2 WHEN seq % 100 < 94 THEN 4 WHEN seq % 100 < 97 THEN 3 WHEN seq % 100 < 98
    THEN 5 ELSE 0 END,
  attempts = CASE WHEN seq % 100 < 98 THEN 1 + seq % 2 ELSE 0 END,
  code = CASE WHEN seq % 100 < 90 THEN 250 WHEN seq % 100 < 94 THEN 550 WHEN seq % 100 < 97 THEN 451 END,
  status = CASE WHEN seq % 100 < 90 THEN '2.0.0' WHEN seq % 100 < 94 THEN '5.1.1' WHEN seq % 100 < 97 THEN '4.7.1' END,
  reply = CASE WHEN seq % 100 < 90 THEN '2.0.0 Ok: queued as 4F' ELSE 'no such user <r' END || cast(seq AS TEXT),
  host = CASE WHEN seq % 100 >= 97 THEN NULL WHEN seq % 3 = 0 THEN 'one.example:587' ELSE 'two.example:25' END,
  first_us = CASE WHEN seq % 100 < 98 THEN {BEGAN_US} + seq * 3600 END,
  updated_us = CASE WHEN seq % 100 < 98 THEN {BEGAN_US} + seq * 3600 + (seq % 977) * 1000 END"""


async def _recipients(rows: int) -> AsyncIterator[Sequence[Recipient | Problem]]:
    for first in range(1, rows + 1, 1000):
        yield [
            Recipient(row, Mailbox(f"reader{row}", f"d{row % 20_000}.example"), {"name": f"Reader {row}"})
            for row in range(first, min(first + 1000, rows + 1))
        ]


async def _fill(ledger: Ledger, rows: int) -> None:
    await ledger.load(_recipients(rows))
    times = dict.fromkeys((*range(1, 100), *range(100, 1000, 10)), 1000)
    totals = RunTotals(1, 3600.0, {host: RelayTotals(450_000, 9 * 10**9, times) for host in ("one", "two")})
    totals.limits["rate 300/s"] = LimitTotals(900_000, 3000.0)
    await ledger.write_value(f"{TOTALS_NAME}1", totals.to_json())


async def _make_file(path: Path, rows: int) -> None:
    from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger

    async with await SqliteLedger.open(path, name="news", from_domain="example.org") as ledger:
        await _fill(ledger, rows)
    connection = sqlite3.connect(path)
    connection.execute(_SETTLE.format(table="delivery"))
    connection.commit()
    connection.close()


async def _make_database(url: str, rows: int) -> None:
    import psycopg

    from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger

    async with await PostgresLedger.open(url, name="news", from_domain="example.org") as ledger:
        await _fill(ledger, rows)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(_SETTLE.format(table="asyncsmtp.delivery"))
        connection.execute("VACUUM ANALYZE asyncsmtp.delivery")


def measure(folder: Path, rows: int) -> list[Row]:
    """Make both ledgers, and a report of each."""
    path = folder / "news.ledger"
    asyncio.run(_make_file(path, rows))
    found = _report(folder, "a ledger file", str(path))
    path.unlink()
    if (why := missing()) is not None:
        print(why, file=sys.stderr)
        return found
    with running() as server:
        asyncio.run(_make_database(server.url, rows))
        return found + _report(folder, "PostgreSQL", f"{server.url}#news", server.processor_seconds)


def _report(folder: Path, what: str, ledger: str, server: Callable[[], float] = lambda: 0.0) -> list[Row]:
    path = folder / "report.html"
    command = [sys.executable, "-m", "asyncsmtp", "report", "--ledger", ledger, "--output", str(path)]
    before = server()
    found = [run(command, folder / "log") for _ in range(TURNS)]
    of_server, spent = (server() - before) / TURNS, min(found, key=lambda each: each.wall)
    if spent.code:
        raise SystemExit((folder / "log").read_text("utf-8", "replace"))
    size = path.stat().st_size
    row: Callable[[str, str, str, bool], Row] = lambda name, ours, target, reached: Row(  # noqa: E731
        f"report from {what}: {name}", ours, "-", "-", target, reached
    )
    cpu = f"CPU {spent.cpu:.1f}" + (f", of the server {of_server:.1f}" if of_server else "")
    return [
        row("seconds", f"{spent.wall:.1f} ({cpu})", f"<= {MAX_SECONDS} s", spent.wall <= MAX_SECONDS),
        row("peak MB", f"{spent.peak / 1e6:,.0f}", f"<= {MAX_MEMORY / 1e6:g} MB", spent.peak <= MAX_MEMORY),
        row("KB of the file", f"{size / 1000:,.0f}", f"<= {MAX_SIZE / 1000:g} KB", size <= MAX_SIZE),
    ]


def main() -> int:
    """Print the table; return 1 where a target is missed."""
    rows = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), rows)
    print(table(found))
    return 0 if all(each.reached for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
