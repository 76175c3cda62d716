"""A rate that finds itself: a relay that says "too fast" is heard, and tried again a little faster later."""

from __future__ import annotations

from collections import deque

from asyncsmtp.bulk.pace.limits import Spacing

__all__ = ["Throttle"]

SPAN = 2.0  # seconds that are looked back at
SHARE = 0.3  # of the outcomes in SPAN: so many refusals for the moment mean "too fast"; a 421 does at once
LEAST = 5  # outcomes in SPAN, to speak of a share
TURN = 1.0  # seconds between two changes
SLOWEST = 1.0  # messages a second
CUT = 0.97  # what is left of a rate that was too fast
GROWTH, LATER_GROWTH = 1.02, 1.1  # a turn; the latter after CALM seconds without a complaint
CALM = 10.0
FREE = 4.0  # how many times faster than what is sent a rate is when it holds nothing back any more


class Throttle:
    """One relay or one domain. The rate it comes down to is what was accepted, not a guess.

    Attributes:
        spacing: how messages are spaced now; None: not at all.
    """

    def __init__(self) -> None:
        self.spacing: Spacing | None = None
        self._heard: deque[tuple[float, bool]] = deque()
        self._complaints = 0
        self._changed = 0.0
        self._complained = 0.0
        self._cut = 0.0

    @property
    def rate(self) -> float | None:
        """Messages per second; None: as many as can be."""
        return None if self.spacing is None else 1 / self.spacing.spacing

    def well(self, now: float) -> None:
        """A message was taken, or refused for good: not too fast."""
        self._hear(now, complaint=False)
        if self.spacing is None or now - max(self._changed, self._complained) < TURN:
            return
        rate = 1 / self.spacing.spacing
        if rate > FREE * max(SLOWEST, self._accepted(now)) and now - self._complained > CALM:
            self.spacing = None
        else:
            self._set(rate * (LATER_GROWTH if now - self._complained > CALM else GROWTH), now)

    def complaint(self, now: float, *, plain: bool) -> None:
        """A message was refused for the moment. A `plain` complaint, a 421, is about the speed by itself."""
        self._hear(now, complaint=True)
        share = self._complaints / len(self._heard)
        if not plain and (len(self._heard) < LEAST or share < SHARE):
            return
        self._complained = now
        if self.spacing is None:
            self._cut_to(self._accepted(now), now)
        elif now - self._cut >= TURN:
            self._cut_to(min(self._accepted(now), CUT / self.spacing.spacing), now)

    def _hear(self, now: float, *, complaint: bool) -> None:
        self._heard.append((now, complaint))
        self._complaints += complaint
        while self._heard[0][0] < now - SPAN:
            self._complaints -= self._heard.popleft()[1]

    def _accepted(self, now: float) -> float:
        """Messages per second that were no complaint."""
        span = min(SPAN, max(now - self._heard[0][0], 0.25)) if self._heard else SPAN
        return (len(self._heard) - self._complaints) / span

    def _cut_to(self, rate: float, now: float) -> None:
        self._cut = now
        self._set(rate, now)

    def _set(self, rate: float, now: float) -> None:
        spacing = 1 / max(SLOWEST, rate)
        if self.spacing is None:
            self.spacing = Spacing(spacing)
        self.spacing.spacing = spacing
        self._changed = now
