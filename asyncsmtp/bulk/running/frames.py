"""Frames between the process of a run and those that send for it, over a pair of sockets; see `process_pool`."""

from __future__ import annotations

import asyncio
import pickle
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

from asyncsmtp.errors import SMTPError

__all__ = ["LENGTH", "Frame", "FrameChannel", "to_picklable"]

LENGTH = struct.Struct("!I")  # of what follows: before each frame
_BLOCK = 1 << 16  # bytes of one read


class Frame:
    """Kinds of frames. A frame is a tuple of its kind and what it says; the number is that of a message.

    They are no `Enum`: a member is pickled by its name, and takes six times as long.
    """

    BEGIN = 1  # to the child: whether on uvloop, and the campaign, see `_dump`
    SEND = 2  # number, place of the relay, job
    MARKED = 3  # number
    CANCEL = 4  # number
    STOP = 5  # begin no further message
    CLOSE = 6  # close the sessions, and end
    TOKEN = 7  # number of the question, token or error
    READY = 8  # to the parent
    FAILED = 9  # error: the child cannot begin
    MARK = 10  # number
    ACCEPTED = 11  # number, code and lines of the reply, host, size: nearly every message
    DELIVERY = 12  # number, delivery
    ERROR = 13  # number, error
    CANCELLED = 14  # number: nothing was delivered
    FETCH = 15  # number of a question, place of the token source
    TRACE = 16  # side, text, tls, refused
    LOG = 17  # logger, level, text


# Frames are pickled. Both ends are this package, of one version, in one user's processes on one machine, and a socket
# pair has no name by which another could connect. A frame of the usual kinds is a tuple of plain values: 1.4 µs to
# write and read with the cells of a row, a quarter of what JSON takes; deliveries and errors need no form of their own.


class FrameChannel(asyncio.Protocol):
    """One end of the pair of sockets: frames out, frames in. What is sent in one step of the loop is written at once.

    Args:
        end: of the pair. receive: called with each frame. lost: called when the other end is closed.
    """

    def __init__(self, end: socket.socket, receive: Callable[[Any], None], lost: Callable[[], None]) -> None:
        self._rest = end.dup()
        self._receive = receive
        self._lost = lost
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()
        self._input = bytearray()
        self._output: list[bytes] = []

    @classmethod
    async def open(cls, end: socket.socket, receive: Callable[[Any], None], lost: Callable[[], None]) -> FrameChannel:
        """Use one end of a pair, which it closes."""
        end.setblocking(False)
        _, made = await asyncio.get_running_loop().create_unix_connection(lambda: cls(end, receive, lost), sock=end)
        return made

    def send(self, *frame: object) -> None:
        """Send a frame; nothing happens if the other end is closed."""
        if self._transport is None:
            return
        content = pickle.dumps(frame, pickle.HIGHEST_PROTOCOL)
        if not self._output:
            self._loop.call_soon(self._flush)
        self._output += (LENGTH.pack(len(content)), content)

    def close(self) -> None:
        """Close this end; a second call does nothing."""
        if self._transport is not None:
            self._flush()
            self._transport.close()

    def _flush(self) -> None:
        if self._output and self._transport is not None:
            self._transport.write(b"".join(self._output))
        self._output.clear()

    # Called by the transport.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._input += data
        at, size = 0, len(self._input)
        while size - at >= LENGTH.size:
            (length,) = LENGTH.unpack_from(self._input, at)
            end = at + LENGTH.size + length
            if end > size:
                break
            frame = pickle.loads(memoryview(self._input)[at + LENGTH.size : end])  # noqa: S301  # see above
            at = end
            self._receive(frame)
        del self._input[:at]

    def connection_lost(self, error: Exception | None) -> None:
        # A write to an end that is closed makes the transport give up, whatever came before: that is read here.
        self._transport = None
        with self._rest, suppress(OSError):
            while data := self._rest.recv(_BLOCK):
                self.data_received(data)
        self._lost()


def to_picklable(error: Exception) -> Exception:
    """Return an error that the other end can read."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301  # what was just written
    except Exception:
        if isinstance(error, SMTPError):
            return SMTPError(str(error))
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
