"""The one task that uses the ledger's session, and commits in groups.

The next transaction takes whatever was said during the last one. While the database is away everything waits here, in
order; only when it stays away, or somebody else has the campaign, is it a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.keeping.queue import Queue, changes_of, refuse, resolve
from asyncsmtp.bulk.postgres.changes import salvage, write
from asyncsmtp.bulk.postgres.driver import Connection, psycopg
from asyncsmtp.bulk.postgres.failures import ledger_error
from asyncsmtp.bulk.postgres.session import ANSWER, Session
from asyncsmtp.errors import LedgerError, SMTPError

__all__ = ["Writer"]

_T = TypeVar("_T")
Way: TypeAlias = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]


@dataclass(slots=True)
class _Call(Generic[_T]):
    way: Way
    work: Callable[[Connection], Awaitable[_T]]
    done: asyncio.Future[_T]


class Writer:
    """Does what is queued, in its task.

    Args:
        session: becomes the task's own; closed by `aclose`.
        written: called with the changes of each commit.
    Attributes:
        queue: what is to be written.
    """

    def __init__(self, session: Session, *, written: Callable[[Sequence[Change]], None]) -> None:
        self._session = session
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self.queue = Queue(session.database, self._wake.set, written)
        self._task = asyncio.create_task(self._work(), name="asyncsmtp-ledger")

    async def read(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Have something read, after everything that was queued before."""
        return await self._call(self._session.read, work)

    async def write(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Have something done as one transaction, after everything that was queued before; cancelled, it is done."""
        return await self._call(self._session.write, work)

    async def once(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Have one step of a load done: it is not tried again."""
        return await self._call(self._session.once, work)

    async def aclose(self) -> None:
        """Write what waits, and end the task; a second time does nothing."""
        self.queue.close()
        await asyncio.shield(self._task)

    async def _call(self, way: Way, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        call: _Call[_T] = _Call(way, work, self._loop.create_future())
        self.queue.call(call)
        return await call.done

    async def _work(self) -> None:
        try:
            while not self.queue.closing or self.queue:
                await self._wake.wait()
                self._wake.clear()
                await self._turn()
        except BaseException as error:  # whatever it is, everyone who waits must hear of it
            self._fail(error)
            if not isinstance(error, Exception):
                raise
            await self._save()
        finally:
            await self._session.close()

    async def _turn(self) -> None:
        for what in self.queue.turn():
            if isinstance(what, list):
                await self._commit(what)
            elif isinstance(what, _Call):
                await self._answer(what)

    async def _commit(self, changes: list[Change]) -> None:
        work = partial(write, changes=changes, stamp=self._session.stamp)
        await self._session.write(work, within=ANSWER)
        self.queue.durable(changes)

    async def _answer(self, call: _Call[Any]) -> None:
        try:
            result = await call.way(call.work)
        except SMTPError as error:
            if isinstance(error, LedgerError):
                raise
            refuse(call.done, error)  # it is the caller's
        else:
            resolve(call.done, result)

    def _fail(self, error: BaseException) -> None:
        failure = ledger_error(self._session.database, error)
        failure.__cause__ = None if failure is error else error
        items = self.queue.drain()
        self.queue.fail(failure, changes_of(items), items)

    async def _save(self) -> None:
        """After a failure: write what the relay said of rows that this run had marked, now and when the run has ended.

        What was in flight is answered meanwhile. It is by compare-and-set, so another's campaign is safe from it.
        """
        await self._salvage()
        while not self.queue.closing:
            await self._wake.wait()
            self._wake.clear()
        await self._salvage()

    async def _salvage(self) -> None:
        unwritten = self.queue.unwritten()
        with contextlib.suppress(psycopg.Error, LedgerError):
            work = partial(salvage, changes=unwritten, stamp=self._session.stamp)
            self.queue.salvaged(unwritten, await self._session.at_last(work))
