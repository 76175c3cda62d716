"""Taking in a recipient file: every row, in one transaction, the campaign itself last."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace

from asyncsmtp.bulk.keeping.taking import Naming, cells_of, config_of, place_of, problem_of
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.sqlite.schema import CAMPAIGN
from asyncsmtp.bulk.states import State

__all__ = ["Addition", "Load"]

_RECIPIENT = f"INSERT INTO recipient VALUES ({CAMPAIGN}, ?, ?, ?, ?, ?, ?)"  # noqa: S608
_UNIQUE = f"{_RECIPIENT} ON CONFLICT (campaign_id, dedupe) DO NOTHING"
_DELIVERY = f"INSERT INTO delivery (campaign_id, batch_no, seq, state, reply) VALUES ({CAMPAIGN}, ?, ?, ?, ?)"  # noqa: S608
_PENDING = (
    "INSERT INTO delivery (campaign_id, batch_no, seq) SELECT campaign_id, batch_no, seq FROM recipient"  # noqa: S608
    f" WHERE campaign_id = {CAMPAIGN} AND batch_no >= ? AND seq > ? AND message_id IS NOT NULL ORDER BY batch_no, seq"
)
_EARLIER = f"SELECT seq FROM recipient WHERE campaign_id = {CAMPAIGN} AND dedupe = ?"  # noqa: S608

_Row = tuple[int, int, str | None, str | None, str | None, str]


class Load:
    """One load, in steps that each run in the writer's thread: `begin`, `take`…, then `finish` or `undo`.

    Args:
        parts: what the fingerprint is made of; the Message-IDs depend on it, as another content is another message.
        from_domain: the domain of the Message-IDs.
        created_us: when the campaign began.
    """

    def __init__(self, name: str, parts: Mapping[str, str], from_domain: str, created_us: int) -> None:
        self._name = name
        self._config = config_of(parts)
        self._created_us = created_us
        self._naming = Naming(name, self._config, from_domain)
        self._before = 0  # rows that were there

    def begin(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")

    def take(self, connection: sqlite3.Connection, rows: Sequence[Recipient | Problem]) -> None:
        """Insert some rows; what is not to be sent gets its state here, the others theirs at the end."""
        if self._before:
            rows = [replace(row, row=row.row + self._before) for row in rows]
        recipients = [row for row in rows if isinstance(row, Recipient)]
        before = connection.total_changes
        connection.executemany(_UNIQUE, map(self._row, recipients))
        repeated = len(recipients) - (connection.total_changes - before)
        suppressed = self._repeated(connection, recipients) if repeated else {}
        problems = [row for row in rows if isinstance(row, Problem)]
        connection.executemany(_RECIPIENT, [(*place_of(row.row), None, None, None, cells_of(row)) for row in problems])
        connection.executemany(_DELIVERY, [(*place_of(row.row), *problem_of(row)) for row in problems])
        connection.executemany(_DELIVERY, [_suppressed(row, earlier) for row, earlier in suppressed.items()])

    def finish(self, connection: sqlite3.Connection) -> None:
        """The campaign comes last: without it there is nothing to send."""
        connection.execute(_PENDING, (*place_of(self._before + 1)[:1], self._before))
        self._commit(connection)

    def _commit(self, connection: sqlite3.Connection) -> None:
        connection.execute(
            "INSERT INTO campaign VALUES (?, ?, ?, ?, 1, ?)",
            (CAMPAIGN, self._name, self._naming.secret.hex(), self._created_us, self._config),
        )
        connection.execute("COMMIT")

    def undo(self, connection: sqlite3.Connection) -> None:
        if connection.in_transaction:
            connection.execute("ROLLBACK")

    def _row(self, recipient: Recipient) -> _Row:
        key = recipient.mailbox.key
        message_id = self._naming.message_id(key)
        return (*place_of(recipient.row), recipient.mailbox.address, key, message_id, cells_of(recipient))

    def _repeated(self, connection: sqlite3.Connection, recipients: Sequence[Recipient]) -> dict[int, int]:
        """Insert those that name a mailbox of an earlier row, without one; row -> earlier row."""
        found: dict[int, int] = {}
        for recipient in recipients:
            (earlier,) = connection.execute(_EARLIER, (recipient.mailbox.key,)).fetchone()
            if earlier != recipient.row:
                batch_no, row, address, _, _, fields = self._row(recipient)
                connection.execute(_RECIPIENT, (batch_no, row, address, None, None, fields))
                found[row] = earlier
        return found


class Addition(Load):
    """Further rows for a campaign that has some: behind those, by the campaign's own key.

    Their numbers go on behind the last one. Whoever is in the ledger already, in whatever state, is not mailed again.
    """

    def __init__(self) -> None:
        super().__init__("", {}, "", 0)

    def begin(self, connection: sqlite3.Connection) -> None:
        super().begin(connection)
        name, secret, config = connection.execute(
            f"SELECT name, secret, config FROM campaign WHERE id = {CAMPAIGN}"  # noqa: S608
        ).fetchone()
        (self._before,) = connection.execute("SELECT coalesce(max(seq), 0) FROM delivery").fetchone()
        (other,) = connection.execute("SELECT max(message_id) FROM recipient").fetchone()
        domain = str(other or "@localhost").rpartition("@")[2]
        self._naming = Naming(name, config, domain, bytes.fromhex(secret))

    def _commit(self, connection: sqlite3.Connection) -> None:
        connection.execute("COMMIT")


def _suppressed(row: int, earlier: int) -> tuple[int, int, State, str]:
    return (*place_of(row), State.SUPPRESSED, f"duplicate of row {earlier}")
