"""Connections through a proxy; the result is a socket on which the relay speaks first.

SOCKS 5 uses python-socks, HTTP uses h11. python-socks speaks HTTP too, but reads whatever stands behind the answer of
the proxy along with it: that is the greeting of the relay, and it would be lost.
"""

from __future__ import annotations

import asyncio
import socket
from base64 import b64encode
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, cast

from asyncsmtp.client.config.relay import Proxy, ProxyKind
from asyncsmtp.client.connection.happy_eyeballs import connect_tcp, look_up
from asyncsmtp.errors import ConnectFailed, MissingDependency
from asyncsmtp.protocol.masking import SecretMask
from asyncsmtp.protocol.replies import safe_text

if TYPE_CHECKING:
    from python_socks.async_.asyncio import Proxy as Socks

__all__ = ["connect_through"]

_MAX_ANSWER = 16_384  # bytes of an HTTP proxy's answer, its interim responses (1xx) included
_BYTES_A_STEP = 256  # read before other tasks have a turn; well under 10 ms
_MAX_NAME = 254  # characters of a name, with a dot at its end (RFC 1035 §3.1)


async def connect_through(
    proxy: Proxy, host: str, port: int, *, timeout: float, source: str | None = None
) -> socket.socket:
    """Connect to a host through a proxy. Cancelling it leaves no socket.

    Args:
        timeout: seconds. source: the local address to connect to the proxy from.
    Raises:
        ConnectFailed: the proxy cannot be reached, or does not let us through.
        MissingDependency: the packages for it are not installed.
        OSError: the name of the relay is not known, if it is looked up here.
    """
    connect = {ProxyKind.SOCKS5: _connect_socks, ProxyKind.HTTP: _connect_http}[proxy.kind]
    if not proxy.remote_names:
        host = (await look_up(host, port))[0].sockaddr[0]
    return await connect(proxy, _encode_name(host), port, timeout, source)


def _encode_name(host: str) -> str:
    """Return a name as DNS has it, and as our own lookup would use it."""
    try:
        name = host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise socket.gaierror(socket.EAI_NONAME, "no host name") from error
    if len(name) > _MAX_NAME or not name.isprintable() or " " in name:
        raise socket.gaierror(socket.EAI_NONAME, "no host name")
    return name


async def _connect_proxy(proxy: Proxy, source: str | None) -> socket.socket:
    try:
        return await connect_tcp(*proxy.address, source)
    except OSError as error:
        raise ConnectFailed(f"cannot connect to the proxy {proxy}: {error.strerror or error}") from error


class _Connector:
    """The connection of python-socks to the proxy: tries all of its addresses, as every connection of ours."""

    def __init__(self, proxy: Proxy, source: str | None) -> None:
        self._proxy = proxy
        self._source = source

    async def connect(self, dest_host: str, dest_port: int, timeout: float | None = None) -> socket.socket:
        return await _connect_proxy(self._proxy, self._source)


async def _connect_socks(proxy: Proxy, host: str, port: int, timeout: float, source: str | None) -> socket.socket:
    try:
        from python_socks import ProxyError, ProxyType
        from python_socks.async_.asyncio import Proxy as Socks
    except ImportError as error:
        raise _not_installed(proxy) from error
    connector = cast("Socks", _Connector(proxy, source))
    user, password = proxy.username or None, proxy.password
    socks = Socks(
        ProxyType.SOCKS5,
        *proxy.address,
        user,
        password.reveal() if password is not None else None,  # in no variable, which a traceback could show
        rdns=True,
        forward=connector,
    )
    try:
        return await socks.connect(host, port, timeout=timeout)
    except ProxyError as error:
        reason = str(error)
    except (ConnectFailed, OSError, asyncio.CancelledError) as error:
        raise error.with_traceback(None) from error.__cause__  # the frames of python-socks hold the password
    raise _refused(proxy, host, port, reason)


async def _connect_http(proxy: Proxy, host: str, port: int, timeout: float, source: str | None) -> socket.socket:
    try:
        import h11
    except ImportError as error:
        raise _not_installed(proxy) from error
    with ExitStack() as stack:
        sock = await _connect_proxy(proxy, source)
        stack.callback(sock.close)
        try:
            status, reason = await _request(h11, proxy, sock, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
        except h11.ProtocolError as error:  # not a cause: it quotes the answer, which may echo the password
            status, reason = 0, f"that is no HTTP: {_masked(proxy, str(error))}"
        except OSError as error:
            status, reason = 0, error.strerror or str(error)
        if not 200 <= status < 300:
            raise _refused(proxy, host, port, f"{status} {reason}" if status else reason)
        stack.pop_all()
    return sock


async def _request(h11: Any, proxy: Proxy, sock: socket.socket, authority: str) -> tuple[int, str]:
    """Send CONNECT and return the status and reason; read nothing behind the answer."""
    loop = asyncio.get_running_loop()
    connection = h11.Connection(h11.CLIENT)
    await loop.sock_sendall(sock, _connect_request(h11, connection, proxy, authority))
    left = _MAX_ANSWER
    while True:
        head = await _read_head(loop, sock, left)
        await asyncio.sleep(0)  # bytes that are there already are read without a pause
        left -= len(head)
        connection.receive_data(head)
        while (event := connection.next_event()) is not h11.NEED_DATA:
            if isinstance(event, h11.Response):
                return event.status_code, _masked(proxy, event.reason.decode("latin-1"))
        if not left:
            return 0, f"its answer is longer than {_MAX_ANSWER} bytes"


async def _read_head(loop: asyncio.AbstractEventLoop, sock: socket.socket, limit: int) -> bytes:
    """Read to the end of the header section, byte by byte: what follows it may be from the relay.

    At the end of the connection the answer is empty or not complete, which the parser reports.
    """
    head = bytearray()
    while len(head) < limit and not head.endswith((b"\r\n\r\n", b"\n\n")):
        byte = await loop.sock_recv(sock, 1)
        if not byte:
            break
        head += byte
        if not len(head) % _BYTES_A_STEP:
            await asyncio.sleep(0)
    return bytes(head)


def _connect_request(h11: Any, connection: Any, proxy: Proxy, authority: str) -> bytes:
    headers = [("Host", authority), *_authorization(proxy)]
    request = h11.Request(method="CONNECT", target=authority, headers=headers)
    return bytes(connection.send(request) + connection.send(h11.EndOfMessage()))


def _authorization(proxy: Proxy) -> list[tuple[str, str]]:
    if not proxy.username:
        return []
    secret = proxy.password.reveal() if proxy.password is not None else ""
    token = b64encode(f"{proxy.username}:{secret}".encode()).decode("ascii")  # RFC 7617
    return [("Proxy-Authorization", f"Basic {token}")]


def _not_installed(proxy: Proxy) -> MissingDependency:
    return MissingDependency(f"speaking to the proxy {proxy}", "asyncsmtp[proxy]")


def _refused(proxy: Proxy, host: str, port: int, reason: str) -> ConnectFailed:
    where = safe_text(f"{host}:{port}", 280)
    return ConnectFailed(f"the proxy {proxy} does not let us through to {where}: {safe_text(reason, 200)}")


def _masked(proxy: Proxy, answer: str) -> str:
    """Return words of the proxy without its password, at once: a traceback shows variables."""
    if proxy.password is None:
        return answer
    return SecretMask(proxy.password.reveal().encode("utf-8", "surrogatepass")).mask_text(answer)
