"""The time of one session in a pool: what it is given, and when it has done enough.

A session that has done enough takes no more, waits for the replies that are due, says QUIT and closes: it
*leaves*. Its place is taken again only then, so that no relay sees more connections than the pool may have.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from asyncsmtp.client.session.parts import transactions
from asyncsmtp.client.session.session import Session
from asyncsmtp.protocol.envelope import Envelope

__all__ = ["Lifespan", "Service"]

UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True)
class Lifespan:
    """How long a session serves.

    Attributes:
        messages: it takes so many; None for as many as the relay's LIMITS MAILMAX allows (RFC 9422 §4).
        idle: seconds without a message. A relay waits five minutes at least (RFC 5321 §4.5.3.2.7); many do not.
        age: seconds since it was opened.
    """

    messages: int | None = None
    idle: float = 60.0
    age: float = 300.0


class Service:
    """One session at work.

    Attributes:
        welcomed: whether the relay has taken a MAIL on it.
    """

    __slots__ = (
        "_idle_since",
        "_leaving",
        "_left",
        "_lifespan",
        "_limits",
        "_most",
        "_old_at",
        "_quiet",
        "_time",
        "_unanswered",
        "session",
        "welcomed",
    )

    def __init__(self, session: Session, lifespan: Lifespan) -> None:
        self._limits = session.extensions.limits
        announced = self._limits.mail_max if self._limits is not None else None
        self.session = session
        self.welcomed = False
        self._left = self._most = min(lifespan.messages or UNLIMITED, announced or UNLIMITED)
        self._lifespan = lifespan
        self._time = asyncio.get_running_loop().time
        self._idle_since = self._time()
        self._old_at = self._idle_since + lifespan.age
        self._unanswered = 0
        self._quiet = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None

    @property
    def fit(self) -> bool:
        """Whether it may take a message."""
        return self._leaving is None and self.session.usable

    @property
    def connected(self) -> bool:
        """Whether it holds a connection, be it only to say QUIT."""
        return self.session.usable if self._leaving is None else not self._leaving.done()

    @property
    def busy(self) -> bool:
        """Whether a sender has it in hand."""
        return self._unanswered > 0

    @property
    def leaving(self) -> bool:
        """Whether it takes no more, and says QUIT or will."""
        return self._leaving is not None

    def ends_at(self, now: float) -> float:
        """When it will have been idle, or open, for too long, if it is given nothing more from `now` on."""
        return min(self._old_at, (now if self._unanswered else self._idle_since) + self._lifespan.idle)

    def serves(self, now: float) -> bool:
        """Whether it may take a message; where its time is over, it begins to leave."""
        if not self.fit:
            return False
        if now < self.ends_at(now):
            return True
        self.retire()
        return False

    def lasts(self, envelope: Envelope) -> bool:
        """Whether it may be said on this session, all parts of it; else it begins to leave. A new one has to do."""
        if transactions(envelope, self._limits) <= self._left or self._left == self._most:
            return True
        self.retire()
        return False

    def take(self, envelope: Envelope) -> Session:
        """Hand it one message more; `give_back` follows when that is answered."""
        self._unanswered += 1
        self._left -= transactions(envelope, self._limits)
        if self._left <= 0:
            self.retire()
        return self.session

    def give_back(self) -> None:
        """A sender has its result, or left."""
        self._unanswered -= 1
        if not self._unanswered:
            self._idle_since = self._time()
            if self._leaving is not None:
                self._quiet.set()

    def retire(self) -> None:
        """Take no more; leave when all is answered. The task is awaited by `over` and `aclose`."""
        if self._leaving is None:
            if not self._unanswered:
                self._quiet.set()
            self._leaving = asyncio.get_running_loop().create_task(self._leave())

    async def _leave(self) -> None:
        await self._quiet.wait()
        await self.session.aclose()

    async def over(self) -> None:
        """Return when its connection has ended. Cancelling it changes nothing."""
        if self._leaving is not None:
            await asyncio.wait((self._leaving,))
        else:
            await self.session.ended()  # its last message may still be unanswered
            await self.session.aclose()

    async def aclose(self) -> None:
        """Say QUIT and close; messages in hand are broken off."""
        if self._leaving is None:
            await self.session.aclose()
            return
        if self._unanswered:
            self.session.abort()
        await asyncio.wait((self._leaving,))
