"""The ledger in a database that machines share (PostgreSQL), in a schema of its own.

The tables are those of a file, for any number of campaigns. Times are microseconds since 1970 by the database's clock.
`delivery.epoch` is the run that wrote a row last. The lease of a campaign has the run that may write now, and the
number of transactions that it has committed.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import ClassVar, Self, TypeAlias, TypeVar, cast

from asyncsmtp.bulk.interfaces import ThreadRunner
from asyncsmtp.bulk.ledger.base import BaseLedger, BaseReader
from asyncsmtp.bulk.ledger.interfaces import (
    COPIES_PER_ROW,
    Claim,
    Decision,
    InDoubt,
    RowState,
    Settlement,
    find_file_row,
)
from asyncsmtp.bulk.ledger.loading import (
    Fingerprint,
    RepeatedAddress,
    check_fingerprint,
    list_paths,
    read_fingerprint,
    report_repeats,
    unload_changed,
    upgrade_keys,
)
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
from asyncsmtp.bulk.ledger.postgres.writer import Copy, InTransaction, PostgresWriter, run_script
from asyncsmtp.bulk.ledger.queries import OF_FILE, CampaignRow, Queries, RecipientValues, RunStart, Script, Statement
from asyncsmtp.bulk.ledger.transitions import (
    BATCH_SIZE,
    COPY_BATCH,
    DELIVERY_COLUMNS,
    RECIPIENT_COLUMNS,
    CountsTracker,
    batch_number,
    suppressed_reply,
)
from asyncsmtp.errors import ConfigError, LedgerEmpty, LedgerError, check_type
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Enqueue", "PostgresLedger", "PostgresQueries", "PostgresReader", "list_campaigns"]

VERSION = 3  # 2: the keys of `address_key`, see `Queries.refuse_older`; 3: the tables of workers
FIRST_VERSION = 1  # the tables of every version from here on can be read

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
""",  # noqa: S608
    2: "SELECT",  # the tables are those of 1
    3: f"""
CREATE TABLE asyncsmtp.worker (
  campaign_id BIGINT NOT NULL, run INTEGER NOT NULL,
  owner TEXT NOT NULL,
  commits BIGINT NOT NULL DEFAULT 0,       -- its transactions so far
  lease_us BIGINT NOT NULL,                -- without a commit for so long it is fenced; each worker has its own
  began_us BIGINT NOT NULL,
  at_us BIGINT NOT NULL,                   -- of the last commit
  gone SMALLINT NOT NULL DEFAULT 0,        -- 0 here 1 left 2 fenced
  PRIMARY KEY (campaign_id, run)) WITH (fillfactor = 50);
CREATE INDEX worker_here ON asyncsmtp.worker (campaign_id, run) WHERE gone = 0;
CREATE TABLE asyncsmtp.batch (
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL,  -- of rows of the file, with all their copies
  run INTEGER,                             -- of the worker that has it
  due_us BIGINT NOT NULL DEFAULT 0,
  done BOOLEAN NOT NULL DEFAULT false,     -- no row of it is left for this round
  PRIMARY KEY (campaign_id, batch_no)) WITH (fillfactor = 50);
CREATE INDEX batch_free ON asyncsmtp.batch (campaign_id, due_us, batch_no) WHERE run IS NULL AND NOT done;
CREATE INDEX batch_taken ON asyncsmtp.batch (campaign_id, run) WHERE run IS NOT NULL;
CREATE TABLE asyncsmtp.rate (              -- part -1: the next slot of an even rate; else a count, see `Quota`
  relay TEXT NOT NULL, rate TEXT NOT NULL, part BIGINT NOT NULL, value BIGINT NOT NULL,
  PRIMARY KEY (relay, rate, part)) WITH (fillfactor = 50);
CREATE TABLE asyncsmtp.suppressed (        -- what the suppression lists had at the load, or at the last start
  campaign_id BIGINT NOT NULL, key TEXT NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (campaign_id, key));
INSERT INTO asyncsmtp.batch (campaign_id, batch_no)
SELECT DISTINCT campaign_id, batch_no FROM asyncsmtp.delivery WHERE {OF_FILE};
-- last, since a campaign that runs waits from here on
ALTER TABLE asyncsmtp.campaign
  ADD COLUMN round INTEGER NOT NULL DEFAULT 0,  -- rows deferred without a time by runs up to this one may be tried
  ADD COLUMN state SMALLINT NOT NULL DEFAULT 0; -- 0 running 1 paused 2 cancelled
""",  # noqa: S608
}
"""Tables that each version added to the one before."""

MAX_CONFLICTS = 5  # batches with a mailbox that is there already, after which rows are inserted at once
_COPY_RECIPIENTS = "COPY recipient (campaign_id, batch_no, seq, address, dedupe, message_id, vars) FROM STDIN"
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
TAKE_LEASE = to_psycopg(f"""
INSERT INTO lease (campaign_id, epoch, owner, at_us) VALUES (:campaign, 1, :owner, {NOW})
ON CONFLICT (campaign_id) DO UPDATE SET epoch = lease.epoch + 1, owner = excluded.owner, commits = 0,
at_us = excluded.at_us RETURNING epoch""")  # noqa: S608


# Batches that a decision, or a new round, gives unsent rows again.
_HAS_ROWS = f"""EXISTS (SELECT 1 FROM delivery AS d WHERE d.campaign_id = b.campaign_id AND d.state IN ({{states}})
AND (d.batch_no = b.batch_no OR d.batch_no >= {COPY_BATCH} + b.batch_no * {COPIES_PER_ROW}
  AND d.batch_no < {COPY_BATCH} + (b.batch_no + 1) * {COPIES_PER_ROW}))"""  # noqa: S608
_DECIDED = ", ".join(f"{state:d}" for state in (RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT))
_UNSENT = f"{RowState.PENDING:d}, {RowState.DEFERRED:d}"
_REOPEN_DECIDED = f"""
UPDATE batch AS b SET done = false, due_us = 0 WHERE campaign_id = :campaign
AND (:every OR batch_no = ANY(:batches::integer[])) AND {_HAS_ROWS.format(states=_DECIDED)}"""  # noqa: S608
_REOPEN_BATCHES = f"""
UPDATE batch AS b SET done = false, due_us = 0, run = NULL WHERE campaign_id = :campaign
AND (done OR run IS NOT NULL OR due_us > 0) AND {_HAS_ROWS.format(states=_UNSENT)}"""  # noqa: S608
_ADD_BATCHES = f"""
INSERT INTO batch (campaign_id, batch_no) SELECT :campaign, number FROM generate_series(:first, (
  SELECT max(batch_no) FROM delivery WHERE campaign_id = :campaign AND {OF_FILE})) AS number
ON CONFLICT (campaign_id, batch_no) DO UPDATE SET done = false, due_us = 0"""  # noqa: S608
REOPEN_DEFERRED = to_psycopg(f"""
UPDATE batch AS b SET done = false, due_us = 0 WHERE campaign_id = :campaign AND done AND run IS NULL
AND {_HAS_ROWS.format(states=_UNSENT)}""")  # noqa: S608
_LOCK_CAMPAIGN = "SELECT 1 FROM campaign WHERE id = :campaign FOR UPDATE"
_TAKEN_ROWS = f"""
SELECT d.seq FROM batch AS b JOIN delivery AS d ON d.campaign_id = b.campaign_id AND (d.batch_no = b.batch_no
  OR d.batch_no >= {COPY_BATCH} + b.batch_no * {COPIES_PER_ROW}
  AND d.batch_no < {COPY_BATCH} + (b.batch_no + 1) * {COPIES_PER_ROW})
WHERE b.campaign_id = :campaign AND b.run IS NOT NULL AND d.state = {RowState.DEFERRED:d}"""  # noqa: S608


Enqueue: TypeAlias = Callable[[Connection, int], Awaitable[object]]
"""What is done in the transaction that loads a campaign, after all else, with its connection and number of batches."""


async def _call(enqueue: Enqueue, batches: int, connection: Connection) -> None:
    await enqueue(connection, batches)


class PostgresQueries(Queries):
    """Queries in the SQL of PostgreSQL. There may be many campaigns in a database."""

    enqueue: Enqueue | None = None  # called in the transaction of a load

    WORDS: ClassVar[Mapping[str, str]] = {
        "join": "JOIN",
        "now": NOW,
        "greatest": "greatest",
        "of_campaign": "campaign_id = :campaign AND",
        "wanted": (
            f"SELECT (value::bigint - 1) / {BATCH_SIZE} AS batch, value::bigint AS wanted"  # noqa: S608
            " FROM json_array_elements_text(:wanted_rows::json)"
        ),
        "find_values": "SELECT 1",
        "domain": "lower(reverse(split_part(reverse(address), '@', 1))) COLLATE \"C\"",  # patterns and locales are slow
    }
    BEGIN = "BEGIN"
    BEGIN_SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY"
    AFTER_LOAD = ("ANALYZE recipient, delivery",)  # before the first claim is planned
    READ_CAMPAIGN = f"""
SELECT name, created_us, coalesce(epoch, 0), config,
  (SELECT max(batch_no) FROM delivery WHERE campaign_id = campaign.id AND {OF_FILE}),
  EXISTS (SELECT 1 FROM delivery WHERE campaign_id = campaign.id AND batch_no >= {COPY_BATCH})
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

    _conflicts = 0

    @classmethod
    def render(cls, template: str) -> str:
        """Return a template as SQL of the driver."""
        return to_psycopg(super().render(template))

    def insert_recipients(self, rows: Sequence[RecipientValues]) -> Script[int]:
        if not rows:
            return 0
        if self._conflicts < MAX_CONFLICTS:
            yield Statement("SAVEPOINT before_copy", {})
            if (yield Copy(_COPY_RECIPIENTS, rows)) is not None:
                yield Statement("RELEASE SAVEPOINT before_copy", {})
                return len(rows)
            yield Statement("ROLLBACK TO SAVEPOINT before_copy", {})
            self._conflicts += 1
        _, seq, address, dedupe, message_id, cells = map(list, zip(*rows, strict=True))
        values = {"seq": seq, "address": address, "dedupe": dedupe, "message_id": message_id, "vars": cells}
        inserted: int = yield Statement(_INSERT_RECIPIENTS, values)
        return inserted

    def refuse_older(self) -> Script[None]:
        yield from ()  # `prepare_tables` does: a process of an older version goes on; its next start is refused

    def insert_deliveries(self, states: Mapping[int, tuple[RowState, str]]) -> Script[None]:
        numbers = [int(state) for state, _ in states.values()]
        replies = [reply for _, reply in states.values()]
        yield Statement(_INSERT_DELIVERIES, {"seq": [*states], "state": numbers, "reply": replies})

    def insert_pending(self, after: int) -> Script[None]:
        yield from super().insert_pending(after)
        yield self.statement(_ADD_BATCHES, first=batch_number(after + 1))

    def commit(self) -> Script[None]:
        if self.enqueue is not None:
            ((batches,),) = yield self.statement(
                "SELECT count(*) FROM batch WHERE campaign_id = :campaign AND NOT done"
            )
            yield self.statement("SET LOCAL search_path TO DEFAULT")  # until the commit
            yield cast(Statement, InTransaction(partial(_call, self.enqueue, int(batches))))
        yield from super().commit()

    def delete_campaign(self) -> Script[None]:
        yield from super().delete_campaign()
        yield self.statement("DELETE FROM batch WHERE campaign_id = :campaign")

    def free_batches(self) -> Script[None]:
        """Fence all workers, where none can be at work, and free their batches, for this round and the next."""
        yield self.statement("UPDATE worker SET gone = 2 WHERE campaign_id = :campaign AND gone = 0 AND run <> :run")
        yield self.statement(_REOPEN_BATCHES)
        yield self.statement("UPDATE batch SET run = NULL WHERE campaign_id = :campaign AND run IS NOT NULL")

    def add_recovered(self, rows: Collection[int]) -> Script[None]:
        """Remember rows of a worker that are in doubt now, until their outcomes are kept; see `keep_recovered`."""
        if rows:
            yield self.statement(_LOCK_CAMPAIGN)
            known = yield from self._read_recovered()
            yield from self.write_value("recovered", json.dumps(sorted({*known, *rows})))

    def record_halt(self, rows: Collection[int]) -> Script[None]:
        yield self.statement(_LOCK_CAMPAIGN)  # several workers may be halted at once
        yield from super().record_halt(rows)

    def keep_recovered(self, describe: Callable[[Claim, Settlement], str]) -> Script[None]:
        yield self.statement(_LOCK_CAMPAIGN)  # another worker may add to them
        yield from super().keep_recovered(describe)

    def resolve(
        self, decision: Decision, rows: Collection[int] | None, states: Collection[RowState], claimed: Collection[int]
    ) -> Script[Counter[RowState]]:
        # Batches first: whoever releases one waits for their locks, and then sees the rows that are changed here. Rows
        # that a worker has claimed stay as they are: it would find them in another state at its mark.
        batches = [] if rows is None else sorted({batch_number(find_file_row(row)) for row in rows})
        yield self.statement(_REOPEN_DECIDED, every=rows is None, batches=batches)
        taken = yield self.statement(_TAKEN_ROWS)
        return (yield from super().resolve(decision, rows, states, {*claimed, *(row for (row,) in taken)}))

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
                number, database = await find_campaign(connection, database)
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
    _state = 0  # of the campaign, as `CampaignState`
    _queries: PostgresQueries

    def enqueue_at_load(self, enqueue: Enqueue) -> None:
        """Have something done in the transaction of the load; if it fails, nothing is loaded."""
        self._queries.enqueue = enqueue

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str,
        from_domain: str,
        fingerprint: Fingerprint | None = None,
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
        check_fingerprint(fingerprint)
        lists = list_paths("suppressions", suppressions)
        database = Database(Database.parse(url).url, name)
        parts = fingerprint if fingerprint is None or callable(fingerprint) else dict(fingerprint)
        try:
            connection = await connect(database, write=True)
            try:
                if await read_version(connection, database) < FIRST_VERSION:
                    await prepare_tables(connection, database)
                await acquire_lock(connection, database, sleep)
                number, state, start = await _recover(connection, database, parts, in_doubt, clock)
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
        ledger._state = state
        await ledger._open_suppressions()
        return ledger

    async def claim(self, limit: int) -> list[Claim]:
        if self._state:
            done, again = ("paused", "resume") if self._state == 1 else ("cancelled", "start")
            command = f"asyncsmtp campaign {again} {shlex.quote(self.name)} --ledger {shlex.quote(str(self.place))}"
            raise ConfigError(f"the campaign “{safe_text(self.name, 60)}” was {done}", command)
        return await super().claim(limit)

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
    parts: Fingerprint | None,
    policy: InDoubt,
    clock: Callable[[], int | None],
) -> tuple[int, int, RunStart]:
    """Check the campaign, upgrade the tables, take its lease, and recover; nothing is changed if a check fails.

    Returns the id of the campaign, its state, and the start of the run.
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
    now = None if campaign is None or parts is None else await asyncio.to_thread(read_fingerprint, parts)
    async with connection.transaction():
        await prepare_tables(connection, database)
        found = await connection.execute("SELECT state FROM campaign WHERE id = %s", (number,))
        (state,) = await found.fetchone() or (0,)
        if campaign is not None and now is not None:
            unload = unload_changed(PostgresQueries(campaign.run), campaign, now)
            changes = await run_script(connection, unload, {**stamp, "run": campaign.run})
            campaign = None if changes else campaign
        row = await (await connection.execute(TAKE_LEASE, {**stamp, "owner": describe_process()})).fetchone()
        run = int(row[0]) if row else 0
        queries = PostgresQueries(run)
        stamp |= {"run": run}
        repeats: tuple[int, list[RepeatedAddress]] = (0, [])  # before the load
        if campaign is not None:
            repeats = await run_script(connection, upgrade_keys(queries), stamp)
        recovery = replace(await run_script(connection, queries.recover(policy), stamp), changes=changes)
        await run_script(connection, queries.free_batches(), stamp)
        counts = await run_script(connection, queries.count_rows(), stamp)
    report_repeats(database, *repeats)
    return number, state, RunStart(campaign, counts, run, recovery)


async def find_campaign(connection: Connection, database: Database) -> tuple[int, Database]:
    """Return the campaign's number, and its database with its name."""
    found = await connection.execute(
        "SELECT id, name FROM asyncsmtp.campaign"
        " WHERE name = %(name)s OR %(name)s = '' AND config IS NOT NULL ORDER BY name",
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


async def prepare_tables(connection: Connection, database: Database) -> None:
    """Create or upgrade the tables. Raises LedgerError: they are of a newer asyncsmtp; nothing was changed."""
    if await read_version(connection, database) >= VERSION:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('asyncsmtp', 0))")
        await connection.execute("CREATE SCHEMA IF NOT EXISTS asyncsmtp")
        for step in range(await read_version(connection, database) + 1, VERSION + 1):
            await connection.execute(_STEPS[step])
            await connection.execute("UPDATE asyncsmtp.version SET number = %s", (step,))


async def _check_tables(connection: Connection, database: Database) -> None:
    """Check for tables to read. Raises LedgerEmpty: there are none. LedgerError: they are of a newer asyncsmtp."""
    if await read_version(connection, database) < FIRST_VERSION:
        raise LedgerEmpty(f"there is no ledger in {database}: the campaign was not begun, or is in another database")


async def read_version(connection: Connection, database: Database) -> int:
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
