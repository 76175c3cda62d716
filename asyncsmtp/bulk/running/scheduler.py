"""The order and the time in which rows of the ledger are sent: rates, windows, due times."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping
from contextlib import aclosing, suppress
from datetime import datetime, timedelta

from asyncsmtp.bulk.interfaces import TOTALS_NAME, RateLimitedSender, Sleep
from asyncsmtp.bulk.ledger.interfaces import Claim, LeasedLedger, Ledger, RowState, Settlement
from asyncsmtp.bulk.ledger.transitions import suppressed_reply
from asyncsmtp.bulk.rate_limit.rate_policy import LOOKUP_POLL_INTERVAL, RatePolicy
from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter
from asyncsmtp.bulk.running.schedule import Schedule
from asyncsmtp.errors import LedgerError, RecipientError

__all__ = ["Scheduler"]

logger = logging.getLogger("asyncsmtp.campaign")

BATCH = 500  # rows claimed from the ledger at a time
MAX_SLEEP = 30.0  # seconds after which a wait looks at the clock again, which may have been set
MAX_AHEAD = 86400.0 * 365  # seconds that the end of a wait is reported ahead
MIN_SLEEP = 0.05  # seconds before the ledger is asked again for due rows
MAX_HOLD = 60.0  # seconds that a run may be held up before it ends, unless it is to wait
MAX_PARKED = 1000  # rows of one domain that wait in memory for its limit; further ones are postponed in the ledger
CHECK_INTERVAL = 1.0  # seconds after which claimed rows are looked up in the suppression lists again
SAVE_INTERVAL = 1.0  # seconds between two writes of the counts
TOTALS_INTERVAL = 5.0  # and of the totals
COUNTS_KEY = "pace"  # of the counts in the ledger


class Scheduler:
    """The rows of a run, in the order in which they may begin.

    Args:
        limit: attempts of this run; None for all.
        wait: whether the run stays for what comes later than `MAX_HOLD`: quotas, windows, deferred rows.
        in_flight: the tasks that have a row; each may requeue it.
        clock: the wall clock, UTC. monotonic: a clock in seconds that is never set.
        sleep: sleeps, and returns early when the event is set.
        shared: rates that are shared with other campaigns.
        sender: a sender with rates of its own; rows may then come back by `requeue`.
    Attributes:
        resumes_at: the time at which the run could continue if it waited; None: nothing held it up.
        waits_until: the time for which it waits now; None: it does not.
    """

    # Order. Rows are generated through three stages, each an async generator over the one before: `_claims` takes
    # batches from the ledger in the order of the file; `_in_window` holds or postpones rows outside their hours;
    # `_in_turn` lets rows of other domains pass those whose domain must wait. `rows` then waits for the rates that all
    # messages share, and records that the message begins. These come last, and in one place, so that whatever is
    # taken from a rate is used: a row that was held up afterwards would waste its turn, or begin twice at once.
    # The runner takes its slot before it asks for a row, for the same reason.
    #
    # Parked rows. A row whose domain, or provider, must wait is parked in memory, so that it holds up no other domain:
    # at most `MAX_PARKED` for each limiter, and no longer than `MAX_HOLD` ahead. Further rows are postponed in the
    # ledger (their due time is written) and claimed again later, so memory is bounded for every shape of list. Parked
    # rows are claimed but not marked: a process that dies leaves them pending.
    #
    # What is remembered. Quotas outlive the process, so their counts are written to the ledger: once a second, since
    # a write for each message would double the ledger's work, and at the end. A killed process therefore forgets at
    # most the last second. `_postponed_until` is kept to tell rows that were postponed for a limit, which an ending
    # run waits for or reports by `resumes_at`, from those that the relay deferred, which it leaves to the next run.

    def __init__(
        self,
        ledger: Ledger,
        rate_policy: RatePolicy,
        schedule: Schedule,
        *,
        limit: int | None,
        wait: bool,
        in_flight: Collection[asyncio.Task[None]],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float],
        sleep: Sleep,
        shared: SharedLimiter | None = None,
        sender: RateLimitedSender | None = None,
    ) -> None:
        self._takes: list[tuple[Callable[[], Awaitable[float]], Callable[[], str]]] = []
        if sender is not None:
            self._takes.append((sender.take_turn, lambda: "relays"))
        if shared is not None:
            self._takes.append((shared.take, lambda: "warm-up" if shared.waits_for_warmup else "shared"))
        self._may_requeue = sender is not None
        self._has_requeued = False
        self.resumes_at: datetime | None = None
        self.waits_until: datetime | None = None
        self._ledger = ledger
        self._rate_policy = rate_policy
        self._schedule = schedule
        self._left = limit
        self._wait = wait
        self._stays = wait or isinstance(ledger, LeasedLedger)  # which says itself when nothing is left to wait for
        self._in_flight = in_flight
        self._clock = clock
        self._monotonic = monotonic
        self._sleep_unless = sleep
        self._stopped = asyncio.Event()
        self._running = asyncio.Event()
        self._running.set()
        self._parked: dict[str, deque[Claim]] = {}  # by the key of their limiter
        self._postponed_until: datetime | None = None  # the latest due time of rows that were postponed for a limit
        self._check_at = monotonic() + CHECK_INTERVAL
        self._listed: Mapping[int, str] = {}
        self._saved_at = 0.0
        self._totals = rate_policy.totals
        self._totals_name = f"{TOTALS_NAME}{os.urandom(8).hex()}"  # other processes may run the same campaign
        self._begun_at = self._totals_saved_at = monotonic()

    @property
    def is_stopped(self) -> bool:
        """True after `stop`."""
        return self._stopped.is_set()

    @property
    def is_paused(self) -> bool:
        """True between `pause` and `resume`."""
        return not self._running.is_set()

    def stop(self) -> None:
        """End the rows, and all waiting for them."""
        self._stopped.set()
        self._running.set()

    def pause(self) -> None:
        """Yield no further row until `resume`."""
        if not self.is_stopped:
            self._running.clear()

    def resume(self) -> None:
        """Continue after `pause`."""
        self._running.set()

    def requeue(self, claim: Claim) -> None:
        """Take back a row that was yielded and could not begin; nothing of it was sent, and it comes again."""
        self._ledger.release(claim)
        self._has_requeued = True
        if self._left is not None:
            self._left += 1

    async def rows(self) -> AsyncGenerator[Claim]:
        """Yield each row when it may begin, until there are no more, or the run is held up and does not wait."""
        start = self._schedule.start_at or self._clock()
        while not self.is_stopped and (seconds := (start - self._clock()).total_seconds()) > 0:
            await self._wait_for("start_at", seconds)
        self._rate_policy.restore_counts(await self._ledger.read_value(COUNTS_KEY))
        try:
            async with aclosing(self._in_turn()) as claims:
                async for claim in claims:
                    if self._takes or not self._rate_policy.is_unlimited:
                        if not await self._admit():
                            return
                        self._rate_policy.take(claim.recipient.mailbox.domain)
                        await self._save_counts()
                    if not self._running.is_set():
                        await self._running.wait()
                    if self._monotonic() >= self._check_at:
                        self._listed = await self._ledger.find_listed()
                        self._check_at = self._monotonic() + CHECK_INTERVAL
                    if self._listed and self._suppress(claim):
                        continue
                    yield claim
        finally:
            with suppress(LedgerError):  # which ends the run by itself
                await self._save_counts(at_once=True)

    def _suppress(self, claim: Claim) -> bool:
        """Settle a row that was put on a suppression list while it waited; return False for one that may begin."""
        row = claim.recipient.row
        if (reason := self._listed.get(row)) is None:
            return False
        self._ledger.settle(Settlement(row, RowState.SUPPRESSED, reply=suppressed_reply(reason)))
        if self._left is not None:
            self._left += 1
        return True

    async def _admit(self) -> bool:
        """Wait for the rates of all messages; return False if the run was stopped, or does not wait so long."""
        policy = self._rate_policy
        if not await self._hold(policy.delay, policy.name_limit, max(MAX_HOLD, policy.overall.interval)):
            return False
        for take, name in self._takes:
            is_first = True
            while not self.is_stopped and (seconds := await take()) > 0:
                if not await self._sleep_at_most(seconds, MAX_HOLD, name(), held=is_first):
                    return False
                is_first = False
        return not self.is_stopped

    async def _in_turn(self) -> AsyncGenerator[Claim]:
        """Yield each row when its domain allows it; rows of other domains pass those that wait."""
        while not self.is_stopped:
            async with aclosing(self._in_window() if self._schedule.windows else self._claims()) as claims:
                async for claim in claims:
                    if self._rate_policy.is_unlimited and not self._parked:
                        yield claim
                        continue
                    while self._rate_policy.has_lookup_backlog:
                        for ready in self._unpark():
                            yield ready
                        await self._sleep(LOOKUP_POLL_INTERVAL)
                        if self.is_stopped:
                            return
                    for ready in self._unpark():
                        yield ready
                    if not self._park(claim):
                        yield claim
            while self._parked:
                for ready in self._unpark():
                    yield ready
                if self._parked and not await self._hold(self._until_unparked, self._name_parked, held=False):
                    return
            if self.resumes_at is not None or not await self._wait_for_due_rows():
                return

    def _park(self, claim: Claim) -> bool:
        """Park or postpone a row whose domain must wait; return False for one that may begin."""
        key = self._rate_policy.limiter_key(claim.recipient.mailbox.domain)
        delay = self._rate_policy.delay_for(key)
        parked = self._parked.get(key)
        if parked is None and not delay:
            return False
        self._totals.limit(self._rate_policy.name_limit(key)).held += 1
        delay += self._rate_policy.interval_for(key) * len(parked or ())
        if delay > MAX_HOLD or len(parked or ()) >= MAX_PARKED:
            due = self._clock() + timedelta(seconds=delay)
            self._postponed_until = max(due, self._postponed_until or due)
            self._ledger.postpone(claim, due)
        else:
            self._parked.setdefault(key, deque()).append(claim)
        return True

    def _until_unparked(self) -> float:
        return min(map(self._rate_policy.delay_for, self._parked))

    def _name_parked(self) -> str:
        return self._rate_policy.name_limit(min(self._parked, key=self._rate_policy.delay_for))

    def _unpark(self) -> list[Claim]:
        """Return the parked rows that may begin now: at most one of each limiter."""
        for name in tuple(self._parked):
            if (key := self._rate_policy.limiter_key(name)) != name:  # the provider is known now
                self._parked.setdefault(key, deque()).extend(self._parked.pop(name))
        found = []
        for key in [name for name in self._parked if not self._rate_policy.delay_for(name)]:
            found.append(self._parked[key].popleft())
            if not self._parked[key]:
                del self._parked[key]
        return found

    async def _in_window(self) -> AsyncGenerator[Claim]:
        """Yield the rows while a window is open; postpone each whose own window is closed."""
        async with aclosing(self._claims()) as claims:
            async for claim in claims:
                if self._schedule.depends_on_recipient:
                    if self._postpone(claim):
                        continue
                elif not await self._hold(self._until_open, lambda: "window"):
                    return
                yield claim

    def _until_open(self) -> float:
        now = self._clock()
        return (self._schedule.next_opening(now) - now).total_seconds()

    def _postpone(self, claim: Claim) -> bool:
        """Postpone a row outside its recipient's window, or reject it; return False for one that may begin."""
        now = self._clock()
        try:
            opening = self._schedule.next_opening(now, claim.recipient.fields)
        except RecipientError as error:
            self._ledger.settle(Settlement(claim.recipient.row, RowState.REJECTED, reply=str(error)))
            return True
        if opening > now:
            self._totals.limit("window").held += 1
            self._ledger.postpone(claim, opening)
        return opening > now

    async def _claims(self) -> AsyncGenerator[Claim]:
        while not self.is_stopped and self._left != 0:
            await self.save_totals(self._monotonic())
            batch = await self._ledger.claim(BATCH if self._left is None else min(BATCH, self._left))
            if not batch:
                return
            if self._left is not None:
                self._left -= len(batch)
            for claim in batch:
                yield claim

    async def _wait_for_due_rows(self) -> bool:
        """Wait until a row is due, if the run waits for it; return False if there is none to wait for."""
        may_defer = self._stays and self._left != 0  # each row in flight may be deferred, and be the first to be due
        if (may_defer or self._may_requeue) and self._in_flight:
            await asyncio.wait(self._in_flight, return_when=asyncio.FIRST_COMPLETED)
            return True
        if self._has_requeued:
            self._has_requeued = False
            return True
        if self._left == 0:
            return False
        due = await self._ledger.next_due()
        if due is None:
            return False
        seconds = (due - self._clock()).total_seconds()
        postponed = self._postponed_until is not None and due <= self._postponed_until
        if not (self._stays or (postponed and seconds <= MAX_HOLD)):
            self.resumes_at = due if postponed or self._schedule.depends_on_recipient else None
            return False
        logger.info("the run waits: the next row is due at %s", due)
        await self._wait_for("retry", max(MIN_SLEEP, seconds))
        return not self.is_stopped

    async def _hold(
        self, delay: Callable[[], float], name: Callable[[], str], limit: float = MAX_HOLD, *, held: bool = True
    ) -> bool:
        """Wait while `delay()` is above 0; return False if the run was stopped, or does not wait so long.

        Args:
            name: returns what is waited for, by its name in the totals. held: a message is held that was not counted.
        """
        while not self.is_stopped and (seconds := delay()) > 0:
            if not await self._sleep_at_most(seconds, limit, name(), held=held):
                return False
            held = False
        return not self.is_stopped

    async def _sleep_at_most(self, seconds: float, limit: float, name: str, *, held: bool) -> bool:
        """Sleep for that time, or a part of it; return False, and set `resumes_at`, if it is above the limit."""
        totals = self._totals.limit(name)
        totals.held += held
        if seconds > limit and not self._wait:
            totals.ended += 1
            self.resumes_at = self._clock() + timedelta(seconds=seconds)
            return False
        await self._wait_for(name, seconds)
        return True

    async def _wait_for(self, name: str, seconds: float) -> None:
        began = self._monotonic()
        try:
            await self._sleep(seconds)
        finally:
            self._totals.limit(name).seconds += self._monotonic() - began

    async def _sleep(self, seconds: float) -> None:
        self.waits_until = self._clock() + timedelta(seconds=min(seconds, MAX_AHEAD))
        try:
            await self._sleep_unless(min(seconds, MAX_SLEEP), self._stopped)
        finally:
            self.waits_until = None

    async def save_totals(self, now: float | None = None) -> None:
        """Write the totals of the run to the ledger; with `now`, only if the last write is `TOTALS_INTERVAL` ago."""
        at_once = now is None
        now = self._monotonic() if now is None else now
        if at_once or now - self._totals_saved_at >= TOTALS_INTERVAL:
            self._totals_saved_at = now
            self._totals.seconds = now - self._begun_at
            await self._ledger.write_value(self._totals_name, self._totals.to_json())

    async def _save_counts(self, *, at_once: bool = False) -> None:
        """Write the counts of quotas to the ledger, if the last write is `SAVE_INTERVAL` ago."""
        now = self._monotonic()
        if (at_once or now - self._saved_at >= SAVE_INTERVAL) and (
            saved := self._rate_policy.save_counts()
        ) is not None:
            self._saved_at = now
            await self._ledger.write_value(COUNTS_KEY, saved)
        if not at_once:
            await self.save_totals(now)
