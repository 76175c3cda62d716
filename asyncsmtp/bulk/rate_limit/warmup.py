"""Warm-up of a relay: the messages of a day grow with each day on which something was sent.

Providers distrust an address that sends little and then much. How far a relay is stands in the file of the shared
rates, so that it is kept from campaign to campaign.
"""

from __future__ import annotations

import math
import sqlite3
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from asyncsmtp.errors import InvalidArgument

__all__ = ["DAY_MARGIN", "TABLE", "Warmup", "WarmupDay", "read_day", "release_day", "take_day"]

DAY_MARGIN = 2.0  # seconds before the end of a day within which nothing is reserved: it would begin on the next one
MAX_CLOCK_ERROR = 1  # days that the clock may be back and still count as the day that was counted last
TABLE = """
CREATE TABLE IF NOT EXISTS warmup (relay TEXT PRIMARY KEY, day INTEGER NOT NULL, date INTEGER NOT NULL,
  number INTEGER NOT NULL) WITHOUT ROWID;
"""
_READ = "SELECT day, date, number FROM warmup WHERE relay = ?"
_WRITE = "INSERT OR REPLACE INTO warmup VALUES (?, ?, ?, ?)"
_RELEASE = "UPDATE warmup SET number = max(0, number - ?) WHERE relay = ? AND date = ?"


@dataclass(frozen=True, slots=True)
class Warmup:
    """The messages of each sending day: `start` on the first one, `grow` times as many on each further one.

    Attributes:
        until: the messages of a day that are not exceeded, however long it goes on.
    """

    start: int
    grow: float
    until: int

    def __post_init__(self) -> None:
        """Raises InvalidArgument: nothing could be sent, or it does not grow."""
        if not (self.start >= 1 and self.grow > 1 and self.until >= self.start):
            raise InvalidArgument("a warm-up needs start of 1 or more, grow above 1, and until of start or more")

    def limit(self, day: int) -> int:
        """Return the messages of a sending day, the first of which is 1."""
        steps = max(0, day - 1)
        if steps > math.log(self.until / self.start) / math.log(self.grow):
            return self.until
        return min(self.until, int(self.start * self.grow**steps + 1e-9))


@dataclass(frozen=True, slots=True)
class WarmupDay:
    """Progress of the warm-up of a relay.

    Attributes:
        relay: its user and URL.
        day: the sending day, from 1; that of the next message if none was sent today.
        limit: the messages of that day. sent: those that were sent, or are reserved.
        date: the day, of this machine's time zone. resumes_at: its end, UTC, when the next one begins.
    """

    relay: str
    day: int
    limit: int
    sent: int
    date: date
    resumes_at: datetime

    @property
    def left(self) -> int:
        """Messages that may still be sent on that day."""
        return max(0, self.limit - self.sent)


# Clock. A day is one of this machine's time zone, since people send in its mornings. If the clock is set back by a day
# or less (another time zone, a correction), the day that was counted last goes on until it is over: its messages were
# sent. A clock that was wrong by more must not stop everything until then, so what was counted is counted as of today.
# Neither frees messages of a day, and the number of the day never goes back.


def read_day(connection: sqlite3.Connection, relay: str, warmup: Warmup, now: float) -> WarmupDay:
    """Return how far a relay is.

    Args:
        now: seconds since 1970.
    """
    today = datetime.fromtimestamp(now).date()  # of this machine
    row = connection.execute(_READ, (relay,)).fetchone()
    if row is None:
        return _make_day(relay, warmup, 1, today, 0)
    day, stored, number = int(row[0]), date.fromordinal(int(row[1])), int(row[2])
    if today > stored:
        return _make_day(relay, warmup, day + 1 if number else day, today, 0)
    if (stored - today).days > MAX_CLOCK_ERROR:
        stored = today
    return _make_day(relay, warmup, day, stored, number)


def _make_day(relay: str, warmup: Warmup, day: int, of: date, number: int) -> WarmupDay:
    end = datetime.combine(of + timedelta(days=1), time()).astimezone(UTC)  # naive: of this machine's time zone
    return WarmupDay(relay, day, warmup.limit(day), number, of, end)


def take_day(connection: sqlite3.Connection, found: WarmupDay, number: int) -> None:
    """Count messages of a day that `read_day` returned, within the same transaction."""
    connection.execute(_WRITE, (found.relay, found.day, found.date.toordinal(), found.sent + number))


def release_day(connection: sqlite3.Connection, found: WarmupDay, number: int) -> None:
    """Uncount messages of that day that were not sent; nothing if another one has begun."""
    connection.execute(_RELEASE, (number, found.relay, found.date.toordinal()))
