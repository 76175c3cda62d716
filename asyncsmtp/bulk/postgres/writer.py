"""The one task that uses the ledger's session, and commits in groups.

The next transaction takes whatever was said during the last one. While the database is away everything waits here, in
order; only when it stays away, or somebody else has the campaign, is it a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeAlias, TypeVar

from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.postgres.changes import salvage, write
from asyncsmtp.bulk.postgres.driver import Connection, psycopg
from asyncsmtp.bulk.postgres.failures import ledger_error
from asyncsmtp.bulk.postgres.session import ANSWER, Session
from asyncsmtp.errors import LedgerError, SMTPError

__all__ = ["Writer"]

RIDE = 0.05  # seconds that a settlement may wait for a mark to ride with

_T = TypeVar("_T")
Way: TypeAlias = Callable[[Callable[[Connection], Awaitable[Any]]], Awaitable[Any]]


@dataclass(slots=True)
class _Call(Generic[_T]):
    """Something that wants the session for itself, between two commits."""

    way: Way
    work: Callable[[Connection], Awaitable[_T]]
    done: asyncio.Future[_T]


class Writer:
    """Takes changes and calls, in order, and does them in its task.

    Args:
        session: becomes the task's own; closed by `aclose`.
        written: called with the changes of each commit.
    Attributes:
        failed: raises the LedgerError that ended the writer.
    """

    def __init__(self, session: Session, *, written: Callable[[Sequence[Change]], None]) -> None:
        self._session = session
        self._written = written
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Change | _Call[Any]] = deque()
        self._doing: list[Change | _Call[Any]] = []
        self._left: list[Change] = []  # after a failure: what was not written
        self._wake = asyncio.Event()
        self._ride: asyncio.TimerHandle | None = None
        self._failure: LedgerError | None = None
        self._closing = False
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._task = asyncio.create_task(self._work(), name="asyncsmtp-ledger")

    def put(self, change: Change, *, urgent: bool) -> None:
        """Queue a change; an urgent one is committed at once, another one `RIDE` later at the latest."""
        if self._failure is not None:
            self._left.append(change)
        self._check()
        self._queue.append(change)
        if urgent:
            self._wake.set()
        elif self._ride is None:
            self._ride = self._loop.call_later(RIDE, self._ride_over)

    async def read(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Have something read, after everything that was queued before."""
        return await self._call(self._session.read, work)

    async def write(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Have something done as one transaction, after everything that was queued before; cancelled, it is done."""
        return await self._call(self._session.write, work)

    async def once(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Have one step of a load done: it is not tried again."""
        return await self._call(self._session.once, work)

    @property
    def failure(self) -> LedgerError | None:
        """What ended the writer, if anything did."""
        return self._failure

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """After a failure: the outcomes that are not in the ledger, oldest first."""
        return tuple(change.settlement for change in self._left if change.settlement is not None)

    async def aclose(self) -> None:
        """Write what waits, and end the task; a second time does nothing."""
        self._closing = True
        self._wake.set()
        if self._ride is not None:
            self._ride.cancel()
        await asyncio.shield(self._task)

    async def _call(self, way: Way, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        self._check()
        call: _Call[_T] = _Call(way, work, self._loop.create_future())
        self._queue.append(call)
        self._wake.set()
        return await call.done

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise LedgerError(f"{self._session.database} is closed already: this is a bug")

    def _ride_over(self) -> None:
        self._ride = None
        if self._queue:
            self._wake.set()

    async def _work(self) -> None:
        try:
            while not self._closing or self._queue:
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
        """Do what is queued now; what comes meanwhile is the next turn's."""
        left = len(self._queue)
        while left:
            self._take(left)
            left -= len(self._doing)
            first = self._doing[0]
            if isinstance(first, _Call):
                await self._answer(first)
            else:
                await self._commit([change for change in self._doing if isinstance(change, Change)])
            self._doing = []

    def _take(self, most: int) -> None:
        """Move from the queue one call, or all the changes before the next one."""
        while len(self._doing) < most:
            if self._doing and isinstance(self._queue[0], _Call):
                return
            self._doing.append(self._queue.popleft())
            if isinstance(self._doing[0], _Call):
                return

    async def _commit(self, changes: list[Change]) -> None:
        work = partial(write, changes=changes, stamp=self._session.stamp)
        await self._session.write(work, within=ANSWER)
        for change in changes:
            if change.done is not None and not change.done.done():
                change.done.set_result(None)
        self._written(changes)

    async def _answer(self, call: _Call[Any]) -> None:
        try:
            result = await call.way(call.work)
        except SMTPError as error:
            if isinstance(error, LedgerError):
                raise
            _refuse(call.done, error)  # it is the caller's
        else:
            if not call.done.done():
                call.done.set_result(result)

    def _fail(self, error: BaseException) -> None:
        failure = ledger_error(self._session.database, error)
        failure.__cause__ = None if failure is error else error
        items = [*self._doing, *self._queue]
        self._queue.clear()
        self._failure = failure
        self._left = [item for item in items if isinstance(item, Change)]
        for waiter in (*(item.done for item in items), self.failed):
            if waiter is not None:
                _refuse(waiter, failure)

    async def _save(self) -> None:
        """After a failure: write what the relay said of rows that this run had marked, now and when the run has ended.

        What was in flight is answered meanwhile. It is by compare-and-set, so another's campaign is safe from it.
        """
        await self._salvage()
        while not self._closing:
            await self._wake.wait()
            self._wake.clear()
        await self._salvage()

    async def _salvage(self) -> None:
        left, self._left = self._left, []
        try:
            left = await self._session.at_last(partial(salvage, changes=left, stamp=self._session.stamp))
        except (psycopg.Error, LedgerError):
            pass
        finally:
            self._left = left + self._left


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        with contextlib.suppress(Exception):
            future.exception()  # whoever waits gets it; where nobody does, that is no fault
