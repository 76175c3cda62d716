"""The one thread that owns the ledger's connection, and commits in groups.

The next transaction takes whatever was said during the last one, so the cost of a commit is shared by as
many as wait for it; where they come thick and fast it waits two milliseconds for more. A failed commit is
never tried again: after a failed fsync the system may report success for octets that it has dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.sqlite.changes import salvage, write
from asyncsmtp.bulk.sqlite.failures import is_busy, is_full, ledger_error
from asyncsmtp.errors import LedgerError

__all__ = ["Writer"]

RIDE = 0.05  # seconds that a settlement may wait for a mark to ride with
GATHER = 0.002  # seconds from one commit to the next …
MANY = 16  # … after one of so many changes: where they come thick and fast each commit has more of them
PATIENCE = 60.0  # seconds that another program may keep the file locked

_log = logging.getLogger("asyncsmtp.ledger")
_T = TypeVar("_T")


@dataclass(slots=True)
class _Call(Generic[_T]):
    """A function that wants the connection for itself, between two commits."""

    function: Callable[[sqlite3.Connection], _T]
    done: asyncio.Future[_T]


class Writer:
    """Takes changes and calls from the event loop, in order, and does them in its thread.

    Args:
        path: the ledger's, for messages.
        connection: becomes the thread's own; closed by `aclose`.
        run: the number of this run.
        clock: microseconds since 1970, UTC; called in the thread.
        make_room: called once when the disk is full, before the last outcomes are written.
        written: called on the loop with the changes of each commit.
    Attributes:
        failed: raises the LedgerError that ended the writer.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        run: int,
        *,
        clock: Callable[[], int],
        make_room: Callable[[], None],
        written: Callable[[Sequence[Change]], None],
    ) -> None:
        self._path = path
        self._connection = connection
        self._run = run
        self._clock = clock
        self._make_room = make_room
        self._written = written
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Change | _Call[Any]] = deque()
        self._doing: list[Change | _Call[Any]] = []
        self._left: list[Change] = []  # after a failure: what was not written
        self._wake = threading.Event()
        self._began_at = 0.0  # seconds, by a monotonic clock: when the last turn began
        self._crowded = False  # whether that had many changes
        self._ride: asyncio.TimerHandle | None = None
        self._failure: LedgerError | None = None
        self._closing = False
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._work, name="asyncsmtp-ledger", daemon=True).start()

    # What the event loop calls.

    def put(self, change: Change, *, urgent: bool) -> None:
        """Queue a change; an urgent one is committed at once, another one `RIDE` later at the latest."""
        if self._failure is not None:
            self._left.append(change)
        self._check()
        self._queue.append(change)
        if urgent:
            self._hurry()
        elif self._ride is None:
            self._ride = self._loop.call_later(RIDE, self._ride_over)

    async def call(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run a function in the thread, after everything that was queued before; cancelled, it still runs.

        Raises:
            LedgerError: the writer has failed, or does now. What else the function raises.
        """
        self._check()
        call: _Call[_T] = _Call(function, self._loop.create_future())
        self._queue.append(call)
        self._hurry()
        return await call.done

    @property
    def failure(self) -> LedgerError | None:
        """What ended the writer, if anything did."""
        return self._failure

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """After a failure: the outcomes that are not in the file, oldest first."""
        return tuple(change.settlement for change in self._left if change.settlement is not None)

    async def aclose(self) -> None:
        """Write what waits, and end the thread; a second time does nothing."""
        self._closing = True
        self._wake.set()
        await asyncio.shield(self._ended)
        if self._ride is not None:
            self._ride.cancel()

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._closing:
            raise LedgerError(f"{self._path} is closed already: this is a bug")

    def _hurry(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    def _ride_over(self) -> None:
        self._ride = None
        if self._queue:
            self._hurry()

    # What runs in the thread.

    def _work(self) -> None:
        try:
            while not self._closing or self._queue:
                self._wake.wait()
                self._gather()
                self._wake.clear()
                self._turn()
        except BaseException as error:  # whatever it is, everyone who waits must hear of it
            self._fail(error)
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._tell(_resolve, self._ended, None)

    def _gather(self) -> None:
        """Let the next commit grow where the last was large: what it costs is shared by more."""
        if self._crowded and not self._closing:
            time.sleep(max(0.0, self._began_at + GATHER - time.monotonic()))

    def _turn(self) -> None:
        """Do what is queued now; what comes meanwhile is the next turn's."""
        self._began_at = time.monotonic()
        left = len(self._queue)
        self._crowded = left >= MANY
        while left:
            self._take(left)
            left -= len(self._doing)
            first = self._doing[0]
            if isinstance(first, _Call):
                self._call(first)
            else:
                self._commit([change for change in self._doing if isinstance(change, Change)])
            self._doing = []

    def _take(self, most: int) -> None:
        """Move from the queue one call, or all the changes before the next one."""
        while len(self._doing) < most:
            if self._doing and isinstance(self._queue[0], _Call):
                return
            self._doing.append(self._queue.popleft())
            if isinstance(self._doing[0], _Call):
                return

    def _commit(self, changes: list[Change]) -> None:
        self._patiently(partial(write, self._connection, changes, self._run, self._clock()))
        self._tell(self._durable, changes)

    def _call(self, call: _Call[Any]) -> None:
        try:
            result = self._patiently(partial(call.function, self._connection))
        except sqlite3.Error:
            raise
        except Exception as error:  # it is the caller's
            self._tell(_refuse, call.done, error)
        else:
            self._tell(_resolve, call.done, result)

    def _patiently(self, function: Callable[[], _T]) -> _T:
        """Wait for a program that locks the file: SQLite says so before it does anything, so nothing is repeated."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return function()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or time.monotonic() > deadline:
                    raise
                _log.warning("%s is locked by another program; waiting", self._path)

    def _fail(self, error: BaseException) -> None:
        failure = ledger_error(self._path, error)
        failure.__cause__ = None if failure is error else error
        items = [*self._doing, *self._drain()]
        changes = [item for item in items if isinstance(item, Change)]
        if is_full(error):
            self._make_room()
            changes = self._salvage(changes)
        self._tell(self._broken, failure, changes, [item.done for item in items])
        if is_full(error):  # what was in flight is answered meanwhile; this is a transaction of its own, not a repeat
            while not self._closing:
                self._wake.wait()
                self._wake.clear()
            self._left = self._salvage(self._left)

    def _drain(self) -> Iterator[Change | _Call[Any]]:
        while self._queue:
            yield self._queue.popleft()

    def _salvage(self, changes: list[Change]) -> list[Change]:
        try:
            return salvage(self._connection, changes, self._run, self._clock())
        except sqlite3.Error:
            return changes

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *args)

    # What the thread tells the loop.

    def _durable(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.done is not None and not change.done.done():
                change.done.set_result(None)
        self._written(changes)

    def _broken(self, failure: LedgerError, left: list[Change], waiters: list[asyncio.Future[Any] | None]) -> None:
        late = list(self._drain())
        self._failure = failure
        self._left = left + [item for item in late if isinstance(item, Change)]
        for waiter in (*waiters, *(item.done for item in late), self.failed):
            if waiter is not None:
                _refuse(waiter, failure)


def _resolve(future: asyncio.Future[_T], result: _T) -> None:
    if not future.done():
        future.set_result(result)


def _refuse(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # whoever waits gets it; where nobody does, that is no fault
