"""Several relays for one campaign: each takes its share, and what one cannot take goes to another."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from asyncsmtp.bulk.pace.lane import Lane
from asyncsmtp.bulk.pace.rates import Rate
from asyncsmtp.bulk.pace.shared import SharedRates
from asyncsmtp.bulk.ports import Sends
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import ConnectFailed, InvalidArgument, Refused, SMTPError
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery

__all__ = ["Relays", "Share"]

logger = logging.getLogger("asyncsmtp.campaign")

REST = 5.0  # seconds for which a relay that failed is passed over, the first time …
LONGEST_REST = 300.0  # … and each further time for twice as long, up to this


@dataclass(frozen=True, slots=True)
class Share:
    """One of the relays.

    Attributes:
        pool: what sends through it.
        weight: how many messages of the whole it takes beside the others' weights.
        rates: each of them holds for this relay.
        shared: those that hold for what other campaigns send through it as well.
    """

    pool: Sends
    weight: float = 1.0
    rates: Sequence[Rate] = ()
    shared: SharedRates | None = None

    def __post_init__(self) -> None:
        """Raises InvalidArgument: it would never take a message."""
        if not self.weight > 0:
            raise InvalidArgument(f"a relay of weight {self.weight:g} takes nothing: give one above 0, or leave it out")


class _Station:
    """A relay, its place in the turn, and its health."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.lane = Lane(share.rates)
        self.credit = 0.0
        self.rests_until = 0.0
        self.rest = REST
        self.full_until = 0.0  # by what other campaigns sent

    def wait(self, now: float, wall: float) -> float:
        """Seconds until its rates let a message begin."""
        return max(self.lane.wait(now, wall), self.full_until - now)

    def rests(self, now: float) -> bool:
        return self.rests_until > now


class Relays:
    """Sends each message through one of several relays, in turns by their weights; a `Sends` for a Run.

    It is `Paced` as well: a run that has to wait for the relays' rates does so before it begins a message.

    A relay that cannot be reached, or refuses the session, rests for a while, and the message goes through another.
    A message whose content has ended never does: what is in doubt stays so.

    Args:
        clock: a monotonic clock, in seconds. wall: seconds since 1970, for rates by the day.
    """

    def __init__(
        self,
        shares: Iterable[Share],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._stations = [_Station(share) for share in shares]
        if not self._stations:
            raise InvalidArgument("there is no relay: give one at least")
        self._turns: deque[_Station] = deque()  # taken, for the messages that begin next
        self._clock = clock
        self._wall = wall

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message, as `Pool.send` does, once a relay's rates let it.

        Raises:
            What the last relay raised, when none could be used. What `Pool.send` raises otherwise.
        """
        while True:
            seconds = await self.take_turn()
            if seconds > 0:
                await asyncio.sleep(seconds)
            elif (delivery := await self.offer(message, before_end=before_end)) is not None:
                return delivery

    async def take_turn(self) -> float:
        """Take a turn for one message; return 0, or the seconds until a relay may take it or has rested."""
        found = await self._choose(())
        if isinstance(found, _Station):
            self._turns.append(found)
            return 0.0
        return found

    async def offer(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery | None:
        """Send one message in the turn that was taken first; None: none that is left may take it now.

        Raises:
            What the last relay raised, when none could be used. What `Pool.send` raises otherwise.
        """
        tried: list[_Station] = []
        found = self._turn() or await self._choose(tried)
        while isinstance(found, _Station):
            tried.append(found)
            try:
                delivery = await found.share.pool.send(message, before_end=before_end)
            except (ConnectFailed, Refused) as error:  # of the session: nothing of the message was said
                self._fails(found, error)
                if len(tried) == len(self._stations):
                    raise
            else:
                found.rest = REST
                found.rests_until = 0.0
                return delivery
            found = await self._choose(tried)
        return None

    def _turn(self) -> _Station | None:
        """The relay whose turn was taken first; None where it has failed since and another has not."""
        if not self._turns:
            return None
        station, now = self._turns.popleft(), self._clock()
        better = station.rests(now) and not all(each.rests(now) for each in self._stations)
        return None if better else station

    async def _choose(self, tried: Sequence[_Station]) -> _Station | float:
        """The relay whose turn it is, of those not tried yet; or the seconds until there may be one of all."""
        while True:
            now, wall = self._clock(), self._wall()
            open_ = [station for station in self._candidates(tried, now, wall) if station.wait(now, wall) <= 0]
            if not open_:
                return self._earliest(now, wall)
            station = self._in_turn(open_)
            if station.share.shared is not None and (full := await station.share.shared.take()) > 0:
                station.full_until = self._clock() + full
                continue
            station.lane.take(now, wall)
            return station

    def _candidates(self, tried: Sequence[_Station], now: float, wall: float) -> Sequence[_Station]:
        """Those not tried that have rested; where none has, and none waits for its rates, all that are left."""
        left = [station for station in self._stations if station not in tried]
        awake = [station for station in left if not station.rests(now)]
        if awake or any(station.wait(now, wall) > 0 for station in left):
            return awake
        return left

    def _earliest(self, now: float, wall: float) -> float:
        """Seconds until the first relay has rested and its rates let a message begin."""
        return min(max(each.wait(now, wall), each.rests_until - now) for each in self._stations)

    def _in_turn(self, open_: Sequence[_Station]) -> _Station:
        """Smooth weighted turns: each gains its weight, the richest is taken and pays for all."""
        for station in open_:
            station.credit += station.share.weight
        chosen = max(open_, key=lambda station: station.credit)
        chosen.credit -= sum(station.share.weight for station in open_)
        return chosen

    def _fails(self, station: _Station, error: SMTPError) -> None:
        if len(self._stations) == 1:  # there is none to rest for: whoever sends decides when to try again
            return
        now = self._clock()
        if station.rests_until <= now:  # not by each message that was under way
            station.rests_until = now + station.rest
            logger.warning("a relay is passed over for %g s: %s", station.rest, error)
            station.rest = min(2 * station.rest, LONGEST_REST)
