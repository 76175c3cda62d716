"""What holds back the messages of one kind: rates that were asked for, and what the relay taught."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from asyncsmtp.bulk.pace.limits import Quota, Spacing
from asyncsmtp.bulk.pace.rates import SMOOTH, Rate
from asyncsmtp.bulk.pace.throttle import Throttle

__all__ = ["Lane"]

Counted = Mapping[str, Mapping[int, int]]


class Lane:
    """All messages of a run, or those to one domain; each of the `rates` holds."""

    def __init__(self, rates: Iterable[Rate] = ()) -> None:
        self.throttle = Throttle()
        self._spacings: list[Spacing] = []
        self._quotas: list[Quota] = []
        self.change(rates)

    def change(self, rates: Iterable[Rate]) -> None:
        """Go by other rates from now on; what was counted under a rate that stays is kept."""
        rates, counted = tuple(rates), self.counted()
        self._spacings = [Spacing(rate.spacing) for rate in rates if rate.seconds <= SMOOTH]
        self._quotas = [Quota(rate, counted.get(str(rate))) for rate in rates if rate.seconds > SMOOTH]

    def recall(self, counted: Counted) -> None:
        """Go on with what `counted()` of an earlier run said."""
        self._quotas = [Quota(quota.rate, counted.get(str(quota.rate))) for quota in self._quotas]

    @property
    def counts(self) -> bool:
        """Whether there is something for the next run to know."""
        return bool(self._quotas)

    @property
    def is_open(self) -> bool:
        """Whether nothing here holds a message back."""
        return not self._spacings and not self._quotas and self.throttle.spacing is None

    def wait(self, now: float, wall: float) -> float:
        """Seconds until the next message may begin; `now` by a monotonic clock, `wall` since 1970."""
        return max(
            (
                *(spacing.wait(now) for spacing in self._all_spacings()),
                *(quota.wait(wall) for quota in self._quotas),
            ),
            default=0.0,
        )

    @property
    def spacing(self) -> float:
        """Seconds from one message to the next where that is even."""
        return max((spacing.spacing for spacing in self._all_spacings()), default=0.0)

    def take(self, now: float, wall: float) -> None:
        """A message begins."""
        for spacing in self._all_spacings():
            spacing.take(now)
        for quota in self._quotas:
            quota.take(wall)

    def counted(self) -> Counted:
        """Messages by rate and by part of its time."""
        return {str(quota.rate): quota.counted() for quota in self._quotas}

    def _all_spacings(self) -> list[Spacing]:
        taught = self.throttle.spacing
        return self._spacings if taught is None else [*self._spacings, taught]
