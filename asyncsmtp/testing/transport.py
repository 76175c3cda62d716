"""The relay's end of a connection: buffered input, delayed output, closing, and the upgrade to TLS."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import struct
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import cast

__all__ = ["InputBuffer", "ServerTransport"]

END_OF_DATA = b"\r\n.\r\n"


class InputBuffer:
    """Bytes read and not yet processed. Only CR LF ends a line; a bare CR or LF is a byte like any other."""

    __slots__ = ("_buffer", "_dropped", "_searched")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._searched = 0
        self._dropped = False

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def peek(self) -> bytes:
        return bytes(self._buffer)

    def clear(self) -> None:
        self._buffer.clear()
        self._searched = 0
        self._dropped = False

    def read_line(self) -> bytes | None:
        """Return the next line without its CR LF, or None until it is complete."""
        end = self._buffer.find(b"\r\n", self._searched)
        if end < 0:
            self._searched = max(len(self._buffer) - 1, 0)
            return None
        return self._take(end, 2)

    def read_chunk(self, octets: int) -> bytes | None:
        """Return so many bytes, or None until they have all arrived."""
        return self._take(octets, 0) if len(self._buffer) >= octets else None

    def read_content(self, limit: int) -> tuple[bytes, bool] | None:
        """Return the content up to its end of data, dot-stuffing undone, or None until it is complete.

        The second value tells if it stayed within `limit` bytes; a larger one is discarded as it arrives, and empty.
        """
        if not self._dropped and self._buffer.startswith(b".\r\n"):
            return self._take(0, 3), True
        end = self._buffer.find(END_OF_DATA, self._searched)
        if end < 0:
            self._skip_searched(limit)
            return None
        octets = _undo_dot_stuffing(self._take(end + 2, 3))
        fits = not self._dropped and len(octets) <= limit
        self._dropped = False
        return (octets, True) if fits else (b"", False)

    def _skip_searched(self, limit: int) -> None:
        overlap = len(END_OF_DATA) - 1
        if len(self._buffer) > 2 * limit + overlap:  # dot-stuffing at most doubles it
            del self._buffer[:-overlap]
            self._dropped = True
        self._searched = max(len(self._buffer) - overlap, 0)

    def _take(self, octets: int, end: int) -> bytes:
        taken = bytes(self._buffer[:octets])
        del self._buffer[: octets + end]
        self._searched = 0
        return taken


def _undo_dot_stuffing(octets: bytes) -> bytes:
    """Remove the dot that begins a line (RFC 5321 §4.5.2)."""
    if b"\r\n." in octets:
        octets = octets.replace(b"\r\n.", b"\r\n")
    return octets[1:] if octets[:1] == b"." else octets


TLS_HANDSHAKE_TIMEOUT = 30.0


class ServerTransport:
    """A transport whose actions take effect one round trip late, in order, and not after the connection is lost."""

    def __init__(self, transport: asyncio.Transport, round_trip: float) -> None:
        self._transport = transport
        self._round_trip = round_trip
        self._delayed: deque[Callable[[], None]] = deque()
        self._lost = False
        self._upgrade: asyncio.Task[asyncio.Transport | None] | None = None

    def write(self, octets: bytes) -> None:
        self._delay(partial(self._write, octets))

    def close(self) -> None:
        """Close once all output is written, with a close_notify over TLS."""
        self._delay(lambda: self._transport.close())  # TLS may have replaced the transport by then

    def abort(self) -> None:
        """Close without a close_notify, discarding output not yet written."""
        self._delay(lambda: self._transport.abort())

    def reset(self) -> None:
        """Close with a TCP reset (SO_LINGER 0)."""
        self._delay(self._reset)

    def half_close(self) -> None:
        """Send FIN and keep reading."""
        self._delay(self._half_close)

    def pause(self) -> None:
        """Stop reading, at once."""
        if not self._lost:
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._lost:
            self._transport.resume_reading()

    def connection_lost(self) -> None:
        """Record that the connection is lost."""
        self._lost = True

    async def aclose(self) -> bool:
        """Abort at once; return true if that interrupted a handshake."""
        interrupted = self._upgrade is not None and not self._upgrade.done()
        if self._upgrade is not None and interrupted:
            self._upgrade.cancel()
            await asyncio.wait([self._upgrade])
        if not self._lost:
            self._transport.abort()
        return interrupted

    def _delay(self, action: Callable[[], None]) -> None:
        self._delayed.append(action)
        if self._round_trip:
            asyncio.get_running_loop().call_later(self._round_trip, self._run_delayed)
        else:
            self._run_delayed()

    def _run_delayed(self) -> None:
        action = self._delayed.popleft()
        if not self._lost:
            action()

    def _write(self, octets: bytes) -> None:
        if not self._transport.is_closing():
            self._transport.write(octets)

    def _reset(self) -> None:
        with self._socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    def _half_close(self) -> None:
        with self._socket() as sock:
            sock.shutdown(socket.SHUT_WR)

    def _socket(self) -> socket.socket:
        """Return the socket below the transport, as a second handle: event loops differ in what theirs can do."""
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))

    # TLS

    def upgrade(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        unread: InputBuffer,
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Perform the TLS handshake; all further data goes through TLS.

        Args:
            unread: input already read that belongs to the handshake; TLS gets it.
            done: called with None, or with the reason why the handshake failed.
        """

        def start() -> None:
            loop = asyncio.get_running_loop()
            tls = loop.start_tls(
                self._transport, protocol, context, server_side=True, ssl_handshake_timeout=TLS_HANDSHAKE_TIMEOUT
            )
            self._upgrade = loop.create_task(tls)
            self._upgrade.add_done_callback(partial(self._finish_handshake, done))
            # two turns later start_tls has installed TLS, and nothing more was read yet
            loop.call_soon(loop.call_soon, self._feed_tls, unread)

        self._delay(start)

    def _feed_tls(self, unread: InputBuffer) -> None:
        """Pass to TLS what was read before; uvloop reads from a new connection before it can be paused."""
        octets = unread.peek()
        unread.clear()
        tls = cast(asyncio.BufferedProtocol, self._transport.get_protocol())  # the TLS protocol, in either loop
        while octets:
            room = memoryview(tls.get_buffer(len(octets)))
            fits = min(len(room), len(octets))
            room[:fits] = octets[:fits]
            tls.buffer_updated(fits)
            octets = octets[fits:]

    def _finish_handshake(
        self, done: Callable[[BaseException | None], None], upgrade: asyncio.Task[asyncio.Transport | None]
    ) -> None:
        if upgrade.cancelled():
            return
        if error := upgrade.exception():
            done(error)
        elif transport := upgrade.result():
            self._transport = transport
            done(None)
