"""The ledger in a file of this machine (SQLite, WAL, synchronous = FULL)."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Self

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.keeping.keeper import Keeper
from asyncsmtp.bulk.keeping.steps import Tally
from asyncsmtp.bulk.ledger import Claim, Decision, Entry, InDoubt
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.sqlite.bounced import write_bounces
from asyncsmtp.bulk.sqlite.claims import Claims
from asyncsmtp.bulk.sqlite.doubts import decide
from asyncsmtp.bulk.sqlite.load import Addition, Load
from asyncsmtp.bulk.sqlite.opening import Opened, prepare
from asyncsmtp.bulk.sqlite.reader import SqliteReader
from asyncsmtp.bulk.sqlite.rows import (
    WINDOW,
    read_campaign,
    read_counts,
    read_entries,
    read_memory,
    read_next_due,
    read_ready,
    write_memory,
)
from asyncsmtp.bulk.sqlite.writer import Writer
from asyncsmtp.bulk.states import Counts, State

__all__ = ["SqliteLedger"]


def _wall_clock() -> int:
    return time.time_ns() // 1000


class SqliteLedger(Keeper):
    """A `Ledger` in one file, which one process at a time may open.

    Beside the file are `.lock` (stays), `.ballast` (until it is closed), and SQLite's `-wal` and `-shm`.
    """

    read = SqliteReader.open

    def __init__(self, opened: Opened, name: str, parts: Mapping[str, str], from_domain: str, clock: Callable[[], int]):
        """Use `open`."""
        tally = Tally(opened.counts)
        self._writer = Writer(
            opened.path,
            opened.connection,
            opened.run,
            clock=clock,
            make_room=opened.ballast.drop,
            written=tally.written,
        )
        super().__init__(
            opened.path,
            name,
            recovery=opened.recovery,
            campaign=opened.campaign,
            tally=tally,
            queue=self._writer.queue,
        )
        self.path = opened.path
        self._opened = opened
        self._parts = parts
        self._from_domain = from_domain
        self._clock = clock
        self._claims = Claims(self._writer, self._hand, opened.run, clock, tally.move)

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str,
        from_domain: str,
        fingerprint: Mapping[str, str] | None = None,
        in_doubt: InDoubt = InDoubt.HOLD,
        suppressions: Sequence[str | os.PathLike[str]] = (),
        clock: Callable[[], int] = _wall_clock,
    ) -> Self:
        """Open the ledger at `path`, or make one; what an earlier run left past its mark is in doubt from now on.

        Args:
            name: the campaign's.
            from_domain: of the Message-IDs, used when the recipients are loaded.
            fingerprint: the digest of everything that must stay the same, by a name that people know; None: do
                not compare.
            suppressions: the lists of those who must get nothing, as `bulk.suppression` has them.
            clock: microseconds since 1970, UTC; called in a thread.
        Raises:
            LedgerBusy: another process has it.
            LedgerMismatch: it is another campaign's, or the fingerprint changed.
            LedgerError: it cannot be used; the message says why and what to do. Nothing was changed.
            SuppressionError: a list cannot be used.
        Cancelled, it lets go of the file a moment later.
        """
        parts = dict(fingerprint or {})
        opening = asyncio.ensure_future(
            asyncio.to_thread(prepare, Path(path), name, None if fingerprint is None else parts, in_doubt, clock())
        )
        try:
            opened = await asyncio.shield(opening)
        except asyncio.CancelledError:
            opening.add_done_callback(_let_go)
            raise
        ledger = cls(opened, name, parts, from_domain, clock)
        try:
            await ledger._claims.begin([Path(path) for path in suppressions])
        except BaseException:
            await ledger.aclose()
            raise
        return ledger

    async def load(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Take in the whole file, or nothing; see `Ledger.load`."""
        self._to_be_loaded()
        return await self._take_in(Load(self.name, self._parts, self._from_domain, self._clock()), recipients)

    async def add(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Take in further rows; see `Ledger.add`."""
        self._ready()
        return await self._take_in(Addition(), recipients)

    async def _take_in(self, load: Load, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        await self._writer.call(load.begin)
        try:
            async for rows in recipients:
                await self._writer.call(partial(load.take, rows=rows))
            await self._writer.call(load.finish)
        except BaseException:
            if self._queue.failure is None:
                await asyncio.shield(self._writer.call(load.undo))
            raise
        self._tally.reset(await self._writer.call(read_counts))
        self._campaign = await self._writer.call(read_campaign)
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
        return await self._writer.call(partial(read_ready, now=self._clock(), run=self._opened.run))

    async def recall(self, name: str) -> str | None:
        """What an earlier run left under `name`; None: nothing."""
        return await self._writer.call(partial(read_memory, name=name))

    async def remember(self, name: str, value: str) -> None:
        """Leave something for the next run, durably."""
        await self._writer.call(partial(write_memory, name=name, value=value))

    async def flush(self) -> None:
        """Wait until everything said so far is durable."""
        await self._writer.call(lambda connection: None)

    async def entries(self, states: Iterable[State] | None = None) -> AsyncGenerator[Entry]:
        """Every row in one of `states` (None: all), in file order; a few thousand are in memory at a time."""
        wanted = frozenset(State if states is None else states)
        for first in range(0, self._campaign.batches if self._campaign else 0, WINDOW):
            for entry in await self._writer.call(partial(read_entries, first=first, states=wanted)):
                yield entry

    async def next_due(self) -> datetime | None:
        """From when on the first of the rows that are to come may be tried."""
        return await self._writer.call(partial(read_next_due, run=self._opened.run))

    async def resolve(
        self,
        decision: Decision,
        rows: Iterable[int] | None = None,
        states: Iterable[State] = (State.IN_DOUBT,),
    ) -> int:
        """Carry out a person's decision; see `Ledger.resolve`."""
        self._ready()
        left = await self._writer.call(
            partial(
                decide,
                decision=Decision(decision),
                rows=None if rows is None else sorted(set(rows)),
                states=frozenset(states),
                in_hand=frozenset(self._hand),
                stamp=(self._opened.run, self._clock()),
            )
        )
        return self._decided(decision, left)

    async def bounced(self, bounces: Mapping[str, Bounce]) -> Sequence[tuple[str, Bounce]]:
        """Have rows whose messages came back REJECTED; see `Ledger.bounced`."""
        self._ready()
        stamp = (self._opened.run, self._clock())
        changed = await self._writer.call(partial(write_bounces, bounces=bounces, stamp=stamp))
        return self._came_back(changed)

    async def aclose(self) -> None:
        """Write what waits, and let go of the file; a second time does nothing. Rows in hand stay as they are.

        Raises:
            LedgerError: writing failed just now; `unsettled` has the outcomes.
        """
        told = self._queue.failure
        await self._writer.aclose()
        await asyncio.to_thread(self._opened.release)
        if told is None and self._queue.failure is not None:
            raise self._queue.failure


def _let_go(opening: asyncio.Future[Opened]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().connection.close()
        opening.result().release()
