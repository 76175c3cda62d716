"""Through a proxy to a relay; what comes back is a socket on which the relay speaks first.

SOCKS 5 is python-socks', HTTP is h11's. python-socks knows HTTP too, but reads whatever stands behind the proxy's
answer along with it: that is the relay's greeting, and it would be lost.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from typing import TYPE_CHECKING, Any, cast

from asyncsmtp.client.config.proxy import Proxy, ProxyKind
from asyncsmtp.client.connection.addresses import dial, look_up
from asyncsmtp.errors import ConnectFailed, MissingDependency
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from python_socks.async_.asyncio import Proxy as Socks

__all__ = ["tunnel"]

_MOST = 254  # characters of a name, with a dot at its end (RFC 1035 §3.1)


async def tunnel(proxy: Proxy, host: str, port: int, *, patience: float, source: str | None = None) -> socket.socket:
    """Connect to a host through a proxy. Cancelling it leaves no socket.

    Args:
        patience: seconds. source: the address of ours to connect to the proxy from.
    Raises:
        ConnectFailed: the proxy cannot be reached, or does not let us through.
        MissingDependency: the packages for it are not there.
        OSError: the relay's name is not known, where we look it up.
    """
    speak = {ProxyKind.SOCKS5: _by_socks, ProxyKind.HTTP: _by_http}[proxy.kind]
    if not proxy.remote_names:
        host = (await look_up(host, port))[0].place[0]
    return await speak(proxy, _ascii(host), port, patience, source)


def _ascii(host: str) -> str:
    """A name as DNS has it, and as we would ask for it ourselves."""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from error
    if len(name) > _MOST or not name.isprintable() or " " in name:
        raise socket.gaierror(socket.EAI_NONAME, "no host name")
    return name


async def _reach(proxy: Proxy, source: str | None) -> socket.socket:
    try:
        return await dial(*proxy.address, source)
    except OSError as error:
        raise ConnectFailed(f"cannot connect to the proxy {proxy}: {error.strerror or error}") from error


class _Way:
    """How python-socks reaches the proxy: by all of its addresses, as we reach everything."""

    def __init__(self, proxy: Proxy, source: str | None) -> None:
        self._proxy = proxy
        self._source = source

    async def connect(self, dest_host: str, dest_port: int, timeout: float | None = None) -> socket.socket:
        return await _reach(self._proxy, self._source)


async def _by_socks(proxy: Proxy, host: str, port: int, patience: float, source: str | None) -> socket.socket:
    try:
        from python_socks import ProxyError, ProxyType
        from python_socks.async_.asyncio import Proxy as Socks
    except ImportError as error:
        raise _not_installed(proxy) from error
    secret = proxy.password.reveal() if proxy.password is not None else None
    way = cast("Socks", _Way(proxy, source))
    socks = Socks(ProxyType.SOCKS5, *proxy.address, proxy.username or None, secret, rdns=True, forward=way)
    try:
        return await socks.connect(host, port, timeout=patience)
    except ProxyError as error:
        raise _not_let_through(proxy, host, port, str(error)) from error


async def _by_http(proxy: Proxy, host: str, port: int, patience: float, source: str | None) -> socket.socket:
    try:
        import h11
    except ImportError as error:
        raise _not_installed(proxy) from error
    sock = await _reach(proxy, source)
    try:
        status, reason = await _ask(h11, proxy, sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    except h11.ProtocolError as error:
        sock.close()
        raise _not_let_through(proxy, host, port, f"that is no HTTP: {error}") from error
    except OSError as error:
        sock.close()
        raise _not_let_through(proxy, host, port, error.strerror or str(error)) from error
    except BaseException:
        sock.close()
        raise
    if not 200 <= status < 300:
        sock.close()
        raise _not_let_through(proxy, host, port, f"{status} {reason}")
    return sock


async def _ask(h11: Any, proxy: Proxy, sock: socket.socket, authority: str) -> tuple[int, str]:
    """Say CONNECT; return the status, and leave what stands behind the answer where it is."""
    loop = asyncio.get_running_loop()
    dialogue = h11.Connection(h11.CLIENT)
    headers = [("Host", authority), *_authorization(proxy)]
    asked = dialogue.send(h11.Request(method="CONNECT", target=authority, headers=headers))
    await loop.sock_sendall(sock, asked + dialogue.send(h11.EndOfMessage()))
    while True:
        event = dialogue.next_event()
        if isinstance(event, h11.Response):
            return event.status_code, event.reason.decode("latin-1")
        if event is h11.NEED_DATA:  # an octet at a time: the next one may be the relay's
            dialogue.receive_data(await loop.sock_recv(sock, 1))


def _authorization(proxy: Proxy) -> list[tuple[str, str]]:
    if not proxy.username:
        return []
    secret = proxy.password.reveal() if proxy.password is not None else ""
    said = b64encode(f"{proxy.username}:{secret}".encode()).decode("ascii")  # RFC 7617
    return [("Proxy-Authorization", f"Basic {said}")]


def _not_installed(proxy: Proxy) -> MissingDependency:
    return MissingDependency(f"speaking to the proxy {proxy}", "asyncsmtp[proxy]")


def _not_let_through(proxy: Proxy, host: str, port: int, reason: str) -> ConnectFailed:
    where = safe_text(f"{host}:{port}", 280)
    return ConnectFailed(f"the proxy {proxy} does not let us through to {where}: {safe_text(reason, 200)}")
