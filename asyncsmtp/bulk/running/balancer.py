"""Several relays for one campaign, in turns by their weights, with failover."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from asyncsmtp.bulk.interfaces import MessageSender, StoppableSender
from asyncsmtp.bulk.rate_limit.rate import LimiterGroup, Rate
from asyncsmtp.bulk.rate_limit.shared_store import SharedLimiter
from asyncsmtp.client.session.pending_message import BeforeEnd
from asyncsmtp.errors import (
    ConnectFailed,
    ConnectionLost,
    InvalidArgument,
    Refused,
    RemoteProtocolError,
    ReplyTimeout,
    SMTPError,
    TokenFailed,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery

__all__ = ["RelayBalancer", "WeightedRelay"]

logger = logging.getLogger("asyncsmtp.campaign")

MIN_SUSPENSION = 5.0  # seconds for which a relay is passed over after its first failure …
MAX_SUSPENSION = 300.0  # … doubled with each further one, up to this
MAX_HANG_UPS = 3  # connections in a row that break before a message is answered, until a relay counts as failed


@dataclass(frozen=True, slots=True)
class WeightedRelay:
    """One relay of a `RelayBalancer`.

    Attributes:
        pool: sends through this relay.
        weight: its share of the messages, relative to the other relays' weights.
        rates: of this relay; each of them applies.
        shared: rates that are shared with other campaigns that send through it.
        name: as people know it.
    """

    pool: MessageSender
    weight: float = 1.0
    rates: Sequence[Rate] = ()
    shared: SharedLimiter | None = None
    name: str = ""

    def __post_init__(self) -> None:
        """Raises InvalidArgument: the weight is not above 0."""
        if not self.weight > 0:
            raise InvalidArgument(f"a relay of weight {self.weight:g} takes nothing: give one above 0, or leave it out")


class _RelayState:
    """A relay with its limits, its credit in the weighted turns, and its suspension after failures."""

    def __init__(self, relay: WeightedRelay) -> None:
        self.relay = relay
        self.limits = LimiterGroup(relay.rates)
        self.credit = 0.0
        self.suspended_until = 0.0
        self.suspension = MIN_SUSPENSION
        self.exhausted_until = 0.0  # its shared rates
        self.hang_ups = 0
        self.error: SMTPError | None = None  # of its last failure, if it has not worked since

    def delay(self, now: float, wall: float) -> float:
        """Return the seconds until its rates allow a message."""
        return max(self.limits.delay(now, wall), self.exhausted_until - now)

    def is_suspended(self, now: float) -> bool:
        return self.suspended_until > now


class RelayBalancer:
    """A sender over several relays, which take turns by their weights.

    It is a `RateLimitedSender`: a run that has to wait for the relays' rates does so before it begins a message.

    A relay that cannot be reached, refuses the session, or hangs up again and again, is suspended for a while, and the
    message goes through another one. A message past the point of no return never does: it stays in doubt.

    Args:
        warn: called with a sentence when a relay fails, and when it works again.
        clock: a monotonic clock, in seconds. wall: seconds since 1970, for quotas. sleep: sleeps for seconds.
    """

    def __init__(
        self,
        relays: Iterable[WeightedRelay],
        *,
        warn: Callable[[str], object] = logger.warning,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._warn = warn
        self._relays = [_RelayState(relay) for relay in relays]
        if not self._relays:
            raise InvalidArgument("there is no relay: give at least one")
        self._turns: deque[_RelayState] = deque()  # taken, for the messages that begin next
        self._clock = clock
        self._wall = wall
        self._sleep = sleep

    @property
    def failures(self) -> Mapping[str, SMTPError]:
        """The relays that could not be used when they were last tried, by their names, each with its error."""
        return {each.relay.name: each.error for each in self._relays if each.error is not None}

    @property
    def limiters(self) -> Sequence[SharedLimiter]:
        """The limiters of rates that are shared with other campaigns."""
        return [each.relay.shared for each in self._relays if each.relay.shared is not None]

    def stop(self) -> None:
        """Begin no further message through any relay; those that have begun are answered."""
        for each in self._relays:
            if isinstance(each.relay.pool, StoppableSender):
                each.relay.pool.stop()

    async def send(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery:
        """Send one message, as `Pool.send` does, once a relay's rates allow it.

        Raises:
            The error of the last relay, if none could be used; otherwise as `Pool.send`.
        """
        while True:
            seconds = await self.take_turn()
            if seconds > 0:
                await self._sleep(seconds)
            elif (delivery := await self.offer(message, before_end=before_end)) is not None:
                return delivery

    async def take_turn(self) -> float:
        """Take a turn for one message; return 0, or the seconds until a relay may take it."""
        found = await self._choose(())
        if isinstance(found, _RelayState):
            self._turns.append(found)
            return 0.0
        return found

    async def offer(self, message: Message, *, before_end: BeforeEnd | None = None) -> Delivery | None:
        """Send one message in the turn that was taken first; None: no relay that is left may take it now.

        Raises:
            The error of the last relay, if none could be used; otherwise as `Pool.send`.
        """
        tried: list[_RelayState] = []
        found = self._next_turn() or await self._choose(tried)
        while isinstance(found, _RelayState):
            tried.append(found)
            try:
                delivery = await found.relay.pool.send(message, before_end=before_end)
            except (ConnectFailed, Refused, TokenFailed) as error:  # of the session: nothing of the message was sent
                self._suspend(found, error)
                if len(tried) == len(self._relays):
                    raise
            except (ConnectionLost, ReplyTimeout, RemoteProtocolError) as error:  # before the point of no return
                found.hang_ups += 1
                if found.hang_ups < MAX_HANG_UPS or not error.retryable:
                    raise  # it may have been this message, or a moment of weakness
                self._suspend(found, error)
                if len(tried) == len(self._relays):
                    raise
            else:
                found.hang_ups = 0
                if found.error is not None:
                    self._recover(found)
                return delivery
            found = await self._choose(tried)
        return None

    def _next_turn(self) -> _RelayState | None:
        """Return the relay whose turn was taken first; None if it has failed since and another has not."""
        if not self._turns:
            return None
        turn, now = self._turns.popleft(), self._clock()
        has_better = turn.is_suspended(now) and not all(each.is_suspended(now) for each in self._relays)
        return None if has_better else turn

    async def _choose(self, tried: Sequence[_RelayState]) -> _RelayState | float:
        """Take a turn of a relay that was not tried yet; return it, or the seconds until any relay may be free."""
        while True:
            now, wall = self._clock(), self._wall()
            free = [each for each in self._candidates(tried, now, wall) if each.delay(now, wall) <= 0]
            if not free:
                return min(max(each.delay(now, wall), each.suspended_until - now) for each in self._relays)
            chosen = _next_by_weight(free)
            if chosen.relay.shared is not None and (delay := await chosen.relay.shared.take()) > 0:
                chosen.exhausted_until = self._clock() + delay
                continue
            chosen.limits.take(now, wall)
            return chosen

    def _candidates(self, tried: Sequence[_RelayState], now: float, wall: float) -> Sequence[_RelayState]:
        """Return the relays to choose from: not tried and not suspended, or all left if no other may take a message."""
        left = [each for each in self._relays if each not in tried]
        active = [each for each in left if not each.is_suspended(now)]
        if active or any(each.delay(now, wall) > 0 for each in left):
            return active
        return left

    def _suspend(self, failed: _RelayState, error: SMTPError) -> None:
        if len(self._relays) == 1:  # there is no other: the caller decides when to try again
            return
        now = self._clock()
        failed.error = error
        if not failed.is_suspended(now):  # once, and not for each message that was under way
            failed.suspended_until = now + failed.suspension
            who, others = f"the relay {failed.relay.name}".rstrip(), "its messages go through the others"
            self._warn(f"{who} cannot be used; {others}, and it is tried again in {failed.suspension:g} s: {error}")
            failed.suspension = min(2 * failed.suspension, MAX_SUSPENSION)

    def _recover(self, found: _RelayState) -> None:
        found.error = None
        found.suspension = MIN_SUSPENSION
        found.suspended_until = 0.0
        self._warn(f"the relay {found.relay.name} can be used again")


def _next_by_weight(relays: Sequence[_RelayState]) -> _RelayState:
    """Choose by smooth weighted round robin: each gains its weight in credit, the richest is taken and pays for all."""
    for each in relays:
        each.credit += each.relay.weight
    chosen = max(relays, key=lambda each: each.credit)
    chosen.credit -= sum(each.relay.weight for each in relays)
    return chosen
