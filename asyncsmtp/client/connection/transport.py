"""Connections: by which way to a relay, with TLS on top where it is implicit, and how that fails (RFC 8314)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from typing import Any, cast

from asyncsmtp.client.config.relay import OpenedStreams, Opener, Relay
from asyncsmtp.client.connection.addresses import dial
from asyncsmtp.client.connection.ear import Streams, open_streams, overhear
from asyncsmtp.client.connection.tls import certified_name, check_pins, handshake_failed, tls_context
from asyncsmtp.client.connection.tunnel import tunnel
from asyncsmtp.errors import ConnectFailed, InvalidArgument, SMTPError, StartTlsInjection
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.protocol.replies import safe_text

__all__ = ["client_name", "connect", "shake_hands"]


async def connect(relay: Relay, sock: socket.socket | None = None) -> Streams:
    """Open the connection, and TLS where it is implicit; name lookup and all addresses count as one wait.

    Args:
        relay: with one host. sock: connected already; it is ours from here on, and closed with the connection.
    Raises:
        ConnectFailed: with what to look at. CertificateRefused: it is not valid, or not the one that is pinned.
        InvalidArgument: the socket is not connected, or was used before.
        MissingDependency: the packages for a proxy are not there.
        StartTlsInjection: an opener's streams held octets in clear before the handshake.
    """
    implicit = relay.security is Security.IMPLICIT_TLS
    if sock is not None:
        _check(sock)
    try:
        context = await tls_context(relay) if implicit else None
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    limit = relay.timeouts.connect + (relay.timeouts.tls if implicit else 0.0)
    try:
        async with asyncio.timeout(limit):
            return await _open(relay, sock, context)
    except TimeoutError as error:
        raise ConnectFailed(
            f"{relay} did not answer within {limit:g} s: check the host, the port and the firewall"
        ) from error
    except SMTPError:
        raise
    except ssl.SSLError as error:
        raise handshake_failed(relay, error) from error
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {relay}: {_reason(error)}") from error


async def _open(relay: Relay, sock: socket.socket | None, context: ssl.SSLContext | None) -> Streams:
    if sock is None and relay.opener is not None:
        opened = await _opened(relay, relay.opener)
        if not isinstance(opened, socket.socket):
            return await _on_streams(relay, opened, context)
        sock = opened
    if sock is None and relay.unix_path is None:
        host, port = relay.address
        patience, source = relay.timeouts.connect, relay.source_address
        if relay.proxy is not None:
            sock = await tunnel(relay.proxy, host, port, patience=patience, source=source)
        else:
            sock = await dial(host, port, source)
    return await _on_socket(relay, sock, context)


async def _on_socket(relay: Relay, sock: socket.socket | None, context: ssl.SSLContext | None) -> Streams:
    """Streams on a socket that is connected, or on the relay's own Unix socket."""
    tls: dict[str, Any] = {
        "ssl": context,
        "server_hostname": certified_name(relay) if context else None,
        "ssl_handshake_timeout": relay.timeouts.tls if context else None,
        "ssl_shutdown_timeout": relay.timeouts.close if context else None,
    }
    if sock is None:
        loop, path = asyncio.get_running_loop(), os.fsdecode(relay.unix_path or "")
        streams = await open_streams(lambda make: loop.create_unix_connection(make, path, **tls))
    else:
        streams = await _taken_over(sock, **tls)
    if context is not None:
        _prove(relay, streams[1])
    return streams


async def _taken_over(sock: socket.socket, **tls: Any) -> Streams:
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    connects: Any = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    try:
        return await open_streams(lambda make: connects(make, sock=sock, **tls))
    except BaseException:
        if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
            sock.detach()  # uvloop 0.19 closes what is behind it and does not tell it
        raise


async def _opened(relay: Relay, opener: Opener) -> socket.socket | OpenedStreams:
    """What the relay's opener returns."""
    try:
        opened = await opener(*relay.address)
    except (SMTPError, OSError):
        raise
    except Exception as error:
        why = safe_text(f"{type(error).__name__}: {error}", 200)
        raise ConnectFailed(f"the opener of {relay} failed: {why}") from error
    if isinstance(opened, socket.socket):
        _check(opened)
    elif not (isinstance(opened, tuple) and len(opened) == 2):
        what = type(opened).__name__
        raise InvalidArgument(f"the opener of {relay} returned {what}, not a connected socket or a reader and a writer")
    return opened


async def _on_streams(relay: Relay, streams: OpenedStreams, context: ssl.SSLContext | None) -> Streams:
    """Streams that an opener made; TLS is put on top of them."""
    reader, writer = streams
    if context is None:
        return overhear(reader), writer
    try:
        await _nothing_in_clear(reader, writer)
        await shake_hands(relay, writer)
    except BaseException:
        writer.transport.abort()
        raise
    return overhear(reader), writer


async def _nothing_in_clear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """What was read before the handshake would pass for something that was said under TLS."""
    cast(asyncio.Transport, writer.transport).pause_reading()  # nothing more comes until the handshake has it
    early = asyncio.ensure_future(reader.read(1))
    await asyncio.sleep(0)
    early.cancel()
    await asyncio.wait((early,))
    if not early.cancelled() and early.result():
        raise StartTlsInjection("octets in clear came before the TLS handshake: someone may be tampering with it")


def _check(sock: socket.socket) -> None:
    """A socket that is given to us must be connected; one that is not is closed, being ours."""
    if sock.fileno() == -1:
        raise InvalidArgument("the socket is closed: one socket serves one session, so connect another for the next")
    try:
        if sock.type != socket.SOCK_STREAM:
            raise InvalidArgument("the socket is no stream: SMTP needs a TCP or a Unix stream socket")
        sock.getpeername()
    except OSError as error:
        sock.close()
        raise InvalidArgument(f"the socket is not connected: {error.strerror}") from error
    except InvalidArgument:
        sock.close()
        raise


def _prove(relay: Relay, writer: asyncio.StreamWriter) -> None:
    """End the connection if its certificate is not the one that is pinned."""
    try:
        tls = writer.get_extra_info("ssl_object")
        if tls is None:
            raise ConnectFailed(f"the TLS handshake with {relay} broke off: it hung up")
        check_pins(relay, tls)
    except BaseException:
        writer.transport.abort()
        raise


async def shake_hands(relay: Relay, writer: asyncio.StreamWriter) -> None:
    """Upgrade the connection, after the 220 to STARTTLS for one.

    Raises:
        ConnectFailed: the handshake failed; nothing falls back to clear text.
        CertificateRefused: the certificate is not valid, or not the one that is pinned.
    """
    context = await tls_context(relay)
    plain = writer.transport
    try:
        await writer.start_tls(
            context,
            server_hostname=certified_name(relay),
            ssl_handshake_timeout=relay.timeouts.tls,
        )
    except ssl.SSLError as error:
        raise handshake_failed(relay, error) from error
    except OSError as error:
        raise ConnectFailed(f"the TLS handshake with {relay} broke off: {_reason(error)}") from error
    except AttributeError as error:
        if writer.transport is not None:
            raise
        # asyncio's streams trip over a hang-up in the midst of it: they are given no transport, and need one to end
        vars(writer)["_transport"] = plain
        raise ConnectFailed(f"the TLS handshake with {relay} broke off: it hung up") from error
    _prove(relay, writer)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "this host name is not known: check its spelling"
    if isinstance(error, ConnectionRefusedError):
        return "nothing answers there: check host and port, or the socket, and that the relay is running"
    return error.strerror or str(error) or type(error).__name__


def client_name(writer: asyncio.StreamWriter) -> str:
    """The address literal of our end of the connection; no name lookup, which could block (RFC 5321 §4.1.3).

    Our end of a Unix socket has no address but this machine's own.
    """
    name = writer.get_extra_info("sockname")
    address = name[0] if isinstance(name, tuple) else "127.0.0.1"
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"
