"""Changes of rows: many of them as one statement, each a compare-and-set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from asyncsmtp.bulk.keeping.change import BATCH, Change, Written, groups
from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.schema import NOW
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import LedgerError

__all__ = ["salvage", "write"]

_TYPES = {"code": "smallint", "status": "text", "reply": "text", "host": "text"}
_ARRAYS = ", ".join(f"%({name})s::{_TYPES.get(name, 'bigint')}[]" for name in Written._fields)
_MARKED = f"({State.SENDING:d}, {State.IN_DOUBT:d})"

# An answer that comes late, after somebody took the campaign over, settles the doubt that it had left itself: its row
# still has the epoch of its mark.
_HELD_BY_US = f"(j.old = {State.SENDING:d} AND d.state IN {_MARKED} AND d.epoch = %(run)s)"

_UPDATE = f"""
UPDATE delivery AS d SET state = j.new, attempts = greatest(0, d.attempts + j.tried), doubts = d.doubts + j.doubt,
  code = CASE j.put_off WHEN 1 THEN d.code ELSE nullif(j.code, 0) END,
  status = CASE j.put_off WHEN 1 THEN d.status ELSE nullif(j.status, '') END,
  reply = CASE j.put_off WHEN 1 THEN d.reply ELSE nullif(j.reply, '') END,
  host = CASE j.put_off WHEN 1 THEN d.host ELSE nullif(j.host, '') END,
  next_us = nullif(j.due, 0),
  first_us = CASE WHEN d.attempts + j.tried <= 0 THEN NULL
    WHEN j.tried > 0 THEN coalesce(d.first_us, t.now) ELSE d.first_us END,
  updated_us = greatest(coalesce(d.updated_us, 0), t.now), epoch = %(run)s
FROM unnest({_ARRAYS}) AS j({", ".join(Written._fields)}), (SELECT {NOW} AS now) AS t
WHERE d.campaign_id = %(campaign)s AND d.batch_no = (j.seq - 1) / {BATCH} AND d.seq = j.seq
  AND ({_HELD_BY_US} OR (j.old <> {State.SENDING:d} AND d.state = j.old AND %(fresh)s))
RETURNING d.seq"""  # noqa: S608

_WHERE = """
SELECT d.seq, d.state, d.epoch FROM unnest(%(seq)s::bigint[]) AS j(seq)
JOIN delivery AS d ON d.campaign_id = %(campaign)s AND d.batch_no = (j.seq - 1) / 500 AND d.seq = j.seq"""

Stamp = Mapping[str, object]


async def write(connection: Connection, changes: Sequence[Change], stamp: Stamp) -> None:
    """Write all the changes in their order, within the caller's transaction.

    Args:
        stamp: `campaign` and `run`, their numbers, and `now`, None for the database's clock.
    Raises:
        LedgerError: a row was not in the state it had to be in; this is a bug.
    """
    for group in groups(changes):
        done = await _update(connection, group, stamp, fresh=True)
        if len(done) != len(group):
            raise await _astray(connection, [change for change in group if change.row not in done], stamp)


async def salvage(connection: Connection, changes: Iterable[Change], stamp: Stamp) -> list[Change]:
    """Write what the relay said of rows that are marked, whoever has the campaign now; return what remains.

    Nothing else: a mark is of no use any more, and a row without one may be in another's hand. What was written
    before, by a transaction whose end nobody heard, does not remain.
    """
    changes = list(changes)
    said = {change.row: change for change in changes if change.settlement and change.before is State.SENDING}
    done: set[int] = set()
    if said:
        async with connection.transaction():
            for group in groups(list(said.values())):
                done |= await _update(connection, group, stamp, fresh=False)
            for row, (state, epoch) in (await _found(connection, list(said), stamp)).items():
                if state == said[row].after and epoch == stamp["run"]:
                    done.add(row)
    return [change for change in changes if not (change.row in done and change is said.get(change.row))]


async def _update(connection: Connection, group: Sequence[Change], stamp: Stamp, *, fresh: bool) -> set[int]:
    columns = zip(*(change.values() for change in group), strict=True)
    values = dict(zip(Written._fields, map(list, columns), strict=True))
    found = await connection.execute(_UPDATE, {**stamp, **values, "fresh": fresh})
    return {row for (row,) in await found.fetchall()}


async def _found(connection: Connection, rows: list[int], stamp: Stamp) -> dict[int, tuple[int, int]]:
    found = await connection.execute(_WHERE, {**stamp, "seq": rows})
    return {row: (state, epoch) for row, state, epoch in await found.fetchall()}


async def _astray(connection: Connection, group: Sequence[Change], stamp: Stamp) -> LedgerError:
    """Name the first row that is not where it should be."""
    change = group[0]
    found = (await _found(connection, [change.row], stamp)).get(change.row)
    state = "not there" if found is None else State(found[0])
    return LedgerError(f"row {change.row} is {state} in the ledger, not {change.before}: this is a bug")
