"""Public types of the ledger: `Ledger`, `LedgerReader`, the states of a row, and the values that they take and return.

The ledger knows the state of every recipient of a campaign. A row is written twice on its way: `mark` makes it SENDING
before the point of no return, `settle` writes its outcome. Whatever ends the process, the ledger says of each row that
it was not sent, that the relay answered, or that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.interfaces import RunTotals
from asyncsmtp.bulk.recipients.recipient import CopyRecipient, Problem, Recipient
from asyncsmtp.protocol.delivery import Outcome

__all__ = [
    "ALLOWED_TRANSITIONS",
    "COPIES_PER_ROW",
    "FIRST_COPY",
    "BouncedRow",
    "Claim",
    "Counts",
    "Decision",
    "Entry",
    "InDoubt",
    "LeasedLedger",
    "Ledger",
    "LedgerReader",
    "OutcomeStore",
    "Recovery",
    "Refusal",
    "RowOutcomeReader",
    "RowState",
    "Settlement",
    "Statistics",
    "find_file_row",
    "find_share",
    "list_numbers",
    "number_copy",
    "settlement_record",
]

# A ledger has a row of its own for everyone in Cc and Bcc, so that each has a state, attempts and a bounce of their
# own. Its number tells the row of the file, and is far above those: the rows of the file keep their numbers, and a
# campaign without copies has no others.
FIRST_COPY = 10**10  # numbers above this are those of copies
COPIES_PER_ROW = 100


def find_file_row(number: int) -> int:
    """Return the row of the file that a row of the ledger belongs to: itself, or that of a copy."""
    return number if number <= FIRST_COPY else (number - FIRST_COPY - 1) // COPIES_PER_ROW + 1


def number_copy(row: int, place: int) -> int:
    """Return the number in the ledger of a copy of a row's message; places count from 1."""
    return FIRST_COPY + (row - 1) * COPIES_PER_ROW + place


def list_numbers(row: int) -> list[int]:
    """Return the numbers in the ledger that a row of the file and its copies may have."""
    return [row, *range(number_copy(row, 1), number_copy(row, COPIES_PER_ROW) + 1)]


class RowState(IntEnum):
    """State of one row. The numbers are stored in the ledger; `str(state)` is the word shown to users.

    It equals that word: `state == "in doubt"`. Its hash is the number's: a set or a dict finds no word.
    """

    PENDING = 0
    SENDING = 1  # marked: its content may be past the point of no return
    ACCEPTED = 2
    DEFERRED = 3
    REJECTED = 4
    IN_DOUBT = 5
    SUPPRESSED = 6

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")

    def __eq__(self, other: object) -> bool:
        return other.replace("_", " ") == str(self) if isinstance(other, str) else int.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = int.__hash__

    @classmethod
    def from_outcome(cls, outcome: Outcome) -> RowState:
        """Return the state of a row whose transaction ended with `outcome`."""
        return cls[outcome.name]


ALLOWED_TRANSITIONS: Mapping[RowState, frozenset[RowState]] = {
    RowState.PENDING: frozenset({RowState.SENDING, RowState.DEFERRED, RowState.REJECTED, RowState.SUPPRESSED}),
    RowState.DEFERRED: frozenset({RowState.SENDING, RowState.DEFERRED, RowState.REJECTED, RowState.SUPPRESSED}),
    RowState.SENDING: frozenset(
        {RowState.ACCEPTED, RowState.DEFERRED, RowState.REJECTED, RowState.IN_DOUBT, RowState.PENDING}
    ),
}
"""Transitions that a run may make with a row it has claimed.

A row leaves IN_DOUBT only by the recovery policy or by a person's decision. SENDING -> PENDING is `Ledger.release`:
only the process that made the mark can know that the end of data was never written. Recovery therefore never does it.
"""


class Counts(Mapping[RowState, int]):
    """Number of rows in each state; every state is present."""

    __slots__ = ("_numbers",)

    def __init__(self, numbers: Mapping[RowState, int] | None = None) -> None:
        given = numbers or {}
        self._numbers = {state: given.get(state, 0) for state in RowState}

    def __getitem__(self, state: RowState) -> int:
        return self._numbers[state]

    def __iter__(self) -> Iterator[RowState]:
        return iter(self._numbers)

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def total(self) -> int:
        """Number of all rows."""
        return sum(self._numbers.values())

    def __repr__(self) -> str:
        return f"Counts({', '.join(f'{state}: {n}' for state, n in self._numbers.items() if n)})"


class InDoubt(StrEnum):
    """Policy for rows whose content was sent and whose reply was never received."""

    HOLD = "hold"  # nothing is sent twice without a person's decision
    RESEND = "resend"  # sent once more at the next start; at most two copies


class Decision(StrEnum):
    """A person's decision about a row."""

    RESEND = "resend"
    SKIP = "skip"


# `Claim` and `Settlement` are tuples. Each row needs one of each, and a frozen dataclass takes three times as long to
# make.


class Claim(NamedTuple):
    """One row that this process has claimed.

    Attributes:
        recipient: of a row of the file, or a `CopyRecipient`.
        message_id: without angle brackets; the same on every attempt.
        attempt: number of the attempt that would be next, from 1.
        first_at: time of the first attempt, UTC; None before it.
        is_retry: this run has tried the row before.
    """

    recipient: Recipient
    message_id: str
    attempt: int
    first_at: datetime | None = None
    is_retry: bool = False


class Settlement(NamedTuple):
    """The outcome of one claimed row.

    Attributes:
        row: number in the ledger: that of the file, but for copies, see `find_file_row`.
        state: ACCEPTED, DEFERRED, REJECTED or IN_DOUBT.
        code: the relay's reply code; None where the relay did not decide.
        status: the enhanced status code, such as "5.1.1".
        reply: the relay's text, or the reason; stored escaped, at most 512 characters.
        host: the relay; "" where none was involved.
        due_at: of a DEFERRED row: earliest time of the next attempt; None: in the next run.
    """

    row: int
    state: RowState
    code: int | None = None
    status: str | None = None
    reply: str = ""
    host: str = ""
    due_at: datetime | None = None


def settlement_record(claim: Claim, settlement: Settlement, *, attempt: str = "attempts") -> dict[str, object]:
    """Return one outcome of a run for NDJSON or a webhook.

    Args:
        attempt: name of the number of the attempt; a webhook has another one.
    """
    recipient = claim.recipient
    record: dict[str, object] = {
        "row": find_file_row(settlement.row),
        "email": str(recipient.mailbox),
        "state": str(settlement.state),
        "code": settlement.code,
        "status": settlement.status,
        "reply": settlement.reply,
        "host": settlement.host,
        attempt: claim.attempt,
        "message_id": claim.message_id,
    }
    if isinstance(recipient, CopyRecipient):
        record |= {"message_id": recipient.message_id, "kind": recipient.kind}
    return record


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything the ledger has about one recipient. All times are UTC.

    Attributes:
        row: of the file.
        address: "" for a row of the file that has none; its `reply` says why.
        message_id: without angle brackets; "" for rows that were never to be mailed.
        attempts: number of attempts.
        doubts: number of times its content was sent without a reply.
        first_at: time of the first attempt; None before it.
        last_at: time of the last write since the load; None before it.
        due_at: of a row that is DEFERRED or was postponed: earliest time of the next attempt; None: in the next run,
            or at once.
        kind: `to`; `cc` or `bcc` of a copy.
        copy: of a copy, its place among those of its row, from 1; 0 of the recipient in To.
        to: of a copy, the address in To; else "".
    """

    row: int
    address: str
    message_id: str
    state: RowState
    attempts: int
    doubts: int
    code: int | None
    status: str | None
    reply: str
    host: str
    first_at: datetime | None
    last_at: datetime | None
    fields: Mapping[str, str] = field(hash=False)
    due_at: datetime | None = None
    kind: str = "to"
    copy: int = 0
    to: str = ""

    @property
    def number(self) -> int:
        """Number in the ledger: that of the file, but for copies."""
        return number_copy(self.row, self.copy) if self.copy else self.row


class BouncedRow(NamedTuple):
    """One row whose message bounced, as far as the ledger has recorded it.

    Attributes:
        token: the part of the Message-ID before the @, or what else the bounce was found by.
        address: as the ledger has it: a report may name anybody.
        rejected: the row is rejected because of a bounce, and has not been sent again since.
    """

    token: str
    address: str
    bounce: Bounce
    rejected: bool


@dataclass(frozen=True, slots=True)
class Recovery:
    """Rows that the previous run left past their mark, and the result of the policy for them.

    Attributes:
        found: rows that were SENDING; each is now in doubt.
        resent: rows in doubt that are pending again, by the policy `resend`.
        held: rows in doubt that wait for a person's decision.
        changes: what changed in a campaign of which nothing was sent, so that its rows are to be loaded again.
    """

    found: int = 0
    resent: int = 0
    held: int = 0
    changes: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows that were not accepted for one reason: the same code, and the same words but for addresses and numbers.

    Attributes:
        code: 0 where the relay did not decide.
        reply: the words of the first of them.
        host: the relay that answered so; "" where none was involved.
        row: number of the first of these rows.
    """

    state: RowState
    code: int
    status: str
    reply: str
    host: str
    number: int
    row: int


@dataclass(frozen=True, slots=True)
class Statistics:
    """Figures of a campaign.

    Attributes:
        counts: all rows by state.
        first_at: time of the first attempt; None before it. last_at: time of the last outcome.
        attempts: attempts of all rows together.
        period: length of a slice of `over_time`.
        over_time: rows that were tried, by the time of their last outcome, in slices; empty ones are left out.
        by_attempts: rows that were tried, by the number of their attempts.
        by_relay: rows by the relay that replied last.
        by_domain: rows by the domain of the address, the largest domains. domains: number of all domains.
        reply_times: milliseconds from the mark of a row to its outcome, and number of such rows, where the first
            attempt was accepted; in ascending order.
        refusals: the most frequent kinds. kinds: number of all of them.
        in_doubt: the first rows in doubt, without their cells.
        totals: what the rows do not tell; runs of earlier versions are not in it.
    """

    counts: Counts
    first_at: datetime | None
    last_at: datetime | None
    attempts: int
    period: timedelta
    over_time: Mapping[datetime, Counts]
    by_attempts: Mapping[int, Counts]
    by_relay: Mapping[str, Counts]
    by_domain: Mapping[str, Counts]
    domains: int
    reply_times: Sequence[tuple[int, int]]
    refusals: Sequence[Refusal]
    kinds: int
    in_doubt: Sequence[Entry]
    totals: RunTotals = field(default_factory=RunTotals)

    @property
    def duration(self) -> timedelta:
        """Time from the first attempt to the last outcome; pauses between runs are in it."""
        if self.first_at is None or self.last_at is None:
            return timedelta()
        return max(self.last_at - self.first_at, timedelta())

    def reply_time(self, share: float) -> int | None:
        """Return the milliseconds within which this share of the replies came (0.5: the median); None: no replies."""
        return find_share(self.reply_times, share)


def find_share(times: Sequence[tuple[int, int]], share: float) -> int | None:
    """Return the value within which this share of the numbers lies, of (value, number) in ascending order."""
    wanted = share * sum(number for _, number in times)
    seen = 0
    for value, number in times:
        seen += number
        if seen >= wanted:
            return value
    return None


class LedgerReader(Protocol):
    """A ledger opened to be read, as a campaign uses it; the methods are documented in `BaseReader`.

    Attributes:
        name: the campaign's.
    """

    name: str

    async def counts(self) -> Counts: ...
    def entries(self, states: Iterable[RowState] | None = None) -> AsyncGenerator[Entry]: ...
    async def next_due(self) -> datetime | None: ...
    async def counts_by_relay(self) -> Mapping[str, Counts]: ...
    async def halted_rows(self) -> frozenset[int]: ...
    async def statistics(self) -> Statistics: ...
    async def aclose(self) -> None: ...


class Ledger(LedgerReader, Protocol):
    """A ledger to run a campaign with; the methods are documented in `BaseLedger`.

    Once the ledger has failed, every method raises the LedgerError that ended it.

    Attributes:
        loaded: whether it holds the campaign's rows.
        created_at: time of the load, UTC; the same in every run. Raises LedgerError before the load.
        recovery: the result of recovery when it was opened.
        failed: raises the LedgerError that ends this ledger; await it through `asyncio.shield`.
        unsettled: after a failure, the outcomes that could not be written, oldest first.
    """

    @property
    def loaded(self) -> bool: ...
    @property
    def created_at(self) -> datetime: ...
    @property
    def recovery(self) -> Recovery: ...
    @property
    def failed(self) -> asyncio.Future[None]: ...
    @property
    def unsettled(self) -> Sequence[Settlement]: ...

    async def load(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts: ...
    async def add(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts: ...
    async def suppress(self) -> int: ...
    async def claim(self, limit: int) -> list[Claim]: ...
    async def find_listed(self) -> Mapping[int, str]: ...
    async def count_ready(self) -> int: ...
    def mark(self, claim: Claim) -> asyncio.Future[None]: ...
    def settle(self, settlement: Settlement) -> None: ...
    def release(self, claim: Claim, *, tried: bool = False) -> None: ...
    def postpone(self, claim: Claim, until: datetime) -> None: ...
    async def read_value(self, name: str) -> str | None: ...
    async def write_value(self, name: str, value: str) -> None: ...
    async def record_halt(self, rows: Iterable[int]) -> None: ...
    async def flush(self) -> None: ...
    async def resolve(
        self, decision: Decision, rows: Iterable[int] | None = None, states: Iterable[RowState] = (RowState.IN_DOUBT,)
    ) -> int: ...
    async def record_bounces(self, bounces: Mapping[str, Bounce]) -> Sequence[tuple[str, Bounce]]: ...
    async def find_bounced(self, bounces: Mapping[str, Bounce]) -> Sequence[BouncedRow]: ...


@runtime_checkable
class RowOutcomeReader(Protocol):
    """A ledger that tells the outcome of rows in the message of another one; see `BaseReader.entries_by_row`."""

    def entries_by_row(self, states: Iterable[RowState] | None = None) -> AsyncGenerator[Entry]: ...


@runtime_checkable
class LeasedLedger(Protocol):
    """A ledger of which several workers send the rows; the methods are documented in `WorkerLedger`."""

    async def guard(self, mark: asyncio.Future[None]) -> None: ...


@runtime_checkable
class OutcomeStore(Protocol):
    """A ledger that keeps outcomes until they were posted; the methods are documented in `BaseLedger`."""

    def keep_outcomes(self, describe: Callable[[Claim, Settlement], str]) -> None: ...
    async def read_outcomes(self, after: str, limit: int) -> Sequence[tuple[str, str]]: ...
    async def remove_outcomes(self, names: Sequence[str]) -> None: ...
    async def count_outcomes(self) -> int: ...
