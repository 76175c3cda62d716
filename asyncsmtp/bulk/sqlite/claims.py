"""Which rows come next out of the file, and which of them nobody wants to be mailed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Mapping, Sequence, Set
from functools import partial
from pathlib import Path

from asyncsmtp.bulk.keeping.hand import Hand
from asyncsmtp.bulk.ledger import Claim
from asyncsmtp.bulk.sqlite.rows import read_claims, read_due
from asyncsmtp.bulk.sqlite.suppressed import Suppressions
from asyncsmtp.bulk.sqlite.writer import Writer
from asyncsmtp.bulk.states import State

__all__ = ["Claims"]

_Found = list[tuple[Claim, State]]


class Claims:
    """Takes rows in hand, in their order.

    Args:
        run: the number of this run.
        clock: microseconds since 1970, UTC.
        moved: called with the states before and after, and a number, for rows that were suppressed.
    """

    def __init__(
        self, writer: Writer, hand: Hand, run: int, clock: Callable[[], int], moved: Callable[[State, State, int], None]
    ) -> None:
        self._writer = writer
        self._hand = hand
        self._run = run
        self._clock = clock
        self._moved = moved
        self._claiming = asyncio.Lock()
        self._suppressions = Suppressions(())

    async def begin(self, suppressions: Sequence[Path]) -> None:
        """Have the suppression lists at hand. Raises SuppressionError: one cannot be used."""
        if suppressions:
            self._suppressions = Suppressions(suppressions)
            await self._writer.call(self._suppressions.begin)

    async def claim(self, limit: int) -> list[Claim]:
        """As `Ledger.claim`."""
        async with self._claiming:
            claims = self._hand.again(limit) or await self._due(limit)
            while not claims:
                found, fresh = await self._read(partial(read_claims, after=self._hand.last, run=self._run, limit=limit))
                if not found:
                    break
                self._hand.last = found[-1][0].recipient.row
                claims = self._hand.take(fresh)
        return claims

    async def suppress(self) -> int:
        """As `Ledger.suppress`."""
        if not self._suppressions:
            return 0
        async with self._claiming:
            suppressed, _ = await self._writer.call(partial(self._suppressing, read=None, held=frozenset(self._hand)))
        self._count(suppressed)
        return len(suppressed)

    async def _due(self, limit: int) -> list[Claim]:
        most = limit + len(self._hand)  # those in hand come along, and are passed over
        _, fresh = await self._read(lambda connection: read_due(connection, self._clock(), self._run, most))
        return self._hand.take(fresh, limit)

    async def _read(self, read: Callable[[sqlite3.Connection], _Found]) -> tuple[_Found, _Found]:
        """Read rows; return all, and those that may be taken in hand.

        One that was in hand as the reading began is not: if it was settled meanwhile, what was read of it is old.
        """
        held = frozenset(self._hand)
        suppressed: Mapping[int, State] = {}
        if self._suppressions:
            suppressed, found = await self._writer.call(partial(self._suppressing, read=read, held=held))
            self._count(suppressed)
        else:
            found = await self._writer.call(read)
        fresh = [row for row in found if (number := row[0].recipient.row) not in held and number not in suppressed]
        return found, fresh

    def _suppressing(
        self, connection: sqlite3.Connection, read: Callable[[sqlite3.Connection], _Found] | None, held: Set[int]
    ) -> tuple[Mapping[int, State], _Found]:
        """Read rows, and suppress those among them that are listed, of all rows by None; both in one transaction."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = [] if read is None else read(connection)
            rows = [row for claim, _ in found if (row := claim.recipient.row) not in held]
            stamp = (self._run, self._clock())
            suppressed = self._suppressions.suppress(connection, stamp, None if read is None else rows)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return suppressed, found

    def _count(self, suppressed: Mapping[int, State]) -> None:
        for before in suppressed.values():
            self._moved(before, State.SUPPRESSED, 1)
