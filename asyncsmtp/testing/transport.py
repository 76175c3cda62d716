"""The relay's end of a connection: what leaves, how it ends, when the client sees it; and the upgrade to TLS."""

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
    """What was read and not yet looked at. Only CR LF ends a line; a bare CR or LF is an octet like others."""

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

    def line(self) -> bytes | None:
        """The next line without its CR LF, or None until it is complete."""
        end = self._buffer.find(b"\r\n", self._searched)
        if end < 0:
            self._searched = max(len(self._buffer) - 1, 0)
            return None
        return self._take(end, 2)

    def chunk(self, octets: int) -> bytes | None:
        """So many octets, whatever they are, or None until they are all there."""
        return self._take(octets, 0) if len(self._buffer) >= octets else None

    def content(self, limit: int) -> tuple[bytes, bool] | None:
        """The content up to its end of data, transparency undone, or None until it is complete.

        With it comes whether it stayed within `limit` octets; beyond that it is dropped as it comes in, and empty.
        """
        if not self._dropped and self._buffer.startswith(b".\r\n"):
            return self._take(0, 3), True
        end = self._buffer.find(END_OF_DATA, self._searched)
        if end < 0:
            self._search_on(limit)
            return None
        octets = _undo_transparency(self._take(end + 2, 3))
        fits = not self._dropped and len(octets) <= limit
        self._dropped = False
        return (octets, True) if fits else (b"", False)

    def _search_on(self, limit: int) -> None:
        overlap = len(END_OF_DATA) - 1
        if len(self._buffer) > 2 * limit + overlap:  # transparency at most doubles it
            del self._buffer[:-overlap]
            self._dropped = True
        self._searched = max(len(self._buffer) - overlap, 0)

    def _take(self, octets: int, end: int) -> bytes:
        taken = bytes(self._buffer[:octets])
        del self._buffer[: octets + end]
        self._searched = 0
        return taken


def _undo_transparency(octets: bytes) -> bytes:
    """Delete the dot that begins a line (RFC 5321 §4.5.2)."""
    if b"\r\n." in octets:
        octets = octets.replace(b"\r\n.", b"\r\n")
    return octets[1:] if octets[:1] == b"." else octets


HANDSHAKE_SECONDS = 30.0


class ServerTransport:
    """A transport whose actions arrive a round trip late, in order. Once it is lost they do nothing."""

    def __init__(self, transport: asyncio.Transport, round_trip: float) -> None:
        self._transport = transport
        self._round_trip = round_trip
        self._late: deque[Callable[[], None]] = deque()
        self._lost = False
        self._upgrade: asyncio.Task[asyncio.Transport | None] | None = None

    def write(self, octets: bytes) -> None:
        self._far(partial(self._write, octets))

    def close(self) -> None:
        """Close once all is written, with a close_notify over TLS."""
        self._far(self._close)

    def drop(self) -> None:
        """Close without a close_notify, and without what is not written yet."""
        self._far(self._abort)

    def reset(self) -> None:
        """Close with a TCP reset (SO_LINGER 0)."""
        self._far(self._reset)

    def half_close(self) -> None:
        """Send FIN, and go on reading."""
        self._far(self._half_close)

    def pause(self) -> None:
        """Read no more, at once."""
        if not self._lost:
            self._transport.pause_reading()

    def resume(self) -> None:
        if not self._lost:
            self._transport.resume_reading()

    def lost(self) -> None:
        """The connection is gone."""
        self._lost = True

    async def aclose(self) -> bool:
        """Abort at once; return whether that has cut a handshake short."""
        shaking = self._upgrade is not None and not self._upgrade.done()
        if self._upgrade is not None and shaking:
            self._upgrade.cancel()
            await asyncio.wait([self._upgrade])
        self._abort()
        return shaking

    def _far(self, action: Callable[[], None]) -> None:
        if not self._round_trip:
            action()
            return
        self._late.append(action)
        asyncio.get_running_loop().call_later(self._round_trip, self._arrive)

    def _arrive(self) -> None:
        self._late.popleft()()

    def _write(self, octets: bytes) -> None:
        if not self._lost and not self._transport.is_closing():
            self._transport.write(octets)

    def _close(self) -> None:
        if not self._lost:
            self._transport.close()

    def _abort(self) -> None:
        if not self._lost:
            self._transport.abort()

    def _reset(self) -> None:
        if not self._lost:
            with self._socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()

    def _half_close(self) -> None:
        if not self._lost:
            with self._socket() as sock:
                sock.shutdown(socket.SHUT_WR)

    def _socket(self) -> socket.socket:
        """The socket below the transport, by a second handle: event loops differ in what theirs can do."""
        return socket.socket(fileno=os.dup(self._transport.get_extra_info("socket").fileno()))

    # TLS

    def upgrade(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        unread: InputBuffer,
        done: Callable[[BaseException | None], None],
    ) -> None:
        """Shake hands; then all goes through TLS.

        Args:
            unread: what was read already although it is the handshake's; TLS gets it.
            done: called with None, or with why the handshake failed.
        """
        self._far(partial(self._begin, protocol, context, unread, done))

    def _begin(
        self,
        protocol: asyncio.Protocol,
        context: ssl.SSLContext,
        unread: InputBuffer,
        done: Callable[[BaseException | None], None],
    ) -> None:
        if self._lost:
            return
        loop = asyncio.get_running_loop()
        self._upgrade = loop.create_task(
            loop.start_tls(
                self._transport, protocol, context, server_side=True, ssl_handshake_timeout=HANDSHAKE_SECONDS
            )
        )
        self._upgrade.add_done_callback(partial(self._end, done))
        # two turns later start_tls has put TLS into its place, and nothing more was read yet
        loop.call_soon(loop.call_soon, self._hand_over, unread)

    def _hand_over(self, unread: InputBuffer) -> None:
        """Give TLS what was read before it was there; uvloop reads from a new connection before it can be paused."""
        octets = unread.peek()
        unread.clear()
        tls = cast(asyncio.BufferedProtocol, self._transport.get_protocol())  # which TLS is, in either loop
        while octets:
            room = memoryview(tls.get_buffer(len(octets)))
            fits = min(len(room), len(octets))
            room[:fits] = octets[:fits]
            tls.buffer_updated(fits)
            octets = octets[fits:]

    def _end(
        self, done: Callable[[BaseException | None], None], upgrade: asyncio.Task[asyncio.Transport | None]
    ) -> None:
        if upgrade.cancelled():
            return
        if error := upgrade.exception():
            done(error)
        elif transport := upgrade.result():
            self._transport = transport
            done(None)
