"""Streams and TLS: opening a connection to a relay, its TLS handshake, certificates, and errors (RFC 8314, RFC 6125).

asyncio's `StreamReader.read` keeps what it is fed until a task fetches it: one more loop step for each reply, and a
buffer that no public method can look into. RFC 2920 §3.1 asks that replies are handled while we still write, and RFC
3207 §6 that bytes behind the 220 to STARTTLS are not taken over into TLS. So `PushStreamReader` keeps nothing once it
has a callback: each read is handled in the loop step that brought it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import ssl
import weakref
from collections.abc import Awaitable, Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol, cast

from asyncsmtp.client.config.login_config import ClientCertificate
from asyncsmtp.client.config.relay import OpenedStreams, Opener, Relay
from asyncsmtp.client.connection.happy_eyeballs import connect_tcp
from asyncsmtp.client.connection.proxy_tunnel import connect_through
from asyncsmtp.errors import CertificateRefused, ConnectFailed, InvalidArgument, SMTPError, StartTlsInjection
from asyncsmtp.protocol.delivery import TlsInfo
from asyncsmtp.protocol.opening_handshake import Security
from asyncsmtp.protocol.replies import safe_text

__all__ = [
    "READ_SIZE",
    "DataCallback",
    "OpenConnection",
    "PushStreamReader",
    "Streams",
    "client_name",
    "open_connection",
    "open_streams",
    "start_tls",
    "tls_context",
    "tls_info",
    "verifies",
]

READ_SIZE = 65_536
_BUFFER_SIZE = 4_096  # bytes: as a rule the replies to as many commands as are written at once; more take another read


class DataCallback(Protocol):
    """The receiver of a PushStreamReader's data; neither method may raise."""

    def data_received(self, data: bytes) -> None:
        """Handle bytes."""

    def connection_lost(self, error: BaseException | None) -> None:
        """Handle the end of the stream: at EOF, or for an error of the connection. May be called twice."""


class PushStreamReader(asyncio.StreamReader):
    """A StreamReader that pushes data to a callback instead of buffering it; what came before is kept for it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._callback: DataCallback | None = None
        self._early: list[Callable[[DataCallback], None]] = []
        self._copying: asyncio.Task[None] | None = None

    def push_to(self, callback: DataCallback) -> None:
        """Push to this one from now on, and at once what came already."""
        self._callback = callback
        early, self._early = self._early, []
        for push in early:
            push(callback)

    def feed_data(self, data: bytes) -> None:  # type: ignore[override]  # typeshed wants an Iterable of SupportsIndex
        """Called by the stream's protocol."""
        if self._callback is not None:
            self._callback.data_received(data)
        elif data:
            self._early.append(lambda callback: callback.data_received(data))

    def feed_eof(self) -> None:
        """Called by the stream's protocol, at the end of either direction."""
        self._end(None)

    def set_exception(self, exc: BaseException) -> None:
        """Called by the stream's protocol when the connection breaks."""
        self._end(exc)

    def _end(self, error: BaseException | None) -> None:
        if self._callback is not None:
            self._callback.connection_lost(error)
        else:
            self._early.append(lambda callback: callback.connection_lost(error))

    @classmethod
    def copying(cls, reader: asyncio.StreamReader) -> PushStreamReader:
        """Return one that pushes what comes to a reader of somebody else, in a task that `aclose` ends."""
        loop = asyncio.get_running_loop()
        copy = cls(loop)
        copy._copying = loop.create_task(copy._copy(reader))
        return copy

    async def _copy(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(READ_SIZE):
                self.feed_data(data)
        except OSError as error:
            self.set_exception(error)
        else:
            self.feed_eof()

    async def aclose(self) -> None:
        """End the copying task, if there is one."""
        if self._copying is not None:
            self._copying.cancel()
            await asyncio.wait((self._copying,))
            if not self._copying.cancelled():
                self._copying.result()  # a bug in the callback is not hidden


class _StreamProtocol(asyncio.StreamReaderProtocol, asyncio.BufferedProtocol):
    """A stream's protocol with a buffer of its own to read into.

    Without it each read begins with a new object of 256 KiB, which the allocator gets from the system and gives back:
    that was a tenth of the cost of a message.
    """

    def __init__(self, reader: PushStreamReader, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(reader, loop=loop)
        self._reader = weakref.ref(reader)  # as asyncio has it: a session that nobody holds ends its connection
        self._buffer = memoryview(bytearray(_BUFFER_SIZE))

    def get_buffer(self, sizehint: int) -> memoryview:
        """Called by the transport before it reads."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Called by the transport when it has read."""
        self.data_received(bytes(self._buffer[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Called by a transport with a buffer of its own, such as uvloop's."""
        if (reader := self._reader()) is not None:
            reader.feed_data(data)


Streams = tuple[PushStreamReader, asyncio.StreamWriter]
Connects = Callable[[Callable[[], asyncio.StreamReaderProtocol]], Awaitable[tuple[asyncio.Transport, Any]]]
OpenConnection = Callable[[Relay, socket.socket | None], Awaitable[Streams]]
"""The type of `open_connection`, which a Session and a Pool take as a parameter so that a simulation can replace it."""


async def open_streams(connects: Connects) -> Streams:
    """Do as `asyncio.open_connection` does, with a PushStreamReader; `connects`: `loop.create_connection` or alike."""
    loop = asyncio.get_running_loop()
    reader = PushStreamReader(loop)
    protocol = _StreamProtocol(reader, loop)
    transport, _ = await connects(lambda: protocol)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def open_connection(relay: Relay, sock: socket.socket | None = None) -> Streams:
    """Open the connection, and TLS where it is implicit; name lookup and all addresses count as one wait.

    Args:
        relay: with one host. sock: connected already; owned by this call from now on, and closed with the connection.
    Raises:
        ConnectFailed: with advice. CertificateRefused: it is not valid, or not the one that is pinned.
        InvalidArgument: the socket is not connected, or was used before.
        MissingDependency: the packages for a proxy are not installed.
        StartTlsInjection: an opener's streams held bytes in clear before the handshake.
    """
    implicit = relay.security is Security.IMPLICIT_TLS
    if sock is not None:
        _check_socket(sock)
    try:
        context = await tls_context(relay) if implicit else None
    except BaseException:
        if sock is not None:
            sock.close()
        raise
    limit = relay.timeouts.connect + (relay.timeouts.tls if implicit else 0.0)
    try:
        async with asyncio.timeout(limit):
            return await _open_streams(relay, sock, context)
    except TimeoutError as error:
        raise ConnectFailed(
            f"{relay} did not answer within {limit:g} s: check the host, the port and the firewall"
        ) from error
    except SMTPError:
        raise
    except ssl.SSLError as error:
        raise _handshake_error(relay, error) from error
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {relay}: {_reason(error)}") from error


async def _open_streams(relay: Relay, sock: socket.socket | None, context: ssl.SSLContext | None) -> Streams:
    if sock is None and relay.opener is not None:
        opened = await _call_opener(relay, relay.opener)
        if not isinstance(opened, socket.socket):
            return await _on_streams(relay, opened, context)
        sock = opened
    if sock is None and relay.unix_path is None:
        host, port = relay.address
        timeout, source = relay.timeouts.connect, relay.source_address
        if relay.proxy is not None:
            sock = await connect_through(relay.proxy, host, port, timeout=timeout, source=source)
        else:
            sock = await connect_tcp(host, port, source)
    return await _on_socket(relay, sock, context)


async def _on_socket(relay: Relay, sock: socket.socket | None, context: ssl.SSLContext | None) -> Streams:
    """Open streams on a socket that is connected, or on the relay's own Unix socket."""
    tls: dict[str, Any] = {
        "ssl": context,
        "server_hostname": _certified_name(relay) if context else None,
        "ssl_handshake_timeout": relay.timeouts.tls if context else None,
        "ssl_shutdown_timeout": relay.timeouts.close if context else None,
    }
    if sock is None:
        loop, path = asyncio.get_running_loop(), os.fsdecode(relay.unix_path or "")
        streams = await open_streams(lambda make: loop.create_unix_connection(make, path, **tls))
    else:
        streams = await _adopt(sock, **tls)
    if context is not None:
        _check_certificate(relay, streams[1])
    return streams


async def _adopt(sock: socket.socket, **tls: Any) -> Streams:
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    connects: Any = loop.create_unix_connection if sock.family == socket.AF_UNIX else loop.create_connection
    try:
        return await open_streams(lambda make: connects(make, sock=sock, **tls))
    except BaseException:
        if not isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop):
            sock.detach()  # uvloop 0.19 closes its file descriptor behind its back
        raise


async def _call_opener(relay: Relay, opener: Opener) -> socket.socket | OpenedStreams:
    """Return what the relay's opener returns, if it is something we can use."""
    try:
        opened = await opener(*relay.address)
    except (SMTPError, OSError):
        raise
    except Exception as error:
        why = safe_text(f"{type(error).__name__}: {error}", 200)
        raise ConnectFailed(f"the opener of {relay} failed: {why}") from error
    if isinstance(opened, socket.socket):
        _check_socket(opened)
    elif not (isinstance(opened, tuple) and len(opened) == 2):
        what = type(opened).__name__
        raise InvalidArgument(f"the opener of {relay} returned {what}, not a connected socket or a reader and a writer")
    return opened


async def _on_streams(relay: Relay, streams: OpenedStreams, context: ssl.SSLContext | None) -> Streams:
    """Use the streams of an opener, with TLS on top where the relay has it."""
    reader, writer = streams
    if context is None:
        return PushStreamReader.copying(reader), writer
    try:
        await _check_no_cleartext(reader, writer)
        await start_tls(relay, writer)
    except BaseException:
        writer.transport.abort()
        raise
    return PushStreamReader.copying(reader), writer


async def _check_no_cleartext(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Raise if bytes came before the handshake: they would pass for bytes that came under TLS."""
    cast(asyncio.Transport, writer.transport).pause_reading()  # nothing more comes until the handshake has it
    early = asyncio.ensure_future(reader.read(1))
    await asyncio.sleep(0)
    early.cancel()
    await asyncio.wait((early,))
    if not early.cancelled() and early.result():
        raise StartTlsInjection("bytes in clear came before the TLS handshake: someone may be tampering with it")


def _check_socket(sock: socket.socket) -> None:
    """Raise for a socket that is not connected, and close it: it was given to us."""
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


def _check_certificate(relay: Relay, writer: asyncio.StreamWriter) -> None:
    """Abort the connection if its certificate is not the one that is pinned, before anything is sent under it."""
    try:
        tls = writer.get_extra_info("ssl_object")
        if tls is None:
            raise ConnectFailed(f"the TLS handshake with {relay} broke off: it hung up")
        found = _fingerprint(tls)
        if relay.pins and found not in relay.pins:
            raise CertificateRefused(
                f"the certificate of {relay} is not the one that is pinned: its SHA-256 is {found}; "
                "if it was renewed, pin that, else someone may be tampering with the connection",
                found,
            )
    except BaseException:
        writer.transport.abort()
        raise


async def start_tls(relay: Relay, writer: asyncio.StreamWriter) -> None:
    """Upgrade the connection, for instance after the 220 to STARTTLS.

    Raises:
        ConnectFailed: the handshake failed; nothing falls back to clear text.
        CertificateRefused: the certificate is not valid, or not the one that is pinned.
    """
    context = await tls_context(relay)
    plain = writer.transport
    try:
        await writer.start_tls(
            context, server_hostname=_certified_name(relay), ssl_handshake_timeout=relay.timeouts.tls
        )
    except ssl.SSLError as error:
        raise _handshake_error(relay, error) from error
    except OSError as error:
        raise ConnectFailed(f"the TLS handshake with {relay} broke off: {_reason(error)}") from error
    except AttributeError as error:
        if writer.transport is not None:
            raise
        # asyncio's streams fail at a hang-up during the handshake: they get no transport, and need one to be closed
        vars(writer)["_transport"] = plain
        raise ConnectFailed(f"the TLS handshake with {relay} broke off: it hung up") from error
    _check_certificate(relay, writer)


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "this host name is not known: check its spelling"
    if isinstance(error, ConnectionRefusedError):
        return "nothing answers there: check host and port, or the socket, and that the relay is running"
    return error.strerror or str(error) or type(error).__name__


def client_name(writer: asyncio.StreamWriter) -> str:
    """Return the address literal of our end of the connection; a name lookup could block (RFC 5321 §4.1.3).

    Our end of a Unix socket has no address but this machine's own.
    """
    name = writer.get_extra_info("sockname")
    address = name[0] if isinstance(name, tuple) else "127.0.0.1"
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"


# --- TLS ---


async def tls_context(relay: Relay) -> ssl.SSLContext:
    """Return the relay's own context, or one that verifies; made once, in a thread (it reads files).

    A client certificate that was renewed is read again.

    Raises:
        ConnectFailed: a file cannot be used.
    """
    if relay.context is not None:
        return relay.context
    return await asyncio.to_thread(_context, relay.ca_file, relay.client_certificate, relay.verify)


def _context(ca_file: str | Path | None, certificate: ClientCertificate | None, verify: bool) -> ssl.SSLContext:
    return _create_context(ca_file, certificate, verify, _modified_at(certificate))


@lru_cache(maxsize=8)
def _create_context(
    ca_file: str | Path | None, certificate: ClientCertificate | None, verify: bool, _: tuple[int, ...]
) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConnectFailed(f"the CA file {ca_file} cannot be used: {error.strerror or error}") from error
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:  # a common name proves no host (RFC 9525 §2); the default still takes it
        context.hostname_checks_common_name = False
    if certificate is not None:
        _load_certificate(context, certificate)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _modified_at(certificate: ClientCertificate | None) -> tuple[int, ...]:
    """Return the times at which its files were last written: they are a part of the cache's key."""
    files = (certificate.file, certificate.key) if certificate is not None else ()
    try:
        return tuple(file.stat().st_mtime_ns for file in files if file is not None)
    except OSError:
        return ()  # loading it raises the better error


def _load_certificate(context: ssl.SSLContext, certificate: ClientCertificate) -> None:
    secret = certificate.passphrase
    try:  # without a passphrase OpenSSL would ask for one at the terminal
        context.load_cert_chain(certificate.file, certificate.key, secret.reveal() if secret is not None else "")
    except (OSError, ssl.SSLError, ValueError) as error:
        files = f"{certificate.file}" + (f" with the key {certificate.key}" if certificate.key else "")
        advice = "give both in PEM, and the key's passphrase where it has one"
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ConnectFailed(f"the client certificate {files} cannot be used ({reason}): {advice}") from None


def verifies(relay: Relay) -> bool:
    """Return whether a handshake with it proves who it is, by a valid certificate or by a pinned one."""
    context = relay.context
    if relay.pins:
        return True
    return relay.verify and (context is None or (context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname))


def _certified_name(relay: Relay) -> str:
    """Return the name that the certificate must carry."""
    return relay.verify_name or relay.address[0]


def tls_info(relay: Relay, tls: ssl.SSLObject | None) -> TlsInfo | None:
    """Return what protects a session; None in clear."""
    if tls is None:
        return None
    cipher = tls.cipher()
    return TlsInfo(tls.version() or "", cipher[0] if cipher else "", verifies(relay), _fingerprint(tls))


def _fingerprint(tls: ssl.SSLObject) -> str:
    return hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()


def _handshake_error(relay: Relay, error: ssl.SSLError) -> ConnectFailed:
    """Return the error of a failed handshake, with advice."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f"{error.verify_message}; give its CA with ca_file=, its real name with verify_name=, or its"
        advice += " fingerprint with pins= and verify=False"
        return CertificateRefused(f"the certificate of {relay} is not valid: {advice}")
    if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
        if relay.security is Security.IMPLICIT_TLS:
            return ConnectFailed(
                f"{relay} does not speak TLS from the first byte: use smtp:// (STARTTLS, often port 587)"
            )
        return ConnectFailed(
            f"the TLS handshake with {relay} met bytes that are no TLS: someone may be tampering with it"
        )
    return ConnectFailed(f"the TLS handshake with {relay} failed: {error.strerror or error}")
