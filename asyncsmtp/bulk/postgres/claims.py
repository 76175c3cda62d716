"""Which rows come next, and which of them nobody wants to be mailed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from asyncsmtp.bulk.keeping.hand import Hand
from asyncsmtp.bulk.ledger import Claim
from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.rows import Stamp, read_claims, read_due
from asyncsmtp.bulk.postgres.suppressed import Suppressions, suppress
from asyncsmtp.bulk.postgres.writer import Writer
from asyncsmtp.bulk.states import State

__all__ = ["Claims"]

_Found = list[tuple[Claim, State]]

_MANY = 5000  # rows looked at in one go
_TO_COME = f"""
SELECT seq, d.state, dedupe FROM delivery AS d JOIN recipient USING (campaign_id, batch_no, seq)
WHERE campaign_id = %(campaign)s AND seq > %(after)s AND dedupe IS NOT NULL
AND d.state IN ({State.PENDING:d}, {State.DEFERRED:d}) ORDER BY batch_no, seq LIMIT {_MANY}"""  # noqa: S608


class Claims:
    """Takes rows in hand, in their order.

    Args:
        run: the number of this run.
        stamp: gives what every statement is told.
        moved: called with the states before and after, and a number, for rows that were suppressed.
    """

    def __init__(
        self,
        writer: Writer,
        hand: Hand,
        run: int,
        stamp: Callable[[], Stamp],
        moved: Callable[[State, State, int], None],
        suppressions: Sequence[Path],
    ) -> None:
        self._writer = writer
        self._hand = hand
        self._run = run
        self._stamp = stamp
        self._moved = moved
        self._claiming = asyncio.Lock()
        self._suppressions = Suppressions(suppressions)

    async def begin(self) -> None:
        """Have the suppression lists at hand. Raises SuppressionError: one cannot be used."""
        if self._suppressions:
            await self._suppressions.begin()

    async def claim(self, limit: int) -> list[Claim]:
        """As `Ledger.claim`."""
        async with self._claiming:
            claims = self._hand.again(limit) or await self._due(limit)
            while not claims:
                read = partial(read_claims, stamp=self._stamp(), run=self._run, after=self._hand.last, limit=limit)
                found, fresh = await self._read(read)
                if not found:
                    break
                self._hand.last = found[-1][0].recipient.row
                claims = self._hand.take(fresh)
        return claims

    async def suppress(self) -> int:
        """As `Ledger.suppress`."""
        number, after = 0, 0
        async with self._claiming:
            while self._suppressions:
                stamp = {**self._stamp(), "after": after}
                rows = await self._writer.read(partial(_to_come, stamp=stamp))
                if not rows:
                    break
                after = rows[-1][0]
                held = frozenset(self._hand)
                number += len(await self._listed({row: (state, key) for row, state, key in rows if row not in held}))
        return number

    async def _due(self, limit: int) -> list[Claim]:
        most = limit + len(self._hand)  # those in hand come along, and are passed over
        _, fresh = await self._read(partial(read_due, stamp=self._stamp(), run=self._run, limit=most))
        return self._hand.take(fresh, limit)

    async def _read(self, read: Callable[[Connection], Awaitable[_Found]]) -> tuple[_Found, _Found]:
        """Read rows; return all, and those that may be taken in hand.

        One that was in hand as the reading began is not: if it was settled meanwhile, what was read of it is old.
        """
        held = frozenset(self._hand)
        found = await self._writer.read(read)
        free = [row for row in found if row[0].recipient.row not in held]
        if not self._suppressions:
            return found, free
        keys = {claim.recipient.row: (state, claim.recipient.mailbox.key) for claim, state in free}
        suppressed = await self._listed(keys)
        return found, [row for row in free if row[0].recipient.row not in suppressed]

    async def _listed(self, rows: dict[int, tuple[State, str]]) -> set[int]:
        """Suppress those of the rows, given with their state and their key, that are listed; return them."""
        reasons = await self._suppressions.reasons({key for _, key in rows.values()})
        listed = {row: (state, reasons[key]) for row, (state, key) in rows.items() if key in reasons}
        if not listed:
            return set()
        left = await self._writer.write(partial(suppress, rows=listed, stamp=self._stamp()))
        for before in left.values():
            self._moved(before, State.SUPPRESSED, 1)
        return {*left}


async def _to_come(connection: Connection, stamp: Stamp) -> list[tuple[int, State, str]]:
    found = await (await connection.execute(_TO_COME, stamp)).fetchall()
    return [(row, State(state), key) for row, state, key in found]
