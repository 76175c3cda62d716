"""Changes of rows: many of them as one statement, each a compare-and-set.

One statement for a whole group is not only for SQLite's sake. Each one lets go of the interpreter's lock
and has to get it back from a busy event loop: a statement for each row was seven times slower there.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import cache

from asyncsmtp.bulk.keeping.change import BATCH, Change, Written, groups
from asyncsmtp.bulk.sqlite.schema import CAMPAIGN
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import LedgerError

__all__ = ["salvage", "write"]

_COLUMNS = len(Written._fields)
_NOBODY = Written(0, -1, -1)  # rows are counted from 1
_STEP = 8  # sizes of statements: few, so that few are ever prepared, and little is filled up


def write(connection: sqlite3.Connection, changes: Sequence[Change], run: int, now: int) -> None:
    """Make all the changes durable, in their order, as one transaction.

    Args:
        now: microseconds since 1970, UTC. A row's times never go back, whatever the clock does.
    Raises:
        LedgerError: a row was not in the state it had to be in; this is a bug.
    """
    cut = list(groups(changes))
    if len(cut) == 1:  # one statement is a transaction by itself
        _update(connection, cut[0], run, now)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for group in cut:
            _update(connection, group, run, now)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def salvage(connection: sqlite3.Connection, changes: Iterable[Change], run: int, now: int) -> list[Change]:
    """Write what can be written of the settlements among `changes`, once; return the changes that remain.

    Marks are not written, since nobody may act on them any more; a settlement whose mark is among `changes`
    applies to the state before it.
    """
    unmarked: dict[int, State] = {}
    left: list[Change] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for change in changes:
            if change.settlement is None:
                unmarked.setdefault(change.row, change.before)
                left.append(change)
            elif not _one(connection, change, unmarked.get(change.row, change.before), run, now):
                left.append(change)
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return left


def _update(connection: sqlite3.Connection, group: Sequence[Change], run: int, now: int) -> None:
    size = -(-len(group) // _STEP) * _STEP
    values: list[object] = []
    for change in group:
        values += change.values()
    values += _NOBODY * (size - len(group))
    before = connection.total_changes
    connection.execute(_statement(size), (*values, now, now, run))
    if connection.total_changes - before != len(group):
        raise _astray(connection, group)


def _one(connection: sqlite3.Connection, change: Change, state: State, run: int, now: int) -> bool:
    before = connection.total_changes
    connection.execute(_statement(1), (*change.values(state), now, now, run))
    return connection.total_changes != before


@cache
def _statement(size: int) -> str:
    rows = ",".join([f"({','.join('?' * _COLUMNS)})"] * size)
    return (
        f"WITH j(seq, old, new, tried, doubt, code, status, reply, host, due, put_off) AS (VALUES {rows})"  # noqa: S608
        " UPDATE delivery SET state = j.new, attempts = max(0, attempts + j.tried), doubts = doubts + j.doubt,"
        " code = iif(put_off, delivery.code, nullif(j.code, 0)),"
        " status = iif(put_off, delivery.status, nullif(j.status, '')),"
        " reply = iif(put_off, delivery.reply, nullif(j.reply, '')),"
        " host = iif(put_off, delivery.host, nullif(j.host, '')),"
        " next_us = nullif(j.due, 0),"
        " first_us = CASE WHEN attempts + j.tried <= 0 THEN NULL"
        " WHEN j.tried > 0 THEN coalesce(first_us, ?) ELSE first_us END,"
        " updated_us = max(coalesce(updated_us, 0), ?), epoch = ?"
        f" FROM j WHERE campaign_id = {CAMPAIGN} AND batch_no = (j.seq - 1) / {BATCH}"
        " AND delivery.seq = j.seq AND state = j.old"
    )


def _astray(connection: sqlite3.Connection, group: Sequence[Change]) -> LedgerError:
    """Name the first row that is not where it should be, as far as that can still be seen."""
    find: Callable[[int], tuple[int] | None] = lambda row: connection.execute(  # noqa: E731
        f"SELECT state FROM delivery WHERE campaign_id = {CAMPAIGN} AND batch_no = ? AND seq = ?",  # noqa: S608
        ((row - 1) // BATCH, row),
    ).fetchone()
    for change in group:
        found = find(change.row)
        if found is None or found[0] != change.after:
            state = "not there" if found is None else State(found[0])
            return LedgerError(f"row {change.row} is {state} in the ledger, not {change.before}: this is a bug")
    return LedgerError("the ledger changed fewer rows than it was told to: this is a bug")
