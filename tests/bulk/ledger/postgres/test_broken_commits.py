"""A worker's connection that breaks while the database is still in the middle of its COMMIT."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres import database_session, worker_session, writer
from asyncsmtp.bulk.ledger.postgres.worker_ledger import WorkerLedger
from asyncsmtp.bulk.ledger.postgres.worker_session import Fenced
from tests.bulk.ledger.postgres.test_worker_ledger import ROWS, accept, database, join, rows
from tests.interop.postgres import Postgres

__all__ = ["database"]

pytestmark = pytest.mark.slow

SECONDS = 3  # that the slow COMMIT takes
_SLOW = """
CREATE SEQUENCE asyncsmtp.slow_commits;
CREATE FUNCTION asyncsmtp.slow_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF nextval('asyncsmtp.slow_commits') = 1 THEN PERFORM pg_sleep({seconds}); {then} END IF;
  RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER slow AFTER UPDATE ON asyncsmtp.{table} DEFERRABLE INITIALLY DEFERRED
FOR EACH ROW EXECUTE FUNCTION asyncsmtp.slow_commit()"""


def slow_down(database: Postgres, table: str, then: str = "") -> None:
    """Let the next COMMIT with a change of this table take some seconds."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(_SLOW.format(seconds=SECONDS, table=table, then=then).encode())


async def wait_for_commit(database: Postgres) -> None:
    """Wait until a backend is in its slow COMMIT."""
    async with asyncio.timeout(30):
        while not database.execute("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):  # noqa: ASYNC110  # the database has no event
            await asyncio.sleep(0.05)


def cut(ledger: WorkerLedger) -> None:
    database_session._abort(ledger._session._connection)


async def send_all(ledger: WorkerLedger) -> list[int]:
    """Claim and send rows until none is left; return them."""
    sent: list[int] = []
    async with asyncio.timeout(60):
        while await ledger.next_due() is not None:
            claims = await ledger.claim(500)
            sent += rows(claims)
            await accept(ledger, claims)
            await ledger.flush()
    return sent


async def test_a_batch_is_taken_once_where_the_connection_breaks_during_the_commit(database: Postgres) -> None:
    slow_down(database, "batch")
    async with join(database, lease=60.0) as ledger:
        taking = asyncio.create_task(ledger.claim(1))
        await wait_for_commit(database)
        cut(ledger)
        async with asyncio.timeout(60):
            first = await taking
        assert rows(first) == [1]
        assert database.execute("SELECT batch_no FROM asyncsmtp.batch WHERE run IS NOT NULL") == [(0,)]
        await accept(ledger, first)
        assert sorted(await send_all(ledger)) == [*range(2, ROWS + 1)]


async def test_a_mark_is_made_once_where_a_commit_takes_longer_than_the_answer_may(
    database: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (writer, database_session):
        monkeypatch.setattr(module, "ANSWER_TIMEOUT", 1.0)
    async with join(database, lease=60.0) as ledger:
        claims = await ledger.claim(5)
        slow_down(database, "delivery")
        async with asyncio.timeout(60):
            await ledger.mark(claims[0])
        assert database.execute("SELECT seq, attempts FROM asyncsmtp.delivery WHERE state <> 0") == [(1, 1)]
        await accept(ledger, claims[1:])
        await ledger.flush()
        assert (await ledger.counts())[RowState.ACCEPTED] == 4


@pytest.mark.parametrize(
    "then", ["RAISE 'no'", "PERFORM pg_terminate_backend(pg_backend_pid())"], ids=["fails", "ends"]
)
async def test_a_transaction_is_done_again_where_its_commit_fails_in_the_end(database: Postgres, then: str) -> None:
    slow_down(database, "batch", f"{then};")
    async with join(database, lease=60.0) as ledger:
        taking = asyncio.create_task(ledger.claim(1))
        await wait_for_commit(database)
        cut(ledger)
        async with asyncio.timeout(60):
            assert rows(await taking) == [1]
        assert database.execute("SELECT batch_no FROM asyncsmtp.batch WHERE run IS NOT NULL") == [(0,)]


async def test_a_wait_for_the_end_of_a_commit_is_repeated(database: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_session, "COMMIT_TIMEOUT", 0.2)
    await test_a_batch_is_taken_once_where_the_connection_breaks_during_the_commit(database)


async def test_a_worker_that_is_fenced_while_its_commit_ends_finds_out(database: Postgres) -> None:
    slow_down(database, "batch")
    async with join(database, lease=60.0) as ledger:
        taking = asyncio.create_task(ledger.claim(1))
        await wait_for_commit(database)
        fencing = asyncio.create_task(asyncio.to_thread(database.execute, "UPDATE asyncsmtp.worker SET gone = 2"))

        async def sleep(seconds: float) -> None:
            await asyncio.shield(fencing)  # which waits for the COMMIT

        ledger._session._sleep = sleep
        cut(ledger)
        async with asyncio.timeout(60):
            with pytest.raises(Fenced):
                await taking
