"""Outages of the database, other servers in its place, and campaigns that another process has taken over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.interfaces import Decision, RowState, Settlement
from asyncsmtp.bulk.ledger.postgres import database_session
from asyncsmtp.bulk.ledger.postgres.database_session import psycopg
from asyncsmtp.bulk.ledger.postgres.store import PostgresLedger
from asyncsmtp.bulk.ledger.queries import Script, Statement
from asyncsmtp.bulk.suppression import Suppressed, SuppressionList
from asyncsmtp.errors import LedgerBusy, LedgerEmpty, LedgerError
from tests.bulk.ledger.ledgers import accepted, batches, entries, readers, recipient, rejected, states
from tests.bulk.ledger.postgres.homes import Cluster
from tests.interop.postgres import Postgres


@pytest.fixture
def home(postgres: Postgres) -> Cluster:
    return Cluster(postgres)


@pytest.fixture
def killable(home: Cluster) -> Iterator[Cluster]:
    """A server that the test may kill; it is started again afterwards."""
    yield home
    home.server.start_again()


@pytest.mark.slow
async def test_outcomes_of_an_outage_are_written_when_the_server_is_back(killable: Cluster) -> None:
    """BL-18: by compare-and-set, once; and no further mark is done before."""
    async with killable.open() as ledger:
        await ledger.load(readers(3))
        first, second, third = await ledger.claim(3)
        await ledger.mark(first)
        killable.server.kill()
        ledger.settle(accepted(first))
        ledger.settle(rejected(third))
        marked = ledger.mark(second)
        reading = asyncio.create_task(ledger.read_value("pace"))
        await asyncio.sleep(0.3)
        assert not marked.done()
        await asyncio.to_thread(killable.server.start)
        await marked
        assert await reading is None
        assert await states(ledger) == {1: RowState.ACCEPTED, 2: RowState.SENDING, 3: RowState.REJECTED}
        assert [entry.attempts for entry in await entries(ledger)] == [1, 1, 1]
        ledger.settle(accepted(second))


async def test_a_commit_whose_answer_was_lost_is_not_done_twice(home: Cluster) -> None:
    """BL-18: the connection breaks between the commit and its answer; the number in the lease says that it is there."""
    async with home.open() as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        await ledger.mark(first)
        connection = ledger._store._session._connection
        transaction = connection.transaction

        @asynccontextmanager
        async def without_answer(**given: Any) -> AsyncIterator[None]:
            async with transaction(**given):
                yield
            await connection.close()
            raise psycopg.OperationalError("the answer to the commit was lost")

        connection.transaction = without_answer  # type: ignore[method-assign,assignment]
        ledger.settle(accepted(first))
        await ledger.mark(second)
        assert ledger._store._session._connection is not connection
        assert [(entry.state, entry.attempts) for entry in await entries(ledger)] == [
            (RowState.ACCEPTED, 1),
            (RowState.SENDING, 1),
        ]


async def test_a_process_that_lost_its_campaign_finds_out_before_its_next_mark(home: Cluster) -> None:
    """BL-17: its session ended while it was frozen, and another took over; its late answer settles its own doubt."""
    async with home.open() as stale:
        await stale.load(readers(3))
        first, second, third = await stale.claim(3)
        await asyncio.gather(stale.mark(first), stale.mark(third))
        home.server.cut()
        async with home.open() as other:
            assert other.recovery.found == 2
            with pytest.raises(LedgerError, match="went on with the campaign “news”"):
                await stale.mark(second)
            with pytest.raises(LedgerError, match="went on with the campaign “news”"):
                stale.settle(accepted(first))
            assert [settlement.row for settlement in stale.unsettled] == [1]
            with suppress(LedgerError):
                await stale.aclose()
            assert stale.unsettled == ()
            assert await states(other) == {1: RowState.ACCEPTED, 2: RowState.PENDING, 3: RowState.IN_DOUBT}
            (claim,) = await other.claim(5)
            await other.mark(claim)
            other.settle(accepted(claim))
            await other.flush()
            counts = await other.counts()
            assert (counts[RowState.ACCEPTED], counts[RowState.IN_DOUBT], counts.total) == (2, 1, 3)


async def test_a_lost_lease_prevents_marks_although_the_connection_is_open(home: Cluster) -> None:
    """BL-17: each mark is a compare-and-set on the epoch, whatever became of the lock."""
    async with home.open() as stale:
        await stale.load(readers(1))
        (claim,) = await stale.claim(1)
        home.server.execute("UPDATE asyncsmtp.lease SET epoch = epoch + 1, owner = 'pid 7 on elsewhere'")
        with pytest.raises(LedgerError, match="pid 7 on elsewhere went on with the campaign “news”"):
            await stale.mark(claim)
    async with home.open() as other:
        assert await states(other) == {1: RowState.PENDING}


async def test_a_late_reply_does_not_change_a_decided_row(home: Cluster) -> None:
    """BL-19: a person had the row sent again, so it is the new run's."""
    async with home.open() as stale:
        await stale.load(readers(1))
        (claim,) = await stale.claim(1)
        await stale.mark(claim)
        home.server.cut()
        async with home.open() as other:
            assert await other.resolve(Decision.RESEND) == 1
            stale.settle(accepted(claim))
            with suppress(LedgerError):
                await stale.aclose()
            assert [settlement.row for settlement in stale.unsettled] == [1]
            assert await states(other) == {1: RowState.PENDING}


async def test_a_second_process_gets_the_name_of_the_first(home: Cluster) -> None:
    """BL-11"""
    async with home.open() as ledger:
        await ledger.load(readers(1))
        with pytest.raises(LedgerBusy, match=r"pid \d+ on .* has the campaign “news” open"):
            await PostgresLedger.open(home.server.url, name="news", from_domain="example.org")
        await ledger.mark((await ledger.claim(1))[0])


async def test_a_campaign_on_hold_marks_no_further_row(home: Cluster) -> None:
    """It stops wherever it runs; outcomes of rows in flight are written."""
    async with home.open() as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        await ledger.mark(first)
        home.server.execute("UPDATE asyncsmtp.campaign SET held = 'the standby took over' WHERE name = 'news'")
        with pytest.raises(LedgerError, match="“news” is on hold: the standby took over"):
            await ledger.mark(second)
        with suppress(LedgerError):
            ledger.settle(accepted(first))
    assert ledger.unsettled == ()
    with pytest.raises(LedgerError, match="is on hold"):
        await PostgresLedger.open(home.server.url, name="news", from_domain="example.org")
    home.server.execute("UPDATE asyncsmtp.campaign SET held = NULL")
    async with home.open() as ledger:
        assert await states(ledger) == {1: RowState.ACCEPTED, 2: RowState.PENDING}


async def test_a_database_that_lost_durable_transactions_ends_the_run(home: Cluster) -> None:
    """BL-18: a failover to a replica that was behind: rows may be pending that were sent, so nothing more is."""
    async with home.open() as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        await ledger.mark(first)
        home.server.execute("UPDATE asyncsmtp.lease SET commits = commits - 1")
        home.server.execute("UPDATE asyncsmtp.delivery SET state = 0, epoch = 0, attempts = 0")
        home.server.cut()
        with pytest.raises(LedgerError, match="forgotten transactions that it had reported durable"):
            await ledger.mark(second)
        assert await asyncio.gather(ledger.failed, return_exceptions=True)
    with pytest.raises(LedgerError, match="is on hold: the database has forgotten"):
        await PostgresLedger.open(home.server.url, name="news", from_domain="example.org")


async def test_the_delays_of_an_outage_are_by_the_given_clock(killable: Cluster) -> None:
    """A simulation decides how long it lasts."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with await PostgresLedger.open(
        killable.server.url, name="news", from_domain="example.org", monotonic=lambda: sum(slept), sleep=sleep
    ) as ledger:
        await ledger.load(readers(1))
        (claim,) = await ledger.claim(1)
        killable.server.kill()
        with pytest.raises(LedgerError, match="see whether the database runs"):
            await ledger.mark(claim)
    assert tuple(slept[:5]) == database_session.RECONNECT_DELAYS
    assert 0 < sum(slept) - database_session.OUTAGE_TIMEOUT <= database_session.RECONNECT_DELAYS[-1]


async def test_a_long_outage_ends_the_run_and_outcomes_are_kept(
    killable: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that stays away is a broken ledger; closing tries once more to write the outcomes."""
    monkeypatch.setattr(database_session, "OUTAGE_TIMEOUT", 0.1)
    async with killable.open() as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        await ledger.mark(first)
        killable.server.kill()
        with pytest.raises(LedgerError, match="see whether the database runs"):
            await ledger.mark(second)
        with pytest.raises(LedgerError, match="see whether the database runs"):
            ledger.settle(accepted(first))
        assert [settlement.row for settlement in ledger.unsettled] == [1]
        await asyncio.to_thread(killable.server.start)
    assert ledger.unsettled == ()
    async with killable.open() as ledger:
        assert await states(ledger) == {1: RowState.ACCEPTED, 2: RowState.PENDING}


async def test_commits_are_durable_whatever_the_configuration(home: Cluster) -> None:
    """BL-18: synchronous_commit is the session's own; a server without fsync is refused."""
    home.server.execute("ALTER ROLE tests SET synchronous_commit = off")
    try:
        async with home.open() as ledger:
            found = await ledger._store.read(_commit)
    finally:
        home.server.execute("ALTER ROLE tests RESET synchronous_commit")
    assert found == "on"


def _commit() -> Script[object]:
    ((setting,),) = yield Statement("SHOW synchronous_commit", {})
    return setting


async def test_a_server_that_does_not_answer_is_given_up(home: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection is open, and there is no answer: after a while another one is tried."""
    monkeypatch.setattr("asyncsmtp.bulk.ledger.postgres.writer.ANSWER_TIMEOUT", 0.3)
    async with home.open() as ledger:
        await ledger.load(readers(1))
        (claim,) = await ledger.claim(1)
        before = ledger._store._session._connection
        with psycopg.connect(home.server.url) as other:
            other.execute("LOCK TABLE asyncsmtp.delivery")
            marked = ledger.mark(claim)
            async with asyncio.timeout(20):
                while not before.closed:  # noqa: ASYNC110 - there is no event
                    await asyncio.sleep(0.01)
            assert not marked.done()
        await marked
        assert await states(ledger) == {1: RowState.SENDING}


async def test_listed_mailboxes_are_suppressed(home: Cluster, tmp_path: Path) -> None:
    """BL-22: a database and a text file; mailboxes and domains; also an entry that is added during the run."""
    listed, text = SuppressionList(tmp_path / "list.db"), tmp_path / "list.txt"
    listed.add([Suppressed("reader1@example.net", "unsubscribed")])
    text.write_text("@example.com\n")
    rows = [recipient(1), recipient(2), recipient(3, "c@example.com"), recipient(4)]
    ledger = await PostgresLedger.open(
        home.server.url, name="news", from_domain="example.org", suppressions=[listed.path, text]
    )
    async with ledger:
        await ledger.load(batches(rows))
        assert await ledger.suppress() == 2
        listed.add([Suppressed("reader4@example.net")])
        assert [claim.recipient.row for claim in await ledger.claim(10)] == [2]
        found = {entry.row: entry.reply for entry in await entries(ledger, RowState.SUPPRESSED)}
        assert found == {
            1: "on a suppression list: unsubscribed",
            3: "on a suppression list",
            4: "on a suppression list",
        }
        assert (await ledger.counts())[RowState.SUPPRESSED] == 3


async def test_bounced_rows_are_rejected(home: Cluster) -> None:
    async with home.open() as ledger:
        await ledger.load(readers(2))
        first, second = await ledger.claim(2)
        for claim in (first, second):
            await ledger.mark(claim)
            ledger.settle(accepted(claim))
        token = first.message_id.partition("@")[0]
        bounce = Bounce("reader1@example.net", True, "5.1.1", "unknown", first.message_id, ())
        assert [address for address, _ in await ledger.record_bounces({token: bounce})] == ["reader1@example.net"]
        assert await ledger.record_bounces({token: bounce}) == []
        assert await states(ledger) == {1: RowState.REJECTED, 2: RowState.ACCEPTED}
        assert (await ledger.counts())[RowState.REJECTED] == 1


async def test_a_running_campaign_can_be_read(home: Cluster) -> None:
    """`status` and `results` while `bulk` is sending: no lock, no recovery."""
    with pytest.raises(LedgerEmpty, match="there is no ledger in"):
        await PostgresLedger.read(home.server.url)
    async with home.open() as ledger:
        with pytest.raises(LedgerEmpty, match="holds no campaign yet"):
            await PostgresLedger.read(home.server.url, name="news")
        await ledger.load(readers(2))
        (first, _) = await ledger.claim(2)
        await ledger.mark(first)
        async with await PostgresLedger.read(home.server.url) as reader:
            assert reader.name == "news"
            assert reader.created_at == ledger.created_at
            assert (await reader.counts())[RowState.SENDING] == 1
            assert await states(reader) == {1: RowState.SENDING, 2: RowState.PENDING}
            assert await reader.next_due() is not None
        ledger.settle(Settlement(1, RowState.IN_DOUBT))
