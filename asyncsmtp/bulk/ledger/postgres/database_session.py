"""Connection of the process that runs a campaign: durability, lock and lease, reconnecting, and errors.

The lock is the session's: it ends with the process, or with the server, so nobody waits for a dead process. The lease
keeps two processes apart: each transaction writes its number there, if the lease still has this run. A process that
lost its session, and its campaign to another, therefore finds out before its next mark; and one whose connection broke
at a commit finds out whether the last durable transaction is the one before, or that one.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn, TypeAlias, TypeVar

from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.errors import LedgerBusy, LedgerError, MissingDependency
from asyncsmtp.protocol.replies import safe_text

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.rows import TupleRow
except ImportError:
    raise MissingDependency("a ledger in PostgreSQL", "asyncsmtp[postgres]") from None

__all__ = [
    "ANSWER_TIMEOUT",
    "NOW",
    "Connection",
    "DatabaseSession",
    "LeaseLost",
    "abort_after",
    "acquire_lock",
    "connect",
    "describe_process",
    "is_connection_lost",
    "ledger_error",
    "on_hold_message",
    "one_line",
    "psycopg",
    "to_psycopg",
    "try_lock",
]

OUTAGE_TIMEOUT = 120.0  # seconds that the database may be away
RECONNECT_DELAYS = (0.05, 0.1, 0.2, 0.5, 1.0)  # seconds before each attempt; the last one again and again
ANSWER_TIMEOUT = 60.0  # seconds for one transaction
LOCK_ATTEMPTS, LOCK_DELAY = 4, 0.1  # attempts before the lock is another process's; seconds between them

NOW = "coalesce(:now::bigint, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint)"
"""The time in every statement: the database's clock, unless the ledger was given another one."""

_PARAMETER = re.compile("(?<!:):([a-z_]+)")


def to_psycopg(sql: str) -> str:
    """Write named parameters (`:name`, but not a cast such as `::bigint`) as the driver has them (`%(name)s`)."""
    return _PARAMETER.sub(r"%(\1)s", sql)


Connection: TypeAlias = psycopg.AsyncConnection[TupleRow]

_log = logging.getLogger("asyncsmtp.ledger")
_T = TypeVar("_T")

_SETTINGS: dict[str, str | int] = {
    "application_name": "asyncsmtp",
    "connect_timeout": 10,  # seconds
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
_SESSION = (
    "SET client_encoding = 'UTF8'",
    "SET search_path = asyncsmtp",
    "SET default_transaction_isolation = 'read committed'",
    "SET idle_in_transaction_session_timeout = 0",  # a load waits for a person's answer
    # the server's end, so that the lock of a machine that vanished is free again
    "SET tcp_keepalives_idle = 10",
    "SET tcp_keepalives_interval = 5",
    "SET tcp_keepalives_count = 3",
)

_LOCK = "SELECT pg_try_advisory_lock(hashtextextended('asyncsmtp ' || %s, 0))"
_SHARED_LOCK = _LOCK.replace("advisory_lock", "advisory_lock_shared")
_STEP = to_psycopg(f"""
UPDATE lease SET commits = :number, at_us = {NOW} WHERE campaign_id = :campaign AND epoch = :run
AND (SELECT held IS NULL FROM campaign WHERE id = :campaign)""")  # noqa: S608
_LEASE = """
SELECT epoch, owner, commits, held FROM lease JOIN campaign ON id = campaign_id WHERE campaign_id = %(campaign)s"""
_HOLD = "UPDATE campaign SET held = %(held)s WHERE id = %(campaign)s"

_FORGOT = "the database has forgotten transactions that it had reported durable: is it a replica that was behind?"

# SQLSTATE: connections; the server is shut down, has crashed, or is starting; it ended a session that stood still
_UNAVAILABLE = ("08", "57P0", "25P03")
_READ_ONLY = "25006"  # it is a replica now: the primary is another server
_CONFLICT = ("40001", "40P01")  # another transaction was in the way

_ADVICE = {
    "28": "the database refuses this user: correct the user of the URL, or the password in ~/.pgpass or PGPASSWORD",
    "3D": "there is no such database: create it, or correct its name in the URL",
    "42501": "this user may not do that: GRANT CREATE ON DATABASE, or the rights on the schema asyncsmtp",
    "53": "the database has no space left: free some, then run the same command again",
    "XX": "the database is damaged: restore it before anything more is sent",
}


class LeaseLost(LedgerError):
    """This process may mark no further row. Replies to rows that it has marked may still be written."""


async def connect(database: Database, *, write: bool) -> Connection:
    """Connect; each statement is a transaction of its own unless one is begun.

    Raises:
        LedgerError: the server does not write durably, and says so. psycopg.Error: it cannot be reached.
    """
    given = conninfo_to_dict(database.url)
    settings = {key: value for key, value in _SETTINGS.items() if key not in given}
    if write:
        settings["target_session_attrs"] = "read-write"  # of several hosts the one that is the primary now
    connection = await psycopg.AsyncConnection.connect(make_conninfo(database.url, **settings), autocommit=True)
    try:
        for statement in _SESSION:
            await connection.execute(statement)
        if write:
            await _make_durable(connection, database)
        else:
            await connection.execute("SET default_transaction_read_only = on")
    except BaseException:
        await connection.close()
        raise
    return connection


async def _make_durable(connection: Connection, database: Database) -> None:
    """Make each commit wait for the disk of the primary, whatever the server's configuration says of commits."""
    await connection.execute("SET synchronous_commit = on")
    found = await connection.execute("SELECT current_setting('synchronous_commit'), current_setting('fsync')")
    commit, fsync = await found.fetchone() or ("", "")
    if (commit, fsync) != ("on", "on"):
        raise LedgerError(
            f"{database}: the server may lose what it reports as durable (synchronous_commit = {commit}, fsync ="
            f" {fsync}): set both to on in its configuration"
        )


async def acquire_lock(connection: Connection, database: Database, sleep: Callable[[float], Awaitable[object]]) -> None:
    """Acquire the campaign's lock, or raise LedgerBusy, which names the process that has it."""
    for _ in range(LOCK_ATTEMPTS):  # the server may not have noticed yet that a process has died
        if await try_lock(connection, database):
            return
        await sleep(LOCK_DELAY)
    found = await connection.execute(
        "SELECT owner, (SELECT count(*) FROM worker WHERE campaign_id = id AND gone = 0)"
        " FROM lease JOIN campaign ON id = campaign_id WHERE name = %s",
        (database.campaign,),
    )
    row = await found.fetchone()
    owner = safe_text(str(row[0]), 100) if row else "another process"
    if row and row[1]:
        owner = f"{owner} (a worker)" if row[1] == 1 else f"{row[1]} workers, the last one {owner},"
    raise LedgerBusy(
        f"{owner} has the campaign “{database.campaign}” open: wait until it ends, or stop it, then run the same"
        " command again"
    )


async def try_lock(connection: Connection, database: Database, *, shared: bool = False) -> bool:
    """Acquire the campaign's lock, alone or together with other workers; return whether that was possible."""
    statement = _SHARED_LOCK if shared else _LOCK
    row = await (await connection.execute(statement, (database.campaign,))).fetchone()
    return bool(row and row[0])


def describe_process() -> str:
    """Return the name of this process in messages to others."""
    return f"pid {os.getpid()} on {socket.gethostname()}"


class DatabaseSession:
    """The session of the only run of a campaign with its database; used by one task at a time.

    `WorkerSession` has the lock and the lease of one of several workers.

    Args:
        campaign: its id. run: number of this run.
        clock: microseconds since 1970, UTC; None: the database's clock.
        monotonic: a clock in seconds that is never set. sleep: sleeps for seconds.
    """

    def __init__(
        self,
        database: Database,
        connection: Connection,
        campaign: int,
        run: int,
        clock: Callable[[], int | None],
        *,
        monotonic: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]],
    ) -> None:
        self._waits_for_ever = False  # for a database that is away
        self.database = database
        self._connection = connection
        self._campaign = campaign
        self._run = run
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._commits = 0  # transactions of this run that are durable

    @property
    def stamp(self) -> dict[str, object]:
        """The parameters that every statement has."""
        return {"campaign": self._campaign, "run": self._run, "now": self._clock()}

    async def read(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Do work that changes nothing; again if the connection breaks. Raises LedgerError: the ledger cannot go on."""
        while True:
            try:
                return await work(self._connection)
            except psycopg.Error as error:
                await self._reconnect(error, self._commits)

    async def write(self, work: Callable[[Connection], Awaitable[_T]], *, timeout: float | None = None) -> _T:
        """Do work as one transaction: durable once, however often the connection breaks.

        If the connection breaks at the commit, the answer is lost, and the transaction may be durable or not. The
        number in the lease, which is written in the same transaction, tells which: only if it is not there, the work
        is done again. Doing it again blindly would count an attempt twice, and would fail on rows that have their new
        state already.

        Args:
            timeout: seconds; a server that takes longer is given up, as if the connection had broken.
        Raises:
            LeaseLost: another process has the campaign now, or it is on hold. LedgerError: the ledger cannot go on.
        """
        number = self._commits + 1
        while True:
            done: list[_T] = []
            try:
                with abort_after(self._connection, timeout):
                    async with self._connection.transaction():
                        await self._check_lease(number)
                        done.append(await work(self._connection))
            except psycopg.Error as error:
                if not await self._reconnect(error, number):
                    continue
            self._commits = number
            return done[0]

    async def step(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Do one step of work that must begin anew if the connection breaks.

        Raises:
            LedgerError: it broke, or the work cannot be done.
        """
        try:
            return await work(self._connection)
        except psycopg.Error as error:
            raise ledger_error(self.database, error) from error

    async def run_after_failure(self, work: Callable[[Connection], Awaitable[_T]]) -> _T:
        """Do work after a failure, on a new connection if the old one is closed; attempted once.

        Raises:
            psycopg.Error, LedgerError: it cannot be done.
        """
        if self._connection.closed:
            self._connection = await connect(self.database, write=True)
        with abort_after(self._connection, ANSWER_TIMEOUT):
            return await work(self._connection)

    async def close(self) -> None:
        """Close the connection, which releases the lock."""
        with suppress(psycopg.Error):
            await self._connection.close()

    async def _check_lease(self, number: int) -> None:
        """Write the number of a transaction to the lease, if it still has this run."""
        changed = await self._connection.execute(_STEP, {**self.stamp, "number": number})
        if changed.rowcount == 1:
            return
        epoch, owner, _, held = await self._read_lease()
        if epoch != self._run:
            raise LeaseLost(_taken_over_message(self.database, owner))
        raise LeaseLost(on_hold_message(self.database.campaign, held or ""))

    async def _read_lease(self) -> tuple[int, str, int, str | None]:
        row = await (await self._connection.execute(_LEASE, self.stamp)).fetchone()
        return (0, "", 0, None) if row is None else (row[0], row[1], row[2], row[3])

    async def _reconnect(self, error: BaseException, number: int) -> bool:
        """Connect again after `error`; return whether transaction `number` is durable.

        What is queued is kept meanwhile. The process that has the lock may be what is left of our own session.
        """
        if not is_connection_lost(error):
            raise ledger_error(self.database, error) from error
        _log.warning("%s is away: outcomes are kept meanwhile (%s)", self.database, one_line(error))
        began, attempts = self._monotonic(), 0
        while True:
            await self.close()
            await self._sleep(RECONNECT_DELAYS[min(attempts, len(RECONNECT_DELAYS) - 1)])
            attempts += 1
            try:
                self._connection = await connect(self.database, write=True)
                with abort_after(self._connection, ANSWER_TIMEOUT):
                    locked = await self._lock()
                    durable = await self._is_durable(number)
                if locked:
                    _log.warning("%s is back after %.1f s", self.database, self._monotonic() - began)
                    return durable
                error = LedgerBusy(f"{self.database}: another session has the lock of this campaign")
            except psycopg.Error as again:
                if not is_connection_lost(again):
                    raise ledger_error(self.database, again) from again
                error = again
            if not self._waits_for_ever and self._monotonic() - began > OUTAGE_TIMEOUT:
                raise ledger_error(self.database, error) from error

    async def _lock(self) -> bool:
        return await try_lock(self._connection, self.database)

    async def _is_durable(self, number: int) -> bool:
        epoch, owner, commits, _ = await self._read_lease()
        if epoch > self._run:
            raise LeaseLost(_taken_over_message(self.database, owner))
        if epoch < self._run or commits < self._commits:
            await self._hold()
        return commits == number

    async def _hold(self) -> NoReturn:
        """Put the campaign on hold: the database has forgotten transactions. Raises LeaseLost."""
        await self._connection.execute(_HOLD, {**self.stamp, "held": _FORGOT})
        raise LeaseLost(on_hold_message(self.database.campaign, _FORGOT))


@contextmanager
def abort_after(connection: Connection, seconds: float | None) -> Iterator[None]:
    """Shut down the connection's socket after `seconds`: whoever waits for it gets the error of a lost connection.

    A timeout that cancels would not do: the driver asks the server to cancel first, and waits for it.
    """
    timer = None if seconds is None else asyncio.get_running_loop().call_later(seconds, _abort, connection)
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()


def _abort(connection: Connection) -> None:
    with suppress(OSError, psycopg.Error), socket.socket(fileno=os.dup(connection.fileno())) as other:
        other.shutdown(socket.SHUT_RDWR)


def is_connection_lost(error: BaseException) -> bool:
    """Return whether the connection is gone or unusable, so that the same may be tried on another one."""
    if not isinstance(error, psycopg.Error):
        return False
    if error.sqlstate is None:  # it is the driver's own
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    return error.sqlstate.startswith(_UNAVAILABLE) or error.sqlstate in (_READ_ONLY, *_CONFLICT)


def ledger_error(database: Database, error: BaseException) -> LedgerError:
    """Return the error that ends the campaign; the caller sets the cause."""
    if isinstance(error, LedgerError):
        return error
    text = safe_text(" ".join(str(error).split()), 300)
    if not isinstance(error, psycopg.Error):
        return LedgerError(f"{database}: writing the ledger failed unexpectedly ({text}): this is a bug, report it")
    state = error.sqlstate or ""
    advice = next((words for start, words in _ADVICE.items() if state.startswith(start)), None)
    if advice is None:
        advice = "see whether the database runs, and what the URL says, then run the same command again"
    return LedgerError(f"{database}: {advice} ({text})")


def on_hold_message(name: str, reason: str) -> str:
    """Return the message for a campaign that is on hold."""
    return (
        f"the campaign “{name}” is on hold: {safe_text(reason, 200)}; when it may go on, set its `held` to NULL"
        " in the table asyncsmtp.campaign"
    )


def _taken_over_message(database: Database, owner: str) -> str:
    return (
        f"{safe_text(owner, 100)} went on with the campaign “{database.campaign}” while this process had lost the"
        " database: leave it to that one"
    )


def one_line(error: BaseException) -> str:
    """Return the words of an error, on one line."""
    return safe_text(" ".join(str(error).split()), 200) or type(error).__name__
