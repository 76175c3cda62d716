"""Results of a campaign: the end of a run, the outcome of a row, counts by state, and rows chosen by what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar
from warnings import warn
from weakref import ref

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
from asyncsmtp.errors import ConfigError, LocalProtocolError, check_type

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from asyncsmtp.bulk.open_campaign import OpenCampaign
    from asyncsmtp.bulk.running.runner import Run

__all__ = [
    "CampaignResult",
    "CampaignRun",
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


class _RunCampaign(Protocol):
    """A campaign, as far as its runs use it; `Campaign` documents both."""

    _loops: list[tuple[ref[object], asyncio.Event]]

    async def _wait_closed(self) -> None: ...


class CampaignRun(Coroutine[Any, Any, CampaignResult]):
    """One run of a campaign: await it for the result, or iterate over the outcomes, once. See `Campaign.run`.

    Awaiting it again returns the result. It is a coroutine, for `asyncio.run` and `create_task`.

    Attributes:
        result: the state of the campaign after the run; None before its end.
    """

    def __init__(
        self,
        campaign: _RunCampaign,
        open_campaign: Callable[[], AbstractAsyncContextManager[OpenCampaign]],
        *,
        limit: int | None,
        wait: bool,
        strict: bool,
        keep_going: bool,
        processes: int,
    ) -> None:
        """Use `Campaign.run`."""
        self.result: CampaignResult | None = None
        self._campaign = campaign
        self._open = open_campaign
        self._limit = limit
        self._wait = wait
        self._strict = strict
        self._keep_going = keep_going
        self._processes = processes
        self._run: Run | None = None
        self._stopped = False
        self._is_managed = False
        self._iterator: AsyncGenerator[RowOutcome] | None = None
        self._is_used = False
        self._sent: Coroutine[Any, Any, CampaignResult] | None = None
        self._attempts = 0

    def stop(self) -> None:
        """Begin nothing new; the run ends when what is in flight is answered."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    def __await__(self) -> Generator[None, None, CampaignResult]:
        return self._finish().__await__()

    def send(self, value: object) -> Any:
        """Go on, as a task does."""
        self._sent = self._sent or self._finish()
        return self._sent.send(value)

    def throw(self, *error: Any) -> Any:
        """Raise an error where it waits, as a task does."""
        self._sent = self._sent or self._finish()
        return self._sent.throw(*error)

    def close(self) -> None:
        """Break off, as `asyncio` does with a coroutine that nobody awaits."""
        self._is_used = True
        if self._sent is not None:
            self._sent.close()

    def __del__(self) -> None:
        if not self._is_used and self._sent is None:
            warn(f"the run of {self._campaign!r} was never awaited", RuntimeWarning, 2, self)

    def __aiter__(self) -> AsyncGenerator[RowOutcome]:
        self._use()
        closed = asyncio.Event()
        closed.set()  # until it has begun
        outcomes = self._outcomes(closed)
        self._campaign._loops.append((ref(outcomes), closed))
        if self._is_managed:  # else nobody but the loop may have it: when the loop is left, it is closed
            self._iterator = outcomes
        return outcomes

    async def __aenter__(self) -> Self:
        self._is_managed = True
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._iterator is not None:
            await self._iterator.aclose()

    def _use(self) -> None:
        if self._is_used:
            raise LocalProtocolError("this run is over, or under way: call campaign.run() again")
        self._is_used = True

    async def _finish(self) -> CampaignResult:
        if self._is_used:
            await self._campaign._wait_closed()
        if self.result is not None:
            return self.result
        self._use()
        async with self._begun() as (opened, run):
            if run is not None:
                await run.run()
            return await self._conclude(opened, run)

    async def _outcomes(self, closed: asyncio.Event) -> AsyncGenerator[RowOutcome]:
        from asyncsmtp.bulk.running.runner import outcomes

        closed.clear()
        try:
            async with self._begun() as (opened, run):
                if run is not None:
                    async with aclosing(outcomes(run)) as found:
                        try:
                            async for claim, settlement in found:
                                yield make_row_outcome(claim, settlement)
                        except GeneratorExit:
                            self._stopped = True
                            await found.aclose()
                            await self._conclude(opened, run)
                            raise
                await self._conclude(opened, run)
        finally:
            closed.set()

    @asynccontextmanager
    async def _begun(self) -> AsyncGenerator[tuple[OpenCampaign, Run | None]]:
        """Open the campaign and have its recipients loaded; start a run, if anything is left to send."""
        async with self._open() as opened, AsyncExitStack() as stack:
            await opened.begin(strict=self._strict)
            if not self._stopped and await opened.count_ready(wait=self._wait):
                start = partial(opened.start, limit=self._limit, wait=self._wait, keep_going=self._keep_going)
                self._run = await stack.enter_async_context(start(watch=self._count, processes=self._processes))
            else:
                await opened.post_outcomes()
            yield opened, self._run

    def _count(self, claim: Claim, settlement: Settlement) -> None:
        self._attempts += 1

    async def _conclude(self, campaign: OpenCampaign, run: Run | None) -> CampaignResult:
        counts = await campaign.ledger.counts()
        resumes_at = (run and run.resumes_at) or await campaign.ledger.next_due()
        if not (counts[RowState.PENDING] or counts[RowState.DEFERRED]):
            reason, resumes_at = ExitReason.COMPLETE, None
        elif self._stopped:
            reason = ExitReason.STOPPED
        elif self._limit is not None and self._attempts >= self._limit:
            reason = ExitReason.LIMIT
        else:
            reason = ExitReason.WAITING
        if resumes_at is not None and resumes_at <= datetime.now(UTC):
            resumes_at = None
        self.result = CampaignResult(count_by_word(counts), reason, resumes_at)
        return self.result
