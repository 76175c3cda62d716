"""Suppression lists beside a ledger: looked at as its rows are claimed, in the same transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.keeping.textlists import TextLists
from asyncsmtp.bulk.sqlite.schema import CAMPAIGN
from asyncsmtp.bulk.states import State
from asyncsmtp.bulk.suppression import SuppressionList, is_text_list

__all__ = ["Suppressions"]

# The domain of a key, its @ included: whatever stands after the last one, which a quoted local part may have too.
_DOMAIN = "substr(r.dedupe, length(rtrim(r.dedupe, replace(r.dedupe, '@', ''))))"

_LISTED = f"""
SELECT d.seq, d.state, l.reason FROM delivery AS d CROSS JOIN recipient AS r USING (campaign_id, batch_no, seq)
JOIN temp.listed AS l ON l.key IN (r.dedupe, {_DOMAIN})
WHERE d.campaign_id = {CAMPAIGN} AND d.state IN ({State.PENDING:d}, {State.DEFERRED:d})"""  # noqa: S608

_SUPPRESS = (
    f"UPDATE delivery SET state = {State.SUPPRESSED:d}, reply = ?, code = NULL, status = NULL, host = NULL,"  # noqa: S608
    " next_us = NULL, epoch = ?, updated_us = max(coalesce(updated_us, 0), ?)"
    f" WHERE campaign_id = {CAMPAIGN} AND batch_no = ? AND seq = ? AND state = ?"
)


class Suppressions:
    """The lists of one run. Used with the ledger's connection, in its thread.

    A database is attached and so read as it is at that moment; a file of text is read again when it has changed.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        self._texts = TextLists(paths)
        self._databases = [path for path in paths if not is_text_list(path)]

    def __bool__(self) -> bool:
        return bool(self._texts or self._databases)

    def begin(self, connection: sqlite3.Connection) -> None:
        """Have all lists at hand.

        Raises:
            SuppressionError: one cannot be read, or is none.
        """
        parts = ["SELECT key, reason FROM temp.written"]
        connection.execute("CREATE TEMP TABLE written (key TEXT PRIMARY KEY, reason TEXT) WITHOUT ROWID")
        for number, path in enumerate(self._databases):
            SuppressionList(path).check()
            connection.execute(f"ATTACH ? AS list{number}", (f"{path.absolute().as_uri()}?mode=ro",))
            parts.append(f"SELECT key, reason FROM list{number}.suppression")  # noqa: S608
        connection.execute(f"CREATE TEMP VIEW listed AS {' UNION ALL '.join(parts)}")
        self._read_texts(connection, anew=True)

    def suppress(
        self, connection: sqlite3.Connection, stamp: tuple[int, int], rows: Sequence[int] | None = None
    ) -> dict[int, State]:
        """Suppress those of the rows that are listed, all rows by None; return them with the state they had.

        Within the caller's transaction. `stamp` is the number of the run, and the time.
        """
        self._read_texts(connection)
        left: dict[int, State] = {}
        if rows is None:
            found = connection.execute(_LISTED).fetchall()
        else:
            one = f"{_LISTED} AND d.batch_no = ? AND d.seq = ?"
            found = [hit for row in rows for hit in connection.execute(one, ((row - 1) // BATCH, row)).fetchall()]
        for row, state, reason in found:
            reply = f"on a suppression list: {reason}" if reason else "on a suppression list"
            if row not in left:  # else it is on two lists
                connection.execute(_SUPPRESS, (reply, *stamp, (row - 1) // BATCH, row, state))
                left[row] = State(state)
        return left

    def _read_texts(self, connection: sqlite3.Connection, *, anew: bool = False) -> None:
        entries = self._texts.read(anew=anew)
        if entries is not None:
            connection.execute("DELETE FROM temp.written")
            connection.executemany("INSERT OR IGNORE INTO temp.written VALUES (?, ?)", entries)
