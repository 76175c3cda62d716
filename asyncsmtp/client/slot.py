"""The places of a pool: which one a message is given to, and which sessions have been idle or open for too long."""

from __future__ import annotations

import asyncio
from operator import attrgetter

from asyncsmtp.client.service import Service

__all__ = ["Slot", "Slots"]


class Slot:
    """A place for one session: how many messages it has in hand, and who serves them."""

    __slots__ = ("load", "opening", "service")

    def __init__(self) -> None:
        self.service: Service | None = None
        self.load = 0
        self.opening = asyncio.Lock()

    def serves(self, now: float) -> bool:
        """Whether its session may take a message."""
        return self.service is not None and self.service.serves(now)


_load = attrgetter("load")


class Slots:
    """All places; those without a message are a stack, so that sessions nobody needs grow idle and end."""

    def __init__(self, number: int) -> None:
        self._all = tuple(Slot() for _ in range(number))
        self._free = list(reversed(self._all))
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def services(self) -> list[Service]:
        """Of the places that have one."""
        return [slot.service for slot in self._all if slot.service is not None]

    @property
    def load(self) -> int:
        """How many messages they have in hand."""
        return sum(map(_load, self._all))

    def take(self, now: float) -> Slot:
        """Give one message more to the open session idle for the shortest time, else to an empty place, else to
        the least loaded.
        """
        slot = self._choose(now)
        slot.load += 1
        return slot

    def _choose(self, now: float) -> Slot:
        free = self._free
        if not free:
            return min(self._all, key=_load)
        for place in range(len(free) - 1, -1, -1):
            if free[place].serves(now):
                return free.pop(place)
        empty = [slot for slot in free if slot.service is None or not slot.service.leaving]
        slot = (empty or free)[-1]
        free.remove(slot)
        return slot

    def give_back(self, slot: Slot) -> None:
        """The message is answered."""
        slot.load -= 1
        if not slot.load:
            self._free.append(slot)

    def retire_pipelined(self) -> None:
        """Have every session that speaks in groups leave when what it was given is answered."""
        for service in self.services:
            if service.fit and service.session.pipelined:
                service.retire()

    def watch(self) -> None:
        """A session was opened: have it end when its time is over, though no message comes."""
        if self._alarm is None:
            self._tidy()

    def _tidy(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        ends = min((service.ends_at(now) for service in self.services if service.serves(now)), default=_NEVER)
        self._alarm = loop.call_at(ends, self._tidy) if ends < _NEVER else None

    async def aclose(self) -> None:
        """Close every session; messages in hand are broken off."""
        if self._alarm is not None:
            self._alarm.cancel()
        await asyncio.gather(*(service.aclose() for service in self.services))


_NEVER = float("inf")
