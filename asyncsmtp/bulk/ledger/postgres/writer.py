"""Writer of a PostgreSQL ledger: one task that uses the session and commits in groups."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, TypeAlias, TypeVar

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres.database_session import (
    ANSWER_TIMEOUT,
    NOW,
    Connection,
    DatabaseSession,
    ledger_error,
    psycopg,
    to_psycopg,
)
from asyncsmtp.bulk.ledger.queries import Many, Queries, Script, Statement
from asyncsmtp.bulk.ledger.transitions import BATCH_SIZE, Transition, TransitionValues, split_into_groups
from asyncsmtp.bulk.ledger.write_queue import Call, WriteQueue, reject, resolve, select_transitions
from asyncsmtp.errors import LedgerError, SMTPError

__all__ = ["Copy", "InTransaction", "PostgresWriter", "run_script"]

GATHER_STEP = 0.001  # seconds after which to look again whether a group is complete

_T = TypeVar("_T")
_Work: TypeAlias = Callable[[Connection], Awaitable[_T]]
_Stamp: TypeAlias = Mapping[str, object]


class InTransaction(NamedTuple):
    """A step of a script that uses the connection itself, within the transaction that the script is in."""

    function: Callable[[Connection], Awaitable[object]]


class PostgresWriter:
    """The `Store` of a ledger in PostgreSQL.

    The next transaction takes whatever was queued during the last one (see `WriteQueue`). The round trip to the server
    makes the groups large enough, so it waits for nothing else. While the database is away everything stays in the
    queue, in order, and no mark is done, so no further message passes the point of no return. The ledger fails only
    when the database stays away, or another process has the campaign.

    After a failure, the replies to rows that this run had marked are written once more, at once and when the ledger is
    closed. That is a compare-and-set on state and run, so it cannot change a row that another run or a person has
    changed since.

    Args:
        session: owned by the writer from now on.
        on_durable: called with the transitions of each commit.
        gather: seconds to wait at most, after the first transition of a group, for those of the other sessions; no
            longer than two commits take.
    Attributes:
        queue: what is to be written.
    """

    def __init__(
        self,
        session: DatabaseSession,
        queries: Queries,
        *,
        on_durable: Callable[[Sequence[Transition]], None],
        gather: float = 0.0,
    ) -> None:
        self.queries = queries
        self._session = session
        self._gather = gather
        self._expected = 0.0  # transitions of a commit, as the last ones were
        self._commit_time = 0.0
        self._wake = asyncio.Event()
        self.queue = WriteQueue(session.database, self._wake.set, on_durable)
        self._task = asyncio.create_task(self._run(), name="asyncsmtp-ledger")

    async def read(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script that changes nothing, after everything that was queued before."""
        return await self._call(self._session.read, script)

    async def write(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script as one transaction, after everything that was queued before; if cancelled, it still runs."""
        return await self._call(self._session.write, script)

    async def step(self, script: Callable[[], Script[_T]]) -> _T:
        """Run one step of a load: it is not run again."""
        return await self._call(self._session.step, script)

    async def rollback(self) -> None:
        """Roll back the transaction that a step began; without one the server only warns."""
        await self.step(_rollback)

    async def clean(self) -> bool:
        """Remove the former versions of rows, which the server then overwrites when it needs their space."""
        await self.step(_vacuum)
        return False  # the server's files and its log may have their bytes for a while

    async def aclose(self) -> None:
        """Write what is queued, and end the task; a second call does nothing."""
        self.queue.close()
        await asyncio.shield(self._task)

    async def _call(self, method: Callable[[_Work[_T]], Awaitable[_T]], script: Callable[[], Script[_T]]) -> _T:
        """Queue a script for a method of the session; return its result."""
        result: _T = await self.queue.call(
            lambda stamp: method(lambda connection: run_script(connection, script(), stamp))
        )
        return result

    async def _run(self) -> None:
        try:
            while not self.queue.closing or self.queue:
                await self._wake.wait()
                self._wake.clear()
                # The sessions whose marks were in the last commit are free at the same moment, and their next marks
                # come within a millisecond or so. Without the wait the first one of them gets a commit of its own.
                steps = int(min(self._gather, 2 * self._commit_time) / GATHER_STEP)
                for _ in range(steps):
                    if len(self.queue) >= self._expected or self.queue.closing:
                        break
                    await asyncio.sleep(GATHER_STEP)
                for item in self.queue.turn():
                    if isinstance(item, list):
                        self._expected = max(0.9 * len(item), 0.8 * self._expected)
                        await self._commit(item)
                    else:
                        await self._execute(item)
        except BaseException as error:  # whatever it is, everyone who waits must get it
            self._fail(error)
            if not isinstance(error, Exception):
                raise
            await self._salvage_until_closed()
        finally:
            await self._session.close()

    async def _commit(self, transitions: list[Transition]) -> None:
        work = partial(write_transitions, transitions=transitions, stamp=self._session.stamp)
        began = time.perf_counter()
        await self._session.write(work, timeout=ANSWER_TIMEOUT)
        self._commit_time = time.perf_counter() - began
        self.queue.report_durable(transitions)

    async def _execute(self, call: Call) -> None:
        try:
            result = await call.function(self._session.stamp)
        except SMTPError as error:
            if isinstance(error, LedgerError):
                raise
            reject(call.done, error)  # it is the caller's
        else:
            resolve(call.done, result)

    def _fail(self, error: BaseException) -> None:
        failure = ledger_error(self._session.database, error)
        failure.__cause__ = None if failure is error else error
        items = self.queue.drain()
        self.queue.fail(failure, select_transitions(items), items)

    async def _salvage_until_closed(self) -> None:
        await self._salvage()
        while not self.queue.closing:
            await self._wake.wait()
            self._wake.clear()
        await self._salvage()

    async def _salvage(self) -> None:
        unwritten = self.queue.list_unwritten()
        with contextlib.suppress(psycopg.Error, LedgerError):
            work = partial(salvage_transitions, transitions=unwritten, stamp=self._session.stamp)
            self.queue.report_salvaged(unwritten, await self._session.run_after_failure(work))


def _vacuum() -> Script[None]:
    for table in ("recipient", "delivery", "memory"):
        yield Statement(f"VACUUM {table}", {})


def _rollback() -> Script[None]:
    yield Statement("ROLLBACK", {})


class Copy(Many):
    """Rows for COPY, in which the campaign's number comes first; the result is None if a row is there already.

    COPY has no ON CONFLICT. With its savepoint it takes the client a fifth of the time of an INSERT of arrays.
    """

    __slots__ = ()


async def run_script(connection: Connection, script: Script[_T], stamp: _Stamp) -> _T:
    """Run a script to its end and return its result."""
    result: object = None
    while True:
        try:
            statement = script.send(result)
        except StopIteration as end:
            value: _T = end.value
            return value
        if isinstance(statement, Copy):
            result = await _copy(connection, statement, stamp)
            continue
        if isinstance(statement, InTransaction):
            result = await statement.function(connection)
            continue
        if isinstance(statement, Statement):
            cursor = await connection.execute(statement.sql, {**stamp, **statement.values})
        else:
            cursor = connection.cursor()
            await cursor.executemany(statement.sql, statement.rows)
        result = cursor.rowcount if cursor.description is None else await cursor.fetchall()


async def _copy(connection: Connection, statement: Copy, stamp: _Stamp) -> int | None:
    first = _copy_value(stamp["campaign"])
    lines = ["\t".join([first, *map(_copy_value, row)]) for row in statement.rows]
    try:
        async with connection.cursor().copy(statement.sql) as copy:
            await copy.write("\n".join([*lines, ""]))
    except psycopg.errors.UniqueViolation:
        return None
    return len(lines)


def _copy_value(value: object) -> str:
    """Return a value as the text format of COPY has it."""
    if value is None:
        return "\\N"
    text = str(value)
    if "\\" in text or "\n" in text or "\t" in text or "\r" in text:
        return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return text


# Transitions are written many at a time: one statement for a group, each row a compare-and-set.

_TYPES = {"code": "smallint", "status": "text", "reply": "text", "host": "text"}
_ARRAYS = ", ".join(f":{name}::{_TYPES.get(name, 'bigint')}[]" for name in TransitionValues._fields)
_MARKED = f"({RowState.SENDING:d}, {RowState.IN_DOUBT:d})"

# A late reply, after another process took the campaign over, settles the doubt that this process left: the row still
# has the epoch of its mark.
_MARKED_BY_US = f"(j.old = {RowState.SENDING:d} AND d.state IN {_MARKED} AND d.epoch = :run)"

_UPDATE = to_psycopg(f"""
UPDATE delivery AS d SET state = j.new, attempts = greatest(0, d.attempts + j.tried), doubts = d.doubts + j.new_doubts,
  code = CASE j.postponed WHEN 1 THEN d.code ELSE nullif(j.code, 0) END,
  status = CASE j.postponed WHEN 1 THEN d.status ELSE nullif(j.status, '') END,
  reply = CASE j.postponed WHEN 1 THEN d.reply ELSE nullif(j.reply, '') END,
  host = CASE j.postponed WHEN 1 THEN d.host ELSE nullif(j.host, '') END,
  next_us = nullif(j.due, 0),
  first_us = CASE WHEN d.attempts + j.tried <= 0 THEN NULL
    WHEN j.tried > 0 THEN coalesce(d.first_us, t.now) ELSE d.first_us END,
  updated_us = greatest(coalesce(d.updated_us, 0), t.now), epoch = :run
FROM unnest({_ARRAYS}) AS j({", ".join(TransitionValues._fields)}), (SELECT {NOW} AS now) AS t
WHERE d.campaign_id = :campaign AND d.batch_no = (j.seq - 1) / {BATCH_SIZE} AND d.seq = j.seq
  AND ({_MARKED_BY_US} OR (j.old <> {RowState.SENDING:d} AND d.state = j.old AND :new_too))
RETURNING d.seq""")  # noqa: S608

_KEEP_OUTCOMES = to_psycopg(f"""
INSERT INTO memory
SELECT :campaign, 'outcome ' || lpad(t.now::text, 16, '0') || ' ' || lpad(j.seq::text, 12, '0'), j.outcome
FROM unnest(:seq::bigint[], :outcome::text[]) AS j(seq, outcome), (SELECT {NOW} AS now) AS t
ON CONFLICT (campaign_id, name) DO UPDATE SET value = excluded.value""")  # noqa: S608  # as OUTCOME_NAME

_FIND = to_psycopg(f"""
SELECT d.seq, d.state, d.epoch FROM unnest(:seq::bigint[]) AS j(seq)
JOIN delivery AS d ON d.campaign_id = :campaign AND d.batch_no = (j.seq - 1) / {BATCH_SIZE} AND d.seq = j.seq""")  # noqa: S608


async def write_transitions(connection: Connection, transitions: Sequence[Transition], stamp: _Stamp) -> None:
    """Write all the transitions in their order, within the caller's transaction.

    Args:
        stamp: `campaign` and `run`, their numbers, and `now`, None for the database's clock.
    Raises:
        LedgerError: a row was not in the state it had to be in; this is a bug.
    """
    for group in split_into_groups(transitions):
        done = await _update(connection, group, stamp, new_too=True)
        if len(done) != len(group):
            wrong = next(transition for transition in group if transition.row not in done)
            found = (await _find_rows(connection, [wrong.row], stamp)).get(wrong.row)
            state = "not there" if found is None else RowState(found[0])
            raise LedgerError(f"row {wrong.row} is {state} in the ledger, not {wrong.before}: this is a bug")
        await _keep_outcomes(connection, group, stamp)


async def salvage_transitions(
    connection: Connection, transitions: Iterable[Transition], stamp: _Stamp
) -> list[Transition]:
    """Write the outcomes of marked rows, whichever process has the campaign now; return the transitions that remain.

    Nothing else is written: a mark is of no use any more, and a row without one may be claimed by another process.
    An outcome that is there already, by a transaction whose commit was not answered, does not remain.
    """
    transitions = list(transitions)
    outcomes = {one.row: one for one in transitions if one.settlement and one.before is RowState.SENDING}
    done: set[int] = set()
    if outcomes:
        async with connection.transaction():
            for group in split_into_groups(list(outcomes.values())):
                written = await _update(connection, group, stamp, new_too=False)
                await _keep_outcomes(connection, [one for one in group if one.row in written], stamp)
                done |= written
            for row, (state, epoch) in (await _find_rows(connection, list(outcomes), stamp)).items():
                if state == outcomes[row].after and epoch == stamp["run"]:
                    done.add(row)
    return [one for one in transitions if not (one.row in done and one is outcomes.get(one.row))]


async def _update(connection: Connection, group: Sequence[Transition], stamp: _Stamp, *, new_too: bool) -> set[int]:
    """Update rows that are marked by this run, and with `new_too` also others; return those that were changed."""
    columns = zip(*(transition.values() for transition in group), strict=True)
    values = dict(zip(TransitionValues._fields, map(list, columns), strict=True))
    found = await connection.execute(_UPDATE, {**stamp, **values, "new_too": new_too})
    return {row for (row,) in await found.fetchall()}


async def _keep_outcomes(connection: Connection, transitions: Sequence[Transition], stamp: _Stamp) -> None:
    """Keep the outcomes that are to be posted."""
    if kept := {one.row: one.outcome for one in transitions if one.outcome}:
        await connection.execute(_KEEP_OUTCOMES, {**stamp, "seq": [*kept], "outcome": [*kept.values()]})


async def _find_rows(connection: Connection, rows: list[int], stamp: _Stamp) -> dict[int, tuple[int, int]]:
    """Return state and epoch of rows."""
    found = await connection.execute(_FIND, {**stamp, "seq": rows})
    return {row: (state, epoch) for row, state, epoch in await found.fetchall()}
