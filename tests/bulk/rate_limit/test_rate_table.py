"""Rates that workers have together, in the ledger's database."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise

import psycopg
import pytest

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.database_session import Connection
from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.bulk.ledger.postgres.worker_session import monotonic_clock
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.shared_store import Reservation
from asyncsmtp.bulk.workers import rate_table
from asyncsmtp.bulk.workers.rate_table import MAX_LATE, MAX_TRANSACTION, RateTable, Spread, _TableGroup, _WaitTimer
from asyncsmtp.errors import LedgerError
from tests.bulk.ledger.ledgers import readers
from tests.interop.postgres import Postgres


@pytest.fixture
async def database(postgres: Postgres) -> Database:
    ledger = await PostgresLedger.open(postgres.url, name="news", from_domain="example.org")
    await ledger.aclose()
    return Database.parse(postgres.url)


@pytest.fixture
async def tables(database: Database) -> AsyncIterator[list[RateTable]]:
    """Three workers' tables."""
    made = [RateTable(database) for _ in range(3)]
    yield made
    for table in made:
        await table.aclose()


async def test_slots_of_an_even_rate_are_apart_whoever_reserves_them(tables: list[RateTable]) -> None:
    rate = Rate.parse("100/s")
    found = [await table.reserve("relay", [rate], 10) for table in (*tables, *tables)]
    slots = sorted(slot for reserved in found for slot in reserved.times)
    assert len(slots) == 60
    assert min(after - before for before, after in pairwise(slots)) >= 9_999


async def test_nobody_reserves_further_ahead_than_a_second(tables: list[RateTable]) -> None:
    rate, loop = Rate.parse("10/s"), asyncio.get_running_loop()
    began = loop.time()
    found = [await table.reserve("relay", [rate], 10) for _ in range(10) for table in tables]
    took = loop.time() - began
    assert all(len(reserved.times) <= 2 for reserved in found)  # a quarter of a second each
    assert all(reserved.times[-1] - reserved.at <= 1_300_000 for reserved in found if reserved.times)
    assert sum(len(reserved.times) for reserved in found) <= 10 * (took + 1) + 4
    assert all(0 < reserved.wait <= 1.5 for reserved in found if not reserved.times)


async def test_a_quota_is_never_exceeded_and_what_was_not_sent_is_given_back(tables: list[RateTable]) -> None:
    quota = Rate.parse("100/day")
    number, last = 0, Reservation((), 0, 0, 0)
    while (reserved := await tables[number % 3].reserve("relay", [quota], 50)).times:
        number, last = number + len(reserved.times), reserved
    assert number == 100
    assert reserved.wait > 80_000
    await tables[0].release("relay", [quota], last, len(last.times))
    again = await tables[1].reserve("relay", [quota], 50)
    assert len(again.times) <= len(last.times)
    assert again.times


async def test_all_rates_of_a_group_are_taken_or_none(tables: list[RateTable]) -> None:
    rates = [Rate.parse("1000/s"), Rate.parse("5/day")]
    while (await tables[0].reserve("relay", rates, 10)).times:
        pass
    before = await tables[1].reserve("relay", rates[:1], 1)
    assert (await tables[2].reserve("relay", rates, 10)).times == ()
    after = await tables[1].reserve("relay", rates[:1], 1)
    assert after.times[0] - before.times[0] < 100_000  # the other one took no slot


async def test_many_at_once_wait_for_each_other_in_no_circle(tables: list[RateTable]) -> None:
    rates = [Rate.parse("100/s"), Rate.parse("1000/day"), Rate.parse("500/h")]
    asked = [table.reserve("relay", order, 5) for _ in range(20) for table in tables for order in (rates, rates[::-1])]
    found = await asyncio.gather(*asked)
    assert sum(len(reserved.times) for reserved in found) <= 500


async def test_a_group_of_limits_reaches_the_rate_and_exceeds_it_in_no_second(tables: list[RateTable]) -> None:
    """Three workers, 60 messages a second, for three seconds."""
    rate, sent, tasks = Rate.parse("60/s"), list[float](), set[asyncio.Task[None]]()
    loop = asyncio.get_running_loop()
    end = loop.time() + 3.0

    async def work(group: _TableGroup) -> None:
        while (now := loop.time()) < end:
            if (wait := group.delay(now, 0.0)) > 0:
                await asyncio.sleep(wait)
                continue
            group.take(now, 0.0)
            sent.append(now)

    timer = _WaitTimer(lambda seconds: None)
    groups = [_TableGroup(table, "relay", [rate], tasks, timer) for table in tables]
    await asyncio.gather(*map(work, groups))
    await asyncio.gather(*tasks)
    worst = max(sum(begin <= at < begin + 1 for at in sent) for begin in sent)
    assert worst <= 60 * (1 + MAX_LATE) + 3  # a loaded machine is late, by what is not lost
    assert 0.85 * 180 <= len(sent) <= 1.02 * 180 + 3


async def test_while_the_database_is_away_nothing_may_begin_and_it_is_said_once(
    postgres: Postgres, database: Database
) -> None:
    said: list[str] = []
    table = RateTable(database, said.append)
    rate = Rate.parse("1000/s")
    assert (await table.reserve("relay", [rate], 5)).times
    postgres.kill()
    try:
        for _ in range(3):
            reserved = await table.reserve("relay", [rate], 5)
            assert (reserved.times, reserved.wait) == ((), 1.0)
    finally:
        postgres.start()
    assert (await table.reserve("relay", [rate], 5)).times
    assert len(said) == 1
    await table.aclose()


async def test_a_worker_that_stands_still_while_it_reserves_holds_up_the_others_for_a_second(
    tables: list[RateTable],
) -> None:
    """What it was about to reserve is nobody's: the server ends its session. It reserves again when it wakes."""
    quota, [one, other, _] = Rate.parse("100/day"), tables
    await one.reserve("relay", [quota], 4)

    async def stand_still(connection: Connection) -> Reservation:
        reserved = await one._reserve("relay", [quota], 4, connection)
        time.sleep(1.5 * MAX_TRANSACTION)  # noqa: ASYNC251  # everything in this process stands still
        return reserved

    nothing = Reservation((), 1.0, 0, 0)
    assert await one._do(stand_still, nothing) == nothing
    async with asyncio.timeout(20):
        number = 4
        while (reserved := await other.reserve("relay", [quota], 50)).times:
            number += len(reserved.times)
        assert number == 100
        assert not (await one.reserve("relay", [quota], 4)).times


@pytest.fixture
async def spread(postgres: Postgres, database: Database) -> Spread:
    """1000 messages of a campaign, in about 20 s from now."""
    ledger = await PostgresLedger.open(postgres.url, name="news", from_domain="example.org")
    await ledger.load(readers(1000))
    await ledger.aclose()
    return Spread(1, 1, "news", 0, time.time_ns() // 1000 + 20_000_000)


async def test_messages_that_are_spread_are_at_one_distance_for_all_workers(
    tables: list[RateTable], spread: Spread
) -> None:
    found = [await table.reserve("relay", [spread], 10) for table in (*tables, *tables)]
    slots = sorted(slot for reserved in found for slot in reserved.times)
    [step] = {await table.find_step(spread) for table in tables}
    assert step is not None
    assert 10_000 < step <= 20_000
    assert len(slots) >= 30
    assert min(after - before for before, after in pairwise(slots)) >= step - 1


async def test_their_distance_follows_what_is_left(
    tables: list[RateTable], spread: Spread, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rate_table, "STEP_TIME", 0.0)
    first = await tables[0].find_step(spread)
    postgres.execute("UPDATE asyncsmtp.delivery SET state = 2 WHERE seq > 100")
    assert await tables[1].find_step(spread) == first  # for a minute
    monkeypatch.setattr(rate_table, "RENEW_STEP", 0.0)
    last = await tables[2].find_step(spread)
    assert first is not None
    assert last is not None
    assert last > 4 * first
    postgres.execute("UPDATE asyncsmtp.delivery SET state = 2")
    assert await tables[0].find_step(spread) == last  # nothing is left


async def test_while_one_worker_finds_their_distance_the_others_use_the_old_one(
    tables: list[RateTable], spread: Spread, postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await tables[0].find_step(spread)
    monkeypatch.setattr(rate_table, "RENEW_STEP", 0.0)
    with psycopg.connect(postgres.url) as other:
        other.execute("SELECT 1 FROM asyncsmtp.rate FOR UPDATE")
        async with asyncio.timeout(20):
            assert await tables[1].find_step(spread) == first


async def test_all_workers_begin_to_spread_at_once(tables: list[RateTable], spread: Spread) -> None:
    assert len(set(await asyncio.gather(*(table.find_step(spread) for table in tables)))) == 1


async def test_after_their_time_messages_are_spread_as_before_it(tables: list[RateTable], spread: Spread) -> None:
    late = replace(spread, end=1, count=50)
    assert await tables[0].find_step(late) == 20_000


async def test_a_quota_that_is_changed_in_the_middle_of_a_day_counts_what_was_sent(tables: list[RateTable]) -> None:
    number = 0
    while (reserved := await tables[0].reserve("relay", [Rate.parse("50/day")], 50)).times:
        number += len(reserved.times)
    assert number == 50
    assert not (await tables[1].reserve("relay", [Rate.parse("40/day")], 50)).times
    assert (await tables[1].reserve("relay", [Rate.parse("40/h")], 50)).times
    while (reserved := await tables[2].reserve("relay", [Rate.parse("60/day"), Rate.parse("90/day")], 50)).times:
        number += len(reserved.times)
    assert number == 60


async def test_a_server_that_is_not_durable_is_asked_again_after_a_while_and_it_is_said_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, said = list[Database](), list[str]()

    async def refuse(database: Database, *, write: bool) -> Connection:
        asked.append(database)
        raise LedgerError("the server may lose what it reports as durable")

    monkeypatch.setattr(rate_table, "connect", refuse)
    tasks, loop = set[asyncio.Task[None]](), asyncio.get_running_loop()
    group = _TableGroup(RateTable(database, said.append), "relay", [Rate.parse("9/s")], tasks, _WaitTimer(print))
    for _ in range(30):
        assert group.delay(loop.time(), 0.0) > 0
        await asyncio.sleep(0.01)
    await asyncio.gather(*tasks)
    assert (len(asked) <= 3, len(said)) == (True, 1)  # once a second


async def test_slots_from_before_a_suspend_are_late_after_it(
    tables: list[RateTable], monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved = await tables[0].reserve("relay", [Rate.parse("100/s")], 10)
    monkeypatch.setattr(rate_table, "monotonic_clock", lambda: monotonic_clock() + 3600)
    assert tables[0].now() - reserved.times[-1] > 3_000_000_000
