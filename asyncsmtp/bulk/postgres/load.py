"""Taking in a recipient file: every row, in one transaction, the campaign itself last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.keeping.taking import Naming, cells_of, config_of, place_of, problem_of
from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.schema import NOW
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.states import State

__all__ = ["Addition", "Load"]

_RECIPIENTS = f"""
INSERT INTO recipient
SELECT %(campaign)s, (seq - 1) / {BATCH}, seq, address, dedupe, message_id, vars FROM unnest(
  %(seq)s::bigint[], %(address)s::text[], %(dedupe)s::text[], %(message_id)s::text[], %(vars)s::text[]
) WITH ORDINALITY AS j(seq, address, dedupe, message_id, vars, place) ORDER BY place
ON CONFLICT (campaign_id, dedupe) DO NOTHING RETURNING seq"""  # noqa: S608

_DELIVERIES = f"""
INSERT INTO delivery (campaign_id, batch_no, seq, state, reply)
SELECT %(campaign)s, (seq - 1) / {BATCH}, seq, state, reply
FROM unnest(%(seq)s::bigint[], %(state)s::smallint[], %(reply)s::text[]) AS j(seq, state, reply)"""  # noqa: S608

_PENDING = """
INSERT INTO delivery (campaign_id, batch_no, seq) SELECT campaign_id, batch_no, seq FROM recipient
WHERE campaign_id = %(campaign)s AND batch_no >= %(batch)s AND seq > %(before)s AND message_id IS NOT NULL"""

_EARLIER = "SELECT dedupe, seq FROM recipient WHERE campaign_id = %(campaign)s AND dedupe = ANY(%(keys)s::text[])"

_CAMPAIGN = f"""
UPDATE campaign SET secret = %(secret)s, config = %(config)s, created_us = {NOW} WHERE id = %(campaign)s"""  # noqa: S608

Stamp = Mapping[str, object]


class Load:
    """One load, in steps that follow one another on one connection: `begin`, `take`…, then `finish` or `undo`.

    Args:
        stamp: of the session.
        parts: what the fingerprint is made of.
        from_domain: the domain of the Message-IDs.
    """

    def __init__(self, stamp: Stamp, name: str, parts: Mapping[str, str], from_domain: str) -> None:
        self._stamp = stamp
        self._config = config_of(parts)
        self._naming = Naming(name, self._config, from_domain)
        self._before = 0  # rows that were there

    async def begin(self, connection: Connection) -> None:
        await connection.execute("BEGIN")

    async def take(self, connection: Connection, rows: Sequence[Recipient | Problem]) -> None:
        """Insert some rows; what is not to be sent gets its state here, the others theirs at the end."""
        if self._before:
            rows = [replace(row, row=row.row + self._before) for row in rows]
        recipients = [row for row in rows if isinstance(row, Recipient)]
        new = await self._insert(connection, recipients, known=True)
        repeated = [row for row in recipients if row.row not in new]
        problems = [row for row in rows if isinstance(row, Problem)]
        await self._insert(connection, [*repeated, *problems], known=False)
        states = {problem.row: problem_of(problem) for problem in problems}
        if repeated:
            keys = [row.mailbox.key for row in repeated]
            found = await connection.execute(_EARLIER, {**self._stamp, "keys": keys})
            earlier: dict[str, int] = dict(await found.fetchall())
            for row in repeated:
                states[row.row] = (State.SUPPRESSED, f"duplicate of row {earlier[row.mailbox.key]}")
        if states:
            said = [(int(state), reply) for state, reply in states.values()]
            numbers, replies = zip(*said, strict=True)
            values = {"seq": list(states), "state": list(numbers), "reply": list(replies)}
            await connection.execute(_DELIVERIES, {**self._stamp, **values})

    async def finish(self, connection: Connection) -> None:
        """The campaign comes last: without it there is nothing to send."""
        place = {"batch": place_of(self._before + 1)[0], "before": self._before}
        await connection.execute(_PENDING, {**self._stamp, **place})
        await self._name(connection)
        await connection.execute("COMMIT")
        await connection.execute("ANALYZE recipient, delivery")

    async def undo(self, connection: Connection) -> None:
        await connection.execute("ROLLBACK")

    async def _name(self, connection: Connection) -> None:
        values = {"secret": self._naming.secret.hex(), "config": self._config}
        await connection.execute(_CAMPAIGN, {**self._stamp, **values})

    async def _insert(self, connection: Connection, rows: Sequence[Recipient | Problem], *, known: bool) -> set[int]:
        """Insert rows, with what they are known by or without; return the numbers of those that went in."""
        if not rows:
            return set()
        columns: dict[str, list[object]] = {name: [] for name in ("seq", "address", "dedupe", "message_id", "vars")}
        for row in rows:
            mailbox = row.mailbox if isinstance(row, Recipient) else None
            key = mailbox.key if mailbox and known else None
            columns["seq"].append(row.row)
            columns["address"].append(mailbox and mailbox.address)
            columns["dedupe"].append(key)
            columns["message_id"].append(key and self._naming.message_id(key))
            columns["vars"].append(cells_of(row))
        found = await connection.execute(_RECIPIENTS, {**self._stamp, **columns})
        return {seq for (seq,) in await found.fetchall()}


class Addition(Load):
    """Further rows for a campaign that has some: behind those, by the campaign's own key.

    Their numbers go on behind the last one. Whoever is in the ledger already, in whatever state, is not mailed again.
    """

    def __init__(self, stamp: Stamp) -> None:
        super().__init__(stamp, "", {}, "")

    async def begin(self, connection: Connection) -> None:
        await super().begin(connection)
        found = await connection.execute(
            "SELECT name, secret, config, (SELECT coalesce(max(seq), 0) FROM delivery WHERE campaign_id = id),"
            " (SELECT max(message_id) FROM recipient WHERE campaign_id = id) FROM campaign WHERE id = %(campaign)s",
            self._stamp,
        )
        name, secret, config, self._before, other = await found.fetchone() or ("", "", "", 0, None)
        domain = str(other or "@localhost").rpartition("@")[2]
        self._naming = Naming(name, config, domain, bytes.fromhex(secret))

    async def _name(self, connection: Connection) -> None:
        """It has its name."""
