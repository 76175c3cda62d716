"""What is read from the tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.keeping.columns import CampaignRow, campaign_of, claim_of, entry_of
from asyncsmtp.bulk.keeping.times import when
from asyncsmtp.bulk.ledger import Claim, Entry
from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.schema import NOW
from asyncsmtp.bulk.states import Counts, State

__all__ = [
    "WINDOW",
    "read_campaign",
    "read_claims",
    "read_counts",
    "read_due",
    "read_entries",
    "read_memory",
    "read_next_due",
    "read_ready",
    "write_memory",
]

WINDOW = 4  # batches that `read_entries` looks at in one go

Stamp = Mapping[str, object]

_CAMPAIGN = """
SELECT name, created_us, coalesce(epoch, 0), config,
  (SELECT max(batch_no) FROM delivery WHERE campaign_id = campaign.id)
FROM campaign LEFT JOIN lease ON campaign_id = id WHERE id = %(campaign)s AND config IS NOT NULL"""

_COUNTS = "SELECT state, count(*) FROM delivery WHERE campaign_id = %(campaign)s GROUP BY state"

_CLAIM = """
SELECT seq, address, message_id, vars, attempts, d.state, first_us, epoch
FROM delivery AS d JOIN recipient USING (campaign_id, batch_no, seq)"""

_CLAIMS = f"""{_CLAIM}
WHERE campaign_id = %(campaign)s AND (batch_no, seq) > (%(batch)s, %(after)s) AND next_us IS NULL
AND (d.state = {State.PENDING:d} OR (d.state = {State.DEFERRED:d} AND d.epoch < %(run)s))
ORDER BY batch_no, seq LIMIT %(limit)s"""

_TO_COME = f"campaign_id = %(campaign)s AND state IN ({State.PENDING:d}, {State.DEFERRED:d})"

_DUE = f"""{_CLAIM}
WHERE {_TO_COME} AND next_us <= {NOW} ORDER BY next_us LIMIT %(limit)s"""

_FIRST_DUE = f"SELECT min(next_us) FROM delivery WHERE {_TO_COME} AND next_us IS NOT NULL"  # noqa: S608

_AT_ONCE = f"""
SELECT 1 FROM delivery WHERE {_TO_COME}
AND next_us IS NULL AND (state = {State.PENDING:d} OR epoch < %(run)s) LIMIT 1"""  # noqa: S608

_READY = f"""
SELECT count(*) FROM delivery WHERE {_TO_COME}
AND (next_us <= {NOW} OR next_us IS NULL AND (state = {State.PENDING:d} OR epoch < %(run)s))"""  # noqa: S608

_ENTRIES = """
SELECT seq, coalesce(address, ''), coalesce(message_id, ''), state, attempts, doubts, code, status,
       coalesce(reply, ''), coalesce(host, ''), first_us, updated_us, next_us, vars
FROM delivery JOIN recipient USING (campaign_id, batch_no, seq)
WHERE campaign_id = %(campaign)s AND batch_no >= %(first)s AND batch_no < %(end)s AND state = ANY(%(states)s)
ORDER BY batch_no, seq"""


async def read_campaign(connection: Connection, stamp: Stamp) -> CampaignRow | None:
    """The campaign; None before its load, and after one that broke off."""
    row = await (await connection.execute(_CAMPAIGN, stamp)).fetchone()
    if row is None:
        return None
    name, created_us, run, config, last = row
    return campaign_of(name, created_us, run, config, last)


async def read_counts(connection: Connection, stamp: Stamp) -> Counts:
    """How many rows are in each state."""
    found = await (await connection.execute(_COUNTS, stamp)).fetchall()
    return Counts({State(state): number for state, number in found})


async def read_claims(
    connection: Connection, stamp: Stamp, run: int, after: int, limit: int
) -> list[tuple[Claim, State]]:
    """The next rows behind row `after` that `run` may send, in file order, with the state of each."""
    batch = (after - 1) // BATCH if after else -1
    found = await connection.execute(_CLAIMS, {**stamp, "batch": batch, "after": after, "limit": limit})
    return [claim_of(run, *columns) for columns in await found.fetchall()]


async def read_due(connection: Connection, stamp: Stamp, run: int, limit: int) -> list[tuple[Claim, State]]:
    """The rows whose time has come, by their times."""
    found = await connection.execute(_DUE, {**stamp, "limit": limit})
    return [claim_of(run, *columns) for columns in await found.fetchall()]


async def read_next_due(connection: Connection, stamp: Stamp) -> datetime | None:
    """When the first of the rows that are to come may be tried; 1970: at once; None: there is none."""
    if await (await connection.execute(_AT_ONCE, stamp)).fetchone():
        return when(0)
    row = await (await connection.execute(_FIRST_DUE, stamp)).fetchone()
    return None if row is None or row[0] is None else when(row[0])


async def read_entries(connection: Connection, stamp: Stamp, first: int, states: Collection[State]) -> list[Entry]:
    """The rows in one of `states` in `WINDOW` batches from batch `first` on."""
    wanted = {"first": first, "end": first + WINDOW, "states": [int(state) for state in states]}
    found = await connection.execute(_ENTRIES, {**stamp, **wanted})
    return [entry_of(*columns) for columns in await found.fetchall()]


async def read_ready(connection: Connection, stamp: Stamp) -> int:
    """How many rows the run may try now."""
    row = await (await connection.execute(_READY, stamp)).fetchone()
    return int(row[0]) if row else 0


async def read_memory(connection: Connection, stamp: Stamp, name: str) -> str | None:
    """What a run left under `name` for the next."""
    found = await connection.execute(
        "SELECT value FROM memory WHERE campaign_id = %(campaign)s AND name = %(name)s", {**stamp, "name": name}
    )
    row = await found.fetchone()
    return None if row is None else str(row[0])


async def write_memory(connection: Connection, stamp: Stamp, name: str, value: str) -> None:
    """Leave something for the next run."""
    await connection.execute(
        "INSERT INTO memory VALUES (%(campaign)s, %(name)s, %(value)s)"
        " ON CONFLICT (campaign_id, name) DO UPDATE SET value = excluded.value",
        {**stamp, "name": name, "value": value},
    )
