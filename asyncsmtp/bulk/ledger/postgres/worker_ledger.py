"""The ledger of one of several workers of a campaign: rows come by batches that it has taken."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from statistics import median
from typing import Any, Self

from asyncsmtp.bulk.interfaces import ThreadRunner
from asyncsmtp.bulk.ledger import copies
from asyncsmtp.bulk.ledger.base import BaseLedger
from asyncsmtp.bulk.ledger.interfaces import Claim, Counts, InDoubt, Recovery, RowState, Settlement, find_file_row
from asyncsmtp.bulk.ledger.loading import list_paths, report_repeats, upgrade_keys
from asyncsmtp.bulk.ledger.postgres import LISTS_STORED, Database
from asyncsmtp.bulk.ledger.postgres.database_session import (
    LOCK_ATTEMPTS,
    LOCK_DELAY,
    Connection,
    acquire_lock,
    describe_process,
    ledger_error,
    on_hold_message,
    psycopg,
    to_psycopg,
    try_lock,
)
from asyncsmtp.bulk.ledger.postgres.store import TAKE_LEASE, VERSION, PostgresQueries, prepare_tables, read_version
from asyncsmtp.bulk.ledger.postgres.worker_session import (
    CampaignState,
    WorkerObserver,
    WorkerSession,
    connect_worker,
    find_expired,
    free_batches,
    leave,
    limit_transactions,
    monotonic_clock,
    reap,
    register,
    release_batch,
    take_batch,
)
from asyncsmtp.bulk.ledger.postgres.writer import PostgresWriter, run_script
from asyncsmtp.bulk.ledger.queries import CampaignRow, RunStart, Script, Statement, no_statement
from asyncsmtp.bulk.ledger.suppression_list import hash_key
from asyncsmtp.bulk.ledger.transitions import ClaimedRows, CountsTracker, RefusedRow, batch_number, from_microseconds
from asyncsmtp.errors import InvalidArgument, LedgerBusy, LedgerEmpty, LedgerError, check_type

__all__ = ["MIN_LEASE", "WorkerLedger", "check_lease"]

_log = logging.getLogger("asyncsmtp.ledger")

MIN_LEASE = 2.0  # seconds
MIN_COMMITS = 3  # so many commits a lease must have time for
TICK = 0.4  # seconds between two looks at the campaign's state, and at other workers
GATHER = 0.01  # seconds that a commit waits for further marks
EMPTY_DELAY = 0.2  # seconds after which a worker asks again for a batch when there was none
MAX_IDLE = 60.0  # seconds that a worker stays for the next row, where it is to end when there is nothing to do
_DATABASE_CLOCK: Callable[[], int | None] = lambda: None  # noqa: E731

_NEXT = to_psycopg("""
SELECT (SELECT due_us FROM batch WHERE campaign_id = :campaign AND run IS NULL AND NOT done
    ORDER BY due_us, batch_no LIMIT 1),
  EXISTS (SELECT 1 FROM batch WHERE campaign_id = :campaign AND run IS NOT NULL)""")
_COUNT_BATCHES = to_psycopg("SELECT count(*) FROM batch WHERE campaign_id = :campaign AND NOT done")
_FIRST = to_psycopg("SELECT min(run) FROM worker WHERE campaign_id = :campaign AND gone = 0")
_PAUSE = to_psycopg(f"""
UPDATE campaign SET state = {CampaignState.PAUSED:d} WHERE id = :campaign AND state = {CampaignState.RUNNING:d}""")  # noqa: S608
_SUPPRESSED = to_psycopg("SELECT key, reason FROM suppressed WHERE campaign_id = :campaign AND key = ANY(:keys)")
_NEW_ROUND = to_psycopg("UPDATE campaign SET round = :run - 1 WHERE id = :campaign")
_BATCHES_MISSING = to_psycopg("""
SELECT 1 FROM delivery WHERE campaign_id = :campaign AND NOT EXISTS (
  SELECT 1 FROM batch WHERE campaign_id = :campaign) LIMIT 1""")


class WorkerLedger(BaseLedger):
    """A `Ledger` in PostgreSQL of which several processes send the rows, each those of batches that it has taken.

    A batch is taken for as long as one of its rows is claimed. Its rows are sent in the order of the file; the batches
    of all workers together in about that order. See `worker_session` for leases and fences.

    Attributes:
        state_changed: set when another state of the campaign was seen than before.
        resumes_at: after `next_due` has returned None: the time of the first row that is to be tried later.
        leaves_when_idle: whether `next_due` returns None where no row can be sent for a minute.
    """

    _queries: PostgresQueries
    _session: WorkerSession

    @classmethod
    async def open(
        cls,
        url: str,
        *,
        name: str,
        lease: float = 30.0,
        in_doubt: InDoubt = InDoubt.HOLD,
        suppressions: Sequence[str | os.PathLike[str]] = (),
        is_guest: bool = False,
        leaves_when_idle: bool = False,
        keeps_round: bool = False,
        observer: WorkerObserver | None = None,
        clock: Callable[[], int | None] = _DATABASE_CLOCK,
        monotonic: Callable[[], float] = monotonic_clock,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
        run_in_thread: ThreadRunner = asyncio.to_thread,
        warn: Callable[[str], object] = _log.warning,
    ) -> Self:
        """Join the workers of a campaign whose rows are loaded; wait for a database that is away.

        The first of them takes over from runs that are over: rows in doubt that `in_doubt` says so are sent once more.
        It begins a round, unless it is not to: rows that are deferred without a time are tried again.

        Args:
            lease: seconds after which other workers take over the batches of one that commits nothing any more.
            in_doubt: what becomes of the rows past the mark of a worker whose lease this one finds passed.
            suppressions: lists of this host, beside the entries that are in the ledger; those that are there.
            is_guest: for a decision about rows while others send them: without a lease, and without batches.
            keeps_round: begin no round, also where this worker is the first one.
            observer: called at commits, and when this worker fences another one.
            warn: called with a sentence while it waits.
            clock, monotonic, sleep, run_in_thread: as of `PostgresLedger.open`.
        Raises:
            InvalidArgument: the lease is too short. LedgerEmpty: the campaign was not loaded.
            LedgerBusy: a process has the campaign alone. LedgerError: the database cannot be used.
        """
        check_type("url", url, str)
        check_type("name", name, str)
        check_lease(lease)
        database = Database(Database.parse(url).url, name)
        try:
            connection = await connect_worker(database, sleep, warn)
            try:
                await limit_transactions(connection, lease / 2)
                await _check_version(connection, database)
                number = await _find_loaded(connection, database)
                await _join(connection, database, sleep)
                start = await _begin(
                    connection, database, number, lease, in_doubt, clock, is_guest=is_guest, keeps_round=keeps_round
                )
            except BaseException:
                await connection.close()
                raise
        except psycopg.Error as error:
            raise ledger_error(database, error) from error
        session = WorkerSession(
            database,
            connection,
            number,
            start.run,
            clock,
            monotonic=monotonic,
            sleep=sleep,
            lease=lease,
            is_guest=is_guest,
            observer=observer,
        )
        counts = CountsTracker(start.counts)
        ledger = cls(
            database,
            name,
            PostgresWriter(session, PostgresQueries(start.run), on_durable=counts.apply, gather=GATHER),
            start,
            counts=counts,
            parts={},
            from_domain="localhost",
            suppressions=[path for path in list_paths("suppressions", suppressions) if path.exists()],
            run_in_thread=run_in_thread,
        )
        ledger._begin_work(session, in_doubt, leaves_when_idle=leaves_when_idle, is_guest=is_guest)
        await ledger._open_suppressions()
        if not is_guest:
            try:
                await ledger._measure_lease(lease)
            except BaseException:
                await ledger.aclose()
                raise
            ledger._tending = asyncio.create_task(ledger._tend(), name="asyncsmtp: worker")
        return ledger

    def _begin_work(self, session: WorkerSession, in_doubt: InDoubt, *, leaves_when_idle: bool, is_guest: bool) -> None:
        self._session = session
        self._policy = in_doubt
        self._is_guest = is_guest
        self.leaves_when_idle = leaves_when_idle
        self.resumes_at: datetime | None = None
        self.state_changed = asyncio.Event()
        self._seen_state = session.state
        self._ready: deque[Claim] = deque()
        self._left: dict[int, int] = {}  # claimed rows by the batches that this worker has
        self._releases: set[asyncio.Task[None]] = set()
        self._empty_until = 0.0
        self._tending: asyncio.Task[None] | None = None
        self._is_left = False

    async def _measure_lease(self, lease: float) -> None:
        """Refuse a lease that has no time for some commits."""
        times = []
        for _ in range(MIN_COMMITS):
            began = time.perf_counter()
            await self._store.write(no_statement)
            times.append(time.perf_counter() - began)
        if lease < MIN_COMMITS * median(times):
            raise InvalidArgument(
                f"a lease of {lease:g} s is too short: one commit takes {median(times):.2f} s in this database; give"
                f" at least {max(MIN_LEASE, MIN_COMMITS * median(times)):.0f} s"
            )

    # The campaign, and the time.

    @property
    def run(self) -> int:
        """Number of this worker's run."""
        return self._queries.run

    @property
    def parts(self) -> Mapping[str, str]:
        """The fingerprint of the load: name -> digest."""
        return self._get_campaign().parts

    @property
    def state(self) -> CampaignState:
        """State of the campaign, as it was seen last."""
        return self._session.state

    def now(self) -> datetime:
        """Return the database's time, UTC, whatever this machine's clock says."""
        return from_microseconds(self._session.now_us())

    @property
    def observer(self) -> WorkerObserver:
        """The observer that records the events of this worker."""
        return self._session.observer

    async def guard(self, mark: asyncio.Future[None]) -> None:
        """Await a mark; then, if this worker may be fenced meanwhile, that it is not.

        The end of a message's content is written right after this. A process that was frozen with a durable mark wakes
        here, with a lease that may have passed. Then it must be renewed first, which fails where it was fenced.
        """
        await mark
        while self._session.is_stale:
            await self._store.write(no_statement)

    # Batches and their rows.

    async def claim(self, limit: int) -> list[Claim]:
        """Claim up to `limit` rows: released ones, then the next ones of a batch; none for now: an empty list."""
        self._get_campaign()
        async with self._claiming:
            claims = self._claimed.claim_released(limit)
            while not claims and limit > 0:
                if not self._ready and not await self._take():
                    break
                claims = [self._ready.popleft() for _ in range(min(limit, len(self._ready)))]
        return claims

    async def _take(self) -> bool:
        """Take a batch; return whether there was one, perhaps without a row that may be sent."""
        if self._session.state is not CampaignState.RUNNING:
            return False
        now = time.monotonic()
        if now < self._empty_until:
            return False
        taken = await self._store.write(partial(take_batch, self.run, copies=self.has_copies))
        if taken is None:
            self._empty_until = now + EMPTY_DELAY
            return False
        free = await self._select(taken.rows)
        claims = self._claimed.claim(free)
        if claims:
            self._left[taken.number] = len(claims)
            if self.has_copies:
                claims.sort(key=lambda claim: (find_file_row(claim.recipient.row), claim.recipient.row))
            self._ready.extend(claims)
        elif taken.number >= 0:
            self._release_batch(taken.number)
        return True

    async def _select(self, rows: Sequence[tuple[Claim | RefusedRow, RowState]]) -> list[tuple[Claim, RowState]]:
        """Return the rows that may be sent; reject those without a usable address, suppress those on a list."""
        refused = {row.row: (state, row.reason) for row, state in rows if isinstance(row, RefusedRow)}
        if refused:
            await self._store.write(partial(self._queries.reject_rows, refused))
        free = [(row, state) for row, state in rows if isinstance(row, Claim)]
        listed = await self._find_listed(copies.find_keys(free))
        if listed:
            await self._store.write(partial(self._queries.suppress_rows, listed))
        return [row for row in free if row[0].recipient.row not in listed]

    async def _find_listed(self, rows: Mapping[int, tuple[RowState, str]]) -> dict[int, tuple[RowState, str]]:
        if not rows:
            return {}
        stored = await self._store.read(partial(_find_suppressed, rows))
        if not stored and not self._suppressions:
            return {}

        def find_reasons(wanted: set[str]) -> Mapping[str, str]:
            return {**stored, **(self._suppressions.reasons(wanted) if self._suppressions else {})}

        return await self._run_in_thread(partial(copies.find_listed, rows, find_reasons))

    async def _read_list_version(self) -> object:
        return await self.read_value(LISTS_STORED), await super()._read_list_version()

    def settle(self, settlement: Settlement) -> None:
        super().settle(settlement)
        self._count_down(settlement.row)

    def postpone(self, claim: Claim, until: datetime) -> None:
        super().postpone(claim, until)
        self._count_down(claim.recipient.row)

    def _count_down(self, row: int) -> None:
        """Release the batch of a row that is no longer claimed, if it was the last one."""
        batch = batch_number(find_file_row(row))
        self._left[batch] -= 1
        if not self._left[batch]:
            del self._left[batch]
            self._release_batch(batch)

    def _release_batch(self, batch: int) -> None:
        """Release a batch, after everything that is queued about its rows."""
        task = asyncio.create_task(self._write_release(batch), name="asyncsmtp: release a batch")
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _write_release(self, batch: int) -> None:
        with suppress(LedgerError):  # it ends the run by itself
            await self._store.write(partial(release_batch, batch, copies=self.has_copies))

    def stop_waiting(self) -> None:
        """Fail if the database stays away; without this a worker waits for it as long as it takes."""
        self._session.stop_waiting()

    async def free_all(self) -> None:
        """Free the batches of this worker, at the end of a run; other workers take them at once."""
        await self._finish_releases()
        self._claimed = ClaimedRows()
        self._ready.clear()
        self._left.clear()
        await self._store.write(self._free)

    def _free(self) -> Script[None]:
        yield from self._queries.add_recovered((yield from free_batches(self.run, copies=self.has_copies)))

    async def next_due(self) -> datetime | None:
        """Return when to ask for rows again; None: none is left, or with `leaves_when_idle` none for a minute.

        As long as a worker has a batch, its rows may become free.
        """
        await self._finish_releases()
        due_us, is_taken = await self._store.read(_find_next)
        now, self.resumes_at = self.now(), None
        due = None if due_us is None else max(from_microseconds(due_us), now)
        if is_taken:
            soon = now + timedelta(seconds=TICK)
            return soon if due is None else min(due, soon)
        if due is not None and self.leaves_when_idle and due > now + timedelta(seconds=MAX_IDLE):
            self.resumes_at = due
            return None
        return due

    async def count_ready(self) -> int:
        """Return the number of rows that are left, in about: batches are not looked into."""
        ((batches,),) = await self._store.read(_count_batches)
        return int(batches) * 500

    async def counts(self) -> Counts:
        """Return the number of rows in each state, whoever sends them; every row is counted."""
        return await self._store.read(self._queries.count_rows)

    async def flush(self) -> None:
        await self._finish_releases()
        await super().flush()

    async def _finish_releases(self) -> None:
        if self._releases:
            await asyncio.wait([*self._releases])

    # Leases of this worker and of others.

    async def _tend(self) -> None:
        """Renew the lease where nothing else does, look at the campaign's state, and fence workers that are gone."""
        tick = min(TICK, self._session.lease / 6)
        with suppress(LedgerError):  # it ends the run by itself
            while True:
                await asyncio.sleep(tick)
                if self._session.idle_for > self._session.lease / 3:
                    await self._store.write(no_statement)
                asked = self._session.monotonic()
                find = partial(find_expired, self._session.connected_us)
                state, now_us, is_expired = await self._store.read(find)
                self._session.learn(state, now_us, asked)
                if self._session.state is not self._seen_state:  # by this reading, or by a commit before it
                    self.state_changed.set()
                if is_expired:
                    await self._reap()

    async def _reap(self) -> None:
        connected, policy = self._session.connected_us, self._policy

        def script() -> Script[list[tuple[str, list[int]]]]:
            reaped = yield from reap(connected, policy, copies=self.has_copies)
            yield from self._queries.add_recovered([row for _, rows in reaped for row in rows])
            return reaped

        for owner, rows in await self._store.write(script):
            _log.warning("%s committed nothing for its lease: %d rows are in doubt", owner, len(rows))
            self._session.observer.on_reap(len(rows))
            self._empty_until = 0.0
            self._has_kept_recovered = self._has_kept_recovered and not rows

    # Outcomes that are posted: one worker at a time does so, for all of them.

    async def read_outcomes(self, after: str = "", limit: int = 500) -> Sequence[tuple[str, str]]:
        return await super().read_outcomes(after, limit) if await self._posts() else []

    async def count_outcomes(self) -> int:
        return await super().count_outcomes() if await self._posts() else 0

    async def _posts(self) -> bool:
        """Return whether this worker is the one that posts: of those that are here, the one that came first."""
        ((first,),) = await self._store.read(_find_first)
        return bool(first == self.run)

    async def pause(self) -> CampaignState:
        """Pause the campaign for all workers, if it is running; return its state then."""
        await self._store.write(_write_pause)
        return await self.refresh_state()

    async def refresh_state(self) -> CampaignState:
        """Read the campaign's state now, and return it; `state_changed` is about another one than this."""
        asked = self._session.monotonic()
        state, now_us, _ = await self._store.read(partial(find_expired, 0))
        self._session.learn(state, now_us, asked)
        self._seen_state = self._session.state
        return self._seen_state

    async def aclose(self) -> None:
        """Write what is queued, free the batches, and close the ledger; a second call does nothing."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.wait([self._tending])
        await self._finish_releases()
        if not self._is_left and not self._is_guest and self._queue.failure is None:
            self._is_left = True
            with suppress(LedgerError):  # the next line raises it
                await self._store.write(self._leave)
        await super().aclose()

    def _leave(self) -> Script[None]:
        doubts = yield from leave(self.run, copies=self.has_copies)
        yield from self._queries.add_recovered(doubts)


def check_lease(lease: float) -> None:
    """Raise InvalidArgument: a lease is shorter than any database needs."""
    check_type("lease", lease, int, float)
    if not lease >= MIN_LEASE:
        raise InvalidArgument(f"a lease of {lease:g} s is too short: give at least {MIN_LEASE:g} s")


def _find_next() -> Script[tuple[int | None, bool]]:
    ((due_us, is_taken),) = yield Statement(_NEXT, {})
    return due_us, is_taken


def _count_batches() -> Script[Any]:
    return (yield Statement(_COUNT_BATCHES, {}))


def _find_first() -> Script[Any]:
    return (yield Statement(_FIRST, {}))


def _write_pause() -> Script[None]:
    yield Statement(_PAUSE, {})


def _find_suppressed(rows: Mapping[int, tuple[RowState, str]]) -> Script[dict[str, str]]:
    """Return the reason of each key of these rows that is among the ledger's suppressed ones, itself or its domain."""
    names: dict[str, list[str]] = {}
    for _, joined in rows.values():
        for key in copies.split_keys(joined):
            for listed in (hash_key(key), f"@{key.rpartition('@')[2]}"):
                names.setdefault(listed, []).append(key)
    found = yield Statement(_SUPPRESSED, {"keys": [*names]})
    return {key: reason for listed, reason in found for key in names[listed]}


async def _check_version(connection: Connection, database: Database) -> None:
    """Upgrade the tables of an older version. Raises LedgerEmpty: there are none."""
    version = await read_version(connection, database)
    if not version:
        raise LedgerEmpty(f"there is no ledger in {database}: load the campaign first, or correct the URL")
    if version < VERSION:
        await prepare_tables(connection, database)


async def _find_loaded(connection: Connection, database: Database) -> int:
    found = await connection.execute(
        "SELECT id, held, config IS NOT NULL FROM campaign WHERE name = %s", (database.campaign,)
    )
    number, held, is_loaded = await found.fetchone() or (0, None, False)
    if held is not None:
        raise LedgerError(on_hold_message(database.campaign, held))
    if not is_loaded:
        raise LedgerEmpty(f"{database} holds no recipients yet: load the campaign first")
    return int(number)


async def _join(connection: Connection, database: Database, sleep: Callable[[float], Awaitable[object]]) -> None:
    """Acquire the lock together with other workers. Raises LedgerBusy: another process has it alone."""
    for _ in range(LOCK_ATTEMPTS):
        if await try_lock(connection, database, shared=True):
            return
        await sleep(LOCK_DELAY)
    await acquire_lock(connection, database, sleep)  # it may be free by now
    raise LedgerBusy(f"the campaign “{database.campaign}” was open in another process: run the same command again")


async def _begin(
    connection: Connection,
    database: Database,
    number: int,
    lease: float,
    policy: InDoubt,
    clock: Callable[[], int | None],
    *,
    is_guest: bool,
    keeps_round: bool,
) -> RunStart:
    """Begin a run of this campaign; the first worker recovers what runs have left that are over."""
    stamp: dict[str, object] = {"campaign": number, "now": clock()}
    recovery, repeats = Recovery(), (0, list[Any]())
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM campaign WHERE id = %s FOR UPDATE", (number,))
        row = await (await connection.execute(TAKE_LEASE, {**stamp, "owner": describe_process()})).fetchone()
        run = int(row[0]) if row else 0
        queries = PostgresQueries(run)
        stamp |= {"run": run}
        if not is_guest and not await run_script(connection, register(describe_process(), lease), stamp):
            repeats = await run_script(connection, upgrade_keys(queries), stamp)
            if not keeps_round:
                await connection.execute(_NEW_ROUND, stamp)
            recovery = await run_script(connection, queries.recover(policy), stamp)
            await run_script(connection, queries.free_batches(), stamp)
        campaign = await run_script(connection, queries.read_campaign(), stamp)
        assert isinstance(campaign, CampaignRow), "it was loaded a moment ago, and its row is locked"
    report_repeats(database, *repeats)
    return RunStart(replace(campaign, run=run), Counts(), run, recovery)
