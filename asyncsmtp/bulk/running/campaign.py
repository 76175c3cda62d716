"""The one loop: rows out of the ledger, messages to the relay, outcomes back into the ledger."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import datetime

from asyncsmtp.bulk.ledger import Claim, Ledger, Settlement
from asyncsmtp.bulk.pace.pace import Pace
from asyncsmtp.bulk.pace.rates import Rate
from asyncsmtp.bulk.pace.shared import SharedRates
from asyncsmtp.bulk.ports import Composes, Paced, Sends
from asyncsmtp.bulk.running.breaker import Breaker
from asyncsmtp.bulk.running.courier import Courier, Hand, utc_now
from asyncsmtp.bulk.running.feed import Feed
from asyncsmtp.bulk.running.outage import Outage
from asyncsmtp.bulk.running.when import Schedule
from asyncsmtp.bulk.states import State
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import LedgerError, SMTPError

__all__ = ["Hear", "Run", "Watch"]

logger = logging.getLogger("asyncsmtp.campaign")

Watch = Callable[[Claim, Settlement], None]
Hear = Callable[[Claim, Settlement], Awaitable[None]]


class Run:
    """Sends what a ledger has to send; refusals are outcomes and never stop it, unless everyone is refused.

    A row is marked in the ledger, durably, before the end of its content is written, and settled when the relay
    has answered. Whatever ends the process in between leaves a row that is listed as in doubt.

    Args:
        ledger: loaded. Its `created_at` is the Date of every message, so that a second attempt has the same octets.
        pool: what sends; where it has rates of its own, as `Relays` has, the run waits for them as for the pace.
        concurrency: messages in flight at the most, from composing to the relay's last word.
        limit: attempts to make in this run; None for all.
        watch: called with each outcome as it is recorded. When it raises, nothing new is begun, what is in flight is
            answered, and `go` raises its exception.
        retry: when what is refused for the moment is tried again.
        wait: stay until every row has a final outcome. Without it rows whose time comes while others are still to be
            sent are tried again, and the run ends when nothing may be sent for more than a minute.
        pace: how fast; by itself as fast as the relay lets it, whose complaints (421, 45x) slow it down.
        schedule: when; by itself at any time.
        shared: rates that hold for other campaigns as well, beside the pace.
        clock: the wall clock, UTC.
    Attributes:
        pace: of this run; its rates may be changed at any time.
    """

    def __init__(
        self,
        composer: Composes,
        ledger: Ledger,
        pool: Sends,
        *,
        concurrency: int = 100,
        limit: int | None = None,
        watch: Watch | None = None,
        outage: Outage | None = None,
        retry: Retry | None = None,
        wait: bool = False,
        pace: Pace | None = None,
        schedule: Schedule | None = None,
        shared: SharedRates | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._ledger = ledger
        self._outage = outage or Outage()
        self._breaker = Breaker()
        self.pace = pace or Pace()
        self._courier = Courier(composer, ledger, pool, self._outage, retry or Retry(), self.pace, clock)
        self._hear: Hear | None = None
        self._gate = asyncio.Semaphore(concurrency)
        self._watch = watch
        self._ended_by: Exception | None = None
        self._senders: set[asyncio.Task[None]] = set()
        self._feed = Feed(
            ledger,
            self.pace,
            schedule or Schedule(),
            limit=limit,
            wait=wait,
            flying=self._senders,
            clock=clock,
            shared=shared,
            paced=pool if isinstance(pool, Paced) else None,
        )

    async def go(self, hear: Hear | None = None) -> None:
        """Send until nothing is left, or until stopped; what is in flight is always waited for.

        Args:
            hear: awaited with each outcome after it is recorded, before its place is another's: a slow one slows the
                run. `outcomes` is made of it.
        Raises:
            LedgerError: the ledger cannot be trusted; everything stops at once.
            CampaignHalted: the relay refuses the sender, or loses its replies; rows stay pending or deferred.
            ConnectFailed, Refused, ExtensionNotSupported, InsecureConnection: the relay is unusable; rows stay pending.
        Cancelled, it breaks off what is in flight: rows past the point of no return are in doubt, the others pending.
        """
        logger.info("the run begins")
        self._hear = hear
        self._ledger.failed.add_done_callback(self._lost_ledger)
        try:
            await self._send_all()
        finally:
            self._ledger.failed.remove_done_callback(self._lost_ledger)
            logger.info("the run ends: %s", self._ended_by or ("stopped" if self._feed.stopped else "all is sent"))
        if not isinstance(self._ended_by, LedgerError):
            await self._ledger.flush()
        if self._ended_by is not None:
            raise self._ended_by

    @property
    def comes_at(self) -> datetime | None:
        """When a run that did not wait would have gone on, UTC: with a quota, or a window; None: nothing held it up."""
        return self._feed.comes_at

    def pause(self) -> None:
        """Begin nothing new until `resume`; what is in flight is answered."""
        self._feed.pause()

    def resume(self) -> None:
        """Go on, if it was paused."""
        self._feed.resume()

    def limit(self, rate: Rate) -> None:
        """Go no faster than this from now on, beside the rates that were given; the last one counts."""
        self.pace.limit(rate)

    def stop(self) -> None:
        """Begin nothing new; `go` returns when what is in flight is answered. A gone relay is not waited for."""
        self._feed.stop()
        self._outage.stop()

    def cut(self) -> None:
        """Break off what is in flight as well."""
        self.stop()
        for task in tuple(self._senders):
            task.cancel()

    async def _send_all(self) -> None:
        async with asyncio.TaskGroup() as senders, aclosing(self._feed.rows()) as rows:
            try:
                while True:
                    await self._gate.acquire()  # before the row: what its rate let begin does so at once
                    claim = await anext(rows, None)
                    if claim is None or self._feed.stopped:
                        self._gate.release()
                        return
                    task = senders.create_task(self._deliver(Hand(claim)))
                    self._senders.add(task)
                    task.add_done_callback(self._landed)
            except LedgerError as error:
                self._end(error)

    def _lost_ledger(self, failed: asyncio.Future[None]) -> None:
        error = None if failed.cancelled() else failed.exception()
        if isinstance(error, LedgerError):
            self._end(error)

    def _end(self, error: Exception) -> None:
        """End the campaign: gently, or at once where the ledger is lost."""
        if self._ended_by is None or isinstance(error, LedgerError):
            self._ended_by = error
        if isinstance(error, LedgerError):
            self.cut()
        else:
            self.stop()

    def _landed(self, task: asyncio.Task[None]) -> None:
        """Let the next one begin. Not in `_deliver`: a task that is cancelled before its first step runs none of it."""
        self._senders.discard(task)
        self._gate.release()

    async def _deliver(self, hand: Hand) -> None:
        """Take one row to its outcome; nothing but being cancelled gets out of here, for it would cut the others."""
        try:
            settlement = await self._courier.deliver(hand)
            if settlement is None:
                self._feed.take_back(hand.claim)
                return
            if not self._breaker.admits(settlement):
                settlement = settlement._replace(state=State.DEFERRED)
            self._ledger.settle(settlement)
        except LedgerError as error:
            self._end(error)
        except SMTPError as error:
            self._ledger.give_back(hand.claim)
            if not self._feed.stopped:  # else it is known why the run ends
                self._end(error)
        except asyncio.CancelledError:
            self._ledger.give_back(hand.claim)
            raise
        except Exception as error:  # a bug: nobody knows how far the row came, so it keeps its mark
            self._end(error)
        else:
            self._tell(hand.claim, settlement)
            if self._breaker.halted is not None and not self._feed.stopped:
                self._end(self._breaker.halted)
            if self._hear is not None:
                await self._hear(hand.claim, settlement)

    def _tell(self, claim: Claim, settlement: Settlement) -> None:
        if self._watch is None:
            return
        try:
            self._watch(claim, settlement)
        except Exception as error:  # not by `_end`: whatever its class, the ledger is well
            self._ended_by = self._ended_by or error
            self.stop()
