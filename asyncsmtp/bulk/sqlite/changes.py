"""Changes of rows: many of them as one statement, each a compare-and-set.

One statement for a whole group is not only for SQLite's sake. Each one lets go of the interpreter's lock
and has to get it back from a busy event loop: a statement for each row was seven times slower there.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.sqlite.schema import BATCH, CAMPAIGN
from asyncsmtp.bulk.sqlite.times import microseconds
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Change", "salvage", "write"]

_MOST = 256  # rows of one statement
_REPLY = 512  # characters
_COLUMNS = 11
_NOBODY = (None,) * _COLUMNS


@dataclass(slots=True)
class Change:
    """One row goes from one state to another.

    Attributes:
        before: the state that the row must have; anything else is a bug.
        tried: what it adds to the attempts.
        settlement: what came of it; None for a mark, for one taken back, and for a row that is put off.
        due: of one that is put off: until when, microseconds since 1970.
        done: resolved when the change is durable.
    """

    row: int
    before: State
    after: State
    tried: int = 0
    settlement: Settlement | None = None
    due: int | None = None
    done: asyncio.Future[None] | None = None


def write(connection: sqlite3.Connection, changes: Sequence[Change], run: int, now: int) -> None:
    """Make all the changes durable, in their order, as one transaction.

    Args:
        now: microseconds since 1970, UTC. A row's times never go back, whatever the clock does.
    Raises:
        LedgerError: a row was not in the state it had to be in; this is a bug.
    """
    groups = list(_groups(changes))
    if len(groups) == 1:  # one statement is a transaction by itself
        _update(connection, groups[0], run, now)
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for group in groups:
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


def _groups(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Cut where a row comes a second time, or a statement would be too long: within a group the order is free."""
    group: list[Change] = []
    rows: set[int] = set()
    for change in changes:
        if change.row in rows or len(group) == _MOST:
            yield group
            group, rows = [], set()
        group.append(change)
        rows.add(change.row)
    yield group


def _update(connection: sqlite3.Connection, group: Sequence[Change], run: int, now: int) -> None:
    size = 1 << (len(group) - 1).bit_length()  # few sizes, so that few statements are ever prepared
    values: list[object] = []
    for change in group:
        values += _values(change, change.before)
    values += _NOBODY * (size - len(group))
    before = connection.total_changes
    connection.execute(_statement(size), (*values, now, now, run))
    if connection.total_changes - before != len(group):
        raise _astray(connection, group)


def _one(connection: sqlite3.Connection, change: Change, state: State, run: int, now: int) -> bool:
    before = connection.total_changes
    connection.execute(_statement(1), (*_values(change, state), now, now, run))
    return connection.total_changes != before


def _values(change: Change, before: State) -> tuple[object, ...]:
    said = change.settlement
    if said is None:
        put_off = change.due is not None
        return (change.row, before, change.after, change.tried, 0, None, None, None, None, change.due, put_off)
    reply, host = safe_text(said.reply, _REPLY), safe_text(said.host, _REPLY)
    doubt = change.after is State.IN_DOUBT
    due = None if said.due_at is None else microseconds(said.due_at)
    return (change.row, before, change.after, change.tried, doubt, said.code, said.status, reply, host, due, False)


@cache
def _statement(size: int) -> str:
    rows = ",".join([f"({','.join('?' * _COLUMNS)})"] * size)
    return (
        f"WITH j(seq, old, new, tried, doubt, code, status, reply, host, due, put_off) AS (VALUES {rows})"  # noqa: S608
        " UPDATE delivery SET state = j.new, attempts = max(0, attempts + j.tried), doubts = doubts + j.doubt,"
        " code = iif(put_off, delivery.code, j.code), status = iif(put_off, delivery.status, j.status),"
        " reply = iif(put_off, delivery.reply, j.reply), host = iif(put_off, delivery.host, j.host), next_us = j.due,"
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
