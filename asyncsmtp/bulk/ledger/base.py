"""The ledger over a `Store`: everything that is the same for SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from asyncsmtp.bulk.bounces.dsn import Bounce
from asyncsmtp.bulk.interfaces import ThreadRunner
from asyncsmtp.bulk.ledger import bounced_rows, copies
from asyncsmtp.bulk.ledger.interfaces import BouncedRow, Claim, Counts, Decision, Entry, RowState, Settlement
from asyncsmtp.bulk.ledger.loading import (
    EntryScript,
    Fingerprint,
    ListedRows,
    Loader,
    SuppressionLookup,
    read_entries_by_row,
)
from asyncsmtp.bulk.ledger.queries import ENTRY_BATCHES, CampaignRow, Queries, RunStart, Script, no_statement
from asyncsmtp.bulk.ledger.transitions import (
    GROUPED,
    RETENTION,
    UNCLEAN,
    ClaimedRows,
    CountsTracker,
    RefusedRow,
    Transition,
    find_number,
    from_microseconds,
    to_microseconds,
)
from asyncsmtp.bulk.ledger.write_queue import Store
from asyncsmtp.bulk.recipients.recipient import Problem, Recipient, address_key
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.envelope import Mailbox

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.erasure import ErasedRows
    from asyncsmtp.bulk.ledger.interfaces import Statistics

__all__ = ["BaseLedger", "BaseReader"]

_T = TypeVar("_T")
_Found = list[tuple[Claim | RefusedRow, RowState]]


class BaseReader(ABC):
    """A ledger opened to be read. Rows of a run that is going on, or was killed, may be SENDING.

    Attributes:
        place: path of the file, or URL of the database.
        name: the campaign's.
    """

    def __init__(self, place: object, name: str, queries: Queries, campaign: CampaignRow | None) -> None:
        self.name = name
        self.place = place
        self._queries = queries
        self._campaign = campaign

    @property
    def created_at(self) -> datetime:
        """Time of the load, UTC; the same in every run."""
        return from_microseconds(self._get_campaign().created_us)

    async def counts(self) -> Counts:
        """Return the number of rows in each state."""
        return await self._read(self._queries.count_rows)

    async def entries(self, states: Iterable[RowState] | None = None) -> AsyncGenerator[Entry]:
        """Yield every row in one of `states` (None: all), in file order; a few thousand are in memory at a time."""
        async for entry in self._read_entries(copies.read_entries if self.has_copies else Queries.read_entries, states):
            yield entry

    async def entries_by_row(self, states: Iterable[RowState] | None = None) -> AsyncGenerator[Entry]:
        """Yield the rows as `entries` does, but a row in the message of another one with that one's outcome."""
        read = copies.read_entries if self.has_copies else Queries.read_entries
        if await self._has_groups():
            read = partial(read_entries_by_row, read)
        async for entry in self._read_entries(read, states):
            yield entry

    async def _read_entries(self, read: EntryScript, states: Iterable[RowState] | None) -> AsyncGenerator[Entry]:
        wanted = frozenset(RowState if states is None else states)
        for first in range(0, self._campaign.batches if self._campaign else 0, ENTRY_BATCHES):
            for entry in await self._read(partial(read, self._queries, first, wanted)):
                yield entry

    async def _has_groups(self) -> bool:
        return bool(await self._read(partial(self._queries.read_value, GROUPED)))

    async def next_due(self) -> datetime | None:
        """Return the earliest time at which a row may be tried, UTC; None: no row is left for this run.

        Where one may be tried at once, it is a time in the past.
        """
        return await self._read(self._queries.read_next_due)

    async def counts_by_relay(self) -> Mapping[str, Counts]:
        """Return the number of rows in each state, by the relay that answered last; rows without one are left out."""
        return await self._read(self._queries.count_by_relay)

    async def statistics(self) -> Statistics:
        """Return figures of the whole campaign, all of one moment, for a report."""
        from asyncsmtp.bulk.ledger.statistics import read_statistics  # late: only a report needs it

        batches = self._campaign.batches if self._campaign else 0
        return await self._read(partial(read_statistics, self._queries, batches, has_copies=self.has_copies))

    async def halted_rows(self) -> frozenset[int]:
        """Return the rows that were rejected before a run was halted, and have not been tried or changed since."""
        return await self._read(self._queries.read_halted)

    async def is_expired(self, retention: float | None, now: datetime) -> bool:
        """Return whether addresses are there that should have been erased by `now`.

        A campaign ends with its last change, when nothing is left to be sent.

        Args:
            retention: seconds after the end of the campaign; None: for ever; `STORED`: as the last run stored it.
        """
        from asyncsmtp.bulk.ledger.erasure import is_expired  # late: most campaigns keep their addresses

        return await self._read(partial(is_expired, self._queries, retention, now))

    @abstractmethod
    async def aclose(self) -> None:
        """Close the ledger; a second call does nothing."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.aclose()

    @abstractmethod
    async def _read(self, script: Callable[[], Script[_T]]) -> _T:
        """Run a script that changes nothing."""

    @property
    def has_copies(self) -> bool:
        """True if there are recipients in Cc or Bcc."""
        return self._campaign is not None and self._campaign.has_copies

    def _get_campaign(self) -> CampaignRow:
        """Return the campaign. Raises LedgerError: its rows are not loaded."""
        if self._campaign is None:
            raise LedgerError(f"{self.place} holds no recipients yet: load them first")
        return self._campaign


class BaseLedger(BaseReader):
    """A `Ledger` over a store.

    Each method that changes a row is one transition in the store's queue, or one script between two commits. The
    methods for single rows (`mark`, `settle`, `release`, `postpone`) do not wait: they check the transition in memory,
    queue it, and leave the commit to the store's writer.

    Args:
        place, name: as of a reader.
        start: of this run.
        counts: updated with what is written.
        parts: what the fingerprint is made of. from_domain: the domain of the Message-IDs. Both are for the load.
        suppressions: paths of suppression lists. run_in_thread: does the work with these.
    """

    def __init__(
        self,
        place: object,
        name: str,
        store: Store,
        start: RunStart,
        *,
        counts: CountsTracker,
        parts: Fingerprint,
        from_domain: str,
        suppressions: Sequence[Path],
        run_in_thread: ThreadRunner,
    ) -> None:
        super().__init__(place, name, store.queries, start.campaign)
        self.recovery = start.recovery
        self.failed = store.queue.failed
        self._store = store
        self._queue = store.queue
        self._counts = counts
        self._parts = parts
        self._from_domain = from_domain
        self._claimed = ClaimedRows()
        self._describe: Callable[[Claim, Settlement], str] | None = None
        self._has_kept_recovered = False
        self._claiming = asyncio.Lock()
        self._suppressions = SuppressionLookup(suppressions)
        self._listed = ListedRows()
        self._run_in_thread = run_in_thread

    @property
    def loaded(self) -> bool:
        """True if the ledger holds the campaign's rows."""
        return self._campaign is not None

    @property
    def unsettled(self) -> Sequence[Settlement]:
        """After a failure: the outcomes that are not in the ledger, oldest first."""
        return self._queue.unsettled

    # Loading and claiming.

    async def load(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Insert the whole file, or nothing: if `recipients` raises or this is cancelled, there is no campaign.

        A second row for the same mailbox becomes SUPPRESSED, a Problem REJECTED; `reply` has the reason.
        """
        if self._campaign is not None:
            raise LedgerError(f"{self.place} holds its recipients already: this is a bug")
        loader = Loader(self._queries, self.name, self._parts, self._from_domain)
        return await self._insert(loader, self._queries.begin, recipients)

    async def add(self, recipients: AsyncIterator[Sequence[Recipient | Problem]]) -> Counts:
        """Insert further rows behind the last one, all of them or none; return the counts of all rows.

        Row numbers continue. A row for a mailbox that is in the ledger already becomes SUPPRESSED.
        """
        self._get_campaign()
        loader = Loader(self._queries, self.name, self._parts, self._from_domain)
        return await self._insert(loader, loader.begin_addition, recipients)

    async def suppress(self) -> int:
        """Make the rows that are still to be sent and are on a suppression list SUPPRESSED; return how many.

        `claim` does the same with the rows it claims, so an entry added during a run counts.

        Raises:
            SuppressionError: a list cannot be used.
        """
        self._get_campaign()
        number = last_row = 0
        async with self._claiming:
            while self._suppressions:
                claimed = frozenset(self._claimed)  # before the rows are read: see `_read_claimable`
                rows = await self._store.read(partial(self._queries.read_unsent, last_row))
                if not rows:
                    break
                last_row = rows[-1][0]
                free = {row: (state, key) for row, state, key in rows if row not in claimed}
                _, changed = await self._suppress_listed(free)
                number += changed
        return number

    async def claim(self, limit: int) -> list[Claim]:
        """Claim up to `limit` rows; none left: an empty list.

        First rows that were released, then deferred and postponed rows that are due, by their times, then in file
        order the pending rows and those that an earlier run deferred without a time, each of these once in a run.
        If it is cancelled, no row is claimed.
        """
        self._get_campaign()
        async with self._claiming:
            claims = self._claimed.claim_released(limit)
            if not claims:
                most = limit + len(self._claimed)  # claimed rows are read as well, and skipped
                _, free = await self._read_claimable(partial(self._queries.read_due, most))
                claims = self._claimed.claim(free, limit)
            while not claims:
                last_row, last_copy = self._claimed.last_row, self._claimed.last_copy
                script = partial(self._queries.read_claims, last_row, limit)
                if self.has_copies:
                    script = partial(copies.read_claims, self._queries, last_row, last_copy, limit)
                found, free = await self._read_claimable(script)
                if not found:
                    break
                if self.has_copies:
                    last_row, self._claimed.last_copy = copies.find_cursors(found, last_row, last_copy)
                else:
                    last_row = find_number(found[-1][0])
                self._claimed.last_row = last_row
                claims = self._claimed.claim(free)
        return claims

    async def find_listed(self) -> Mapping[int, str]:
        """Return the claimed rows that are on a list by now, with the reason, for the caller to settle."""
        async with self._claiming:
            version = await self._read_list_version()
            return await self._listed.update(version, self._claimed.list_unsent, self._find_listed) if version else {}

    async def count_ready(self) -> int:
        """Return the number of rows that repeated calls of `claim` would return by now."""
        return await self._store.read(partial(self._queries.count_ready, self._counts.counts))

    # Transitions of single rows.

    def mark(self, claim: Claim) -> asyncio.Future[None]:
        """Record that the end of this row's data is about to be written; done when that is durable.

        The future is the gate before the point of no return: the sender holds back the end of data until it is done.
        A crash after it finds the row SENDING, so in doubt; a crash before it finds the row pending, and then no
        server can have accepted the message. Cancelling the future does not undo the mark; `release` does.
        """
        row = claim.recipient.row
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        before = self._claimed.advance(row, RowState.SENDING)
        self._queue.put(Transition(row, before, RowState.SENDING, 1, done=done), urgent=True)
        return done

    def settle(self, settlement: Settlement) -> None:
        """Record the outcome of a claimed row; durable before any mark made later, soon in any case.

        After a failure the outcome is kept in `unsettled` before the error is raised.
        """
        row, after = settlement.row, settlement.state
        before = self._claimed.advance(row, after)
        claim = self._claimed.remove(row)
        tried = before is not RowState.SENDING and (settlement.code is not None or after is RowState.DEFERRED)
        outcome = "" if self._describe is None else self._describe(claim, settlement)
        self._queue.put(Transition(row, before, after, tried, settlement, outcome=outcome), urgent=False)

    def release(self, claim: Claim, *, tried: bool = False) -> None:
        """Make a claimed row pending again, so that it may be claimed again in this run; nothing after a failure.

        Only for a row whose end of data was not written, not even in part. `tried`: the relay answered, so it counts.

        A mark that is durable already is undone. That is safe here and nowhere else: this process knows that it did
        not write the end of data, so the point of no return was not reached. If the
        process dies before this is durable, recovery finds the row SENDING, and it is in doubt.
        """
        if self._queue.failure is not None:
            return
        row = claim.recipient.row
        before = self._claimed.release(row, tried=tried)
        marked = before is RowState.SENDING
        if marked or tried:
            after = RowState.PENDING if marked else before
            self._queue.put(Transition(row, before, after, tried - marked), urgent=False)

    def postpone(self, claim: Claim, until: datetime) -> None:
        """Make a claimed row that was not tried due at another time, in this run or in a later one.

        Rows after it in the file need not wait for it. Durable soon.
        """
        row = claim.recipient.row
        state = self._claimed.postpone(row)
        self._queue.put(Transition(row, state, state, due=to_microseconds(until)), urgent=False)

    # Outcomes that are to be posted to somebody, such as a webhook.

    def keep_outcomes(self, describe: Callable[[Claim, Settlement], str]) -> None:
        """Keep a text about each outcome from now on, committed with the outcome, until it is removed.

        Rows that recovery found in doubt, in this run or an earlier one, are kept when outcomes are read or counted.

        Args:
            describe: returns the text, which is not empty.
        """
        self._describe = describe

    async def read_outcomes(self, after: str = "", limit: int = 500) -> Sequence[tuple[str, str]]:
        """Return name and text of kept outcomes, also of earlier runs, the oldest first.

        Args:
            after: the name to begin behind; "": with the first.
        """
        await self._keep_recovered()
        return await self._store.read(partial(self._queries.read_outcomes, after, limit))

    async def remove_outcomes(self, names: Sequence[str]) -> None:
        """Remove kept outcomes, durably."""
        await self._store.write(partial(self._queries.remove_outcomes, names))

    async def count_outcomes(self) -> int:
        """Return the number of kept outcomes."""
        await self._keep_recovered()
        return await self._store.read(self._queries.count_outcomes)

    async def _keep_recovered(self) -> None:
        if self._describe is not None and not self._has_kept_recovered:
            await self._store.write(partial(self._queries.keep_recovered, self._describe))
            self._has_kept_recovered = True

    # Reading, and decisions about rows that are not claimed.

    async def counts(self) -> Counts:
        """Return the number of rows in each state, as far as they are durable."""
        return self._counts.counts

    async def read_value(self, name: str) -> str | None:
        """Return the value that an earlier run stored under `name`; None: there is none."""
        return await self._store.read(partial(self._queries.read_value, name))

    async def write_value(self, name: str, value: str) -> None:
        """Store a value for the next run, durably."""
        await self._store.write(partial(self._queries.write_value, name, value))

    async def record_halt(self, rows: Iterable[int]) -> None:
        """Record, durably, that these rows were rejected by this run for a reason that halts it; see `halted_rows`."""
        await self._store.write(partial(self._queries.record_halt, frozenset(rows)))

    async def flush(self) -> None:
        """Wait until everything recorded so far is durable."""
        await self._store.read(no_statement)

    async def resolve(
        self, decision: Decision, rows: Iterable[int] | None = None, states: Iterable[RowState] = (RowState.IN_DOUBT,)
    ) -> int:
        """Apply a person's decision to rows in doubt, deferred or rejected; return the number of changed rows.

        RESEND makes them pending. SKIP makes rows in doubt and deferred rows REJECTED, with a reply that says so:
        ACCEPTED always stands for a relay's reply. Claimed rows, and rows without an address, are not changed.

        Args:
            rows: numbers in the ledger, see `list_numbers`; None for all.
            states: of those, only rows in one of these.
        """
        self._get_campaign()
        decision = Decision(decision)
        wanted = None if rows is None else frozenset(rows)
        script = partial(self._queries.resolve, decision, wanted, frozenset(states), frozenset(self._claimed))
        left = await self._store.write(script)
        after = RowState.PENDING if decision is Decision.RESEND else RowState.REJECTED
        for before, number in left.items():
            self._counts.move(before, after, number)
        self._claimed.rewind()
        return left.total()

    async def record_bounces(self, bounces: Mapping[str, Bounce]) -> Sequence[tuple[str, Bounce]]:
        """Make rows REJECTED whose messages bounced after they were accepted or in doubt.

        Returns the address of each changed row, as the ledger has it, with its bounce. The same bounce changes a row
        once.

        Args:
            bounces: by the part of the Message-ID before the @, or by `address_key`.
        """
        self._get_campaign()
        script = partial(bounced_rows.record_bounces, self._queries, bounces, has_copies=self.has_copies)
        changed = await self._store.write(script)
        self._counts.move_all(Counter((before, RowState.REJECTED) for before, _, _ in changed))
        return [(address, bounce) for _, address, bounce in changed]

    async def find_bounced(self, bounces: Mapping[str, Bounce]) -> Sequence[BouncedRow]:
        """Return the rows in whose record one of these bounces is, whoever recorded it; changes nothing.

        What follows from a bounce, such as an entry of a suppression list, can so be done again after an interruption.
        """
        self._get_campaign()
        script = partial(bounced_rows.find_bounced, self._queries, bounces, has_copies=self.has_copies)
        return await self._store.read(script)

    async def forget(self, address: str) -> ErasedRows:
        """Erase the cells and the address of a person; a row that was to be sent is suppressed, one in doubt rejected.

        All counts add up as before. The ledger remembers the SHA-256 of the address: it is not loaded again. The bytes
        are removed from the file too.

        Raises:
            RecipientError: it is not an address.
        """
        from asyncsmtp.bulk.ledger.erasure import erase_person  # late, as above

        self._get_campaign()
        key = address_key(Mailbox.parse(address))
        found, moves = await self._store.write(partial(erase_person, self._queries, key))
        self._counts.move_all(moves)
        return replace(found, is_clean=await self.clean())

    async def apply_retention(self, retention: float | None) -> bool:
        """Store how long the campaign's addresses are kept, and erase them if that time has passed; see `expire`.

        Args:
            retention: seconds after the end of the campaign; None: as long as the ledger is there. `STORED`: as stored.
        """
        if self._campaign is None:
            return False
        stored = await self.read_value(RETENTION)
        if retention is None and stored is not None:
            await self._store.write(partial(self._queries.remove_outcomes, [RETENTION]))
        elif retention is not None and retention >= 0 and stored != str(retention):
            await self.write_value(RETENTION, str(retention))
        await self.clean()
        now = datetime.now(UTC)
        if retention is None or not await self.is_expired(retention, now):
            return False
        from asyncsmtp.bulk.ledger.erasure import erase_all  # late, as above

        moves = await self._store.write(partial(erase_all, self._queries, to_microseconds(now)))
        self._counts.move_all(moves)
        await self.clean()
        return True

    async def clean(self) -> bool:
        """Remove the bytes of what was erased from the file, if something was; return whether they are gone."""
        if await self.read_value(UNCLEAN) is None:
            return True
        is_clean = await self._store.clean()
        await self._store.write(partial(self._queries.remove_outcomes, [UNCLEAN]))
        return is_clean

    async def aclose(self) -> None:
        """Write what is queued, and close the ledger; a second call does nothing. Claimed rows keep their state.

        Raises:
            LedgerError: writing failed just now; `unsettled` has the outcomes.
        """
        reported = self._queue.failure
        await self._store.aclose()
        self._suppressions.close()
        if reported is None and self._queue.failure is not None:
            raise self._queue.failure

    # Private.

    async def _read(self, script: Callable[[], Script[_T]]) -> _T:
        return await self._store.read(script)

    def _get_campaign(self) -> CampaignRow:
        if self._queue.failure is not None:
            raise self._queue.failure
        return super()._get_campaign()

    async def _open_suppressions(self) -> None:
        """Open the suppression lists; if one cannot be used, close the ledger and raise SuppressionError."""
        try:
            if self._suppressions:
                await self._run_in_thread(self._suppressions.open)
        except BaseException:
            await self.aclose()
            raise

    async def _insert(
        self,
        loader: Loader,
        begin: Callable[[], Script[None]],
        recipients: AsyncIterator[Sequence[Recipient | Problem]],
    ) -> Counts:
        await self._store.step(begin)
        try:
            async for rows in recipients:
                await self._store.step(partial(loader.insert, rows))
            await self._store.step(loader.finish)
        except BaseException:
            if self._queue.failure is None:
                await asyncio.shield(self._store.rollback())
            raise
        await self._recount()
        self._campaign = await self._store.read(self._queries.read_campaign)
        return self._counts.counts

    async def _recount(self) -> None:
        self._counts.reset(await self._store.read(self._queries.count_rows))

    async def _read_claimable(
        self, script: Callable[[], Script[_Found]]
    ) -> tuple[_Found, list[tuple[Claim, RowState]]]:
        """Read rows; return them, and those that may be claimed.

        A row that was claimed when the reading began may not: if it was settled meanwhile, what was read is outdated.
        A row with an address that is refused by now is rejected.
        """
        claimed = frozenset(self._claimed)
        free: list[tuple[Claim, RowState]] = []
        refused: dict[int, tuple[RowState, str]] = {}
        rows = await self._store.read(script)
        for found, state in rows:
            if isinstance(found, RefusedRow):
                refused[found.row] = (state, found.reason)
            elif found.recipient.row not in claimed:
                free.append((found, state))
        if refused:
            changed = await self._store.write(partial(self._queries.reject_rows, refused))
            self._counts.move_all(Counter((before, RowState.REJECTED) for before in changed.values()))
        if not self._suppressions:
            return rows, free
        listed, _ = await self._suppress_listed(copies.find_keys(free))
        return rows, [row for row in free if row[0].recipient.row not in listed]

    async def _suppress_listed(self, rows: Mapping[int, tuple[RowState, str]]) -> tuple[set[int], int]:
        """Suppress those of the rows that are listed; return them, and the number of those that were changed.

        A row that a person's decision changed meanwhile keeps its new state, and is looked at when it is read again.
        """
        listed = await self._find_listed(rows)
        if not listed:
            return set(), 0
        changed = await self._store.write(partial(self._queries.suppress_rows, listed))
        self._counts.move_all(Counter((before, RowState.SUPPRESSED) for before in changed.values()))
        return {*listed}, len(changed)

    async def _find_listed(self, rows: Mapping[int, tuple[RowState, str]]) -> dict[int, tuple[RowState, str]]:
        """Return those of the rows that are listed, with state and reason; `rows` are with state and key."""
        return await self._run_in_thread(partial(copies.find_listed, rows, self._suppressions.reasons))

    async def _read_list_version(self) -> object:
        return await self._run_in_thread(self._suppressions.version) if self._suppressions else ()
