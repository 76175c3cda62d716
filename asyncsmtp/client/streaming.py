"""Content too large for one write: block by block, as fast as the relay reads, in constant memory."""

from __future__ import annotations

from collections.abc import Iterator

from asyncsmtp.client.ear import READ_SIZE
from asyncsmtp.client.place import Place
from asyncsmtp.client.wire import Said, Wire
from asyncsmtp.protocol.content import Content, transparent
from asyncsmtp.protocol.transaction import Phase

__all__ = ["stream"]


async def stream(place: Place, wire: Wire) -> None:
    """Write a content that is due, all but its end; stop where it is refused meanwhile.

    Raises:
        ReplyTimeout, ConnectionLost: the relay does not read on; the connection is broken off.
    """
    transaction = place.transaction
    if transaction.phase is not Phase.CONTENT or not transaction.taken:
        return
    for block in _blocks(place.content, dots=not transaction.chunked):
        if transaction.chunked:
            await _write_chunk(place, wire, block)
        else:
            await wire.write_content(block)
        if transaction.phase is not Phase.CONTENT:
            return
    place.streamed = True


async def _write_chunk(place: Place, wire: Wire, block: bytes) -> None:
    """Write the chunk before this one: the last must wait for the sender's mark."""
    chunk, place.rest = place.rest, block
    if chunk is not None:
        wire.check()
        transaction = place.transaction
        wire.say([Said((transaction.say_chunk(len(chunk)),), transaction.answered)], chunk=(chunk,))
        await wire.make_room()


def _blocks(content: Content, *, dots: bool) -> Iterator[bytes]:
    """The content in blocks of about READ_SIZE octets; with its dots doubled, as it stands behind DATA."""
    block = bytearray()
    for part in transparent(content.parts) if dots else content.parts:
        for start in range(0, len(part), READ_SIZE):
            block += part[start : start + READ_SIZE]
            if len(block) >= READ_SIZE:
                yield bytes(block)
                block.clear()
    if block:
        yield bytes(block)
