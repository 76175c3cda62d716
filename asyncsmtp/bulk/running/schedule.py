"""Times at which messages may begin: windows of the week, in a time zone, and a start."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asyncsmtp.errors import InvalidArgument, RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Schedule", "Window", "parse_time_zone"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(?:([a-z, -]+?) +)?(\d{1,2}):(\d\d) ?- ?(\d{1,2}):(\d\d)(?: +(\S+))?", re.IGNORECASE)
_FORMS = "“Mon-Fri 09:00-17:00 Europe/Vienna”, “Sat,Sun 10:00-14:00” or “22:00-06:00”"


@dataclass(frozen=True, slots=True)
class Window:
    """The same hours on some days of the week; past midnight if they end before they begin.

    Attributes:
        days: on which the window begins, 0 for Monday.
        zone: the time zone; None: that of the recipient, or of this machine.
    """

    days: frozenset[int]
    begin: time
    end: time
    zone: ZoneInfo | None = None

    @classmethod
    def parse(cls, text: str) -> Window:
        """Parse a window as people type it. Raises InvalidArgument: not a valid window; the message shows examples."""
        found = _FORM.fullmatch(text.strip())
        try:
            if found is None:
                raise ValueError
            begin = time(int(found[2]), int(found[3]))
            end = time(0) if (found[4], found[5]) == ("24", "00") else time(int(found[4]), int(found[5]))
            days = _parse_days(found[1])
        except ValueError:
            raise InvalidArgument(f"“{safe_text(text, 60)}” is not a valid window: give one such as {_FORMS}") from None
        return cls(days, begin, end, parse_time_zone(found[6]) if found[6] else None)

    def next_opening(self, now: datetime, zone: ZoneInfo | None = None) -> datetime:
        """Return the first time from `now` on at which a message may begin, in UTC.

        Hours are those of the wall clock: a window is shorter or longer on a day on which clocks are changed.

        Args:
            zone: the recipient's, for a window that has none.
        """
        local = now.astimezone(self.zone or zone)
        found = []
        for day in range(-1, 9):
            date = local.date() + timedelta(days=day)
            if date.weekday() in self.days:
                begin = datetime.combine(date, self.begin, local.tzinfo)
                last = date + timedelta(days=self.end <= self.begin)
                end = datetime.combine(last, self.end, local.tzinfo)
                if self.end == time(0) == self.begin:  # the whole day
                    end = datetime.combine(date + timedelta(days=1), time(0), local.tzinfo)
                if end.astimezone(UTC) > now:
                    found.append(max(now, begin.astimezone(UTC)))
        return min(found)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Times at which the messages of a campaign may begin.

    Attributes:
        windows: one of them must be open; empty: any time.
        start_at: nothing begins before it.
        zone_column: the column of the recipient's time zone, such as Europe/Vienna; an empty cell means this machine's.
    """

    windows: tuple[Window, ...] = ()
    start_at: datetime | None = None
    zone_column: str | None = None

    @property
    def depends_on_recipient(self) -> bool:
        """True if recipients have windows of their own."""
        return self.zone_column is not None and any(window.zone is None for window in self.windows)

    def next_opening(self, now: datetime, fields: Mapping[str, str] | None = None) -> datetime:
        """Return the first time from `now` on at which a message may begin, in UTC.

        Raises:
            RecipientError: the recipient's time zone is not valid.
        """
        first = now if self.start_at is None else max(now, self.start_at)
        if not self.windows:
            return first
        name = (fields or {}).get(self.zone_column or "", "").strip()
        try:
            zone = parse_time_zone(name) if name else None
        except InvalidArgument as error:
            raise RecipientError(f"column {self.zone_column}: {error}") from None
        return min(window.next_opening(first, zone) for window in self.windows)


def parse_time_zone(name: str) -> ZoneInfo:
    """Return a time zone by its name. Raises InvalidArgument: there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        shown = safe_text(name, 60)
        raise InvalidArgument(f"“{shown}” is not a time zone: give one such as Europe/Vienna or UTC") from None


def _parse_days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        begin, end = _DAYS.index(first[:3]), _DAYS.index((last or first)[:3])
        days |= {day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0))}
    return frozenset(days)
