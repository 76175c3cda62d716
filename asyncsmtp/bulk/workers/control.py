"""Control of a campaign that workers send: its state, its suppression lists, and who is at work."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres import LISTS_STORED, Database
from asyncsmtp.bulk.ledger.postgres.database_session import Connection, connect, ledger_error, psycopg
from asyncsmtp.bulk.ledger.postgres.store import REOPEN_DEFERRED, VERSION, find_campaign, read_version
from asyncsmtp.bulk.ledger.postgres.worker_session import CampaignState
from asyncsmtp.bulk.ledger.suppression_list import (
    SuppressionList,
    erase_text,
    hash_key,
    is_hash,
    is_text_list,
    parse_key,
    read_text_list,
)
from asyncsmtp.bulk.ledger.transitions import from_microseconds
from asyncsmtp.errors import LedgerEmpty

__all__ = [
    "CampaignFigures",
    "NextWork",
    "WorkerStatus",
    "WorkersStatus",
    "change_state",
    "read_figures",
    "read_next",
    "read_workers",
    "store_suppressions",
    "write_state",
    "write_suppressions",
]

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_GONE = ("here", "left", "fenced")
_WORKERS = f"""
SELECT w.run, owner, commits, lease_us, began_us, at_us, {_NOW} - at_us, gone,
  (SELECT count(*) FROM batch AS b WHERE b.campaign_id = w.campaign_id AND b.run = w.run)
FROM worker AS w WHERE campaign_id = %s ORDER BY w.run DESC LIMIT 200"""  # noqa: S608
_BATCHES = """
SELECT count(*), count(*) FILTER (WHERE done), count(*) FILTER (WHERE run IS NOT NULL) FROM batch
WHERE campaign_id = %s"""

_COPY_SUPPRESSED = "COPY asyncsmtp.suppressed (campaign_id, key, reason) FROM STDIN"
_WRITE_STORED = """
INSERT INTO asyncsmtp.memory VALUES (%s, %s, %s)
ON CONFLICT (campaign_id, name) DO UPDATE SET value = excluded.value"""

_LEFT = f"""
SELECT free, taken, CASE WHEN due > {_NOW} THEN due END, (SELECT state FROM campaign WHERE id = %(campaign)s) FROM (
  SELECT count(*) FILTER (WHERE run IS NULL) AS free, count(*) FILTER (WHERE run IS NOT NULL) AS taken,
    min(due_us) FILTER (WHERE run IS NULL) AS due FROM batch WHERE campaign_id = %(campaign)s AND NOT done) AS b"""  # noqa: S608
_COUNT_ROWS = f"SELECT state, count(*), {_NOW} - min(updated_us) FROM delivery WHERE campaign_id = %s GROUP BY state"  # noqa: S608
_COUNT_WORKERS = f"SELECT gone, count(*), {_NOW} - max(at_us) FROM worker WHERE campaign_id = %s GROUP BY gone"  # noqa: S608


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One worker of a campaign.

    Attributes:
        run: its number, which counts the runs of the campaign. owner: its process and its host.
        state: "here"; "left" after it had ended by itself; "fenced" after its lease had passed.
        commits: its transactions so far. batches: that it has now.
        lease: in seconds. idle: seconds since its last commit.
        began_at, last_at: when it joined, and when it committed last, by the database's clock.
    """

    run: int
    owner: str
    state: str
    commits: int
    batches: int
    lease: float
    idle: float
    began_at: datetime
    last_at: datetime


@dataclass(frozen=True, slots=True)
class WorkersStatus:
    """Workers and batches of a campaign.

    Attributes:
        state: "running", "paused" or "cancelled".
        workers: the last 200 that joined, the newest first.
        batches: all; batches_done, batches_taken: of these.
    """

    state: str
    workers: Sequence[WorkerStatus]
    batches: int
    batches_done: int
    batches_taken: int


async def read_workers(database: Database) -> WorkersStatus:
    """Return who is at work. Raises LedgerEmpty: there is no such campaign. LedgerError: it cannot be read."""
    async with _open(database, write=False) as (connection, number):
        found = await connection.execute("SELECT state FROM campaign WHERE id = %s", (number,))
        (state,) = await found.fetchone() or (0,)
        rows = await (await connection.execute(_WORKERS, (number,))).fetchall()
        (batches, done, taken) = await (await connection.execute(_BATCHES, (number,))).fetchone() or (0, 0, 0)
    workers = [
        WorkerStatus(
            run=run,
            owner=owner,
            state=_GONE[gone],
            commits=commits,
            batches=taken_by,
            lease=lease_us / 1e6,
            idle=max(0.0, idle_us / 1e6),
            began_at=from_microseconds(began_us),
            last_at=from_microseconds(at_us),
        )
        for run, owner, commits, lease_us, began_us, at_us, idle_us, gone, taken_by in rows
    ]
    return WorkersStatus(str(CampaignState(state)), workers, batches, done, taken)


@dataclass(frozen=True, slots=True)
class CampaignFigures:
    """Figures of a whole campaign at one moment, for metrics.

    Attributes:
        state: of the campaign. rows: by state. workers: by "here", "left" and "fenced", all that ever joined.
        batches: by "free", "taken" and "done".
        idle: seconds since the last commit of any worker; None before the first one.
        oldest_doubt: seconds since the first of the rows in doubt was found to be; None: there is none.
    """

    state: CampaignState
    rows: Mapping[RowState, int]
    workers: Mapping[str, int]
    batches: Mapping[str, int]
    idle: float | None
    oldest_doubt: float | None


async def read_figures(database: Database) -> CampaignFigures:
    """Count rows, workers and batches. Raises LedgerEmpty, LedgerError: as `read_workers` does."""
    async with _open(database, write=False) as (connection, number), connection.transaction():
        await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        found = await connection.execute("SELECT state FROM campaign WHERE id = %s", (number,))
        (state,) = await found.fetchone() or (0,)
        counted = await (await connection.execute(_COUNT_ROWS, (number,))).fetchall()
        joined = await (await connection.execute(_COUNT_WORKERS, (number,))).fetchall()
        (batches, done, taken) = await (await connection.execute(_BATCHES, (number,))).fetchone() or (0, 0, 0)
    rows = dict.fromkeys(RowState, 0) | {RowState(row_state): rows for row_state, rows, _ in counted}
    doubts = [since / 1e6 for row_state, _, since in counted if row_state == RowState.IN_DOUBT and since is not None]
    return CampaignFigures(
        CampaignState(state),
        rows,
        dict.fromkeys(_GONE, 0) | {_GONE[gone]: workers for gone, workers, _ in joined},
        {"free": batches - done - taken, "taken": taken, "done": done},
        min((max(0.0, idle / 1e6) for _, _, idle in joined), default=None),
        max(0.0, doubts[0]) if doubts else None,
    )


@dataclass(frozen=True, slots=True)
class NextWork:
    """The rows of a campaign that are left in this round.

    Attributes:
        free: batches that nobody has, with rows to send now or later. taken: batches that workers have.
        due_at: when the first of the free ones may be taken, by the database's clock; None: now, or there is none.
    """

    free: int
    taken: int
    due_at: datetime | None
    is_paused: bool
    is_cancelled: bool


async def read_next(database: Database) -> NextWork:
    """Return what is left of a campaign. Raises LedgerEmpty, LedgerError: as `read_workers` does."""
    async with _open(database, write=False) as (connection, number):
        row = await (await connection.execute(_LEFT, {"campaign": number})).fetchone()
    free, taken, due_us, state = row or (0, 0, None, 0)
    due_at = from_microseconds(due_us) if due_us is not None else None
    return NextWork(free, taken, due_at, state == CampaignState.PAUSED, state == CampaignState.CANCELLED)


async def change_state(
    database: Database, state: CampaignState, *, only: CampaignState | None = None, new_round: bool = False
) -> CampaignState:
    """Change the state of a campaign, which its workers see within half a second; return the former one.

    Args:
        only: nothing is changed in another state than this one.
        new_round: rows that are deferred without a time may be tried again.
    """
    async with _open(database, write=True) as (connection, number), connection.transaction():
        before = await write_state(connection, number, state, only=only)
        if new_round:
            await connection.execute(
                "UPDATE campaign SET round = (SELECT epoch FROM lease WHERE campaign_id = id) WHERE id = %s", (number,)
            )
            await connection.execute(REOPEN_DEFERRED, {"campaign": number})
    return before


async def write_state(
    connection: Connection, number: int, state: CampaignState, *, only: CampaignState | None = None
) -> CampaignState:
    """Write the state of the campaign with this number within the caller's transaction; return the former one."""
    found = await connection.execute("SELECT state FROM asyncsmtp.campaign WHERE id = %s FOR UPDATE", (number,))
    (before,) = await found.fetchone() or (0,)
    if only is None or before == only:
        await connection.execute("UPDATE asyncsmtp.campaign SET state = %s WHERE id = %s", (int(state), number))
    return CampaignState(before)


async def store_suppressions(database: Database, lists: Sequence[Path]) -> int:
    """Store what these suppression lists have in the ledger, in place of what was there; return the entries.

    Workers on all hosts obey them, whatever files each has. Addresses are stored as hashes: a person who is to be
    forgotten is not named there.
    """
    async with _open(database, write=True) as (connection, number), connection.transaction():
        return await write_suppressions(connection, number, lists)


async def write_suppressions(connection: Connection, number: int, lists: Sequence[Path]) -> int:
    """Do what `store_suppressions` does for the campaign with this number, within the caller's transaction."""
    entries = await asyncio.to_thread(_read_lists, lists)
    await connection.execute("SELECT 1 FROM asyncsmtp.campaign WHERE id = %s FOR UPDATE", (number,))  # one at a time
    await connection.execute("DELETE FROM asyncsmtp.suppressed WHERE campaign_id = %s", (number,))
    async with connection.cursor().copy(_COPY_SUPPRESSED) as copy:
        for key, reason in entries.items():
            await copy.write_row((number, key, reason))
    await connection.execute(_WRITE_STORED, (number, LISTS_STORED, os.urandom(8).hex()))
    return len(entries)


def _read_lists(lists: Sequence[Path]) -> dict[str, str]:
    entries: dict[str, str] = {}
    for path in lists:
        if is_text_list(path):
            found = {parse_key(entry.address): entry.reason for entry in read_text_list(path)}
        else:
            found = {parse_key(entry.address): entry.reason for entry in SuppressionList(path).entries()}
        for key, reason in found.items():
            is_person = not (is_hash(key) or key.startswith("@"))
            listed = (hash_key(key), erase_text(reason, key)) if is_person else (key, reason)
            entries.setdefault(*listed)
    return entries


@asynccontextmanager
async def _open(database: Database, *, write: bool) -> AsyncGenerator[tuple[Connection, int]]:
    """Connect to the campaign's tables; yield the connection and the campaign's number."""
    try:
        connection = await connect(database, write=write)
        try:
            version = await read_version(connection, database)
            if version < VERSION:
                raise LedgerEmpty(f"no worker has been in {database} yet: load the campaign, or start one")
            number, _ = await find_campaign(connection, database)
            yield connection, number
        finally:
            await connection.close()
    except psycopg.Error as error:
        raise ledger_error(database, error) from error
