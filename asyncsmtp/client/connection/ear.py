"""A stream reader that is told of octets, and tells, as they come.

`StreamReader.read` keeps what it is fed until a task fetches it: a turn of the event loop for each reply, and a
buffer that nothing public can look into. RFC 2920 §3.1 asks that replies are handled while we still write, and RFC
3207 §6 that octets behind the 220 to STARTTLS are not taken over into TLS. So this one keeps nothing once it has a
hearer: each read is heard in the turn that brought it.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

__all__ = ["READ_SIZE", "Ear", "Hearer", "Streams", "open_streams", "overhear"]

READ_SIZE = 65_536
_ROOM = 4_096  # octets: the replies to as many commands as are said at once, as a rule; more take another read


class Hearer(Protocol):
    """Who is told; none of these may raise."""

    def heard(self, data: bytes) -> None:
        """Octets came."""

    def lost(self, error: BaseException | None) -> None:
        """Nothing more will come: the other side has ended, or `error` broke the connection. May be told twice."""


class Ear(asyncio.StreamReader):
    """Attended by one hearer; what comes before it attends is kept for it, in order."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._hearer: Hearer | None = None
        self._early: list[Callable[[Hearer], None]] = []
        self._fetching: asyncio.Task[None] | None = None

    def attend(self, hearer: Hearer) -> None:
        """Tell this one from now on, and at once what came already."""
        self._hearer = hearer
        early, self._early = self._early, []
        for tell in early:
            tell(hearer)

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # typeshed wants an Iterable of SupportsIndex
        """Called by the stream's protocol."""
        if self._hearer is not None:
            self._hearer.heard(data)
        elif data:
            self._early.append(lambda hearer: hearer.heard(data))

    def feed_eof(self) -> None:
        """Called by the stream's protocol, at the end of either direction."""
        self._end(None)

    def set_exception(self, exc: BaseException) -> None:
        """Called by the stream's protocol when the connection breaks."""
        self._end(exc)

    def _end(self, error: BaseException | None) -> None:
        if self._hearer is not None:
            self._hearer.lost(error)
        else:
            self._early.append(lambda hearer: hearer.lost(error))

    def fetch_from(self, reader: asyncio.StreamReader) -> None:
        """Have a task tell what comes to a reader of somebody else's, until `aclose`."""
        self._fetching = asyncio.get_running_loop().create_task(self._fetch(reader))

    async def _fetch(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(READ_SIZE):
                self.feed_data(data)
        except OSError as error:
            self.set_exception(error)
        else:
            self.feed_eof()

    async def aclose(self) -> None:
        """Fetch nothing more."""
        if self._fetching is not None:
            self._fetching.cancel()
            await asyncio.wait((self._fetching,))
            if not self._fetching.cancelled():
                self._fetching.result()  # a bug of the hearer's is not hushed up


class StreamProtocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """A stream's protocol that has its own room to read into.

    Without it each read begins with a new object of 256 KiB, which the allocator gets from the system and gives back:
    that was a tenth of what a message costs.
    """

    def __init__(self, ear: Ear, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(ear, loop=loop)
        self._ear = weakref.ref(ear)  # as asyncio has it: a session that nobody holds ends its connection
        self._room = memoryview(bytearray(_ROOM))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the transport before it reads."""
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the transport when it has read."""
        self.data_received(bytes(self._room[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Called by a transport that has room of its own, as uvloop's."""
        if (ear := self._ear()) is not None:
            ear.feed_data(data)


Streams = tuple[Ear, asyncio.StreamWriter]
Connects = Callable[[Callable[[], asyncio.StreamReaderProtocol]], Awaitable[tuple[asyncio.Transport, Any]]]


async def open_streams(connects: Connects) -> Streams:
    """Do as `asyncio.open_connection` does, with an ear; `connects` is `loop.create_connection` or its like."""
    loop = asyncio.get_running_loop()
    ear = Ear(loop)
    protocol = StreamProtocol(ear, loop)
    transport, _ = await connects(lambda: protocol)
    return ear, asyncio.StreamWriter(transport, protocol, ear, loop)


def overhear(reader: asyncio.StreamReader) -> Ear:
    """An ear for streams that somebody else has opened."""
    ear = Ear(asyncio.get_running_loop())
    ear.fetch_from(reader)
    return ear
