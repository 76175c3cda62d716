"""What several processes have sent to one relay: a file of SQLite in which each reserves before it sends."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from asyncsmtp.bulk.pace.limits import PARTS, SLACK, Quota
from asyncsmtp.bulk.pace.rates import SMOOTH, Rate
from asyncsmtp.bulk.sqlite.place import refuse_network
from asyncsmtp.errors import LedgerError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["AHEAD", "HOLD", "RateFile", "Reserved"]

HOLD = 0.5  # seconds for which what is reserved may be used
AHEAD = 1.0  # seconds that an even rate is reserved ahead at the most: then others have their turn first
BUSY = 5.0  # seconds to wait for another process, each of which writes for a millisecond
_SECOND = 1_000_000  # microseconds
_COUNTED = (
    "CREATE TABLE IF NOT EXISTS counted (relay TEXT, rate TEXT, part INTEGER, number INTEGER NOT NULL,"
    " PRIMARY KEY (relay, rate, part)) WITHOUT ROWID"
)
_SPACED = (
    "CREATE TABLE IF NOT EXISTS spaced (relay TEXT, rate TEXT, next_us INTEGER NOT NULL,"
    " PRIMARY KEY (relay, rate)) WITHOUT ROWID"
)
_COUNT = "INSERT INTO counted VALUES (?, ?, ?, max(0, ?)) ON CONFLICT DO UPDATE SET number = max(0, number + ?)"
_SPACE = "INSERT INTO spaced VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET next_us = excluded.next_us"


@dataclass(frozen=True, slots=True)
class Reserved:
    """Some messages that may be sent, or how long there are none.

    Attributes:
        times: when each may begin, in microseconds since 1970, ascending; those that are over mean at once.
        wait: where there are none: seconds until it is worth asking again.
        at: when it was reserved, until: the last moment at which one may begin; in microseconds since 1970.
    """

    times: Sequence[int]
    wait: float
    at: int
    until: int


class RateFile:
    """The rates of one relay in a file that processes share. Its methods block, for a millisecond as a rule.

    Rates of a minute or less are even: a slot is the theoretical arrival time of the generic cell rate algorithm
    (ITU-T I.371). Those of longer times are counted, as a Quota counts.

    Args:
        relay: whose; rates of others do not meet.
        wall: nanoseconds since 1970.
    """

    def __init__(
        self, path: Path, relay: str, rates: Sequence[Rate], *, wall: Callable[[], int] = time.time_ns
    ) -> None:
        self.path = path
        self._relay = relay
        self._even = [rate for rate in rates if rate.seconds <= SMOOTH]
        self._counted = [rate for rate in rates if rate.seconds > SMOOTH]
        self._wall = wall
        self._made = False

    def now(self) -> int:
        """Microseconds since 1970."""
        return self._wall() // 1000

    def most(self, wanted: int) -> int:
        """How many of `wanted` to reserve at once: of an even rate a quarter of a second."""
        return min([wanted, *(max(1, int(0.25 / rate.spacing)) for rate in self._even)])

    def reserve(self, wanted: int) -> Reserved:
        """Take up to `wanted` messages, for all rates or for none.

        Raises:
            LedgerError: the file cannot be used.
        """
        try:
            with closing(self._opened()) as connection:
                connection.execute("BEGIN IMMEDIATE")
                reserved = self._reserve(connection, self.most(wanted))
                connection.execute("COMMIT")
                return reserved
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def give_back(self, reserved: Reserved, number: int) -> None:
        """So many of `reserved` were not used: they count no longer. Slots of an even rate are lost.

        Raises:
            LedgerError: the file cannot be used.
        """
        if not self._counted or not number:
            return
        try:
            with closing(self._opened()) as connection:
                for rate in self._counted:
                    self._count(connection, rate, reserved.until, -number)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from error

    def _reserve(self, connection: sqlite3.Connection, wanted: int) -> Reserved:
        now = self.now()
        for rate in self._counted:
            free, wait = self._free(connection, rate, now)
            if not free:
                return Reserved((), wait, now, now)
            wanted = min(wanted, max(1, free // 4))  # others may want the rest at the same time
        begins = {rate: self._next(connection, rate, now) for rate in self._even}
        late = max((begin - now for begin in begins.values()), default=0) - int(AHEAD * _SECOND)
        if late > 0:
            return Reserved((), late / _SECOND, now, now)
        for rate, begin in begins.items():
            connection.execute(_SPACE, (self._relay, str(rate), begin + wanted * _step(rate)))
        times = [max((begin + n * _step(rate) for rate, begin in begins.items()), default=now) for n in range(wanted)]
        until = max(now, times[-1]) + int(HOLD * _SECOND)
        for rate in self._counted:
            self._count(connection, rate, until, wanted)
        return Reserved(times, 0.0, now, until)

    def _free(self, connection: sqlite3.Connection, rate: Rate, now: int) -> tuple[int, float]:
        """How many a counted rate has left, and how long it has none."""
        key, oldest = (self._relay, str(rate)), _part(rate, now) - PARTS
        connection.execute("DELETE FROM counted WHERE relay = ? AND rate = ? AND part < ?", (*key, oldest))
        counted = dict(
            connection.execute("SELECT part, number FROM counted WHERE relay = ? AND rate = ? AND number > 0", key)
        )
        wait = Quota(rate, counted).wait(now / _SECOND)
        return max(0, max(1, int(rate.count)) - sum(counted.values())), wait

    def _count(self, connection: sqlite3.Connection, rate: Rate, until: int, number: int) -> None:
        """Count by the last moment at which they may begin: none is forgotten too early."""
        connection.execute(_COUNT, (self._relay, str(rate), _part(rate, until), number, number))

    def _next(self, connection: sqlite3.Connection, rate: Rate, now: int) -> int:
        """The next slot of an even rate. One that no process can have reserved means that the clock was set back."""
        (said,) = connection.execute(
            "SELECT max(next_us) FROM spaced WHERE relay = ? AND rate = ?", (self._relay, str(rate))
        ).fetchone()
        farthest = now + int((AHEAD + HOLD) * _SECOND) + _step(rate)
        return max(min(said or 0, farthest), now - int(SLACK * _SECOND))

    def _opened(self) -> sqlite3.Connection:
        if not self._made:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            refuse_network(self.path)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600))
        connection = sqlite3.connect(self.path, timeout=BUSY, isolation_level=None)
        try:
            if not self._made:
                connection.execute("BEGIN IMMEDIATE")
                for statement in (_COUNTED, _SPACED):
                    connection.execute(statement)
                connection.execute("COMMIT")
                self._made = True
            connection.execute("PRAGMA synchronous = FULL")
        except BaseException:
            connection.close()
            raise
        return connection

    def _unusable(self, error: Exception) -> LedgerError:
        why = getattr(error, "strerror", None) or error
        return LedgerError(
            f"the memory of rates {safe_text(str(self.path))} cannot be used: {safe_text(str(why), 200)}: mend or"
            " remove it, or name another in [limits] shared"
        )


def _step(rate: Rate) -> int:
    """Microseconds from one slot to the next; never too few."""
    return max(1, ceil(rate.spacing * _SECOND))


def _part(rate: Rate, at: int) -> int:
    return int(at / _SECOND // (rate.seconds / PARTS))
