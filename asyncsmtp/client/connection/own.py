"""A socket of the caller's: taken over by the session's connection, or closed."""

from __future__ import annotations

import socket
from contextlib import ExitStack

from asyncsmtp.client.config.relay import Relay
from asyncsmtp.errors import InvalidArgument

__all__ = ["OwnSocket"]


class OwnSocket:
    """Of one session, from when it is given to it. Around connecting, it is closed unless it was taken.

    Attributes:
        sock: None where none was given.
    Raises:
        InvalidArgument: the relay is reached by another way, or by several; the socket stays the caller's.
    """

    def __init__(self, sock: socket.socket | None, relay: Relay) -> None:
        if sock is not None and (relay.fallback_hosts or relay.proxy or relay.opener):
            raise InvalidArgument(
                "a socket of your own leads to one host, by one way: no standby, no proxy and no opener"
            )
        self.sock = sock
        self._connecting = False
        self._untaken = ExitStack()
        if sock is not None:
            self._untaken.callback(sock.close)

    def __enter__(self) -> None:
        self._connecting = True

    def __exit__(self, *_: object) -> None:
        self._untaken.close()

    def take(self) -> socket.socket | None:
        """The socket: to close it is the taker's business from here on."""
        self._untaken.pop_all()
        return self.sock

    def drop(self) -> None:
        """Close it, if nobody has begun to connect."""
        if not self._connecting:
            self._untaken.close()
