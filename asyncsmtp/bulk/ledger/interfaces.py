"""Public types of the ledger: `Ledger`, `LedgerReader`, the states of a row, and the values that they take and return.

The ledger knows the state of every recipient of a campaign. A row is written twice on its way: `mark` makes it SENDING
before the point of no return, `settle` writes its outcome. Whatever ends the process, the ledger says of each row that
it was not sent, that the relay answered, or that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.protocol.delivery import Outcome

__all__ = [
    "ALLOWED_TRANSITIONS",
    "BouncedRow",
    "Claim",
    "Counts",
    "Decision",
    "Entry",
    "InDoubt",
    "Ledger",
    "LedgerReader",
    "OutcomeStore",
    "Recovery",
    "RowState",
    "Settlement",
]


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
    RowState.PENDING: frozenset({RowState.SENDING, RowState.DEFERRED, RowState.REJECTED}),
    RowState.DEFERRED: frozenset({RowState.SENDING, RowState.DEFERRED, RowState.REJECTED}),
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


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything the ledger has about one row. All times are UTC.

    Attributes:
        address: "" for a row of the file that has none; its `reply` says why.
        message_id: without angle brackets; "" for rows that were never to be mailed.
        attempts: number of attempts.
        doubts: number of times its content was sent without a reply.
        first_at: time of the first attempt; None before it.
        last_at: time of the last write since the load; None before it.
        due_at: of a row that is DEFERRED or was postponed: earliest time of the next attempt; None: in the next run,
            or at once.
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


class LedgerReader(Protocol):
    """A ledger opened to be read, as a campaign uses it; the methods are documented in `BaseReader`."""

    async def counts(self) -> Counts: ...
    def entries(self, states: Iterable[RowState] | None = None) -> AsyncGenerator[Entry]: ...
    async def next_due(self) -> datetime | None: ...
    async def counts_by_relay(self) -> Mapping[str, Counts]: ...
    async def halted_rows(self) -> frozenset[int]: ...
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
class OutcomeStore(Protocol):
    """A ledger that keeps outcomes until they were posted; the methods are documented in `BaseLedger`."""

    def keep_outcomes(self, describe: Callable[[Claim, Settlement], str]) -> None: ...
    async def read_outcomes(self, after: str, limit: int) -> Sequence[tuple[str, str]]: ...
    async def remove_outcomes(self, names: Sequence[str]) -> None: ...
    async def count_outcomes(self) -> int: ...
