"""When a refusal for the moment is tried again, and when it is given up."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from asyncsmtp.errors import InvalidArgument

__all__ = ["Retry"]

_SEEDED = Random()  # noqa: S311 - it spreads times and keeps no secret


@dataclass(frozen=True, slots=True)
class Retry:
    """The back-off of one recipient: a first delay, doubled with each attempt, up to the longest.

    RFC 5321 §4.5.4.1: "The sender MUST delay retrying a particular destination after one attempt has failed", by half
    an hour in general, but "more sophisticated and variable strategies will be beneficial when the SMTP client can
    determine the reason for non-delivery". The reason is known here, and it is greylisting more often than not:
    five minutes are what such a relay waits for, and what still is refused then waits longer each time.

    Attributes:
        delay: seconds before the second attempt; 0: never in the same run, by the next run at once.
        longest: seconds between two attempts at the most.
        lasting: seconds after the first attempt from which on the next refusal is the last. "the give-up time generally
            needs to be at least 4-5 days" (the same section).
        attempts: how many are made at the most; None: as many as there is time for.
        jitter: a delay is up to this share longer, so that what was refused together does not come back together.
    """

    delay: float = 300.0
    longest: float = 7200.0
    lasting: float = 4 * 86400.0
    attempts: int | None = None
    jitter: float = 0.2

    def __post_init__(self) -> None:
        """Raises InvalidArgument: a value is negative, or no attempt is allowed."""
        if min(self.delay, self.longest, self.lasting, self.jitter) < 0:
            raise InvalidArgument(f"{self}: no time can be negative: give seconds, from 0")
        if self.attempts is not None and self.attempts < 1:
            raise InvalidArgument(f"{self}: there is at least one attempt: give attempts=1 to make no second one")

    def is_over(self, attempt: int, first_at: datetime | None, now: datetime) -> bool:
        """Whether attempt number `attempt`, refused at `now`, was the last; `first_at` is when the first one was."""
        if self.attempts is not None and attempt >= self.attempts:
            return True
        return first_at is not None and now - first_at >= timedelta(seconds=self.lasting)

    def due(self, attempt: int, now: datetime, random: Random = _SEEDED) -> datetime | None:
        """When the attempt after number `attempt`, refused at `now`, is due; None: by the next run."""
        if not self.delay:
            return None
        doubled = self.delay * 2.0 ** min(attempt - 1, 40)
        return now + timedelta(seconds=min(doubled, self.longest) * (1 + self.jitter * random.random()))
