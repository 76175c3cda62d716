"""Rows out of the ledger, each when it may begin: at the pace of the run, in its windows, when it is due."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import aclosing, suppress
from datetime import datetime, timedelta

from asyncsmtp.bulk.ledger import Claim, Ledger, Settlement
from asyncsmtp.bulk.pace.pace import MOMENT, Pace
from asyncsmtp.bulk.pace.shared import SharedRates
from asyncsmtp.bulk.ports import Paced
from asyncsmtp.bulk.running.when import Schedule
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import LedgerError, RecipientError

__all__ = ["Feed"]

logger = logging.getLogger("asyncsmtp.campaign")

BATCH = 500  # rows taken out of the ledger at a time
LOOK = 30.0  # seconds after which a wait looks at the clock again, which may have been set
PATIENCE = 60.0  # seconds that a run is held up before it ends, unless it is to wait
PARKED = 1000  # rows of one domain that wait in memory for its limit; further ones are put off in the ledger
REMEMBER = 1.0  # seconds after which what is counted is written again
MEMORY = "pace"  # its name in the ledger


class Feed:
    """The rows of a run, in the order in which they may begin.

    Args:
        limit: attempts of this run; None for all.
        wait: whether the run stays for what comes later than `PATIENCE`: quotas, windows, deferred rows.
        flying: the tasks that have a row: each may yet bring one back.
        clock: the wall clock, UTC.
        shared: rates that hold for other campaigns as well.
        paced: what sends, where it has rates of its own; rows may then come back by `take_back`.
    Attributes:
        comes_at: when the run would have gone on, had it been told to wait; None: nothing held it up.
    """

    def __init__(
        self,
        ledger: Ledger,
        pace: Pace,
        schedule: Schedule,
        *,
        limit: int | None,
        wait: bool,
        flying: Collection[asyncio.Task[None]],
        clock: Callable[[], datetime],
        shared: SharedRates | None = None,
        paced: Paced | None = None,
    ) -> None:
        self._takes: list[Callable[[], Awaitable[float]]] = []
        if paced is not None:
            self._takes.append(paced.take_turn)
        if shared is not None:
            self._takes.append(shared.take)
        self._some_come_back = paced is not None
        self._came_back = False
        self.comes_at: datetime | None = None
        self._ledger = ledger
        self._pace = pace
        self._schedule = schedule
        self._left = limit
        self._wait = wait
        self._flying = flying
        self._clock = clock
        self._stopped = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._parked: dict[str, deque[Claim]] = {}
        self._back_at: datetime | None = None  # by then rows that were put off for their domain are due
        self._remembered_at = 0.0

    @property
    def stopped(self) -> bool:
        return self._stopped.is_set()

    def stop(self) -> None:
        """There are no further rows; whoever waits need not wait longer."""
        self._stopped.set()
        self._going.set()

    def pause(self) -> None:
        """No further row until `resume`."""
        if not self.stopped:
            self._going.clear()

    def resume(self) -> None:
        """Go on, if it was paused."""
        self._going.set()

    def take_back(self, claim: Claim) -> None:
        """A row that was given out could not begin after all, and nothing of it was sent: it comes again."""
        self._ledger.give_back(claim)
        self._came_back = True
        if self._left is not None:
            self._left += 1

    async def rows(self) -> AsyncGenerator[Claim]:
        """Each row when it may begin, until there are no more, or the run is held up and does not wait."""
        while not self.stopped and (seconds := self._too_early()) > 0:
            await self._sleep(seconds)
        self._pace.recall(await self._ledger.recall(MEMORY))
        try:
            async with aclosing(self._in_turn()) as claims:
                async for claim in claims:
                    if self._takes or not self._pace.is_open:
                        if not await self._admitted():
                            return
                        self._pace.take(claim.recipient.mailbox.domain)
                        await self._remember()
                    if not self._going.is_set():
                        await self._going.wait()
                    yield claim
        finally:
            with suppress(LedgerError):  # which ends the run by itself
                await self._remember(at_once=True)

    async def _admitted(self) -> bool:
        """Wait until the rates let one more begin; False: the run was stopped, or does not wait so long."""
        if not await self._held(self._pace.wait, max(PATIENCE, self._pace.overall.spacing)):
            return False
        for take in self._takes:
            while not self.stopped and (seconds := await take()) > 0:
                if not await self._waited(seconds, PATIENCE):
                    return False
        return not self.stopped

    def _too_early(self) -> float:
        first = self._schedule.start_at
        return 0.0 if first is None else (first - self._clock()).total_seconds()

    async def _in_turn(self) -> AsyncGenerator[Claim]:
        """Each row when its domain lets it; those of other domains pass those that wait."""
        while not self.stopped:
            async with aclosing(self._in_window() if self._schedule.windows else self._claims()) as claims:
                async for claim in claims:
                    if self._pace.is_open and not self._parked:
                        yield claim
                        continue
                    while self._pace.crowded:
                        for ready in self._ready():
                            yield ready
                        await self._sleep(MOMENT)
                        if self.stopped:
                            return
                    for ready in self._ready():
                        yield ready
                    if not self._waits_for_its_domain(claim):
                        yield claim
            while self._parked:
                for ready in self._ready():
                    yield ready
                if self._parked and not await self._held(self._next_domain):
                    return
            if self.comes_at is not None or not await self._something_comes():
                return

    def _waits_for_its_domain(self, claim: Claim) -> bool:
        domain = self._pace.lane_of(claim.recipient.mailbox.domain)
        wait = self._pace.wait_for(domain)
        parked = self._parked.get(domain)
        if parked is None and not wait:
            return False
        wait += self._pace.spacing_of(domain) * len(parked or ())
        if wait > PATIENCE or len(parked or ()) >= PARKED:
            back = self._clock() + timedelta(seconds=wait)
            self._back_at = max(back, self._back_at or back)
            self._ledger.put_off(claim, back)
        else:
            self._parked.setdefault(domain, deque()).append(claim)
        return True

    def _ready(self) -> list[Claim]:
        """Of each domain that waits, the row that may begin now."""
        for name in tuple(self._parked):
            if (lane := self._pace.lane_of(name)) != name:  # its provider is known now
                self._parked.setdefault(lane, deque()).extend(self._parked.pop(name))
        found = []
        for domain in [name for name in self._parked if not self._pace.wait_for(name)]:
            found.append(self._parked[domain].popleft())
            if not self._parked[domain]:
                del self._parked[domain]
        return found

    def _next_domain(self) -> float:
        return min(map(self._pace.wait_for, self._parked))

    async def _in_window(self) -> AsyncGenerator[Claim]:
        """The rows that the ledger has now, while a window is open; one whose own is closed is put off."""
        async with aclosing(self._claims()) as claims:
            async for claim in claims:
                if self._schedule.differs:
                    if self._is_put_off(claim):
                        continue
                elif not await self._held(self._closed):
                    return
                yield claim

    def _closed(self) -> float:
        now = self._clock()
        return (self._schedule.opens(now) - now).total_seconds()

    def _is_put_off(self, claim: Claim) -> bool:
        now = self._clock()
        try:
            opens = self._schedule.opens(now, claim.recipient.fields)
        except RecipientError as error:
            self._ledger.settle(Settlement(claim.recipient.row, State.REJECTED, reply=str(error)))
            return True
        if opens > now:
            self._ledger.put_off(claim, opens)
        return opens > now

    async def _claims(self) -> AsyncGenerator[Claim]:
        while not self.stopped and self._left != 0:
            batch = await self._ledger.claim(BATCH if self._left is None else min(BATCH, self._left))
            if not batch:
                return
            if self._left is not None:
                self._left -= len(batch)
            for claim in batch:
                yield claim

    async def _something_comes(self) -> bool:
        """Wait until a row is due, if it is one to wait for; False: none is."""
        deferred = self._wait and self._left != 0  # each in flight may be yet, and be the first to be due
        if (deferred or self._some_come_back) and self._flying:
            await asyncio.wait(self._flying, return_when=asyncio.FIRST_COMPLETED)
            return True
        if self._came_back:
            self._came_back = False
            return True
        if self._left == 0:
            return False
        due = await self._ledger.next_due()
        if due is None:
            return False
        seconds = (due - self._clock()).total_seconds()
        put_off = self._back_at is not None and due <= self._back_at
        if not (self._wait or (put_off and seconds <= PATIENCE)):
            self.comes_at = due if put_off or self._schedule.differs else None
            return False
        logger.info("the run waits: the next row is due at %s", due)
        await self._sleep(max(0.05, seconds))
        return not self.stopped

    async def _held(self, wait: Callable[[], float], patience: float = PATIENCE) -> bool:
        """Wait as long as `wait` says; False: the run was stopped, or does not wait so long."""
        while not self.stopped and (seconds := wait()) > 0:
            if not await self._waited(seconds, patience):
                return False
        return not self.stopped

    async def _waited(self, seconds: float, patience: float) -> bool:
        """Wait so long, or a part of it; False: that is longer than the run waits."""
        if seconds > patience and not self._wait:
            self.comes_at = self._clock() + timedelta(seconds=seconds)
            return False
        await self._sleep(seconds)
        return True

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(min(seconds, LOOK)):
                await self._stopped.wait()
        except TimeoutError:
            pass

    async def _remember(self, *, at_once: bool = False) -> None:
        """Have what is counted in the ledger, a moment late at the most."""
        now = asyncio.get_running_loop().time()
        if (at_once or now - self._remembered_at >= REMEMBER) and (said := self._pace.remember()) is not None:
            self._remembered_at = now
            await self._ledger.remember(MEMORY, said)
