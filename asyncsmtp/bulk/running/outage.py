"""What to do when the relay is gone in the middle of a campaign: one at a time tries again, and not for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

__all__ = ["DELAYS", "Outage"]

logger = logging.getLogger("asyncsmtp.campaign")

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try


class Outage:
    """Shared by the senders of one run.

    Args:
        delays: seconds before each further try; when they are used up the run ends and its rows stay pending.
    """

    def __init__(self, delays: Sequence[float] = DELAYS) -> None:
        self._delays = delays
        self._failures = 0
        self._worked = False
        self._over = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def works(self) -> None:
        """The relay answered."""
        self._worked = True
        self._failures = 0

    def stop(self) -> None:
        """Whoever waits need not wait longer: there will be no further try."""
        self._over.set()

    async def wait(self) -> bool:
        """Wait before the next try; False when there is no point in another.

        A relay that never answered in this run is a wrong name or one that is not running: no second try.
        """
        async with self._one_at_a_time:
            if self._over.is_set() or not self._worked or self._failures >= len(self._delays):
                self._over.set()
                return False
            self._failures += 1
            delay = self._delays[self._failures - 1]
            logger.warning("the relay is gone: the campaign waits, and tries again in %g s", delay)
            try:
                async with asyncio.timeout(delay):
                    await self._over.wait()
            except TimeoutError:
                return True
            return False
