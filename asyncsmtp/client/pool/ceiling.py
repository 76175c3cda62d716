"""How many sessions a pool may have now: fewer once there was no room for one more, then one more at a time.

A relay that says 421 to the fourth connection takes mail on the three that are open. So the pool does with
those, and tries a fourth when they have taken some messages and some time has gone by; each such try in vain
doubles that time.
"""

from __future__ import annotations

__all__ = ["Ceiling"]

MESSAGES = 20  # accepted, and …
PATIENCE = 5.0  # … seconds, before one session more is tried
LONGEST = 300.0  # seconds


class Ceiling:
    """The number, and when it may grow; time is given to it.

    Attributes:
        sessions: so many are allowed now. most: and so many at the best of times.
    """

    __slots__ = ("_accepted", "_lowered_at", "_patience", "_trying", "most", "sessions")

    def __init__(self, most: int) -> None:
        self.most = most
        self.sessions = most
        self._accepted = 0
        self._lowered_at = 0.0
        self._patience = PATIENCE
        self._trying = False

    @property
    def lowered(self) -> bool:
        return self.sessions < self.most

    def lower(self, sessions: int, now: float) -> None:
        """There was no room for one more than `sessions`."""
        if self._trying:
            self._patience = min(LONGEST, 2 * self._patience)
        self.sessions = max(1, min(sessions, self.sessions))
        self._begin(now, trying=False)

    def accepted(self, now: float) -> bool:
        """A message was accepted; return whether one session more may be tried."""
        self._accepted += 1
        if self._accepted < MESSAGES or now < self._lowered_at + self._patience or not self.lowered:
            return False
        if self._trying:  # the last one found its room
            self._patience = PATIENCE
        self.sessions += 1
        self._begin(now, trying=True)
        return True

    def _begin(self, now: float, *, trying: bool) -> None:
        self._trying = trying
        self._lowered_at = now
        self._accepted = 0
