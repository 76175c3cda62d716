"""The ledger in a database that machines share (PostgreSQL)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from asyncsmtp.bulk.bounces.report import Bounce
from asyncsmtp.bulk.keeping.columns import CampaignRow
from asyncsmtp.bulk.keeping.hand import Hand
from asyncsmtp.bulk.keeping.steps import Steps, Tally
from asyncsmtp.bulk.keeping.times import when
from asyncsmtp.bulk.ledger import Claim, Decision, Entry, InDoubt, Settlement
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
from asyncsmtp.bulk.rows import Problem, Recipient
from asyncsmtp.bulk.states import Counts, State
from asyncsmtp.errors import LedgerError

__all__ = ["PostgresLedger"]


def _database_clock() -> int | None:
    return None


class PostgresLedger:
    """A `Ledger` in a database, where one process at a time may have a campaign in hand.

    While the database is away, outcomes are kept in memory and written when it is back; no further row is marked. It
    is a failure when it stays away for two minutes.
    """

    read = PostgresReader.open

    def __init__(
        self, database: Database, opened: Opened, parts: Mapping[str, str], from_domain: str, lists: Sequence[Path]
    ) -> None:
        """Use `open`."""
        self.database = database
        self.name = database.campaign
        self.recovery = opened.recovery
        self._session = opened.session
        self._parts = parts
        self._from_domain = from_domain
        self._campaign: CampaignRow | None = opened.campaign
        self._tally = Tally(opened.counts)
        self._hand = Hand()
        self._writer = Writer(opened.session, written=self._tally.written)
        self._steps = Steps(self._writer, self._hand)
        self._claims = Claims(self._writer, self._hand, opened.run, self._stamp, self._tally.move, lists)
        self.failed = self._writer.failed

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
            BadArgument: it is no such URL, or has a password in it.
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

    @property
    def loaded(self) -> bool:
        """Whether the campaign's rows are in it."""
        return self._campaign is not None

    @property
    def created_at(self) -> datetime:
        """When they were loaded, UTC; the same in every run."""
        return when(self._ready().created_us)

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """After a failure: the outcomes that are not in the database, oldest first."""
        return self._writer.unsettled

    async def load(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Take in the whole file, or nothing; see `Ledger.load`."""
        if self.loaded:
            raise LedgerError(f"{self.database} holds its recipients already: this is a bug")
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
            if self._writer.failure is None:
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

    def mark(self, claim: Claim) -> asyncio.Future[None]:
        """Say that the end of this row's content is about to be written; done when that is durable."""
        return self._steps.mark(claim)

    def settle(self, settlement: Settlement) -> None:
        """Write what became of a row in hand; durable before any mark made later, soon in any case."""
        self._steps.settle(settlement)

    def give_back(self, claim: Claim, *, tried: bool = False) -> None:
        """A row in hand is pending again, and may be claimed again in this run; see `Ledger.give_back`."""
        self._steps.give_back(claim, tried=tried)

    def put_off(self, claim: Claim, until: datetime) -> None:
        """A row in hand that was not tried is to come at another time, in this run or in a later one."""
        self._steps.put_off(claim, until)

    async def recall(self, name: str) -> str | None:
        """What an earlier run left under `name`; None: nothing."""
        return await self._writer.read(partial(read_memory, stamp=self._stamp(), name=name))

    async def remember(self, name: str, value: str) -> None:
        """Leave something for the next run, durably."""
        await self._writer.write(partial(write_memory, stamp=self._stamp(), name=name, value=value))

    async def flush(self) -> None:
        """Wait until everything said so far is durable; the rows are counted anew, as others may have decided some."""
        await self._writer.read(self._recount)

    async def counts(self) -> Counts:
        """How many rows are in each state, durably."""
        return self._tally.counts

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
        after = State.PENDING if decision == Decision.RESEND else State.REJECTED
        for before, number in left.items():
            self._tally.move(before, after, number)
        self._hand.rewind()
        return left.total()

    async def bounced(self, bounces: Mapping[str, Bounce]) -> Sequence[tuple[str, Bounce]]:
        """Have rows whose messages came back REJECTED; see `Ledger.bounced`."""
        self._ready()
        changed = await self._writer.write(partial(write_bounces, bounces=bounces, stamp=self._stamp()))
        for before, _, _ in changed:
            self._tally.move(before, State.REJECTED, 1)
        return [(address, bounce) for _, address, bounce in changed]

    async def aclose(self) -> None:
        """Write what waits, and let go of the campaign; a second time does nothing. Rows in hand stay as they are.

        Raises:
            LedgerError: writing failed just now; `unsettled` has the outcomes.
        """
        told = self._writer.failure
        await self._writer.aclose()
        if told is None and self._writer.failure is not None:
            raise self._writer.failure

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _recount(self, connection: Connection) -> None:
        self._tally.reset(await read_counts(connection, self._stamp()))

    def _stamp(self) -> dict[str, object]:
        return self._session.stamp

    def _ready(self) -> CampaignRow:
        if self._writer.failure is not None:
            raise self._writer.failure
        if self._campaign is None:
            raise LedgerError(f"{self.database} holds no recipients yet: load them first")
        return self._campaign
