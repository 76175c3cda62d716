"""Queries of a ledger, written once for SQLite and PostgreSQL; a `Store` runs them.

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
from itertools import chain
from typing import Any, ClassVar, NamedTuple, TypeAlias, TypeVar

from asyncsmtp.bulk.ledger.interfaces import (
    Claim,
    Counts,
    Decision,
    Entry,
    InDoubt,
    Recovery,
    RowState,
    Settlement,
    number_copy,
)
from asyncsmtp.bulk.ledger.transitions import (
    COPY_BATCH,
    MAX_REPLY,
    OUTCOME_NAME,
    ROW_STATES,
    RefusedRow,
    batch_number,
    from_microseconds,
    plain_key,
    to_claim,
    to_entry,
)
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "ENTRY_BATCHES",
    "OF_FILE",
    "THIS_ROW",
    "TIMED",
    "CampaignRow",
    "Many",
    "Queries",
    "RecipientValues",
    "RowKey",
    "RunStart",
    "Script",
    "Statement",
    "no_statement",
]

ENTRY_BATCHES = 4  # batches that `read_entries` reads at once
UNSENT_ROWS = 5000  # rows that `read_unsent` reads at once
MAX_RESENDS = 1  # copies that a policy may add without a person's decision
OF_FILE = f"batch_no < {COPY_BATCH}"  # of rows of the file; the others are copies, see `copies`

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
"""Batch number, row, address, its key (None: not to be mailed), Message-ID, and cells as JSON."""


class RowKey(NamedTuple):
    """One row that is to be mailed, or was, with the key of its address."""

    row: int
    key: str
    address: str
    state: RowState


@dataclass(frozen=True, slots=True)
class CampaignRow:
    """A campaign whose rows are in its ledger.

    Attributes:
        created_us: microseconds since 1970, UTC.
        run: number of runs so far.
        parts: what the fingerprint is made of: name -> digest.
        batches: number of batches of rows of the file.
        has_copies: whether there are copies as well.
    """

    name: str
    created_us: int
    run: int
    parts: Mapping[str, str]
    batches: int
    has_copies: bool = False


@dataclass(frozen=True, slots=True)
class RunStart:
    """A campaign at the start of a run, after recovery.

    Attributes:
        campaign: None where its recipients are still to be loaded.
        run: number of this run, from 1.
    """

    campaign: CampaignRow | None
    counts: Counts
    run: int
    recovery: Recovery


# Rows are chosen in a subselect with its own ORDER BY and LIMIT, and joined then. PostgreSQL expects next to nothing of
# a join over three columns; if the limit stood outside, it would join and sort the whole table for each claim, which
# took 2 s of its processor with a million rows.
_CLAIM = """
SELECT d.seq, address, message_id, vars, attempts, d.state, first_us, epoch
FROM ({chosen}) AS d {{join}} recipient USING (campaign_id, batch_no, seq)"""
_DELIVERY = "SELECT * FROM delivery WHERE campaign_id = :campaign"
_PENDING_OR_EARLIER = f"(state = {RowState.PENDING:d} OR epoch < :run)"  # of rows that are pending or deferred
_UNSENT = f"campaign_id = :campaign AND state IN ({RowState.PENDING:d}, {RowState.DEFERRED:d})"
_IN_FILE_ORDER = "ORDER BY batch_no, seq LIMIT"
_CHOSEN = f"""{_DELIVERY} AND (batch_no, seq) > (:batch, :after) AND batch_no < :end AND next_us IS NULL
AND (state = {RowState.PENDING:d} OR (state = {RowState.DEFERRED:d} AND epoch < :run)) {_IN_FILE_ORDER} :limit"""
_CLAIMS = f"{_CLAIM.format(chosen=_CHOSEN)} ORDER BY d.batch_no, d.seq"
_CHOSEN_DUE = f"""{_DELIVERY} AND state IN ({RowState.PENDING:d}, {RowState.DEFERRED:d}) AND next_us <= {{now}}
ORDER BY next_us LIMIT :limit"""
_DUE = f"{_CLAIM.format(chosen=_CHOSEN_DUE)} ORDER BY d.next_us"
_FIRST_DUE = f"SELECT min(next_us) FROM delivery WHERE {_UNSENT} AND next_us IS NOT NULL"  # noqa: S608
_AT_ONCE = f"SELECT 1 FROM delivery WHERE {_UNSENT} AND next_us IS NULL AND {_PENDING_OR_EARLIER} LIMIT 1"  # noqa: S608
_COUNT_READY = f"""
SELECT count(*) FROM delivery WHERE {_UNSENT}
AND (next_us <= {{now}} OR next_us IS NULL AND {_PENDING_OR_EARLIER})"""  # noqa: S608
_COUNT_WAITING = f"SELECT count(*) FROM delivery WHERE {_UNSENT} AND next_us > {{now}}"  # noqa: S608
_COUNT_ROWS = "SELECT state, count(*) FROM delivery WHERE campaign_id = :campaign GROUP BY state"
_COUNT_BY_RELAY = """
SELECT host, state, count(*) FROM delivery WHERE campaign_id = :campaign AND host IS NOT NULL
GROUP BY host, state ORDER BY host"""
# The run that wrote the row last is the one that was halted: nothing has happened to it since.
_IS_HALTED = f"""
SELECT 1 FROM delivery WHERE campaign_id = :campaign AND batch_no = :batch AND seq = :row
AND state = {RowState.REJECTED:d} AND epoch = :halted"""  # noqa: S608
_HALTED = "halted"  # of the rows that were rejected before a run was halted, in the ledger's memory
_LAST_OUTCOME = OUTCOME_NAME % (10**16 - 1, 10**12 - 1)
_OUTCOMES = "FROM memory WHERE {of_campaign} name > :after AND name <= :last"
_READ_OUTCOMES = f"SELECT name, value {_OUTCOMES} ORDER BY name LIMIT :limit"
_COUNT_OUTCOMES = f"SELECT count(*) {_OUTCOMES}"
_LAST_BATCH = f"SELECT coalesce(max(batch_no), -1) FROM delivery WHERE campaign_id = :campaign AND {OF_FILE}"  # noqa: S608
_COPY_BATCHES = f"""
SELECT DISTINCT batch_no FROM delivery WHERE campaign_id = :campaign AND batch_no >= {COPY_BATCH} ORDER BY batch_no"""  # noqa: S608
_END = 2**31 - 1  # no batch has that number

# A set of states is a bit mask: a list would be bound in another way by each database. No index has the state, so
# nothing is lost.
_IN_STATES = ":states & (1 << d.state) <> 0"
# That `recipient` has the same batches follows from the join, but PostgreSQL would scan the whole table.
_ENTRY = """
SELECT d.seq, coalesce(address, ''), coalesce(message_id, ''), state, attempts, doubts, code, status,
  coalesce(reply, ''), coalesce(host, ''), first_us, updated_us, next_us, vars"""
_ENTRIES = f"""{_ENTRY}
FROM delivery AS d {{join}} recipient USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no >= :first AND d.batch_no < :end
AND recipient.batch_no >= :first AND recipient.batch_no < :end AND {_IN_STATES}
ORDER BY d.batch_no, d.seq"""
_ENTRIES_OF = f"""{_ENTRY}
FROM ({{wanted}}) AS w CROSS JOIN delivery AS d {{join}} recipient USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no = w.batch AND d.seq = w.wanted"""
_MAILED = f"""
SELECT d.seq, d.state, r.message_id, r.address, r.dedupe
FROM delivery AS d {{join}} recipient AS r USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no = :batch AND r.message_id IS NOT NULL AND {_IN_STATES}"""  # noqa: S608
_CHOSEN_UNSENT = f"""{_DELIVERY} AND (batch_no, seq) > (:batch, :after)
AND state IN ({RowState.PENDING:d}, {RowState.DEFERRED:d}) {_IN_FILE_ORDER} {UNSENT_ROWS}"""
_READ_UNSENT = f"""
SELECT d.seq, d.state, dedupe FROM ({_CHOSEN_UNSENT}) AS d {{join}} recipient USING (campaign_id, batch_no, seq)
WHERE dedupe IS NOT NULL ORDER BY d.batch_no, d.seq"""  # noqa: S608

_KEYS = """
SELECT d.seq, dedupe, address, d.state FROM delivery AS d {join} recipient USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no >= :first AND d.batch_no < :end
AND recipient.batch_no >= :first AND recipient.batch_no < :end AND dedupe IS NOT NULL ORDER BY d.batch_no, d.seq"""
_KEY = """
SELECT d.seq, dedupe, address, d.state FROM delivery AS d {join} recipient USING (campaign_id, batch_no, seq)
WHERE d.campaign_id = :campaign AND d.batch_no = :batch AND d.seq = :row"""
_WRITE_KEY = "UPDATE recipient SET dedupe = :key WHERE campaign_id = :campaign AND batch_no = :batch AND seq = :row"

TIMED = "updated_us = {greatest}(coalesce(updated_us, 0), {now})"  # a row's time never goes back
THIS_ROW = "campaign_id = :campaign AND batch_no = :batch AND seq = :row AND state = :state"
# The epoch stays that of the mark. In a shared database, a reply that the run before still receives then settles its
# own doubt.
_UNANSWERED = "the run ended before the relay answered"
_RECOVER = f"""
UPDATE delivery SET state = {RowState.IN_DOUBT:d}, doubts = doubts + 1, code = NULL, status = NULL,
reply = '{_UNANSWERED}', {TIMED}
WHERE campaign_id = :campaign AND state = {RowState.SENDING:d}"""  # noqa: S608
_SENDING = f"SELECT seq FROM delivery WHERE campaign_id = :campaign AND state = {RowState.SENDING:d} ORDER BY seq"  # noqa: S608
_RECOVERED = "recovered"  # of the rows that became in doubt by recovery, until their outcomes are kept
_IS_RECOVERED = f"""
SELECT updated_us FROM delivery WHERE campaign_id = :campaign AND batch_no = :batch AND seq = :row
AND state IN ({RowState.IN_DOUBT:d}, {RowState.PENDING:d}) AND reply = '{_UNANSWERED}'"""  # noqa: S608
_ONE = _CLAIM.format(chosen=f"{_DELIVERY} AND batch_no = :batch AND seq = :row")
_RESEND = f"""
UPDATE delivery SET state = {RowState.PENDING:d}, epoch = :run, {TIMED}
WHERE campaign_id = :campaign AND state = {RowState.IN_DOUBT:d} AND doubts <= {MAX_RESENDS}"""  # noqa: S608
_COUNT_IN_DOUBT = f"SELECT count(*) FROM delivery WHERE campaign_id = :campaign AND state = {RowState.IN_DOUBT:d}"  # noqa: S608
_DECIDE = {
    Decision.RESEND: f"UPDATE delivery SET state = {RowState.PENDING:d}, epoch = :run, {TIMED} WHERE {THIS_ROW}",  # noqa: S608
    Decision.SKIP: f"""
UPDATE delivery SET state = {RowState.REJECTED:d}, reply = substr('skipped by a person''s decision'
|| CASE WHEN coalesce(reply, '') = '' THEN '' ELSE ', after: ' || reply END, 1, {MAX_REPLY}), epoch = :run, {TIMED}
WHERE {THIS_ROW}""",  # noqa: S608
}
_DECIDABLE = {
    Decision.RESEND: frozenset({RowState.IN_DOUBT, RowState.REJECTED, RowState.DEFERRED}),
    Decision.SKIP: frozenset({RowState.IN_DOUBT, RowState.DEFERRED}),
}
_END_UNSENT = f"""
UPDATE delivery SET state = {{state}}, reply = :reply, code = NULL, status = NULL, host = NULL,
next_us = NULL, epoch = :run, {TIMED} WHERE {THIS_ROW}"""  # noqa: S608
_DUPLICATE = _END_UNSENT.replace("{state}", f"{RowState.SUPPRESSED:d}")
_REJECT = _END_UNSENT.replace("{state}", f"{RowState.REJECTED:d}")
_BEGUN = f"""
SELECT 1 FROM delivery WHERE campaign_id = :campaign AND (attempts <> 0 OR doubts <> 0
OR state NOT IN ({RowState.PENDING:d}, {RowState.REJECTED:d}, {RowState.SUPPRESSED:d})) LIMIT 1"""  # noqa: S608
_INSERT_PENDING = """
INSERT INTO delivery (campaign_id, batch_no, seq) SELECT campaign_id, batch_no, seq FROM recipient
WHERE campaign_id = :campaign AND batch_no >= :batch AND batch_no < :end AND seq > :before AND message_id IS NOT NULL"""
_LOADED = f"""
SELECT name, secret, config, (SELECT coalesce(max(seq), 0) FROM delivery WHERE campaign_id = :campaign AND {OF_FILE}),
  (SELECT max(message_id) FROM recipient WHERE campaign_id = :campaign)
FROM campaign WHERE id = :campaign"""  # noqa: S608


def no_statement() -> Script[None]:
    """A script that does nothing: when it has run, all before it has."""
    yield from ()


class Queries(ABC):
    """The queries of one run. A subclass has what a database spells in its own way.

    Args:
        run: number of the run.
    """

    WORDS: ClassVar[Mapping[str, str]]
    """The words in braces in templates: `join`, `now`, `greatest`, `of_campaign`, `domain`, `wanted`, `find_values`."""
    BEGIN: ClassVar[str]
    BEGIN_SNAPSHOT: ClassVar[str]  # to read several times what is there now
    AFTER_LOAD: ClassVar[Sequence[str]] = ()
    READ_CAMPAIGN: ClassVar[str]
    INSERT_CAMPAIGN: ClassVar[str]
    DELETE_CAMPAIGN: ClassVar[str]
    READ_EARLIER: ClassVar[str]  # `:keys` is a JSON array
    READ_VALUE: ClassVar[str]
    WRITE_VALUE: ClassVar[str]
    NAMED: ClassVar[str]  # rows of `memory` whose names are in `:names`, a JSON array

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

    @abstractmethod
    def refuse_older(self) -> Script[None]:
        """Have older programs refuse this ledger, within the transaction that stores keys which they do not make.

        They would take two spellings of an address for two people, and mail one who has the message already. This is
        not done before all checks have passed, so that an older program can go on with a ledger that this one refuses.
        """

    # Reading.

    def read_campaign(self) -> Script[CampaignRow | None]:
        """Return the campaign; None before its load, and after one that was interrupted."""
        rows = yield self.statement(self.READ_CAMPAIGN)
        if not rows:
            return None
        name, created_us, run, config, last_batch, has_copies = rows[0]
        try:
            parts = {str(name): str(digest) for name, digest in json.loads(config)["parts"].items()}
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise LedgerError("the ledger's campaign is damaged: restore a copy of it") from error
        batches = 0 if last_batch is None else last_batch + 1
        return CampaignRow(name, created_us, run, parts, batches, bool(has_copies))

    def count_rows(self) -> Script[Counts]:
        """Return the number of rows in each state."""
        rows = yield self.statement(_COUNT_ROWS)
        return Counts({RowState(state): number for state, number in rows})

    def read_claims(
        self, after: int, limit: int, *, copies: bool = False
    ) -> Script[list[tuple[Claim | RefusedRow, RowState]]]:
        """Return the next rows, or copies, behind `after` that the run may send, in file order, each with its state."""
        end = _END if copies else COPY_BATCH
        rows = yield self.statement(_CLAIMS, batch=batch_number(after), after=after, end=end, limit=limit)
        return [to_claim(self.run, columns) for columns in rows]

    def read_due(self, limit: int) -> Script[list[tuple[Claim | RefusedRow, RowState]]]:
        """Return the rows that are due, by their times."""
        rows = yield self.statement(_DUE, limit=limit)
        return [to_claim(self.run, columns) for columns in rows]

    def read_next_due(self) -> Script[datetime | None]:
        """Return when the first unsent row may be tried; 1970: at once; None: there is none."""
        if (yield self.statement(_AT_ONCE)):
            return from_microseconds(0)
        ((due,),) = yield self.statement(_FIRST_DUE)
        return None if due is None else from_microseconds(due)

    def count_ready(self, counts: Counts) -> Script[int]:
        """Return the number of rows that the run may try now; `counts`: all rows by their states."""
        is_short = not counts[RowState.DEFERRED]  # then those that wait are in an index; else all rows are read
        ((number,),) = yield self.statement(_COUNT_WAITING if is_short else _COUNT_READY)
        return counts[RowState.PENDING] - int(number) if is_short else int(number)

    def read_entries(
        self, first: int, states: Collection[RowState], *, batches: int = ENTRY_BATCHES
    ) -> Script[list[Entry]]:
        """Return the rows in one of `states` in so many batches from batch `first` on."""
        rows = yield self.statement(_ENTRIES, first=first, end=first + batches, states=_bit_mask(states))
        return [*map(to_entry, rows)]

    def read_entries_by_number(self, rows: Collection[int]) -> Script[dict[int, Entry]]:
        """Return some rows by their numbers."""
        found = yield self.statement(_ENTRIES_OF, wanted_rows=json.dumps([*rows]))
        return {entry.row: entry for entry in map(to_entry, found)}

    def read_unsent(self, after: int) -> Script[list[tuple[int, RowState, str]]]:
        """Return row, state and mailbox key of up to `UNSENT_ROWS` unsent rows behind row `after`, in file order."""
        rows = yield self.statement(_READ_UNSENT, batch=batch_number(after), after=after)
        return [(row, RowState(state), plain_key(key)) for row, state, key in rows]

    def read_value(self, name: str) -> Script[str | None]:
        """Return the value that was stored under `name`."""
        rows = yield self.statement(self.READ_VALUE, name=name)
        return str(rows[0][0]) if rows else None

    def count_by_relay(self) -> Script[dict[str, Counts]]:
        """Return the number of rows in each state by the relay's name."""
        found: dict[str, dict[RowState, int]] = {}
        for host, state, number in (yield self.statement(_COUNT_BY_RELAY)):
            found.setdefault(str(host), {})[RowState(state)] = number
        return {host: Counts(numbers) for host, numbers in found.items()}

    def read_halted(self) -> Script[frozenset[int]]:
        """Return the rows that a run rejected before it was halted, as far as nothing has happened to them since."""
        return frozenset(row for rows in (yield from self._read_halts()).values() for row in rows)

    # Outcomes that were not posted yet are among the stored values, so that they are committed with the row. Their
    # names have one length and differ in digits only, which every collation of PostgreSQL sorts in the same way.

    def read_outcomes(self, after: str, limit: int) -> Script[list[tuple[str, str]]]:
        """Return name and text of the first kept outcomes behind the name `after`, the oldest first."""
        values = {"after": after or OUTCOME_NAME % (0, 0), "last": _LAST_OUTCOME, "limit": limit}
        rows: list[tuple[str, str]] = yield self.statement(_READ_OUTCOMES, **values)
        return rows

    def count_outcomes(self) -> Script[int]:
        """Return the number of kept outcomes."""
        values = {"after": OUTCOME_NAME % (0, 0), "last": _LAST_OUTCOME}
        ((number,),) = yield self.statement(_COUNT_OUTCOMES, **values)
        return int(number)

    def _read_recovered(self) -> Script[list[int]]:
        return _read_rows((yield from self.read_value(_RECOVERED)))

    # Writing, within a transaction of the caller's.

    def remove_outcomes(self, names: Sequence[str]) -> Script[None]:
        """Remove kept outcomes."""
        yield self.statement(f"DELETE FROM memory WHERE {self.NAMED}", names=json.dumps(names))  # noqa: S608

    def keep_recovered(self, describe: Callable[[Claim, Settlement], str]) -> Script[None]:
        """Keep the outcomes of the rows that became in doubt by recovery, as far as nothing was decided about them."""
        rows = yield from self._read_recovered()
        for row in rows:
            values = {"batch": batch_number(row), "row": row}
            for (at_us,) in (yield self.statement(_IS_RECOVERED, **values)):
                (columns,) = yield self.statement(_ONE, **values)
                claim, _ = to_claim(self.run, columns)
                if isinstance(claim, Claim):
                    claim = claim._replace(attempt=claim.attempt - 1)  # the one that was made
                    outcome = describe(claim, Settlement(row, RowState.IN_DOUBT, reply=_UNANSWERED))
                    yield from self.write_value(OUTCOME_NAME % (at_us, row), outcome)
        if rows:
            yield from self.write_value(_RECOVERED, "[]")

    def record_halt(self, rows: Collection[int]) -> Script[None]:
        """Record which rows this run rejected for a reason that halts it."""
        halts = yield from self._read_halts()
        halts[self.run] = sorted({*halts.get(self.run, ()), *rows})
        yield from self.write_value(_HALTED, json.dumps({str(run): rows for run, rows in halts.items()}))

    def _read_halts(self) -> Script[dict[int, list[int]]]:
        """Return the rows of each run that was halted."""
        try:
            saved = json.loads((yield from self.read_value(_HALTED)) or "{}")
            halts = {int(run): [int(row) for row in rows] for run, rows in saved.items()}
        except (ValueError, AttributeError, TypeError) as error:
            raise LedgerError("the ledger's list of rejected rows is damaged: restore a copy of it") from error
        found: dict[int, list[int]] = {}
        for run, rows in halts.items():
            for row in rows:
                if (yield self.statement(_IS_HALTED, batch=batch_number(row), row=row, halted=run)):
                    found.setdefault(run, []).append(row)
        return found

    def write_value(self, name: str, value: str) -> Script[None]:
        """Store a value under `name`."""
        yield self.statement(self.WRITE_VALUE, name=name, value=value)

    def recover(self, policy: InDoubt) -> Script[Recovery]:
        """Begin a run: rows that the last one left SENDING are in doubt.

        Nothing else is changed: a row without a mark was not sent, whatever happened.
        """
        rows = [row for (row,) in (yield self.statement(_SENDING))]
        found = (yield self.statement(_RECOVER)) if rows else 0
        if rows:
            known = yield from self._read_recovered()
            yield from self.write_value(_RECOVERED, json.dumps(sorted({*known, *rows})))
        resent = (yield self.statement(_RESEND)) if policy is InDoubt.RESEND else 0
        ((held,),) = yield self.statement(_COUNT_IN_DOUBT)
        return Recovery(found, resent, held)

    def resolve(
        self, decision: Decision, rows: Collection[int] | None, states: Collection[RowState], claimed: Collection[int]
    ) -> Script[Counter[RowState]]:
        """Apply a decision; return how many rows left each state.

        Args:
            rows: numbers in the ledger; None for every row in one of `states`.
            claimed: rows that are not changed.
        """
        left: Counter[RowState] = Counter()
        batches: Iterable[int]
        if rows is None:
            batches = chain((yield from self.list_batches()), (yield from self.list_batches(copies=True)))
        else:
            batches = sorted({batch_number(row) for row in rows})
        for batch in batches:
            for row, state, *_ in (yield from self._read_mailed(batch, _DECIDABLE[decision] & {*states})):
                if row not in claimed and (rows is None or row in rows):
                    yield self.statement(_DECIDE[decision], batch=batch, row=row, state=state)
                    left[RowState(state)] += 1
        return left

    # Loading, in steps.

    def begin(self) -> Script[None]:
        """Begin a transaction."""
        yield self.statement(self.BEGIN)

    def read_loaded(self) -> Script[tuple[str, str, str, int, str | None]]:
        """Return name, secret and config of the campaign, its last row, and one of its Message-IDs."""
        (columns,) = yield self.statement(_LOADED)
        name, secret, config, last_row, message_id = columns
        return name, secret, config, last_row, message_id

    def read_earlier(self, keys: Sequence[str]) -> Script[dict[str, int]]:
        """Return the row of each mailbox that is in the ledger, by its key."""
        return dict((yield self.statement(self.READ_EARLIER, keys=json.dumps(keys))))

    # Keys of an older ledger, see `loading.upgrade_keys`.

    def list_key_blocks(self) -> Script[Iterable[int]]:
        """Return the first batch of each block of rows that `read_keys` reads."""
        batches = yield from self.list_batches()
        return range(0, len(batches), ENTRY_BATCHES)

    def read_keys(self, first: int) -> Script[list[RowKey]]:
        """Return the rows with a key in `ENTRY_BATCHES` batches from batch `first` on, in file order."""
        rows = yield self.statement(_KEYS, first=first, end=first + ENTRY_BATCHES)
        return [RowKey(row, key, address, ROW_STATES[state]) for row, key, address, state in rows]

    def read_key(self, row: int) -> Script[RowKey]:
        """Return one row that has a key."""
        ((row, key, address, state),) = yield self.statement(_KEY, batch=batch_number(row), row=row)
        return RowKey(row, key, address, ROW_STATES[state])

    def write_key(self, row: int, key: str | None) -> Script[None]:
        """Give a row another key; None: it no longer has one."""
        yield self.statement(_WRITE_KEY, batch=batch_number(row), row=row, key=key)

    def make_duplicate(self, row: RowKey, reply: str) -> Script[None]:
        """Make an unsent row SUPPRESSED, with a reply that names the other row."""
        values = {"batch": batch_number(row.row), "row": row.row, "state": row.state, "reply": reply}
        yield self.statement(_DUPLICATE, **values)

    def reject_rows(self, rows: Mapping[int, tuple[RowState, str]]) -> Script[Mapping[int, RowState]]:
        """Make unsent rows REJECTED that still have their state; arguments and result as of `suppress_rows`."""
        changed: dict[int, RowState] = {}
        for row, (state, reason) in rows.items():
            values = {"batch": batch_number(row), "row": row, "state": state, "reply": safe_text(reason, MAX_REPLY)}
            if (yield self.statement(_REJECT, **values)):
                changed[row] = state
        return changed

    def insert_pending(self, after: int) -> Script[None]:
        """Insert the state of all rows behind row `after` that are to be mailed, and of their copies."""
        for before, end in ((after, COPY_BATCH), (number_copy(after + 1, 0), _END)):
            yield self.statement(_INSERT_PENDING, batch=batch_number(before + 1), before=before, end=end)

    def insert_campaign(self, name: str, secret: str, config: str) -> Script[None]:
        """Insert the campaign itself."""
        yield self.statement(self.INSERT_CAMPAIGN, name=name, secret=secret, config=config)

    def is_begun(self) -> Script[bool]:
        """Return whether the relay was asked to take any of the rows; those that failed the checks do not count."""
        return bool((yield self.statement(_BEGUN)))

    def delete_campaign(self) -> Script[None]:
        """Delete the campaign and its rows, as before the load; what was stored by name stays."""
        yield self.statement("DELETE FROM delivery WHERE campaign_id = :campaign")
        yield self.statement("DELETE FROM recipient WHERE campaign_id = :campaign")
        yield self.statement(self.DELETE_CAMPAIGN)

    def commit(self) -> Script[None]:
        """Commit a load."""
        for statement in ("COMMIT", *self.AFTER_LOAD):
            yield self.statement(statement)

    def statement(self, template: str, **values: object) -> Statement:
        """Return a template, with the values of its parameters, as a statement of this database."""
        return Statement(_render(type(self), template), values)

    def list_batches(self, *, copies: bool = False) -> Script[Sequence[int]]:
        """Return the numbers of the batches of rows of the file, or of those of copies."""
        if copies:
            return [batch for (batch,) in (yield self.statement(_COPY_BATCHES))]
        ((last_batch,),) = yield self.statement(_LAST_BATCH)
        return range(last_batch + 1)

    def _read_mailed(self, batch: int, states: Collection[RowState]) -> Script[list[tuple[int, int, str, str, str]]]:
        """Return row, state, Message-ID, address and its key, so that no cursor runs over rows being changed."""
        rows: list[tuple[int, int, str, str, str]] = yield self.statement(
            _MAILED, batch=batch, states=_bit_mask(states)
        )
        return rows


@cache
def _render(queries: type[Queries], template: str) -> str:
    return queries.render(template)


def _bit_mask(states: Iterable[RowState]) -> int:
    return sum(1 << state for state in {*states})


def _read_rows(value: str | None) -> list[int]:
    try:
        return [int(row) for row in json.loads(value or "[]")]
    except (ValueError, TypeError) as error:
        raise LedgerError("the ledger's list of rows in doubt is damaged: restore a copy of it") from error
