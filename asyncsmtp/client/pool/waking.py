"""Whether the machine has slept: what was idle then is gone at the other end, and nobody has said so."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Wakefulness"]

GAP = 30.0  # seconds of sleep after which an idle session is not trusted
_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def _boot_time() -> float:
    """Seconds since the machine was started, sleep counted; where there is no such clock, nobody can tell."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Wakefulness:
    """Compares a clock that stops while the machine sleeps, as the event loop's does, with one that goes on.

    Timeouts stand still with the former: a session that was idle for an hour of sleep would count as fresh.
    """

    def __init__(
        self, boot_time: Callable[[], float] = _boot_time, awake: Callable[[], float] = time.monotonic
    ) -> None:
        self._boot_time = boot_time
        self._awake = awake
        self._asleep = boot_time() - awake()

    def slept(self) -> bool:
        """Whether the machine has slept for more than `GAP` since this was last asked."""
        asleep = self._boot_time() - self._awake()
        gap, self._asleep = asleep - self._asleep, asleep
        return gap > GAP
