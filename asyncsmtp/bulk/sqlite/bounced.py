"""What came back later, written into a ledger: by the left part of the Message-ID, which nobody can guess."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.keeping.heard import is_known, memory_of, remembered
from asyncsmtp.bulk.sqlite.rows import read_memory, write_memory
from asyncsmtp.bulk.sqlite.schema import CAMPAIGN
from asyncsmtp.bulk.states import State
from asyncsmtp.protocol.replies import safe_text

__all__ = ["write_bounces"]

_SENT = (
    "SELECT d.seq, d.state, r.message_id, r.address"  # noqa: S608
    " FROM delivery AS d CROSS JOIN recipient AS r USING (campaign_id, batch_no, seq)"
    f" WHERE d.campaign_id = {CAMPAIGN} AND d.batch_no = ? AND d.state IN ({State.ACCEPTED:d}, {State.IN_DOUBT:d})"
)
_BOUNCED = (
    f"UPDATE delivery SET state = {State.REJECTED:d}, code = NULL, status = ?, reply = ?, epoch = ?,"  # noqa: S608
    " updated_us = max(coalesce(updated_us, 0), ?)"
    f" WHERE campaign_id = {CAMPAIGN} AND batch_no = ? AND seq = ? AND state = ?"
)


def write_bounces(
    connection: sqlite3.Connection, bounces: Mapping[str, Bounce], stamp: tuple[int, int]
) -> list[tuple[State, str, Bounce]]:
    """Have the rows whose messages came back REJECTED; return the state and the address of each. One transaction.

    Rows that were accepted, or in doubt, only: a second report changes nothing. Nor does one that was heard before a
    person had the row sent again: both messages have the same Message-ID.

    Args:
        bounces: by the left part of the message's Message-ID.
        stamp: the number of the run, and the time.
    """
    changed: list[tuple[State, str, Bounce]] = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        (last,) = connection.execute("SELECT coalesce(max(batch_no), -1) FROM delivery").fetchone()
        for batch in range(last + 1):
            for row, state, message_id, address in connection.execute(_SENT, (batch,)).fetchall():
                bounce = bounces.get(str(message_id).partition("@")[0])
                if bounce is not None and not is_known(memory := read_memory(connection, memory_of(row)), bounce):
                    reply = safe_text(f"came back: {bounce.words}", 512)
                    place = ((row - 1) // BATCH, row, state)
                    connection.execute(_BOUNCED, (bounce.status or None, reply, *stamp, *place))
                    write_memory(connection, memory_of(row), remembered(memory, bounce))
                    changed.append((State(state), address, bounce))
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    return changed
