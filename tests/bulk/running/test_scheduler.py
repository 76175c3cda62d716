"""What a run sends when: limits for a domain, a day's quota over several runs, windows, and what is put off."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, RowState, Settlement
from asyncsmtp.bulk.ledger.sqlite.store import SqliteLedger
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.running import scheduler
from asyncsmtp.bulk.running.runner import Run
from asyncsmtp.bulk.running.schedule import Schedule, Window
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import LedgerError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery
from tests.bulk.ledger.ledgers import batches, entries, recipient, states
from tests.bulk.running.test_runner import Plain
from tests.bulk.running.test_storms import LATER, YES, Saying

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)  # a Monday


class Noting:
    """A pool that accepts all, and notes the domains in order."""

    def __init__(self) -> None:
        self.domains: list[str] = []

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        assert before_end is not None
        await before_end()
        self.domains.append(message.envelope.forward_paths[0].domain)
        return Delivery(message.envelope, YES, (YES,), (YES,), host="relay.example")


class Wall:
    """The wall clock of a run, its pace and its ledger."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now

    def seconds(self) -> float:
        return self.now.timestamp()

    def us(self) -> int:
        return int(self.now.timestamp() * 1e6)


@asynccontextmanager
async def ledger_of(
    folder: Path, domains: list[str], wall: Wall | None = None, **columns: str
) -> AsyncIterator[SqliteLedger]:
    clock = {} if wall is None else {"clock": wall.us}
    async with await SqliteLedger.open(
        folder / "news.ledger", name="news", from_domain="example.org", **clock
    ) as ledger:
        if not ledger.loaded:
            rows = [recipient(n, f"reader{n}@{domain}", **columns) for n, domain in enumerate(domains, 1)]
            await ledger.load(batches(rows))
        yield ledger


def rates(**domains: str) -> Mapping[str, tuple[Rate, ...]]:
    return {f"{name}.example": Rate.parse_all(rate) for name, rate in domains.items()}


async def test_a_domain_that_is_limited_holds_up_no_other(tmp_path: Path) -> None:
    """`[limits.domain]`: the rows of the others pass those that wait, and nobody is forgotten."""
    pool = Noting()
    async with ledger_of(tmp_path, ["slow.example"] * 30 + ["free.example"] * 300) as ledger:
        await Run(Plain(), ledger, pool, rate_policy=RatePolicy(domains=rates(slow="40/s"))).run()
        assert set((await states(ledger)).values()) == {RowState.ACCEPTED}
    last_free = len(pool.domains) - pool.domains[::-1].index("free.example")
    assert pool.domains[:last_free].count("slow.example") < 30  # though they are first in the file
    assert pool.domains.count("slow.example") == 30


async def test_more_rows_than_may_wait_in_memory_are_put_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounded memory, whatever the share of one domain; they come back in the same run."""
    monkeypatch.setattr(scheduler, "MAX_PARKED", 5)
    pool = Noting()
    async with ledger_of(tmp_path, ["slow.example"] * 40) as ledger:
        await Run(Plain(), ledger, pool, rate_policy=RatePolicy(domains=rates(slow="100/s"))).run()
        assert set((await states(ledger)).values()) == {RowState.ACCEPTED}
    assert len(pool.domains) == 40


async def test_a_day_s_quota_is_remembered_by_the_next_run(tmp_path: Path) -> None:
    """The run ends where the quota does and says when it goes on; started again too early, it sends nothing."""
    pool, wall = Noting(), Wall()

    async def run() -> datetime | None:
        async with ledger_of(tmp_path, ["example.net"] * 25, wall) as ledger:
            pace = RatePolicy(Rate.parse_all("10/day"), wall=wall.seconds)
            job = Run(Plain(), ledger, pool, rate_policy=pace, clock=wall)
            await job.run()
            return job.resumes_at

    resumes_at = await run()
    assert len(pool.domains) == 10
    assert resumes_at is not None
    assert timedelta(days=1) <= resumes_at - wall.now <= timedelta(days=1, minutes=15)
    wall.now += timedelta(hours=23)
    await run()
    assert len(pool.domains) == 10
    wall.now = resumes_at
    await run()
    assert len(pool.domains) == 20
    wall.now += timedelta(days=2)
    assert await run() is None
    assert len(pool.domains) == 25


async def test_a_quota_of_a_domain_lets_the_others_be_finished(tmp_path: Path) -> None:
    """The rest of that domain comes another day, also by a later run."""
    pool, wall = Noting(), Wall()
    for expected in (3 + 20, 6 + 20, 7 + 20):
        async with ledger_of(tmp_path, ["slow.example"] * 7 + ["free.example"] * 20, wall) as ledger:
            run = Run(
                Plain(),
                ledger,
                pool,
                rate_policy=RatePolicy(domains=rates(slow="3/day"), wall=wall.seconds),
                clock=wall,
            )
            await run.run()
            assert len(pool.domains) == expected
            assert (run.resumes_at is None) == (expected == 27)
        wall.now += timedelta(days=2)


async def test_nothing_begins_outside_its_window(tmp_path: Path) -> None:
    pool, wall = Noting(), Wall()
    schedule = Schedule((Window.parse("Tue 09:00-17:00 UTC"),))
    async with ledger_of(tmp_path, ["example.net"] * 5, wall) as ledger:
        closed = Run(Plain(), ledger, pool, schedule=schedule, clock=wall)
        await closed.run()
        assert (pool.domains, closed.resumes_at) == ([], datetime(2026, 3, 3, 9, tzinfo=UTC))
        assert Counter((await states(ledger)).values()) == {RowState.PENDING: 5}
    wall.now += timedelta(days=1)
    async with ledger_of(tmp_path, [], wall) as ledger:
        await Run(Plain(), ledger, pool, schedule=schedule, clock=wall).run()
    assert len(pool.domains) == 5


async def test_a_window_that_closes_during_a_run_ends_it(tmp_path: Path) -> None:
    wall = Wall()

    class Slow(Noting):
        async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
            wall.now += timedelta(hours=1)
            return await super().send(message, before_end=before_end)

    pool = Slow()
    async with ledger_of(tmp_path, ["example.net"] * 9, wall) as ledger:
        schedule = Schedule((Window.parse("09:00-14:30 UTC"),))
        await Run(Plain(), ledger, pool, schedule=schedule, clock=wall, concurrency=1).run()
        assert Counter((await states(ledger)).values()) == {RowState.ACCEPTED: 3, RowState.PENDING: 6}


async def test_recipients_have_hours_of_their_own(tmp_path: Path) -> None:
    """A row whose night it is is put off; one whose zone is none is rejected, and tells why."""
    pool, wall = Noting(), Wall()
    zones = ["Europe/Vienna", "America/Los_Angeles", "", "Mars/Base", "Asia/Tokyo"]
    schedule = Schedule((Window.parse("09:00-17:00"),), zone_column="tz")
    async with await SqliteLedger.open(
        tmp_path / "news.ledger", name="news", from_domain="example.org", clock=wall.us
    ) as ledger:
        await ledger.load(batches([recipient(n, tz=zone) for n, zone in enumerate(zones, 1)]))
        run = Run(Plain(), ledger, pool, schedule=schedule, clock=wall)
        await run.run()
        assert run.resumes_at == datetime(2026, 3, 2, 17, tzinfo=UTC)  # nine o'clock in Los Angeles
        found = await entries(ledger)
        assert found[0].state is RowState.ACCEPTED
        assert found[1].due_at == run.resumes_at
        assert "“Mars/Base” is not a time zone" in found[3].reply
        assert found[4].due_at == datetime(2026, 3, 3, tzinfo=UTC)
        wall.now += timedelta(days=1, hours=5)
        await Run(Plain(), ledger, pool, schedule=schedule, clock=wall).run()
        assert (await states(ledger))[2] is RowState.ACCEPTED


async def test_a_stopped_run_keeps_nobody_waiting(tmp_path: Path) -> None:
    """BL-16: also while rows wait for their domain; they stay pending."""
    pool = Noting()
    async with ledger_of(tmp_path, ["slow.example"] * 30) as ledger:
        first = asyncio.Event()
        pace = RatePolicy(domains=rates(slow="1/min"))
        run = Run(Plain(), ledger, pool, rate_policy=pace, watch=lambda *outcome: first.set())
        task = asyncio.create_task(run.run())
        await first.wait()
        run.stop()
        async with asyncio.timeout(5):
            await task
        assert Counter((await states(ledger)).values()) == {RowState.ACCEPTED: 1, RowState.PENDING: 29}


async def test_the_start_is_waited_for(tmp_path: Path) -> None:
    """`--start-at`: whatever else the run waits for, and a stop ends that too."""
    pool = Noting()
    async with ledger_of(tmp_path, ["example.net"] * 3) as ledger:
        start = datetime.now(UTC) + timedelta(seconds=0.2)
        await Run(Plain(), ledger, pool, schedule=Schedule(start_at=start)).run()
        assert datetime.now(UTC) >= start
        assert len(pool.domains) == 3
        run = Run(Plain(), ledger, pool, schedule=Schedule(start_at=start + timedelta(days=1)))
        task = asyncio.create_task(run.run())
        await asyncio.sleep(0)
        run.stop()
        async with asyncio.timeout(5):
            await task


async def test_a_run_can_be_paused_and_goes_on(tmp_path: Path) -> None:
    """What is in flight is answered; nothing new begins; a stop ends a pause too."""
    pool = Noting()
    async with ledger_of(tmp_path, ["example.net"] * 30) as ledger:
        some = asyncio.Event()

        def watch(claim: Claim, settlement: Settlement) -> None:
            if len(pool.domains) == 10:
                run.pause()
                some.set()

        run = Run(Plain(), ledger, pool, concurrency=2, watch=watch)
        task = asyncio.create_task(run.run())
        await some.wait()
        await asyncio.sleep(0.05)
        before = len(pool.domains)
        assert 10 <= before <= 13
        await asyncio.sleep(0.05)
        assert len(pool.domains) == before
        run.resume()
        await task
        assert len(pool.domains) == 30
    (tmp_path / "again").mkdir()
    async with ledger_of(tmp_path / "again", ["example.net"] * 3) as ledger:
        run = Run(Plain(), ledger, pool)
        run.pause()
        task = asyncio.create_task(run.run())
        await asyncio.sleep(0.05)
        run.stop()
        async with asyncio.timeout(5):
            await task
        assert len(pool.domains) == 30


async def test_a_rate_can_be_set_while_it_runs() -> None:
    """Beside those that were given; the last one counts."""
    now = 100.0
    pace = RatePolicy(Rate.parse_all("100/s"), clock=lambda: now, wall=lambda: now)
    for rate, spacing in (("1/s", 1.0), ("2/s", 0.5), ("1000/s", 0.01)):
        pace.limit(Rate.parse(rate))
        for _ in range(200):
            pace.take("example.net")
        assert pace.delay() == pytest.approx(200 * spacing - 0.1, abs=0.02)


async def test_messages_far_apart_are_no_reason_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--spread-until`: ten messages over an hour have six minutes between them, and the run stays for each."""
    monkeypatch.setattr(scheduler, "MAX_HOLD", 0.01)
    pool = Noting()
    async with ledger_of(tmp_path, ["example.net"] * 4) as ledger:
        run = Run(Plain(), ledger, pool, rate_policy=RatePolicy([Rate(5, 1)]))
        await run.run()
        assert run.resumes_at is None
    assert len(pool.domains) == 4


async def test_a_ledger_that_dies_under_a_quota_ends_the_run_as_itself(tmp_path: Path) -> None:
    """BL-10: what is counted cannot be written any more, which is no second error."""
    pool = Noting()
    async with ledger_of(tmp_path, ["example.net"] * 50) as ledger:

        def watch(claim: Claim, settlement: Settlement) -> None:
            if len(pool.domains) == 5:
                ledger._store._connection.close()

        run = Run(Plain(), ledger, pool, rate_policy=RatePolicy(Rate.parse_all("40/day")), watch=watch, concurrency=2)
        with pytest.raises(LedgerError):
            await run.run()
        with suppress(LedgerError):
            await ledger.aclose()


async def test_a_simulation_drives_a_run_by_its_clocks_and_its_sleep(tmp_path: Path) -> None:
    """A week of a daily quota, greylisting and windows passes without waiting, and twice in the same way."""
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        wall, times = Wall(), list[datetime]()

        def monotonic(wall: Wall = wall) -> float:
            return wall.seconds() - NOON.timestamp()

        async def sleep(seconds: float, event: asyncio.Event, wall: Wall = wall) -> None:
            wall.now += timedelta(seconds=seconds)
            await asyncio.sleep(0)

        def watch(claim: Claim, settlement: Settlement, wall: Wall = wall, times: list[datetime] = times) -> None:
            times.append(wall.now)

        policy = RatePolicy(Rate.parse_all("10/min, 10/day"), clock=monotonic, wall=wall.seconds)
        async with ledger_of(tmp_path / name, ["example.net"] * 40, wall) as ledger:
            run = Run(
                Plain(),
                ledger,
                Saying(*[LATER] * 3, YES),
                rate_policy=policy,
                schedule=Schedule((Window.parse("09:00-17:00 UTC"),)),
                wait=True,
                watch=watch,
                concurrency=1,
                clock=wall,
                monotonic=monotonic,
                random=Random(1),
                sleep=sleep,
            )
            await run.run()
            assert set((await states(ledger)).values()) == {RowState.ACCEPTED}
        assert len(times) == 43
        assert timedelta(days=4) <= times[-1] - NOON <= timedelta(days=6)
        assert all(9 <= time.hour < 17 for time in times)
        found.append(times)
    assert found[0] == found[1]
