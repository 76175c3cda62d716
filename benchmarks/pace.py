"""Rates that must hold: fifty a second for a minute, a limit for one domain, and a relay that replies "too fast"."""

from __future__ import annotations

import asyncio
import time
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.mail.templates.template import Template
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.testing import Rule, ScriptedRelay, Stage, StageContext
from benchmarks.measure import Row

__all__ = ["measure"]

TEMPLATE = Template(from_="News <news@example.org>", subject="News", text="Dear {{ name }}\n")
MAX_SHARE = 20  # messages a second that the strict relay takes


async def measure(folder: Path, seconds: float = 60.0) -> list[Row]:
    """Three runs, each so many seconds long."""
    folder.mkdir()
    return [
        *await _steady(folder / "steady", seconds),
        await _domain(folder / "domain", seconds / 4),
        await _adaptive(folder / "adaptive", seconds),
    ]


async def _steady(folder: Path, seconds: float) -> list[Row]:
    times, _ = await _run(folder, ["example.net"] * int(50 * seconds), RatePolicy(Rate.parse_all("50/s")))
    rate = (len(times) - 1) / (times[-1] - times[0])
    most = max(bisect_left(times, at + 1) - place for place, at in enumerate(times))
    return [
        Row(f"50/s for {seconds:g} s: messages/s", f"{rate:.2f}", "-", "-", "± 2 %", abs(rate - 50) <= 1),
        Row("the same: most messages within any second", f"{most}", "-", f"{most / 50:.2f} x", "<= 1.2 x", most <= 60),
    ]


async def _domain(folder: Path, seconds: float) -> Row:
    slow = int(5 * seconds)
    rows = ["slow.example"] * slow + ["free.example"] * 2_000
    times, ends = await _run(folder, rows, RatePolicy(domains={"slow.example": Rate.parse_all("5/s")}))
    rate = (slow - 1) / (ends["slow.example"] - times[0])
    free = ends["free.example"] - times[0]
    return Row(
        "5/s for one domain, 2,000 to others: messages/s to it",
        f"{rate:.2f}",
        f"others done in {free:.1f} s",
        "-",
        "5 ± 2 %",
        abs(rate - 5) <= 0.25 and free < seconds / 2,
    )


async def _adaptive(folder: Path, seconds: float) -> Row:
    """The relay says 421 to MAIL above `MAX_SHARE` in any second; rows come back after a second."""
    accepted: deque[float] = deque()

    def strict(context: StageContext) -> str | None:
        now = time.monotonic()
        while accepted and accepted[0] <= now - 1:
            accepted.popleft()
        if len(accepted) >= MAX_SHARE:
            return "421 4.7.0 too fast"
        accepted.append(now)
        return None

    rows = ["example.net"] * int(MAX_SHARE * seconds)
    retry = Retry(delay=1.0, max_delay=4.0)
    times, _ = await _run(folder, rows, RatePolicy(), {Stage.MAIL: strict}, retry=retry)
    settled = [at for at in times if at > times[0] + seconds / 6]
    rate = (len(settled) - 1) / (settled[-1] - settled[0])
    lost = len(rows) - len(times)
    return Row(
        f"a relay that takes {MAX_SHARE}/s: messages/s once settled",
        f"{rate:.2f}",
        f"{lost} rows lost",
        f"{rate / MAX_SHARE:.2f} x",
        ">= 0.9 x, none lost",
        rate >= 0.9 * MAX_SHARE and not lost,
    )


async def _run(
    folder: Path,
    domains: list[str],
    pace: RatePolicy,
    script: dict[Stage, Rule] | None = None,
    retry: Retry | None = None,
) -> tuple[list[float], dict[str, float]]:
    """Send a row to each domain; return when each was accepted, and the last one of each domain."""
    folder.mkdir()
    times: list[float] = []
    ends: dict[str, float] = {}

    def noted(context: StageContext) -> None:
        times.append(time.monotonic())
        ends[context.forward_paths[0].rpartition("@")[2]] = times[-1]

    async def rows() -> AsyncIterator[Sequence[Recipient | Problem]]:
        for begin in range(0, len(domains), 500):
            yield [
                Recipient(row, Mailbox.parse(f"reader{row}@{domain}"), {"name": f"Reader {row}"})
                for row, domain in enumerate(domains[begin : begin + 500], begin + 1)
            ]

    async with (
        ScriptedRelay({**(script or {}), Stage.END_OF_DATA: noted}) as server,
        await SqliteLedger.open(folder / "pace.ledger", name="pace", from_domain="example.org") as ledger,
        Pool(Relay("127.0.0.1", server.port, Security.PLAINTEXT), sessions=5) as pool,
    ):
        await ledger.load(rows())
        await Run(
            TEMPLATE.compile(("name",)), ledger, pool, rate_policy=pace, retry=retry, wait=True, concurrency=20
        ).run()
        counts = Counter({state: number for state, number in (await ledger.counts()).items() if number})
    assert counts[RowState.ACCEPTED] == len(times), counts
    await asyncio.sleep(0)
    return times, ends
