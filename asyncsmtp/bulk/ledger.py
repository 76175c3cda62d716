"""The ledger: what is known about every recipient of a campaign, and what may follow what.

A row is written twice on its way: `mark` makes it SENDING *before* the point of no return, `settle`
writes what became of it. So whatever ends the process, the file says of every row that it was not
sent, that the relay answered, or that nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient
from asyncsmtp.bulk.states import Counts, State

__all__ = [
    "Claim",
    "Decision",
    "Entry",
    "InDoubt",
    "Ledger",
    "LedgerReader",
    "Recovery",
    "Settlement",
]


class InDoubt(StrEnum):
    """What becomes of rows whose content was sent and whose reply never came."""

    HOLD = "hold"  # nothing goes twice without a person's word
    RESEND = "resend"  # once more by itself, at the next start; at most two copies


class Decision(StrEnum):
    """What a person decides about a row."""

    RESEND = "resend"
    SKIP = "skip"


# Tuples, both: each row takes one of each, and a frozen dataclass costs three times as much to make.


class Claim(NamedTuple):
    """One row this process has in hand.

    Attributes:
        message_id: without angle brackets; the same on every attempt.
        attempt: which one this would be, from 1.
        first_at: when it was first tried, UTC; None when it never was.
        again: this run has tried it before, and its time came.
    """

    recipient: Recipient
    message_id: str
    attempt: int
    first_at: datetime | None = None
    again: bool = False


class Settlement(NamedTuple):
    """What became of one row in hand.

    Attributes:
        state: ACCEPTED, DEFERRED, REJECTED or IN_DOUBT.
        code: the relay's reply code; None when it was not the relay that decided.
        status: the enhanced status code, such as "5.1.1".
        reply: the relay's words, or the reason; stored harmless, at most 512 characters.
        host: which relay; "" when none had a part in it.
        due_at: of a row that is DEFERRED: from when on it may be tried again; None: by the next run.
    """

    row: int
    state: State
    code: int | None = None
    status: str | None = None
    reply: str = ""
    host: str = ""
    due_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """Everything the ledger knows of one row.

    Attributes:
        address: "" for a row of the file that holds none; its `reply` says why.
        message_id: without angle brackets; "" for rows that were never to be mailed.
        attempts: how often it was tried.
        doubts: how often its content was sent without an answer.
        first_at: when it was first tried; None when it never was.
        last_at: when it was last written; None when it never was since the load.
        due_at: of a row that is DEFERRED or was put off: from when on it may be tried; None: by the next run, or at
            once. All are UTC.
    """

    row: int
    address: str
    message_id: str
    state: State
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


@dataclass(frozen=True, slots=True)
class Recovery:
    """What opening a ledger found of the run before, and did about it.

    Attributes:
        found: rows that were past their mark when that run ended; each is now in doubt, once more.
        resent: rows in doubt that are pending again, because the policy says resend.
        held: rows in doubt that wait for a person.
    """

    found: int = 0
    resent: int = 0
    held: int = 0


class LedgerReader(Protocol):
    """A ledger to look at."""

    async def counts(self) -> Counts:
        """How many rows are in each state."""
        ...

    def entries(self, states: Iterable[State] | None = None) -> AsyncGenerator[Entry]:
        """Every row in one of `states` (None: all), in file order, in bounded memory."""
        ...

    async def next_due(self) -> datetime | None:
        """From when on the first of the rows that are to come may be tried, UTC; None: none by this run.

        Where one may be at once, it is a time that is over.
        """
        ...

    async def aclose(self) -> None: ...


class Ledger(LedgerReader, Protocol):
    """A ledger to run a campaign with. Every method raises the LedgerError that ended the ledger, once one has.

    Attributes:
        loaded: whether the campaign's rows are in it.
        created_at: when they were loaded, UTC; the same in every run. Raises LedgerError before that.
        recovery: what opening it found and did.
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

    async def load(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Take in the whole file, or nothing: when `recipients` raises, or this is cancelled, there is no campaign.

        A second row for the same mailbox becomes SUPPRESSED, a Problem REJECTED; both say why.
        """
        ...

    async def add(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Take in further rows behind those that are there, all of them or none; return the counts of all.

        Their numbers go on. Who is in the ledger already becomes SUPPRESSED, as a second row of a file does.
        """
        ...

    async def suppress(self) -> int:
        """Have the rows to come that are on a suppression list SUPPRESSED; return how many.

        `claim` does so with what it takes, so that an entry made while a run goes on counts.

        Raises:
            SuppressionError: a list cannot be used.
        """
        ...

    async def claim(self, limit: int) -> list[Claim]:
        """Take up to `limit` rows in hand; none left: an empty list.

        First those given back, then those deferred or put off whose time has come, by their times, then in file order
        the pending ones and those that an earlier run deferred without a time, each of these once in a run.
        Cancelled, it leaves every row where it was.
        """
        ...

    async def ready(self) -> int:
        """How many rows `claim` would give, one after the other, by now."""
        ...

    def mark(self, claim: Claim) -> asyncio.Future[None]:
        """Say that the end of this row's content is about to be written; done when that is durable.

        Cancelling the future does not take the mark back: `give_back` does.
        """
        ...

    def settle(self, settlement: Settlement) -> None:
        """Write what became of a row in hand; durable before any mark made later, soon in any case.

        After a failure the outcome is kept in `unsettled` before the error is raised.
        """
        ...

    def give_back(self, claim: Claim, *, tried: bool = False) -> None:
        """A row in hand is pending again, and may be claimed again in this run.

        Only for one whose end of content was not written, not even in part. `tried` says that the
        relay answered something, so that it counts as an attempt. Does nothing after a failure.
        """
        ...

    def put_off(self, claim: Claim, until: datetime) -> None:
        """A row in hand that was not tried is to come at another time, in this run or in a later one.

        What comes after it in the file need not wait for it. Durable soon.
        """
        ...

    async def recall(self, name: str) -> str | None:
        """What an earlier run left under `name`; None: nothing."""
        ...

    async def remember(self, name: str, value: str) -> None:
        """Leave something for the next run, durably."""
        ...

    async def flush(self) -> None:
        """Wait until everything said so far is durable."""
        ...

    async def resolve(
        self,
        decision: Decision,
        rows: Iterable[int] | None = None,
        states: Iterable[State] = (State.IN_DOUBT,),
    ) -> int:
        """Carry out a person's decision about rows in doubt, deferred or rejected; return how many it changed.

        RESEND makes them pending. SKIP makes those in doubt and deferred REJECTED, with a reply that says so: a
        person's decision is a reason of ours, whereas ACCEPTED always stands for a relay's word.
        Rows in hand, and rows that hold no address, stay as they are.

        Args:
            rows: which; None for all.
            states: of those, only rows in one of these.
        """
        ...

    async def bounced(self, bounces: Mapping[str, Bounce]) -> Sequence[tuple[str, Bounce]]:
        """Have the rows whose messages came back, after they were accepted or in doubt, REJECTED.

        Returns the address of each, as the ledger has it, with its report. A second time it changes nothing.

        Args:
            bounces: by the left part of the Message-ID of the message.
        """
        ...
