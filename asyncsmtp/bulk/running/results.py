"""Results of a campaign: the end of a run, the outcome of a row, counts by state, and rows chosen by what is known."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from asyncsmtp.bulk.ledger.interfaces import (
    Claim,
    Decision,
    Entry,
    Ledger,
    LedgerReader,
    RowState,
    Settlement,
    find_file_row,
    list_numbers,
)
from asyncsmtp.bulk.recipients.recipient import CopyRecipient
from asyncsmtp.errors import ConfigError, check_type

__all__ = [
    "CampaignResult",
    "ExitReason",
    "RowOutcome",
    "RowSelection",
    "StateCounts",
    "count_by_word",
    "find_states",
    "make_row_outcome",
    "resolve_rows",
    "select_rows",
]

MAX_ROW = 2**63 - 1  # the largest integer of a database
_T = TypeVar("_T")


class ExitReason(StrEnum):
    """The reason why a run ended. What ends it otherwise is raised."""

    COMPLETE = "complete"  # every row has its final outcome, or is in doubt
    LIMIT = "limit"  # the run's `limit` is reached
    WAITING = "waiting"  # rows are left for later: `resumes_at`
    STOPPED = "stopped"  # `stop` was called, or the loop over the outcomes was left


@dataclass(frozen=True, slots=True)
class CampaignResult:
    """State of a campaign after a run.

    Attributes:
        counts: rows of the whole campaign by state, such as "accepted", "rejected" or "in doubt"; each state is there.
        resumes_at: from when on the first of the rows that are left may be tried, UTC; None: at once, or none is left.
    """

    counts: Mapping[str, int]
    exit_reason: ExitReason
    resumes_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class RowOutcome:
    """Outcome of one recipient, as it was queued for the ledger: durable up to 50 ms and a commit later.

    Attributes:
        row: counts the records of the recipients from 1.
        fields: its cells by column.
        state: ACCEPTED, DEFERRED, REJECTED or IN_DOUBT.
        code, status: of the relay's reply, such as 550 and "5.1.1"; None where no relay decided.
        reply: the relay's words, or the reason.
        attempt: counts from 1.
        message_id: without angle brackets.
        kind: "to", or "cc" or "bcc" of a copy.
    """

    row: int
    address: str
    fields: Mapping[str, str]
    state: RowState
    code: int | None
    status: str | None
    reply: str
    host: str
    attempt: int
    message_id: str
    kind: str = "to"


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSelection:
    """Rows of a ledger by what is known of them; everything that is given must hold.

    Attributes:
        states: None for all. rows: their numbers. codes: of the relay's reply. statuses: enhanced codes.
        reply: a part of the relay's words, or of the reason; capitals do not matter.
        since: changed at this time or later.
        host: the relay, with or without its port.
        halted: only rows that were rejected before a run was halted, and to which nothing has happened since.
    """

    states: frozenset[RowState] | None = None
    rows: frozenset[int] | None = None
    codes: frozenset[int] | None = None
    statuses: frozenset[str] | None = None
    reply: str = ""
    since: datetime | None = None
    host: str = ""
    halted: bool = False

    @property
    def needs_entries(self) -> bool:
        """True if states and numbers alone do not tell the rows."""
        return bool(self.codes or self.statuses or self.reply or self.since or self.host or self.halted)

    async def entries(self, ledger: LedgerReader) -> AsyncGenerator[Entry]:
        """Yield the rows, in file order."""
        halted = await ledger.halted_rows() if self.halted else None
        async with aclosing(ledger.entries(self.states)) as entries:
            async for entry in entries:
                if (halted is None or entry.number in halted) and self._matches(entry):
                    yield entry

    def _matches(self, entry: Entry) -> bool:
        return (
            (self.rows is None or entry.row in self.rows)
            and (not self.codes or entry.code in self.codes)
            and (not self.statuses or entry.status in self.statuses)
            and self.reply.casefold() in entry.reply.casefold()
            and (self.since is None or (entry.last_at is not None and entry.last_at >= self.since))
            and (not self.host or self.host.lower() in (entry.host.lower(), entry.host.rpartition(":")[0].lower()))
        )


def select_rows(
    rows: int | Iterable[int] | None,
    states: str | RowState | Iterable[str | RowState] | None,
    codes: int | Iterable[int] | None,
    enhanced_codes: str | Iterable[str] | None,
    reply: str,
    since: datetime | None,
    host: str,
    *,
    halted: bool,
) -> RowSelection:
    """Return the selection of the arguments of `Campaign.resolve`.

    Raises:
        ConfigError: there is no such state, or a time without a zone. TypeError: a wrong type.
    """
    for name, value, kind in (("reply=", reply, str), ("host=", host, str), ("halted=", halted, bool)):
        check_type(name, value, kind)
    check_type("since=", since, datetime, None)
    if since is not None and since.tzinfo is None:
        raise ConfigError(f"since={since} has no time zone", "pass a time with one, such as datetime.now(UTC)")
    numbers, replies = _check_each("rows=", rows, int), _check_each("codes=", codes, int)
    statuses = _check_each("enhanced_codes=", enhanced_codes, str)
    if states is None:
        states = RowState.REJECTED if codes is not None or statuses is not None or halted else RowState.IN_DOUBT
    return RowSelection(
        states=frozenset(find_states(states)),
        rows=None if numbers is None else frozenset(row for row in numbers if abs(row) <= MAX_ROW),
        codes=None if replies is None else frozenset(replies),
        statuses=None if statuses is None else frozenset(statuses),
        reply=reply,
        since=since,
        host=host,
        halted=halted,
    )


def _check_each(name: str, value: _T | Iterable[_T] | None, kind: type[_T]) -> list[_T] | None:
    """Return one value or several as a list."""
    if value is None:
        return None
    found = list(value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    for each in found:
        check_type(name, each, kind)
    return found


async def resolve_rows(ledger: Ledger, decision: Decision, selection: RowSelection) -> int:
    """Apply a person's decision to the rows of a selection; return how many it changed."""
    rows: Iterable[int] | None = None
    if selection.rows is not None:
        rows = [number for row in selection.rows for number in list_numbers(row)]
    if selection.needs_entries:
        async with aclosing(selection.entries(ledger)) as entries:
            rows = [entry.number async for entry in entries]
    return await ledger.resolve(decision, rows, selection.states or ())


def find_states(value: str | RowState | Iterable[str | RowState]) -> list[RowState]:
    """Return the states that a program names, one or several, as words or values.

    Raises:
        ConfigError: there is no such state. TypeError: it is neither.
    """
    if isinstance(value, str) or not isinstance(value, Iterable):
        value = [value]
    return [_find_state(each) for each in value]


def _find_state(value: object) -> RowState:
    if isinstance(value, RowState):
        return value
    check_type("states=", value, str, RowState)
    found = next((state for state in RowState if str(value).replace("_", " ") == str(state)), None)
    if found is None:
        raise ConfigError(f"there is no state {value!r}", f"the states are {', '.join(map(str, RowState))}")
    return found


class StateCounts(dict[str, int]):
    """Rows by the word of their state; `counts["in_doubt"]` and `counts[RowState.IN_DOUBT]` are found as well."""

    def __missing__(self, key: object) -> int:
        try:
            return self[str(_find_state(key))]
        except (ConfigError, TypeError):
            raise KeyError(key) from None


def count_by_word(counts: Mapping[RowState, int]) -> dict[str, int]:
    """Return counts by the words of the states."""
    return StateCounts({str(state): number for state, number in counts.items()})


def make_row_outcome(claim: Claim, settlement: Settlement) -> RowOutcome:
    """Return the outcome of a claimed row as one value."""
    copy = claim.recipient if isinstance(claim.recipient, CopyRecipient) else None
    return RowOutcome(
        row=find_file_row(settlement.row),
        address=str(claim.recipient.mailbox),
        fields=claim.recipient.fields,
        state=settlement.state,
        code=settlement.code,
        status=settlement.status,
        reply=settlement.reply,
        host=settlement.host,
        attempt=claim.attempt,
        message_id=copy.message_id if copy else claim.message_id,
        kind=copy.kind if copy else "to",
    )
