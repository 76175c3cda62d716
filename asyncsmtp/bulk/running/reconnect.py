"""Reactions to a failing relay: when to try it again, and when to stop the campaign."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence

from asyncsmtp.bulk.interfaces import Sleep, sleep_unless
from asyncsmtp.bulk.ledger import Settlement
from asyncsmtp.bulk.states import State
from asyncsmtp.errors import CampaignHalted

__all__ = ["MAX_FAILURES", "OUTCOME_WINDOW", "RECONNECT_DELAYS", "CircuitBreaker", "ReconnectPolicy"]

logger = logging.getLogger("asyncsmtp.campaign")

RECONNECT_DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each further try
OUTCOME_WINDOW = 50  # outcomes that a circuit breaker considers
MAX_FAILURES = 20  # of these, before it opens


class ReconnectPolicy:
    """Delays between attempts to reach a relay that is gone in the middle of a run; shared by all senders of the run.

    Args:
        delays: seconds before each further try; when they are used up the run ends and its rows stay pending.
        sleep: sleeps, and returns early when the event is set.
    """

    def __init__(self, delays: Sequence[float] = RECONNECT_DELAYS, *, sleep: Sleep = sleep_unless) -> None:
        self._delays = delays
        self._sleep = sleep
        self._failures = 0
        self._has_worked = False
        self._stopped = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    def record_success(self) -> None:
        """Record that the relay answered."""
        self._has_worked = True
        self._failures = 0

    def stop(self) -> None:
        """End all waiting; there will be no further try."""
        self._stopped.set()

    async def wait(self) -> bool:
        """Wait before the next try; return False when there must not be another.

        A relay that never answered in this run has a wrong name, or does not run: there is no second try.
        """
        async with self._one_at_a_time:
            if self._stopped.is_set() or not self._has_worked or self._failures >= len(self._delays):
                self._stopped.set()
                return False
            self._failures += 1
            delay = self._delays[self._failures - 1]
            logger.warning("the relay is unreachable: the campaign waits, and tries again in %g s", delay)
            await self._sleep(delay, self._stopped)
            return not self._stopped.is_set()


class CircuitBreaker:
    """A stop for a run in which most of the last outcomes say that the sender, or the relay, has a problem.

    Attributes:
        error: why the campaign must stop; None: it may go on. Once set it stays.
    """

    # Enhanced codes 5.7.x (RFC 3463 §3.8) are about the sender: a blocked address, a revoked account. Such a relay
    # refuses everyone, and each refusal would be recorded as a permanent one of its recipient: a campaign would use
    # up its whole list in minutes. A lost reply leaves a doubt that a person must decide; a relay that loses one after
    # another would leave a campaign of doubts. Both count together, by the share of the last outcomes and not in a
    # row, since a few recipients are accepted also in a storm. Below `MAX_FAILURES` outcomes nothing is stopped: five
    # dead policies on a list are no storm. Refusals after the stop, of messages that were in flight, are deferred: the
    # next run tries them again. Those before it stay as the relay reported them.

    def __init__(self, window: int = OUTCOME_WINDOW, max_failures: int = MAX_FAILURES) -> None:
        self.error: CampaignHalted | None = None
        self._last: deque[bool] = deque(maxlen=window)
        self._max_failures = max_failures
        self._failures = 0

    def admit(self, settlement: Settlement) -> bool:
        """Count an outcome; return False for a refusal that must not be held against the recipient."""
        refused = settlement.state is State.REJECTED and (settlement.status or "").startswith("5.7.")
        if self.error is not None:
            return not refused
        failure = refused or settlement.state is State.IN_DOUBT
        if not (failure or self._failures):  # while all goes well there is nothing to count
            return True
        if len(self._last) == self._last.maxlen:
            self._failures -= self._last[0]
        self._last.append(failure)
        self._failures += failure
        if self._failures >= self._max_failures:
            what = f"{settlement.code} {settlement.reply}" if settlement.code else settlement.reply
            self.error = CampaignHalted(self._failures, len(self._last), settlement.host, what)
        return True
