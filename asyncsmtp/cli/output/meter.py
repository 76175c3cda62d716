"""Counting a run: outcomes, rate, time left, and the words of those who refused."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from time import monotonic

from asyncsmtp.protocol.delivery import Outcome

__all__ = ["Meter", "duration"]

WINDOW = 5.0  # seconds over which the rate is told
MAX_REASONS = 1000  # different replies that are counted; a relay that words each one differently is cut there


class Meter:
    """What happened so far, for a bar, a line and a summary.

    Attributes:
        total: how many recipients this run has to do with.
        counts: recipients by outcome in this run.
        reasons: how often a refusal was worded so.
    """

    def __init__(self, total: int, clock: Callable[[], float] = monotonic) -> None:
        self.total = total
        self.counts = dict.fromkeys(Outcome, 0)
        self.reasons: Counter[str] = Counter()
        self._clock = clock
        self._begun = clock()
        self._marks: deque[tuple[float, int]] = deque([(self._begun, 0)])

    def count(self, outcome: Outcome, reason: str = "", *, again: bool = False) -> None:
        """One recipient more; `reason` are the relay's words when it was not accepted.

        Args:
            again: the recipient was counted before, as deferred.
        """
        if again:
            self.counts[Outcome.DEFERRED] -= 1
        self.counts[outcome] += 1
        if reason and (reason in self.reasons or len(self.reasons) < MAX_REASONS):
            self.reasons[reason] += 1

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    @property
    def seconds(self) -> float:
        """Since the run began."""
        return self._clock() - self._begun

    @property
    def rate(self) -> float:
        """Recipients per second over the last seconds."""
        now, done = self._clock(), self.done
        if now - self._marks[-1][0] >= 0.1:
            self._marks.append((now, done))
        while len(self._marks) > 2 and self._marks[1][0] <= now - WINDOW:
            self._marks.popleft()
        then, before = self._marks[0]
        return (done - before) / (now - then) if now > then else 0.0

    @property
    def mean_rate(self) -> float:
        """Recipients per second over the whole run."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    def left(self) -> float | None:
        """Seconds to go at the present rate; None when nothing moves."""
        rate = self.rate
        return (self.total - self.done) / rate if rate > 0 else None

    def outcomes(self, *, every: bool = True) -> str:
        """`996 accepted · 2 deferred · 1 rejected · 1 in doubt`; without `every`, those that occurred."""
        shown = {outcome: count for outcome, count in self.counts.items() if every or count}
        return " · ".join(f"{count:,} {outcome}" for outcome, count in shown.items()) or "nothing was sent"

    def line(self) -> str:
        """The state of the run on one line."""
        left = self.left()
        wait = f"{duration(left)} left" if left is not None else "waiting"
        return f"{self.done:,} of {self.total:,} · {self.rate:,.0f}/s · {wait} · {self.outcomes()}"


def duration(seconds: float) -> str:
    """`0:00:07`, `1:02:03`: hours, minutes, seconds."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"
