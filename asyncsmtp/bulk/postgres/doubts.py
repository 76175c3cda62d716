"""Rows that no run has in hand: what recovery makes of them, what a person decides, and what came back later."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Iterable, Mapping

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.keeping.change import BATCH
from asyncsmtp.bulk.keeping.heard import is_known, memory_of, remembered
from asyncsmtp.bulk.ledger import Decision, InDoubt, Recovery
from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.rows import read_memory, write_memory
from asyncsmtp.bulk.postgres.schema import NOW
from asyncsmtp.bulk.states import State
from asyncsmtp.protocol.replies import safe_text

__all__ = ["decide", "recover", "write_bounces"]

RESENDS = 1  # copies that a policy may add without a person

Stamp = Mapping[str, object]

_TIMED = f"updated_us = greatest(coalesce(updated_us, 0), {NOW})"
_OURS = f"campaign_id = %(campaign)s AND batch_no = (%(row)s - 1) / {BATCH} AND seq = %(row)s AND state = %(state)s"

# The epoch stays that of the mark: an answer that the run before hears yet settles its own doubt.
_FOUND = f"""
UPDATE delivery SET state = {State.IN_DOUBT:d}, doubts = doubts + 1, code = NULL, status = NULL,
reply = 'the run ended before the relay answered', {_TIMED}
WHERE campaign_id = %(campaign)s AND state = {State.SENDING:d}"""  # noqa: S608
_RESENT = f"""
UPDATE delivery SET state = {State.PENDING:d}, epoch = %(run)s, {_TIMED}
WHERE campaign_id = %(campaign)s AND state = {State.IN_DOUBT:d} AND doubts <= {RESENDS}"""  # noqa: S608
_HELD = f"SELECT count(*) FROM delivery WHERE campaign_id = %(campaign)s AND state = {State.IN_DOUBT:d}"  # noqa: S608

_DECIDED = {
    Decision.RESEND: f"state = {State.PENDING:d}",
    Decision.SKIP: f"state = {State.REJECTED:d}, reply = substr('skipped by a person''s decision'"
    " || CASE WHEN coalesce(reply, '') = '' THEN '' ELSE ', after: ' || reply END, 1, 512)",
}
_MAY = {
    Decision.RESEND: frozenset({State.IN_DOUBT, State.REJECTED, State.DEFERRED}),
    Decision.SKIP: frozenset({State.IN_DOUBT, State.DEFERRED}),
}
_MAILED = """
SELECT d.seq, d.state, r.message_id, r.address FROM delivery AS d JOIN recipient AS r USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = %(campaign)s AND r.message_id IS NOT NULL"""
_BOUNCED = f"""
UPDATE delivery SET state = {State.REJECTED:d}, code = NULL, status = %(status)s, reply = %(reply)s,
epoch = %(run)s, {_TIMED} WHERE {_OURS}"""  # noqa: S608


async def recover(connection: Connection, policy: InDoubt, stamp: Stamp) -> Recovery:
    """Begin a run, within the caller's transaction: what the last one left past its mark is in doubt.

    Nothing else is touched: a row without a mark was not sent, whatever happened (delivery invariant I4).
    """
    found = (await connection.execute(_FOUND, stamp)).rowcount
    resent = (await connection.execute(_RESENT, stamp)).rowcount if policy is InDoubt.RESEND else 0
    row = await (await connection.execute(_HELD, stamp)).fetchone()
    return Recovery(found, resent, row[0] if row else 0)


async def decide(
    connection: Connection,
    decision: Decision,
    rows: Collection[int] | None,
    states: Collection[State],
    in_hand: Collection[int],
    stamp: Stamp,
) -> Counter[State]:
    """Carry out a decision within the caller's transaction; return how many rows left each state.

    Args:
        rows: which; None for every row in one of `states`.
        in_hand: rows to leave alone.
    """
    update = f"UPDATE delivery SET {_DECIDED[decision]}, epoch = %(run)s, {_TIMED} WHERE {_OURS}"  # noqa: S608
    left: Counter[State] = Counter()
    wanted = frozenset(states) & _MAY[decision]
    async for row, state, _, _ in _mailed(connection, stamp, wanted):
        if row not in in_hand and (rows is None or row in rows):
            await connection.execute(update, {**stamp, "row": row, "state": int(state)})
            left[state] += 1
    return left


async def write_bounces(
    connection: Connection, bounces: Mapping[str, Bounce], stamp: Stamp
) -> list[tuple[State, str, Bounce]]:
    """Have the rows whose messages came back REJECTED, within the caller's transaction; return state and address.

    Rows that were accepted, or in doubt, only: a second report changes nothing. Nor does one that was heard before a
    person had the row sent again: both messages have the same Message-ID.

    Args:
        bounces: by the left part of the message's Message-ID.
    """
    changed: list[tuple[State, str, Bounce]] = []
    async for row, state, message_id, address in _mailed(connection, stamp, {State.ACCEPTED, State.IN_DOUBT}):
        bounce = bounces.get(message_id.partition("@")[0])
        if bounce is None:
            continue
        memory = await read_memory(connection, stamp, memory_of(row))
        if not is_known(memory, bounce):
            said = {"status": bounce.status or None, "reply": safe_text(f"came back: {bounce.words}", 512)}
            await connection.execute(_BOUNCED, {**stamp, **said, "row": row, "state": int(state)})
            await write_memory(connection, stamp, memory_of(row), remembered(memory, bounce))
            changed.append((state, address, bounce))
    return changed


async def _mailed(
    connection: Connection, stamp: Stamp, states: Iterable[State]
) -> AsyncIterator[tuple[int, State, str, str]]:
    """Row, state, Message-ID and address, a batch at a time."""
    wanted = {"states": [int(state) for state in states]}
    row = await (
        await connection.execute("SELECT max(batch_no) FROM delivery WHERE campaign_id = %(campaign)s", stamp)
    ).fetchone()
    last = -1 if row is None or row[0] is None else row[0]
    for batch in range(last + 1):
        found = await connection.execute(
            f"{_MAILED} AND d.batch_no = %(batch)s AND d.state = ANY(%(states)s)", {**stamp, **wanted, "batch": batch}
        )
        for seq, state, message_id, address in await found.fetchall():
            yield seq, State(state), str(message_id), str(address)
