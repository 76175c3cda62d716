"""Writer of a SQLite ledger: one thread that owns the connection and commits in groups."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cache, partial
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, TypeVar

from asyncsmtp.bulk.ledger.interfaces import Counts, RowState
from asyncsmtp.bulk.ledger.queries import Queries, Script, Statement
from asyncsmtp.bulk.ledger.sqlite.ledger_file import (
    CAMPAIGN,
    IN_USE,
    LedgerLock,
    Stamp,
    is_busy,
    is_full,
    ledger_error,
    remember_end,
    transaction,
    write_anew,
)
from asyncsmtp.bulk.ledger.transitions import (
    BATCH_SIZE,
    Transition,
    TransitionValues,
    batch_number,
    list_outcomes,
    split_into_groups,
)
from asyncsmtp.bulk.ledger.write_queue import Call, WriteQueue, reject, resolve, select_transitions
from asyncsmtp.errors import LedgerError

__all__ = ["REMEMBER", "DaemonThread", "SerialExecutor", "SqliteWriter", "call_in", "run_script"]

GATHER_DELAY = 0.002  # seconds from one commit to the next …
GATHER_MIN = 16  # … after a turn with so many items
LOCKED_TIMEOUT = 60.0  # seconds that another program may keep the file locked

REMEMBER = "INSERT OR REPLACE INTO memory VALUES (?, ?)"  # name and value

_log = logging.getLogger("asyncsmtp.ledger")
_T = TypeVar("_T")


class SerialExecutor(Protocol):
    """An executor that runs one function at a time, in order: `DaemonThread`, or `ThreadPoolExecutor(1)`."""

    def submit(self, function: Callable[[], None], /) -> object:
        """Run a function after those that were submitted before."""


class DaemonThread:
    """The usual `SerialExecutor`: a daemon thread.

    `ThreadPoolExecutor` waits for its threads when the interpreter exits, so a program that forgets to close a ledger
    would never end. It also makes a future for each call, which nobody needs here: that is 3 us of 20 for a commit.
    """

    def __init__(self, name: str) -> None:
        self._functions: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def submit(self, function: Callable[[], None], /) -> None:
        """Run a function after those that were submitted before; it must not raise."""
        self._functions.put(function)

    def shutdown(self) -> None:
        """End the thread after what was submitted; does not wait for it."""
        self._functions.put(None)

    def _run(self) -> None:
        while (function := self._functions.get()) is not None:
            function()
            del function  # it may hold the ledger


def call_in(executor: SerialExecutor, function: Callable[[], _T]) -> asyncio.Future[_T]:
    """Call a function in an executor; return a future of the running loop."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            result = function()
        except BaseException as error:
            _call_soon(loop, reject, done, error)
        else:
            _call_soon(loop, resolve, done, result)

    executor.submit(run)
    return done


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[..., None], *args: object) -> None:
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(function, *args)


class _FileIdentity:
    """Device and inode of a ledger and of its write-ahead log, to see whether one is removed or replaced."""

    def __init__(self, path: Path) -> None:
        self._paths = (str(path), f"{path}-wal")
        self._found = self._read()

    def has_changed(self) -> bool:
        """Return whether one of the files is not the same any more."""
        return self._read() != self._found

    def _read(self) -> list[tuple[int, int]] | None:
        found = []
        for path in self._paths:
            try:
                status = os.stat(path)
            except OSError:
                return None
            found.append((status.st_dev, status.st_ino))
        return found


class _RemovedError(Exception):
    """The file that is written has lost its name; what is written now would be found by nobody."""


class SqliteWriter:
    """The `Store` of a SQLite ledger.

    Whatever is queued wakes the executor, unless a turn is scheduled already. A turn takes what is queued by then, so
    the next transaction has everything that came during the last one (see `WriteQueue`). Where a turn had many items,
    the next one begins 2 ms later: at full speed that makes fewer and larger commits, and so less work for each row.
    After a small turn the next one begins at once, since one session at full speed must not be held to 500 messages a
    second.

    A commit that failed is never tried again. After a failed fsync the system may report success for pages that it
    has dropped, so a second attempt could report a mark as durable that is not. Every error of SQLite therefore ends
    the writer, and everyone who waits gets the error. Only a full disk is different: SQLite wrote nothing, and the
    disk reserve is freed, so the outcomes of rows that are past their mark are written once more, as a transaction of
    their own; again when the ledger is closed, for the replies that came meanwhile.

    Args:
        path: the ledger's, for messages.
        connection: owned by the writer from now on.
        executor: runs the turns.
        clock: microseconds since 1970, UTC. monotonic: a clock in seconds that is never set. sleep: sleeps for
            seconds. All are called in the executor.
        lock: of the ledger; its stamp advances with each commit.
        free_disk_space: called once when the disk is full, before the last outcomes are written.
        on_durable: called on the loop with the transitions of each commit.
        on_closed: called in the executor when the connection is closed.
    Attributes:
        queue: what is to be written.
        final_counts: of the rows, for the next run, if nothing is written after they were set; else None.
    """

    def __init__(
        self,
        path: Path,
        connection: sqlite3.Connection,
        queries: Queries,
        *,
        executor: SerialExecutor,
        clock: Callable[[], int],
        lock: LedgerLock,
        free_disk_space: Callable[[], None],
        on_durable: Callable[[Sequence[Transition]], None],
        on_closed: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self.queries = queries
        self.queue = WriteQueue(path, self._wake, on_durable)
        self.final_counts: Counts | None = None
        self._path = path
        self._connection = connection
        self._executor = executor
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._lock = lock
        self._identity = _FileIdentity(path)
        self._free_disk_space = free_disk_space
        self._on_closed = on_closed
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        self._is_scheduled = False
        self._is_finished = False
        self._error: BaseException | None = None
        self._began_at = 0.0  # monotonic clock: when the last turn began
        self._is_crowded = False  # whether that had many items

    # Called on the event loop.

    async def call(self, function: Callable[[sqlite3.Connection], _T]) -> _T:
        """Call a function with the connection, after everything that was queued before; cancelled, it still runs.

        Raises:
            LedgerError: the writer has failed, or does so now. Also what the function raises.
        """
        result: _T = await self.queue.call(function)
        return result

    async def read(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script, each statement as a transaction of its own unless one was begun."""
        return await self.call(lambda connection: run_script(connection, script(), self._stamp()))

    step = read

    async def write(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script as one transaction."""

        def run(connection: sqlite3.Connection) -> _T:
            with transaction(connection):
                return run_script(connection, script(), self._stamp())

        return await self.call(run)

    async def rollback(self) -> None:
        """Roll back the transaction that a step began, if there still is one."""
        await self.call(lambda connection: connection.rollback())

    async def clean(self) -> bool:
        """Write the file anew, and empty its log; return whether no other process keeps the log."""
        return await self.call(write_anew)

    async def aclose(self) -> None:
        """Write what is queued, and close the connection; a second call does nothing."""
        self.queue.close()
        await asyncio.shield(self._ended)

    def _wake(self) -> None:
        if not self._is_scheduled and not self._ended.done():
            self._is_scheduled = True
            self._executor.submit(self._run_turn)

    # Called in the executor.

    def _run_turn(self) -> None:
        if self._is_finished:
            return
        if self._error is None and self._is_crowded and not self.queue.closing:
            self._sleep(max(0.0, self._began_at + GATHER_DELAY - self._monotonic()))
        self._is_scheduled = False  # before looking at the queue: what is queued from now on schedules another turn
        if self._error is None:
            try:
                self._process_queue()
            except BaseException as error:  # whatever it is, everyone who waits must get it
                self._error = error
                self._fail(error)
        if self.queue.closing and (self._error is not None or not self.queue):
            self._finish()

    def _process_queue(self) -> None:
        self._began_at = self._monotonic()
        self._is_crowded = len(self.queue) >= GATHER_MIN
        if self.queue:
            self.final_counts = None
        for item in self.queue.turn():
            if isinstance(item, list):
                self._commit(item)
            else:
                self._execute(item)

    def begin_stamp(self, stamp: Stamp) -> None:
        """Write the first stamp of the ledger, whose recipients are loaded; called by a script."""
        self._lock.write_stamp(stamp)

    def _commit(self, transitions: list[Transition]) -> None:
        if self._identity.has_changed():
            raise _RemovedError(f"{self._path} or its -wal file was removed or replaced during the run")
        run, now = self.queries.run, self._clock()
        self._wait_while_locked(partial(write_transitions, self._connection, transitions, run, now))
        self._lock.advance(now)
        self._notify(self.queue.report_durable, transitions)

    def _execute(self, call: Call) -> None:
        try:
            result = self._wait_while_locked(partial(call.function, self._connection))
        except sqlite3.Error:
            raise
        except Exception as error:  # it is the caller's
            self._notify(reject, call.done, error)
        else:
            self._notify(resolve, call.done, result)

    def _wait_while_locked(self, function: Callable[[], _T]) -> _T:
        """Call again while another program locks the file: SQLite reports that first, so nothing is done twice."""
        deadline = self._monotonic() + LOCKED_TIMEOUT
        while True:
            try:
                return function()
            except sqlite3.OperationalError as error:
                if not is_busy(error) or self._monotonic() > deadline:
                    raise
                _log.warning("%s is locked by another program; waiting", self._path)

    def _fail(self, error: BaseException) -> None:
        with contextlib.suppress(sqlite3.Error):
            self._connection.rollback()  # of a load: nobody will go on with it
        items = self.queue.drain()
        unwritten = select_transitions(items)
        if is_full(error):
            self._free_disk_space()
            unwritten = self._salvage(unwritten)
        elif isinstance(error, _RemovedError):
            unwritten = self._salvage(unwritten)
            error = LedgerError(f"{error}: {self._rescue()}")
        failure = ledger_error(self._path, error)
        failure.__cause__ = None if failure is error else error
        self._notify(self.queue.fail, failure, unwritten, items)

    def _finish(self) -> None:
        self._is_finished = True
        is_removed, modified = isinstance(self._error, _RemovedError), 0
        if self._error is not None and (is_removed or is_full(self._error)):
            unwritten = self.queue.list_unwritten()
            self.queue.report_salvaged(unwritten, self._salvage(unwritten))
        with contextlib.suppress(sqlite3.Error):
            if is_removed:
                self._rescue()
            elif self._error is None:
                self._connection.execute("DELETE FROM memory WHERE name = ?", (IN_USE,))
                if self.final_counts is not None:
                    modified = remember_end(self._connection, self.queries.run, self.final_counts)
            self._connection.close()
            if modified:
                with contextlib.suppress(OSError):  # then the next run checks all rows
                    os.utime(self._path, ns=(modified, modified))
        try:
            self._on_closed()
        finally:
            self._notify(resolve, self._ended, None)

    def _salvage(self, transitions: list[Transition]) -> list[Transition]:
        try:
            return salvage_transitions(self._connection, transitions, self.queries.run, self._clock())
        except sqlite3.Error:
            return transitions

    def _rescue(self) -> str:
        """Copy the content of a removed ledger, which is there until it is closed, to a new file; return advice."""
        path = self._path.with_name(f"{self._path.name}.rescued")
        try:
            path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
            with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as copy:
                self._connection.backup(copy)
                copy.execute("DELETE FROM memory WHERE name = ?", (IN_USE,))
        except (sqlite3.Error, OSError):
            return "restore it, then run the same command again"
        return f"all that it held is in {path.name}: rename that to {self._path.name}, then run the same command again"

    def _notify(self, function: Callable[..., None], *args: object) -> None:
        _call_soon(self._loop, function, *args)

    def _stamp(self) -> dict[str, object]:
        return {"campaign": CAMPAIGN, "run": self.queries.run, "now": self._clock()}


def run_script(connection: sqlite3.Connection, script: Script[_T], stamp: dict[str, object]) -> _T:
    """Run a script to its end and return its result."""
    result: object = None
    while True:
        before = connection.total_changes  # `rowcount` is -1 after a statement that begins with WITH (Python 3.11)
        try:
            statement = script.send(result)
        except StopIteration as end:
            value: _T = end.value
            return value
        if isinstance(statement, Statement):
            cursor = connection.execute(statement.sql, {**stamp, **statement.values})
        else:
            cursor = connection.executemany(statement.sql, statement.rows)
        result = connection.total_changes - before if cursor.description is None else cursor.fetchall()


# Transitions are written many at a time, each a compare-and-set. One statement for a whole group is not only for
# SQLite's sake: each statement releases the interpreter's lock and must get it back from a busy event loop, so that a
# statement for each row was seven times slower there. Statements are filled up to a multiple of `STATEMENT_STEP` rows
# with rows that match nothing, so that few different ones are ever prepared.

STATEMENT_STEP = 8

_COLUMNS = len(TransitionValues._fields)
_NO_ROW = TransitionValues(0, -1, -1)  # rows are counted from 1


def write_transitions(connection: sqlite3.Connection, transitions: Sequence[Transition], run: int, now: int) -> None:
    """Make all the transitions durable, in their order, as one transaction.

    Args:
        now: microseconds since 1970, UTC. The times of a row never go back, whatever the clock does.
    Raises:
        LedgerError: a row was not in the state it had to be in; this is a bug.
    """
    groups = list(split_into_groups(transitions))
    outcomes = list_outcomes(transitions, now)
    if len(groups) == 1 and not outcomes:  # one statement is a transaction by itself: two statements less
        _update(connection, groups[0], run, now)
        return
    with transaction(connection):
        for group in groups:
            _update(connection, group, run, now)
        connection.executemany(REMEMBER, outcomes)


def salvage_transitions(
    connection: sqlite3.Connection, transitions: Iterable[Transition], run: int, now: int
) -> list[Transition]:
    """Write what can be written of the settlements, once; return the transitions that remain.

    Marks are not written, since nobody may act on them any more. A settlement whose mark is among the transitions
    applies to the state before that mark.
    """
    unmarked: dict[int, RowState] = {}
    remaining: list[Transition] = []
    with transaction(connection):
        for transition in transitions:
            if transition.settlement is None:
                unmarked.setdefault(transition.row, transition.before)
                remaining.append(transition)
                continue
            values = transition.values(unmarked.get(transition.row, transition.before))
            before = connection.total_changes
            connection.execute(_update_statement(1), (*values, now, now, run))
            if connection.total_changes == before:
                remaining.append(transition)
            else:
                connection.executemany(REMEMBER, list_outcomes((transition,), now))
    return remaining


def _update(connection: sqlite3.Connection, group: Sequence[Transition], run: int, now: int) -> None:
    size = -(-len(group) // STATEMENT_STEP) * STATEMENT_STEP
    values: list[object] = []
    for transition in group:
        values += transition.values()
    values += _NO_ROW * (size - len(group))
    before = connection.total_changes  # see `run_script`
    connection.execute(_update_statement(size), (*values, now, now, run))
    if connection.total_changes - before != len(group):
        raise _wrong_state(connection, group)


@cache
def _update_statement(size: int) -> str:
    rows = ",".join([f"({','.join('?' * _COLUMNS)})"] * size)
    return (
        f"WITH j({', '.join(TransitionValues._fields)}) AS (VALUES {rows})"  # noqa: S608
        " UPDATE delivery SET state = j.new, attempts = max(0, attempts + j.tried), doubts = doubts + j.new_doubts,"
        " code = iif(postponed, delivery.code, nullif(j.code, 0)),"
        " status = iif(postponed, delivery.status, nullif(j.status, '')),"
        " reply = iif(postponed, delivery.reply, nullif(j.reply, '')),"
        " host = iif(postponed, delivery.host, nullif(j.host, '')),"
        " next_us = nullif(j.due, 0),"
        " first_us = CASE WHEN attempts + j.tried <= 0 THEN NULL"
        " WHEN j.tried > 0 THEN coalesce(first_us, ?) ELSE first_us END,"
        " updated_us = max(coalesce(updated_us, 0), ?), epoch = ?"
        f" FROM j WHERE campaign_id = {CAMPAIGN} AND batch_no = (j.seq - 1) / {BATCH_SIZE}"
        " AND delivery.seq = j.seq AND state = j.old"
    )


def _wrong_state(connection: sqlite3.Connection, group: Sequence[Transition]) -> LedgerError:
    """Name the first row that is not in its state, as far as that can still be seen."""
    find = f"SELECT state FROM delivery WHERE campaign_id = {CAMPAIGN} AND batch_no = ? AND seq = ?"  # noqa: S608
    for transition in group:
        row = transition.row
        found = connection.execute(find, (batch_number(row), row)).fetchone()
        if found is None or found[0] != transition.after:
            state = "not there" if found is None else RowState(found[0])
            return LedgerError(f"row {row} is {state} in the ledger, not {transition.before}: this is a bug")
    return LedgerError("the ledger changed fewer rows than it should have: this is a bug")
