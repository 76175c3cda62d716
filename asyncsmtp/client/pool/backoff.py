"""When to connect again: at once after the first failure almost, later and later after more of them.

A relay that accepts connections and closes them at once would otherwise be asked as fast as the machine can.
"""

from __future__ import annotations

__all__ = ["Backoff"]

FIRST = 0.01  # seconds after one failure; twice as many after each further one …
LONGEST = 5.0  # … up to this


class Backoff:
    """Counts failures that follow each other; time is given to it."""

    __slots__ = ("_failed_at", "_failures", "_not_before", "_tried_at")

    def __init__(self) -> None:
        self._failures = 0
        self._failed_at = self._tried_at = self._not_before = float("-inf")

    def tries(self, now: float) -> None:
        """A connection is begun."""
        self._tried_at = now

    def failed(self, now: float) -> None:
        """It did not come to be, or broke before it was of any use; of several at a time the first to fail counts."""
        if self._tried_at < self._failed_at:
            return
        self._failed_at = now
        self._not_before = now + min(LONGEST, FIRST * 2.0 ** min(self._failures, 16))
        self._failures += 1

    def worked(self) -> None:
        """The relay took a message's envelope."""
        self._failures = 0
        self._not_before = float("-inf")

    def delay(self, now: float) -> float:
        """Seconds to wait before the next try."""
        return max(0.0, self._not_before - now)
