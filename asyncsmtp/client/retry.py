"""Retries of a message after a temporary failure: how many, how long between them, and when to give up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from asyncsmtp.errors import check_number

__all__ = ["Retry"]

SEND_DELAY = 1.0  # seconds before the second attempt of `send` and `Pool`, where somebody waits
CAMPAIGN_DELAY = 300.0  # and of a campaign: most temporary refusals are greylisting, and that takes five minutes
RANDOM = Random()  # noqa: S311 - it spreads times and keeps no secret
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=RANDOM.seed)  # else all workers of a server try again at the same moment


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """A back-off: a first delay, doubled with each attempt, up to `max_delay`.

    RFC 5321 §4.5.4.1 asks for a delay after a failure, half an hour in general, and allows "more sophisticated and
    variable strategies" where the client knows the reason.

    Attributes:
        delay: seconds before the second attempt; None for 1 s in `send` and `Pool`, 300 s in a campaign. 0: at once; in
            a campaign: not in the same run, by the next run at once.
        max_delay: seconds between two attempts.
        give_up_after: seconds after the first attempt from which on the next refusal is the last. "the give-up time
            generally needs to be at least 4-5 days" (the same section).
        attempts: how many are made at the most; None: as many as there is time for, until `give_up_after`.
        jitter: a delay is up to this share longer, so that what was refused together does not come back together.
    """

    delay: float | None = None
    max_delay: float = 7200.0
    give_up_after: float = 4 * 86400.0
    attempts: int | None = None
    jitter: float = 0.2

    def __post_init__(self) -> None:
        for parameter in ("max_delay", "give_up_after", "jitter"):
            check_number(parameter, getattr(self, parameter), int, float, zero=True)
        check_number("delay", self.delay, int, float, None, zero=True)
        check_number("attempts", self.attempts, int, None)

    def is_over(self, attempt: int, first_at: datetime | None, now: datetime) -> bool:
        """Return whether attempt number `attempt`, refused at `now`, was the last; the first one was at `first_at`."""
        if self.attempts is not None and attempt >= self.attempts:
            return True
        return first_at is not None and (now - first_at).total_seconds() >= self.give_up_after

    def due(self, attempt: int, now: datetime, random: Random = RANDOM) -> datetime | None:
        """Return when the attempt after number `attempt`, refused at `now`, is due; None: by the next run."""
        if self.delay == 0:
            return None
        return now + timedelta(seconds=self._delay(attempt, CAMPAIGN_DELAY, random))

    def delay_after(self, attempt: int, age: float, random: Random = RANDOM) -> float | None:
        """Return the seconds to wait after attempt number `attempt` of `send`; None if it was the last.

        Args:
            age: seconds since the first attempt.
        """
        if age >= self.give_up_after or (self.attempts is not None and attempt >= self.attempts):
            return None
        return self._delay(attempt, SEND_DELAY, random)

    def _delay(self, attempt: int, default: float, random: Random) -> float:
        first = default if self.delay is None else self.delay
        return min(first * 2.0 ** min(attempt - 1, 40), self.max_delay) * (1 + self.jitter * random.random())
