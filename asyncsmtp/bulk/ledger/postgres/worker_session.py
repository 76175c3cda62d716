"""Coordination of the workers of one campaign by its database: leases, fences, batches.

Several workers share the lock of a campaign. Each has a row of its own in the table `worker`, and each of its
transactions updates that row, if it is not fenced: so whatever a worker commits is committed by a worker that is still
one, and every commit renews its lease, without a further statement. A worker without a commit for the length of its
lease is fenced by any other: its rows past the mark are in doubt, its batches are free. It may still be there, only
frozen or cut off. What it commits later then fails, before another mark; and before the end of a message whose mark is
durable, it looks at its own clock (`WorkerSession.is_stale`).

The lease belongs to the worker's row and not to the campaign, unlike in the first design: workers may have been started
with different ones, and who fences another must use that one's.

*Clocks.* All times are the database's. A worker measures only durations, by a clock that is never set and that goes on
while the machine is suspended.

*Locks.* A worker that is frozen, or cut off, in the middle of a transaction has locks in the database, and its
connection may seem alive for ever. The server ends such a session (`limit_transactions`), and who fences others passes
over rows that are locked: otherwise a worker that stands still would hold up all the others.

*Outages.* While the database is away nobody can renew a lease. Nobody fences another until that one's lease has passed
since its own connection was made, and since the database was started: then each had the time to come back.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from enum import IntEnum
from typing import Any, NamedTuple, TypeVar

from asyncsmtp.bulk.ledger.interfaces import COPIES_PER_ROW, Claim, InDoubt, RowState
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.database_session import (
    NOW,
    Connection,
    DatabaseSession,
    LeaseLost,
    connect,
    is_connection_lost,
    ledger_error,
    on_hold_message,
    one_line,
    psycopg,
    to_psycopg,
    try_lock,
)
from asyncsmtp.bulk.ledger.queries import Script, Statement
from asyncsmtp.bulk.ledger.transitions import COPY_BATCH, RefusedRow, to_claim
from asyncsmtp.errors import LedgerError

__all__ = [
    "CampaignState",
    "Fenced",
    "TakenBatch",
    "WorkerObserver",
    "WorkerSession",
    "connect_worker",
    "find_expired",
    "free_batches",
    "leave",
    "limit_transactions",
    "monotonic_clock",
    "reap",
    "register",
    "release_batch",
    "take_batch",
]

_T = TypeVar("_T")
_log = logging.getLogger("asyncsmtp.ledger")

CONNECT_DELAYS = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds before each further attempt to connect at the start
COMMIT_TIMEOUT = 5.0  # seconds to wait for a COMMIT of a connection that is lost, before it is looked at again
WARN_EVERY = 12  # attempts to connect, a minute
MAX_EMPTY_BATCHES = 20  # without a row to send, that one transaction looks at
_STARTING = ("starting up", "shutting down", "recovery", "not yet accepting", "too many", "connection slots")


class CampaignState(IntEnum):
    """State of a whole campaign, for its workers. The numbers are stored."""

    RUNNING = 0
    PAUSED = 1
    CANCELLED = 2

    def __str__(self) -> str:
        return self.name.lower()


class Fenced(LeaseLost):
    """This worker was away for longer than its lease: its batches are other workers' now."""


def monotonic_clock() -> float:
    """Return seconds of a clock that is never set, and that goes on while the machine is suspended."""
    if (clock := getattr(time, "CLOCK_BOOTTIME", None)) is not None:
        return time.clock_gettime(clock)
    return time.monotonic()


_COPIES = f"""d.batch_no >= {COPY_BATCH} + b.batch_no * {COPIES_PER_ROW}
  AND d.batch_no < {COPY_BATCH} + (b.batch_no + 1) * {COPIES_PER_ROW}"""


def _for_copies(template: str) -> tuple[str, str]:
    """Return a statement about the rows `d` of a batch `b`: without copies, and with them, for which it is slower."""
    of_batch = "d.batch_no = b.batch_no"
    return tuple(to_psycopg(template.replace("{of_batch}", each)) for each in (of_batch, f"({of_batch} OR {_COPIES})"))  # type: ignore[return-value]


_STATE = "(SELECT state FROM campaign WHERE id = :campaign)"
_RENEW = to_psycopg(f"""
UPDATE worker SET commits = :number, at_us = {NOW} WHERE campaign_id = :campaign AND run = :run AND gone = 0
AND commits = :number - 1 AND (SELECT held IS NULL FROM campaign WHERE id = :campaign) RETURNING at_us, {_STATE}""")  # noqa: S608
_READ_WORKER = to_psycopg("""
SELECT gone, commits, held FROM worker JOIN campaign ON id = campaign_id
WHERE campaign_id = :campaign AND run = :run""")
_LOCK_WORKER = to_psycopg("SELECT 1 FROM worker WHERE campaign_id = :campaign AND run = :run FOR UPDATE")
_REGISTER = to_psycopg(f"""
INSERT INTO worker (campaign_id, run, owner, lease_us, began_us, at_us)
VALUES (:campaign, :run, :owner, :lease_us, {NOW}, {NOW})""")  # noqa: S608
_LIVE = "SELECT count(*) FROM worker WHERE campaign_id = :campaign AND gone = 0"

_TAKE = to_psycopg(f"""
UPDATE batch SET run = :run WHERE campaign_id = :campaign AND batch_no = (
  SELECT batch_no FROM batch WHERE campaign_id = :campaign AND run IS NULL AND NOT done AND due_us <= {NOW}
  ORDER BY due_us, batch_no LIMIT 1 FOR UPDATE SKIP LOCKED)
RETURNING batch_no, (SELECT round FROM campaign WHERE id = :campaign)""")  # noqa: S608
_MAY_SEND = f"""(state = {RowState.PENDING:d} AND (next_us IS NULL OR next_us <= {NOW})
OR state = {RowState.DEFERRED:d} AND (next_us <= {NOW} OR next_us IS NULL AND epoch <= :round))"""
_ROWS_OF = """
SELECT d.seq, address, message_id, vars, attempts, d.state, first_us, epoch
FROM (SELECT * FROM delivery WHERE campaign_id = :campaign AND batch_no >= :first AND batch_no < :end
  AND {may_send}) AS d JOIN recipient USING (campaign_id, batch_no, seq) ORDER BY d.batch_no, d.seq"""
_ROWS = to_psycopg(_ROWS_OF.format(may_send=_MAY_SEND))
_LOCK_BATCH = to_psycopg("SELECT run FROM batch WHERE campaign_id = :campaign AND batch_no = :batch FOR UPDATE")
# Rows that are deferred without a time belong to the next round, which opens the batch again.
_RELEASE = _for_copies(f"""
UPDATE batch AS b SET run = NULL, due_us = coalesce(t.due, 0), done = t.due IS NULL FROM (
  SELECT min(coalesce(next_us, 0)) AS due FROM delivery AS d, (SELECT :batch::integer AS batch_no) AS b
  WHERE d.campaign_id = :campaign AND {{of_batch}}
  AND (d.state = {RowState.PENDING:d} OR d.state = {RowState.DEFERRED:d}
    AND (next_us IS NOT NULL OR epoch <= (SELECT round FROM campaign WHERE id = :campaign)))) AS t
WHERE b.campaign_id = :campaign AND b.batch_no = :batch AND b.run = :run""")  # noqa: S608

_EXPIRED = f"""campaign_id = :campaign AND gone = 0 AND run <> :run AND at_us < {NOW} - lease_us
AND lease_us < :connected_us
AND lease_us < {NOW} - (extract(epoch FROM pg_postmaster_start_time()) * 1000000)::bigint"""
_FIND_EXPIRED = to_psycopg(f"""
SELECT {_STATE}, {NOW}, EXISTS (SELECT 1 FROM worker WHERE {_EXPIRED})""")  # noqa: S608
_FENCE = to_psycopg(f"""
UPDATE worker SET gone = 2 WHERE campaign_id = :campaign AND run = ANY(ARRAY(
  SELECT run FROM worker WHERE {_EXPIRED} ORDER BY run FOR UPDATE SKIP LOCKED)) RETURNING run, owner""")  # noqa: S608
_UNANSWERED = "the run ended before the relay answered"  # as `Queries.keep_recovered` finds it
_BATCHES_OF = """FROM batch AS b WHERE b.campaign_id = :campaign AND b.run = :dead AND d.campaign_id = b.campaign_id
AND {of_batch}"""
# The epoch stays that of the mark: a reply that the worker still receives settles its own doubt.
_DOUBT = _for_copies(f"""
UPDATE delivery AS d SET state = {RowState.IN_DOUBT:d}, doubts = doubts + 1, code = NULL, status = NULL,
reply = '{_UNANSWERED}', updated_us = greatest(coalesce(updated_us, 0), {NOW}) {_BATCHES_OF}
AND d.state = {RowState.SENDING:d} AND d.epoch = :dead RETURNING d.seq""")  # noqa: S608
_RESEND = _for_copies(f"""
UPDATE delivery AS d SET state = {RowState.PENDING:d}, epoch = :run,
updated_us = greatest(coalesce(updated_us, 0), {NOW}) {_BATCHES_OF}
AND d.state = {RowState.IN_DOUBT:d} AND d.epoch = :dead AND doubts <= 1 AND reply = '{_UNANSWERED}'""")  # noqa: S608
_FREE = to_psycopg("UPDATE batch SET run = NULL, due_us = 0 WHERE campaign_id = :campaign AND run = :dead")
_LEAVE = to_psycopg("UPDATE worker SET gone = 1 WHERE campaign_id = :campaign AND run = :run")


class WorkerObserver:
    """An observer of the events of a worker, such as for metrics; by default it does nothing."""

    def on_commit(self, seconds: float) -> None:
        """Take the duration of a transaction, with the outage of the database in it if there was one."""

    def on_reap(self, rows: int) -> None:
        """Take the number of rows that are in doubt, since this worker has fenced another one."""

    def on_fenced(self) -> None:
        """Take that another worker has fenced this one."""

    def on_rate_wait(self, seconds: float) -> None:
        """Take for how long rates let a message wait that was ready to begin."""


class WorkerSession(DatabaseSession):
    """One worker's session with its database; used by one task at a time.

    Args:
        lease: seconds. is_guest: a process that only decides about rows: it is never fenced, and takes no batch.
        observer: called at each commit.
    Attributes:
        state: of the campaign, as of the last commit or reading.
        connected_at: when the connection was made, by the monotonic clock.
    """

    def __init__(
        self, *args: Any, lease: float, is_guest: bool = False, observer: WorkerObserver | None = None, **settings: Any
    ) -> None:
        super().__init__(*args, **settings)
        self.observer = observer or WorkerObserver()
        self._waits_for_ever = True
        self.lease = lease
        self.state = CampaignState.RUNNING
        self.connected_at = self._monotonic()
        self.renewed_at = self.connected_at
        self._began = self.connected_at
        self._offset_us = 0
        self._is_guest = is_guest

    @property
    def is_stale(self) -> bool:
        """True if the last commit is so long ago that another worker may have fenced this one."""
        return self._monotonic() - self.renewed_at > self.lease

    @property
    def idle_for(self) -> float:
        """Seconds since the last commit."""
        return self._monotonic() - self.renewed_at

    @property
    def connected_us(self) -> int:
        """Microseconds since the connection was made."""
        return int((self._monotonic() - self.connected_at) * 1_000_000)

    def monotonic(self) -> float:
        """Return the time of this machine's clock that is never set."""
        return self._monotonic()

    def now_us(self) -> int:
        """Return the database's time, by this machine's monotonic clock: microseconds since 1970."""
        return int(self._monotonic() * 1_000_000) + self._offset_us

    def stop_waiting(self) -> None:
        """From now on, fail if the database stays away, as a run that has a campaign alone does."""
        self._waits_for_ever = False

    def learn(self, state: int, now_us: int, at: float) -> None:
        """Take the campaign's state and the time from an answer of the database; it was asked `at` that time."""
        self.state = CampaignState(state)
        self._offset_us = now_us - int(at * 1_000_000)

    async def write(self, work: Callable[[Connection], Awaitable[_T]], *, timeout: float | None = None) -> _T:
        asked = time.perf_counter()
        result = await super().write(work, timeout=timeout)
        self.observer.on_commit(time.perf_counter() - asked)
        self.renewed_at = self._began  # not the end of the commit: the database may have written its time before
        return result

    async def _check_lease(self, number: int) -> None:
        if self._is_guest:
            return
        self._began = self._monotonic()
        found = await self._connection.execute(_RENEW, {**self.stamp, "number": number})
        if (row := await found.fetchone()) is not None:
            self.learn(row[1], row[0], self._began)
            return
        gone, _, held = await self._read_worker()
        raise LeaseLost(on_hold_message(self.database.campaign, held)) if held and not gone else _fenced(self.database)

    async def _read_worker(self) -> tuple[int, int, str | None]:
        row = await (await self._connection.execute(_READ_WORKER, self.stamp)).fetchone()
        return (2, 0, None) if row is None else (row[0], row[1], row[2])

    async def _lock(self) -> bool:
        self.connected_at = self._monotonic()
        await limit_transactions(self._connection, self.lease / 2)
        return await try_lock(self._connection, self.database, shared=True) and await self._wait_for_commit()

    async def _wait_for_commit(self) -> bool:
        """Wait until a transaction of the connection that was lost has ended; return whether it has, in time.

        The database may still be in the middle of its COMMIT, and has then locked this worker's row. (A run that has
        the campaign alone waits for its lock, which that session has.) `commits` would still be the old number.
        """
        if self._is_guest:
            return True
        try:
            async with self._connection.transaction():
                await self._connection.execute(f"SET LOCAL lock_timeout = {int(COMMIT_TIMEOUT * 1000)}")
                await self._connection.execute(_LOCK_WORKER, self.stamp)
        except psycopg.errors.LockNotAvailable:
            return False
        return True

    async def _is_durable(self, number: int) -> bool:
        if self._is_guest:
            raise LedgerError(f"{self.database} was away: run the same command again")
        gone, commits, _ = await self._read_worker()
        if gone:
            raise _fenced(self.database)
        if commits < self._commits:
            await self._hold()
        return commits == number


def _fenced(database: Database) -> Fenced:
    return Fenced(
        f"this worker of “{database.campaign}” was away for longer than its lease: other workers have its batches, and"
        " what it had sent without a reply is in doubt"
    )


async def limit_transactions(connection: Connection, seconds: float) -> None:
    """Have the server end this session if it is idle within a transaction for so long."""
    await connection.execute(f"SET idle_in_transaction_session_timeout = {int(seconds * 1000)}")


async def connect_worker(
    database: Database, sleep: Callable[[float], Awaitable[object]], warn: Callable[[str], object] = _log.warning
) -> Connection:
    """Connect, as soon as the database answers.

    Raises:
        LedgerError: it refuses, or a pooler is between that does not keep sessions.
    """
    attempts = 0
    while True:
        try:
            connection = await connect(database, write=True)
            break
        except psycopg.Error as error:
            if not _is_away(error):
                raise ledger_error(database, error) from error
            delay = CONNECT_DELAYS[min(attempts, len(CONNECT_DELAYS) - 1)]
            if not attempts % WARN_EVERY:
                warn(f"{database} is away: this worker waits for it ({one_line(error)})")
            attempts += 1
            await sleep(delay)
    if attempts:
        warn(f"{database} is back")
    try:
        await _refuse_pooler(connection, database)
    except BaseException:
        await connection.close()
        raise
    return connection


def _is_away(error: psycopg.Error) -> bool:
    """Return whether no server answered, or one that starts or ends; not one that refuses this user."""
    text = str(error)
    return is_connection_lost(error) and ("FATAL" not in text or any(word in text for word in _STARTING))


async def _refuse_pooler(connection: Connection, database: Database) -> None:
    """Refuse a pooler that gives a session's transactions to different servers, such as PgBouncer in transaction mode.

    The lock and the settings of a session would then be another one's. A pooler is known by the process number that it
    invents. In its session mode two open sessions always have two servers; in transaction mode an idle one has none.
    """
    if (number := await _backend(connection)) == connection.info.backend_pid:
        return
    other = await connect(database, write=True)
    try:
        async with other.transaction():
            shares = await _backend(other) == number or await _backend(connection) != number
    finally:
        await other.close()
    if shares:
        raise LedgerError(
            f"{database} is behind a pooler in transaction mode, which keeps no sessions: name the database itself, or"
            " set pool_mode = session for this user"
        )


async def _backend(connection: Connection) -> int:
    row = await (await connection.execute("SELECT pg_backend_pid()")).fetchone()
    return int(row[0]) if row else 0


# Scripts, each within a transaction that renews the lease of the worker which runs it.


def register(owner: str, lease: float) -> Script[int]:
    """Add this worker; return the number of other workers that are here, or seem to be.

    Registrations of one campaign come one after the other: the caller has locked its row.
    """
    ((live,),) = yield Statement(to_psycopg(_LIVE), {})
    yield Statement(_REGISTER, {"owner": owner, "lease_us": int(lease * 1_000_000)})
    return int(live)


class TakenBatch(NamedTuple):
    """A batch that this worker has, with those of its rows that may be sent now; `number` -1: look again."""

    number: int
    rows: list[tuple[Claim | RefusedRow, RowState]]


def take_batch(run: int, *, copies: bool) -> Script[TakenBatch | None]:
    """Take the next free batch that is due, with its rows; None: there is none."""
    for _ in range(MAX_EMPTY_BATCHES):
        taken = yield Statement(_TAKE, {})
        if not taken:
            return None
        ((batch, this_round),) = taken
        rows: list[Any] = yield Statement(_ROWS, {"first": batch, "end": batch + 1, "round": this_round})
        if copies:
            first = COPY_BATCH + batch * COPIES_PER_ROW
            rows += yield Statement(_ROWS, {"first": first, "end": first + COPIES_PER_ROW, "round": this_round})
        if rows:
            return TakenBatch(batch, [to_claim(run, columns) for columns in rows])
        yield from release_batch(batch, copies=copies)
    return TakenBatch(-1, [])


def release_batch(batch: int, *, copies: bool) -> Script[None]:
    """Free a batch of which no row is claimed: it is due when the first of its rows is, or done.

    Its row is locked first. A decision that makes rows pending locks it as well, before the rows, so that it is seen
    here, or opens the batch again after this.
    """
    yield Statement(_LOCK_BATCH, {"batch": batch})
    yield Statement(_RELEASE[copies], {"batch": batch})


def find_expired(connected_us: int) -> Script[tuple[int, int, bool]]:
    """Return the campaign's state, the time, and whether a worker's lease has passed, so that `reap` is needed."""
    ((state, now, expired),) = yield Statement(_FIND_EXPIRED, {"connected_us": connected_us})
    return state, now, expired


def reap(connected_us: int, policy: InDoubt, *, copies: bool) -> Script[list[tuple[str, list[int]]]]:
    """Fence the workers whose lease has passed; return the owner of each, and its rows that are in doubt now."""
    found = []
    for run, owner in (yield Statement(_FENCE, {"connected_us": connected_us})):
        found.append((str(owner), (yield from free_batches(run, policy, copies=copies))))
    return found


def leave(run: int, *, copies: bool) -> Script[list[int]]:
    """End as a worker: free its batches; return its rows past the mark, which are in doubt."""
    doubts = yield from free_batches(run, copies=copies)
    yield Statement(_LEAVE, {})
    return doubts


def free_batches(dead: int, policy: InDoubt = InDoubt.HOLD, *, copies: bool) -> Script[list[int]]:
    """Free the batches of a worker that sends nothing any more; return its rows past the mark: they are in doubt."""
    values = {"dead": dead}
    doubts = [row for (row,) in (yield Statement(_DOUBT[copies], values))]
    if doubts and policy is InDoubt.RESEND:
        yield Statement(_RESEND[copies], values)
    yield Statement(_FREE, values)
    return doubts
