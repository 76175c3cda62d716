"""Connections: names to streams, TLS contexts, and the ways both fail (RFC 8314, RFC 6125)."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from asyncsmtp.client.relay import Relay
from asyncsmtp.errors import ConnectFailed
from asyncsmtp.protocol.opening import Security

__all__ = ["READ_SIZE", "Streams", "client_name", "connect", "shake_hands", "tls_context", "verifies"]

READ_SIZE = 65_536
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(relay: Relay) -> Streams:
    """Open the connection, and TLS where it is implicit; name lookup and all addresses count as one wait.

    Raises:
        ConnectFailed: with what to look at.
    """
    implicit = relay.security is Security.IMPLICIT_TLS
    context = await tls_context(relay) if implicit else None
    limit = relay.timeouts.connect + (relay.timeouts.tls if implicit else 0.0)
    try:
        async with asyncio.timeout(limit):
            return await _open(
                relay,
                limit=READ_SIZE,
                ssl=context,
                server_hostname=_certified_name(relay) if context else None,
                ssl_handshake_timeout=relay.timeouts.tls if context else None,
                ssl_shutdown_timeout=relay.timeouts.close if context else None,
            )
    except TimeoutError as error:
        raise ConnectFailed(
            f"{relay} did not answer within {limit:g} s: check the host, the port and the firewall"
        ) from error
    except ssl.SSLError as error:
        raise handshake_failed(relay, error) from error
    except OSError as error:
        raise ConnectFailed(f"cannot connect to {relay}: {_reason(error)}") from error


async def _open(relay: Relay, **settings: Any) -> Streams:
    if relay.unix_path is not None:
        return await asyncio.open_unix_connection(os.fsdecode(relay.unix_path), **settings)
    host, port = relay.address
    return await asyncio.open_connection(host, port, **settings, **_eyeballs(host))


def _certified_name(relay: Relay) -> str:
    """The name that the certificate must carry."""
    return relay.verify_name or relay.address[0]


def _eyeballs(host: str) -> dict[str, Any]:
    """A head start for each address (RFC 8305), where the loop has it: uvloop tries them one after the other.

    Not where there is but one: cancelled just as it succeeds, asyncio's race forgets to close the winner.
    """
    races = isinstance(asyncio.get_running_loop(), asyncio.BaseEventLoop) and not _is_address(host)
    return {"happy_eyeballs_delay": 0.25} if races else {}


def _is_address(host: str) -> bool:
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


async def shake_hands(relay: Relay, writer: asyncio.StreamWriter) -> None:
    """Upgrade the connection after the 220 to STARTTLS.

    Raises:
        ConnectFailed: the handshake failed; nothing falls back to clear text.
    """
    context = await tls_context(relay)
    plain = writer.transport
    try:
        await writer.start_tls(
            context,
            server_hostname=_certified_name(relay),
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


async def tls_context(relay: Relay) -> ssl.SSLContext:
    """The relay's own context, or one that verifies; made once, away from the event loop (it reads files)."""
    if relay.context is not None:
        return relay.context
    return await asyncio.to_thread(_verifying_context, relay.ca_file)


@lru_cache(maxsize=8)
def _verifying_context(ca_file: Path | None) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConnectFailed(f"the CA file {ca_file} cannot be used: {_reason(error)}") from error
    if ssl.HAS_NEVER_CHECK_COMMON_NAME:  # a common name proves no host (RFC 9525 §2); the default still takes it
        context.hostname_checks_common_name = False
    return context


def verifies(context: ssl.SSLContext | None) -> bool:
    """Whether a handshake with it proves who the relay is; None stands for the default, which does."""
    return context is None or (context.verify_mode is ssl.CERT_REQUIRED and context.check_hostname)


def handshake_failed(relay: Relay, error: ssl.SSLError) -> ConnectFailed:
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = f"{error.verify_message}; give its CA with ca_file, or its real name with verify_name"
        return ConnectFailed(f"the certificate of {relay} is not valid: {advice}")
    if "WRONG_VERSION_NUMBER" in str(error) or "RECORD_LAYER" in str(error):
        if relay.security is Security.IMPLICIT_TLS:
            return ConnectFailed(
                f"{relay} does not speak TLS from the first octet: use smtp:// (STARTTLS, often port 587)"
            )
        return ConnectFailed(
            f"the TLS handshake with {relay} met octets that are no TLS: someone may be tampering with it"
        )
    return ConnectFailed(f"the TLS handshake with {relay} failed: {_reason(error)}")


def _reason(error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return "this host name is not known: check its spelling"
    if isinstance(error, ConnectionRefusedError) or "Connect call failed" in str(error):
        return "nothing answers there: check host and port, or the socket, and that the relay is running"
    return error.strerror or str(error) or type(error).__name__


def client_name(writer: asyncio.StreamWriter) -> str:
    """The address literal of our end of the connection; no name lookup, which could block (RFC 5321 §4.1.3).

    Our end of a Unix socket has no address but this machine's own.
    """
    name = writer.get_extra_info("sockname")
    address = name[0] if isinstance(name, tuple) else "127.0.0.1"
    return f"[IPv6:{address.partition('%')[0]}]" if ":" in address else f"[{address}]"
