"""Rates that the workers of a campaign have together, in a table of the ledger's database.

A worker reserves some messages before it sends them, as campaigns on one machine do in a file (`SharedRateStore`), and
for every limit alike: of a relay, of the whole campaign, of a domain or a provider, of a second or a day. Rates of a
minute or less are slots of one sequence in time; rates of longer periods are counted by parts of the period, so that a
quota is never exceeded, also not where a worker is killed: what it had reserved counts as sent.

A quota is not the single number of the first design: a rate that only spaces messages would let twice the quota pass in
one day, the second half of it after a pause.

Messages that are spread until a time are slots as well. How far they are apart is in the table, for all workers: each
of them would find another number. Now and then one of them finds it anew, from the rows and the time that are left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asyncsmtp.bulk.ledger.interfaces import RowState
from asyncsmtp.bulk.ledger.postgres import Database
from asyncsmtp.bulk.ledger.postgres.database_session import Connection, connect, one_line, psycopg
from asyncsmtp.bulk.ledger.postgres.worker_session import limit_transactions, monotonic_clock
from asyncsmtp.bulk.rate_limit.rate import MAX_EVEN_PERIOD, QUOTA_PARTS, LimiterGroup, Quota, Rate
from asyncsmtp.bulk.rate_limit.rate_policy import RatePolicy
from asyncsmtp.bulk.rate_limit.shared_store import (
    MAX_AHEAD,
    RESERVATION_TIME,
    Reservation,
    SharedLimiter,
    SharedRateStore,
    make_relay_key,
)
from asyncsmtp.errors import LedgerError

if TYPE_CHECKING:
    from asyncsmtp.bulk.ledger.postgres.worker_ledger import WorkerLedger
    from asyncsmtp.bulk.rate_limit.dns_resolver import MxProviders
    from asyncsmtp.bulk.setup.config import CampaignConfig
    from asyncsmtp.client.config.relay import Relay

__all__ = ["RateTable", "WorkerRates"]

_log = logging.getLogger("asyncsmtp.campaign")
_T = TypeVar("_T")

_SECOND = 1_000_000  # microseconds
BATCH_TIME = 0.25  # seconds of an even rate that are reserved at once
CATCH_UP = 0.02  # seconds of delay that all workers together may make up for
MAX_LATE = 0.06  # seconds after which a slot that was not used is lost
MAX_WANTED = 256  # messages reserved at once
POLL_INTERVAL = 0.005  # seconds after which to look for the answer to a reservation
MAX_TRANSACTION = 1.0  # seconds that a worker which stands still may keep the others from reserving
RENEW_STEP = 60.0  # seconds after which the distance of messages that are spread is found anew
STEP_TIME = 5.0  # seconds for which a worker does not ask the table for it
RETRY_DELAY = 1.0  # seconds after which to ask a database again that is away

_NOW = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_EVEN, _LOCK, _STEP, _STEP_AT = -1, -2, -3, -4  # parts that are no counts
_SPACE = f"""
INSERT INTO rate AS r VALUES (%(relay)s, %(rate)s, {_EVEN}, {_NOW} + %(span)s)
ON CONFLICT (relay, rate, part) DO UPDATE
SET value = greatest(least(r.value, {_NOW} + %(latest)s), {_NOW} - %(slack)s) + %(span)s
WHERE least(r.value, {_NOW} + %(latest)s) <= {_NOW} + %(ahead)s RETURNING value - %(span)s, {_NOW}"""  # noqa: S608
_NEXT_SLOT = f"SELECT value - {_NOW} FROM rate WHERE relay = %(relay)s AND rate = %(rate)s AND part = {_EVEN}"  # noqa: S608
_LOCK_COUNTS = f"""
INSERT INTO rate AS r VALUES (%(relay)s, %(rate)s, {_LOCK}, 0)
ON CONFLICT (relay, rate, part) DO UPDATE SET value = 0 RETURNING {_NOW}"""  # noqa: S608
_COUNTS = """
SELECT part, value FROM rate WHERE relay = %(relay)s AND rate = %(rate)s AND part >= %(oldest)s AND part >= 0
AND value > 0"""
_FORGET = "DELETE FROM rate WHERE relay = %(relay)s AND rate = %(rate)s AND part >= 0 AND part < %(oldest)s"
_COUNT = """
INSERT INTO rate AS r VALUES (%(relay)s, %(rate)s, %(part)s, greatest(0, %(number)s))
ON CONFLICT (relay, rate, part) DO UPDATE SET value = greatest(0, r.value + %(number)s)"""

_READ_STEP = f"""
SELECT (SELECT value FROM rate WHERE relay = %(relay)s AND rate = %(rate)s AND part = {_STEP}),
  (SELECT value FROM rate WHERE relay = %(relay)s AND rate = %(rate)s AND part = {_STEP_AT}), {_NOW}"""  # noqa: S608
_ADD_STEP = f"INSERT INTO rate VALUES (%(relay)s, %(rate)s, {_STEP_AT}, 0) ON CONFLICT DO NOTHING"  # noqa: S608
_LOCK_STEP = f"SELECT 1 FROM rate WHERE relay = %(relay)s AND rate = %(rate)s AND part = {_STEP_AT} FOR UPDATE"  # noqa: S608
_COUNT_LEFT = f"""
SELECT count(*) FROM delivery WHERE campaign_id = (SELECT id FROM campaign WHERE name = %(campaign)s)
AND state IN ({RowState.PENDING:d}, {RowState.DEFERRED:d})"""  # noqa: S608
_WRITE_STEP = f"""
INSERT INTO rate VALUES (%(relay)s, %(rate)s, {_STEP}, %(step)s), (%(relay)s, %(rate)s, {_STEP_AT}, %(now)s)
ON CONFLICT (relay, rate, part) DO UPDATE SET value = excluded.value"""  # noqa: S608


@dataclass(frozen=True, slots=True)
class Spread(Rate):
    """Messages of a campaign at even distances until a time; `count` in `seconds` is what they were at the start.

    Attributes:
        begin, end: microseconds since 1970.
    """

    campaign: str
    begin: int
    end: int


class RateTable:
    """The table of rates, on a connection of its own, which is made when it is needed."""

    def __init__(self, database: Database, warn: Callable[[str], object] = _log.warning) -> None:
        self._database = database
        self._warn = warn
        self._connection: Connection | None = None
        self._one_at_a_time = asyncio.Lock()
        self._offset_us = time.time_ns() // 1000 - _microseconds()
        self._steps: dict[Spread, tuple[float, int]] = {}  # of messages that are spread: until when, microseconds
        self._is_away = False

    def now(self) -> int:
        """Return the database's time, as of the last answer, in microseconds since 1970."""
        return _microseconds() + self._offset_us

    async def aclose(self) -> None:
        """Close the connection; a second call does nothing."""
        if self._connection is not None:
            with suppress(psycopg.Error):
                await self._connection.close()
            self._connection = None

    async def reserve(self, key: str, rates: Sequence[Rate], wanted: int) -> Reservation:
        """Take up to `wanted` messages, for all rates or for none.

        While the database is away there are none: nothing may be sent then in any case.
        """
        nothing, current = Reservation((), RETRY_DELAY, 0, 0), list[Rate]()
        for rate in rates:
            if isinstance(rate, Spread):
                if (step := await self.find_step(rate)) is None:
                    return nothing
                rate = replace(rate, count=_SECOND / step, seconds=1)
            current.append(rate)
        return await self._do(partial(self._reserve, key, current, wanted), nothing)

    async def find_step(self, spread: Spread) -> int | None:
        """Return the microseconds from one message to the next, for all workers; None: the database is away."""
        until, step = self._steps.get(spread, (0.0, 0))
        if time.monotonic() < until:
            return step
        found = await self._do(partial(self._find_step, spread), None)
        if found is not None:
            self._steps[spread] = time.monotonic() + STEP_TIME, found
        return found

    async def _find_step(self, spread: Spread, connection: Connection) -> int:
        """Find the distance anew where it is old; the others use it meanwhile, or wait for it if there is none yet."""
        at = _row("", spread)
        step: int | None = None
        for is_locked in (False, True):
            row: Any = await (await connection.execute(_READ_STEP, at)).fetchone()
            step, found_at, now = row
            span = spread.end - max(now, spread.begin)
            # Near the end it stays: few rows that are left for their second attempt would tell little.
            age = RENEW_STEP * _SECOND * (1 if span > RENEW_STEP * _SECOND else 2)
            if step is not None and (span <= 0 or now - found_at < age):
                return int(step)
            if not is_locked:
                await connection.execute(_ADD_STEP, at)
                found = await connection.execute(_LOCK_STEP + " SKIP LOCKED" * (step is not None), at)
                if step is not None and not found.rowcount:
                    return int(step)
        row = await (await connection.execute(_COUNT_LEFT, {"campaign": spread.campaign})).fetchone()
        if row[0] and span > 0:
            step = ceil(span / row[0])
        step = max(1, step or _step(spread))
        await connection.execute(_WRITE_STEP, {**at, "step": step, "now": now})
        return step

    async def release(self, key: str, rates: Sequence[Rate], reserved: Reservation, number: int) -> None:
        """Uncount messages not sent; slots of an even rate are lost."""
        counted = _find_quotas(rates)
        if counted and number:
            await self._do(partial(self._uncount, key, counted, reserved.until, number), None)

    async def _do(self, work: Callable[[Connection], Awaitable[_T]], otherwise: _T) -> _T:
        async with self._one_at_a_time:
            try:
                if self._connection is None:
                    self._connection = await connect(self._database, write=True)
                    await limit_transactions(self._connection, MAX_TRANSACTION)
                async with self._connection.transaction():
                    found = await work(self._connection)
            except _NoneLeft as none:
                return cast(_T, none.reservation)
            except (psycopg.Error, LedgerError) as error:  # also a server that writes nothing durably
                await self.aclose()
                if not self._is_away:
                    self._is_away = True
                    self._warn(
                        f"the rates in {self._database} cannot be read: nothing begins meanwhile ({one_line(error)})"
                    )
                return otherwise
            self._is_away = False
            return found

    async def _reserve(self, key: str, rates: Sequence[Rate], wanted: int, connection: Connection) -> Reservation:
        even = [rate for rate in rates if rate.seconds <= MAX_EVEN_PERIOD]
        counted = _find_quotas(rates)
        wanted = min([wanted, MAX_WANTED, *(max(1, int(BATCH_TIME / rate.interval)) for rate in even)])
        now = self.now()
        for rate in counted:  # in one order, so that nobody waits for a lock in a circle
            at = _row(key, rate)
            now = await self._ask(connection, _LOCK_COUNTS, at)
            oldest = _part(rate, now) - QUOTA_PARTS
            found = await connection.execute(_COUNTS, {**at, "oldest": oldest})
            counts = {int(part): int(number) for part, number in await found.fetchall()}
            free = max(1, int(rate.count)) - sum(counts.values())
            if free <= 0:
                raise _NoneLeft(Reservation((), max(0.001, Quota(rate, counts).delay(now / _SECOND)), now, now))
            wanted = min(wanted, max(1, free // 4))  # others may want the rest at the same time
            await connection.execute(_FORGET, {**at, "oldest": oldest})
        begins: dict[Rate, int] = {}
        for rate in sorted(even, key=_name):
            at = _row(key, rate)
            times = {"ahead": int(MAX_AHEAD * _SECOND), "slack": int(CATCH_UP * _SECOND)}
            times |= {"span": wanted * _step(rate), "latest": int((MAX_AHEAD + BATCH_TIME) * _SECOND) + _step(rate)}
            asked = _microseconds()
            row = await (await connection.execute(_SPACE, {**at, **times})).fetchone()
            if row is None:
                found = await (await connection.execute(_NEXT_SLOT, at)).fetchone()  # type: ignore[assignment]
                late = (int(found[0]) if found else 0) - int(MAX_AHEAD * _SECOND)  # type: ignore[index]
                raise _NoneLeft(Reservation((), max(0.001, late / _SECOND), now, now))
            begins[rate], now = int(row[0]), int(row[1])
            self._offset_us = now - asked
        slots = [max((begin + n * _step(rate) for rate, begin in begins.items()), default=now) for n in range(wanted)]
        until = max(now, slots[-1]) + int(RESERVATION_TIME * _SECOND)
        for rate in counted:
            values = {**_row(key, rate), "part": _part(rate, until), "number": wanted}
            await connection.execute(_COUNT, values)
        return Reservation(slots, 0.0, now, until)

    async def _ask(self, connection: Connection, statement: str, values: dict[str, Any]) -> int:
        asked = _microseconds()
        row = await (await connection.execute(statement, values)).fetchone()
        now = int(row[0]) if row else self.now()
        self._offset_us = now - asked
        return now

    async def _uncount(self, key: str, rates: Iterable[Rate], until: int, number: int, connection: Connection) -> None:
        for rate in rates:
            values = {**_row(key, rate), "part": _part(rate, until), "number": -number}
            await connection.execute(_COUNT, values)


class _NoneLeft(Exception):
    """No message is left of one rate, so that none is taken from the others; rolls the transaction back."""

    def __init__(self, reservation: Reservation) -> None:
        super().__init__("no message is left")
        self.reservation = reservation


class _TableStore:
    """The rates of one relay in the table, as `SharedLimiter` uses a `SharedRateStore`; its methods are coroutines."""

    def __init__(self, table: RateTable, key: str, rates: Sequence[Rate]) -> None:
        self.now = table.now
        self.reserve = partial(table.reserve, key, rates)
        self.release = partial(table.release, key, rates)


async def _await(function: Callable[[], Awaitable[_T]]) -> _T:
    """Await what a function of a `_TableStore` returns: no thread is needed for it."""
    return await function()


class _WaitTimer:
    """Measures waits from the first refusal to the message that may begin."""

    def __init__(self, report: Callable[[float], object]) -> None:
        self._report = report
        self._since: float | None = None

    def refused(self) -> None:
        if self._since is None:
            self._since = time.monotonic()

    def allowed(self) -> None:
        if self._since is not None:
            self._report(time.monotonic() - self._since)
            self._since = None


class _TableLimiter(SharedLimiter):
    """A `SharedLimiter` over the table, whose waits are measured."""

    def __init__(self, store: _TableStore, warn: Callable[[str], object], waits: _WaitTimer) -> None:
        run: Any = _await
        super().__init__(cast(SharedRateStore, store), warn=warn, run_in_thread=run)
        self._waits = waits

    async def take(self) -> float:
        seconds = await super().take()
        (self._waits.refused if seconds > 0 else self._waits.allowed)()
        return seconds


class _TableGroup(LimiterGroup):
    """Limits that all workers have together; those that follow the relay's replies are this worker's own.

    `delay` cannot wait for the database: messages are reserved by a task, ahead of the time at which they may begin.
    """

    def __init__(
        self, table: RateTable, key: str, rates: Iterable[Rate], tasks: set[asyncio.Task[None]], waits: _WaitTimer
    ) -> None:
        self._waits = waits
        self._shared = tuple(rates)
        self._table = table
        self._key = key
        self._tasks = tasks
        self._slots: deque[tuple[int, Reservation]] = deque()
        self._wanted = 1
        self._ask_at = 0.0
        self._reserving: asyncio.Task[None] | None = None
        super().__init__()

    def set_rates(self, rates: Iterable[Rate]) -> None:
        """Apply further rates, of this worker alone."""
        super().set_rates([rate for rate in rates if rate not in self._shared])

    @property
    def is_unlimited(self) -> bool:
        return not self._shared and super().is_unlimited

    @property
    def interval(self) -> float:
        even = (rate.interval for rate in self._shared if rate.seconds <= MAX_EVEN_PERIOD)
        return max([super().interval, *even], default=0.0)

    def counts(self) -> dict[str, Any]:
        """Return none: they are in the table."""
        return {}

    def delay(self, now: float, wall: float) -> float:
        own = super().delay(now, wall)
        seconds = max(own, self._next_slot()) if self._shared else own
        if seconds > 0:
            self._waits.refused()
        return seconds

    def longest(self, now: float, wall: float) -> Rate | None:
        """Return the rate for which the next message waits longest; of those of all workers the slowest."""
        if self._shared and self.delay(now, wall) > super().delay(now, wall):
            return max(self._shared, key=lambda rate: rate.interval)
        return super().longest(now, wall)

    def take(self, now: float, wall: float) -> None:
        super().take(now, wall)
        self._waits.allowed()
        if self._shared and self._slots:
            self._slots.popleft()

    def _next_slot(self) -> float:
        """Return the seconds until the next reserved message; reserve further ones in time."""
        now = self._table.now()
        while self._slots and now > self._slots[0][0] + MAX_LATE * _SECOND:
            _, reserved = self._slots.popleft()
            self._wanted = max(1, self._wanted // 2)
            self._start(self._table.release(self._key, self._shared, reserved, 1))
        if len(self._slots) <= self._wanted // 2 and self._reserving is None:
            wait = self._ask_at - time.monotonic()
            if wait <= 0:
                self._reserving = self._start(self._reserve())
            elif not self._slots:
                return wait
        return max(0.0, (self._slots[0][0] - now) / _SECOND) if self._slots else POLL_INTERVAL

    async def _reserve(self) -> None:
        try:
            self._wanted = min(2 * self._wanted, MAX_WANTED) if not self._slots else self._wanted
            reserved = await self._table.reserve(self._key, self._shared, self._wanted)
            self._slots.extend((slot, reserved) for slot in reserved.times)
            self._ask_at = 0.0 if reserved.times else time.monotonic() + reserved.wait
        finally:
            self._reserving = None

    def _start(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def release_all(self) -> None:
        """Uncount what was reserved and not sent."""
        for _, reserved in self._slots:
            await self._table.release(self._key, self._shared, reserved, 1)
        self._slots.clear()


class WorkerRates:
    """The limits of one worker's run, which it has together with the other workers.

    Quotas of more than a minute, and with `shared` in [limits] all rates, are those of the relays for every campaign in
    this database; other rates are those of this campaign.
    """

    def __init__(self, ledger: WorkerLedger, warn: Callable[[str], object]) -> None:
        self._ledger = ledger
        self._table = RateTable(cast(Database, ledger.place), warn)
        self._groups: list[_TableGroup] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._relays = ""
        self._spread: Spread | None = None

    def now(self) -> datetime:
        """Return the database's time, UTC."""
        return self._ledger.now()

    async def aclose(self) -> None:
        """Give back what was reserved and not sent; a second call does nothing."""
        if self._tasks:
            await asyncio.wait([*self._tasks])
        for group in self._groups:
            await group.release_all()
        self._groups.clear()
        await self._table.aclose()

    @asynccontextmanager
    async def share(
        self,
        config: CampaignConfig,
        relays: Sequence[Relay],
        rates: Sequence[Rate],
        warn: Callable[[str], object],
        *,
        warms_up: bool,
    ) -> AsyncGenerator[SharedLimiter | None]:
        """Share the rates of one of several relays; those of the campaign are the policy's, see `make_policy`."""
        key = make_relay_key(relays)
        if rates is config.rate or not rates:
            self._relays = key
            self._spread = await self._find_spread(config)
            yield None
            return
        async with _TableLimiter(_TableStore(self._table, key, rates), warn, self._time_waits()) as limiter:
            yield limiter

    def make_policy(self, config: CampaignConfig, left: int, providers: MxProviders | None) -> RatePolicy:
        """Make the limits of a run."""
        spread = [self._spread] if self._spread is not None and left else []
        return RatePolicy(
            [*config.rate, *spread],
            config.domain_rates,
            providers=config.provider_rates,
            lookup=providers,
            adaptive=config.adaptive,
            clock=time.monotonic,
            wall=lambda: self.now().timestamp(),
            make_group=partial(self._make_group, config),
        )

    async def _find_spread(self, config: CampaignConfig) -> Spread | None:
        """Find at which rate messages are spread, if they are; the number of rows of this worker does not matter."""
        if config.spread_until is None:
            return None
        begin = 0 if config.start_at is None else int(config.start_at.timestamp() * _SECOND)
        end = int(config.spread_until.timestamp() * _SECOND)
        if end <= max(int(self.now().timestamp() * _SECOND), begin):
            return None
        spread = Spread(1, 1, self._ledger.name, begin, end)
        step = await self._table.find_step(spread)
        return spread if step is None else replace(spread, count=_SECOND / step)

    def _time_waits(self) -> _WaitTimer:
        return _WaitTimer(self._ledger.observer.on_rate_wait)

    def _make_group(self, config: CampaignConfig, name: str, rates: Iterable[Rate]) -> LimiterGroup:
        rates = tuple(rates)
        key = f"{self._relays} {name}".strip()
        if not config.shared_rates and not any(rate.seconds > MAX_EVEN_PERIOD for rate in rates):
            key = f"{key} of {self._ledger.name}"
        group = _TableGroup(self._table, key, rates, self._tasks, self._time_waits())
        self._groups.append(group)
        return group


def _microseconds() -> int:
    """Return the time of a clock that goes on while the machine is suspended: slots from before it are late then."""
    return int(monotonic_clock() * _SECOND)


def _name(rate: Rate) -> str:
    """Return the name of a rate in the table: the same for all workers.

    That of a quota is its period: what was sent counts as well where another number is allowed from now on.
    """
    if isinstance(rate, Spread):
        return f"spread until {rate.end} of {rate.campaign}"
    return f"quota of {rate.seconds:g} s" if rate.seconds > MAX_EVEN_PERIOD else str(rate)


def _find_quotas(rates: Iterable[Rate]) -> list[Rate]:
    """Return the rates that are counted, of each period the lowest, in the order in which all workers lock them."""
    quotas: dict[str, Rate] = {}
    for rate in rates:
        if rate.seconds > MAX_EVEN_PERIOD:
            quotas[_name(rate)] = min(rate, quotas.get(_name(rate), rate), key=lambda each: each.count)
    return [quotas[name] for name in sorted(quotas)]


def _row(key: str, rate: Rate) -> dict[str, Any]:
    """Return the first columns of the rows of a rate; messages that are spread are so over all relays."""
    return {"relay": "" if isinstance(rate, Spread) else key, "rate": _name(rate)}


def _step(rate: Rate) -> int:
    """Return the microseconds from one slot to the next, rounded up."""
    return max(1, ceil(rate.interval * _SECOND))


def _part(rate: Rate, at: int) -> int:
    return int(at / _SECOND // (rate.seconds / QUOTA_PARTS))
