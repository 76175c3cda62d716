"""When messages may begin: windows of the week, in a time zone, and a first moment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from asyncsmtp.errors import InvalidArgument, RecipientError
from asyncsmtp.protocol.replies import safe_text

__all__ = ["Schedule", "Window", "zone_of"]

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FORM = re.compile(r"(?:([a-z, -]+?) +)?(\d{1,2}):(\d\d) ?- ?(\d{1,2}):(\d\d)(?: +(\S+))?", re.IGNORECASE)
_FORMS = "“Mon-Fri 09:00-17:00 Europe/Vienna”, “Sat,Sun 10:00-14:00” or “22:00-06:00”"


@dataclass(frozen=True, slots=True)
class Window:
    """The same hours on some days of the week; past midnight where they end before they begin.

    Attributes:
        days: 0 for Monday; those on which the window begins.
        zone: whose clock; None: that of the recipient, or of this machine.
    """

    days: frozenset[int]
    begin: time
    end: time
    zone: ZoneInfo | None = None

    @classmethod
    def parse(cls, text: str) -> Window:
        """Take a window as people type it. Raises InvalidArgument: it is none; the message shows some."""
        found = _FORM.fullmatch(text.strip())
        try:
            if found is None:
                raise ValueError
            begin, end = time(int(found[2]), int(found[3])), _end(int(found[4]), int(found[5]))
            days = _days(found[1])
        except ValueError:
            raise InvalidArgument(
                f"“{safe_text(text, 60)}” is no window of the week: give one such as {_FORMS}"
            ) from None
        return cls(days, begin, end, zone_of(found[6]) if found[6] else None)

    def opens(self, now: datetime, zone: ZoneInfo | None = None) -> datetime:
        """When a message may begin from `now` on, in UTC: `now`, or when the window opens next.

        Hours are those of the wall: a day on which clocks are set forward or back has a shorter or a longer window.

        Args:
            zone: of the recipient, for a window that has none.
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
    """When each message of a campaign may begin.

    Attributes:
        windows: one of them must be open; none: always.
        start_at: nothing before it.
        zone_column: the column with a recipient's time zone, such as Europe/Vienna; an empty cell is this machine's.
    """

    windows: tuple[Window, ...] = ()
    start_at: datetime | None = None
    zone_column: str | None = None

    @property
    def differs(self) -> bool:
        """Whether it depends on the recipient when his message may begin."""
        return self.zone_column is not None and any(window.zone is None for window in self.windows)

    def opens(self, now: datetime, fields: Mapping[str, str] | None = None) -> datetime:
        """From when on a message may begin, `now` at the earliest, in UTC.

        Raises:
            RecipientError: the recipient's time zone is none.
        """
        first = now if self.start_at is None else max(now, self.start_at)
        if not self.windows:
            return first
        name = (fields or {}).get(self.zone_column or "", "").strip()
        try:
            zone = zone_of(name) if name else None
        except InvalidArgument as error:
            raise RecipientError(f"column {self.zone_column}: {error}") from None
        return min(window.opens(first, zone) for window in self.windows)


def zone_of(name: str) -> ZoneInfo:
    """A time zone by its name. Raises InvalidArgument: there is none of that name."""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidArgument(
            f"“{safe_text(name, 60)}” is no time zone: give one such as Europe/Vienna or UTC"
        ) from None


def _end(hour: int, minute: int) -> time:
    return time(0) if (hour, minute) == (24, 0) else time(hour, minute)


def _days(text: str | None) -> frozenset[int]:
    if text is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in text.lower().replace(" ", "").split(","):
        first, _, last = part.partition("-")
        begin, end = _DAYS.index(first[:3]), _DAYS.index((last or first)[:3])
        days |= {day % 7 for day in range(begin, end + 1 + (7 if end < begin else 0))}
    return frozenset(days)
