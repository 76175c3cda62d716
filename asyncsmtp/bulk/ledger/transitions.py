"""The tables of rows, rows as they are read, those claimed by this process, and transitions as values to be written."""

from __future__ import annotations

import asyncio
import heapq
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any, NamedTuple

from asyncsmtp.bulk.ledger.interfaces import (
    ALLOWED_TRANSITIONS,
    FIRST_COPY,
    Claim,
    Counts,
    Entry,
    RowState,
    Settlement,
    find_file_row,
    number_copy,
)
from asyncsmtp.bulk.recipients.recipient import CopyRecipient, Recipient
from asyncsmtp.errors import LedgerError, RecipientError
from asyncsmtp.mail.mime import GroupedFields
from asyncsmtp.protocol.envelope import Mailbox
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "BATCH_SIZE",
    "COPY_BATCH",
    "DELIVERY_COLUMNS",
    "EXPIRED",
    "FORGOTTEN",
    "GROUPED",
    "IN_MESSAGE_OF",
    "MAX_REPLY",
    "OUTCOME_NAME",
    "RECIPIENT_COLUMNS",
    "RETENTION",
    "ROWS_KEY",
    "ROW_STATES",
    "UNCLEAN",
    "ClaimedRows",
    "CountsTracker",
    "RefusedRow",
    "Transition",
    "TransitionValues",
    "batch_number",
    "find_message_row",
    "find_number",
    "from_microseconds",
    "list_outcomes",
    "plain_key",
    "reply_words",
    "split_into_groups",
    "suppressed_reply",
    "to_claim",
    "to_entry",
    "to_microseconds",
]

BATCH_SIZE = 500  # rows of one batch_no
COPY_BATCH = FIRST_COPY // BATCH_SIZE  # the first batch of copies
MAX_REPLY = 512  # characters
MAX_GROUP = 256  # rows of one statement
ROWS_KEY = ""  # beside the cells of a row: those of all rows of its mailbox; no column has that name
IN_MESSAGE_OF = "in the message of row "  # how the reply of a row begins that is in the message of another one

# Names of stored values.
GROUPED = "grouped"  # there are rows in the message of another one
FORGOTTEN = "forgotten"  # the hashes of the keys that were erased, each with its row: they are not loaded again
EXPIRED = "expired"  # when everybody was erased; microseconds since 1970
RETENTION = "retention"  # seconds after the end of the campaign, by the campaign file of the last run
UNCLEAN = "unclean"  # something was erased, and its bytes may still be in free parts of the file
OUTCOME_NAME = "outcome %016d %012d"  # time in microseconds and row: by their names, outcomes are in the order of time

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

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def batch_number(row: int) -> int:
    """Return the number of the batch that holds `row`; -1 for row 0."""
    return (row - 1) // BATCH_SIZE


def suppressed_reply(reason: str) -> str:
    """Return the reply of a row that is on a suppression list."""
    return f"on a suppression list: {safe_text(reason, 400)}" if reason else "on a suppression list"


def reply_words(reply: str, local: str = "") -> str:
    """Return the words of a reply without what differs from row to row: addresses, hosts, ids and numbers.

    A word is kept if it is written as words are: letters only, and no capital behind a small letter.

    Args:
        local: the local part of the recipient's address, which may look like a word.
    """
    words = []
    for token in reply.split():
        word = token.strip("\"'“”‘’<>()[]{}.,:;!?*-/")
        plain = word.replace("-", "").replace("'", "").replace("/", "")
        if plain.isalpha() and (plain == plain.upper() or plain[1:] == plain[1:].lower()) and word != local:
            words.append(word.casefold())
    return " ".join(words)


def from_microseconds(us: int) -> datetime:
    """Return microseconds since 1970 as a time in UTC. Raises LedgerError: no clock has shown that time."""
    try:
        return _EPOCH + timedelta(microseconds=us)
    except (OverflowError, TypeError) as error:
        raise LedgerError("a time in the ledger is damaged: restore a copy of it") from error


def to_microseconds(time: datetime) -> int:
    """Return a time as whole microseconds since 1970; exact, unlike a computation with floats."""
    return (time - _EPOCH) // _MICROSECOND


class TransitionValues(NamedTuple):
    """Values of one transition, in the order of the statements' columns; 0 and "" where there is nothing to store.

    They are plain numbers and strings on purpose. For anything else, be it None, a bool or an enum member, the sqlite3
    module looks for an adapter, which takes ten times as long, with the interpreter's lock held.
    """

    seq: int
    old: int
    new: int
    tried: int = 0
    new_doubts: int = 0
    code: int = 0
    status: str = ""
    reply: str = ""
    host: str = ""
    due: int = 0
    postponed: int = 0


@dataclass(slots=True)
class Transition:
    """One row goes from one state to another.

    Attributes:
        before: the state that the row must have; anything else is a bug.
        tried: added to the number of attempts.
        settlement: the outcome; None for a mark, for a released row, and for a row that is postponed.
        due: of a row that is postponed: its new time, microseconds since 1970.
        done: resolved when the transition is durable.
        outcome: text about the outcome, to be kept until it was posted; "": nothing is to be kept.
    """

    row: int
    before: RowState
    after: RowState
    tried: int = 0
    settlement: Settlement | None = None
    due: int | None = None
    done: asyncio.Future[None] | None = None
    outcome: str = ""

    def values(self, before: RowState | None = None) -> TransitionValues:
        """Return the values to be written; `before` replaces the state that the row must have."""
        old, new = int(self.before if before is None else before), int(self.after)
        settlement, tried = self.settlement, int(self.tried)
        if settlement is None:
            return TransitionValues(self.row, old, new, tried, due=self.due or 0, postponed=int(self.due is not None))
        reply, host = safe_text(settlement.reply, MAX_REPLY), safe_text(settlement.host, MAX_REPLY)
        doubts = int(self.after is RowState.IN_DOUBT)
        due = 0 if settlement.due_at is None else to_microseconds(settlement.due_at)
        code, status = settlement.code or 0, settlement.status or ""
        return TransitionValues(self.row, old, new, tried, doubts, code, status, reply, host, due)


def list_outcomes(transitions: Iterable[Transition], now: int) -> list[tuple[str, str]]:
    """Return the outcomes to be kept, with their names; see `Queries.read_outcomes`."""
    return [(OUTCOME_NAME % (now, one.row), one.outcome) for one in transitions if one.outcome]


def split_into_groups(transitions: Sequence[Transition]) -> Iterator[list[Transition]]:
    """Split where a row occurs a second time or a statement would be too long: within a group the order is free."""
    group: list[Transition] = []
    rows: set[int] = set()
    for transition in transitions:
        if transition.row in rows or len(group) == MAX_GROUP:
            yield group
            group, rows = [], set()
        group.append(transition)
        rows.add(transition.row)
    if group:
        yield group


@dataclass(slots=True)
class _Row:
    claim: Claim
    state: RowState
    released: bool = False  # and not claimed again


class ClaimedRows:
    """Rows claimed by this process, with their state: in memory only, since recovery needs no trace of a claim.

    A transition that is not in `ALLOWED_TRANSITIONS` is a bug of asyncsmtp and raises LedgerError.

    Attributes:
        last_row: the last row that was read in file order; the next ones come after it.
        last_copy: the last copy that was read in file order.
    """

    def __init__(self) -> None:
        self.last_row = 0
        self.last_copy = FIRST_COPY
        self._rows: dict[int, _Row] = {}
        self._released: list[int] = []  # a heap

    def __iter__(self) -> Iterator[int]:
        return iter(self._rows)

    def __len__(self) -> int:
        return len(self._rows)

    def claim(self, found: Iterable[tuple[Claim, RowState]], limit: int | None = None) -> list[Claim]:
        """Claim rows that were read, `limit` at most; rows that are claimed already are skipped."""
        new = ((claim, state) for claim, state in found if claim.recipient.row not in self._rows)
        claims = []
        for claim, state in islice(new, limit):
            self._rows[claim.recipient.row] = _Row(claim, state)
            claims.append(claim)
        return claims

    def claim_released(self, limit: int) -> list[Claim]:
        """Claim released rows again, in file order."""
        claims: list[Claim] = []
        while self._released and len(claims) < limit:
            row = self._rows[heapq.heappop(self._released)]
            row.released = False
            claims.append(row.claim)
        return claims

    def list_unsent(self) -> list[tuple[Claim, RowState]]:
        """Return the claims that are not past their mark, with their states."""
        return [(row.claim, row.state) for row in self._rows.values() if row.state is not RowState.SENDING]

    def rewind(self) -> None:
        """Read from the beginning of the file again: rows before `last_row` may be pending again."""
        self.last_row = 0
        self.last_copy = FIRST_COPY

    def advance(self, row: int, after: RowState) -> RowState:
        """Move a row to `after`; return the state it had. Raises LedgerError: it is not claimed, or may not move."""
        claimed = self._get(row)
        before = claimed.state
        if after not in ALLOWED_TRANSITIONS[before]:
            raise LedgerError(f"row {row} cannot go from {before} to {after}: this is a bug")
        claimed.state = after
        return before

    def remove(self, row: int) -> Claim:
        """Remove a settled row; return its claim."""
        return self._rows.pop(row).claim

    def postpone(self, row: int) -> RowState:
        """Remove a row that was not marked; return its state."""
        claimed = self._rows.get(row)
        if claimed is None or claimed.released or claimed.state not in (RowState.PENDING, RowState.DEFERRED):
            raise LedgerError(f"row {row} cannot be postponed: this is a bug")
        del self._rows[row]
        return claimed.state

    def release(self, row: int, *, tried: bool) -> RowState:
        """Let a row be claimed again; return the state it had."""
        claimed = self._get(row)
        before = claimed.state
        if before is RowState.SENDING:
            claimed.state = RowState.PENDING
        if tried:
            claimed.claim = claimed.claim._replace(attempt=claimed.claim.attempt + 1)
        claimed.released = True
        heapq.heappush(self._released, row)
        return before

    def _get(self, row: int) -> _Row:
        claimed = self._rows.get(row)
        if claimed is None or claimed.released:
            raise LedgerError(f"row {row} is not claimed: this is a bug")
        return claimed


class CountsTracker:
    """Row counts by state: counted once, then updated with what is written."""

    def __init__(self, counts: Counts) -> None:
        self._numbers = dict(counts)

    @property
    def counts(self) -> Counts:
        """The current counts."""
        return Counts(self._numbers)

    def reset(self, counts: Counts) -> None:
        """Replace the counts by new ones."""
        self._numbers = dict(counts)

    def apply(self, transitions: Sequence[Transition]) -> None:
        """Count transitions that are durable."""
        for transition in transitions:
            self.move(transition.before, transition.after, 1)

    def move(self, before: RowState, after: RowState, number: int) -> None:
        """Move `number` rows from one state to another."""
        self._numbers[before] -= number
        self._numbers[after] += number

    def move_all(self, moves: Mapping[tuple[RowState, RowState], int]) -> None:
        """Move so many rows from the first state of each pair to the second."""
        for (before, after), number in moves.items():
            self.move(before, after, number)


ROW_STATES = tuple(RowState)  # by their numbers: `RowState(number)` would be a third of the time that `to_claim` takes


class RefusedRow(NamedTuple):
    """One unsent row whose address may not be used: an older asyncsmtp took it."""

    row: int
    reason: str


def find_number(found: Claim | RefusedRow) -> int:
    """Return the number in the ledger of a row that was read to be sent."""
    return found.row if isinstance(found, RefusedRow) else found.recipient.row


def to_claim(run: int, columns: Sequence[Any]) -> tuple[Claim | RefusedRow, RowState]:
    """Return a row that was read to be sent. Raises LedgerError: it is damaged."""
    row, address, message_id, fields, attempts, state, first_us, epoch = columns
    try:
        cells = json.loads(fields)
        if fields[0] == "[":
            recipient: Recipient = _to_copy(row, Mailbox.parse(address), *cells)
        else:
            recipient = Recipient(row, Mailbox.parse(address), _to_fields(cells))
        if first_us is None:
            return Claim(recipient, message_id, attempts + 1), ROW_STATES[state]
        is_retry = epoch == run and state == RowState.DEFERRED
        return Claim(recipient, message_id, attempts + 1, from_microseconds(first_us), is_retry), ROW_STATES[state]
    except RecipientError as error:
        return RefusedRow(row, error.reason), ROW_STATES[state]
    except (ValueError, TypeError, RecursionError, IndexError) as error:
        raise _damaged(row) from error


def _to_fields(cells: dict[str, Any]) -> dict[str, str]:
    """Return the cells of a row, with those of all rows where they are in one message."""
    if ROWS_KEY not in cells:
        return cells
    rows = cells.pop(ROWS_KEY)
    return GroupedFields(cells, [dict(zip(cells, row, strict=True)) for row in rows])


def plain_key(key: str) -> str:
    """Return the key of an address without what is added where each of its rows has a message of its own."""
    address, _, added = key.rpartition(" ")
    return address if address and "@" not in added else key


def find_message_row(entry: Entry) -> int:
    """Return the row in whose message this row is; 0 for a row with a message of its own, or with none."""
    if entry.state is not RowState.SUPPRESSED or not entry.reply.startswith(IN_MESSAGE_OF):
        return 0
    return int(entry.reply.removeprefix(IN_MESSAGE_OF))


def to_entry(columns: Sequence[Any]) -> Entry:
    """Return a row with all that is known of it. Raises LedgerError: it is damaged."""
    row, address, message_id, state, attempts, doubts, code, status, reply, host, *times, fields = columns
    try:
        first_at, last_at, due_at = (None if us is None else from_microseconds(us) for us in times)
        cells, kind, place, to = json.loads(fields), "to", 0, ""
        if fields[0] == "[":
            kind, to, header_id, cells = cells
            place = row - number_copy(find_file_row(row), 0)
            row, message_id = find_file_row(row), message_id and header_id
        cells = _to_fields(dict(cells))
        numbers = (ROW_STATES[state], int(attempts), int(doubts), None if code is None else int(code), status)
    except (ValueError, TypeError, RecursionError, IndexError) as error:
        raise _damaged(row) from error
    return Entry(row, address, message_id, *numbers, reply, host, first_at, last_at, cells, due_at, kind, place, to)


def _to_copy(row: int, mailbox: Mailbox, kind: str, to: str, message_id: str, cells: Any) -> CopyRecipient:
    """Return somebody in Cc or Bcc; the arguments are what a copy has in place of cells, see `copies`."""
    return CopyRecipient(row, mailbox, _to_fields(dict(cells)), kind=kind, to=Mailbox.parse(to), message_id=message_id)


def _damaged(row: int) -> LedgerError:
    return LedgerError(f"row {row} of the ledger is damaged: restore a copy of it")
