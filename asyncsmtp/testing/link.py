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

from asyncsmtp.testing.reading import Input

__all__ = ["Link"]

HANDSHAKE_SECONDS = 30.0


class Link:
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
        unread: Input,
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
        unread: Input,
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

    def _hand_over(self, unread: Input) -> None:
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
