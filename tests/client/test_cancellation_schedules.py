"""Schedules of repeated cancellation: whatever is cancelled, and how often, no outcome is lost.

A call is driven step by step. At one of its suspensions it is cancelled, and at later ones again: by `Task.cancel`, by
a cancel scope of anyio, which cancels at every step until it is left, by nested `asyncio.timeout`, or by several of
these. The relay answers the end of data late. Its log is the oracle: if it was sent the end of data, then the caller
has the delivery, or DeliveryInDoubt. `ASYNCSMTP_CANCELLATIONS=500` runs as many schedules on each event loop.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import anyio
import pytest

from asyncsmtp.client.api import send
from asyncsmtp.client.config.relay import Dialogue, Relay
from asyncsmtp.client.pool.pool import Pool
from asyncsmtp.client.retry import Retry
from asyncsmtp.client.session.session import Session
from asyncsmtp.errors import SMTPError
from asyncsmtp.protocol.delivery import Delivery
from asyncsmtp.testing import DEFAULT_REPLY, Action, ScriptedRelay, Stage, Wait
from tests.client.support import BY_DATA, big, message, relay_of

pytestmark = pytest.mark.usefixtures("nothing_leaks")

SCHEDULES = int(os.environ.get("ASYNCSMTP_CANCELLATIONS", "60"))
LATE = 0.003  # seconds until the end of data is answered

Call = Callable[[Relay, list[Delivery]], Coroutine[Any, Any, Delivery | None]]


async def _send(relay: Relay, _: list[Delivery]) -> Delivery:
    return await send(message(), relay=relay)


async def _send_within(relay: Relay, _: list[Delivery]) -> Delivery:
    return await send(message(), relay=relay, deadline=30, hard=True)


async def _send_with_retry(relay: Relay, _: list[Delivery]) -> Delivery:
    return await send(message(), relay=relay, retry=Retry(delay=0.001, attempts=2))


async def _session(relay: Relay, _: list[Delivery]) -> Delivery:
    async with Session(relay) as session:
        return await session.send(message())


async def _session_streams(relay: Relay, _: list[Delivery]) -> Delivery:
    async with Session(relay) as session:
        return await session.send(big(300_000), before_end=lambda: asyncio.sleep(0))


async def _session_goes_on(relay: Relay, kept: list[Delivery]) -> None:
    async with Session(relay) as session:
        kept.append(await session.send(message()))
        await session.noop()


async def _session_is_closed(relay: Relay, kept: list[Delivery]) -> None:
    session = Session(relay)
    try:
        await session.connect()
        kept.append(await session.send(message()))
    finally:
        await session.aclose()


async def _pool(relay: Relay, _: list[Delivery]) -> Delivery:
    async with Pool(relay, sessions=2) as pool:
        return await pool.send(message())


async def _pool_is_shared(relay: Relay, _: list[Delivery]) -> Delivery:
    """Another task's message goes first, on the same session."""
    async with Pool(relay, sessions=1) as pool:
        other = asyncio.ensure_future(pool.send(message(2)))
        other.add_done_callback(lambda sending: sending.cancelled() or sending.exception())  # the pool may be closed
        return await pool.send(message(), deadline=30)


async def _pool_is_closed(relay: Relay, kept: list[Delivery]) -> None:
    pool = Pool(relay)
    try:
        kept.append(await pool.send(message()))
        await pool.drain()
    finally:
        await pool.aclose()


async def _pool_in_session(relay: Relay, _: list[Delivery]) -> Delivery:
    """Two blocks are left, one after the other."""
    async with Session(relay), Pool(relay) as pool:
        return await pool.send(message())


async def _send_all(relay: Relay, kept: list[Delivery]) -> None:
    async with Pool(relay, sessions=1) as pool, aclosing(pool.send_all([message(1)])) as deliveries:
        async for delivery in deliveries:
            kept.append(delivery)
            await asyncio.sleep(0)


CALLS: tuple[Call, ...] = (
    _send,
    _send_within,
    _send_with_retry,
    _session,
    _session_streams,
    _session_goes_on,
    _session_is_closed,
    _pool,
    _pool_is_shared,
    _pool_is_closed,
    _pool_in_session,
    _send_all,
)

Cancel = Callable[[], object]


@asynccontextmanager
async def by_task() -> AsyncIterator[Cancel]:
    task = asyncio.current_task()
    assert task is not None
    yield task.cancel


@asynccontextmanager
async def by_scope() -> AsyncIterator[Cancel]:
    """What Starlette and every structured program does."""
    with anyio.CancelScope() as scope:
        yield scope.cancel


@asynccontextmanager
async def by_two_scopes() -> AsyncIterator[Cancel]:
    with anyio.CancelScope() as outer, anyio.CancelScope() as inner:
        yield lambda: (outer if inner.cancel_called else inner).cancel()


@asynccontextmanager
async def by_timeouts() -> AsyncIterator[Cancel]:
    """The inner ones first, as a rule."""
    left: list[asyncio.Timeout] = []
    try:
        async with asyncio.timeout(None) as outer, asyncio.timeout(None) as middle, asyncio.timeout(None) as inner:
            left += [outer, middle, inner]
            yield lambda: left and left.pop().reschedule(0)
    except TimeoutError:
        pass


@asynccontextmanager
async def by_timeout_in_scope() -> AsyncIterator[Cancel]:
    limits: list[asyncio.Timeout] = []
    try:
        with anyio.CancelScope() as scope:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                yield lambda: limits.pop().reschedule(0) if limits else scope.cancel()
    except TimeoutError:
        pass


WAYS = (by_task, by_scope, by_two_scopes, by_timeouts, by_timeout_in_scope)


@dataclass(frozen=True)
class Schedule:
    """Which call is cancelled, how, and when.

    Attributes:
        at: the suspensions at which it is cancelled: the first as a share of the call, then how many further on.
        when: as the suspension begins, as what it waits for is done, or between.
    """

    call: Call
    way: Callable[[], Any]
    dialogue: Dialogue
    at: tuple[float, tuple[int, ...]]
    when: str
    refused: bool

    @classmethod
    def of(cls, seed: int) -> Schedule:
        random = Random(seed)
        return cls(
            CALLS[seed % len(CALLS)],
            random.choice(WAYS),
            random.choice(BY_DATA),
            (1 - random.random() ** 1.5, tuple(random.randint(0, 2) for _ in range(random.randint(1, 4)))),
            random.choice(("begin", "end", "between")),
            random.random() < 0.2,
        )


@dataclass
class Driven:
    """A coroutine that is driven step by step, and cancelled at some of its suspensions."""

    coroutine: Coroutine[Any, Any, Delivery | None]
    when: str
    at: tuple[int, ...]
    cancel: Cancel
    suspensions: int = 0
    fired: int = 0
    _handles: list[asyncio.Handle] = field(default_factory=list)

    def __await__(self) -> Generator[Any, Any, Delivery | None]:
        step: Callable[[], Any] = lambda: self.coroutine.send(None)  # noqa: E731
        while self.suspensions < 1000:
            self.suspensions += 1
            try:
                waits_for = step()
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]
            finally:
                for handle in self._handles:
                    handle.cancel()
            for _ in range(self.at.count(self.suspensions)):
                self._arrange(waits_for)
            try:
                yield waits_for
                step = lambda: self.coroutine.send(None)  # noqa: E731
            except BaseException as error:
                step = lambda error=error: self.coroutine.throw(error)  # type: ignore[misc]  # noqa: E731
        raise AssertionError("the call does not end")

    def _arrange(self, waits_for: asyncio.Future[object] | None) -> None:
        loop = asyncio.get_running_loop()
        if self.when == "end" and waits_for is not None:
            waits_for.add_done_callback(lambda _: self._fire())
        elif self.when == "between":
            self._handles.append(loop.call_later(LATE / 3, self._fire))
        else:
            self._handles.append(loop.call_soon(self._fire))

    def _fire(self) -> None:
        self.fired += 1
        self.cancel()


@dataclass
class Result:
    """What the caller has: the delivery, or an error; and whether its next `await` raised CancelledError."""

    delivery: Delivery | None = None
    error: BaseException | None = None
    fired: int = 0
    cancelled_later: bool = False


_lengths: dict[Call, int] = {}  # how often a call is suspended


async def run(schedule: Schedule, relay: Relay) -> Result:
    result, kept = Result(), []  # type: Result, list[Delivery]
    share, gaps = schedule.at
    first = max(1, round(share * await _length(schedule)))
    at = tuple(first + gap * number for number, gap in enumerate((0, *gaps)))
    driven: Driven | None = None
    try:
        async with schedule.way() as cancel:
            driven = Driven(schedule.call(relay, kept), schedule.when, at, cancel)
            result.delivery = await driven
    except BaseException as error:
        result.error = error
    try:
        for _ in range(3):
            await asyncio.sleep(0)
    except asyncio.CancelledError:
        result.cancelled_later = True
    assert driven is not None
    result.fired = driven.fired
    if kept:
        result.delivery = kept[0]
    return result


async def _length(schedule: Schedule) -> int:
    """Return how often the call is suspended if nobody cancels it."""
    if schedule.call not in _lengths:
        async with served(schedule) as server:
            driven = Driven(schedule.call(relay_of(server), []), "", (), lambda: None)
            await driven
            _lengths[schedule.call] = driven.suspensions
    return _lengths[schedule.call]


@asynccontextmanager
async def served(schedule: Schedule) -> AsyncIterator[ScriptedRelay]:
    answer: Action = (Wait(LATE), "550 5.7.1 no" if schedule.refused else DEFAULT_REPLY)
    async with ScriptedRelay({Stage.END_OF_DATA: answer, Stage.QUIT: (Wait(LATE), DEFAULT_REPLY)}) as server:
        yield server
        await server.wait_until_idle()


@pytest.mark.parametrize("seed", range(SCHEDULES))
async def test_however_often_it_is_cancelled_no_outcome_is_lost(seed: int) -> None:
    """FT-10: the caller has the delivery, or DeliveryInDoubt, or the relay was never sent the end of data."""
    schedule = Schedule.of(seed)
    async with served(schedule) as server:
        running = asyncio.ensure_future(run(schedule, relay_of(server, dialogue=schedule.dialogue)))
        await asyncio.wait({running}, timeout=20)
        assert running.done(), "it never ends"
        result = running.result()
    check(schedule, result, server)


def count_ends(server: ScriptedRelay, recipient: str) -> int:
    """Return how often the relay read the end of data of the message to this recipient."""
    ends, current = 0, ""
    for connection in range(1, server.connections + 1):
        for line in server.get_dialogue(connection):
            if line.startswith("C: RCPT"):
                current = line
            ends += line == "C: ." and recipient in current
    return ends


def check(schedule: Schedule, result: Result, server: ScriptedRelay) -> None:
    accepted = sum(received.forward_paths == ("to1@example.net",) for received in server.received)
    ended = count_ends(server, "to1@example.net")
    assert accepted <= ended <= 1
    in_doubt = isinstance(result.error, SMTPError) and result.error.in_doubt
    assert result.error is None or in_doubt or isinstance(result.error, asyncio.CancelledError), result.error
    if result.delivery is not None:
        assert result.delivery.accepted == (not schedule.refused) == bool(accepted)
    elif not in_doubt:
        assert not ended, "the outcome is lost"
    if schedule.way is by_task:
        assert result.cancelled_later or result.error is not None or not result.fired, "the cancellation is lost"
    elif not isinstance(result.error, asyncio.CancelledError):
        assert not result.cancelled_later, "nobody asked for this cancellation"
