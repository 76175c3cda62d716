"""What is read from the ledger's file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from datetime import datetime

from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.keeping.columns import CampaignRow, campaign_of, claim_of, entry_of
from asyncsmtp.bulk.keeping.times import when
from asyncsmtp.bulk.ledger import Claim, Entry
from asyncsmtp.bulk.sqlite.schema import CAMPAIGN
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

_COUNTS = f"SELECT state, count(*) FROM delivery WHERE campaign_id = {CAMPAIGN} GROUP BY state"  # noqa: S608

_CLAIM = """
SELECT seq, address, message_id, vars, attempts, d.state, first_us, epoch
FROM delivery AS d CROSS JOIN recipient USING (campaign_id, batch_no, seq)
"""

_CLAIMS = f"""{_CLAIM}
WHERE campaign_id = {CAMPAIGN} AND (batch_no, seq) > (?, ?)
AND next_us IS NULL AND (d.state = {State.PENDING:d} OR (d.state = {State.DEFERRED:d} AND d.epoch < ?))
ORDER BY batch_no, seq LIMIT ?"""

_TO_COME = f"campaign_id = {CAMPAIGN} AND state IN ({State.PENDING:d}, {State.DEFERRED:d})"

_DUE = f"""{_CLAIM}
WHERE d.{_TO_COME} AND next_us <= ? ORDER BY next_us LIMIT ?"""

_FIRST_DUE = f"SELECT min(next_us) FROM delivery WHERE {_TO_COME} AND next_us IS NOT NULL"  # noqa: S608

_AT_ONCE = f"""
SELECT 1 FROM delivery WHERE {_TO_COME}
AND next_us IS NULL AND (state = {State.PENDING:d} OR epoch < ?) LIMIT 1"""  # noqa: S608

_READY = f"""
SELECT count(*) FROM delivery WHERE {_TO_COME}
AND (next_us <= ? OR next_us IS NULL AND (state = {State.PENDING:d} OR epoch < ?))"""  # noqa: S608

_ENTRIES = f"""
SELECT seq, coalesce(address, ''), coalesce(message_id, ''), state, attempts, doubts, code, status,
       coalesce(reply, ''), coalesce(host, ''), first_us, updated_us, next_us, vars
FROM delivery CROSS JOIN recipient USING (campaign_id, batch_no, seq)
WHERE campaign_id = {CAMPAIGN} AND batch_no >= ? AND batch_no < ? AND state IN (SELECT value FROM json_each(?))
ORDER BY batch_no, seq"""  # noqa: S608


def read_campaign(connection: sqlite3.Connection) -> CampaignRow | None:
    """The file's campaign; None before the load, and after one that broke off."""
    row = connection.execute(
        f"SELECT name, created_us, run, config FROM campaign WHERE id = {CAMPAIGN}"  # noqa: S608
    ).fetchone()
    if row is None:
        return None
    (last,) = connection.execute(
        f"SELECT max(batch_no) FROM delivery WHERE campaign_id = {CAMPAIGN}"  # noqa: S608
    ).fetchone()
    name, created_us, run, config = row
    return campaign_of(name, created_us, run, config, last)


def read_counts(connection: sqlite3.Connection) -> Counts:
    """How many rows are in each state."""
    return Counts({State(state): number for state, number in connection.execute(_COUNTS)})


def read_claims(connection: sqlite3.Connection, after: int, run: int, limit: int) -> list[tuple[Claim, State]]:
    """The next rows behind row `after` that `run` may send, in file order, with the state of each."""
    place = ((after - 1) // BATCH if after else -1, after)
    found = connection.execute(_CLAIMS, (*place, run, limit)).fetchall()
    return [claim_of(run, *columns) for columns in found]


def read_due(connection: sqlite3.Connection, now: int, run: int, limit: int) -> list[tuple[Claim, State]]:
    """The rows whose time has come at `now`, microseconds since 1970, by their times."""
    return [claim_of(run, *columns) for columns in connection.execute(_DUE, (now, limit)).fetchall()]


def read_next_due(connection: sqlite3.Connection, run: int) -> datetime | None:
    """When the first of the rows that are to come may be tried by `run`; 1970: at once; None: there is none."""
    if connection.execute(_AT_ONCE, (run,)).fetchone():
        return when(0)
    (due,) = connection.execute(_FIRST_DUE).fetchone()
    return None if due is None else when(due)


def read_entries(connection: sqlite3.Connection, first: int, states: Collection[State]) -> list[Entry]:
    """The rows in one of `states` in `WINDOW` batches from batch `first` on."""
    wanted = json.dumps([int(state) for state in states])
    return [entry_of(*columns) for columns in connection.execute(_ENTRIES, (first, first + WINDOW, wanted))]


def read_ready(connection: sqlite3.Connection, now: int, run: int) -> int:
    """How many rows `run` may try at `now`, microseconds since 1970."""
    (number,) = connection.execute(_READY, (now, run)).fetchone()
    return int(number)


def read_memory(connection: sqlite3.Connection, name: str) -> str | None:
    """What a run left under `name` for the next."""
    found = connection.execute("SELECT value FROM memory WHERE name = ?", (name,)).fetchone()
    return None if found is None else str(found[0])


def write_memory(connection: sqlite3.Connection, name: str, value: str) -> None:
    """Leave something for the next run; durable when it returns."""
    connection.execute("INSERT OR REPLACE INTO memory VALUES (?, ?)", (name, value))
