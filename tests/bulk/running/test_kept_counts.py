"""The counts of a run's quotas are in the ledger while it runs: a run that is killed has used them up."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.running import scheduler
from asyncsmtp.bulk.running.runner import Run
from tests.bulk.ledger.ledgers import readers
from tests.bulk.ledger.sqlite.test_ledger import Folder
from tests.bulk.running.test_runner import Plain
from tests.bulk.running.test_storms import YES, Saying

ROWS = 60


class Ticking:
    """A clock that goes on by `step` seconds whenever it is asked."""

    def __init__(self, step: float) -> None:
        self.step = step
        self.now = 0.0

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def home_clock(home: Folder) -> Callable[[], datetime]:
    """The ledger's clock, for a run: rows are due by the one and postponed by the other."""
    return lambda: datetime.fromtimestamp(home.now / 1e6, UTC)


async def killed_at(home: Folder, row: int, policy: RatePolicy, monotonic: Ticking) -> None:
    """Run until `row` is settled; from then on `home` is what SIGKILL would have left at that moment."""

    def watch(claim: Claim, settlement: Settlement) -> None:
        if settlement.row == row:
            home.crash()

    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
        run = Run(
            Plain(),
            ledger,
            Saying(YES),
            concurrency=1,
            watch=watch,
            rate_policy=policy,
            clock=home_clock(home),
            monotonic=monotonic,
        )
        await run.run()


def number_of(counts: str | None) -> int:
    """Return the number of messages in what was stored, all parts of all quotas together."""

    def total(value: object) -> int:
        if isinstance(value, dict):
            return sum(map(total, value.values()))
        return value if isinstance(value, int) else 0

    return total(json.loads(counts or "{}"))


@pytest.mark.parametrize("interval", [0.0, 1.0])
async def test_a_killed_run_has_used_its_quota_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, interval: float
) -> None:
    """FT-81: counts are written every second, not at the end only; the next run has what is left."""
    monkeypatch.setattr(scheduler, "SAVE_INTERVAL", interval)
    home = Folder(tmp_path)
    await killed_at(home, 40, RatePolicy(Rate.parse_all("50/day")), Ticking(0.2))
    async with home.open() as ledger:
        stored = number_of(await ledger.read_value(scheduler.COUNTS_KEY))
        assert 40 - 5 * interval - 1 <= stored <= 41
        await Run(Plain(), ledger, Saying(YES), rate_policy=RatePolicy(Rate.parse_all("50/day"))).run()
        counts = await ledger.counts()
    sent = counts[RowState.ACCEPTED] + counts[RowState.IN_DOUBT]
    assert sent <= 50 + 5 * interval + 1
    assert counts[RowState.PENDING] >= ROWS - 50 - 5 * interval - 1


async def test_quotas_of_domains_are_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FT-81: each limiter has counts of its own."""
    monkeypatch.setattr(scheduler, "SAVE_INTERVAL", 0.0)
    home = Folder(tmp_path)
    policy = RatePolicy((), {"example.net": tuple(Rate.parse_all("30/day"))})
    await killed_at(home, 20, policy, Ticking(0.2))
    async with home.open() as ledger:
        assert 19 <= number_of(await ledger.read_value(scheduler.COUNTS_KEY)) <= 21
        again = RatePolicy((), {"example.net": tuple(Rate.parse_all("30/day"))})
        await Run(Plain(), ledger, Saying(YES), rate_policy=again, clock=home_clock(home)).run()
        counts = await ledger.counts()
    assert counts[RowState.ACCEPTED] + counts[RowState.IN_DOUBT] <= 31


async def test_counts_are_not_written_for_each_message(tmp_path: Path) -> None:
    """FT-81: that would be a commit of its own each time."""
    home = Folder(tmp_path)
    async with home.open() as ledger:
        await ledger.load(readers(ROWS))
        written: list[str] = []
        write = ledger.write_value

        async def counting(name: str, value: str) -> None:
            written.append(name)
            await write(name, value)

        ledger.write_value = counting  # type: ignore[method-assign]
        policy = RatePolicy(Rate.parse_all("1000/day"))
        await Run(Plain(), ledger, Saying(YES), rate_policy=policy, monotonic=Ticking(0.1)).run()
    assert 3 <= len(written) <= ROWS // 3
