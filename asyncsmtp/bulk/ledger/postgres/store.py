"""The ledger in a database that machines share (PostgreSQL), in a schema of its own.

The tables are those of a file, for any number of campaigns. Times are microseconds since 1970 by the database's clock.
`delivery.epoch` is the run that wrote a row last. The lease of a campaign has the run that may write now, and the
number of transactions that it has committed.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar, Self, TypeVar

from asyncsmtp.bulk.interfaces import ThreadRunner
from asyncsmtp.bulk.ledger.base import BaseLedger, BaseReader
from asyncsmtp.bulk.ledger.interfaces import InDoubt, RowState
from asyncsmtp.bulk.ledger.loading import RepeatedAddress, list_paths, report_repeats, unload_changed, upgrade_keys
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.database_session import (
    NOW,
    Connection,
    DatabaseSession,
    acquire_lock,
    connect,
    describe_process,
    ledger_error,
    on_hold_message,
    psycopg,
    to_psycopg,
)
from asyncsmtp.bulk.ledger.postgres.writer import PostgresWriter, run_script
from asyncsmtp.bulk.ledger.queries import OF_FILE, CampaignRow, Queries, RecipientValues, RunStart, Script, Statement
from asyncsmtp.bulk.ledger.transitions import (
    BATCH_SIZE,
    DELIVERY_COLUMNS,
    RECIPIENT_COLUMNS,
    CountsTracker,
    suppressed_reply,
)
from asyncsmtp.errors import LedgerEmpty, LedgerError, check_type
from asyncsmtp.protocol.replies import safe_text

__all__ = ["PostgresLedger", "PostgresQueries", "PostgresReader", "list_campaigns"]

VERSION = 2  # has the keys of `address_key`, see `Queries.refuse_older`
TABLES_VERSION = 1  # the version from which on the tables are the same

_T = TypeVar("_T")

_STEPS: Mapping[int, str] = {
    1: f"""
CREATE TABLE asyncsmtp.version (number INTEGER NOT NULL);
INSERT INTO asyncsmtp.version VALUES (0);
CREATE TABLE asyncsmtp.campaign (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  secret TEXT,                             -- key of the Message-IDs
  created_us BIGINT,
  config TEXT,                             -- JSON: what the fingerprint is made of; NULL: no rows yet
  held TEXT);                              -- why nothing may be sent; NULL: sending is allowed
CREATE TABLE asyncsmtp.lease (
  campaign_id BIGINT PRIMARY KEY,
  epoch INTEGER NOT NULL,                  -- the run that has the campaign
  owner TEXT NOT NULL,
  commits BIGINT NOT NULL DEFAULT 0,       -- its transactions so far
  at_us BIGINT NOT NULL) WITH (fillfactor = 50);
CREATE TABLE asyncsmtp.recipient {RECIPIENT_COLUMNS};
CREATE TABLE asyncsmtp.delivery {DELIVERY_COLUMNS} WITH (fillfactor = 50);
CREATE INDEX due ON asyncsmtp.delivery (campaign_id, next_us) WHERE next_us IS NOT NULL;
CREATE TABLE asyncsmtp.memory (            -- values stored for the next run
  campaign_id BIGINT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (campaign_id, name));
"""  # noqa: S608
}
"""Tables that each version added to the one before."""

_INSERT_RECIPIENTS = to_psycopg(f"""
INSERT INTO recipient
SELECT :campaign, (seq - 1) / {BATCH_SIZE}, seq, address, dedupe, message_id, vars FROM unnest(
  :seq::bigint[], :address::text[], :dedupe::text[], :message_id::text[], :vars::text[]
) WITH ORDINALITY AS j(seq, address, dedupe, message_id, vars, place) ORDER BY place
ON CONFLICT (campaign_id, dedupe) DO NOTHING""")  # noqa: S608
_INSERT_DELIVERIES = to_psycopg(f"""
INSERT INTO delivery (campaign_id, batch_no, seq, state, reply)
SELECT :campaign, (seq - 1) / {BATCH_SIZE}, seq, state, reply
FROM unnest(:seq::bigint[], :state::smallint[], :reply::text[]) AS j(seq, state, reply)""")  # noqa: S608
_SUPPRESS = to_psycopg(f"""
UPDATE delivery AS d SET state = {RowState.SUPPRESSED:d}, reply = j.reply, code = NULL, status = NULL, host = NULL,
next_us = NULL, epoch = :run, updated_us = greatest(coalesce(d.updated_us, 0), {NOW})
FROM unnest(:seq::bigint[], :old::smallint[], :reply::text[]) AS j(seq, old, reply)
WHERE d.campaign_id = :campaign AND d.batch_no = (j.seq - 1) / {BATCH_SIZE} AND d.seq = j.seq AND d.state = j.old
RETURNING d.seq, j.old""")  # noqa: S608
_TAKE_LEASE = to_psycopg(f"""
INSERT INTO lease (campaign_id, epoch, owner, at_us) VALUES (:campaign, 1, :owner, {NOW})
ON CONFLICT (campaign_id) DO UPDATE SET epoch = lease.epoch + 1, owner = excluded.owner, commits = 0,
at_us = excluded.at_us RETURNING epoch""")  # noqa: S608


class PostgresQueries(Queries):
    """Queries in the SQL of PostgreSQL. There may be many campaigns in a database."""

    WORDS: ClassVar[Mapping[str, str]] = {
        "join": "JOIN",
        "now": NOW,
        "greatest": "greatest",
        "of_campaign": "campaign_id = :campaign AND",
        "wanted": (
            f"SELECT (value::bigint - 1) / {BATCH_SIZE} AS batch, value::bigint AS wanted"  # noqa: S608
            " FROM json_array_elements_text(:wanted_rows::json)"
        ),
        "domain": "lower(substring(address from '[^@]*$'))",
    }
    BEGIN = "BEGIN"
    BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    AFTER_LOAD = ("ANALYZE recipient, delivery",)  # before the first claim is planned
    READ_CAMPAIGN = f"""
SELECT name, created_us, coalesce(epoch, 0), config,
  (SELECT max(batch_no) FROM delivery WHERE campaign_id = campaign.id AND {OF_FILE}),
  EXISTS (SELECT 1 FROM delivery WHERE campaign_id = campaign.id AND NOT {OF_FILE})
FROM campaign LEFT JOIN lease ON campaign_id = id WHERE id = :campaign AND config IS NOT NULL"""  # noqa: S608
    INSERT_CAMPAIGN = "UPDATE campaign SET secret = :secret, config = :config, created_us = {now} WHERE id = :campaign"
    DELETE_CAMPAIGN = "UPDATE campaign SET secret = NULL, config = NULL, created_us = NULL WHERE id = :campaign"
    READ_EARLIER = (  # a join would be planned without statistics during a load, and would scan the whole table
        "SELECT dedupe, seq FROM recipient WHERE campaign_id = :campaign"
        " AND dedupe = ANY(ARRAY(SELECT json_array_elements_text(:keys::json)))"
    )
    READ_VALUE = "SELECT value FROM memory WHERE campaign_id = :campaign AND name = :name"
    WRITE_VALUE = (
        "INSERT INTO memory VALUES (:campaign, :name, :value)"
        " ON CONFLICT (campaign_id, name) DO UPDATE SET value = excluded.value"
    )
    NAMED = "campaign_id = :campaign AND name = ANY(ARRAY(SELECT json_array_elements_text(:names::json)))"

    @classmethod
    def render(cls, template: str) -> str:
        """Return a template as SQL of the driver."""
        return to_psycopg(super().render(template))

    def insert_recipients(self, rows: Sequence[RecipientValues]) -> Script[int]:
        if not rows:
            return 0
        _, seq, address, dedupe, message_id, cells = map(list, zip(*rows, strict=True))
        values = {"seq": seq, "address": address, "dedupe": dedupe, "message_id": message_id, "vars": cells}
        inserted: int = yield Statement(_INSERT_RECIPIENTS, values)
        return inserted

    def refuse_older(self) -> Script[None]:
        # For the whole database. A process of an older version goes on until it ends; only its next start is refused.
        ((number,),) = yield Statement("SELECT number FROM version", {})
        if number < VERSION:
            yield Statement(f"UPDATE version SET number = {VERSION}", {})  # noqa: S608

    def insert_deliveries(self, states: Mapping[int, tuple[RowState, str]]) -> Script[None]:
        numbers = [int(state) for state, _ in states.values()]
        replies = [reply for _, reply in states.values()]
        yield Statement(_INSERT_DELIVERIES, {"seq": [*states], "state": numbers, "reply": replies})

    def suppress_rows(self, rows: Mapping[int, tuple[RowState, str]]) -> Script[Mapping[int, RowState]]:
        old = [int(state) for state, _ in rows.values()]
        replies = [suppressed_reply(reason) for _, reason in rows.values()]
        changed = yield Statement(_SUPPRESS, {"seq": [*rows], "old": old, "reply": replies})
        return {row: RowState(state) for row, state in changed}


class PostgresReader(BaseReader):
    """A campaign opened to be read, also during a run: it takes no lock, and recovers and changes nothing."""

    def __init__(self, database: Database, connection: Connection, number: int, campaign: CampaignRow) -> None:
        """Use `open`."""
        super().__init__(database, campaign.name, PostgresQueries(campaign.run + 1), campaign)
        self._database = database
        self._connection = connection
        self._stamp: dict[str, object] = {"campaign": number, "run": campaign.run + 1, "now": None}
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, *, name: str = "") -> Self:
        """Open the ledger of the campaign `name`, or of the one behind the # of the URL; else of the only one there is.

        Raises:
            LedgerEmpty: there is none, or it holds no recipients yet; or there are several, and no name.
            LedgerError: it cannot be read. InvalidArgument: it is not such a URL.
        """
        database = Database.parse(url)
        database = replace(database, campaign=name or database.campaign)
        try:
            connection = await connect(database, write=False)
            try:
                await _check_tables(connection, database)
                number, database = await _find_campaign(connection, database)
                campaign = await run_script(connection, PostgresQueries(0).read_campaign(), {"campaign": number})
                if campaign is None:
                    raise LedgerEmpty(f"{database} holds no campaign yet: its recipients were not loaded to the end")
            except BaseException:
                await connection.close()
                raise
        except psycopg.Error as error:
            raise ledger_error(database, error) from error
        return cls(database, connection, number, campaign)

    async def aclose(self) -> None:
        """Close the connection; a second call does nothing."""
        await self._connection.close()

    async def _read(self, script: Callable[[], Script[_T]]) -> _T:
        try:
            async with self._one_at_a_time:
                return await run_script(self._connection, script(), self._stamp)
        except psycopg.Error as error:
            raise ledger_error(self._database, error) from error


async def list_campaigns(url: str) -> list[str]:
    """Return the names of the campaigns in a database that hold recipients. Raises LedgerError: it cannot be read."""
    database = Database.parse(url)
    try:
        connection = await connect(database, write=False)
        try:
            await _check_tables(connection, database)
            found = await connection.execute("SELECT name FROM campaign WHERE config IS NOT NULL ORDER BY name")
            return [str(name) for (name,) in await found.fetchall()]
        finally:
            await connection.close()
    except psycopg.Error as error:
        raise ledger_error(database, error) from error


def _database_clock() -> int | None:
    return None


class PostgresLedger(BaseLedger):
    """A `Ledger` in a database, where one process at a time may run a campaign.

    While the database is away, outcomes are kept in memory and written when it is back; no further row is marked. It
    is a failure when it stays away for two minutes.
    """

    read = PostgresReader.open

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str,
        from_domain: str,
        fingerprint: Mapping[str, str] | None = None,
        in_doubt: InDoubt = InDoubt.HOLD,
        suppressions: Sequence[str | os.PathLike[str]] = (),
        clock: Callable[[], int | None] = _database_clock,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        run_in_thread: ThreadRunner = asyncio.to_thread,
    ) -> Self:
        """Open a campaign's ledger, or create it; rows that an earlier run left past their mark become in doubt.

        Args:
            url: `postgresql://user@host/database`, without a password: that is in `~/.pgpass` or `PGPASSWORD`. The
                tables are in the schema `asyncsmtp`, which is created if there is none.
            name, from_domain, fingerprint, suppressions: as of `SqliteLedger.open`.
            clock: microseconds since 1970, UTC; None, as by default: the database's clock.
            monotonic: a clock in seconds that is never set. sleep: sleeps for seconds.
            run_in_thread: reads the suppression lists.
        Raises:
            InvalidArgument: it is not such a URL, or has a password in it.
            LedgerBusy: another process has the campaign open.
            LedgerMismatch: the fingerprint changed.
            LedgerError: it cannot be used; the message says why and what to do. Nothing was changed.
            SuppressionError: a list cannot be used.
        """
        check_type("url", url, str)
        check_type("name", name, str)
        check_type("from_domain", from_domain, str)
        check_type("fingerprint", fingerprint, Mapping, None)
        lists = list_paths("suppressions", suppressions)
        database = Database(Database.parse(url).url, name)
        parts = None if fingerprint is None else dict(fingerprint)
        try:
            connection = await connect(database, write=True)
            try:
                await _prepare_tables(connection, database)
                await acquire_lock(connection, database, sleep)
                number, start = await _recover(connection, database, parts, in_doubt, clock)
            except BaseException:
                await connection.close()
                raise
        except psycopg.Error as error:
            raise ledger_error(database, error) from error
        session = DatabaseSession(database, connection, number, start.run, clock, monotonic=monotonic, sleep=sleep)
        counts = CountsTracker(start.counts)
        ledger = cls(
            database,
            name,
            PostgresWriter(session, PostgresQueries(start.run), on_durable=counts.apply),
            start,
            counts=counts,
            parts=parts or {},
            from_domain=from_domain,
            suppressions=lists,
            run_in_thread=run_in_thread,
        )
        await ledger._open_suppressions()
        return ledger

    async def flush(self) -> None:
        """Wait until everything recorded so far is durable; count the rows again: others may have changed some."""
        await self._recount()

    async def _recount(self) -> None:
        def recount() -> Script[None]:
            # Within the script, so that no transition is reported as durable between the count and the reset.
            self._counts.reset((yield from self._queries.count_rows()))

        await self._store.read(recount)


async def _recover(
    connection: Connection,
    database: Database,
    parts: Mapping[str, str] | None,
    policy: InDoubt,
    clock: Callable[[], int | None],
) -> tuple[int, RunStart]:
    """Check the campaign, take its lease, and recover; no row is changed before all checks have passed.

    Returns the id of the campaign, and the start of the run.
    """
    insert = "INSERT INTO campaign (name) VALUES (%s) ON CONFLICT (name) DO NOTHING"
    await connection.execute(insert, (database.campaign,))
    found = await connection.execute("SELECT id, held FROM campaign WHERE name = %s", (database.campaign,))
    number, held = await found.fetchone() or (0, None)
    if held is not None:
        raise LedgerError(on_hold_message(database.campaign, held))
    stamp: dict[str, object] = {"campaign": number, "now": clock()}
    campaign = await run_script(connection, PostgresQueries(0).read_campaign(), stamp)
    changes = ""
    async with connection.transaction():
        if campaign is not None and parts is not None:
            unload = unload_changed(PostgresQueries(campaign.run), campaign, parts)
            changes = await run_script(connection, unload, {**stamp, "run": campaign.run})
            campaign = None if changes else campaign
        row = await (await connection.execute(_TAKE_LEASE, {**stamp, "owner": describe_process()})).fetchone()
        run = int(row[0]) if row else 0
        queries = PostgresQueries(run)
        stamp |= {"run": run}
        repeats: tuple[int, list[RepeatedAddress]] = (0, [])  # before the load
        if campaign is not None:
            repeats = await run_script(connection, upgrade_keys(queries), stamp)
        recovery = replace(await run_script(connection, queries.recover(policy), stamp), changes=changes)
        counts = await run_script(connection, queries.count_rows(), stamp)
    report_repeats(database, *repeats)
    return number, RunStart(campaign, counts, run, recovery)


async def _find_campaign(connection: Connection, database: Database) -> tuple[int, Database]:
    """Return the campaign's number, and its database with its name."""
    found = await connection.execute(
        "SELECT id, name FROM campaign WHERE name = %(name)s OR %(name)s = '' AND config IS NOT NULL ORDER BY name",
        {"name": database.campaign},
    )
    rows = await found.fetchall()
    if not rows:
        raise LedgerEmpty(f"there is no ledger {database}: the campaign was not begun, or has another name")
    if len(rows) > 1:
        names = ", ".join(safe_text(name, 60) for _, name in rows[:5])
        first = safe_text(rows[0][1], 60)
        raise LedgerEmpty(f"{database} has several campaigns ({names}): name one: {database}#{first}")
    return int(rows[0][0]), Database(database.url, rows[0][1])


async def _prepare_tables(connection: Connection, database: Database) -> None:
    """Create or upgrade the tables. Raises LedgerError: they are of a newer asyncsmtp; nothing was changed."""
    if await _read_version(connection, database) >= TABLES_VERSION:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('asyncsmtp', 0))")
        await connection.execute("CREATE SCHEMA IF NOT EXISTS asyncsmtp")
        for step in range(await _read_version(connection, database) + 1, TABLES_VERSION + 1):
            await connection.execute(_STEPS[step])
            await connection.execute("UPDATE asyncsmtp.version SET number = %s", (step,))


async def _check_tables(connection: Connection, database: Database) -> None:
    """Check for tables to read. Raises LedgerEmpty: there are none. LedgerError: they are of a newer asyncsmtp."""
    if await _read_version(connection, database) < TABLES_VERSION:
        raise LedgerEmpty(f"there is no ledger in {database}: the campaign was not begun, or is in another database")


async def _read_version(connection: Connection, database: Database) -> int:
    """Return the version of the tables; 0: there are none."""
    found = await (await connection.execute("SELECT to_regclass('asyncsmtp.version') IS NOT NULL")).fetchone()
    if found is None or not found[0]:
        return 0
    row = await (await connection.execute("SELECT number FROM asyncsmtp.version")).fetchone()
    version = int(row[0]) if row else 0
    if version > VERSION:
        raise LedgerError(
            f"the tables in {database} were made by a newer asyncsmtp (schema {version}, this one knows {VERSION}):"
            " upgrade"
        )
    return version
