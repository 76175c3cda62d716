"""Content too large for one write: block by block, as fast as the relay reads, in constant memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

from asyncsmtp.client.connection.ear import READ_SIZE
from asyncsmtp.client.connection.wire import Said, Wire
from asyncsmtp.client.session.place import Place
from asyncsmtp.errors import MessageError, ReplyTimeout
from asyncsmtp.protocol.content import ChunkSplitter, Content, DotStuffer, split_chunks
from asyncsmtp.protocol.transaction import Phase

__all__ = ["stream"]

SLOWEST = 500.0  # octets a second: a content may take its block's time, and this on top


async def stream(place: Place, wire: Wire) -> None:
    """Write a content that is due, all but its end; stop where it is refused meanwhile.

    Raises:
        ReplyTimeout, ConnectionLost: the relay does not read on, or too slowly; the connection is broken off.
        MessageError: the content's source gave nothing for as long as a relay may take to read a block.
        And whatever the source raises: then the end is never written.
    """
    transaction = place.transaction
    if transaction.phase is not Phase.CONTENT or not transaction.has_accepted_recipient:
        return
    dots = None if transaction.chunked else DotStuffer()
    clock = _Clock(wire, place.content.size)
    async with aclosing(_blocks(place, wire)) as blocks:
        async for block in blocks:
            if transaction.phase is not Phase.CONTENT:
                return  # refused while the source was waited for
            if dots is None:
                await _write_chunk(place, wire, block)
            else:
                await wire.write_content(dots.feed(block))
            if transaction.phase is not Phase.CONTENT:
                return
            clock.check()
    place.streamed = True


async def _write_chunk(place: Place, wire: Wire, block: bytes) -> None:
    """Write the chunk before this one: the last must wait for the sender's mark."""
    chunk, place.rest = place.rest, block
    if chunk is not None:
        wire.check()
        transaction = place.transaction
        wire.say([Said((transaction.start_chunk(len(chunk)),), transaction.receive_reply)], chunk=(chunk,))
        await wire.make_room()


async def _blocks(place: Place, wire: Wire) -> AsyncGenerator[bytes]:
    """The content in blocks of READ_SIZE octets, the last one as it comes; one at least, maybe empty."""
    content = place.content
    if isinstance(content, Content):
        for chunk in split_chunks(content.parts, READ_SIZE):
            yield chunk
        return
    cutter = ChunkSplitter(READ_SIZE)
    async with aclosing(content.blocks()) as given:
        while (block := await _next(given, place, wire)) is not None:
            for piece in cutter.feed(block):
                yield piece
    yield cutter.end()


async def _next(given: AsyncGenerator[bytes], place: Place, wire: Wire) -> bytes | None:
    """One block of a source; None at its end, and where the message is decided while the source is silent.

    The source is asked in this task, never in another: it may hold what belongs to a task, such as a timeout.
    """
    patience = wire.block_limit

    def decided(_: object) -> None:
        if not limit.expired():
            limit.reschedule(0.0)

    try:
        async with asyncio.timeout(patience) as limit:
            place.booked.add_done_callback(decided)
            try:
                return await anext(given, None)
            finally:
                place.booked.remove_done_callback(decided)
    except TimeoutError as error:
        if place.booked.done():
            wire.check()
            return None
        if not limit.expired():
            raise  # the source's own
        why = f"the source of the content gave nothing for {patience:g} s: nothing was delivered"
        raise MessageError(why) from error


class _Clock:
    """The time of a whole content: that of one block, and what the slowest line would take."""

    def __init__(self, wire: Wire, size: int | None) -> None:
        self._wire = wire
        self._time = asyncio.get_running_loop().time
        self._limit = float("inf") if size is None else wire.block_limit + size / SLOWEST
        self._until = self._time() + self._limit

    def check(self) -> None:
        """Break the connection off if it is over."""
        if self._time() > self._until:
            self._wire.fail(ReplyTimeout(None, self._limit))
            self._wire.check()
