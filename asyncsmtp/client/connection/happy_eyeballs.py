"""TCP connections to a host by all of its addresses, each with a head start on the next (RFC 8305).

uvloop has no such race, and asyncio's own leaks the winner when it is cancelled in the moment of success. Here neither
a task nor a result stands between a socket and its owner: a socket that is not returned is closed.
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

__all__ = ["HEAD_START", "LOOKUP_TIMEOUT", "MAX_ADDRESSES", "ResolvedAddress", "connect_tcp", "look_up"]

LOOKUP_TIMEOUT = 10.0  # seconds for a name
MAX_ADDRESSES = 5  # of a name that are tried: an answer may have a thousand
HEAD_START = 0.25  # seconds until the next address is tried beside the one before (RFC 8305 §5)

# Keepalive finds a peer that vanished while the connection is idle: after two minutes, not after two hours.
_OPTIONS = (
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
        if hasattr(socket, name)
    ),
)


class ResolvedAddress(NamedTuple):
    """An address to connect to: a family of the socket module, and the argument of its `connect`."""

    family: int
    sockaddr: Any


async def connect_tcp(host: str, port: int, source: str | None = None) -> socket.socket:
    """Connect to a host; the first address that answers wins. Cancelling it leaves no socket.

    Args:
        source: the local address to connect from; then only addresses of its family are tried.
    Raises:
        OSError: the name is not known, or nothing answers at any of its addresses.
    """
    return await _Race(await look_up(host, port, source), source).run()


async def look_up(host: str, port: int, source: str | None = None) -> list[ResolvedAddress]:
    """Return the addresses of a host in the order to try them: at most five, after at most ten seconds.

    Cancelling it leaves the thread of the lookup to end by itself; its answer is not used.

    Raises:
        OSError: the name is not known, or has no address of the family of `source`.
    """
    version = _version(host)
    if version is not None and "%" not in host:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        found = [ResolvedAddress(family, (host, port, 0, 0) if version == 6 else (host, port))]
    else:
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT):
                answer = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise OSError(f"looking its name up took longer than {LOOKUP_TIMEOUT:g} s: check the resolver") from error
        except ValueError as error:  # a NUL; an empty label, or one of more than 63 octets, is a UnicodeError
            raise socket.gaierror(socket.EAI_NONAME, "no host name") from error
        found = [ResolvedAddress(family, sockaddr) for family, _, _, _, sockaddr in answer]
    if source is not None:
        wanted = socket.AF_INET6 if _version(source) == 6 else socket.AF_INET
        found = [address for address in found if address.family == wanted]
        if not found:
            raise OSError(f"it has no address that can be reached from the source address {source}")
    return _interleave(list(dict.fromkeys(found)))[:MAX_ADDRESSES]


def _version(host: str) -> int | None:
    """Return 4 or 6 for an address, None for a name."""
    try:
        return ip_address(host.partition("%")[0]).version
    except ValueError:
        return None


def _interleave(found: Sequence[ResolvedAddress]) -> list[ResolvedAddress]:
    """Return the families in turn, beginning with that of the first: if one leads nowhere, the other is next."""
    first = [address for address in found if address.family == found[0].family]
    others = [address for address in found if address.family != found[0].family]
    return [address for pair in zip_longest(first, others) for address in pair if address is not None]


class _Race:
    """A race of connection attempts; owns every socket that it makes, except the one that `run` returns."""

    def __init__(self, addresses: Sequence[ResolvedAddress], source: str | None) -> None:
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._left = deque(addresses)
        self._running: set[socket.socket] = set()
        self._failures: list[OSError] = []
        self._over: asyncio.Future[socket.socket | None] = self._loop.create_future()
        self._next: asyncio.TimerHandle | None = None

    async def run(self) -> socket.socket:
        """Return the first socket that is connected."""
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
        """Try the next address; the one after it waits until the head start is over, or for a failure."""
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

    def _connect(self, address: ResolvedAddress) -> None:
        sock = socket.socket(address.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            for level, option, value in _OPTIONS:
                sock.setsockopt(level, option, value)
            if self._source is not None:
                sock.bind((self._source, 0))
            sock.connect(address.sockaddr)
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
        """Return the most informative failure: a host that answered and refused."""
        refused = (failure for failure in self._failures if isinstance(failure, ConnectionRefusedError))
        return next(refused, self._failures[0])

    def _stop(self) -> None:
        if self._next is not None:
            self._next.cancel()
        for sock in self._running:
            self._loop.remove_writer(sock)
            sock.close()
