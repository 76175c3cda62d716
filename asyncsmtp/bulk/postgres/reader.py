"""Looking at a shared ledger, also while a run is going on: no lock is taken, nothing is recovered or changed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from asyncsmtp.bulk.keeping.columns import CampaignRow
from asyncsmtp.bulk.keeping.times import when
from asyncsmtp.bulk.ledger import Entry
from asyncsmtp.bulk.postgres.connecting import connect
from asyncsmtp.bulk.postgres.driver import Connection, psycopg
from asyncsmtp.bulk.postgres.failures import ledger_error
from asyncsmtp.bulk.postgres.place import Database
from asyncsmtp.bulk.postgres.rows import WINDOW, read_campaign, read_counts, read_entries, read_next_due
from asyncsmtp.bulk.postgres.schema import check
from asyncsmtp.bulk.states import Counts, State
from asyncsmtp.errors import LedgerEmpty
from asyncsmtp.protocol.replies import safe_text

__all__ = ["PostgresReader"]

_T = TypeVar("_T")


class PostgresReader:
    """A ledger opened to be read; rows of a run that is going on, or was killed, may be SENDING."""

    def __init__(self, database: Database, connection: Connection, number: int, campaign: CampaignRow) -> None:
        self.database = database
        self._connection = connection
        self._campaign = campaign
        self._stamp: dict[str, object] = {"campaign": number, "run": campaign.run + 1, "now": None}
        self._one_at_a_time = asyncio.Lock()

    @classmethod
    async def open(cls, url: str, *, name: str = "") -> Self:
        """Open the ledger of the campaign `name`; "": of the only one that is there.

        Raises:
            LedgerEmpty: there is none, or it holds no recipients yet; or there are several, and no name.
            LedgerError: it cannot be read. InvalidArgument: it is no such URL.
        """
        database = Database(Database.parse(url).url, name)
        try:
            connection = await connect(database, write=False)
            try:
                await check(connection, database)
                number, database = await _find(connection, database)
                campaign = await read_campaign(connection, {"campaign": number})
                if campaign is None:
                    raise LedgerEmpty(f"{database} holds no campaign yet: its recipients were not loaded to the end")
            except BaseException:
                await connection.close()
                raise
        except psycopg.Error as error:
            raise ledger_error(database, error) from error
        return cls(database, connection, number, campaign)

    @property
    def name(self) -> str:
        """The campaign's."""
        return self._campaign.name

    @property
    def created_at(self) -> datetime:
        """When its rows were loaded, UTC."""
        return when(self._campaign.created_us)

    async def counts(self) -> Counts:
        """How many rows are in each state."""
        return await self._read(partial(read_counts, stamp=self._stamp))

    async def entries(self, states: Iterable[State] | None = None) -> AsyncGenerator[Entry]:
        """Every row in one of `states` (None: all), in file order; a few thousand are in memory at a time."""
        wanted = frozenset(State if states is None else states)
        for first in range(0, self._campaign.batches, WINDOW):
            for entry in await self._read(partial(read_entries, stamp=self._stamp, first=first, states=wanted)):
                yield entry

    async def next_due(self) -> datetime | None:
        """From when on the first of the rows that are to come may be tried."""
        return await self._read(partial(read_next_due, stamp=self._stamp))

    async def aclose(self) -> None:
        """Close the connection; a second time does nothing."""
        await self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        try:
            async with self._one_at_a_time:
                return await work(self._connection)
        except psycopg.Error as error:
            raise ledger_error(self.database, error) from error


async def _find(connection: Connection, database: Database) -> tuple[int, Database]:
    """The campaign's number, and its place by name."""
    found = await connection.execute(
        "SELECT id, name FROM campaign WHERE name = %(name)s OR %(name)s = '' AND config IS NOT NULL ORDER BY name",
        {"name": database.campaign},
    )
    rows = await found.fetchall()
    if not rows:
        raise LedgerEmpty(f"there is no ledger {database}: the campaign was not begun, or has another name")
    if len(rows) > 1:
        names = ", ".join(safe_text(name, 60) for _, name in rows[:5])
        raise LedgerEmpty(
            f"{database} has several campaigns ({names}): name one: {database}#{safe_text(rows[0][1], 60)}"
        )
    return int(rows[0][0]), Database(database.url, rows[0][1])
