"""A connection without a network, and an event loop whose clock jumps: hours of waiting cost nothing."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Iterator
from typing import Any

from asyncsmtp.client.config.relay import OpenedStreams
from tests.fuzz.script import HALF_CLOSED

__all__ = ["MemoryTransport", "VirtualLoop", "memory_streams"]


class Stuck(Exception):
    """Nothing is due any more, and somebody still waits: in real time that is for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer when nothing is ready."""

    def __init__(self) -> None:
        self._now = 0.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self._now

    def pass_time(self, seconds: float) -> None:
        self._now += seconds

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """At once: a thread would report through the selector, and there is no selector."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class _Selector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Stuck
        self._loop.pass_time(max(timeout, 0.0))
        return []


class MemoryTransport(asyncio.Transport):
    """Plays a server's turns: the next one when the client has written, or when a minute has passed."""

    MINUTE = 60.0

    def __init__(self, loop: asyncio.AbstractEventLoop, turns: Iterator[bytes | None]) -> None:
        super().__init__()
        self.written = bytearray()
        self.said = bytearray()  # before QUIT was written
        self._loop = loop
        self._turns = turns
        self._protocol: asyncio.StreamReaderProtocol | None = None
        self._closing = False
        self._alarm: asyncio.Handle | None = None

    def begin(self, protocol: asyncio.StreamReaderProtocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)
        self._speak_soon()

    def _speak_soon(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm = self._loop.call_soon(self._speak)

    def _speak(self) -> None:
        if self._closing or self._protocol is None:
            return
        said = next(self._turns, b"")
        self._alarm = self._loop.call_later(self.MINUTE, self._speak) if said else None
        if said is None:
            self.abort()
        elif said is HALF_CLOSED:
            if not self._protocol.eof_received():
                self.abort()
        elif said:
            if b"QUIT\r\n" not in self.written:
                self.said += said
            self._protocol.data_received(said)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing:
            self.written += data
            self._speak_soon()

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self._closing:
            return
        self._closing = True
        if self._alarm is not None:
            self._alarm.cancel()
        assert self._protocol is not None
        self._loop.call_soon(self._protocol.connection_lost, None)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 50_000) if name == "sockname" else default


async def memory_streams(transport: MemoryTransport) -> OpenedStreams:
    """Return the streams of a session, as the opener of a relay does."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(loop=loop)
    protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
    transport.begin(protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)
