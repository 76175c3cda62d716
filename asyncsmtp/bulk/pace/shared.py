"""Rates that campaigns share: some messages are reserved for all processes to see, and then sent without asking."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from types import TracebackType
from typing import Self

from asyncsmtp.bulk.pace.ratefile import AHEAD, HOLD, RateFile, Reserved
from asyncsmtp.errors import LedgerError

__all__ = ["SharedRates"]

logger = logging.getLogger("asyncsmtp.campaign")

MOST = 512  # messages reserved at once
_NONE = Reserved((), 0.0, 0, 0)
_FARTHEST = int((AHEAD + HOLD) * 1e6)  # microseconds; a slot that is farther away means that the clock was set back


class SharedRates:
    """Says when the next message may begin, as far as what others send is concerned; leave it to give back the rest.

    As many are reserved as are sent in a quarter of a second or so: a run that is fast asks seldom, one that is
    killed loses few.

    Args:
        needed: whether the run ends where the file cannot be used; else it goes on by its own count, and says so.
        warn: says it.
    """

    def __init__(self, file: RateFile, *, needed: bool = True, warn: Callable[[str], object] = logger.warning) -> None:
        self._warn = warn
        self._file = file
        self._needed = needed
        self._gone = False
        self._wanted = 1
        self._reserved = _NONE
        self._used = 0
        self._lock = asyncio.Lock()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        async with self._lock:
            await self._give_back()

    async def take(self) -> float:
        """Take one message; return 0, or the seconds after which to ask again when there is none now.

        Raises:
            LedgerError: the file cannot be used, and is needed.
        """
        async with self._lock:
            if self._gone:
                return 0.0
            try:
                return await self._take()
            except LedgerError as error:
                if self._needed:
                    raise
                self._gone = True
                self._warn(f"rates are not shared with other campaigns: {error}")
                return 0.0

    async def _take(self) -> float:
        now = self._file.now()
        times = self._reserved.times
        if self._used < len(times) and (now > self._reserved.until or times[self._used] - now > _FARTHEST):
            await self._give_back()
            self._wanted = max(1, self._wanted // 2)
        if self._used == len(self._reserved.times):
            if self._used and now - self._reserved.at < HOLD * 500_000:  # half the time that there was
                self._wanted = min(2 * self._wanted, MOST)
            self._used = 0
            self._reserved = await asyncio.to_thread(self._file.reserve, self._wanted)
            if not self._reserved.times:
                return self._reserved.wait
        early = self._reserved.times[self._used] - self._file.now()
        if early > 0:
            return early / 1e6
        self._used += 1
        return 0.0

    async def _give_back(self) -> None:
        reserved, left = self._reserved, len(self._reserved.times) - self._used
        self._reserved, self._used = _NONE, 0
        if left and not self._gone:
            try:
                await asyncio.to_thread(self._file.give_back, reserved, left)
            except LedgerError as error:  # they count as sent: nothing is exceeded by that
                self._warn(f"what was reserved and not sent counts as sent: {error}")
