"""Looking at a ledger, also while a run is going on: no lock is taken, nothing is recovered or changed."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from asyncsmtp.bulk.keeping.columns import CampaignRow
from asyncsmtp.bulk.keeping.times import when
from asyncsmtp.bulk.ledger import Entry
from asyncsmtp.bulk.sqlite.failures import ledger_error
from asyncsmtp.bulk.sqlite.rows import WINDOW, read_campaign, read_counts, read_entries, read_next_due
from asyncsmtp.bulk.sqlite.schema import open_ledger
from asyncsmtp.bulk.states import Counts, State
from asyncsmtp.errors import LedgerEmpty, LedgerError

__all__ = ["SqliteReader"]

_T = TypeVar("_T")


class SqliteReader:
    """A ledger opened to be read; rows of a run that is going on, or was killed, may be SENDING."""

    def __init__(
        self, path: Path, connection: sqlite3.Connection, campaign: CampaignRow, thread: ThreadPoolExecutor
    ) -> None:
        self.path = path
        self._connection = connection
        self._campaign = campaign
        self._thread = thread

    @classmethod
    async def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the ledger at `path`.

        Raises:
            LedgerEmpty: there is none, or it holds no campaign yet. LedgerError: it is not one, or cannot be read.
        """
        place = Path(path)
        thread = ThreadPoolExecutor(1, "asyncsmtp-reader")
        try:
            connection, campaign = await asyncio.get_running_loop().run_in_executor(thread, _open, place)
        except BaseException:
            thread.shutdown(wait=False)
            raise
        return cls(place, connection, campaign, thread)

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
        return await self._read(read_counts)

    async def entries(self, states: Iterable[State] | None = None) -> AsyncGenerator[Entry]:
        """Every row in one of `states` (None: all), in file order; a few thousand are in memory at a time."""
        wanted = frozenset(State if states is None else states)
        for first in range(0, self._campaign.batches, WINDOW):
            for entry in await self._read(partial(read_entries, first=first, states=wanted)):
                yield entry

    async def next_due(self) -> datetime | None:
        """From when on the first of the rows that are to come may be tried."""
        return await self._read(partial(read_next_due, run=self._campaign.run + 1))

    async def aclose(self) -> None:
        """Close the file; a second time does nothing."""
        await asyncio.to_thread(self._thread.shutdown)
        self._connection.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _read(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, function, self._connection)
        except sqlite3.Error as error:
            raise ledger_error(self.path, error) from error


def _open(path: Path) -> tuple[sqlite3.Connection, CampaignRow]:
    if not path.exists():
        raise LedgerEmpty(f"there is no ledger {path}: the campaign was not begun, or has another name")
    connection = open_ledger(path, write=False)
    try:
        campaign = read_campaign(connection)
        if campaign is None:
            raise LedgerEmpty(f"{path} holds no campaign yet: its recipients were not loaded to the end")
    except sqlite3.Error as error:
        connection.close()
        raise ledger_error(path, error) from error
    except LedgerError:
        connection.close()
        raise
    return connection, campaign
