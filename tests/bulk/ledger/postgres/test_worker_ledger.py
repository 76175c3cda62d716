"""Several workers of one campaign in PostgreSQL: batches, leases, fences, decisions meanwhile, and outages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from asyncsmtp.bulk.ledger.interfaces import Claim, Decision, InDoubt, RowState, Settlement
from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.bulk.ledger.postgres.worker_ledger import WorkerLedger
from asyncsmtp.bulk.ledger.postgres.worker_session import Fenced
from asyncsmtp.bulk.ledger.queries import Script, Statement
from asyncsmtp.bulk.ledger.suppression_list import hash_key
from asyncsmtp.errors import InvalidArgument, LedgerBusy, LedgerEmpty, LedgerError
from tests.bulk.ledger.ledgers import accepted, batches, deferred, readers, recipient
from tests.interop.postgres import Postgres

ROWS = 1200  # two batches, and a part of a third
LEASE = 2.0


@pytest.fixture
async def database(postgres: Postgres) -> Postgres:
    """A database with a campaign of three batches."""
    ledger = await PostgresLedger.open(postgres.url, name="news", from_domain="example.org")
    await ledger.load(readers(ROWS))
    await ledger.aclose()
    return postgres


@asynccontextmanager
async def join(database: Postgres, lease: float = LEASE, **settings: Any) -> AsyncIterator[WorkerLedger]:
    ledger = await WorkerLedger.open(database.url, name="news", lease=lease, **settings)
    try:
        yield ledger
    finally:
        with suppress(LedgerError):
            await ledger.aclose()


async def accept(ledger: WorkerLedger, claims: list[Claim]) -> None:
    await asyncio.gather(*map(ledger.mark, claims))
    for claim in claims:
        ledger.settle(accepted(claim))


def rows(claims: list[Claim]) -> list[int]:
    return [claim.recipient.row for claim in claims]


class Frozen:
    """A clock of a process that is stopped: it does not tend its lease, and the clock jumps when it goes on."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead


async def freeze(ledger: WorkerLedger) -> None:
    """Let a ledger do nothing by itself any more, as a stopped process; what its caller does is done when it wakes."""
    assert ledger._tending is not None
    ledger._tending.cancel()
    await asyncio.wait([ledger._tending])


async def wait_until_fenced(worker: WorkerLedger, database: Postgres) -> None:
    async with asyncio.timeout(30):
        while database.execute("SELECT gone FROM asyncsmtp.worker WHERE run = %s", worker.run) != [(2,)]:  # noqa: ASYNC110  # the database has no event
            await asyncio.sleep(0.05)


async def claim_next(ledger: WorkerLedger) -> list[Claim]:
    """Claim as a run does: again after a while if there was nothing."""
    async with asyncio.timeout(30):
        while not (claims := await ledger.claim(500)):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.05)
    return claims


async def test_workers_take_different_batches_in_the_order_of_the_file(database: Postgres) -> None:
    async with join(database) as one, join(database) as other:
        first, second, third = await one.claim(500), await other.claim(500), await other.claim(500)
        assert (rows(first), rows(second)) == ([*range(1, 501)], [*range(501, 1001)])
        assert rows(third) == [*range(1001, 1201)]
        assert await one.claim(500) == []
        assert await one.next_due() is not None  # the other one's rows may become free
        for ledger, claims in ((one, first), (other, second), (other, third)):
            await accept(ledger, claims)
            await ledger.flush()
        assert await one.next_due() is None
        assert (await one.counts())[RowState.ACCEPTED] == ROWS


async def test_a_worker_that_leaves_frees_its_batches_at_once_and_leaves_no_doubt(database: Postgres) -> None:
    async with join(database) as one:
        claims = await one.claim(500)
        await accept(one, claims[:10])
        async with join(database) as other:
            assert rows(await other.claim(500)) == [*range(501, 1001)]
            await one.aclose()
            assert rows(await other.claim(500)) == [*range(11, 501)]
            assert (await other.counts())[RowState.IN_DOUBT] == 0


@pytest.mark.parametrize("policy", InDoubt)
async def test_rows_past_the_mark_of_a_fenced_worker_are_in_doubt_or_sent_once_more(
    database: Postgres, policy: InDoubt
) -> None:
    async with join(database, in_doubt=policy) as other, join(database, in_doubt=policy) as gone:
        claims = await gone.claim(500)
        await accept(gone, claims[:5])
        await asyncio.gather(*map(gone.mark, claims[5:8]))
        await freeze(gone)
        await wait_until_fenced(gone, database)
        taken = await claim_next(other)
        taken += await claim_next(other)
        taken += await claim_next(other)
        found = await other.counts()
        doubts, begin = (3, 9) if policy is InDoubt.HOLD else (0, 6)
        assert (found[RowState.ACCEPTED], found[RowState.IN_DOUBT]) == (5, doubts)
        assert sorted(rows(taken)) == [*range(begin, 1201)]


async def test_a_worker_that_wakes_after_its_lease_marks_nothing_and_its_late_reply_settles_its_doubt(
    database: Postgres,
) -> None:
    async with join(database) as other, join(database) as zombie:
        claims = await zombie.claim(500)
        await zombie.mark(claims[0])
        await freeze(zombie)
        await wait_until_fenced(zombie, database)
        assert (await other.counts())[RowState.IN_DOUBT] == 1
        zombie.settle(accepted(claims[0]))
        with pytest.raises(Fenced, match="away for longer than its lease"):
            await zombie.mark(claims[1])
        await zombie.aclose()
        found = await other.counts()
        assert (found[RowState.IN_DOUBT], found[RowState.ACCEPTED]) == (0, 1)


async def test_the_end_of_a_message_waits_for_a_fresh_lease_where_the_mark_is_older_than_it(database: Postgres) -> None:
    clock = Frozen()
    async with join(database, monotonic=clock) as worker:
        (claim, *_) = await worker.claim(500)
        mark = worker.mark(claim)
        await mark
        before = database.execute("SELECT commits FROM asyncsmtp.worker")
        clock.ahead += 3 * LEASE
        await worker.guard(mark)  # nobody has fenced it: it renews its lease, and goes on
        assert database.execute("SELECT commits FROM asyncsmtp.worker") > before


async def test_a_fenced_worker_does_not_end_a_message_whose_mark_was_durable(database: Postgres) -> None:
    clock = Frozen()
    async with join(database), join(database, monotonic=clock) as zombie:
        (claim, *_) = await zombie.claim(500)
        mark = zombie.mark(claim)
        await mark
        await freeze(zombie)
        await wait_until_fenced(zombie, database)
        clock.ahead += 2 * LEASE
        with pytest.raises(Fenced):
            await zombie.guard(mark)


async def test_the_clock_of_a_host_does_not_matter(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is fenced by a clock that is an hour off, and a row is due by the database's."""
    ahead = Frozen()
    ahead.ahead = 1_000_000.0  # since another start of the machine
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 3600)
    monkeypatch.setattr(time, "time_ns", lambda: int((real() + 3600) * 1e9))
    async with join(database) as one, join(database, monotonic=ahead) as other:
        for ledger in (one, other):
            assert abs(ledger.now().timestamp() - real()) < 5
        claims = await one.claim(500)
        one.settle(deferred(claims[0], one.now() + timedelta(seconds=1)))
        await accept(one, claims[1:])
        await one.flush()
        await other.claim(500), await other.claim(500)
        assert rows(await claim_next(other)) == [1]
        assert {gone for (gone,) in database.execute("SELECT gone FROM asyncsmtp.worker")} == {0}


async def test_an_outage_longer_than_the_lease_fences_nobody(database: Postgres) -> None:
    async with join(database) as one, join(database) as other:
        await accept(one, await one.claim(500))
        claims = await other.claim(500)
        marks = [other.mark(claim) for claim in claims[:3]]
        await asyncio.gather(*marks)
        database.kill()
        try:
            await asyncio.sleep(2 * LEASE)
        finally:
            database.start()
        for claim in claims[:3]:
            other.settle(accepted(claim))
        await asyncio.sleep(LEASE)
        await accept(other, claims[3:])
        await other.flush()
        assert {gone for (gone,) in database.execute("SELECT gone FROM asyncsmtp.worker")} == {0}
        found = await one.counts()
        assert (found[RowState.ACCEPTED], found[RowState.IN_DOUBT]) == (1000, 0)


async def test_workers_with_other_leases_are_fenced_by_their_own(database: Postgres) -> None:
    async with join(database, lease=60) as patient, join(database) as hasty:
        await patient.claim(500)
        await freeze(patient)
        await asyncio.sleep(2 * LEASE)
        assert database.execute("SELECT gone FROM asyncsmtp.worker WHERE run = %s", patient.run) == [(0,)]
        assert await hasty.claim(500)


async def test_a_deferred_row_is_tried_again_when_due_by_any_worker(database: Postgres) -> None:
    async with join(database) as one, join(database) as other:
        claims = await one.claim(500)
        one.settle(deferred(claims[0], one.now() + timedelta(seconds=0.5)))
        await accept(one, claims[1:])
        await one.flush()
        await other.claim(500), await other.claim(500)
        again = await claim_next(other)
        assert (rows(again), again[0].attempt) == ([1], 2)


async def test_a_row_deferred_without_a_time_is_tried_once_a_round(database: Postgres) -> None:
    async with join(database) as one:
        claims = await one.claim(500)
        one.settle(deferred(claims[0]))
        await accept(one, claims[1:])
        await one.flush()
        async with join(database) as other:  # not a round of its own
            assert rows(await other.claim(500)) == [*range(501, 1001)]
            await other.claim(500)
            assert await other.claim(500) == []
    async with join(database) as again:
        assert rows(await again.claim(500)) == [1]


async def test_a_decision_while_workers_send_opens_a_batch_that_was_done(database: Postgres) -> None:
    async with join(database) as worker:
        claims = await worker.claim(500)
        await accept(worker, claims[:499])
        await worker.mark(claims[499])
        worker.settle(Settlement(500, RowState.IN_DOUBT, reply="the connection was lost"))
        await worker.flush()
        with pytest.raises(LedgerBusy, match="worker"):
            await PostgresLedger.open(database.url, name="news", from_domain="example.org")
        async with join(database, is_guest=True) as guest:
            assert await guest.resolve(Decision.RESEND) == 1
        assert rows(await worker.claim(500)) == [500]


async def test_a_decision_leaves_rows_alone_that_a_worker_has(database: Postgres) -> None:
    async with join(database) as worker:
        claims = await worker.claim(500)
        worker.settle(deferred(claims[0], worker.now()))
        await accept(worker, claims[1:])
        await worker.flush()
        await worker.claim(500), await worker.claim(500)
        again = await claim_next(worker)
        async with join(database, is_guest=True) as guest:
            assert await guest.resolve(Decision.SKIP, states=[RowState.DEFERRED]) == 0
        await accept(worker, again)
        await worker.flush()


async def test_a_run_that_has_the_campaign_alone_keeps_workers_out_and_frees_what_they_left(database: Postgres) -> None:
    async with join(database) as worker:
        claims = await worker.claim(500)
        await worker.mark(claims[0])
        await freeze(worker)
        database.cut()
        alone = await PostgresLedger.open(database.url, name="news", from_domain="example.org")
        assert alone.recovery.found == 1
        with pytest.raises(LedgerBusy):
            await WorkerLedger.open(database.url, name="news")
        await alone.aclose()
        with pytest.raises(Fenced):
            await worker.mark(claims[1])
    async with join(database) as next_one:
        assert rows(await next_one.claim(500)) == [*range(2, 501)]


async def test_a_lease_that_is_too_short_is_refused_with_the_number(database: Postgres) -> None:
    with pytest.raises(InvalidArgument, match=r"a lease of 1\.5 s is too short: give at least 2 s"):
        await WorkerLedger.open(database.url, name="news", lease=1.5)
    database.execute(
        "CREATE FUNCTION slow() RETURNS trigger AS 'BEGIN PERFORM pg_sleep(0.8); RETURN new; END' LANGUAGE plpgsql"
    )
    database.execute("CREATE TRIGGER slow BEFORE UPDATE ON asyncsmtp.worker FOR EACH ROW EXECUTE FUNCTION slow()")
    with pytest.raises(InvalidArgument, match=r"a lease of 2 s is too short: one commit takes 0\.\d\d s .* at least"):
        await WorkerLedger.open(database.url, name="news", lease=2)
    database.execute("DROP FUNCTION slow CASCADE")


async def test_a_campaign_that_is_not_loaded_has_no_workers(postgres: Postgres) -> None:
    with pytest.raises(LedgerEmpty, match="load the campaign first"):
        await WorkerLedger.open(postgres.url, name="news")
    ledger = await PostgresLedger.open(postgres.url, name="news", from_domain="example.org")
    await ledger.aclose()
    with pytest.raises(LedgerEmpty, match="load the campaign first"):
        await WorkerLedger.open(postgres.url, name="news")


async def test_suppression_lists_are_those_of_the_ledger_and_of_this_host(database: Postgres, tmp_path: Path) -> None:
    listed = hash_key("reader3@example.net")  # the table names nobody
    database.execute("INSERT INTO asyncsmtp.suppressed SELECT id, %s, 'asked' FROM asyncsmtp.campaign", listed)
    (tmp_path / "gone.txt").write_text("reader5@example.net\n")
    lists = [tmp_path / "gone.txt", tmp_path / "of-another-host.txt"]
    async with join(database, suppressions=lists) as worker:
        assert rows(await worker.claim(500)) == [1, 2, 4, *range(6, 501)]
        assert (await worker.counts())[RowState.SUPPRESSED] == 2


async def test_a_whole_domain_in_the_ledgers_list_ends_a_batch(database: Postgres) -> None:
    database.execute("INSERT INTO asyncsmtp.suppressed SELECT id, '@example.net', '' FROM asyncsmtp.campaign")
    async with join(database) as worker:
        assert await worker.claim(500) == []
        assert await worker.next_due() is None
        assert (await worker.counts())[RowState.SUPPRESSED] == ROWS


async def test_further_recipients_are_batches_too(database: Postgres) -> None:
    async with join(database) as worker:
        while claims := await worker.claim(500):
            await accept(worker, claims)
            await worker.flush()
    ledger = await PostgresLedger.open(database.url, name="news", from_domain="example.org")
    await ledger.add(batches(recipient(row, f"new{row}@example.net") for row in range(1, 601)))
    await ledger.aclose()
    async with join(database) as worker:
        found = rows(await worker.claim(500)) + rows(await worker.claim(500))
        assert sorted(found) == [*range(1201, 1801)]


async def test_the_tables_are_upgraded_in_the_middle_of_a_campaign(database: Postgres) -> None:
    for table in ("worker", "batch", "rate", "suppressed"):
        database.execute(f"DROP TABLE asyncsmtp.{table}")
    database.execute("ALTER TABLE asyncsmtp.campaign DROP round, DROP state")
    database.execute("UPDATE asyncsmtp.version SET number = 2")
    database.execute("UPDATE asyncsmtp.delivery SET state = 2 WHERE seq <= 100")
    async with join(database) as worker:
        assert rows(await worker.claim(500)) == [*range(101, 501)]
    assert database.execute("SELECT number FROM asyncsmtp.version") == [(3,)]


async def test_newer_tables_are_refused(database: Postgres) -> None:
    database.execute("UPDATE asyncsmtp.version SET number = 9")
    with pytest.raises(LedgerError, match="newer asyncsmtp"):
        await WorkerLedger.open(database.url, name="news")


async def test_a_worker_that_stands_still_in_a_transaction_holds_up_nobody(database: Postgres) -> None:
    """It has locks in the database, and its connection may seem alive: as of a host that is cut off."""
    async with join(database) as other, join(database) as frozen:
        await frozen.claim(500)
        await freeze(frozen)
        with psycopg.connect(database.url) as transaction:
            transaction.execute("SELECT 1 FROM asyncsmtp.worker WHERE run = %s FOR UPDATE", (frozen.run,))
            await asyncio.sleep(1.5 * LEASE)
            async with asyncio.timeout(LEASE):
                await accept(other, await claim_next(other))
                await other.flush()
            assert database.execute("SELECT gone FROM asyncsmtp.worker WHERE run = %s", frozen.run) == [(0,)]
        await wait_until_fenced(frozen, database)


async def test_the_server_ends_the_session_of_a_worker_that_stands_still_in_a_transaction(database: Postgres) -> None:
    """When it wakes it does the transaction again; nobody had to wait for its locks for longer than half a lease."""
    async with join(database) as other, join(database) as ledger:
        begun = []

        def stand_still() -> Script[None]:
            begun.append(ledger.run)
            yield Statement("SELECT 1 FROM campaign FOR UPDATE", {})
            if len(begun) == 1:
                time.sleep(0.9 * LEASE)  # everything in this process stands still
            yield Statement("SELECT 1", {})

        async with asyncio.timeout(30):
            await ledger._store.write(stand_still)
            assert begun == [ledger.run] * 2
            await other.flush()
        assert database.execute("SELECT count(*) FROM asyncsmtp.worker WHERE gone = 0") == [(2,)]
