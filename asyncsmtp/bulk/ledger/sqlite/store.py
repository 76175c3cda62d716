"""The ledger in a file of this machine (SQLite, WAL, synchronous = FULL)."""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Self, TypeVar

from asyncsmtp.bulk.ledger.base import BaseLedger, BaseReader
from asyncsmtp.bulk.ledger.interfaces import Counts, InDoubt, Recovery, RowState
from asyncsmtp.bulk.ledger.loading import (
    Fingerprint,
    check_fingerprint,
    list_paths,
    read_fingerprint,
    report_repeats,
    unload_changed,
    upgrade_keys,
)
from asyncsmtp.bulk.ledger.queries import (
    OF_FILE,
    CampaignRow,
    Many,
    Queries,
    RecipientValues,
    RunStart,
    Script,
    Statement,
)
from asyncsmtp.bulk.ledger.sqlite.ledger_file import (
    CAMPAIGN,
    IN_USE,
    VERSION,
    DiskReserve,
    LedgerLock,
    Stamp,
    check_log,
    check_stamp,
    has_log,
    is_empty_lock,
    ledger_error,
    open_file,
    read_end,
    read_modified,
    refuse_network,
    require_locks,
    transaction,
)
from asyncsmtp.bulk.ledger.sqlite.writer import (
    REMEMBER,
    DaemonThread,
    SerialExecutor,
    SqliteWriter,
    call_in,
    run_script,
)
from asyncsmtp.bulk.ledger.transitions import BATCH_SIZE, COPY_BATCH, CountsTracker, batch_number, suppressed_reply
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.errors import ConfigError, LedgerEmpty, LedgerError, LedgerMismatch, check_type
from asyncsmtp.protocol.replies import safe_text

__all__ = ["SqliteLedger", "SqliteQueries", "SqliteReader"]

require_locks()  # when it is imported: before anything is sent

_T = TypeVar("_T")

_SUPPRESS = (
    f"UPDATE delivery SET state = {RowState.SUPPRESSED:d}, reply = :reply, code = NULL, status = NULL, host = NULL,"  # noqa: S608
    " next_us = NULL, epoch = :run, updated_us = max(coalesce(updated_us, 0), :now)"
    f" WHERE campaign_id = {CAMPAIGN} AND batch_no = :batch AND seq = :row AND state = :state"
)


_CHECKPOINT = "PRAGMA wal_checkpoint(PASSIVE)"


def _wall_clock() -> int:
    return time.time_ns() // 1000


class SqliteQueries(Queries):
    """Queries in the SQL of SQLite 3.33 and newer. There is one campaign in a file."""

    WORDS: ClassVar[Mapping[str, str]] = {
        "join": "CROSS JOIN",  # SQLite keeps the order of the tables: the rows are found by `delivery`
        "now": ":now",
        "greatest": "max",
        "of_campaign": "",
        "wanted": f"SELECT (value - 1) / {BATCH_SIZE} AS batch, value AS wanted FROM json_each(:wanted_rows)",  # noqa: S608
        "find_values": "SELECT 1 FROM sqlite_master WHERE name = 'memory'",  # a ledger of version 1 has no such table
        # What is behind the last @; only a quoted local part may have another one, and all others take half the time.
        "domain": (
            "lower(CASE WHEN substr(address, 1, 1) <> '\"' THEN substr(address, instr(address, '@') + 1)"
            " ELSE replace(address, rtrim(address, replace(address, '@', '')), '') END)"
        ),
    }
    BEGIN = "BEGIN IMMEDIATE"
    BEGIN_SNAPSHOT = "BEGIN"
    AFTER_LOAD = (_CHECKPOINT,)  # a copy of the file alone has the campaign
    READ_CAMPAIGN = (
        "SELECT name, created_us, run, config,"  # noqa: S608
        f" (SELECT max(batch_no) FROM delivery WHERE campaign_id = :campaign AND {OF_FILE}),"
        f" EXISTS (SELECT 1 FROM delivery WHERE campaign_id = :campaign AND batch_no >= {COPY_BATCH})"
        " FROM campaign WHERE id = :campaign"
    )
    INSERT_CAMPAIGN = "INSERT INTO campaign VALUES (:campaign, :name, :secret, :now, 1, :config)"
    DELETE_CAMPAIGN = "DELETE FROM campaign WHERE id = :campaign"
    READ_EARLIER = (  # the order of the tables is kept: each key is looked up in the index
        "SELECT dedupe, seq FROM json_each(:keys) AS j CROSS JOIN recipient"
        " ON campaign_id = :campaign AND dedupe = j.value"
    )
    READ_VALUE = "SELECT value FROM memory WHERE name = :name"
    WRITE_VALUE = "INSERT OR REPLACE INTO memory VALUES (:name, :value)"
    NAMED = "name IN (SELECT value FROM json_each(:names))"

    def insert_recipients(self, rows: Sequence[RecipientValues]) -> Script[int]:
        inserted: int = yield Many(
            f"INSERT INTO recipient VALUES ({CAMPAIGN}, ?, ?, ?, ?, ?, ?) ON CONFLICT (campaign_id, dedupe) DO NOTHING",  # noqa: S608
            rows,
        )
        return inserted

    def insert_campaign(self, name: str, secret: str, config: str) -> Script[None]:
        yield from super().insert_campaign(name, secret, config)
        yield Many(REMEMBER, [(IN_USE, str(self.run))])

    def refuse_older(self) -> Script[None]:
        yield Statement(f"PRAGMA user_version = {VERSION}", {})  # it belongs to the transaction

    def insert_deliveries(self, states: Mapping[int, tuple[RowState, str]]) -> Script[None]:
        yield Many(
            f"INSERT INTO delivery (campaign_id, batch_no, seq, state, reply) VALUES ({CAMPAIGN}, ?, ?, ?, ?)",  # noqa: S608
            [(batch_number(row), row, state, reply) for row, (state, reply) in states.items()],
        )

    def suppress_rows(self, rows: Mapping[int, tuple[RowState, str]]) -> Script[Mapping[int, RowState]]:
        changed: dict[int, RowState] = {}
        for row, (state, reason) in rows.items():
            values = {"batch": batch_number(row), "row": row, "state": state, "reply": suppressed_reply(reason)}
            if (yield Statement(_SUPPRESS, values)):
                changed[row] = state
        return changed


def _find_memory() -> Script[Sequence[object]]:
    found: Sequence[object] = yield Statement("SELECT 1 FROM sqlite_master WHERE name = 'memory'", {})
    return found


class SqliteReader(BaseReader):
    """A ledger file opened to be read, also during a run: it takes no lock, and recovers and changes nothing."""

    def __init__(self, path: Path, connection: sqlite3.Connection, campaign: CampaignRow, thread: DaemonThread) -> None:
        """Use `open`."""
        super().__init__(path, campaign.name, SqliteQueries(campaign.run + 1), campaign)
        self._path = path
        self._connection = connection
        self._thread = thread
        self._is_closed = False

    @classmethod
    async def open(cls, path: str | os.PathLike[str], *, name: str | None = None) -> Self:
        """Open the ledger at `path`, of the campaign with this name if one is given.

        Raises:
            LedgerEmpty: there is none, or it holds no campaign yet. LedgerMismatch: it is that of another campaign.
            LedgerError: it is not a ledger, or cannot be read. ConfigError: it is a folder, or no file at all.
        """
        check_type("path", path, str, os.PathLike)
        path = Path(path)
        thread = DaemonThread("asyncsmtp-reader")
        try:
            connection, campaign = await call_in(thread, partial(_open_to_read, path, name))
        except BaseException:
            thread.shutdown()
            raise
        return cls(path, connection, campaign, thread)

    async def aclose(self) -> None:
        """Close the file; a second call does nothing."""
        if not self._is_closed:
            self._is_closed = True
            try:
                await call_in(self._thread, self._connection.close)
            finally:
                self._thread.shutdown()

    async def halted_rows(self) -> frozenset[int]:
        """Return the rows; a ledger of version 1 that was not opened to be written since has no table for them."""
        return await super().halted_rows() if await self._read(_find_memory) else frozenset()

    async def _has_groups(self) -> bool:
        return bool(await self._read(_find_memory)) and await super()._has_groups()

    async def _read(self, script: Callable[[], Script[_T]]) -> _T:
        run = partial(_run_query, self._connection, script, self._queries.run, _wall_clock)
        try:
            return await call_in(self._thread, run)
        except sqlite3.Error as error:
            raise ledger_error(self._path, error) from error


class SqliteLedger(BaseLedger):
    """A `Ledger` in one file, which one process at a time may open.

    Beside the file are `.lock` (stays), `.ballast` (the disk reserve, until it is closed), and SQLite's `-wal` and
    `-shm`.
    """

    read = SqliteReader.open

    @classmethod
    async def open(
        cls,
        path: str | os.PathLike[str],
        *,
        name: str,
        from_domain: str,
        fingerprint: Fingerprint | None = None,
        in_doubt: InDoubt = InDoubt.HOLD,
        suppressions: Sequence[str | os.PathLike[str]] = (),
        clock: Callable[[], int] = _wall_clock,
        executor: SerialExecutor | None = None,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> Self:
        """Open the ledger at `path`, or create it; rows that an earlier run left past their mark become in doubt.

        If it is cancelled, the file is closed a moment later.

        Args:
            name: the campaign's.
            from_domain: of the Message-IDs, used when the recipients are loaded.
            fingerprint: digests of everything that must stay the same, by names that users know, or a function that
                returns them, which is called when they are needed, perhaps in a thread; None: not compared.
            suppressions: paths of suppression lists.
            clock: microseconds since 1970, UTC; called in the executor.
            executor: does all work with the file; it is not shut down. None: a daemon thread of the ledger's own.
            monotonic: a clock in seconds that is never set. sleep: sleeps for seconds. Both are called in the executor.
        Raises:
            LedgerBusy: another process has it open.
            LedgerMismatch: it is another campaign's, or the fingerprint changed.
            LedgerError: it cannot be used; the message says why and what to do. Nothing was changed.
            SuppressionError: a list cannot be used.
        """
        check_type("path", path, str, os.PathLike)
        check_type("name", name, str)
        check_type("from_domain", from_domain, str)
        check_fingerprint(fingerprint)
        lists = list_paths("suppressions", suppressions)
        parts = fingerprint if fingerprint is None or callable(fingerprint) else dict(fingerprint)
        thread = None
        if executor is None:
            executor = thread = DaemonThread("asyncsmtp-ledger")
        opening = call_in(executor, partial(_open_to_write, Path(path), name, parts, in_doubt, clock))

        def release(found: _OpenFile | None) -> None:
            if found is not None:
                found.resources.close()
            if thread is not None:
                thread.shutdown()

        def abandon(opening: asyncio.Future[_OpenFile]) -> None:
            release(opening.result() if opening.exception() is None else None)

        try:
            found = await asyncio.shield(opening)
        except BaseException:
            opening.add_done_callback(abandon)
            raise
        counts = CountsTracker(found.start.counts)
        writer = SqliteWriter(
            found.path,
            found.connection,
            SqliteQueries(found.start.run),
            executor=executor,
            clock=clock,
            lock=found.lock,
            free_disk_space=found.reserve.free,
            on_durable=counts.apply,
            on_closed=partial(release, found),
            monotonic=monotonic,
            sleep=sleep,
        )

        def run_in_executor(function: Callable[[], _T]) -> asyncio.Future[_T]:
            return call_in(executor, function)

        ledger = cls(
            found.path,
            name,
            writer,
            found.start,
            counts=counts,
            parts=parts or {},
            from_domain=from_domain,
            suppressions=lists,
            run_in_thread=run_in_executor,
        )
        await ledger._open_suppressions()
        return ledger

    async def load(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        counts = await super().load(recipients)
        await self._store.read(self._write_stamp)
        return counts

    async def aclose(self) -> None:
        reported = self._queue.failure
        try:
            if isinstance(self._store, SqliteWriter) and self.loaded and not self._queue.closing:
                with suppress(LedgerError):
                    await self.flush()
                    self._store.final_counts = self._counts.counts
        finally:
            await super().aclose()
        if reported is None and self._queue.failure is not None:
            raise self._queue.failure

    def _write_stamp(self) -> Script[None]:
        campaign = yield from self._queries.read_campaign()
        if campaign is not None and isinstance(self._store, SqliteWriter):
            self._store.begin_stamp(Stamp(campaign.created_us, 0))


@dataclass(frozen=True, slots=True)
class _OpenFile:
    """A file that this process may write; `resources` are its lock, its disk reserve and the connection."""

    path: Path
    lock: LedgerLock
    reserve: DiskReserve
    connection: sqlite3.Connection
    start: RunStart
    resources: ExitStack


def _open_to_write(
    path: Path, name: str, parts: Fingerprint | None, policy: InDoubt, clock: Callable[[], int]
) -> _OpenFile:
    """Check the place, lock, check the content and recover, in this order; blocks. Arguments as in `SqliteLedger.open`.

    Raises:
        LedgerError: nothing is open, and nothing was changed.
    """
    _refuse_other_things(path)
    refuse_network(path)
    if path.is_symlink():  # the lock is beside the file itself: two links to it are one ledger
        path = path.resolve()
    with ExitStack() as undo:
        lock_path = path.with_name(f"{path.name}.lock")
        is_accepted = is_empty_lock(lock_path)
        lock = LedgerLock.acquire(lock_path)
        undo.callback(lock.release)
        try:
            if not path.exists():
                check_stamp(path, lock.stamp, None, 0)
            found_log, modified = has_log(path), read_modified(path)
            connection = open_file(path, modified=modified)
            undo.callback(connection.close)
            campaign = _run_query(connection, SqliteQueries(0).read_campaign, 0, clock)
            counts = read_end(connection, modified)  # None: the rows are to be counted
            if counts is not None and lock.stamp is not None:
                written: object = lock.stamp.written_us  # nothing was written since, and nothing is lost
            else:
                ((written,),) = connection.execute("SELECT coalesce(max(updated_us), 0) FROM delivery")
            if not isinstance(written, int):
                raise LedgerError(f"{path}: a time in it is damaged: restore a copy of it")
            if lock.stamp is not None:
                check_stamp(path, lock.stamp, None if campaign is None else campaign.created_us, written)
            elif not is_accepted:
                check_log(path, connection, has_log=found_log)
            if campaign is not None and lock.stamp is None:
                # Before anything else may be refused: then SQLite closes the file and removes the log.
                lock.write_stamp(Stamp(campaign.created_us, written))
            if campaign is not None:
                _check_name(path, campaign, name)
            changes = ""
            if campaign is not None and parts is not None:
                now = read_fingerprint(parts)
                with transaction(connection):
                    unload = partial(unload_changed, SqliteQueries(campaign.run), campaign, now)
                    if changes := _run_query(connection, unload, campaign.run, clock):
                        lock.write_stamp(None)  # before the commit: a ledger without rows is then no lost one
                campaign = None if changes else campaign
            reserve = DiskReserve(path.with_name(f"{path.name}.ballast"))
            undo.callback(reserve.free)
            try:
                reserve.allocate()
            except OSError as error:
                why = f"there is no space for a ledger ({error.strerror}): free at least 16 MiB"
                if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                    why = f"{path.name}.ballast beside it cannot be replaced ({error.strerror}): remove it"
                raise LedgerError(f"{path}: {why}") from error
            start = RunStart(None, Counts(), 1, Recovery(changes=changes))
            if campaign is not None:
                run = campaign.run + 1
                queries = SqliteQueries(run)
                with transaction(connection):
                    connection.execute("UPDATE campaign SET run = ?", (run,))
                    connection.execute(REMEMBER, (IN_USE, str(run)))
                    repeats = _run_query(connection, partial(upgrade_keys, queries), run, clock)
                    if counts is None or counts[RowState.SENDING] or repeats[0] or policy is InDoubt.RESEND:
                        recovery = _run_query(connection, partial(queries.recover, policy), run, clock)
                        counts = None
                    else:
                        recovery = Recovery(held=counts[RowState.IN_DOUBT])
                report_repeats(path, *repeats)
                connection.execute(_CHECKPOINT)
                if counts is None:
                    counts = _run_query(connection, queries.count_rows, run, clock)
                start = RunStart(campaign, counts, run, recovery)
        except sqlite3.Error as error:
            raise ledger_error(path, error) from error
        except OSError as error:
            raise LedgerError(
                f"{lock.path} cannot be written: {error.strerror}: repair the disk, or make space"
            ) from error
        return _OpenFile(path, lock, reserve, connection, start, undo.pop_all())


def _open_to_read(path: Path, name: str | None) -> tuple[sqlite3.Connection, CampaignRow]:
    _refuse_other_things(path)
    if not path.exists():
        raise LedgerEmpty(f"there is no ledger {path}: the campaign was not begun, or has another name")
    with ExitStack() as undo:
        connection = open_file(path, write=False)
        undo.callback(connection.close)
        try:
            campaign = _run_query(connection, SqliteQueries(0).read_campaign, 0, _wall_clock)
        except sqlite3.Error as error:
            raise ledger_error(path, error) from error
        if campaign is None:
            raise LedgerEmpty(f"{path} holds no campaign yet: its recipients were not loaded to the end")
        if name is not None:
            _check_name(path, campaign, name)
        undo.pop_all()
    return connection, campaign


def _check_name(path: Path, campaign: CampaignRow, name: str) -> None:
    if campaign.name != name:
        raise LedgerMismatch(
            f"{path} is the ledger of the campaign “{safe_text(campaign.name, 80)}”, not of"
            f" “{safe_text(name, 80)}”: give each campaign a ledger of its own"
        )


def _refuse_other_things(path: Path) -> None:
    """Raise ConfigError where there is something that is no file: a folder, a device, a pipe."""
    with suppress(OSError):  # nothing, or what cannot be looked at: opening it says so
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise ConfigError(f"{path} is a folder, not a ledger", "name a file")
        if not stat.S_ISREG(mode):
            raise ConfigError(f"{path} is no regular file, so it cannot be a ledger", "name a file")


def _run_query(
    connection: sqlite3.Connection, script: Callable[[], Script[_T]], run: int, clock: Callable[[], int]
) -> _T:
    return run_script(connection, script(), {"campaign": CAMPAIGN, "run": run, "now": clock()})
