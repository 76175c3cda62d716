"""Opening a shared ledger to write: tables, lock, checks, recovery, and no row changed until all is well."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from asyncsmtp.bulk.keeping.columns import CampaignRow
from asyncsmtp.bulk.keeping.fingerprint import refuse_changes
from asyncsmtp.bulk.ledger import InDoubt, Recovery
from asyncsmtp.bulk.postgres.connecting import connect
from asyncsmtp.bulk.postgres.doubts import recover
from asyncsmtp.bulk.postgres.driver import Connection, psycopg
from asyncsmtp.bulk.postgres.failures import ledger_error
from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.bulk.postgres.rows import read_campaign, read_counts
from asyncsmtp.bulk.postgres.schema import NOW, prepare
from asyncsmtp.bulk.postgres.session import Session, held_back, owner, take_lock
from asyncsmtp.bulk.states import Counts
from asyncsmtp.errors import LedgerError

__all__ = ["Opened", "open_session"]

_CAMPAIGN = "INSERT INTO campaign (name) VALUES (%s) ON CONFLICT (name) DO NOTHING"
_TAKE = f"""
INSERT INTO lease (campaign_id, epoch, owner, at_us) VALUES (%(campaign)s, 1, %(owner)s, {NOW})
ON CONFLICT (campaign_id) DO UPDATE SET epoch = lease.epoch + 1, owner = excluded.owner, commits = 0,
at_us = excluded.at_us RETURNING epoch"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Opened:
    """A campaign that this process has in hand.

    Attributes:
        campaign: None when its recipients are yet to be loaded.
        run: the number of this run, from 1.
    """

    session: Session
    campaign: CampaignRow | None
    counts: Counts
    run: int
    recovery: Recovery


async def open_session(
    database: Database, parts: Mapping[str, str] | None, policy: InDoubt, now: Callable[[], int | None]
) -> Opened:
    """Open, check, recover. Arguments as in `PostgresLedger.open`.

    Raises:
        LedgerError: with nothing held, and no row changed.
    """
    try:
        connection = await connect(database, write=True)
        try:
            await prepare(connection, database)
            await take_lock(connection, database)
            return await _begin(connection, database, parts, policy, now)
        except BaseException:
            await connection.close()
            raise
    except psycopg.Error as error:
        raise ledger_error(database, error) from error


async def _begin(
    connection: Connection,
    database: Database,
    parts: Mapping[str, str] | None,
    policy: InDoubt,
    now: Callable[[], int | None],
) -> Opened:
    await connection.execute(_CAMPAIGN, (database.campaign,))
    found = await connection.execute("SELECT id, held FROM campaign WHERE name = %s", (database.campaign,))
    number, held = await found.fetchone() or (0, None)
    if held is not None:
        raise LedgerError(held_back(database.campaign, held))
    stamp: dict[str, object] = {"campaign": number, "now": now()}
    campaign = await read_campaign(connection, stamp)
    if campaign is not None and parts is not None:
        refuse_changes(campaign.name, campaign.parts, parts)
    async with connection.transaction():
        row = await (await connection.execute(_TAKE, {**stamp, "owner": owner()})).fetchone()
        run = int(row[0]) if row else 0
        recovery = await recover(connection, policy, {**stamp, "run": run})
        counts = await read_counts(connection, stamp)
    return Opened(Session(database, connection, number, run, now), campaign, counts, run, recovery)
