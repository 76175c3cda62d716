"""How many messages may be in hand: a semaphore whose size can change."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Capacity"]


class Capacity:
    """Lets `size` in at a time, the others in the order in which they came."""

    __slots__ = ("_size", "_taken", "_waiters")

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        """Whether who comes now has to wait."""
        return self._taken >= self._size

    async def acquire(self, *, first: bool = False) -> None:
        """Come in, when there is room; before all others who wait, if `first`. Cancelled, nothing is taken."""
        if not self.full:
            self._taken += 1
            return
        waiter = asyncio.get_running_loop().create_future()
        (self._waiters.appendleft if first else self._waiters.append)(waiter)
        try:
            await waiter  # whoever ends the wait has counted it
        except asyncio.CancelledError:
            if not waiter.cancelled():
                self.release()
            elif waiter in self._waiters:
                self._waiters.remove(waiter)
            raise

    def release(self) -> None:
        """Leave."""
        self._taken -= 1
        self._let_in()

    def resize(self, size: int) -> None:
        """From now on so many; who is in stays in."""
        self._size = size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiters and self._taken < self._size:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(None)
