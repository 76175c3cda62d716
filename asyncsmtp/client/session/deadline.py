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

__all__ = ["by"]


async def by(
    seconds: float, hard: bool, before_end: BeforeEnd | None, send: Callable[[BeforeEnd], Awaitable[Delivery]]
) -> Delivery:
    """Send within so many seconds; `send` is given what to await before the end of the content.

    Raises:
        DeadlineExceeded: they are over, and nothing was delivered.
        DeliveryInDoubt: they are over, it is `hard`, and the relay may have the message. And what `send` raises.
    """

    async def mark() -> None:
        if before_end is not None:
            await before_end()
        if not hard:
            limit.reschedule(None)

    try:
        async with asyncio.timeout(seconds) as limit:
            return await send(mark)
    except TimeoutError as error:
        if limit.expired() and type(error) is TimeoutError:
            raise DeadlineExceeded(seconds) from None
        raise
