"""Rates that several processes share: each reserves messages in a SQLite file before it sends them."""

from __future__ import annotations

import asyncio
import logging
import os
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Self

from asyncsmtp.bulk.interfaces import ThreadRunner
from asyncsmtp.bulk.ledger.sqlite.ledger_file import JOURNAL_PRAGMAS, create_folder, refuse_network
from asyncsmtp.bulk.rate_limit.rate import MAX_CATCH_UP, MAX_EVEN_PERIOD, QUOTA_PARTS, Quota, Rate
from asyncsmtp.bulk.rate_limit.warmup import DAY_MARGIN, TABLE, Warmup, WarmupDay, read_day, release_day, take_day
from asyncsmtp.errors import ConfigError, LedgerError, check_type
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from asyncsmtp.client.config.relay import Relay

__all__ = [
    "MAX_AHEAD",
    "RESERVATION_TIME",
    "Reservation",
    "SharedLimiter",
    "SharedRateStore",
    "find_rates_file",
    "make_relay_key",
    "read_warmup_days",
    "share_rates",
]

logger = logging.getLogger("asyncsmtp.campaign")

RESERVATION_TIME = 0.5  # seconds within which reserved messages must begin
MAX_AHEAD = 1.0  # seconds that an even rate may be reserved in advance: then it is the turn of other processes
MAX_RESERVED = 512  # messages reserved at once
BUSY_TIMEOUT = 5.0  # seconds to wait for other processes, each of which writes for a millisecond
_SECOND = 1_000_000  # microseconds
_TABLES = f"""
BEGIN IMMEDIATE;
CREATE TABLE IF NOT EXISTS counted (relay TEXT, rate TEXT, part INTEGER, number INTEGER NOT NULL,
  PRIMARY KEY (relay, rate, part)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS spaced (relay TEXT, rate TEXT, next_us INTEGER NOT NULL,
  PRIMARY KEY (relay, rate)) WITHOUT ROWID;
{TABLE}
COMMIT"""
_COUNT = "INSERT INTO counted VALUES (?, ?, ?, max(0, ?)) ON CONFLICT DO UPDATE SET number = max(0, number + ?)"
_SPACE = "INSERT INTO spaced VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next_us = excluded.next_us"


def find_rates_file() -> Path:
    """Return the file where the campaigns of a user share their limits (XDG Base Directory Specification: state).

    Raises:
        ConfigError: the user has no home.
    """
    given = os.environ.get("XDG_STATE_HOME", "")  # a relative one is invalid, and to be ignored
    try:
        home = Path(given) if os.path.isabs(given) else Path.home() / ".local" / "state"
    except RuntimeError:
        why = "there is no home to keep the rates in that campaigns share"
        raise ConfigError(why, "set HOME or XDG_STATE_HOME; or name a file, or false, as shared in [limits]") from None
    return home / "asyncsmtp" / "rates.db"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Some messages that may be sent, or the time until there are some.

    Attributes:
        times: the earliest start of each, in microseconds since 1970, ascending; a past one means at once.
        wait: where there are none: seconds after which to ask again.
        at: the time of the reservation. until: the latest start of any message. Both in microseconds since 1970.
        warmup: the day of a warm-up, before the reservation; None: there is none.
    """

    times: Sequence[int]
    wait: float
    at: int
    until: int
    warmup: WarmupDay | None = None


_NOTHING = Reservation((), 0.0, 0, 0)


class SharedRateStore:
    """The rates of one relay in a file that processes share. Its methods block, for a millisecond as a rule.

    Rates of a minute or less are even: a slot is the theoretical arrival time of the generic cell rate algorithm
    (ITU-T I.371). Rates of longer periods are counted, as a `Quota` counts.

    Args:
        relay: the key of the rates; rates of other relays are independent.
        warmup: messages of a day that grow, in addition.
        wall: nanoseconds since 1970.
    """

    # Locking: a reservation reads what is left and writes what it takes in one transaction. BEGIN IMMEDIATE takes the
    # write lock before the first read; with a plain BEGIN two processes could read the same last message of a day and
    # both take it. It is durable before a message is sent, since a quota that a power failure could give back would not
    # be a quota: the provider has counted those messages too. The connection is opened for each reservation, of many
    # messages each: no lock and no descriptor outlives it, so a process that is stopped or killed holds up nobody.
    #
    # Clock: processes share nothing but the wall clock, so a slot is a time of that clock. It may be set back, after
    # which stored slots would lie hours ahead: no process can have reserved further than `MAX_AHEAD` plus
    # `RESERVATION_TIME`, so anything beyond counts as that. This is written back: the limit moves with the clock, so a
    # slot that was only read as the limit would never come nearer. Counted messages are booked at the latest moment
    # at which they may begin, so that none leaves the period of its quota too early.

    def __init__(
        self,
        path: str | os.PathLike[str],
        relay: str,
        rates: Sequence[Rate],
        *,
        warmup: Warmup | None = None,
        wall: Callable[[], int] = time.time_ns,
    ) -> None:
        check_type("path", path, str, os.PathLike)
        self.path = Path(path)
        self._relay = relay
        self._even = [rate for rate in rates if rate.seconds <= MAX_EVEN_PERIOD]
        self._counted = [rate for rate in rates if rate.seconds > MAX_EVEN_PERIOD]
        self._warmup = warmup
        self._wall = wall
        self._is_created = False

    def now(self) -> int:
        """Return the time in microseconds since 1970."""
        return self._wall() // 1000

    def batch_size(self, wanted: int) -> int:
        """Return how many of `wanted` to reserve at once: of an even rate a quarter of a second."""
        return min([wanted, *(max(1, int(0.25 / rate.interval)) for rate in self._even)])

    def reserve(self, wanted: int) -> Reservation:
        """Take up to `wanted` messages, for all rates or for none. Raises LedgerError: the file cannot be used."""
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            reserved = self._reserve(connection, self.batch_size(wanted))
            connection.execute("COMMIT")
            return reserved

    def release(self, reserved: Reservation, number: int) -> None:
        """Uncount messages not sent; slots of an even rate are lost. Raises LedgerError: the file cannot be used."""
        if not (self._counted or reserved.warmup) or not number:
            return
        with self._connection() as connection:
            if reserved.warmup is not None:
                release_day(connection, reserved.warmup, number)
            for rate in self._counted:
                self._count(connection, rate, reserved.until, -number)

    def read_warmup(self) -> WarmupDay | None:
        """Return how far the warm-up is; None: there is none. Raises LedgerError: the file cannot be used."""
        if self._warmup is None:
            return None
        with self._connection() as connection:
            return read_day(connection, self._relay, self._warmup, self.now() / _SECOND)

    def _reserve(self, connection: sqlite3.Connection, wanted: int) -> Reservation:
        now = self.now()
        for rate in self._counted:
            free, wait = self._free(connection, rate, now)
            if not free:
                return Reservation((), wait, now, now)
            wanted = min(wanted, max(1, free // 4))  # others may want the rest at the same time
        day = None
        if self._warmup is not None:
            day = read_day(connection, self._relay, self._warmup, now / _SECOND)
            left = day.resumes_at.timestamp() - now / _SECOND
            if not day.left:
                take_day(connection, day, 0)  # as of which day it is used up, where the clock was set back
            if not day.left or left < DAY_MARGIN:
                return Reservation((), max(0.001, left), now, now, day)
            wanted = min(wanted, max(1, day.left // 4))
        begins = {rate: self._next(connection, rate, now) for rate in self._even}
        late = max((begin - now for begin in begins.values()), default=0) - int(MAX_AHEAD * _SECOND)
        if late > 0:
            return Reservation((), late / _SECOND, now, now)
        for rate, begin in begins.items():
            connection.execute(_SPACE, (self._relay, str(rate), begin + wanted * _step(rate)))
        times = [max((begin + n * _step(rate) for rate, begin in begins.items()), default=now) for n in range(wanted)]
        until = max(now, times[-1]) + int(RESERVATION_TIME * _SECOND)
        for rate in self._counted:
            self._count(connection, rate, until, wanted)
        if day is not None:
            take_day(connection, day, wanted)
        return Reservation(times, 0.0, now, until, day)

    def _free(self, connection: sqlite3.Connection, rate: Rate, now: int) -> tuple[int, float]:
        """Return how many messages a counted rate has left, and the seconds until it has some."""
        key, oldest = (self._relay, str(rate)), _part(rate, now) - QUOTA_PARTS
        connection.execute("DELETE FROM counted WHERE relay = ? AND rate = ? AND part < ?", (*key, oldest))
        counts = dict(
            connection.execute("SELECT part, number FROM counted WHERE relay = ? AND rate = ? AND number > 0", key)
        )
        delay = Quota(rate, counts).delay(now / _SECOND)
        return max(0, max(1, int(rate.count)) - sum(counts.values())), delay

    def _count(self, connection: sqlite3.Connection, rate: Rate, until: int, number: int) -> None:
        connection.execute(_COUNT, (self._relay, str(rate), _part(rate, until), number, number))

    def _next(self, connection: sqlite3.Connection, rate: Rate, now: int) -> int:
        """Return the next slot of an even rate."""
        key = (self._relay, str(rate))
        find = "SELECT coalesce(max(next_us), 0) FROM spaced WHERE relay = ? AND rate = ?"
        stored = int(connection.execute(find, key).fetchone()[0])
        latest = _latest(now) + _step(rate)
        if stored > latest:
            connection.execute(_SPACE, (*key, latest))
        return max(min(stored, latest), now - int(MAX_CATCH_UP * _SECOND))

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            if not self._is_created:
                create_folder(self.path.parent)
                refuse_network(self.path)
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
            with closing(sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None)) as connection:
                for pragma in JOURNAL_PRAGMAS:
                    connection.execute(f"PRAGMA {pragma}")
                if not self._is_created:
                    connection.executescript(_TABLES)
                    self._is_created = True
                yield connection
        except (sqlite3.Error, OSError) as error:
            why = safe_text(str(getattr(error, "strerror", None) or error), 200)
            raise LedgerError(
                f"the file of shared rates {safe_text(str(self.path))} cannot be used: {why}: repair or remove it,"
                " or name another in [limits] shared"
            ) from error


class SharedLimiter:
    """A limiter over a `SharedRateStore`; leaving it releases what was reserved and not sent.

    It reserves as many messages as are sent in about a quarter of a second: a fast run asks seldom, and a killed one
    loses few.

    Args:
        required: whether the run ends where the file cannot be used; otherwise it warns and goes on without it.
        warn: called with a sentence.
        run_in_thread: does the work with the file.
    """

    def __init__(
        self,
        store: SharedRateStore,
        *,
        required: bool = True,
        warn: Callable[[str], object] = logger.warning,
        run_in_thread: ThreadRunner = asyncio.to_thread,
    ) -> None:
        self._warn = warn
        self._run_in_thread = run_in_thread
        self._store = store
        self._required = required
        self._is_broken = False
        self._wanted = 1
        self._reserved = _NOTHING
        self._used = 0
        self._lock = asyncio.Lock()

    @property
    def warmup(self) -> WarmupDay | None:
        """Progress of the relay's warm-up at the last reservation; None: there is none, or nothing began yet."""
        day = self._reserved.warmup
        return None if day is None else replace(day, sent=day.sent + self._used)

    @property
    def waits_for_warmup(self) -> bool:
        """True if the messages of a day of the warm-up are used up."""
        day = self.warmup
        return day is not None and not day.left

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        async with self._lock:
            await self._release()

    async def take(self) -> float:
        """Take one message; return 0, or the seconds after which to ask again when there is none now.

        Raises:
            LedgerError: the file cannot be used, and is required.
        """
        async with self._lock:
            if self._is_broken:
                return 0.0
            try:
                return await self._take()
            except LedgerError as error:
                if self._required:
                    raise
                self._is_broken = True
                self._warn(f"rates are not shared with other campaigns: {error}")
                return 0.0

    async def _take(self) -> float:
        now = self._store.now()
        times = self._reserved.times
        # A slot further ahead than can be reserved means that the clock was set back.
        if self._used < len(times) and (now > self._reserved.until or times[self._used] > _latest(now)):
            await self._release()
            self._wanted = max(1, self._wanted // 2)
        if self._used == len(self._reserved.times):
            if self._used and now - self._reserved.at < RESERVATION_TIME / 2 * _SECOND:
                self._wanted = min(2 * self._wanted, MAX_RESERVED)
            self._used = 0
            self._reserved = await self._run_in_thread(partial(self._store.reserve, self._wanted))
            if not self._reserved.times:
                return self._reserved.wait
        early = self._reserved.times[self._used] - self._store.now()
        if early > 0:
            return early / _SECOND
        self._used += 1
        return 0.0

    async def _release(self) -> None:
        reserved, left = self._reserved, len(self._reserved.times) - self._used
        self._reserved, self._used = _NOTHING, 0
        if left and not self._is_broken:
            try:
                await self._run_in_thread(partial(self._store.release, reserved, left))
            except LedgerError as error:  # they count as sent: no rate is exceeded by that
                self._warn(f"messages that were reserved and not sent count as sent: {error}")


def make_relay_key(relays: Iterable[Relay]) -> str:
    """Return the key of the rates that some relays have together."""
    names = (f"{relay.login.username}@{relay}" if relay.login is not None else str(relay) for relay in relays)
    return " ".join(sorted(each.lower() for each in names))


def read_warmup_days(shared_rates: bool | Path | None, relays: Iterable[Relay], warmup: Warmup) -> list[WarmupDay]:
    """Return how far the warm-up of each relay is. Raises LedgerError, ConfigError: the file cannot be used."""
    path = shared_rates if isinstance(shared_rates, Path) else find_rates_file()
    if not path.exists():
        return []
    stores = [SharedRateStore(path, make_relay_key([relay]), (), warmup=warmup) for relay in relays]
    return [day for store in stores if (day := store.read_warmup()) is not None]


@asynccontextmanager
async def share_rates(
    shared_rates: bool | Path | None,
    relays: Sequence[Relay],
    rates: Sequence[Rate],
    warmup: Warmup | None,
    warn: Callable[[str], object],
) -> AsyncGenerator[SharedLimiter | None]:
    """Share the limits of some relays together with other campaigns, until the block ends.

    Args:
        shared_rates: a path: in that file; True: in the usual one; None: there, if it can be used. A warm-up needs it.
    """
    required = bool(shared_rates) or warmup is not None
    try:
        path = shared_rates if isinstance(shared_rates, Path) else find_rates_file()
    except ConfigError as error:
        if required:
            raise
        warn(f"rates are not shared with other campaigns: {error.why}")
        yield None
        return
    store = SharedRateStore(path, make_relay_key(relays), rates, warmup=warmup)
    async with SharedLimiter(store, required=required, warn=warn) as shared:
        yield shared


def _step(rate: Rate) -> int:
    """Return the microseconds from one slot to the next, rounded up."""
    return max(1, ceil(rate.interval * _SECOND))


def _latest(now: int) -> int:
    """Return the latest time for which a message can be reserved now."""
    return now + int((MAX_AHEAD + RESERVATION_TIME) * _SECOND)


def _part(rate: Rate, at: int) -> int:
    return int(at / _SECOND // (rate.seconds / QUOTA_PARTS))
