"""The time of one session in a pool: what it is given, and when it has done enough.

A session that has done enough takes no more, waits for the replies that are due, says QUIT and closes: it
*leaves*. Its place is taken again only then, so that no relay sees more connections than the pool may have.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from asyncsmtp.client.session import Session

__all__ = ["Lifespan", "Service"]

UNLIMITED = float("inf")


@dataclass(frozen=True, slots=True)
class Lifespan:
    """How long a session serves.

    Attributes:
        messages: it takes so many; None for as many as the relay's LIMITS MAILMAX allows (RFC 9422 §4).
    """

    messages: int | None = None


class Service:
    """One session at work.

    Attributes:
        welcomed: whether the relay has taken a MAIL on it.
    """

    __slots__ = ("_leaving", "_left", "_quiet", "_unanswered", "session", "welcomed")

    def __init__(self, session: Session, lifespan: Lifespan) -> None:
        said = session.extensions.limits
        announced = said.mail_max if said is not None else None
        self.session = session
        self.welcomed = False
        self._left = min(lifespan.messages or UNLIMITED, announced or UNLIMITED)
        self._unanswered = 0
        self._quiet = asyncio.Event()
        self._leaving: asyncio.Task[None] | None = None

    @property
    def fit(self) -> bool:
        """Whether it may take a message."""
        return self._leaving is None and self.session.usable

    @property
    def busy(self) -> bool:
        """Whether a sender has it in hand."""
        return self._unanswered > 0

    def take(self) -> Session:
        """Hand it one message more; `give_back` follows when that is answered."""
        self._unanswered += 1
        self._left -= 1
        if self._left <= 0:
            self.retire()
        return self.session

    def give_back(self) -> None:
        """A sender has its result, or left."""
        self._unanswered -= 1
        if self._leaving is not None and not self._unanswered:
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
