"""The ledger in a database that machines share (PostgreSQL)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.keeping.keeper import Keeper
from asyncsmtp.bulk.keeping.steps import Tally
from asyncsmtp.bulk.ledger import Claim, Decision, Entry, InDoubt
from asyncsmtp.bulk.postgres.claims import Claims
from asyncsmtp.bulk.postgres.doubts import decide, write_bounces
from asyncsmtp.bulk.postgres.driver import Connection
from asyncsmtp.bulk.postgres.load import Addition, Load
from asyncsmtp.bulk.postgres.opening import Opened, open_session
from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.bulk.postgres.reader import PostgresReader
from asyncsmtp.bulk.postgres.rows import (
    WINDOW,
    read_campaign,
    read_counts,
    read_entries,
    read_memory,
    read_next_due,
    read_ready,
    write_memory,
)
from asyncsmtp.bulk.postgres.writer import Writer
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.states import Counts, State

__all__ = ["PostgresLedger"]


def _database_clock() -> int | None:
    return None


class PostgresLedger(Keeper):
    """A `Ledger` in a database, where one process at a time may have a campaign in hand.

    While the database is away, outcomes are kept in memory and written when it is back; no further row is marked. It
    is a failure when it stays away for two minutes.
    """

    read = PostgresReader.open

    def __init__(
        self, database: Database, opened: Opened, parts: Mapping[str, str], from_domain: str, lists: Sequence[Path]
    ) -> None:
        """Use `open`."""
        tally = Tally(opened.counts)
        self._writer = Writer(opened.session, written=tally.written)
        super().__init__(
            database,
            database.campaign,
            recovery=opened.recovery,
            campaign=opened.campaign,
            tally=tally,
            queue=self._writer.queue,
        )
        self.database = database
        self._session = opened.session
        self._parts = parts
        self._from_domain = from_domain
        self._claims = Claims(self._writer, self._hand, opened.run, self._stamp, tally.move, lists)

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str,
        from_domain: str,
        fingerprint: Mapping[str, str] | None = None,
        in_doubt: InDoubt = InDoubt.HOLD,
        suppressions: Sequence[str | os.PathLike[str]] = (),
        clock: Callable[[], int | None] = _database_clock,
    ) -> Self:
        """Open a campaign's ledger, or begin one; what an earlier run left past its mark is in doubt from now on.

        Args:
            url: `postgresql://user@host/database`, without a password: that is in `~/.pgpass` or `PGPASSWORD`. The
                tables are in the schema `asyncsmtp`, which is made where there is none.
            name: the campaign's.
            from_domain: of the Message-IDs, used when the recipients are loaded.
            fingerprint: the digest of everything that must stay the same, by a name that people know; None: do
                not compare.
            suppressions: the lists of those who must get nothing, as `bulk.suppression` has them.
            clock: microseconds since 1970, UTC; None, as by itself: the database's.
        Raises:
            InvalidArgument: it is no such URL, or has a password in it.
            LedgerBusy: another process has the campaign.
            LedgerMismatch: the fingerprint changed.
            LedgerError: it cannot be used; the message says why and what to do. Nothing was changed.
            SuppressionError: a list cannot be used.
        """
        database = Database(Database.parse(url).url, name)
        parts = dict(fingerprint or {})
        opened = await open_session(database, None if fingerprint is None else parts, in_doubt, clock)
        ledger = cls(database, opened, parts, from_domain, [Path(path) for path in suppressions])
        try:
            await ledger._claims.begin()
        except BaseException:
            await ledger.aclose()
            raise
        return ledger

    async def load(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Take in the whole file, or nothing; see `Ledger.load`."""
        self._to_be_loaded()
        return await self._take_in(Load(self._stamp(), self.name, self._parts, self._from_domain), recipients)

    async def add(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Take in further rows; see `Ledger.add`."""
        self._ready()
        return await self._take_in(Addition(self._stamp()), recipients)

    async def _take_in(self, load: Load, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        await self._writer.once(load.begin)
        try:
            async for rows in recipients:
                await self._writer.once(partial(load.take, rows=rows))
            await self._writer.once(load.finish)
        except BaseException:
            if self._queue.failure is None:
                await asyncio.shield(self._writer.once(load.undo))
            raise
        await self._writer.read(self._recount)
        self._campaign = await self._writer.read(partial(read_campaign, stamp=self._stamp()))
        return self._tally.counts

    async def suppress(self) -> int:
        """Have the rows to come that are on a suppression list SUPPRESSED; return how many."""
        self._ready()
        return await self._claims.suppress()

    async def claim(self, limit: int) -> list[Claim]:
        """Take up to `limit` rows in hand; see `Ledger.claim`."""
        self._ready()
        return await self._claims.claim(limit)

    async def ready(self) -> int:
        """How many rows `claim` would give, one after the other, by now."""
        return await self._writer.read(partial(read_ready, stamp=self._stamp()))

    async def recall(self, name: str) -> str | None:
        """What an earlier run left under `name`; None: nothing."""
        return await self._writer.read(partial(read_memory, stamp=self._stamp(), name=name))

    async def remember(self, name: str, value: str) -> None:
        """Leave something for the next run, durably."""
        await self._writer.write(partial(write_memory, stamp=self._stamp(), name=name, value=value))

    async def flush(self) -> None:
        """Wait until everything said so far is durable; the rows are counted anew, as others may have decided some."""
        await self._writer.read(self._recount)

    async def entries(self, states: Iterable[State] | None = None) -> AsyncGenerator[Entry]:
        """Every row in one of `states` (None: all), in file order; a few thousand are in memory at a time."""
        wanted = frozenset(State if states is None else states)
        for first in range(0, self._campaign.batches if self._campaign else 0, WINDOW):
            read = partial(read_entries, stamp=self._stamp(), first=first, states=wanted)
            for entry in await self._writer.read(read):
                yield entry

    async def next_due(self) -> datetime | None:
        """From when on the first of the rows that are to come may be tried."""
        return await self._writer.read(partial(read_next_due, stamp=self._stamp()))

    async def resolve(
        self,
        decision: Decision,
        rows: Iterable[int] | None = None,
        states: Iterable[State] = (State.IN_DOUBT,),
    ) -> int:
        """Carry out a person's decision; see `Ledger.resolve`."""
        self._ready()
        left = await self._writer.write(
            partial(
                decide,
                decision=Decision(decision),
                rows=None if rows is None else frozenset(rows),
                states=frozenset(states),
                in_hand=frozenset(self._hand),
                stamp=self._stamp(),
            )
        )
        return self._decided(decision, left)

    async def bounced(self, bounces: Mapping[str, Bounce]) -> Sequence[tuple[str, Bounce]]:
        """Have rows whose messages came back REJECTED; see `Ledger.bounced`."""
        self._ready()
        changed = await self._writer.write(partial(write_bounces, bounces=bounces, stamp=self._stamp()))
        return self._came_back(changed)

    async def aclose(self) -> None:
        """Write what waits, and let go of the campaign; a second time does nothing. Rows in hand stay as they are.

        Raises:
            LedgerError: writing failed just now; `unsettled` has the outcomes.
        """
        told = self._queue.failure
        await self._writer.aclose()
        if told is None and self._queue.failure is not None:
            raise self._queue.failure

    async def _recount(self, connection: Connection) -> None:
        self._tally.reset(await read_counts(connection, self._stamp()))

    def _stamp(self) -> dict[str, object]:
        return self._session.stamp
