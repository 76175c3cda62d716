"""The tables of a shared ledger, in a schema of their own: those of a file, and any number of campaigns in them.

Times are microseconds since 1970 by the database's clock. `delivery.epoch` is the run that wrote a row last; the
lease of a campaign has the run that may write now, and how many transactions it has committed.
"""

from __future__ import annotations

from collections.abc import Mapping

from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.errors import LedgerEmpty, LedgerError

__all__ = ["NOW", "SCHEMA", "check", "prepare"]

SCHEMA = "asyncsmtp"
VERSION = 1
NOW = "coalesce(%(now)s::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
"""The time, for every statement: the database's, unless `now` says another."""

_STEPS: Mapping[int, str] = {
    1: """
CREATE TABLE asyncsmtp.version (number INTEGER NOT NULL);
INSERT INTO asyncsmtp.version VALUES (0);
CREATE TABLE asyncsmtp.campaign (
  id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  secret TEXT,                             -- key of the Message-IDs
  created_us BIGINT,
  config TEXT,                             -- JSON: what the fingerprint is made of; NULL: no rows yet
  held TEXT);                              -- why nothing may be sent; NULL: it may
CREATE TABLE asyncsmtp.lease (
  campaign_id BIGINT PRIMARY KEY,
  epoch INTEGER NOT NULL,                  -- the run that has the campaign in hand
  owner TEXT NOT NULL,
  commits BIGINT NOT NULL DEFAULT 0,       -- its transactions so far
  at_us BIGINT NOT NULL) WITH (fillfactor = 50);
CREATE TABLE asyncsmtp.recipient (         -- never changed after the load
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  address TEXT,                            -- NULL: the row of the file holds none
  dedupe TEXT,                             -- NULL: not to be mailed
  message_id TEXT,
  vars TEXT NOT NULL,                      -- JSON: column -> cell
  PRIMARY KEY (campaign_id, batch_no, seq),
  UNIQUE (campaign_id, dedupe));
CREATE TABLE asyncsmtp.delivery (          -- hot and narrow: two updates a message
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  state SMALLINT NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 6),
  epoch INTEGER NOT NULL DEFAULT 0,        -- the run that wrote it last
  attempts SMALLINT NOT NULL DEFAULT 0, doubts SMALLINT NOT NULL DEFAULT 0,
  code SMALLINT, status TEXT, reply TEXT, host TEXT,
  next_us BIGINT, first_us BIGINT, updated_us BIGINT,
  PRIMARY KEY (campaign_id, batch_no, seq)) WITH (fillfactor = 50);
CREATE INDEX due ON asyncsmtp.delivery (campaign_id, next_us) WHERE next_us IS NOT NULL;
CREATE TABLE asyncsmtp.memory (            -- what a run leaves for the next
  campaign_id BIGINT NOT NULL, name TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (campaign_id, name));
"""
}
"""What each version added to the one before."""


async def prepare(connection: Connection, database: Database) -> None:
    """Make the tables, or bring those of an older asyncsmtp up to date.

    Raises:
        LedgerError: they are of a newer one; nothing was changed.
    """
    if await _version(connection, database) == VERSION:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('asyncsmtp', 0))")
        await connection.execute("CREATE SCHEMA IF NOT EXISTS asyncsmtp")
        for step in range(await _version(connection, database) + 1, VERSION + 1):
            await connection.execute(_STEPS[step])
            await connection.execute("UPDATE asyncsmtp.version SET number = %s", (step,))


async def check(connection: Connection, database: Database) -> None:
    """Whether there are tables to read.

    Raises:
        LedgerEmpty: there are none. LedgerError: they are of a newer asyncsmtp.
    """
    if await _version(connection, database) < VERSION:
        raise LedgerEmpty(f"there is no ledger in {database}: the campaign was not begun, or is in another database")


async def _version(connection: Connection, database: Database) -> int:
    """Of the tables that are there; 0: there are none."""
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
