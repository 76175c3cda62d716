"""The places of a pool: which one a message is given to, and which sessions have been idle or open for too long."""

from __future__ import annotations

import asyncio
from operator import attrgetter

from asyncsmtp.client.pool.service import Service

__all__ = ["Slot", "Slots"]


class Slot:
    """A place for one session: how many messages it has in hand, and who serves them.

    Attributes:
        barred: no session may be opened here now: there was no room for it.
    """

    __slots__ = ("barred", "load", "opening", "service")

    def __init__(self) -> None:
        self.service: Service | None = None
        self.load = 0
        self.barred = False
        self.opening = asyncio.Lock()

    def serves(self, now: float) -> bool:
        """Whether its session may take a message."""
        return self.service is not None and self.service.serves(now)

    @property
    def occupied(self) -> bool:
        """Whether it has a connection, or is about to."""
        return self.opening.locked() or (self.service is not None and self.service.connected)


_load = attrgetter("load")


class Slots:
    """All places; those without a message are a stack, so that sessions nobody needs grow idle and end.

    Barred ones are neither in `_places` nor on the stack.
    """

    def __init__(self, number: int) -> None:
        self._all = tuple(Slot() for _ in range(number))
        self._places = self._all
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
            return min(self._places, key=_load)
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
        if not slot.load and not slot.barred:
            self._free.append(slot)

    def others(self, slot: Slot) -> bool:
        """Whether another place is occupied."""
        return any(other is not slot and other.occupied for other in self._places)

    def bar(self, slot: Slot) -> int:
        """There was no room for a session here: none may be opened here, nor at any place that has none now.

        Returns how many places are left; at least one, where there are `others`.
        """
        for place in self._places:
            place.barred = place is slot or not place.occupied
        self._free = [place for place in self._free if not place.barred]
        return self._unbarred()

    def unbar(self) -> None:
        """There may be room for one session more; it is the last place to be taken."""
        slot = min((slot for slot in self._all if slot.barred), key=_load)
        slot.barred = False
        if not slot.load:
            self._free.insert(0, slot)
        self._unbarred()

    def _unbarred(self) -> int:
        self._places = tuple(slot for slot in self._all if not slot.barred)
        return len(self._places)

    def retire_pipelined(self) -> None:
        """Have every session that speaks in groups leave when what it was given is answered."""
        for service in self.services:
            if service.fit and service.session.pipelined:
                service.retire()

    def abort_idle(self) -> None:
        """Break off every session that has nothing in hand."""
        for service in self.services:
            if service.fit and not service.busy:
                service.session.abort()

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
