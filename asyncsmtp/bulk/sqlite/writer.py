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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from asyncsmtp.bulk.keeping.change import Change
from asyncsmtp.bulk.keeping.queue import Queue, changes_of, refuse, resolve
from asyncsmtp.bulk.sqlite.changes import salvage, write
from asyncsmtp.bulk.sqlite.failures import is_busy, is_full, ledger_error

__all__ = ["Writer"]

GATHER = 0.002  # seconds from one commit to the next …
MANY = 16  # … after one of so many changes: where they come thick and fast each commit has more of them
PATIENCE = 60.0  # seconds that another program may keep the file locked

_log = logging.getLogger("asyncsmtp.ledger")
_T = TypeVar("_T")


@dataclass(slots=True)
class _Call(Generic[_T]):
    function: Callable[[sqlite3.Connection], _T]
    done: asyncio.Future[_T]


class Writer:
    """Does what is queued, in its thread.

    Args:
        path: the ledger's, for messages.
        connection: becomes the thread's own; closed by `aclose`.
        run: the number of this run.
        clock: microseconds since 1970, UTC; called in the thread.
        make_room: called once when the disk is full, before the last outcomes are written.
        written: called on the loop with the changes of each commit.
    Attributes:
        queue: what is to be written.
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
        self._loop = asyncio.get_running_loop()
        self._wake = threading.Event()
        self.queue = Queue(path, self._hurry, written)
        self._began_at = 0.0  # seconds, by a monotonic clock: when the last turn began
        self._crowded = False  # whether that had many changes
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._work, name="asyncsmtp-ledger", daemon=True).start()

    # What the event loop calls.

    async def call(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run a function in the thread, after everything that was queued before; cancelled, it still runs.

        Raises:
            LedgerError: the writer has failed, or does now. What else the function raises.
        """
        call: _Call[_T] = _Call(function, self._loop.create_future())
        self.queue.call(call)
        return await call.done

    async def aclose(self) -> None:
        """Write what waits, and end the thread; a second time does nothing."""
        self.queue.close()
        await asyncio.shield(self._ended)

    def _hurry(self) -> None:
        if not self._wake.is_set():
            self._wake.set()

    # What runs in the thread.

    def _work(self) -> None:
        try:
            while not self.queue.closing or self.queue:
                self._wake.wait()
                self._gather()
                self._wake.clear()
                self._turn()
        except BaseException as error:  # whatever it is, everyone who waits must hear of it
            self._fail(error)
        with contextlib.suppress(sqlite3.Error):
            self._connection.close()
        self._tell(resolve, self._ended, None)

    def _gather(self) -> None:
        """Let the next commit grow where the last was large: what it costs is shared by more."""
        if self._crowded and not self.queue.closing:
            time.sleep(max(0.0, self._began_at + GATHER - time.monotonic()))

    def _turn(self) -> None:
        self._began_at = time.monotonic()
        self._crowded = len(self.queue) >= MANY
        for what in self.queue.turn():
            if isinstance(what, list):
                self._commit(what)
            elif isinstance(what, _Call):
                self._call(what)

    def _commit(self, changes: list[Change]) -> None:
        self._patiently(partial(write, self._connection, changes, self._run, self._clock()))
        self._tell(self.queue.durable, changes)

    def _call(self, call: _Call[Any]) -> None:
        try:
            result = self._patiently(partial(call.function, self._connection))
        except sqlite3.Error:
            raise
        except Exception as error:  # it is the caller's
            self._tell(refuse, call.done, error)
        else:
            self._tell(resolve, call.done, result)

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
        items = self.queue.drain()
        changes = changes_of(items)
        if is_full(error):
            self._make_room()
            changes = self._salvage(changes)
        self._tell(self.queue.fail, failure, changes, items)
        if is_full(error):  # what was in flight is answered meanwhile; this is a transaction of its own, not a repeat
            while not self.queue.closing:
                self._wake.wait()
                self._wake.clear()
            unwritten = self.queue.unwritten()
            self.queue.salvaged(unwritten, self._salvage(unwritten))

    def _salvage(self, changes: list[Change]) -> list[Change]:
        try:
            return salvage(self._connection, changes, self._run, self._clock())
        except sqlite3.Error:
            return changes

    def _tell(self, function: Callable[..., None], *args: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *args)
