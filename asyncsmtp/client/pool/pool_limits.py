"""Limits of a pool: how many sessions and messages there may be now, as the relay and this process allow it.

A relay that answers 421 to the fourth connection, or defers what is sent on it, takes mail on the three that are open.
So the pool shrinks to those, and tries a fourth one when they have taken some messages and some time has gone by; each
such attempt that fails doubles that time. Shrinking means three things that must change together, and `PoolLimits`
keeps them so: the number of sessions, the slots in which none may be opened, and the capacity for messages (`depth` a
session), since a message that waits for a slot without a session would wait for nothing. The message that met the
refusal has lost nothing: it waits again, before all others, for the sessions that are open.
"""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from collections import deque
from collections.abc import Callable
from typing import NoReturn

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.client.events.types import EventEmitter, GuardedLogger, PoolResized
from asyncsmtp.client.pool.session_slots import Slot, Slots
from asyncsmtp.errors import ConnectFailed, Refused, SMTPError
from asyncsmtp.protocol.replies import Reply

__all__ = ["AdaptivePoolSize", "NoRoom", "PoolLimits", "ResizableSemaphore", "means_no_room", "means_too_many"]

logger = GuardedLogger(logging.getLogger("asyncsmtp.pool"))

MESSAGES_TO_GROW = 20  # accepted, and …
GROW_DELAY = 5.0  # … seconds, before one session more is tried
MAX_GROW_DELAY = 300.0  # seconds
TOO_BUSY = 432  # "sender thread limit exceeded" (Exchange); RFC 4954 has it for AUTH only


class NoRoom(Exception):
    """The relay has no room for one more session: the message is for another one."""


def means_no_room(error: SMTPError) -> bool:
    """Return whether a session failed because others are open, and no more are taken: 421, 4xx, or no connection.

    That includes a want of file descriptors (EMFILE), but no failure of TLS: as a refused password or certificate it
    would be the same for each session, and is raised to the sender.
    """
    if isinstance(error, Refused):
        return error.retryable and error.reply.code >= 400
    return isinstance(error, ConnectFailed) and error.retryable and not isinstance(error.__cause__, ssl.SSLError)


# RFC 3463 has no code for it: 4.7.0 and 4.3.2 have many meanings.
_TOO_MANY = re.compile(
    rb"concurren|simultaneous|too many (?:\w+ ){0,2}(?:connections|sessions|threads|submissions)"
    rb"|(?:connection|session|thread)s?(?: count| number)? limit",
    re.IGNORECASE,
)


def means_too_many(reply: Reply) -> bool:
    """Return whether a relay defers a message, at whatever command, since it takes fewer sessions at a time."""
    return 400 <= reply.code < 500 and (reply.code == TOO_BUSY or any(map(_TOO_MANY.search, reply.lines)))


class ResizableSemaphore:
    """A semaphore whose size can change; waiters are let in in the order in which they came."""

    __slots__ = ("_size", "_taken", "_waiters")

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken = 0
        self._waiters: deque[asyncio.Future[None]] = deque()

    @property
    def full(self) -> bool:
        """True if `acquire` would wait."""
        return self._taken >= self._size

    async def acquire(self, *, first: bool = False) -> None:
        """Wait until a place is free; before all other waiters, if `first`. Cancelled, nothing is taken."""
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
        """Give a place back."""
        self._taken -= 1
        self._let_in()

    def fail_waiting(self, make_error: Callable[[], Exception]) -> None:
        """End all waiting, each with an error of its own; places that are taken stay taken."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_exception(make_error())

    def resize(self, size: int) -> None:
        """Change the size; places that are taken stay taken."""
        self._size = size
        self._let_in()

    def _let_in(self) -> None:
        while self._waiters and self._taken < self._size:
            waiter = self._waiters.popleft()
            if not waiter.done():
                self._taken += 1
                waiter.set_result(None)


class AdaptivePoolSize:
    """The number of sessions that are allowed now, and when it may grow; time is passed in.

    Attributes:
        sessions: allowed now. max_sessions: allowed at the best of times.
    """

    __slots__ = ("_accepted", "_delay", "_lowered_at", "_probing", "max_sessions", "sessions")

    def __init__(self, max_sessions: int) -> None:
        self.max_sessions = max_sessions
        self.sessions = max_sessions
        self._accepted = 0
        self._lowered_at = 0.0
        self._delay = GROW_DELAY
        self._probing = False

    @property
    def lowered(self) -> bool:
        return self.sessions < self.max_sessions

    def lower(self, sessions: int, now: float) -> None:
        """Allow no more than `sessions`: there was no room for one more."""
        if self._probing:
            self._delay = min(MAX_GROW_DELAY, 2 * self._delay)
        self.sessions = max(1, min(sessions, self.sessions))
        self._restart(now, probing=False)

    def accepted(self, now: float) -> bool:
        """Count an accepted message; return whether one session more is allowed from now on."""
        self._accepted += 1
        if self._accepted < MESSAGES_TO_GROW or now < self._lowered_at + self._delay or not self.lowered:
            return False
        if self._probing:  # the last one was opened
            self._delay = GROW_DELAY
        self.sessions += 1
        self._restart(now, probing=True)
        return True

    def _restart(self, now: float, *, probing: bool) -> None:
        self._probing = probing
        self._lowered_at = now
        self._accepted = 0


class PoolLimits:
    """The size of a pool, its slots and its capacity, kept in step.

    Attributes:
        capacity: for messages that are being sent, `depth` a session.
    """

    def __init__(
        self,
        relay: Relay,
        slots: Slots,
        sessions: int,
        depth: int,
        emitter: EventEmitter | None,
        clock: Callable[[], float],
    ) -> None:
        self.capacity = ResizableSemaphore(sessions * depth)
        self._relay = relay
        self._slots = slots
        self._depth = depth
        self._size = AdaptivePoolSize(sessions)
        self._emitter = emitter
        self._clock = clock

    @property
    def sessions(self) -> int:
        """Number of sessions that there may be now."""
        return self._size.sessions

    @property
    def lowered(self) -> bool:
        """True if there may be fewer sessions than the pool was made for."""
        return self._size.lowered

    def lower(self, slot: Slot, why: Reply | SMTPError) -> NoReturn:
        """Go on with the other sessions: there was no room for one in this slot.

        Raises:
            NoRoom: for the message that it was meant for.
        """
        if not self._size.lowered:
            what = f"{self._relay} does not accept {self._size.max_sessions} sessions ({why})"
            advice = "continuing with fewer, retrying from time to time; lower sessions, or ask its operator for more"
            if isinstance(why, ConnectFailed):  # it may be too many, or the end of the relay
                what = f"no further session with {self._relay} can be opened ({why})"
                advice = "continuing with those that are open, retrying from time to time"
            logger.warning("%s: %s", what, advice)
        self._size.lower(self._slots.bar(slot), self._clock())
        self._report_resized(str(why))
        raise NoRoom(str(why))

    def accepted(self) -> None:
        """Count an accepted message: there may be room for more sessions."""
        if self._size.lowered and self._size.accepted(self._clock()):
            self._slots.unbar()
            self._report_resized(None)

    def _report_resized(self, why: str | None) -> None:
        self.capacity.resize(self.sessions * self._depth)
        logger.info("%s may have %d sessions from now on", self._relay, self.sessions)
        if self._emitter is not None:
            self._emitter.emit(PoolResized(self._emitter.host, self.sessions, why))
