"""Rows that no run has in hand: what recovery makes of them, and what a person decides."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable

from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.ledger import Decision, InDoubt, Recovery
from asyncsmtp.bulk.sqlite.schema import CAMPAIGN
from asyncsmtp.bulk.states import State

__all__ = ["decide", "recover"]

RESENDS = 1  # copies that a policy may add without a person

_FOUND = (
    f"UPDATE delivery SET state = {State.IN_DOUBT:d}, doubts = doubts + 1, epoch = ?, code = NULL, status = NULL,"  # noqa: S608
    " reply = 'the run ended before the relay answered', updated_us = max(coalesce(updated_us, 0), ?)"
    f" WHERE campaign_id = {CAMPAIGN} AND state = {State.SENDING:d}"
)
_RESENT = (
    f"UPDATE delivery SET state = {State.PENDING:d}, epoch = ?, updated_us = max(coalesce(updated_us, 0), ?)"  # noqa: S608
    f" WHERE campaign_id = {CAMPAIGN} AND state = {State.IN_DOUBT:d} AND doubts <= {RESENDS}"
)
_HELD = f"SELECT count(*) FROM delivery WHERE campaign_id = {CAMPAIGN} AND state = {State.IN_DOUBT:d}"  # noqa: S608

_DECIDED = {
    Decision.RESEND: "state = 0",
    Decision.SKIP: "state = 4, reply = substr('skipped by a person''s decision'"
    " || CASE WHEN coalesce(reply, '') = '' THEN '' ELSE ', after: ' || reply END, 1, 512)",
}
_MAY = {
    Decision.RESEND: frozenset({State.IN_DOUBT, State.REJECTED, State.DEFERRED}),
    Decision.SKIP: frozenset({State.IN_DOUBT, State.DEFERRED}),
}
_MAILED = (  # message_id is NULL where the file's row could not be mailed
    "SELECT d.seq, d.state FROM delivery AS d CROSS JOIN recipient AS r USING (campaign_id, batch_no, seq)"  # noqa: S608
    f" WHERE d.campaign_id = {CAMPAIGN} AND r.message_id IS NOT NULL"
)


def recover(connection: sqlite3.Connection, policy: InDoubt, run: int, now: int) -> Recovery:
    """Begin run number `run`, in one transaction: what the last one left past its mark is in doubt.

    Nothing else is touched: a row without a mark was not sent, whatever happened (delivery invariant I4).
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute("UPDATE campaign SET run = ?", (run,))
        found = connection.execute(_FOUND, (run, now)).rowcount
        resent = connection.execute(_RESENT, (run, now)).rowcount if policy is InDoubt.RESEND else 0
        (held,) = connection.execute(_HELD).fetchone()
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return Recovery(found, resent, held)


def decide(
    connection: sqlite3.Connection,
    decision: Decision,
    rows: Iterable[int] | None,
    states: Collection[State],
    in_hand: Collection[int],
    stamp: tuple[int, int],
) -> Counter[State]:
    """Carry out a decision; return how many rows left each state.

    Args:
        rows: which; None for every row in one of `states`.
        in_hand: rows to leave alone.
        stamp: number of the run, and the time.
    """
    update = (
        f"UPDATE delivery SET {_DECIDED[decision]}, epoch = ?, updated_us = max(coalesce(updated_us, 0), ?)"  # noqa: S608
        f" WHERE campaign_id = {CAMPAIGN} AND batch_no = ? AND seq = ? AND state = ?"
    )
    left: Counter[State] = Counter()
    connection.execute("BEGIN IMMEDIATE")
    try:
        for row, number in _candidates(connection, rows):
            state = State(number)
            if state in states and state in _MAY[decision] and row not in in_hand:
                connection.execute(update, (*stamp, (row - 1) // BATCH, row, state))
                left[state] += 1
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return left


def _candidates(connection: sqlite3.Connection, rows: Iterable[int] | None) -> Iterable[tuple[int, int]]:
    """Row and state; all of them in steps, since a cursor must not run over what it changes."""
    if rows is not None:
        for row in rows:
            yield from connection.execute(f"{_MAILED} AND d.batch_no = ? AND d.seq = ?", ((row - 1) // BATCH, row))
        return
    (last,) = connection.execute("SELECT coalesce(max(batch_no), -1) FROM delivery").fetchone()
    for batch in range(last + 1):
        yield from connection.execute(f"{_MAILED} AND d.batch_no = ?", (batch,)).fetchall()
