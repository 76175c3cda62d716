"""A caller's limit on one message as a whole: cheap before the point of no return, and not kept past it.

Before it nothing is delivered, and trying again is free. Past it, giving up would cost a possible duplicate: the reply
is waited for as long as the relay may take for it, unless the caller insists.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from asyncsmtp.client.session.place import BeforeEnd
from asyncsmtp.errors import DeadlineExceeded
from asyncsmtp.protocol.delivery import Delivery

__all__ = ["Mark", "by", "counts_again"]


class Mark:
    """What a message with a limit awaits before the end of its content: from then on the limit is off."""

    def __init__(self, before_end: BeforeEnd | None, limit: asyncio.Timeout, hard: bool) -> None:
        self._before_end = before_end
        self._limit = limit
        self._at = limit.when()
        self._hard = hard

    async def __call__(self) -> None:
        """The sender's own mark, within the time."""
        if self._before_end is not None:
            await self._before_end()
        await self.passed()

    async def passed(self) -> None:
        """The same for a further part, for which the sender marks nothing."""
        if not self._hard:
            self._limit.reschedule(None)

    @property
    def over(self) -> bool:
        """Whether the time is over, and the message is being given up for it."""
        return self._limit.expired()

    def counts_again(self) -> None:
        """What was marked did not come to pass, or a further part is to go: the time counts on."""
        if not self._hard and not self.over:
            self._limit.reschedule(self._at)


def counts_again(before_end: BeforeEnd | None) -> None:
    """A try begins, or a further part: a limit that was off since the mark of another one is on again."""
    if isinstance(before_end, Mark):
        before_end.counts_again()


async def by(
    seconds: float, hard: bool, before_end: BeforeEnd | None, send: Callable[[BeforeEnd], Awaitable[Delivery]]
) -> Delivery:
    """Send within so many seconds; `send` is given what to await before the end of the content.

    Raises:
        DeadlineExceeded: they are over, and nothing was delivered.
        DeliveryInDoubt: they are over, it is `hard`, and the relay may have the message. And what `send` raises.
    """
    try:
        async with asyncio.timeout(seconds) as limit:
            return await send(Mark(before_end, limit, hard))
    except TimeoutError as error:
        if limit.expired() and type(error) is TimeoutError:
            raise DeadlineExceeded(seconds) from None
        raise
