"""What holds a message back: a spacing for short times, a count for long ones. Both only say how long."""

from __future__ import annotations

from collections.abc import Mapping

from asyncsmtp.bulk.pace.rates import Rate

__all__ = ["Quota", "Spacing"]

SLACK = 0.1  # seconds of delay that may be made up for: a second may have a tenth above its share
PARTS = 96  # into which the time of a quota is cut: a quarter of an hour of a day


class Spacing:
    """Messages at even distances, by the generic cell rate algorithm (ITU-T I.371): the next may begin at `_next`.

    A loop that wakes up late would lose what it came late by; up to `SLACK` is made up for, so that the rate holds.
    """

    def __init__(self, spacing: float) -> None:
        self.spacing = spacing
        self._next = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next message may begin; `now` by a clock that is never set."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """A message begins."""
        self._next = max(self._next, now - SLACK) + self.spacing


class Quota:
    """At most so many in any time of that length, counted in parts of it: never more, and a part too late at most.

    Times are those of the wall clock, since a day's quota outlives the process. Where that clock was set back, what was
    counted in its future counts as of now: a wrong clock may delay messages, and never frees a quota.
    """

    def __init__(self, rate: Rate, counted: Mapping[int, int] | None = None) -> None:
        """Begin with what `counted` said in an earlier run."""
        self.rate = rate
        self._most = max(1, int(rate.count))
        self._part = rate.seconds / PARTS
        self._counted = dict(counted or {})

    def wait(self, now: float) -> float:
        """Seconds until the next message may begin; `now` in seconds since 1970."""
        _, counted = self._within(now)
        over = sum(counted.values()) - self._most + 1
        for part in sorted(counted):
            if over <= 0:
                break
            over -= counted[part]
            if over <= 0:
                return max(0.0, (part + PARTS + 1) * self._part - now)
        return 0.0

    def take(self, now: float) -> None:
        """A message begins."""
        part, self._counted = self._within(now)
        self._counted[part] = self._counted.get(part, 0) + 1

    def counted(self) -> Mapping[int, int]:
        """Messages by the part of time that they began in, as the next run wants it."""
        return dict(self._counted)

    def _within(self, now: float) -> tuple[int, dict[int, int]]:
        """The part of time that it is, and what was counted in the time of the quota that ends with it."""
        part = int(now // self._part)
        if not self._counted or (min(self._counted) >= part - PARTS and max(self._counted) <= part):
            return part, self._counted
        kept: dict[int, int] = {}
        for old, number in self._counted.items():
            if old >= part - PARTS:
                kept[min(old, part)] = kept.get(min(old, part), 0) + number
        return part, kept
