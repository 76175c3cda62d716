"""Many messages in one call: each is sent in a task, and its delivery yielded as soon as it is known.

Nothing that the relay has, or may have, is forgotten: a message that was taken from the iterable is yielded, or it is
in the `failures` of the MessagesFailed at the end, also where the task that reads the deliveries is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias

from asyncsmtp.client.event_loop import DeferredCancellation, LoopOwner, count_cancellations, wait_for_tasks
from asyncsmtp.client.session.pending_message import iterate
from asyncsmtp.errors import (
    ConnectFailed,
    DeliveryInDoubt,
    LocalProtocolError,
    MessagesFailed,
    Refused,
    SMTPError,
    TokenFailed,
)
from asyncsmtp.mail.message import Message
from asyncsmtp.protocol.delivery import Delivery, Outcome

if TYPE_CHECKING:
    from email.message import Message as ParsedMessage

__all__ = ["send_all"]

_Sendable: TypeAlias = "Message | ParsedMessage"


async def send_all(
    send: Callable[[_Sendable], Coroutine[None, None, Delivery]],
    messages: Iterable[_Sendable] | AsyncIterable[_Sendable],
    max_messages: int,
    owner: LoopOwner,
) -> AsyncGenerator[Delivery]:
    """Send each message in a task of its own; yield the deliveries as they come. See `Pool.send_all`.

    Args:
        send: sends one message. max_messages: how many are taken and not yet yielded, at the most.
        owner: of the pool.
    """
    loop = owner.bind()
    running: dict[asyncio.Task[Delivery], _Sendable] = {}
    ended: asyncio.Queue[asyncio.Task[Delivery] | None] = asyncio.Queue()  # bounded by `places`; None: all taken
    places = asyncio.Semaphore(max_messages)

    async def take() -> None:
        async with aclosing(iterate(messages)) as source:
            await places.acquire()  # before a message is taken: whoever is slow to read the results holds it up
            async for message in source:
                task = loop.create_task(send(message))
                running[task] = message
                task.add_done_callback(ended.put_nowait)
                await places.acquire()

    taking = loop.create_task(take())
    taking.add_done_callback(lambda _: ended.put_nowait(None))
    failures: list[tuple[object, Exception]] = []
    taken, before = False, count_cancellations()
    try:
        while running or not taken:
            task = await ended.get()
            if task is None:
                taken = True
                continue
            places.release()
            message = running.pop(task)
            try:
                delivery = task.result()
            except Exception as error:
                failures.append((message, error))
                if isinstance(error, ConnectFailed | Refused | TokenFailed | LocalProtocolError):
                    taking.cancel()
            else:
                yield replace(delivery, message=message)
        failed = MessagesFailed(failures) if failures else None
        if not taking.cancelled() and (broken := taking.exception()) is not None:
            raise broken from failed
        if failed is not None:
            raise failed from failures[0][1]
    finally:

        def cancel() -> None:
            for task in (taking, *running):
                task.cancel()

        cancel()
        with DeferredCancellation():
            await wait_for_tasks((taking, *running), cancel)
        failures += _given_up(running)
        if count_cancellations() > before and any(
            isinstance(error, SMTPError) and error.in_doubt for _, error in failures
        ):
            raise MessagesFailed(failures) from failures[-1][1]


def _given_up(sent: Mapping[asyncio.Task[Delivery], object]) -> list[tuple[object, Exception]]:
    """Return the messages that the relay has, or may have, and whose delivery nobody waits for any more."""
    failures: list[tuple[object, Exception]] = []
    for task, message in sent.items():
        if task.cancelled():
            continue
        error = task.exception()
        if isinstance(error, DeliveryInDoubt):
            failures.append((message, error))
        elif error is None and Outcome.ACCEPTED in (delivery := task.result()).outcomes:
            doubt = DeliveryInDoubt(delivery.envelope, "the sender gave up waiting", delivery)
            failures.append((message, doubt))
    return failures
