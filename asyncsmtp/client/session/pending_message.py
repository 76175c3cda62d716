"""One message of a session, from the call of `send` to its result: its state, its deadline, and how it is streamed.

The *point of no return* is the moment at which the end of the content is handed to the transport. Before it the relay
cannot have the message, so whatever goes wrong costs nothing but another attempt. After it only the relay's reply
tells, and without that reply the message is in doubt. All of `before_end`, the deadline and cancellation turn on this
moment: a sender that must know that a message may be out records it in `before_end`, and the end of the content is not
written before that has returned.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import InitVar, dataclass, field
from typing import TypeVar

from asyncsmtp.client.connection.smtp_connection import CommandGroup, SmtpConnection
from asyncsmtp.client.connection.transport import READ_SIZE
from asyncsmtp.errors import (
    DeadlineExceeded,
    DeliveryInDoubt,
    LocalProtocolError,
    MessageError,
    ReplyTimeout,
    SMTPError,
    UnexpectedReply,
    check_number,
)
from asyncsmtp.protocol.content import AnyContent, ChunkSplitter, Content, DotStuffer, split_chunks
from asyncsmtp.protocol.delivery import Delivery, TlsInfo
from asyncsmtp.protocol.transaction import Phase, Transaction

__all__ = [
    "BeforeEnd",
    "Deadline",
    "PendingMessage",
    "check_deadline",
    "iterate",
    "restart_deadline",
    "stream",
    "with_deadline",
]

MIN_RATE = 500.0  # bytes a second: a content may take the time of one block, and this on top

_CONTENT, _ENDED = Phase.CONTENT, Phase.AWAITING_RESULT  # looked up once: on Python 3.11 that is a call
BeforeEnd = Callable[[], Awaitable[object]]
_Item = TypeVar("_Item")


@dataclass(slots=True, eq=False)
class PendingMessage:
    """A message that waits for its turn or for its replies; made by `send`, dropped when its sender has the result.

    Attributes:
        started: its envelope is written; it cannot be taken back without breaking the connection.
        whole: the content, if it goes in one write; None where it is streamed.
        turn: for content too large for one write: done when the sender may begin to stream it.
        streamed: whether all but the end of such a content is written.
        rest: with BDAT, the chunk that waits for `before_end`.
        marking: what `before_end` returned, once it was called.
        result: the delivery, or the error that ended it.
        collected: whether the sender has the result, or has left.
    """

    transaction: Transaction
    content: AnyContent
    before_end: BeforeEnd | None
    loop: InitVar[asyncio.AbstractEventLoop]
    started: bool = False
    whole: Content | None = None
    turn: asyncio.Future[None] | None = None
    streamed: bool = False
    rest: bytes | None = None
    marking: asyncio.Future[object] | None = None
    result: asyncio.Future[Delivery] = field(init=False)
    collected: bool = False

    def __post_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        content = self.content
        if isinstance(content, Content) and content.size <= READ_SIZE:
            self.whole = content
            self.streamed = True
        else:
            self.turn = loop.create_future()
        self.result = loop.create_future()

    @property
    def ended(self) -> bool:
        """True if the end of its content is written and not answered."""
        return self.transaction.phase is _ENDED

    @property
    def delivery(self) -> Delivery | None:
        """Its result, if the relay has answered."""
        return None if not self.result.done() or self.error is not None else self.result.result()

    @property
    def error(self) -> BaseException | None:
        """The error that ended it; CancelledError where its sender was cancelled while waiting for the result."""
        if not self.result.done():
            return None
        return asyncio.CancelledError() if self.result.cancelled() else self.result.exception()

    @property
    def partly_answered(self) -> bool:
        """True if its MAIL is answered, and the rest of its envelope is not."""
        transaction = self.transaction
        if transaction.envelope.all_or_nothing:
            return False  # DATA was held back: it is not a part of that group
        return transaction.phase is Phase.ENVELOPE and transaction.mail is not None

    @property
    def has_354(self) -> bool:
        """True if its DATA was answered with 354; content in chunks has no DATA."""
        return not self.transaction.chunked and (self.transaction.phase is _CONTENT or self.ended)

    def conclude(self) -> bool:
        """Return whether the replies up to the end of the connection decide it; a refusal of every recipient does."""
        transaction = self.transaction
        last = transaction.recipients[-1] if transaction.recipients else transaction.mail
        if last is not None and transaction.all_refused:
            transaction.receive_closing(last)
        return transaction.is_decided

    def give_turn(self) -> None:
        """Let the sender stream its content."""
        if self.turn is not None and not self.turn.done():
            self.turn.set_result(None)

    def complete(self, delivery: Delivery) -> None:
        """End it with the relay's replies."""
        self.give_turn()
        if not self.result.done():
            self.result.set_result(delivery)

    def fail(self, error: BaseException) -> None:
        """End it with an error."""
        self.give_turn()
        if not self.result.done():
            self.result.set_exception(error)
            self.result.exception()  # marks it as retrieved: the sender may have left

    def mark_in_doubt(self, error: SMTPError, host: str = "", tls: TlsInfo | None = None) -> None:
        """End it with DeliveryInDoubt: `error` came when the relay may have had the message.

        Recipients that were refused, or answered one by one by an LMTP server, are not in doubt.
        """
        doubt = self.make_doubt(str(error), host, tls, shifted=isinstance(error, UnexpectedReply))
        doubt.__cause__ = error
        self.fail(doubt)

    def make_doubt(self, why: str, host: str = "", tls: TlsInfo | None = None, *, shifted: bool) -> DeliveryInDoubt:
        """Return the error for a message that the relay may have; arguments as of `Transaction.divide`."""
        envelope, delivery = self.transaction.divide(shifted=shifted, host=host, tls=tls)
        return DeliveryInDoubt(envelope, why, delivery)

    def fail_without_result(self, bug: Exception) -> None:
        """End it although its result could not be made; where the relay may have it, it is in doubt."""
        error: SMTPError = LocalProtocolError(f"{type(bug).__name__} while a result was made: {bug}")
        error.__cause__ = bug
        if self.transaction.content_sent:
            doubt = DeliveryInDoubt(self.transaction.envelope, str(error))
            doubt.__cause__ = error
            error = doubt
        self.fail(error)

    def collect(self) -> None:
        """Note that the sender has the result, or gave up."""
        self.collected = True
        if isinstance(self.marking, asyncio.Task):  # ours to end; a bare future has another owner
            self.marking.cancel()


class Deadline:
    """The `before_end` of a message with a deadline: from the point of no return on, the deadline is off.

    Before that point nothing is delivered, and trying again is free. After it, giving up would cost a possible
    duplicate: the reply is waited for as long as the relay may take, unless the caller says `hard`.
    """

    def __init__(self, before_end: BeforeEnd | None, limit: asyncio.Timeout, hard: bool) -> None:
        self._before_end = before_end
        self._limit = limit
        self._at = limit.when()
        self._hard = hard

    async def __call__(self) -> None:
        """Await the sender's own `before_end` within the time, then switch the deadline off."""
        if self._before_end is not None:
            await self._before_end()
        await self.stop()

    async def stop(self) -> None:
        """Switch it off, without the sender's `before_end`: for the second part of a message and later ones."""
        if not self._hard:
            self._limit.reschedule(None)

    @property
    def expired(self) -> bool:
        """True if the time is over, and the message is being given up for it."""
        return self._limit.expired()

    def restart(self) -> None:
        """Switch it on again: the attempt failed before the point of no return, or another part is to go."""
        if not self._hard and not self.expired:
            self._limit.reschedule(self._at)


def restart_deadline(before_end: BeforeEnd | None) -> None:
    """Switch a deadline on again at the begin of another attempt, or of another part."""
    if isinstance(before_end, Deadline):
        before_end.restart()


def check_deadline(seconds: object) -> None:
    """Raise TypeError or InvalidArgument unless a deadline is a finite number; one that is over is valid."""
    check_number(
        "deadline", -seconds if isinstance(seconds, float | int) and seconds < 0 else seconds, int, float, zero=True
    )


async def with_deadline(
    seconds: float | None,
    hard: bool,
    before_end: BeforeEnd | None,
    send: Callable[[BeforeEnd | None], Awaitable[Delivery]],
) -> Delivery:
    """Send within so many seconds, if given; `send` is called with what to await before the end of the content.

    Raises:
        TypeError, InvalidArgument: the time is no finite number.
        DeadlineExceeded: the time is over, and nothing was delivered.
        DeliveryInDoubt: the time is over, it is `hard`, and the relay may have the message. And what `send` raises.
    """
    if seconds is None:
        return await send(before_end)
    check_deadline(seconds)
    try:
        async with asyncio.timeout(seconds) as limit:
            return await send(Deadline(before_end, limit, hard))
    except TimeoutError as error:
        if limit.expired() and type(error) is TimeoutError:
            raise DeadlineExceeded(seconds) from None
        raise


async def stream(message: PendingMessage, connection: SmtpConnection) -> None:
    """Write a content that is due, all but its end, in constant memory; stop where it is refused meanwhile.

    Raises:
        ReplyTimeout, ConnectionLost: the relay stops reading, or reads too slowly; the connection is aborted.
        MessageError: the source of the content gave nothing for as long as a relay may take to read a block.
        And whatever the source raises: then the end is never written.
    """
    transaction = message.transaction
    if transaction.phase is not _CONTENT or not transaction.has_accepted_recipient:
        return
    transparency = None if transaction.chunked else DotStuffer()
    time, size = asyncio.get_running_loop().time, message.content.size
    limit = float("inf") if size is None else connection.block_timeout + size / MIN_RATE
    until = time() + limit
    async with aclosing(_blocks(message, connection)) as blocks:
        async for block in blocks:
            if transaction.phase is not _CONTENT:
                return  # refused while the source was waited for
            if transparency is None:
                await _write_chunk(message, connection, block)
            else:
                await connection.write_content(transparency.feed(block))
            if transaction.phase is not _CONTENT:
                return
            if time() > until:
                connection.fail(ReplyTimeout(None, limit))
                connection.check()
    message.streamed = True


async def _write_chunk(message: PendingMessage, connection: SmtpConnection, block: bytes) -> None:
    """Write the chunk before this one: the last one must wait for the sender's `before_end`."""
    chunk, message.rest = message.rest, block
    if chunk is not None:
        connection.check()
        transaction = message.transaction
        connection.write(
            [CommandGroup((transaction.start_chunk(len(chunk)),), transaction.receive_reply)], chunk=(chunk,)
        )
        await connection.drain()


async def _blocks(message: PendingMessage, connection: SmtpConnection) -> AsyncGenerator[bytes]:
    """Yield the content in blocks of READ_SIZE bytes, the last one as it comes; at least one, maybe empty."""
    content = message.content
    if isinstance(content, Content):
        for chunk in split_chunks(content.parts, READ_SIZE):
            yield chunk
        return
    cutter = ChunkSplitter(READ_SIZE)
    async with aclosing(content.blocks()) as source:
        while (block := await _next_block(source, message, connection)) is not None:
            for piece in cutter.feed(block):
                yield piece
    yield cutter.end()


async def _next_block(
    source: AsyncGenerator[bytes], message: PendingMessage, connection: SmtpConnection
) -> bytes | None:
    """Return one block of a source; None at its end, and where the message is decided while the source is silent.

    The source runs in this task, never in another: it may hold what belongs to a task, such as a timeout.
    """
    seconds = connection.block_timeout

    def stop_waiting(_: object) -> None:
        if not limit.expired():
            limit.reschedule(0.0)

    try:
        async with asyncio.timeout(seconds) as limit:
            message.result.add_done_callback(stop_waiting)
            try:
                return await anext(source, None)
            finally:
                message.result.remove_done_callback(stop_waiting)
    except TimeoutError as error:
        if message.result.done():
            connection.check()
            return None
        if not limit.expired():
            raise  # the source's own
        why = f"the source of the content gave nothing for {seconds:g} s: nothing was delivered"
        raise MessageError(why) from error


async def iterate(items: AsyncIterable[_Item] | Iterable[_Item]) -> AsyncGenerator[_Item]:
    """Yield the items of an iterable of either kind; one that is not asynchronous must not block."""
    if isinstance(items, AsyncGenerator):  # its clean-up is due with ours, not whenever it is collected
        async with aclosing(items):
            async for item in items:
                yield item
    elif isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
