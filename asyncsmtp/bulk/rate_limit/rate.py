"""Rates as people type them, `30/s` or `2000/day`, and the limiters that enforce them.

Each only says how long to wait. `now` is the time of a monotonic clock, `wall` is seconds since 1970.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from asyncsmtp.errors import InvalidArgument, check_type
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "MAX_CATCH_UP",
    "MAX_EVEN_PERIOD",
    "QUOTA_PARTS",
    "AdaptiveRate",
    "IntervalLimiter",
    "LimiterGroup",
    "Quota",
    "Rate",
]

MAX_EVEN_PERIOD = 60.0  # seconds: messages are spaced evenly within it; over a longer period they are counted

_UNITS = {"s": 1, "sec": 1, "second": 1, "m": 60, "min": 60, "minute": 60}
_UNITS |= {"h": 3600, "hour": 3600, "d": 86400, "day": 86400, "week": 604800}
_FORM = re.compile(r"([0-9][0-9_]{0,11}(?:\.[0-9]{1,3})?) ?(?:/|per) ?([0-9]{1,4})? ?([a-z]+)")


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `count` messages in any `seconds`."""

    count: float
    seconds: float

    def __post_init__(self) -> None:
        """Raises InvalidArgument: nothing could ever be sent."""
        if not (self.count > 0 and self.seconds > 0):
            raise InvalidArgument(f"a rate of {self.count:g} in {self.seconds:g} s sends nothing: give both above 0")

    @classmethod
    def parse(cls, text: str) -> Rate:
        """Parse one rate. Raises InvalidArgument: not a valid rate; the message shows examples."""
        check_type("text", text, str)
        found = _FORM.fullmatch(text.strip().lower())
        unit = found and (_UNITS.get(found[3]) or _UNITS.get(found[3].removesuffix("s")))
        if found is None or not unit:
            advice = "give one such as 30/s, 10/min, 500/h or 2000/day"
            raise InvalidArgument(f"“{safe_text(text, 40)}” is not a valid rate: {advice}")
        return cls(float(found[1].replace("_", "")), float(unit) * int(found[2] or 1))

    @classmethod
    def parse_all(cls, text: str) -> tuple[Rate, ...]:
        """Parse several rates, separated by commas; each of them applies."""
        check_type("text", text, str)
        return tuple(cls.parse(part) for part in text.split(","))

    @property
    def interval(self) -> float:
        """Seconds from one message to the next, if they are spaced evenly."""
        return self.seconds / self.count

    def __str__(self) -> str:
        unit = {1.0: "s", 60.0: "min", 3600.0: "h", 86400.0: "day"}.get(self.seconds, f"{self.seconds:g} s")
        return f"{self.count:g}/{unit}"


MAX_CATCH_UP = 0.1  # seconds of delay that may be made up for: a second may have a tenth above its share
QUOTA_PARTS = 96  # parts of the period of a quota: a quarter of an hour of a day

# Of AdaptiveRate.
WINDOW = 2.0  # seconds of outcomes that are considered
MIN_OUTCOMES = 5  # in WINDOW, before their share counts
MAX_DEFERRED_SHARE = 0.3  # of the outcomes in WINDOW; more of them mean "too fast". A 421 means it at once
CHANGE_INTERVAL = 1.0  # seconds between two changes
MIN_RATE = 1.0  # messages per second
BACKOFF_FACTOR = 0.97  # applied to a rate that was too fast
GROWTH, CALM_GROWTH = 1.02, 1.1  # factors for each CHANGE_INTERVAL; the latter after CALM_AFTER seconds
CALM_AFTER = 10.0  # seconds without a complaint
RELEASE_FACTOR = 4.0  # a rate so many times above the rate of sending is dropped: it limits nothing any more

Counts = Mapping[str, Mapping[int, int]]


class IntervalLimiter:
    """Even intervals between messages, by the generic cell rate algorithm (ITU-T I.371).

    A loop that wakes up late would lose the time by which it is late. Up to `MAX_CATCH_UP` is made up for, so that
    the rate is reached.
    """

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._next = 0.0

    def delay(self, now: float) -> float:
        """Return the seconds until the next message may begin."""
        return max(0.0, self._next - now)

    def take(self, now: float) -> None:
        """Record that a message begins."""
        self._next = max(self._next, now - MAX_CATCH_UP) + self.interval


class Quota:
    """A maximum number of messages in any period of that length.

    Messages are counted by parts of the period, so that the quota is never exceeded, and is available again at most
    one part late. Times are those of the wall clock, since the quota of a day outlives the process. If that clock was
    set back, messages counted in its future count as of now: a wrong clock may delay messages, but frees no quota.
    """

    def __init__(self, rate: Rate, counts: Mapping[int, int] | None = None) -> None:
        """Continue with the `counts` of an earlier run, if given."""
        self.rate = rate
        self._max = max(1, int(rate.count))
        self._part = rate.seconds / QUOTA_PARTS
        self._counts = dict(counts or {})

    def delay(self, wall: float) -> float:
        """Return the seconds until the next message may begin."""
        _, counts = self._current(wall)
        over = sum(counts.values()) - self._max + 1
        for part in sorted(counts):
            if over <= 0:
                break
            over -= counts[part]
            if over <= 0:
                return max(0.0, (part + QUOTA_PARTS + 1) * self._part - wall)
        return 0.0

    def take(self, wall: float) -> None:
        """Record that a message begins."""
        part, self._counts = self._current(wall)
        self._counts[part] = self._counts.get(part, 0) + 1

    def counts(self) -> Mapping[int, int]:
        """Return the messages by the part of time in which they began, for the next run."""
        return dict(self._counts)

    def _current(self, wall: float) -> tuple[int, dict[int, int]]:
        """Return the current part of time, and the counts of the period that ends with it."""
        part = int(wall // self._part)
        if not self._counts or (min(self._counts) >= part - QUOTA_PARTS and max(self._counts) <= part):
            return part, self._counts
        kept: dict[int, int] = {}
        for old, number in self._counts.items():
            if old >= part - QUOTA_PARTS:
                kept[min(old, part)] = kept.get(min(old, part), 0) + number
        return part, kept


class AdaptiveRate:
    """A rate that follows the replies of one relay or domain.

    It begins unlimited. A relay that reports "too fast" brings it down to the rate that was accepted, which is
    measured and not guessed; afterwards it grows slowly until it limits nothing.

    Attributes:
        limiter: the current intervals; None: unlimited.
    """

    def __init__(self) -> None:
        self.limiter: IntervalLimiter | None = None
        self._outcomes: deque[tuple[float, bool]] = deque()
        self._deferred = 0
        self._changed_at = 0.0
        self._complaint_at = 0.0
        self._reduced_at = 0.0

    @property
    def rate(self) -> float | None:
        """Messages per second; None: unlimited."""
        return None if self.limiter is None else 1 / self.limiter.interval

    def record_success(self, now: float) -> None:
        """Record that a message was accepted, or refused permanently: not too fast."""
        self._record(now, deferred=False)
        if self.limiter is None or now - max(self._changed_at, self._complaint_at) < CHANGE_INTERVAL:
            return
        rate = 1 / self.limiter.interval
        calm = now - self._complaint_at > CALM_AFTER
        if calm and rate > RELEASE_FACTOR * max(MIN_RATE, self._accepted_rate(now)):
            self.limiter = None
        else:
            self._set(rate * (CALM_GROWTH if calm else GROWTH), now)

    def record_complaint(self, now: float, *, explicit: bool) -> None:
        """Record a temporary refusal. An `explicit` one, a 421, is about the rate by itself."""
        self._record(now, deferred=True)
        share = self._deferred / len(self._outcomes)
        if not explicit and (len(self._outcomes) < MIN_OUTCOMES or share < MAX_DEFERRED_SHARE):
            return
        self._complaint_at = now
        if self.limiter is None:
            rate = self._accepted_rate(now)
        elif now - self._reduced_at >= CHANGE_INTERVAL:
            rate = min(self._accepted_rate(now), BACKOFF_FACTOR / self.limiter.interval)
        else:
            return
        self._reduced_at = now
        self._set(rate, now)

    def _record(self, now: float, *, deferred: bool) -> None:
        self._outcomes.append((now, deferred))
        self._deferred += deferred
        while self._outcomes[0][0] < now - WINDOW:
            self._deferred -= self._outcomes.popleft()[1]

    def _accepted_rate(self, now: float) -> float:
        """Return the messages per second that were not refused temporarily."""
        span = min(WINDOW, max(now - self._outcomes[0][0], 0.25)) if self._outcomes else WINDOW
        return (len(self._outcomes) - self._deferred) / span

    def _set(self, rate: float, now: float) -> None:
        interval = 1 / max(MIN_RATE, rate)
        if self.limiter is None:
            self.limiter = IntervalLimiter(interval)
        self.limiter.interval = interval
        self._changed_at = now


class LimiterGroup:
    """The limiters of all messages of a run, or of those to one domain; each of the `rates` applies."""

    def __init__(self, rates: Iterable[Rate] = ()) -> None:
        self.adaptive = AdaptiveRate()
        self._intervals: list[IntervalLimiter] = []
        self._quotas: list[Quota] = []
        self._rates: tuple[Rate, ...] = ()
        self.set_rates(rates)

    def set_rates(self, rates: Iterable[Rate]) -> None:
        """Apply other rates from now on; the counts of a rate that stays are kept."""
        self._rates, counts = tuple(rates), self.counts()
        rates = self._rates
        self._intervals = [IntervalLimiter(rate.interval) for rate in rates if rate.seconds <= MAX_EVEN_PERIOD]
        self._quotas = [Quota(rate, counts.get(str(rate))) for rate in rates if rate.seconds > MAX_EVEN_PERIOD]

    def counts(self) -> Counts:
        """Return the counts of each quota, by its rate and by part of its period."""
        return {str(quota.rate): quota.counts() for quota in self._quotas}

    def restore_counts(self, counts: Counts) -> None:
        """Continue with the `counts()` of an earlier run."""
        self._quotas = [Quota(quota.rate, counts.get(str(quota.rate))) for quota in self._quotas]

    @property
    def is_unlimited(self) -> bool:
        """True if no message has to wait."""
        return not self._intervals and not self._quotas and self.adaptive.limiter is None

    @property
    def interval(self) -> float:
        """Seconds from one message to the next where they are spaced evenly; 0 where they are not."""
        return max((limiter.interval for limiter in self._all_intervals()), default=0.0)

    def delay(self, now: float, wall: float) -> float:
        """Return the seconds until the next message may begin."""
        delays = [limiter.delay(now) for limiter in self._all_intervals()]
        return max([*delays, *(quota.delay(wall) for quota in self._quotas)], default=0.0)

    def longest(self, now: float, wall: float) -> Rate | None:
        """Return the rate for which the next message waits longest; None: the relay's replies demand it."""
        even = [rate for rate in self._rates if rate.seconds <= MAX_EVEN_PERIOD]
        delays = [(limiter.delay(now), rate) for limiter, rate in zip(self._intervals, even, strict=True)]
        delays += [(quota.delay(wall), quota.rate) for quota in self._quotas]
        delay, rate = max(delays, default=(0.0, None), key=lambda each: each[0])
        adaptive = self.adaptive.limiter
        return None if adaptive is not None and adaptive.delay(now) > delay else rate

    def take(self, now: float, wall: float) -> None:
        """Record that a message begins."""
        for limiter in self._all_intervals():
            limiter.take(now)
        for quota in self._quotas:
            quota.take(wall)

    def _all_intervals(self) -> list[IntervalLimiter]:
        adaptive = self.adaptive.limiter
        return self._intervals if adaptive is None else [*self._intervals, adaptive]
