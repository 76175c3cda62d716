"""From a host to a connected socket: its addresses tried with a head start for each (RFC 8305).

asyncio has such a race, uvloop has none; and asyncio's own forgets to close the winner when it is cancelled in the
moment of success. Here no task and no result stands between a socket and the one who closes it: what is not handed
over is closed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import zip_longest
from typing import Any, NamedTuple

__all__ = ["HEAD_START", "LOOKUP", "MOST", "Address", "dial", "look_up"]

LOOKUP = 10.0  # seconds for a name
MOST = 5  # addresses of a name that are tried: an answer may have a thousand
HEAD_START = 0.25  # seconds until the next address is tried beside the one before (RFC 8305 §5)

# A peer that is gone without a word is found out though nothing is said: after two minutes, not after two hours.
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
)


class Address(NamedTuple):
    """Where to connect: a family of the socket module, and what its `connect` takes."""

    family: int
    place: Any


async def dial(host: str, port: int, source: str | None = None) -> socket.socket:
    """Connect to a host; the first address that answers wins. Cancelling it leaves no socket.

    Args:
        source: the address of ours to connect from; only addresses of its family are tried then.
    Raises:
        OSError: the name is not known, or nothing answers at any of its addresses.
    """
    return await _Race(await look_up(host, port, source), source).run()


async def look_up(host: str, port: int, source: str | None = None) -> list[Address]:
    """The addresses of a host in the order to try them; five at the most, after ten seconds at the most.

    Cancelling it leaves the thread of the look-up to end by itself; no answer of it is used.

    Raises:
        OSError: the name is not known, or has no address of the family of `source`.
    """
    version = _version(host)
    if version is not None and "%" not in host:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        found = [Address(family, (host, port, 0, 0) if version == 6 else (host, port))]
    else:
        try:
            async with asyncio.timeout(LOOKUP):
                told = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise OSError(f"looking its name up took longer than {LOOKUP:g} s: check the resolver") from error
        except ValueError as error:  # a NUL; an empty label, or one of more than 63 octets, is a UnicodeError
            raise socket.gaierror(socket.EAI_NONAME, "no host name") from error
        found = [Address(family, place) for family, _, _, _, place in told]
    if source is not None:
        wanted = socket.AF_INET6 if _version(source) == 6 else socket.AF_INET
        found = [address for address in found if address.family == wanted]
        if not found:
            raise OSError(f"it has no address that can be reached from the source address {source}")
    return _interleaved(list(dict.fromkeys(found)))[:MOST]


def _version(host: str) -> int | None:
    """4 or 6 for an address; None for a name."""
    try:
        return ip_address(host.partition("%")[0]).version
    except ValueError:
        return None


def _interleaved(found: Sequence[Address]) -> list[Address]:
    """The families in turns, beginning with that of the first: if one of them leads nowhere, the other is next."""
    first = [address for address in found if address.family == found[0].family]
    others = [address for address in found if address.family != found[0].family]
    return [address for pair in zip_longest(first, others) for address in pair if address is not None]


class _Race:
    """Owns every socket from its making to its end, but for the one that `run` returns."""

    def __init__(self, addresses: Sequence[Address], source: str | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._left = deque(addresses)
        self._running: set[socket.socket] = set()
        self._failures: list[OSError] = []
        self._over: asyncio.Future[socket.socket | None] = self._loop.create_future()
        self._next: asyncio.TimerHandle | None = None

    async def run(self) -> socket.socket:
        """Return the winner."""
        try:
            self._start()
            winner = await self._over
            if winner is None:
                raise self._reason()
            self._running.discard(winner)
            return winner
        finally:
            self._stop()

    def _start(self) -> None:
        """Begin with the next address; the one behind it waits for its head start to be over, or for a failure."""
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if self._over.done():
            return
        if not self._left:
            if not self._running:
                self._over.set_result(None)
            return
        address = self._left.popleft()
        if self._left:
            self._next = self._loop.call_later(HEAD_START, self._start)
        try:
            self._connect(address)
        except OSError as error:
            self._failures.append(error)
            self._start()

    def _connect(self, address: Address) -> None:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            for level, option, value in _OPTIONS:
                sock.setsockopt(level, option, value)
            if self._source is not None:
                sock.bind((self._source, 0))
            sock.connect(address.place)
        except BlockingIOError:
            self._running.add(sock)
            self._loop.add_writer(sock, self._answered, sock)
        except BaseException:
            sock.close()
            raise
        else:
            self._running.add(sock)
            self._over.set_result(sock)

    def _answered(self, sock: socket.socket) -> None:
        self._loop.remove_writer(sock)
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if self._over.done():
            return
        if not code:
            self._over.set_result(sock)
            return
        self._running.discard(sock)
        sock.close()
        self._failures.append(OSError(code, os.strerror(code)))
        self._start()

    def _reason(self) -> OSError:
        """Of several the one that says most: somebody was there, and refused."""
        refused = (failure for failure in self._failures if isinstance(failure, ConnectionRefusedError))
        return next(refused, self._failures[0])

    def _stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
        for sock in self._running:
            self._loop.remove_writer(sock)
            sock.close()
