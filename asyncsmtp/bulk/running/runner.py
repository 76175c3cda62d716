"""One run of a campaign: rows out of the ledger, messages to the relay, outcomes back into the ledger."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, suppress
from datetime import datetime
from random import Random

from asyncsmtp.bulk.interfaces import (
    ComposerProtocol,
    MessageSender,
    RateLimitedSender,
    Sleep,
    StoppableSender,
    ThreadRunner,
    sleep_unless,
    utc_now,
)
from asyncsmtp.bulk.ledger.interfaces import Claim, Ledger, RowState, Settlement
from asyncsmtp.bulk.rate_limit.rate import Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter
from asyncsmtp.bulk.running.circuit_breaker import CircuitBreaker
from asyncsmtp.bulk.running.row_sender import InFlight, ReconnectPolicy, RowSender
from asyncsmtp.bulk.running.schedule import Schedule
from asyncsmtp.bulk.running.scheduler import Scheduler
from asyncsmtp.client.retry import Retry
from asyncsmtp.errors import CampaignHalted, LedgerError, SMTPError, check_type

__all__ = ["AsyncOutcomeCallback", "OutcomeCallback", "Run", "outcomes"]

logger = logging.getLogger("asyncsmtp.campaign")

OutcomeCallback = Callable[[Claim, Settlement], None]
AsyncOutcomeCallback = Callable[[Claim, Settlement], Awaitable[None]]
_Outcome = tuple[Claim, Settlement]


class Run:
    """One pass over the rows that a ledger has to send.

    A refusal is an outcome and never stops it, unless everyone is refused (see `circuit_breaker`). A row is marked in
    the ledger, durably, before the end of its content is written, and settled when the relay has answered. Whatever
    ends the process in between leaves a row that is reported as in doubt.

    Args:
        ledger: loaded. Its `created_at` is the Date of every message, so that a second attempt has the same bytes.
        pool: sends the messages. If it is a `RateLimitedSender`, as `RelayBalancer` is, the run waits for its rates.
        concurrency: maximum concurrent messages, from composing to the relay's final reply.
        sessions: of the pool; of messages with large files of their own, so many are in memory at a time.
        limit: attempts to make in this run; None for all.
        watch: called with each outcome as it is queued for the ledger, where it is durable up to 50 ms and a commit
            later: a process that is killed in between leaves a row in doubt whose outcome was reported. If it raises,
            nothing new begins, messages in flight are completed, and `run` raises its exception.
        reconnect: the delays when the relay becomes unreachable.
        retry: the delays after temporary refusals.
        wait: stay until every row has a final outcome. Without it rows that become due while others are still to be
            sent are tried again, and the run ends when nothing may be sent for more than a minute.
        rate_policy: the rate limits; by default only "too fast" replies of the relay (421, 45x) slow the run down.
        schedule: the times at which messages may begin; by default any.
        shared: rates that are shared with other campaigns, in addition.
        keep_going: continue where the relay refuses everyone; rows are used up.
        warn: called with a sentence about what a person should know while the run goes on.
        clock: the wall clock, UTC. monotonic: a clock in seconds that is never set.
        random: spreads the times of next attempts. sleep: sleeps, and returns early when the event is set.
        run_in_thread: converts templates.
    Attributes:
        rate_policy: of this run; its rates may be changed at any time.
    """

    def __init__(
        self,
        composer: ComposerProtocol,
        ledger: Ledger,
        pool: MessageSender,
        *,
        concurrency: int = 100,
        sessions: int = 10,
        limit: int | None = None,
        watch: OutcomeCallback | None = None,
        reconnect: ReconnectPolicy | None = None,
        retry: Retry | None = None,
        wait: bool = False,
        rate_policy: RatePolicy | None = None,
        schedule: Schedule | None = None,
        shared: SharedLimiter | None = None,
        keep_going: bool = False,
        warn: Callable[[str], object] = logger.warning,
        clock: Callable[[], datetime] = utc_now,
        monotonic: Callable[[], float] = time.monotonic,
        random: Random | None = None,
        sleep: Sleep = sleep_unless,
        run_in_thread: ThreadRunner = asyncio.to_thread,
    ) -> None:
        check_type("concurrency", concurrency, int)
        check_type("sessions", sessions, int)
        check_type("limit", limit, int, None)
        self._ledger = ledger
        self._pool = pool
        self._reconnect = reconnect or ReconnectPolicy(sleep=sleep, warn=warn)
        self._breaker = CircuitBreaker(keep_going=keep_going)
        self._keep_going = keep_going
        self._is_halted = False
        self._warn = warn
        self._begun = 0  # messages
        self.rate_policy = rate_policy or RatePolicy(clock=monotonic, wall=lambda: clock().timestamp())
        self._sender = RowSender(
            composer,
            ledger,
            pool,
            self._reconnect,
            retry or Retry(),
            self.rate_policy,
            clock,
            random,
            run_in_thread,
            sessions,
        )
        self._on_outcome: AsyncOutcomeCallback | None = None
        self._free_slots = asyncio.Semaphore(concurrency)
        self._watch = watch
        self._error: Exception | None = None
        self._tasks: dict[asyncio.Task[None], InFlight] = {}
        self._scheduler = Scheduler(
            ledger,
            self.rate_policy,
            schedule or Schedule(),
            limit=limit,
            wait=wait,
            in_flight=self._tasks,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            shared=shared,
            sender=pool if isinstance(pool, RateLimitedSender) else None,
        )

    async def run(self, on_outcome: AsyncOutcomeCallback | None = None) -> None:
        """Send until nothing is left, or until stopped; always wait for messages in flight.

        Args:
            on_outcome: awaited with each outcome after it is queued for the ledger (see `watch`), before another
                message takes its place: a slow one slows the run. `outcomes` is built on it.
        Raises:
            LedgerError: the ledger cannot be trusted; everything stops at once.
            SuppressionError: a suppression list cannot be used any more.
            CampaignHalted: the relay refuses everyone, or loses its replies; rows stay pending or deferred, and those
                that were rejected before are the ledger's `halted_rows`.
            ConnectFailed, Refused, ExtensionNotSupported, InsecureConnection: the relay is unusable; rows stay pending.
        Cancelling it aborts messages in flight: rows past the point of no return are in doubt, the others pending.
        """
        logger.info("the run begins")
        self._on_outcome = on_outcome
        self._ledger.failed.add_done_callback(self._ledger_failed)
        try:
            await self._send_all()
        finally:
            self._ledger.failed.remove_done_callback(self._ledger_failed)
            logger.info("the run ends: %s", self._error or ("stopped" if self._scheduler.is_stopped else "all is sent"))
        if not isinstance(self._error, LedgerError):
            if self._begun or self.rate_policy.totals.limits:
                with suppress(LedgerError):  # `flush` raises it
                    await self._scheduler.save_totals()
            await self._ledger.flush()
        if self._error is not None:
            raise self._error

    @property
    def resumes_at(self) -> datetime | None:
        """The time, in UTC, at which a run that did not wait could continue (quota, window); None: it was not held."""
        return self._scheduler.resumes_at

    @property
    def waits_until(self) -> datetime | None:
        """The time, in UTC, for which the run waits before it begins the next row; None while it need not wait."""
        return self._scheduler.waits_until

    @property
    def is_paused(self) -> bool:
        """True between `pause` and `resume`."""
        return self._scheduler.is_paused

    @property
    def is_stopped(self) -> bool:
        """True after `stop`, also where an error stopped the run."""
        return self._scheduler.is_stopped

    @property
    def in_progress(self) -> int:
        """Number of rows that have begun, or are about to, and have no outcome yet."""
        return len(self._tasks)

    def pause(self) -> None:
        """Begin nothing new until `resume`; messages in flight are completed."""
        self._scheduler.pause()

    def resume(self) -> None:
        """Continue after `pause`."""
        self._scheduler.resume()

    def limit(self, rate: Rate) -> None:
        """Limit the run to this rate, in addition to the configured ones; a later call replaces it."""
        self.rate_policy.limit(rate)

    def stop(self) -> None:
        """Begin nothing new; `run` returns when the transactions that have begun are completed.

        Rows that wait for a session are pending again. A lost relay is not waited for.
        """
        self._scheduler.stop()
        self._reconnect.stop()
        if isinstance(self._pool, StoppableSender):
            self._pool.stop()

    def abort(self) -> None:
        """Stop, and cancel messages in flight."""
        self.stop()
        for task in tuple(self._tasks):
            task.cancel()

    async def _send_all(self) -> None:
        # One task for each message and none besides: a row is claimed, composed, sent and settled without a queue in
        # between. The slot is taken before the row, so that a row that its rates admit begins at once and not when
        # the next message is done. Expected failures never leave a task: one exception in a TaskGroup would cancel
        # all messages in flight, and leave those past the point of no return in doubt.
        async with asyncio.TaskGroup() as group, aclosing(self._scheduler.rows()) as rows:
            try:
                while True:
                    await self._free_slots.acquire()
                    claim = await anext(rows, None)
                    if claim is None or self._scheduler.is_stopped:
                        self._free_slots.release()
                        return
                    self._begun += 1
                    row = InFlight(claim, self._begun)
                    task = group.create_task(self._deliver(row))
                    self._tasks[task] = row
                    task.add_done_callback(self._task_done)
            except SMTPError as error:  # of the ledger, or of a suppression list
                self._end(error)

    def _ledger_failed(self, failed: asyncio.Future[None]) -> None:
        error = None if failed.cancelled() else failed.exception()
        if isinstance(error, LedgerError):
            self._end(error)

    def _end(self, error: Exception) -> None:
        """End the run with an error: after the messages in flight, or at once if the ledger failed."""
        if self._error is None or isinstance(error, LedgerError):
            self._error = error
        if isinstance(error, LedgerError):
            self.abort()
        else:
            self.stop()

    async def _halt(self, reason: CampaignHalted) -> None:
        """End the run once, and record in the ledger which rows were rejected for that reason."""
        self._is_halted = True
        if self._keep_going:
            why = str(reason).removeprefix("the campaign stops: ")
            self._warn(f"the campaign goes on, as keep_going asks for: {why}")
            return
        if not self._scheduler.is_stopped:
            self._end(reason)
        try:
            await self._ledger.record_halt(self._breaker.rows)
        except LedgerError as error:
            self._end(error)

    def _cancel_unmarked(self) -> None:
        """Cancel the messages whose end cannot have been written: their rows are pending again."""
        for task, row in tuple(self._tasks.items()):
            if row.mark is None and task is not asyncio.current_task():
                task.cancel()

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """Free its slot. Not in `_deliver`: a task that is cancelled before its first step runs none of it."""
        del self._tasks[task]
        self._free_slots.release()

    async def _deliver(self, row: InFlight) -> None:
        """Take one row to its outcome; raise nothing but CancelledError."""
        # From the reply in the session to `settle` below there is no `await`, here, in the balancer and in the pool:
        # the next message of the session is marked only after this outcome is recorded. So a crash leaves at most one
        # row in doubt for each session.
        try:
            settlement = await self._sender.deliver(row)
            if settlement is None:
                self._scheduler.requeue(row.claim)
                return
            if not self._breaker.admit(settlement, row, self._begun):
                settlement = settlement._replace(state=RowState.DEFERRED)
            self._ledger.settle(settlement)
        except LedgerError as error:
            self._end(error)
        except SMTPError as error:
            self._ledger.release(row.claim)
            if not self._scheduler.is_stopped:  # otherwise the reason of the end is known
                self._end(error)
                if isinstance(error, CampaignHalted):  # each would wait for another connection that breaks
                    self._cancel_unmarked()
        except asyncio.CancelledError:
            self._ledger.release(row.claim)
            raise
        except Exception as error:  # a bug: it is unknown how far the row came, so it keeps its mark
            self._end(error)
        else:
            if self._watch is not None:
                try:
                    self._watch(row.claim, settlement)
                except Exception as error:  # not by `_end`: even a LedgerError of the callback is not about this ledger
                    self._error = self._error or error
                    self.stop()
            if self._breaker.error is not None and not self._is_halted:
                await self._halt(self._breaker.error)
            if self._on_outcome is not None:
                await self._on_outcome(row.claim, settlement)


async def outcomes(run: Run, *, ahead: int = 100) -> AsyncGenerator[_Outcome]:
    """Send, as `Run.run` does, and yield each outcome as it is queued for the ledger.

    It is durable up to 50 ms and a commit later; at the end of the run all are.

    A row that is deferred and tried again in the same run comes each time. Use it in `contextlib.aclosing`:

        async with aclosing(outcomes(run)) as stream:
            async for claim, settlement in stream: ...

    Leaving the loop early begins nothing new, waits for messages in flight, and records their outcomes: those that
    were not yielded are in the ledger. Cancelling it aborts messages in flight, as cancelling `run` does.

    Args:
        ahead: outcomes that may wait to be taken; a consumer slower than the relay slows the run.
    Raises:
        The exceptions of `run`, after the last outcome.
    """
    queue: asyncio.Queue[_Outcome | None] = asyncio.Queue(ahead)

    async def put(claim: Claim, settlement: Settlement) -> None:
        await queue.put((claim, settlement))

    async def send() -> None:
        try:
            await run.run(put)
        finally:
            await queue.put(None)

    task = asyncio.create_task(send(), name="asyncsmtp: run")
    try:
        while (outcome := await queue.get()) is not None:
            yield outcome
    except asyncio.CancelledError:
        task.cancel()
        await _drain_until_done(task, queue)
        raise
    except GeneratorExit:
        run.stop()
        await _drain_until_done(task, queue)
        task.result()
        raise
    await task


async def _drain_until_done(task: asyncio.Task[None], queue: asyncio.Queue[_Outcome | None]) -> None:
    """Wait for the end of the run, discarding its outcomes; if cancelled meanwhile, abort it."""

    async def discard() -> None:
        while True:
            await queue.get()

    discarding = asyncio.create_task(discard(), name="asyncsmtp: discard outcomes")
    try:
        while not task.done():
            try:
                await asyncio.wait({task})
            except asyncio.CancelledError:
                task.cancel()
                await asyncio.wait({task})
                raise
    finally:
        discarding.cancel()
