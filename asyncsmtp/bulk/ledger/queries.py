"""Queries of a ledger, written once for SQLite and PostgreSQL, and the `Store` that runs them.

A query is a script: a generator that yields statements and receives their results. It does no I/O, so the same script
runs in SQLite's writer thread, in a reader's thread, and as a coroutine on a connection to PostgreSQL. A script can
therefore take several steps within one transaction, and it can be run again from its beginning when a connection
breaks. `Queries` has one method for each; a subclass has the SQL that differs between the databases.

A statement has named parameters, `:name` in the templates here. `campaign`, `run` and `now` are added by whoever runs
the script: the campaign's id, the number of the run, and the time in microseconds since 1970.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, NamedTuple, Protocol, TypeAlias, TypeVar

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.ledger.interfaces import Claim, Counts, Decision, Entry, InDoubt, Recovery, RowState
from asyncsmtp.bulk.ledger.transitions import MAX_REPLY, batch_number, from_microseconds
from asyncsmtp.bulk.ledger.write_queue import WriteQueue
from asyncsmtp.bulk.recipients.recipient import Recipient
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "DELIVERY_COLUMNS",
    "ENTRY_BATCHES",
    "RECIPIENT_COLUMNS",
    "CampaignRow",
    "Many",
    "Queries",
    "RecipientValues",
    "Script",
    "Statement",
    "Store",
    "suppressed_reply",
]

ENTRY_BATCHES = 4  # batches that `read_entries` reads at once
UNSENT_ROWS = 5000  # rows that `read_unsent` reads at once
MAX_RESENDS = 1  # copies that a policy may add without a person's decision
MAX_REPORTS = 16  # bounce reports remembered for one row

_T = TypeVar("_T")


class Statement(NamedTuple):
    """One statement. Its result is a list of rows, or the number of changed rows where it returns none."""

    sql: str
    values: Mapping[str, object]


class Many(NamedTuple):
    """One statement with positional parameters, executed for each of `rows`; its result is the number of changes."""

    sql: str
    rows: Sequence[Sequence[object]]


Script: TypeAlias = Generator[Statement | Many, Any, _T]
RecipientValues: TypeAlias = tuple[int, int, str | None, str | None, str | None, str]
"""Batch number, row, address, key of the mailbox (None: not to be mailed), Message-ID, and cells as JSON."""


class Store(Protocol):
    """A database that runs scripts and writes transitions, in the order in which both were queued."""

    @property
    def queries(self) -> Queries: ...
    @property
    def queue(self) -> WriteQueue: ...

    async def read(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script that changes nothing; it may be run again, on another connection."""

    async def write(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script as one transaction, durable exactly once; if this is cancelled, it still runs."""

    async def step(self, script: Callable[[], Script[_T]]) -> _T:
        """Run one step of a transaction that the script itself begins or ends; it is never run again."""

    async def rollback(self) -> None:
        """Roll back the transaction that a step began, if there still is one."""

    async def aclose(self) -> None:
        """Write what is queued, and close the connection; a second call does nothing."""


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign whose rows are in its ledger.

    Attributes:
        created_us: microseconds since 1970, UTC.
        run: number of runs so far.
        parts: what the fingerprint is made of: name -> digest.
        batches: number of batches of rows.
    """

    name: str
    created_us: int
    run: int
    parts: Mapping[str, str]
    batches: int


RECIPIENT_COLUMNS = """( -- never changed after the load
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  address TEXT,                            -- NULL: the row of the file has none
  dedupe TEXT,                             -- NULL: not to be mailed
  message_id TEXT,
  vars TEXT NOT NULL,                      -- JSON: column -> cell
  PRIMARY KEY (campaign_id, batch_no, seq),
  UNIQUE (campaign_id, dedupe))"""
DELIVERY_COLUMNS = """( -- hot and narrow: two updates a message
  campaign_id BIGINT NOT NULL, batch_no INTEGER NOT NULL, seq BIGINT NOT NULL,
  state SMALLINT NOT NULL DEFAULT 0 CHECK (state BETWEEN 0 AND 6),
  epoch INTEGER NOT NULL DEFAULT 0,        -- the run that wrote it last
  attempts SMALLINT NOT NULL DEFAULT 0, doubts SMALLINT NOT NULL DEFAULT 0,
  code SMALLINT, status TEXT, reply TEXT, host TEXT,
  next_us BIGINT, first_us BIGINT, updated_us BIGINT,
  PRIMARY KEY (campaign_id, batch_no, seq))"""

_CLAIM = """
SELECT d.seq, address, message_id, vars, attempts, d.state, first_us, epoch
FROM delivery AS d {join} recipient USING (campaign_id, batch_no, seq) WHERE d.campaign_id = :campaign"""
_PENDING_OR_EARLIER = f"(state = {RowState.PENDING:d} OR epoch < :run)"  # of rows that are pending or deferred
_UNSENT = f"campaign_id = :campaign AND state IN ({RowState.PENDING:d}, {RowState.DEFERRED:d})"
_CLAIMS = f"""{_CLAIM} AND (d.batch_no, d.seq) > (:batch, :after) AND next_us IS NULL
AND (d.state = {RowState.PENDING:d} OR (d.state = {RowState.DEFERRED:d} AND d.epoch < :run))
ORDER BY d.batch_no, d.seq LIMIT :limit"""
_DUE = f"""{_CLAIM} AND d.state IN ({RowState.PENDING:d}, {RowState.DEFERRED:d}) AND next_us <= {{now}}
ORDER BY next_us LIMIT :limit"""
_FIRST_DUE = f"SELECT min(next_us) FROM delivery WHERE {_UNSENT} AND next_us IS NOT NULL"  # noqa: S608
_AT_ONCE = f"SELECT 1 FROM delivery WHERE {_UNSENT} AND next_us IS NULL AND {_PENDING_OR_EARLIER} LIMIT 1"  # noqa: S608
_COUNT_READY = f"""
SELECT count(*) FROM delivery WHERE {_UNSENT}
AND (next_us <= {{now}} OR next_us IS NULL AND {_PENDING_OR_EARLIER})"""  # noqa: S608
_COUNT_ROWS = "SELECT state, count(*) FROM delivery WHERE campaign_id = :campaign GROUP BY state"
_LAST_BATCH = "SELECT coalesce(max(batch_no), -1) FROM delivery WHERE campaign_id = :campaign"

# A set of states is a bit mask: a list would be bound in another way by each database. No index has the state, so
# nothing is lost.
_IN_STATES = ":states & (1 << d.state) <> 0"
# That `recipient` has the same batches follows from the join, but PostgreSQL would scan the whole table.
_ENTRIES = f"""
SELECT d.seq, coalesce(address, ''), coalesce(message_id, ''), state, attempts, doubts, code, status,
  coalesce(reply, ''), coalesce(host, ''), first_us, updated_us, next_us, vars
FROM delivery AS d {{join}} recipient USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no >= :first AND d.batch_no < :end
AND recipient.batch_no >= :first AND recipient.batch_no < :end AND {_IN_STATES}
ORDER BY d.batch_no, d.seq"""  # noqa: S608
_MAILED = f"""
SELECT d.seq, d.state, r.message_id, r.address
FROM delivery AS d {{join}} recipient AS r USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no = :batch AND r.message_id IS NOT NULL AND {_IN_STATES}"""  # noqa: S608
_READ_UNSENT = f"""
SELECT d.seq, d.state, dedupe FROM delivery AS d {{join}} recipient USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND (d.batch_no, d.seq) > (:batch, :after) AND dedupe IS NOT NULL
AND d.state IN ({RowState.PENDING:d}, {RowState.DEFERRED:d})
ORDER BY d.batch_no, d.seq LIMIT {UNSENT_ROWS}"""  # noqa: S608

_TIMED = "updated_us = {greatest}(coalesce(updated_us, 0), {now})"  # a row's time never goes back
_ROW = "campaign_id = :campaign AND batch_no = :batch AND seq = :row AND state = :state"
# The epoch stays that of the mark. In a shared database, a reply that the run before still receives then settles its
# own doubt.
_RECOVER = f"""
UPDATE delivery SET state = {RowState.IN_DOUBT:d}, doubts = doubts + 1, code = NULL, status = NULL,
reply = 'the run ended before the relay answered', {_TIMED}
WHERE campaign_id = :campaign AND state = {RowState.SENDING:d}"""  # noqa: S608
_RESEND = f"""
UPDATE delivery SET state = {RowState.PENDING:d}, epoch = :run, {_TIMED}
WHERE campaign_id = :campaign AND state = {RowState.IN_DOUBT:d} AND doubts <= {MAX_RESENDS}"""  # noqa: S608
_COUNT_IN_DOUBT = f"SELECT count(*) FROM delivery WHERE campaign_id = :campaign AND state = {RowState.IN_DOUBT:d}"  # noqa: S608
_DECIDE = {
    Decision.RESEND: f"UPDATE delivery SET state = {RowState.PENDING:d}, epoch = :run, {_TIMED} WHERE {_ROW}",  # noqa: S608
    Decision.SKIP: f"""
UPDATE delivery SET state = {RowState.REJECTED:d}, reply = substr('skipped by a person''s decision'
|| CASE WHEN coalesce(reply, '') = '' THEN '' ELSE ', after: ' || reply END, 1, {MAX_REPLY}), epoch = :run, {_TIMED}
WHERE {_ROW}""",  # noqa: S608
}
_DECIDABLE = {
    Decision.RESEND: frozenset({RowState.IN_DOUBT, RowState.REJECTED, RowState.DEFERRED}),
    Decision.SKIP: frozenset({RowState.IN_DOUBT, RowState.DEFERRED}),
}
_BOUNCE = f"""
UPDATE delivery SET state = {RowState.REJECTED:d}, code = NULL, status = :status, reply = :reply, epoch = :run, {_TIMED}
WHERE {_ROW}"""  # noqa: S608
_BOUNCEABLE = frozenset({RowState.ACCEPTED, RowState.IN_DOUBT})

_INSERT_PENDING = """
INSERT INTO delivery (campaign_id, batch_no, seq) SELECT campaign_id, batch_no, seq FROM recipient
WHERE campaign_id = :campaign AND batch_no >= :batch AND seq > :before AND message_id IS NOT NULL"""
_LOADED = """
SELECT name, secret, config, (SELECT coalesce(max(seq), 0) FROM delivery WHERE campaign_id = :campaign),
  (SELECT max(message_id) FROM recipient WHERE campaign_id = :campaign)
FROM campaign WHERE id = :campaign"""


class Queries(ABC):
    """The queries of one run. A subclass has what a database spells in its own way.

    Args:
        run: number of the run.
    """

    WORDS: ClassVar[Mapping[str, str]]
    """The words in braces in a template: `join`, `now` and `greatest`."""
    BEGIN: ClassVar[str]
    AFTER_LOAD: ClassVar[Sequence[str]] = ()
    READ_CAMPAIGN: ClassVar[str]
    INSERT_CAMPAIGN: ClassVar[str]
    READ_EARLIER: ClassVar[str]  # `:keys` is a JSON array
    READ_VALUE: ClassVar[str]
    WRITE_VALUE: ClassVar[str]

    def __init__(self, run: int) -> None:
        self.run = run

    @classmethod
    def render(cls, template: str) -> str:
        """Return a template as SQL of this database."""
        return template.format_map(cls.WORDS)

    @abstractmethod
    def insert_recipients(self, rows: Sequence[RecipientValues]) -> Script[int]:
        """Insert rows, but none for a mailbox that is there already; return the number of inserted ones."""

    @abstractmethod
    def insert_deliveries(self, states: Mapping[int, tuple[RowState, str]]) -> Script[None]:
        """Insert the state and the reply of rows that are not to be mailed."""

    @abstractmethod
    def suppress_rows(self, rows: Mapping[int, tuple[RowState, str]]) -> Script[Mapping[int, RowState]]:
        """Make rows SUPPRESSED that still have their state; return those with that state.

        Args:
            rows: state and reason of each.
        """

    # Reading.

    def read_campaign(self) -> Script[CampaignRow | None]:
        """Return the campaign; None before its load, and after one that was interrupted."""
        rows = yield self._statement(self.READ_CAMPAIGN)
        if not rows:
            return None
        name, created_us, run, config, last_batch = rows[0]
        try:
            parts = {str(name): str(digest) for name, digest in json.loads(config)["parts"].items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise LedgerError("the ledger's campaign is damaged: restore a copy of it") from error
        return CampaignRow(name, created_us, run, parts, 0 if last_batch is None else last_batch + 1)

    def count_rows(self) -> Script[Counts]:
        """Return the number of rows in each state."""
        rows = yield self._statement(_COUNT_ROWS)
        return Counts({RowState(state): number for state, number in rows})

    def read_claims(self, after: int, limit: int) -> Script[list[tuple[Claim, RowState]]]:
        """Return the next rows behind row `after` that the run may send, in file order, with the state of each."""
        rows = yield self._statement(_CLAIMS, batch=batch_number(after), after=after, limit=limit)
        return [_to_claim(self.run, columns) for columns in rows]

    def read_due(self, limit: int) -> Script[list[tuple[Claim, RowState]]]:
        """Return the rows that are due, by their times."""
        rows = yield self._statement(_DUE, limit=limit)
        return [_to_claim(self.run, columns) for columns in rows]

    def read_next_due(self) -> Script[datetime | None]:
        """Return when the first unsent row may be tried; 1970: at once; None: there is none."""
        if (yield self._statement(_AT_ONCE)):
            return from_microseconds(0)
        ((due,),) = yield self._statement(_FIRST_DUE)
        return None if due is None else from_microseconds(due)

    def count_ready(self) -> Script[int]:
        """Return the number of rows that the run may try now."""
        ((number,),) = yield self._statement(_COUNT_READY)
        return int(number)

    def read_entries(self, first: int, states: Collection[RowState]) -> Script[list[Entry]]:
        """Return the rows in one of `states` in `ENTRY_BATCHES` batches from batch `first` on."""
        rows = yield self._statement(_ENTRIES, first=first, end=first + ENTRY_BATCHES, states=_bit_mask(states))
        return [*map(_to_entry, rows)]

    def read_unsent(self, after: int) -> Script[list[tuple[int, RowState, str]]]:
        """Return row, state and mailbox key of up to `UNSENT_ROWS` unsent rows behind row `after`, in file order."""
        rows = yield self._statement(_READ_UNSENT, batch=batch_number(after), after=after)
        return [(row, RowState(state), key) for row, state, key in rows]

    def read_value(self, name: str) -> Script[str | None]:
        """Return the value that was stored under `name`."""
        rows = yield self._statement(self.READ_VALUE, name=name)
        return str(rows[0][0]) if rows else None

    # Writing, within a transaction of the caller's.

    def write_value(self, name: str, value: str) -> Script[None]:
        """Store a value under `name`."""
        yield self._statement(self.WRITE_VALUE, name=name, value=value)

    def recover(self, policy: InDoubt) -> Script[Recovery]:
        """Begin a run: rows that the last one left SENDING are in doubt.

        Nothing else is changed: a row without a mark was not sent, whatever happened.
        """
        found = yield self._statement(_RECOVER)
        resent = (yield self._statement(_RESEND)) if policy is InDoubt.RESEND else 0
        ((held,),) = yield self._statement(_COUNT_IN_DOUBT)
        return Recovery(found, resent, held)

    def resolve(
        self, decision: Decision, rows: Collection[int] | None, states: Collection[RowState], claimed: Collection[int]
    ) -> Script[Counter[RowState]]:
        """Apply a decision; return how many rows left each state.

        Args:
            rows: row numbers; None for every row in one of `states`.
            claimed: rows that are not changed.
        """
        left: Counter[RowState] = Counter()
        batches = None if rows is None else sorted({batch_number(row) for row in rows})
        for batch in (yield from self._batches()) if batches is None else batches:
            for row, state, _, _ in (yield from self._read_mailed(batch, _DECIDABLE[decision] & {*states})):
                if row not in claimed and (rows is None or row in rows):
                    yield self._statement(_DECIDE[decision], batch=batch, row=row, state=state)
                    left[RowState(state)] += 1
        return left

    def record_bounces(self, bounces: Mapping[str, Bounce]) -> Script[list[tuple[RowState, str, Bounce]]]:
        """Make accepted and doubtful rows REJECTED whose messages bounced; return the old state and address of each.

        A report that the row has had is not applied again, also after a person had the row sent once more: both
        messages have the same Message-ID, and an old report says nothing about the new one.

        Args:
            bounces: by the part of the Message-ID before the @.
        """
        changed: list[tuple[RowState, str, Bounce]] = []
        for batch in (yield from self._batches()):
            for row, state, message_id, address in (yield from self._read_mailed(batch, _BOUNCEABLE)):
                bounce = bounces.get(message_id.partition("@")[0])
                if bounce is None:
                    continue
                name = f"bounce {row}"
                reports = ((yield from self.read_value(name)) or "").split()
                if bounce.report and bounce.report in reports:
                    continue
                reply = safe_text(f"came back: {bounce.words}", MAX_REPLY)
                status = bounce.status or None
                yield self._statement(_BOUNCE, batch=batch, row=row, state=state, status=status, reply=reply)
                yield from self.write_value(name, " ".join([*reports, bounce.report][-MAX_REPORTS:]))
                changed.append((RowState(state), str(address), bounce))
        return changed

    # Loading, in steps.

    def begin(self) -> Script[None]:
        """Begin a transaction."""
        yield self._statement(self.BEGIN)

    def read_loaded(self) -> Script[tuple[str, str, str, int, str | None]]:
        """Return name, secret and config of the campaign, its last row, and one of its Message-IDs."""
        (columns,) = yield self._statement(_LOADED)
        name, secret, config, last_row, message_id = columns
        return name, secret, config, last_row, message_id

    def read_earlier(self, keys: Sequence[str]) -> Script[dict[str, int]]:
        """Return the row of each mailbox that is in the ledger, by its key."""
        return dict((yield self._statement(self.READ_EARLIER, keys=json.dumps(keys))))

    def insert_pending(self, after: int) -> Script[None]:
        """Insert the state of all rows behind row `after` that are to be mailed."""
        yield self._statement(_INSERT_PENDING, batch=batch_number(after + 1), before=after)

    def insert_campaign(self, name: str, secret: str, config: str) -> Script[None]:
        """Insert the campaign itself."""
        yield self._statement(self.INSERT_CAMPAIGN, name=name, secret=secret, config=config)

    def commit(self) -> Script[None]:
        """Commit a load."""
        for statement in ("COMMIT", *self.AFTER_LOAD):
            yield self._statement(statement)

    def _statement(self, template: str, **values: object) -> Statement:
        return Statement(_render(type(self), template), values)

    def _batches(self) -> Script[Iterable[int]]:
        ((last_batch,),) = yield self._statement(_LAST_BATCH)
        return range(last_batch + 1)

    def _read_mailed(self, batch: int, states: Collection[RowState]) -> Script[list[tuple[int, int, str, str]]]:
        """Return row, state, Message-ID and address of a batch, so that no cursor runs over rows being changed."""
        rows: list[tuple[int, int, str, str]] = yield self._statement(_MAILED, batch=batch, states=_bit_mask(states))
        return rows


@cache
def _render(queries: type[Queries], template: str) -> str:
    return queries.render(template)


def suppressed_reply(reason: str) -> str:
    """Return the reply of a row that is on a suppression list."""
    return f"on a suppression list: {safe_text(reason, 400)}" if reason else "on a suppression list"


def _bit_mask(states: Iterable[RowState]) -> int:
    return sum(1 << state for state in {*states})


_STATES = tuple(RowState)  # by their numbers: `RowState(number)` would be a third of the time that `_to_claim` takes


def _to_claim(run: int, columns: Sequence[Any]) -> tuple[Claim, RowState]:
    row, address, message_id, fields, attempts, state, first_us, epoch = columns
    try:
        recipient = Recipient(row, Mailbox.parse(address), json.loads(fields))
    except (ValueError, TypeError) as error:  # a RecipientError is a ValueError
        raise _damaged(row) from error
    if first_us is None:
        return Claim(recipient, message_id, attempts + 1), _STATES[state]
    is_retry = epoch == run and state == RowState.DEFERRED
    return Claim(recipient, message_id, attempts + 1, from_microseconds(first_us), is_retry), _STATES[state]


def _to_entry(columns: Sequence[Any]) -> Entry:
    row, address, message_id, state, attempts, doubts, code, status, reply, host, *times, fields = columns
    first_at, last_at, due_at = (None if us is None else from_microseconds(us) for us in times)
    try:
        cells = json.loads(fields)
    except (ValueError, TypeError) as error:
        raise _damaged(row) from error
    numbers = (_STATES[state], attempts, doubts, code, status)
    return Entry(row, address, message_id, *numbers, reply, host, first_at, last_at, cells, due_at)


def _damaged(row: int) -> LedgerError:
    return LedgerError(f"row {row} of the ledger is damaged: restore a copy of it")
